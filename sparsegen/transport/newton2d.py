r"""Exact semi-discrete transport in the plane: power cells by lifting, damped Newton.

The cells of :math:`\max_i \langle x, y_i \rangle + h_i` are the faces dual to the lower convex hull of the points
:math:`(y_i, -h_i)`. Their walls, clipped to the support of the law, give masses by the divergence theorem and weighted
lengths, hence gradient and Hessian of the energy.

References:
    Convergence of a Newton Algorithm for Semi-Discrete Optimal Transport (Kitagawa, Merigot and Thibert, 2019),
    https://arxiv.org/abs/1603.05579
    Power Diagrams: Properties, Algorithms and Applications (Aurenhammer, 1987)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import splu
from scipy.spatial import ConvexHull
from scipy.special import ndtr, owens_t

__all__ = [
    "NORMAL",
    "SQUARE",
    "UPRIGHT",
    "PlaneLaw",
    "PlaneWalls",
    "PowerCells",
    "cells_within",
    "clip_lines",
    "newton_heights",
    "plane_walls",
    "power_cells",
]

UPRIGHT = -1e-7
"""Last component of a unit normal that still points down."""

Array = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class PlaneLaw:
    """A law in the plane, as what crosses a wall.

    A wall lies at the signed distance ``offset`` from the origin, measured along its outward normal, and runs from
    ``low`` to ``high`` along its line.

    Args:
        half: The law lives in the square [-half, half]^2, to rounding.
        reach: Half-width of the square that the first Voronoi cells are spread over.
        flux: (offset, low, high) -> flux of the radial field whose divergence is the density.
        length: (offset, low, high) -> integral of the density along the wall.
        moment: (offset, low, high, normal, along) -> its part of the cell's first moment ``(e, 2)``.
    """

    half: float
    reach: float
    flux: Callable[[Array, Array, Array], Array]
    length: Callable[[Array, Array, Array], Array]
    moment: Callable[[Array, Array, Array, Array, Array], Array]


def _square_moment(offset: Array, low: Array, high: Array, normal: Array, along: Array) -> Array:
    """The triangle between the wall and the origin: area times centre."""
    middle = offset[:, None] * normal + ((low + high) / 2)[:, None] * along
    return (offset * (high - low) / 3)[:, None] * middle


def _normal_flux(offset: Array, low: Array, high: Array) -> Array:
    r"""Of :math:`x (1 - e^{-r^2 / 2}) / 2 \pi r^2`: an angle less Owen's T; 0 for a wall through the origin."""
    d = np.where(offset == 0, 1.0, offset)
    with np.errstate(over="ignore"):
        first, last = low / d, high / d
    angle = (np.arctan(last) - np.arctan(first)) / (2 * np.pi)
    return np.where(offset == 0, 0.0, angle - owens_t(d, last) + owens_t(d, first))


def _normal_length(offset: Array, low: Array, high: Array) -> Array:
    length: Array = np.exp(-(offset**2) / 2) / np.sqrt(2 * np.pi) * (ndtr(high) - ndtr(low))
    return length


SQUARE = PlaneLaw(
    half=0.5,
    reach=0.45,
    flux=lambda offset, low, high: offset * (high - low) / 2,
    length=lambda offset, low, high: high - low,
    moment=_square_moment,
)
"""Uniform on [-1/2, 1/2]^2."""

NORMAL = PlaneLaw(
    half=9.0,
    reach=1.0,
    flux=_normal_flux,
    length=_normal_length,
    # x phi(x) is minus the gradient of phi
    moment=lambda offset, low, high, normal, along: -normal * _normal_length(offset, low, high)[:, None],
)
"""N(0, I)."""


@dataclass(frozen=True)
class PowerCells:
    """The cells that the planes cut a law into.

    Args:
        masses: ``(n,)``.
        moments: First moments ``(n, d)``: mass times centre.
        walls: Pairs of neighbours ``(e, 2)``.
        lengths: Length (in space: area) of each wall, weighted with the density ``(e,)``.
    """

    masses: Array
    moments: Array
    walls: Integers
    lengths: Array


@dataclass(frozen=True)
class PlaneWalls:
    """Where the walls between the cells of a plane run: points ``offset normal + t along``, low <= t <= high.

    Args:
        pairs: The two cells of each ``(e, 2)``.
        offset: ``(e,)``.
        normal: From the first cell to the second ``(e, 2)``.
        along: ``(e, 2)``.
        low: ``(e,)``.
        high: ``(e,)``.
    """

    pairs: Integers
    offset: Array
    normal: Array
    along: Array
    low: Array
    high: Array


def power_cells(targets: Array, heights: Array, law: PlaneLaw = SQUARE) -> PowerCells:
    """Exact cells.

    Args:
        targets: ``(n, 2)``, not all on one line.
        heights: ``(n,)``.
        law: What they are cells of.
    """
    return cells_within(plane_walls(targets, heights, law.half), targets, heights, law)


def plane_walls(targets: Array, heights: Array, half: float) -> PlaneWalls:
    """The walls inside the square [-half, half]^2; see `power_cells`."""
    pairs, low, high = _dual_edges(targets, heights)
    i, j = pairs.T
    across = targets[j] - targets[i]
    distance = np.hypot(*across.T)
    normal = across / distance[:, None]
    offset = (heights[i] - heights[j]) / distance
    along = np.stack([-normal[:, 1], normal[:, 0]], 1)
    low, high = clip_lines(normal * offset[:, None], along, low, high, half)
    kept = high > low
    return PlaneWalls(pairs[kept], offset[kept], normal[kept], along[kept], low[kept], high[kept])


def cells_within(walls: PlaneWalls, targets: Array, heights: Array, law: PlaneLaw) -> PowerCells:
    """The cells that these walls bound, with the border of the law's square; see `power_cells`."""
    masses, moments = np.zeros(len(targets)), np.zeros((len(targets), 2))
    shape = walls.offset, walls.low, walls.high
    lengths, flux = law.length(*shape), law.flux(*shape)
    moment = law.moment(*shape, walls.normal, walls.along)
    for owner, sign in zip(walls.pairs.T, (1, -1), strict=True):
        np.add.at(masses, owner, sign * flux)
        np.add.at(moments, owner, sign * moment)
    for side in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        normal = np.array([side], dtype=np.float64)
        along = np.array([[-side[1], side[0]]], dtype=np.float64)
        owner, ends = _envelope(targets @ along[0], heights + law.half * (targets @ normal[0]), law.half)
        low, high, offset = ends[:-1], ends[1:], np.full(len(owner), law.half)
        np.add.at(masses, owner, law.flux(offset, low, high))
        np.add.at(moments, owner, law.moment(offset, low, high, normal, along))
    return PowerCells(masses, moments, walls.pairs, lengths)


def newton_heights(
    targets: Array,
    weights: Array,
    tolerance: float,
    deadline: float,
    start: Array | None = None,
    cells_of: Callable[[Array, Array], PowerCells] = power_cells,
    reach: float = SQUARE.reach,
    keep: Callable[[Array], None] = lambda heights: None,
) -> tuple[Array, PowerCells]:
    """Heights whose cells have the given masses, by Newton steps that keep every cell alive.

    Args:
        targets: ``(n, d)``, different points that span the space.
        weights: Masses ``(n,)``, positive, sum 1.
        tolerance: Largest error of a mass relative to its weight.
        deadline: Value of ``time.monotonic()`` at which to return what there is.
        start: Heights to start from; used if they leave no cell empty.
        cells_of: (targets, heights) -> cells of the law.
        reach: Half-width of the cube that the first Voronoi cells are spread over.
        keep: Called with the heights of every step: all of them leave no cell empty.

    Returns:
        Heights ``(n,)`` and their cells.
    """
    heights, cells = None, None
    if start is not None:
        heights, cells = start, cells_of(targets, start)
    if heights is None or cells is None or not (cells.masses > 0).all():
        heights = _voronoi_heights(targets, reach)
        cells = cells_of(targets, heights)
    floor = min(float(cells.masses.min()), float(weights.min())) / 2
    damped = 1.0
    keep(heights)
    while time.monotonic() < deadline:
        error = cells.masses - weights
        if np.abs(error / weights).max() <= tolerance:
            break
        step = _newton_step(targets, cells, error)
        size, damped = float(np.linalg.norm(error)), min(1.0, 4 * damped)
        while damped > 1e-12:
            tried = heights - damped * step
            after = cells_of(targets, tried)
            shrinks = float(np.linalg.norm(after.masses - weights)) <= (1 - damped / 2) * size
            if shrinks and after.masses.min() > floor:
                break
            damped /= 2
        else:
            # rounding, not the step's length, is what keeps the error up
            break
        heights, cells = tried - tried.mean(), after
        keep(heights)
    return heights, cells


def _newton_step(targets: Array, cells: PowerCells, error: Array) -> Array:
    """Solves the graph Laplacian of wall lengths over distances; the last height stays."""
    n = len(targets)
    i, j = cells.walls.T
    rate = cells.lengths / np.linalg.norm(targets[i] - targets[j], axis=1)
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


def _voronoi_heights(targets: Array, reach: float) -> Array:
    """Heights whose cells are Voronoi cells of the targets shrunk into the law's middle: none is empty."""
    low, high = targets.min(0), targets.max(0)
    centre, scale = (low + high) / 2, 2 * reach / float((high - low).max())
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
    # an upright side of the hull has a slope made of rounding: its vertex is at infinity
    lower = (hull.simplices < n).all(1) & (hull.equations[:, 2] < UPRIGHT)
    triangles = hull.simplices[lower].astype(np.int64)
    plane = hull.equations[lower]
    vertices = -plane[:, :2] / plane[:, 2:3]  # slope of the face: where its three cells meet
    # Each triangle's sides, sorted so that the two triangles of a side stand next to each other.
    sides = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    vertex = np.concatenate([vertices, vertices, vertices])
    sides.sort(1)
    order = np.lexsort(sides.T)
    sides, vertex = sides[order], vertex[order]
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
    # A wall with one vertex runs to infinity, away from the targets, all of which are on one side of its pair.
    single = np.flatnonzero(np.bincount(index) == 1)
    outward = ((targets[i[single]] - targets.mean(0)) * along[single]).sum(1) > 0
    high[single[outward]] = np.inf
    low[single[~outward]] = -np.inf
    return walls, low, high


def clip_lines(foot: Array, along: Array, low: Array, high: Array, half: float) -> tuple[Array, Array]:
    """The parts of lines ``foot + t along`` inside the square or cube [-half, half]^d (Liang and Barsky 1984)."""
    low, high = low.copy(), high.copy()
    for axis in range(along.shape[1]):
        direction, position = along[:, axis], foot[:, axis]
        parallel = direction == 0
        with np.errstate(divide="ignore", invalid="ignore"):
            bounds = np.sort(np.stack([(-half - position) / direction, (half - position) / direction]), axis=0)
        inside = np.abs(position) < half
        low = np.where(parallel, np.where(inside, low, np.inf), np.maximum(low, bounds[0]))
        high = np.where(parallel, np.where(inside, high, -np.inf), np.minimum(high, bounds[1]))
    return low, high


def _envelope(slope: Array, level: Array, half: float) -> tuple[Integers, Array]:
    """Upper envelope of lines over [-half, half]: which line is on top between which walls."""
    chosen = _on_top(slope, level, half)
    order = chosen[np.lexsort((level[chosen], slope[chosen]))]
    # among equal slopes only the highest line can show
    order = order[np.append(np.diff(slope[order]) > 0, True)]
    kept: list[int] = []
    starts: list[float] = []
    for line, s, h in zip(order.tolist(), slope[order].tolist(), level[order].tolist(), strict=True):
        start = -half
        while kept:
            start = (level[kept[-1]] - h) / (s - slope[kept[-1]])
            if start > starts[-1]:
                break
            kept.pop()
            starts.pop()
            start = -half
        if start < half:
            kept.append(line)
            starts.append(max(start, -half))
    return np.array(kept, dtype=np.int64), np.append(starts, half)


def _on_top(slope: Array, level: Array, half: float) -> Integers:
    """Lines that may show in the envelope: few, so that the exact sweep over them is short.

    Between two neighbouring places the envelope lies above the lines on top at both; a line that shows there is not
    below them where these two cross.
    """
    places = np.linspace(-half, half, 33)
    first = np.unique(np.stack([(slope * t + level).argmax() for t in places]))
    first = first[np.argsort(slope[first], kind="stable")]
    left, right = first[:-1], first[1:]
    apart = slope[right] > slope[left]
    left, right = left[apart], right[apart]
    cross = (level[left] - level[right]) / (slope[right] - slope[left])
    found = np.zeros(len(slope), dtype=bool)
    found[first] = True
    for t, height in zip(cross.tolist(), (slope[left] * cross + level[left]).tolist(), strict=True):
        found |= slope * t + level >= height - 1e-12 * (1 + abs(height))
    return np.flatnonzero(found)
