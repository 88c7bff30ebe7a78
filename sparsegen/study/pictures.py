"""What the report shows: samples of each generator turned into the figures of :mod:`sparsegen.study.figures`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sparsegen import data
from sparsegen.errors import DataError
from sparsegen.events import Events
from sparsegen.metrics import jet_mass, occupied_cells
from sparsegen.study import figures
from sparsegen.study.evaluation import SAMPLES, metrics_rows
from sparsegen.study.executor import Finished
from sparsegen.study.figures import PIXELS, Curve, Histogram, Panel, Point
from sparsegen.study.page import Section, picture
from sparsegen.study.statistics import Group, groups
from sparsegen.study.tables import shown_metrics, status_text

__all__ = ["Sample", "group_colour", "load_samples", "sections"]

Array = NDArray[np.float64]

_EXAMPLES = 8
_BOOKKEEPING = ("step", "epoch", "stage", "seconds", "events_per_second", "skipped")
_RATIO = "generated / real"
_MONITORS = ("hits", "total", "diversity")


@dataclass(frozen=True)
class Sample:
    """Events of one generator, as they were generated and on the lattice.

    Args:
        group: The generator.
        raw: As generated.
        cells: On the lattice of the evaluation.
    """

    group: Group
    raw: Events
    cells: Events


def load_samples(finished: Finished) -> list[Sample]:
    """The events of each group's first run that ended well."""
    samples = []
    for group in groups(finished):
        for run, outcome in zip(group.runs, group.outcomes, strict=True):
            path = finished.run_folder(run) / SAMPLES
            if outcome.status == "done" and path.exists():
                raw = data.open(path, check=False)[:]
                samples.append(Sample(group, raw, finished.real[run.data].on_lattice(raw)[0]))
                break
    return samples


def group_colour(group: Group) -> str:
    """The colour of a group's family."""
    return figures.colour(group.network, sum(map(ord, group.network)))


def sections(finished: Finished, samples: list[Sample]) -> list[Section]:
    """The sections with pictures, in the order of the page."""
    made = [_quality(finished)]
    for label in finished.real:
        mine = [s for s in samples if s.group.data == label]
        if mine:
            name = f" of {label}" if label else ""
            made += [
                _histograms(finished, label, mine, name),
                _images(finished, label, mine, name),
                _events(finished, label, mine, name),
            ]
    made.append(_curves(finished))
    return [section for section in made if section.body]


def _quality(finished: Finished) -> Section:
    columns: dict[str, list[Point]] = {}
    baselines: dict[str, float] = {}
    for name, heading in shown_metrics(finished).items():
        for group in groups(finished):
            if group.network == "none":
                baselines[heading] = group.metric(name).over_floor
                continue
            values = [r.over_floor for o in group.outcomes if o.status == "done" for r in o.results if r.name == name]
            bad = status_text(group)
            label = f"{group.name} ({bad})" if bad else group.name
            columns.setdefault(heading, []).append(Point(label, values, group_colour(group)))
    if not columns:
        return Section("", "")
    drawn = figures.quality(columns, baselines)
    caption = (
        "Green line: real against real. Dashed: the trivial generator, which draws hits independently. A dot a seed."
    )
    return Section("Quality at a glance", _svg(drawn, "multiples of the floor of each generator", caption))


def _histograms(finished: Finished, label: str, samples: list[Sample], name: str) -> Section:
    real = finished.real[label]
    cells, raw = real.reference[:], real.points[:]
    body = ""
    trivial = [s for s in samples if s.group.network == "none"]
    for model in dict.fromkeys(s.group.model for s in samples if s.group.network != "none"):
        shown = [s for s in samples if s.group.model == model and s.group.network != "none"] + trivial
        lines = {}
        for title, truth, values in _observables(cells, raw, shown):
            lines[title] = (
                truth,
                [
                    Histogram(_short(s.group), v, group_colour(s.group), "--" if s.group.network == "none" else "-")
                    for s, v in values
                ],
            )
        drawn = _svg(figures.histograms(lines), f"distributions of {model} and real events")
        body += f"<h3>{escape(_model_name(model))}</h3>{drawn}"
    note = (
        f"First seed of each generator against all of {real.reference.name}. All but the number of hits is measured on "
        "the common lattice; the number of hits is shown of generators that make hits rather than cells. Bars and "
        "band: one standard deviation."
    )
    return Section(f"Distributions{name}", body, note)


def _observables(
    cells: Events, raw: Events, samples: list[Sample]
) -> list[tuple[str, Array, list[tuple[Sample, Array]]]]:
    """Title, real values and generated values of each observable."""
    additive = [c for c in cells.columns if c.additive]
    found: list[tuple[str, Array, list[tuple[Sample, Array]]]] = []
    try:
        relative = " / jet $p_T$" if additive and additive[0].name == "ptrel" else ""
        found.append(
            (f"jet mass{relative}", jet_mass(cells).numpy(), [(s, jet_mass(s.cells).numpy()) for s in samples])
        )
    except DataError:
        pass  # not jets
    for column in additive:
        unit = f" [{column.unit}]" if column.unit else ""
        words = "jet $p_T$ (relative)" if column.name == "ptrel" else f"total {column.name}{unit}"
        values = [(s, s.cells.total(column.name).double().numpy()) for s in samples]
        found.append((words, cells.total(column.name).double().numpy(), values))
    found.append(
        ("occupied cells", occupied_cells(cells)[0].numpy(), [(s, occupied_cells(s.cells)[0].numpy()) for s in samples])
    )
    hits = [(s, s.raw.counts.double().numpy()) for s in samples if not s.raw.is_cells]
    if hits and not raw.is_cells:
        found.append(("hits per event", raw.counts.double().numpy(), hits))
    return found


def _flat_image(events: Events) -> Array:
    """Mean image of events, summed over all axes but the first two."""
    grid = events.grid
    assert grid is not None
    column = next((i for i, c in enumerate(events.columns) if c.additive), 0)
    total = torch.zeros(grid.cells, dtype=torch.float64)
    total.index_add_(0, grid.ravel(events.coords), events.features[:, column].double())
    image = (total / max(1, len(events))).view(grid.shape)
    while image.ndim > 2:
        image = image.sum(-1)
    return image.numpy() if image.ndim == 2 else image[:, None].numpy()


def _unit(events: Events) -> str:
    column = next((c for c in events.columns if c.additive), events.columns[0])
    return f"{column.name} [{column.unit}]" if column.unit else column.name


def _images(finished: Finished, label: str, samples: list[Sample], name: str) -> Section:
    real = finished.real[label].reference[:]
    rows = []
    for model in dict.fromkeys(s.group.model for s in samples):
        if any(s.group.network != "none" for s in samples if s.group.model == model):
            rows.append([Panel(s.group.name, _flat_image(s.cells)) for s in samples if s.group.model == model])
    trivial = [Panel(s.group.name, _flat_image(s.cells)) for s in samples if s.group.network == "none"]
    if rows and trivial:
        rows[-1] = rows[-1] + trivial
    elif trivial:
        rows = [trivial]
    drawn = figures.mean_images(Panel("real", _flat_image(real)), rows, _unit(real))
    caption = " across, ".join(real.axes[:2]) + " upwards; logarithmic colours."
    text = "mean images of real and generated events and their differences"
    return Section(f"Mean images{name}", _png(drawn, text, caption))


def _events(finished: Finished, label: str, samples: list[Sample], name: str) -> Section:
    real = finished.real[label].reference[:_EXAMPLES]
    rows = [("real", [_flat_image(real[i]) for i in range(len(real))])]
    for s in samples:
        rows.append((s.group.name, [_flat_image(s.cells[i]) for i in range(min(_EXAMPLES, len(s.cells)))]))
    drawn = _png(figures.event_rows(rows, _unit(real)), "single events", "The first of each sample, not chosen.")
    return Section(f"Single events{name}", drawn)


def _curves(finished: Finished) -> Section:
    body = ""
    found = [g for g in groups(finished) if g.network != "none"]
    for data_label, model in dict.fromkeys((g.data, g.model) for g in found):
        panels: dict[str, list[Curve]] = {}
        for group in (g for g in found if (g.data, g.model) == (data_label, model)):
            for run in group.runs:
                for title, (x, y) in _series(finished.run_folder(run)).items():
                    panels.setdefault(title, []).append(Curve(_short(group), x, y, group_colour(group)))
        if panels:
            heading = " ".join(part for part in (data_label, _model_name(model)) if part)
            ordered = {t: panels[t] for t in sorted(panels, key=lambda t: t.startswith(_RATIO))}
            body += f"<h3>{escape(heading)}</h3>" + _svg(figures.curves(ordered), f"training curves of {heading}")
    note = (
        "A line a seed. Losses compare within a family only: each family has its own likelihood. "
        f"{_RATIO}: 1 is right, towards 0 is collapse."
    )
    return Section("Training", body, note)


def _series(folder: Path) -> dict[str, tuple[Array, Array]]:
    """Losses and the collapse monitor of one run over its epochs."""
    values: dict[str, list[tuple[float, float]]] = {}
    for row in metrics_rows(folder):
        for key, value in row.items():
            if key in _BOOKKEEPING or key.startswith("grad_norm/") or row["epoch"] == 0:
                continue
            prefix, _, name = key.rpartition("/")
            if prefix == "monitor":
                if not name.startswith(_MONITORS) or name.endswith("_spread"):
                    continue
                key = f"{_RATIO}: {name.replace('_', ' ')}"
            values.setdefault(key, []).append((row["epoch"], math.nan if value is None else value))
    return {key: (np.array([x for x, _ in pairs]), np.array([y for _, y in pairs])) for key, pairs in values.items()}


def _model_name(model: str) -> str:
    return model.upper() if len(model) <= 4 else model


def _short(group: Group) -> str:
    return "trivial" if group.network == "none" else group.network


def _svg(drawn: Figure, text: str, caption: str = "") -> str:
    return picture(figures.as_svg(drawn), PIXELS * drawn.get_figwidth(), text, caption)


def _png(drawn: Figure, text: str, caption: str = "") -> str:
    return picture(figures.as_png(drawn), PIXELS * drawn.get_figwidth(), text, caption)
