"""What events look like as images: sharpness, spectra of cells, sparsity of layers.

References:
    Wasserstein auto-encoders, Tolstikhin et al., 2018, https://arxiv.org/abs/1711.01558 (sharpness by a Laplace filter)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparsegen.errors import DataError
from sparsegen.events import Events
from sparsegen.grid import Grid
from sparsegen.metrics.comparison import compare_observable
from sparsegen.metrics.features import collect_pair
from sparsegen.metrics.inputs import EventsLike, additive_column, jet_lattice, warn_small
from sparsegen.metrics.metric import TooFewError, metric
from sparsegen.metrics.observations import Observable, Reading
from sparsegen.metrics.protocol import Protocol, resolve
from sparsegen.metrics.resampling import split_halves, subsampled_error
from sparsegen.result import Result

__all__ = ["laplace_variance", "sharpness", "w1_cells"]

Array = NDArray[np.float64]


def laplace_variance(images: Tensor, periodic: tuple[bool, ...] = ()) -> Tensor:
    r"""Variance of the discrete Laplacian of each image ``(B,)``: large for sharp ones, small for blurred ones.

    .. math:: (\Delta x)_i = \sum_{j \sim i} x_j - 2 D x_i

    Args:
        images: ``(B, *shape)`` with D axes; zero beyond the edges.
        periodic: Which axes wrap, one flag each; none by default.
    """
    x = images.double()
    flags = periodic or (False,) * (x.ndim - 1)
    out = torch.zeros_like(x)
    for axis, wraps in enumerate(flags, start=1):
        for shift in (1, -1):
            neighbour = x.roll(shift, axis)
            if not wraps:
                edge = 0 if shift == 1 else x.shape[axis] - 1
                neighbour.select(axis, edge).zero_()
            out += neighbour - x
    return out.flatten(1).var(1, unbiased=False)


def _cells(events: Events, grid: Grid) -> tuple[Events, int]:
    """The events on a lattice, and the hits outside it."""
    if events.is_cells and events.grid == grid:
        return events, 0
    points = events.devoxelize("centre") if events.is_cells else events
    cells, dropped = points.voxelize(grid, outside="drop")
    return cells, int(dropped.sum())


@metric("sharpness", needs=("lattice",))
def sharpness(
    generated: EventsLike,
    reference: EventsLike,
    *,
    grid: Grid | None = None,
    protocol: Protocol | str | None = None,
    seed: int = 0,
) -> Result:
    """Laplace sharpness of generated images over that of real ones: below 1 they are blurred.

    Each image is divided by its energy first, so that only its shape counts.

    Args:
        generated: Generated events.
        reference: Real events.
        grid: The lattice; the reference's own, or 25 x 25 over ``[-0.8, 0.8]^2``.
        protocol: A :class:`Protocol` or its name.
        seed: Of resamples and splits.
    """
    setting = resolve(protocol)
    if len(reference) == 0:
        raise DataError("sharpness: no reference events")
    lattice = jet_lattice(reference[0:1], grid)

    def read(events: Events) -> Array:
        cells, _ = _cells(events, lattice)
        dense = cells.to_dense()[:, cells.index_of(additive_column(cells))].double()
        total = dense.flatten(1).sum(1).clamp_min(torch.finfo(torch.float64).tiny)
        return laplace_variance(dense / total.view(-1, *[1] * lattice.dim), lattice.periodic).numpy()[:, None]

    ours, theirs = collect_pair(generated, reference, read, invalid=setting.invalid)
    x, y = ours.values[:, 0], theirs.values[:, 0]
    if min(len(x), len(y)) < 4:
        raise TooFewError(f"sharpness: {len(x)} generated and {len(y)} reference events; use 4 or more")
    if y.mean() == 0:
        raise DataError("sharpness: the reference images are flat; choose a finer lattice")
    rng = np.random.default_rng([seed, 0])
    ratio = lambda a, b: float(a.mean() / b.mean())
    floors = [ratio(y[a], y[b]) for a, b in split_halves(len(y), setting.pairs, rng)]
    note: dict[str, Any] = {
        "name": setting.name,
        "events": [len(x), len(y)],
        "grid": repr(lattice),
        "reference_invalid": theirs.invalid,
        "seed": seed,
        "error": f"{setting.resamples} subsamples of a fifth of the events",
        "floor": f"mean of {setting.pairs} splits of the reference into halves",
    }
    warn_small("sharpness", min(len(x), len(y)), 30, note)
    error = subsampled_error(lambda i, j: ratio(x[i], y[j]), (len(x), len(y)), setting.resamples, rng)
    return Result("sharpness", ratio(x, y), error, len(x), note, float(np.mean(floors)), ours.invalid, True)


@metric("w1_cells", needs=("lattice",))
def w1_cells(
    generated: EventsLike,
    reference: EventsLike,
    *,
    grid: Grid | None = None,
    protocol: Protocol | str | None = None,
    seed: int = 0,
) -> Result:
    """W1 of the spectrum of cell energies, in decades: of log10 over all cells with energy.

    Args:
        generated: Generated events.
        reference: Real events.
        grid: The lattice; the reference's own, or 25 x 25 over ``[-0.8, 0.8]^2``.
        protocol: A :class:`Protocol` or its name.
        seed: Of resamples and splits.
    """
    if len(reference) == 0:
        raise DataError("w1_cells: no reference events")
    lattice = jet_lattice(reference[0:1], grid)

    def read(events: Events) -> Reading:
        cells, dropped = _cells(events, lattice)
        energy = cells.column(additive_column(cells)).double()
        active = energy > 0
        counts = cells.sum_hits(active.long())
        return Reading(energy[active].log10().numpy()[:, None], counts.numpy(), dropped)

    observable = Observable(("log10 energy",), read, note={"features": "log10 of cell energies", "grid": repr(lattice)})
    return compare_observable("w1_cells", generated, reference, observable, protocol=protocol, seed=seed)
