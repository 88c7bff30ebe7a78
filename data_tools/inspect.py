"""``inspect``: a data set on one screen, and the pictures people look at first."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray

from data_tools.verb import Verb, open_all, pieces, source_arguments
from sparsegen.data import FileSource
from sparsegen.data.formats import recognise
from sparsegen.events import Events

__all__ = ["INSPECT", "Summary"]

_QUANTILES = (0.0, 0.01, 0.5, 0.99, 1.0)


class Summary:
    """What one pass over a source collects.

    Attributes:
        multiplicity: Hits of each event.
        totals: Sum of each additive column over each event.
        values: A sample of each axis and column, at most ``sample`` values, evenly from all pieces.
        conditions: Values of each condition.
        occupancy: Active fraction of the lattice of each event; empty without a lattice.
    """

    def __init__(self, source: FileSource, sample: int = 200_000) -> None:
        self.source = source
        self._sample = sample
        self._generator = np.random.default_rng(0)
        self._image: NDArray[np.float64] | None = None
        multiplicity, occupancy, conditions = [], [], []
        totals: dict[str, list[torch.Tensor]] = {c.name: [] for c in source.columns if c.additive}
        values: dict[str, list[NDArray[np.float32]]] = {
            name: [] for name in (*source.axes, *(c.name for c in source.columns))
        }
        for positions, events in pieces(source):
            multiplicity.append(events.counts)
            for name, parts in totals.items():
                parts.append(events.total(name))
            self._take_values(events, values, len(positions) / len(source))
            if events.condition is not None:
                conditions.append(events.condition)
            if source.grid is not None:
                cells = events if events.is_cells else events.voxelize(source.grid, outside="drop")[0]
                valid = source.grid.cells if source.grid.valid is None else int(source.grid.valid.sum())
                occupancy.append(cells.counts / valid)
                self._add_image(cells)
        self.multiplicity = torch.cat(multiplicity).numpy()
        self.totals = {name: torch.cat(parts).numpy() for name, parts in totals.items()}
        self.values = {name: np.concatenate(parts) for name, parts in values.items()}
        self.occupancy = torch.cat(occupancy).numpy() if occupancy else np.empty(0)
        stacked = torch.cat(conditions).numpy() if conditions else np.empty((0, 0))
        self.conditions = {name: stacked[:, k] for k, name in enumerate(source.conditions)}

    @property
    def image(self) -> NDArray[np.float64] | None:
        """Mean of the first additive column over the last two axes of the lattice."""
        return None if self._image is None else self._image / len(self.source)

    def _take_values(self, events: Events, values: dict[str, list[NDArray[np.float32]]], share: float) -> None:
        size = min(len(events.coords), max(1, int(self._sample * share)))
        chosen = torch.from_numpy(self._generator.choice(len(events.coords), size, replace=False))
        positions = events.positions[chosen]
        for axis, name in enumerate(events.axes):
            values[name].append(positions[:, axis].float().numpy())
        for column in events.columns:
            values[column.name].append(events.column(column.name)[chosen].float().numpy())

    def _add_image(self, cells: Events) -> None:
        additive = [k for k, column in enumerate(cells.columns) if column.additive]
        if cells.grid is None or cells.grid.dim < 2 or not additive:
            return
        shape = cells.grid.shape[-2:]
        if self._image is None:
            self._image = np.zeros(shape)
        place = (cells.coords[:, -2] * shape[1] + cells.coords[:, -1]).numpy()
        weights = cells.features[:, additive[0]].double().numpy()
        self._image += np.bincount(place, weights, minlength=shape[0] * shape[1]).reshape(shape)


def _row(name: str, unit: str, values: NDArray[np.floating]) -> None:
    if len(values):
        numbers = [float(values.mean()), float(values.std()), *np.quantile(values, _QUANTILES).tolist()]
        print(f"{name:<22} {unit:<5}" + "".join(f"{number:>11.4g}" for number in numbers))


def _print(summary: Summary) -> None:
    source = summary.source
    path = source.reader.path
    facts = {
        "format": f"{recognise(path).description}, {path.stat().st_size / 1e6:,.1f} MB",
        "events": f"{len(source):,} of {source.reader.rows:,} rows",
        "hits": f"{int(summary.multiplicity.sum()):,} {'cells' if source.reader.is_cells else 'points'}"
        f", {int((summary.multiplicity == 0).sum()):,} events without",
        "splits": ", ".join(f"{name} {len(source.reader.split_rows(name)):,}" for name in source.reader.splits),
        "lattice": str(source.grid or ""),
    }
    labels = source.labels
    if labels is not None:
        counts = labels.bincount(minlength=len(source.classes)).tolist()
        facts["classes"] = ", ".join(f"{name} {n:,}" for name, n in zip(source.classes, counts, strict=True))
    for name, text in facts.items():
        if text:
            print(f"{name:<9}{text}")
    names = ("mean", "std", "min", "1 %", "median", "99 %", "max")
    print(f"\n{'':<22} {'unit':<5}" + "".join(f"{name:>11}" for name in names))
    units = dict(zip(source.axes, source.grid.units, strict=True)) if source.grid is not None else {}
    units |= {column.name: column.unit for column in source.columns}
    _row("multiplicity", "hits", summary.multiplicity)
    _row("occupancy", "", summary.occupancy)
    for name, totals in summary.totals.items():
        _row(f"{name} per event", units[name], totals)
    for name, sampled in summary.values.items():
        _row(name, units.get(name, ""), sampled)
    for name, given in summary.conditions.items():
        _row(name, "", given)


def _plot(summary: Summary, folder: Path) -> list[Path]:
    """Histograms of what was summarised, the mean image, and some events."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    histograms: dict[str, NDArray[np.floating]] = {"multiplicity": summary.multiplicity.astype(float)}
    histograms |= {f"{name} per event": totals for name, totals in summary.totals.items()} | summary.values
    columns = 3
    rows = -(-len(histograms) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(4 * columns, 3 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(histograms) :]:
        axis.set_visible(False)
    for axis, (name, values) in zip(axes.flat, histograms.items(), strict=False):
        wide = values.size > 0 and values.min() > 0 and values.max() > 1e3 * np.median(values)
        bins: int | Sequence[float] = np.geomspace(values.min(), values.max(), 60).tolist() if wide else 60
        axis.hist(values, bins, histtype="step")
        axis.set_xlabel(name)
        axis.set_yscale("log")
        axis.set_xscale("log" if wide else "linear")
    written = [folder / "histograms.png"]
    figure.savefig(written[0], dpi=100)
    pyplot.close(figure)
    if summary.image is not None:
        figure, axis = pyplot.subplots(figsize=(5, 4), layout="constrained")
        positive = summary.image[summary.image > 0]
        shown = axis.imshow(
            np.where(summary.image > 0, summary.image, np.nan).T,
            origin="lower",
            norm=matplotlib.colors.LogNorm(positive.min(), positive.max()) if positive.size else None,
        )
        axis.set_xlabel(f"{summary.source.axes[-2]} [cells]")
        axis.set_ylabel(f"{summary.source.axes[-1]} [cells]")
        figure.colorbar(shown, label="mean per event")
        written.append(folder / "mean.png")
        figure.savefig(written[-1], dpi=100)
        pyplot.close(figure)
    return written


def _arguments(parser: argparse.ArgumentParser) -> None:
    source_arguments(parser)
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="also write histograms and the mean image there")


def _run(options: argparse.Namespace) -> int:
    summary = Summary(open_all(options.input, options.format))
    _print(summary)
    if options.plots:
        for path in _plot(summary, options.plots):
            print(path)
    return 0


INSPECT = Verb("format, counts, units, ranges, occupancy and energy on one screen", _arguments, _run)
