r"""Exact semi-discrete transport from the square: power cells by lifting, damped Newton.

The cells of :math:`\max_i \langle x, y_i \rangle + h_i` are the faces dual to the lower convex hull of the points
:math:`(y_i, -h_i)`. Clipped to the square they give areas and wall lengths, hence gradient and Hessian of the energy.

References:
    Convergence of a Newton Algorithm for Semi-Discrete Optimal Transport (Kitagawa, Merigot and Thibert, 2019),
    https://arxiv.org/abs/1603.05579
    Power Diagrams: Properties, Algorithms and Applications (Aurenhammer, 1987)
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import splu
from scipy.spatial import ConvexHull

__all__ = ["PowerCells", "newton_heights", "power_cells"]

Array = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class PowerCells:
    """The cells of the square [-1/2, 1/2]^2.

    Args:
        areas: ``(n,)``.
        moments: First moments ``(n, 2)``: area times centre.
        walls: Pairs of neighbours ``(e, 2)``.
        lengths: Length of each wall inside the square ``(e,)``.
    """

    areas: Array
    moments: Array
    walls: Integers
    lengths: Array


def power_cells(targets: Array, heights: Array) -> PowerCells:
    """Exact cells of the square.

    Args:
        targets: ``(n, 2)``, not all on one line.
        heights: ``(n,)``.
    """
    walls, low, high = _dual_edges(targets, heights)
    i, j = walls.T
    across = targets[j] - targets[i]
    distance = np.hypot(*across.T)
    normal = across / distance[:, None]
    offset = (heights[i] - heights[j]) / distance
    foot, along = normal * offset[:, None], np.stack([-normal[:, 1], normal[:, 0]], 1)
    low, high = _clip(foot, along, low, high)
    kept = high > low
    i, j, offset, low, high = i[kept], j[kept], offset[kept], low[kept], high[kept]
    begin, end = foot[kept] + low[:, None] * along[kept], foot[kept] + high[:, None] * along[kept]

    # Divergence theorem: area and first moments from walls, seen from the origin.
    areas, moments = np.zeros(len(targets)), np.zeros((len(targets), 2))
    half = offset * (high - low) / 2
    _gather(areas, moments, i, half, begin, end)
    _gather(areas, moments, j, -half, begin, end)
    for owner, begin, end in _sides(targets, heights):
        _gather(areas, moments, owner, np.abs(end - begin).sum(1) / 4, begin, end)
    return PowerCells(areas, moments, walls[kept], high - low)


def newton_heights(
    targets: Array, weights: Array, tolerance: float, deadline: float, start: Array | None = None
) -> tuple[Array, PowerCells]:
    """Heights whose cells have the given areas, by Newton steps that keep every cell alive.

    Args:
        targets: ``(n, 2)``, different points, not all on one line.
        weights: Areas ``(n,)``, positive, sum 1.
        tolerance: Largest error of an area relative to its weight.
        deadline: Value of ``time.monotonic()`` at which to return what there is.
        start: Heights to start from; used if they leave no cell empty.

    Returns:
        Heights ``(n,)`` and their cells.
    """
    heights, cells = None, None
    if start is not None:
        heights, cells = start, power_cells(targets, start)
    if heights is None or cells is None or not (cells.areas > 0).all():
        heights = _voronoi_heights(targets)
        cells = power_cells(targets, heights)
    floor = min(float(cells.areas.min()), float(weights.min())) / 2
    while time.monotonic() < deadline:
        error = cells.areas - weights
        if np.abs(error / weights).max() <= tolerance:
            break
        step = _newton_step(targets, cells, error)
        size, damped = float(np.linalg.norm(error)), 1.0
        while damped > 1e-12:
            tried = heights - damped * step
            after = power_cells(targets, tried)
            shrinks = float(np.linalg.norm(after.areas - weights)) <= (1 - damped / 2) * size
            if shrinks and after.areas.min() > floor:
                break
            damped /= 2
        else:
            # rounding, not the step's length, is what keeps the error up
            break
        heights, cells = tried - tried.mean(), after
    return heights, cells


def _newton_step(targets: Array, cells: PowerCells, error: Array) -> Array:
    """Solves the graph Laplacian of wall lengths over distances; the last height stays."""
    n = len(targets)
    i, j = cells.walls.T
    rate = cells.lengths / np.hypot(*(targets[i] - targets[j]).T)
    rows, columns = np.concatenate([i, j, i, j]), np.concatenate([j, i, i, j])
    laplacian = csc_matrix((np.concatenate([-rate, -rate, rate, rate]), (rows, columns)), shape=(n, n))
    step = np.zeros(n)
    # symmetric and diagonally dominant: no pivoting, which would fill the factors
    factors = splu(
        laplacian[:-1, :-1].tocsc(),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    step[:-1] = factors.solve(error[:-1])
    return step


def _voronoi_heights(targets: Array) -> Array:
    """Heights whose cells are Voronoi cells of the targets shrunk into the square: none is empty."""
    low, high = targets.min(0), targets.max(0)
    centre, scale = (low + high) / 2, 0.9 / float((high - low).max())
    moved = (targets - centre) * scale
    # <x, y> + h with h = -|moved|^2 / (2 scale) ranks as -|x - moved|^2 does
    heights: Array = -(moved**2).sum(1) / (2 * scale)
    return heights - heights.mean()


def _dual_edges(targets: Array, heights: Array) -> tuple[Integers, Array, Array]:
    """Neighbours in the unclipped diagram, and between which points along their wall's line it runs."""
    n = len(targets)
    lifted = np.column_stack([targets, -heights])
    # A point far above closes the hull over its lower side, flat or not.
    span = np.ptp(lifted, axis=0).max() + 1.0
    apex = np.append(targets.mean(0), lifted[:, 2].max() + 10 * span)
    hull = ConvexHull(np.vstack([lifted, apex]))
    lower = (hull.simplices < n).all(1) & (hull.equations[:, 2] < 0)
    triangles = hull.simplices[lower].astype(np.int64)
    plane = hull.equations[lower]
    vertices = -plane[:, :2] / plane[:, 2:3]  # slope of the face: where its three cells meet
    # Each triangle's sides, sorted so that the two triangles of a side stand next to each other.
    sides = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    opposite = np.concatenate([triangles[:, 2], triangles[:, 0], triangles[:, 1]])
    vertex = np.concatenate([vertices, vertices, vertices])
    sides.sort(1)
    order = np.lexsort(sides.T)
    sides, opposite, vertex = sides[order], opposite[order], vertex[order]
    first = np.append(True, (sides[1:] != sides[:-1]).any(1))
    walls = sides[first]
    index = np.cumsum(first) - 1
    i, j = walls.T
    across = targets[j] - targets[i]
    along = np.stack([-across[:, 1], across[:, 0]], 1) / np.hypot(*across.T)[:, None]
    place = (vertex * along[index]).sum(1)
    low, high = np.full(len(walls), np.inf), np.full(len(walls), -np.inf)
    np.minimum.at(low, index, place)
    np.maximum.at(high, index, place)
    # A wall with one vertex runs to infinity, away from the third cell of its triangle.
    single = np.bincount(index) == 1
    at = np.flatnonzero(first)[single]
    outward = ((targets[i[single]] - targets[opposite[at]]) * along[single]).sum(1) > 0
    high[np.flatnonzero(single)[outward]] = np.inf
    low[np.flatnonzero(single)[~outward]] = -np.inf
    return walls, low, high


def _clip(foot: Array, along: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """The parts of lines ``foot + t along`` inside the square (Liang and Barsky 1984)."""
    low, high = low.copy(), high.copy()
    for axis in range(2):
        direction, position = along[:, axis], foot[:, axis]
        parallel = direction == 0
        with np.errstate(divide="ignore", invalid="ignore"):
            bounds = np.sort(np.stack([(-0.5 - position) / direction, (0.5 - position) / direction]), axis=0)
        inside = np.abs(position) < 0.5
        low = np.where(parallel, np.where(inside, low, np.inf), np.maximum(low, bounds[0]))
        high = np.where(parallel, np.where(inside, high, -np.inf), np.minimum(high, bounds[1]))
    return low, high


def _gather(areas: Array, moments: Array, owner: Integers, area: Array, begin: Array, end: Array) -> None:
    """Adds signed triangles (origin, begin, end)."""
    np.add.at(areas, owner, area)
    np.add.at(moments, owner, area[:, None] * (begin + end) / 3)


def _sides(targets: Array, heights: Array) -> list[tuple[Integers, Array, Array]]:
    """Who owns which piece of each side of the square: owners, beginnings and ends."""
    pieces = []
    for axis in range(2):
        for end in (-0.5, 0.5):
            slope, level = targets[:, axis], heights + end * targets[:, 1 - axis]
            owner, walls = _envelope(slope, level)
            points = np.full((len(walls), 2), end)
            points[:, axis] = walls
            pieces.append((owner, points[:-1], points[1:]))
    return pieces


def _envelope(slope: Array, level: Array) -> tuple[Integers, Array]:
    """Upper envelope of lines over [-1/2, 1/2]: which line is on top between which walls."""
    order = np.lexsort((level, slope))
    # among equal slopes only the highest line can show
    order = order[np.append(np.diff(slope[order]) > 0, True)]
    kept: list[int] = []
    starts: list[float] = []
    for line, s, h in zip(order.tolist(), slope[order].tolist(), level[order].tolist(), strict=True):
        start = -0.5
        while kept:
            start = (level[kept[-1]] - h) / (s - slope[kept[-1]])
            if start > starts[-1]:
                break
            kept.pop()
            starts.pop()
            start = -0.5
        if start < 0.5:
            kept.append(line)
            starts.append(max(start, -0.5))
    return np.array(kept, dtype=np.int64), np.append(starts, 0.5)
