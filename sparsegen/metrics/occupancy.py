"""Where the points of all sets lie together: the Jensen-Shannon divergence of occupancy.

References:
    Learning representations and generative models for 3D point clouds, Achlioptas et al., 2018,
    https://arxiv.org/abs/1707.02392
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from sparsegen.errors import DataError
from sparsegen.events import Events
from sparsegen.grid import Grid
from sparsegen.metrics.inputs import EventsLike, check_comparable, jet_lattice, portions, valid_events, warn_small
from sparsegen.metrics.metric import TooFewError, metric
from sparsegen.metrics.protocol import Protocol, resolve
from sparsegen.metrics.resampling import counted, floor_at, quadratic_error, split_halves
from sparsegen.result import Result

__all__ = ["js_divergence", "jsd"]

Array = NDArray[np.float64]
RESOLUTION = 28


def js_divergence(p: ArrayLike, q: ArrayLike) -> float:
    """Jensen-Shannon divergence of two histograms, each normalised, in bits: between 0 and 1.

    Example:
        >>> js_divergence([1, 1, 0], [0, 0, 5]), js_divergence([1, 2], [2, 4])
        (1.0, 0.0)
    """
    a, b = (np.asarray(v, dtype=np.float64).ravel() for v in (p, q))
    if a.shape != b.shape or a.sum() <= 0 or b.sum() <= 0 or (a < 0).any() or (b < 0).any():
        raise DataError(
            f"js_divergence: histograms of {a.size} and {b.size} bins; expected equal lengths and a positive sum"
        )
    a, b = a / a.sum(), b / b.sum()
    middle = (a + b) / 2

    def to_middle(x: Array) -> float:
        some = x > 0
        return float((x[some] * np.log2(x[some] / middle[some])).sum())

    return max((to_middle(a) + to_middle(b)) / 2, 0.0)


def _sphere_cells() -> Callable[[Events], tuple[NDArray[np.int64], NDArray[np.bool_], int]]:
    """Nearest of the 28^3 lattice points of the cube that lie in the ball of radius 0.5, as in the publication."""
    line = np.arange(RESOLUTION) / (RESOLUTION - 1) - 0.5
    centres = np.stack(np.meshgrid(line, line, line, indexing="ij"), -1).reshape(-1, 3)
    centres = centres[np.linalg.norm(centres, axis=1) <= 0.5]
    tree = cKDTree(centres)

    def cells(events: Events) -> tuple[NDArray[np.int64], NDArray[np.bool_], int]:
        points = events.positions.double().numpy()
        return np.asarray(tree.query(points)[1]), np.linalg.norm(points, axis=1) <= 0.5, len(centres)

    return cells


def _grid_cells(grid: Grid) -> Callable[[Events], tuple[NDArray[np.int64], NDArray[np.bool_], int]]:
    def cells(events: Events) -> tuple[NDArray[np.int64], NDArray[np.bool_], int]:
        index, inside = grid.cell_of(events.positions)
        return grid.ravel(index).numpy(), inside.numpy(), grid.cells

    return cells


class _Occupancy:
    """Counts of points a cell and event, summed over any events."""

    def __init__(self, events: EventsLike, grid: Grid | None, role: str, setting: Protocol) -> None:
        locate = _sphere_cells() if grid is None else _grid_cells(grid)
        cells, event, self.n, self.invalid, self.outside, self.points = [], [], 0, 0, 0, 0
        self.size = 0
        for portion in portions(events):
            kept, bad = valid_events(portion, role=role, invalid=setting.invalid)
            index, inside, self.size = locate(kept)
            # The published definition moves points outside the ball to its rim; on a lattice they are left out.
            counted = np.ones_like(inside) if grid is None else inside
            cells.append(index[counted])
            event.append(kept.batch.numpy()[counted] + self.n)
            self.n += len(kept)
            self.invalid += bad
            self.outside += int((~inside).sum())
            self.points += len(inside)
        self.cells, self.event = np.concatenate(cells), np.concatenate(event)

    def counts(self, weights: Array | None = None) -> Array:
        """Points a cell, each event counted ``weights`` times."""
        return np.bincount(self.cells, None if weights is None else weights[self.event], minlength=self.size).astype(
            float
        )


@metric("jsd", fast=True)
def jsd(
    generated: EventsLike,
    reference: EventsLike,
    *,
    grid: Grid | None = None,
    protocol: Protocol | str | None = None,
    seed: int = 0,
) -> Result:
    """Jensen-Shannon divergence, in bits, of where the points of all events lie.

    Points are counted, not occupied cells. Three-dimensional clouds without a lattice take the published one, 28^3
    points in the ball of radius 0.5, whose rim also gets what lies outside; others take their lattice and leave out
    what lies outside. How many points are outside is in the protocol either way.

    Args:
        generated: Generated events.
        reference: Real events.
        grid: The lattice; by default the reference's, the published one for three axes, 25 x 25 for two.
        protocol: A :class:`Protocol` or its name.
        seed: Of resamples and splits.
    """
    setting = resolve(protocol)
    if len(generated) == 0 or len(reference) == 0:
        raise DataError(f"jsd: {len(generated)} generated and {len(reference)} reference events; both must be above 0")
    head = reference[0:1]
    check_comparable(generated[0:1], head)
    published = grid is None and head.grid is None and len(head.axes) == 3
    lattice = None if published else jet_lattice(head, grid)
    ours, theirs = (
        _Occupancy(events, lattice, role, setting)
        for events, role in ((generated, "generated"), (reference, "reference"))
    )
    n, m = ours.n, theirs.n
    if min(n, m) < 4:
        raise TooFewError(f"jsd: {n} generated and {m} reference events can be evaluated; use 4 or more")
    value = js_divergence(ours.counts(), theirs.counts())
    rng = np.random.default_rng([seed, 0])
    # Sparse histograms differ by their sizes alone: the floor is that of two samples of the mean size.
    size = round(2 / (1 / n + 1 / m))

    def of_real(i: NDArray[np.int64], j: NDArray[np.int64]) -> float:
        return js_divergence(*(theirs.counts(counted(side, m)) for side in (i, j)))

    floor, how = floor_at(size, m, of_real, setting.pairs, rng)
    # The spread of the null falls as 1 / n.
    part = min(size, m // 2)
    null = [of_real(i[:part], j[:part]) * part / size for i, j in split_halves(m, setting.pairs, rng)]
    boot = [
        js_divergence(
            ours.counts(counted(rng.integers(n, size=n), n)), theirs.counts(counted(rng.integers(m, size=m), m))
        )
        for _ in range(setting.resamples)
    ]
    note: dict[str, Any] = {
        "name": setting.name,
        "events": [n, m],
        "lattice": f"ball of radius 0.5, {RESOLUTION}^3" if lattice is None else repr(lattice),
        "outside": [ours.outside, theirs.outside],
        "points": [ours.points, theirs.points],
        "reference_invalid": theirs.invalid,
        "seed": seed,
        "error": f"bootstrap of {setting.resamples}, less the null's excess",
        "floor": how,
    }
    warn_small("jsd", min(n, m), 30, note)
    error = quadratic_error(np.array(boot), np.array(null))
    return Result("jsd", value, error, n, note, floor, ours.invalid)
