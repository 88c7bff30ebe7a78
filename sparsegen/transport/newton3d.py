r"""Exact power cells of the cube, for the Newton solver of `newton2d`.

Volumes come from walls, walls from their edges, by the divergence theorem at both levels. An edge of the diagram lies
where three cells meet: its line is clipped to the cube. What the cube's own faces cut off the walls is the diagram of
a plane, face by face.

References:
    Convergence of a Newton Algorithm for Semi-Discrete Optimal Transport (Kitagawa, Merigot and Thibert, 2019),
    https://arxiv.org/abs/1603.05579
    A Numerical Algorithm for L2 Semi-Discrete Optimal Transport in 3D (Levy, 2015), https://arxiv.org/abs/1409.1279
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from sparsegen.transport.newton2d import (
    SQUARE,
    UPRIGHT,
    PowerCells,
    cells_within,
    clip_lines,
    plane_walls,
)

__all__ = ["cube_cells"]

Array = NDArray[np.float64]
Integers = NDArray[np.int64]


def cube_cells(targets: Array, heights: Array) -> PowerCells:
    """Exact cells of the cube [-1/2, 1/2]^3.

    Args:
        targets: ``(n, 3)``, n > 4, not all in one plane.
        heights: ``(n,)``.
    """
    n = len(targets)
    triples, begin, end = _edges(targets, heights)
    # Each edge borders the walls of its three pairs.
    pairs: list[Integers] = []
    thirds: list[Array] = []
    begins: list[Array] = []
    ends: list[Array] = []
    for a, b, c in ((0, 1, 2), (0, 2, 1), (1, 2, 0)):
        pairs.append(triples[:, [a, b]])
        thirds.append(targets[triples[:, c]] - targets[triples[:, a]])
        begins.append(begin)
        ends.append(end)
    volumes, moments = np.zeros(n), np.zeros((n, 3))
    for axis in range(3):
        others = [k for k in range(3) if k != axis]
        for side in (-0.5, 0.5):
            seen, raised = targets[:, others], heights + side * targets[:, axis]
            face = plane_walls(seen, raised, SQUARE.half)
            areas = cells_within(face, seen, raised, SQUARE)
            # The face itself: a pyramid over it, seen from the origin.
            volumes += areas.masses / 6
            moments += np.insert(areas.moments, axis, side * areas.masses, axis=1) / 8
            # Its walls close the walls of the cells; a pair keeps the same way round everywhere.
            pairs.append(np.sort(face.pairs, axis=1))
            outward = np.zeros((len(face.pairs), 3))
            outward[:, axis] = np.sign(side)
            thirds.append(outward)
            foot = face.normal * face.offset[:, None]
            for points, t in ((begins, face.low), (ends, face.high)):
                points.append(np.insert(foot + t[:, None] * face.along, axis, side, axis=1))
    pair, third = np.concatenate(pairs), np.concatenate(thirds)
    first, last = np.concatenate(begins), np.concatenate(ends)

    key, index = np.unique(pair[:, 0] * n + pair[:, 1], return_inverse=True)
    walls = np.stack([key // n, key % n], 1)
    i, j = walls.T
    across = targets[j] - targets[i]
    distance = np.linalg.norm(across, axis=1)
    normal = across / distance[:, None]
    offset = (heights[i] - heights[j]) / distance
    foot = normal * offset[:, None]

    # Signed triangles (foot, begin, end) of every wall: positive where the edge bounds it away from the foot.
    outward = third - (third * normal[index]).sum(1, keepdims=True) * normal[index]
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    height = ((first - foot[index]) * outward).sum(1)
    area = height * np.linalg.norm(last - first, axis=1) / 2
    size = np.bincount(index, area, len(walls)).astype(np.float64)
    turning = area[:, None] * (foot[index] + first + last) / 3
    centres = np.stack([np.bincount(index, turning[:, k], len(walls)) for k in range(3)], 1)

    # Signed pyramids (origin, wall).
    volume = offset * size / 3
    moment = offset[:, None] * centres / 4
    for owner, sign in ((i, 1.0), (j, -1.0)):
        volumes += np.bincount(owner, sign * volume, n)
        for k in range(3):
            moments[:, k] += np.bincount(owner, sign * moment[:, k], n)
    kept = size > 0.0
    return PowerCells(volumes, moments, walls[kept], size[kept])


def _edges(targets: Array, heights: Array) -> tuple[Integers, Array, Array]:
    """Triples of cells that meet inside the cube, in rising order, and the ends of the edge that they share."""
    n = len(targets)
    lifted = np.column_stack([targets, -heights])
    # A point far above closes the hull over its lower side, flat or not.
    span = np.ptp(lifted, axis=0).max() + 1.0
    apex = np.append(targets.mean(0), lifted[:, 3].max() + 10 * span)
    hull = ConvexHull(np.vstack([lifted, apex]))
    # an upright side of the hull has a slope made of rounding: its vertex is at infinity
    lower = (hull.simplices < n).all(1) & (hull.equations[:, 3] < UPRIGHT)
    simplices = np.sort(hull.simplices[lower].astype(np.int64), axis=1)
    plane = hull.equations[lower]
    vertices = -plane[:, :3] / plane[:, 3:4]  # slope of the face: where its four cells meet
    # The four triangles of each simplex; the simplices of one triangle stand next to each other.
    triples = np.concatenate([simplices[:, k] for k in ([0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3])])
    vertex = np.tile(vertices, (4, 1))
    order = np.argsort((triples[:, 0] * n + triples[:, 1]) * n + triples[:, 2], kind="stable")
    triples, vertex = triples[order], vertex[order]
    new = np.append(True, (triples[1:] != triples[:-1]).any(1))
    index = np.cumsum(new) - 1
    at = np.flatnonzero(new)
    meeting = triples[at]
    along = np.cross(targets[meeting[:, 1]] - targets[meeting[:, 0]], targets[meeting[:, 2]] - targets[meeting[:, 0]])
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    place = (vertex * along[index]).sum(1)
    low, high = np.minimum.reduceat(place, at), np.maximum.reduceat(place, at)
    # An edge with one vertex runs to infinity, away from the targets, all of which are on one side of its triple.
    single = np.flatnonzero(np.bincount(index) == 1)
    outward = ((targets[meeting[single, 0]] - targets.mean(0)) * along[single]).sum(1) > 0
    high[single[outward]] = np.inf
    low[single[~outward]] = -np.inf
    foot = vertex[at] - (vertex[at] * along).sum(1, keepdims=True) * along
    low, high = clip_lines(foot, along, low, high, SQUARE.half)
    kept = high > low
    foot, along = foot[kept], along[kept]
    return meeting[kept], foot + low[kept, None] * along, foot + high[kept, None] * along
