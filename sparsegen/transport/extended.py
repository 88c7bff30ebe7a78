r"""The extended semi-discrete map: linear between the centres of neighbouring cells, a jump across a singular set.

The hard map gives training codes back. Where the potential bends little from one cell to the next, the codes of both
belong to one mode and what lies between them is as good as they are; where it bends sharply, a mode ends.

References:
    AE-OT: A New Generative Model Based on Extended Semi-discrete Optimal Transport (An et al., 2020),
    https://openreview.net/forum?id=HkldyTNYwH
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sparsegen.transport.cells import best_cells

__all__ = ["acceptance_by_distance", "acceptance_curve", "extended_map", "neighbour_distance"]

CANDIDATES = 8
"""Cells looked at for a neighbour of the same mode."""
LOOKED_AT = 4096
"""Cells whose distance to their neighbour tells the median of all."""


def extended_map(
    x: Tensor, targets: Tensor, heights: Tensor, barycentres: Tensor, theta: float, farthest: float = math.inf
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Which two codes a point lies between, and how far along.

    With the gap :math:`g_{ij}(x) = \langle x, y_i - y_j\rangle + h_i - h_j` to another cell j and the centre
    :math:`m_i` of a point's own cell i, the point maps to

    .. math:: (1 - t)\, y_i + t\, y_j, \qquad t = \tfrac12 \max(0, 1 - g_{ij}(x) / g_{ij}(m_i)),

    the cell's own code at its centre and half-way at the wall, where both sides agree. The partner j is the cell of
    largest t among those whose hyperplanes make a small angle with that of i,
    :math:`\angle((y_i, -1), (y_j, -1)) < \theta`, and whose codes are no farther apart than ``farthest``. The same
    distance makes a smaller angle far from the origin than near it. A point without a partner keeps its own code: modes
    keep their masses.

    Args:
        x: ``(m, d)``.
        targets: ``(n, d)``, of unit scale: the angle depends on it.
        heights: ``(n,)``.
        barycentres: Centres of the cells ``(n, d)``; NaN where unknown, such a cell keeps its own code.
        theta: Largest angle, in rad.
        farthest: Largest distance of the two codes, in units of the targets.

    Returns:
        Own and partner cell ``(m, 2)`` and t ``(m,)``, and whether there was a partner ``(m,)``.
    """
    scores, cells = best_cells(x, targets, heights, min(CANDIDATES, len(targets)))
    own, others = cells[:, :1], cells[:, 1:]
    fits = _angles(targets, own, others) < theta
    fits &= barycentres[own[:, 0]].isfinite().all(1, keepdim=True)
    across = targets[own] - targets[others]
    fits &= across.norm(dim=2) <= farthest
    depth = (across @ barycentres[own[:, 0], :, None])[:, :, 0] + heights[own] - heights[others]
    gap = scores[:, :1] - scores[:, 1:]
    # a centre that samples placed outside its own cell says nothing about that wall
    t = 0.5 * (1 - gap / torch.where(depth > 0, depth, torch.inf)).clamp(0, 1)
    t = torch.where(fits & (depth > 0), t, 0.0)
    accepted = fits.any(1)
    best, choice = torch.where(fits, t, -1.0).max(1, keepdim=True)
    partner, t = others.gather(1, choice), best[:, 0].clamp_min(0)
    return torch.cat([own, partner], 1), t, accepted


def acceptance_curve(x: Tensor, targets: Tensor, heights: Tensor) -> list[tuple[float, float]]:
    """Share of points that would find a partner at each of some angles."""
    _, cells = best_cells(x, targets, heights, min(CANDIDATES, len(targets)))
    smallest = _angles(targets, cells[:, :1], cells[:, 1:]).amin(1)
    angles = (0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, math.pi / 2)
    return [(angle, float((smallest < angle).double().mean())) for angle in angles]


def acceptance_by_distance(x: Tensor, targets: Tensor, heights: Tensor, unit: float) -> list[tuple[float, float]]:
    """Share of points that would find a partner within each of some multiples of a distance."""
    _, cells = best_cells(x, targets, heights, min(CANDIDATES, len(targets)))
    nearest = (targets[cells[:, :1]] - targets[cells[:, 1:]]).norm(dim=2).amin(1)
    return [(reach, float((nearest <= reach * unit).double().mean())) for reach in (0.1, 0.3, 1.0, 2.0, 3.0, 5.0, 10.0)]


def neighbour_distance(targets: Tensor, heights: Tensor, barycentres: Tensor) -> float:
    """Median distance from a code to that of the next cell, as seen from the centre of its own."""
    centres = barycentres[barycentres.isfinite().all(1)]
    _, cells = best_cells(centres[:: 1 + len(centres) // LOOKED_AT], targets, heights, 2)
    return float((targets[cells[:, 0]] - targets[cells[:, 1]]).norm(dim=1).median())


def _angles(targets: Tensor, own: Tensor, others: Tensor) -> Tensor:
    """Angles between hyperplane normals (y, -1) ``(m, k)``; from chords, exact for small ones."""
    normals = torch.nn.functional.normalize(torch.cat([targets, -torch.ones_like(targets[:, :1])], 1), dim=1)
    chord = (normals[own] - normals[others]).norm(dim=2)
    return 2 * torch.asin((chord / 2).clamp(max=1.0))
