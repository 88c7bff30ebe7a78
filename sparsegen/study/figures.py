"""Pictures of the report: each function draws one figure from plain arrays."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import matplotlib.ticker
import mplhep
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LogNorm, Normalize, SymLogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sparsegen.metrics.spectra import Bins, Spectrum, bulk_edges

__all__ = [
    "COLOURS",
    "Histogram",
    "Panel",
    "as_png",
    "as_svg",
    "event_rows",
    "histograms",
    "mean_images",
    "overlays",
    "quality",
    "curves",
]

Array = NDArray[np.float64]

COLOURS = {"sparse": "#d1495b", "dense": "#2e6fb7", "points": "#2a9d6f", "pointnet": "#8a5cc2", "none": "#8d8d8d"}
"""The colour of each family in every figure; families without one take the next of :data:`_SPARE`."""
_SPARE = ("#e08e2b", "#3aa5b5", "#a0522d", "#c155a5")
PIXELS = 96
"""CSS pixels an inch: at this width a figure's letters have the size of the page's."""
_INK, _SOFT, _GRID = "#20252b", "#6b7480", "#e4e7eb"

_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": "#9aa2ab",
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9.5,
    "axes.titlecolor": _INK,
    "text.color": _INK,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.fonttype": "path",
    # The same study gives the same file.
    "svg.hashsalt": "sparsegen",
}


def colour(family: str, position: int = 0) -> str:
    """The colour of a family."""
    return COLOURS.get(family, _SPARE[position % len(_SPARE)])


def _figure(width: float, height: float) -> Figure:
    with matplotlib.rc_context(_STYLE):
        return Figure(figsize=(width, height), layout="constrained")


def _encoded(figure: Figure, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(buffer, format=kind, **options)
    mime = "image/svg+xml" if kind == "svg" else f"image/{kind}"
    return f"data:{mime};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def as_svg(figure: Figure) -> str:
    """A figure as a data address of SVG: for lines."""
    return _encoded(figure, "svg", metadata={"Date": None})


def as_png(figure: Figure) -> str:
    """A figure as a data address of PNG, sharp on dense screens too: for pictures of many cells."""
    return _encoded(figure, "png", dpi=2 * PIXELS, metadata={"Software": None})


@dataclass(frozen=True)
class Panel:
    """A picture and what stands above it.

    Args:
        title: What stands above.
        image: ``(rows, columns)``; the first axis is drawn upwards.
    """

    title: str
    image: Array


def _picture(axes: Axes, panel: Panel, norm: Normalize, cmap: str | Colormap) -> matplotlib.image.AxesImage:
    drawn = axes.imshow(panel.image.T, origin="lower", norm=norm, cmap=cmap, interpolation="nearest", aspect="auto")
    axes.set_title(panel.title, pad=3)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color("#c9ced4")
    axes.set_box_aspect(1)
    return drawn


def mean_images(real: Panel, generated: Sequence[Sequence[Panel]], unit: str) -> Figure:
    """Mean images of real and generated events, and below each its difference from the real one.

    Args:
        real: The real mean image.
        generated: Rows of generated mean images, a row a model.
        unit: What a cell holds, for the colour bar.
    """
    columns = max(len(row) for row in generated)
    with matplotlib.rc_context(_STYLE):
        figure = _figure(min(11.2, 2.15 * (columns + 1) + 0.9), 4.3 * len(generated))
        grid = figure.subplots(2 * len(generated), columns + 1, squeeze=False)
        top = float(real.image.max()) or 1.0
        norm = LogNorm(top * 1e-5, top, clip=True)
        spread = SymLogNorm(linthresh=top * 1e-4, vmin=-top, vmax=top)
        for i, row in enumerate(generated):
            upper, lower = grid[2 * i], grid[2 * i + 1]
            first = _picture(upper[0], real, norm, "magma_r")
            lower[0].axis("off")
            second = None
            for j in range(columns):
                if j >= len(row):
                    upper[j + 1].axis("off")
                    lower[j + 1].axis("off")
                    continue
                _picture(upper[j + 1], row[j], norm, "magma_r")
                second = _picture(lower[j + 1], Panel("generated − real", row[j].image - real.image), spread, "RdBu_r")
            figure.colorbar(first, ax=list(upper), shrink=0.85, pad=0.01, label=f"mean {unit}")
            if second is not None:
                bar = figure.colorbar(second, ax=list(lower), shrink=0.85, pad=0.01, label="difference")
                steps = [10.0**k for k in range(-9, 9, 2) if 3e-4 * top < 10.0**k < top]
                bar.set_ticks([-x for x in reversed(steps)] + [0.0, *steps])
                bar.minorticks_off()
    return figure


def event_rows(rows: Sequence[tuple[str, Sequence[Array]]], unit: str) -> Figure:
    """Single events, a row a generator.

    Args:
        rows: Heading and images of each row.
        unit: What a cell holds.
    """
    columns = max(len(images) for _, images in rows)
    with matplotlib.rc_context(_STYLE):
        figure = _figure(1.12 * columns + 2.0, 1.12 * len(rows) + 0.1)
        grid = figure.subplots(len(rows), columns, squeeze=False)
        top = max(float(image.max()) for _, images in rows[:1] for image in images) or 1.0
        norm = LogNorm(top * 1e-4, top, clip=True)
        cmap = matplotlib.colormaps["magma_r"].with_extremes(bad="#ffffff")
        drawn = None
        for i, (heading, images) in enumerate(rows):
            for j in range(columns):
                axes = grid[i][j]
                if j >= len(images):
                    axes.axis("off")
                    continue
                shown = np.ma.masked_where(images[j] == 0, images[j])
                drawn = _picture(axes, Panel("", shown), norm, cmap)
            grid[i][0].set_ylabel(heading, rotation=0, ha="right", va="center", labelpad=8)
        if drawn is not None:
            figure.colorbar(drawn, ax=grid.ravel().tolist(), shrink=0.6, pad=0.01, label=unit)
    return figure


@dataclass(frozen=True)
class Histogram:
    """One sample of one observable.

    Args:
        label: Its name in the legend.
        values: One an event.
        colour: Of its line.
        style: Of its line, as matplotlib has it.
    """

    label: str
    values: Array
    colour: str
    style: str = "-"


def histograms(observables: Mapping[str, tuple[Array, Sequence[Histogram]]], bins: int = 40) -> Figure:
    """Densities of observables, real filled, generated as lines, with their ratio to real below.

    Args:
        observables: Label of the horizontal axis -> real values and generated samples.
        bins: At most so many.
    """
    with matplotlib.rc_context(_STYLE):
        figure = _figure(min(11.2, 2.8 * len(observables)), 3.6)
        grid = figure.subplots(2, len(observables), height_ratios=(3, 1), sharex="col", squeeze=False)
        for column, (label, (real, samples)) in enumerate(observables.items()):
            axis = Bins(bulk_edges(real, bins), label)
            edges = axis.edges
            upper, lower = grid[0][column], grid[1][column]
            density, error = Spectrum(real, axis).density()
            mplhep.histplot(density, edges, ax=upper, histtype="fill", color="#d5dae0", label="real")
            mplhep.histplot(density, edges, ax=upper, histtype="step", color="#7d8793", linewidth=0.9)
            with np.errstate(divide="ignore", invalid="ignore"):
                relative = np.where(density > 0, error / density, np.nan)
                band = np.append(relative, relative[-1])
                lower.fill_between(edges, 1 - band, 1 + band, step="post", color="#d5dae0", linewidth=0)
                for sample in samples:
                    finite = sample.values[np.isfinite(sample.values)]
                    height, deviation = Spectrum(finite, axis).density()
                    line = {"color": sample.colour, "linestyle": sample.style, "linewidth": 1.4}
                    mplhep.histplot(height, edges, ax=upper, histtype="step", label=sample.label, **line)
                    ratio = np.where(density > 0, height / density, np.nan)
                    mplhep.histplot(ratio, edges, ax=lower, histtype="step", edges=False, **line | {"linewidth": 1.1})
                    centres = (edges[1:] + edges[:-1]) / 2
                    yerr = np.where(density > 0, deviation / density, np.nan)
                    lower.errorbar(centres, ratio, yerr, fmt="none", ecolor=sample.colour, elinewidth=0.6, alpha=0.7)
            lower.axhline(1.0, color="#7d8793", linewidth=0.8)
            lower.set_ylim(0, 2)
            lower.set_xlabel(label)
            upper.set_xlim(edges[0], edges[-1])
            top = float(density.max())
            upper.set_ylim(0, 1.6 * top)
            upper.set_yticks([])
            for axes in (upper, lower):
                axes.grid(axis="y", color=_GRID, linewidth=0.6)
                axes.set_axisbelow(True)
        grid[0][0].set_ylabel("events (density)")
        grid[1][0].set_ylabel("ratio")
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=len(labels))
    return figure


def overlays(pairs: Mapping[str, tuple[Spectrum, Spectrum]], columns: int = 4) -> Figure:
    """Generated histograms as lines over real ones, filled, with their ratio below.

    Args:
        pairs: Label -> generated and real histogram over the same bins.
        columns: Panels side by side.
    """
    with matplotlib.rc_context(_STYLE):
        rows = -(-len(pairs) // columns)
        figure = _figure(2.8 * min(columns, len(pairs)), 3.0 * rows + 0.3)
        grid = figure.subplots(2 * rows, min(columns, len(pairs)), height_ratios=(3, 1) * rows, squeeze=False)
        for i, (label, (ours, real)) in enumerate(pairs.items()):
            upper, lower = (grid[2 * (i // columns) + k][i % columns] for k in range(2))
            # Densities that count what lies outside the bins, so that the upper panel and the ratio say the same.
            (height, deviation), (density, error) = ours.density(), real.density()
            edges = real.axes[0].edges
            mplhep.histplot(density, edges, ax=upper, histtype="fill", color="#d5dae0", label="real")
            line = {"color": COLOURS["sparse"], "linewidth": 1.3}
            mplhep.histplot(height, edges, ax=upper, histtype="step", label="generated", **line)
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio, bar, band = (np.where(density > 0, x / density, np.nan) for x in (height, deviation, error))
            band = np.append(band, band[-1])
            lower.fill_between(edges, 1 - band, 1 + band, step="post", color="#d5dae0", linewidth=0)
            lower.errorbar((edges[1:] + edges[:-1]) / 2, ratio, bar, fmt=".", color=COLOURS["sparse"], markersize=3)
            lower.axhline(1.0, color="#7d8793", linewidth=0.8)
            lower.set_ylim(0, 2)
            lower.set_xlabel(label)
            upper.set_xlabel("")
            upper.set_yticks([])
            upper.set_ylim(0, 1.35 * upper.get_ylim()[1])
            for axes in (upper, lower):
                axes.set_xlim(edges[0], edges[-1])
                axes.grid(axis="y", color=_GRID, linewidth=0.6)
                axes.set_axisbelow(True)
            upper.tick_params(labelbottom=False)
        for axes in grid[-2:, (len(pairs) - 1) % columns + 1 :].ravel() if len(pairs) > columns else ():
            axes.axis("off")
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=2)
    return figure


@dataclass(frozen=True)
class Point:
    """A generator in the overview of quality.

    Args:
        label: Its name.
        values: One a seed, as multiples of the floor.
        colour: Of its marks.
    """

    label: str
    values: Sequence[float]
    colour: str


def quality(columns: Mapping[str, Sequence[Point]], baselines: Mapping[str, float]) -> Figure:
    """Multiples of the floor of every generator, one mark a seed and a bar for the mean.

    Args:
        columns: Heading -> generators.
        baselines: Heading -> the trivial generator's multiple, drawn as a line.
    """
    rows = max(len(points) for points in columns.values())
    with matplotlib.rc_context(_STYLE):
        figure = _figure(5.6 * len(columns), 0.34 * rows + 1.0)
        grid = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
        for axes, (heading, points) in zip(grid, columns.items(), strict=True):
            axes.set_xscale("log")
            axes.axvline(1, color="#2a9d6f", linewidth=1.2)
            shown = [v for p in points for v in p.values if v > 0]
            if heading in baselines:
                axes.axvline(baselines[heading], color="#8d8d8d", linewidth=1.2, linestyle="--")
                shown.append(baselines[heading])
            for row, point in enumerate(points):
                values = [v for v in point.values if v > 0]
                if values:
                    mean = float(np.mean(values))
                    axes.plot([1, mean], [row, row], color=point.colour, linewidth=6, alpha=0.18, solid_capstyle="butt")
                    axes.plot([mean], [row], "|", color=point.colour, markersize=13, markeredgewidth=2)
                    axes.plot(values, [row] * len(values), "o", color=point.colour, markersize=4.5, alpha=0.85)
                else:
                    axes.text(1.05, row, "no value", va="center", fontsize=8, color=_SOFT)
            axes.set_yticks(range(len(points)), [p.label for p in points], color=_INK)
            axes.set_ylim(len(points) - 0.4, -0.6)
            axes.set_xlim(min([0.8, *shown]) * 0.9, max([3.0, *shown]) * 1.25)
            axes.set_title(heading, loc="left")
            axes.set_xlabel("multiple of the real-against-real floor")
            axes.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda x, _: f"{x:g}×"))
            axes.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
            axes.tick_params(axis="y", length=0)
            axes.grid(axis="x", which="both", color=_GRID, linewidth=0.6)
            axes.set_axisbelow(True)
    return figure


@dataclass(frozen=True)
class Curve:
    """One quantity of one run.

    Args:
        label: Its name in the legend; runs of one name share it.
        epochs: Where it was noted.
        values: What was noted.
        colour: Of its line.
    """

    label: str
    epochs: Array
    values: Array
    colour: str


def curves(panels: Mapping[str, Sequence[Curve]]) -> Figure:
    """Training curves: a panel a quantity, a line a run."""
    with matplotlib.rc_context(_STYLE):
        columns = min(4, len(panels))
        rows = -(-len(panels) // columns)
        figure = _figure(2.8 * columns, 2.0 * rows + 0.3)
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        handles: dict[str, Artist] = {}
        for axes, (title, lines) in zip(grid, panels.items(), strict=False):
            for curve in lines:
                (line,) = axes.plot(curve.epochs, curve.values, color=curve.colour, linewidth=1.1, alpha=0.85)
                handles.setdefault(curve.label, line)
            values = np.concatenate([curve.values[np.isfinite(curve.values)] for curve in lines])
            if len(values):
                low, high = np.quantile(values, [0.01, 0.99])
                pad = 0.12 * (high - low) or 0.1 * max(abs(high), 1e-6)
                axes.set_ylim(low - pad, high + pad)
            axes.set_title(title, loc="left")
            axes.grid(color=_GRID, linewidth=0.6)
            axes.set_axisbelow(True)
        for axes in grid[len(panels) :]:
            axes.axis("off")
        for axes in grid[max(0, len(panels) - columns) : len(panels)]:
            axes.set_xlabel("epoch")
        figure.legend(list(handles.values()), list(handles), loc="outside upper left", ncols=len(handles))
    return figure
