"""The pictures people look at first: histograms, profiles along each axis, the mean image, and some events."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch

from data_tools.summary import Summary
from sparsegen.events import Events

__all__ = ["draw"]

_MOST_CLASSES = 6
_BINS = 60
_EVENTS = 8


def draw(summary: Summary, folder: Path) -> list[Path]:
    """Write the pictures of a data set as PNG files.

    Args:
        summary: The data set.
        folder: Where to; made if it does not exist.

    Returns:
        The files.
    """
    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    figures = {"histograms": _histograms(summary), "events": _events(summary)}
    if summary.profiles:
        figures["profiles"] = _profiles(summary)
    if summary.image is not None:
        figures["mean"] = _mean(summary)
    written = []
    for name, figure in figures.items():
        written.append(folder / f"{name}.png")
        figure.savefig(written[-1], dpi=100)
        matplotlib.pyplot.close(figure)
    return written


def _panels(count: int, columns: int, width: float = 4, height: float = 3, **options: Any) -> tuple[Any, list[Any]]:
    from matplotlib import pyplot

    columns = min(columns, count)
    rows = -(-count // columns)
    size = (width * columns, height * rows)
    figure, axes = pyplot.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **options)
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return figure, list(axes.flat[:count])


def _named(summary: Summary, name: str) -> str:
    unit = summary.units.get(name.removesuffix(" per event"), "")
    return f"{name} [{unit}]" if unit else name


def _histograms(summary: Summary) -> Any:
    """Distributions: of events by class, where there are few, then of hits."""
    events = summary.per_event
    figure, axes = _panels(len(events) + len(summary.values), 4)
    labels, classes = summary.labels, summary.source.classes
    split = labels is not None and 1 < len(classes) <= _MOST_CLASSES
    for axis, (name, values) in zip(axes, (events | summary.values).items(), strict=True):
        axis.set_xlabel(_named(summary, name))
        axis.set_yscale("log")
        if not values.size:
            continue
        wide = values.min() > 0 and values.max() > 1e3 * np.median(values)
        axis.set_xscale("log" if wide else "linear")
        low, high = float(values.min()), float(values.max())
        if low == high:
            low, high = low - 0.5, high + 0.5
        bins: Sequence[float] = (np.geomspace if wide else np.linspace)(low, high, _BINS + 1).tolist()
        if split and labels is not None and name in events:
            for k, label in enumerate(classes):
                axis.hist(values[labels == k], bins, histtype="step", label=label)
        else:
            axis.hist(values, bins, histtype="step", color="black")
    if split:
        axes[0].legend(fontsize="small")
    axes[0].set_ylabel("events")
    axes[len(events)].set_ylabel("hits")
    return figure


def _profiles(summary: Summary) -> Any:
    """Mean amount in each cell along each axis."""
    figure, axes = _panels(len(summary.profiles), 3)
    for axis, (name, values) in zip(axes, summary.profiles.items(), strict=True):
        axis.stairs(values, np.arange(len(values) + 1))
        axis.set_xlabel(f"{name} [cells]")
        axis.set_ylabel(f"mean {_named(summary, summary.amount)} per event")
    return figure


def _rows_first(summary: Summary) -> bool:
    """Whether the last two axes are rows, counted downwards, and columns of an image."""
    return tuple(summary.source.axes[-2:]) == ("y", "x")


def _mean(summary: Summary) -> Any:
    figure, (axis,) = _panels(1, 1, 5.5, 4.5)
    image = summary.image
    assert image is not None
    positive = image[image > 0]
    shown = np.where(image > 0, image, np.nan)
    down = _rows_first(summary)
    drawn = axis.imshow(
        shown if down else shown.T,
        origin="upper" if down else "lower",
        norm=matplotlib.colors.LogNorm(positive.min(), positive.max()) if positive.size else None,
    )
    names = [f"{name} [cells]" for name in summary.source.axes[-2:]]
    axis.set_xlabel(names[1] if down else names[0])
    axis.set_ylabel(names[0] if down else names[1])
    figure.colorbar(drawn, label=f"mean {_named(summary, summary.amount)} per event")
    return figure


def _events(summary: Summary) -> Any:
    """Some events, of all classes in turn."""
    source, labels = summary.source, summary.labels
    if labels is None:
        chosen = np.linspace(0, len(source) - 1, min(_EVENTS, len(source))).astype(int)
    else:
        rank = np.empty(len(labels), dtype=np.int64)
        for k in range(len(source.classes)):
            of_class = np.flatnonzero(labels == k)
            rank[of_class] = np.arange(len(of_class))
        chosen = np.lexsort((labels, rank))[:_EVENTS]
    solid = len(source.axes) == 3
    options = {"subplot_kw": {"projection": "3d"}} if solid else {}
    figure, axes = _panels(len(chosen), 4, 3.2, 3.2, **options)
    shown = source[chosen]
    for k, (axis, row) in enumerate(zip(axes, chosen.tolist(), strict=True)):
        events = shown[k]
        _event(axis, events, summary, solid)
        label = "" if labels is None else f"{source.classes[labels[row]]}, "
        axis.set_title(f"{label}{len(events.coords)} hits", fontsize="small")
        axis.tick_params(labelsize="x-small")
    return figure


def _event(axis: Any, events: Events, summary: Summary, solid: bool) -> None:
    places = events.positions.double()
    amount = events.features[:, 0].double().clamp(min=0) if events.columns else torch.ones(len(places))
    largest = float(amount.max()) if len(amount) else 0.0
    # The area of a mark grows with the amount
    size = 1 + 40 * (amount / largest if largest > 0 else amount)
    if not events.columns:
        size = torch.full_like(amount, 2.0)
    dims = [0, 1, 2] if solid else [0, 1] if len(summary.source.axes) > 1 else [0]
    values = [places[:, k].numpy() for k in dims]
    names = [_named(summary, summary.source.axes[k]) for k in dims]
    if not solid and _rows_first(summary):
        values, names = values[::-1], names[::-1]
        axis.invert_yaxis()
    if len(values) == 1:
        values, names = [*values, amount.numpy()], [*names, summary.amount]
    axis.scatter(*values, s=size.numpy(), c=amount.numpy(), cmap="viridis", linewidths=0)
    for place, name in zip("xyz", names, strict=False):
        getattr(axis, f"set_{place}label")(name, fontsize="small")
    if solid:
        axis.set_box_aspect(None, zoom=0.85)
    if summary.source.grid is not None:
        bounds = [(summary.source.grid.low[k], summary.source.grid.high[k]) for k in dims]
        bounds = bounds[::-1] if not solid and _rows_first(summary) else bounds
        for place, (low, high) in zip("xyz", bounds, strict=False):
            down = place == "y" and not solid and _rows_first(summary)
            getattr(axis, f"set_{place}lim")(*((high, low) if down else (low, high)))
