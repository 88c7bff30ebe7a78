"""Distances of all sets to all sets: what minimum matching distance, coverage and nearest-neighbour tests stand on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from sparsegen import kernels
from sparsegen.errors import ConfigError, unknown_name
from sparsegen.transport.clouds import Clouds, PointSets, pair_clouds
from sparsegen.transport.emd import emd
from sparsegen.transport.sliced import directions, sliced

__all__ = ["pairwise"]

MetricName = Literal["chamfer", "chamfer_distance", "emd", "sliced"]
METRICS = ("chamfer", "chamfer_distance", "emd", "sliced")
PAIRS = 4096
"""Pairs that are laid out at once: bounds the memory of metrics that copy their sets."""


@torch.no_grad()
def pairwise(
    a: PointSets,
    b: PointSets,
    metric: MetricName = "chamfer",
    *,
    weights: str | tuple[Tensor | None, Tensor | None] | None = None,
    features: Sequence[str] = (),
    scales: Mapping[str, float] | None = None,
    period: Sequence[float] | None = None,
    projections: int = 100,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The matrix of distances of every set of one batch to every set of another, without gradient.

    Args:
        a: Events, a tensor ``(A, N, D)``, or ``(points (N, D), offsets (A + 1,))``.
        b: The same; any number of sets.
        metric: ``chamfer`` (squared distances), ``chamfer_distance`` (not squared), ``emd`` or ``sliced``.
        weights: See ``emd``; the Chamfer metrics take none here.
        features: Columns compared next to the coordinates.
        scales: Axis or column name -> the length that counts as 1.
        period: For plain tensors: the length of each axis that wraps, ``inf`` for others. Events know theirs.
        projections: Directions of ``sliced``, the same for all pairs.
        generator: Their source.

    Returns:
        ``(A, B)`` float64.

    Example:
        >>> x = torch.tensor([[[0.0, 0.0]], [[3.0, 4.0]]])
        >>> pairwise(x, x, "emd")
        tensor([[0., 5.],
                [5., 0.]], dtype=torch.float64)
    """
    if metric not in METRICS:
        raise ConfigError(unknown_name("metric", metric, METRICS))
    first, second = pair_clouds(
        a, b, weights=weights, features=features, scales=scales, period=period, same_length=False
    )
    if metric in ("chamfer", "chamfer_distance"):
        if weights is not None:
            raise ConfigError("pairwise Chamfer distances take no weights; use emd or sliced, or chamfer pair by pair")
        there, back = kernels.pairwise_chamfer(
            first.points,
            first.offsets,
            second.points,
            second.offsets,
            squared=metric == "chamfer",
            period=first.wrap,
        )
        return there + back
    theta = directions(projections, first.points.shape[1], generator)
    out = torch.empty(len(first), len(second), dtype=torch.float64, device=first.points.device)
    left, right = _index_pairs(len(first), len(second))
    for begin in range(0, left.numel(), PAIRS):
        i, j = left[begin : begin + PAIRS], right[begin : begin + PAIRS]
        x, y = _selected(first, i), _selected(second, j)
        sides = (x.points.double(), x.offsets), (y.points.double(), y.offsets)
        masses = (x.weights, y.weights)
        if metric == "emd":
            out[i, j] = emd(*sides, weights=masses, period=first.period)
        else:
            out[i, j] = sliced(*sides, theta, weights=masses)
    return out


def _index_pairs(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    index = torch.arange(rows * columns)
    return index // max(columns, 1), index % max(columns, 1)


def _selected(clouds: Clouds, index: Tensor) -> Clouds:
    """The sets of the given numbers, in that order, repeated as often as they are named."""
    counts = clouds.counts[index]
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    rows = torch.arange(int(offsets[-1]), device=counts.device)
    rows = rows + (clouds.offsets[:-1][index] - offsets[:-1]).repeat_interleave(counts)
    return Clouds(clouds.points[rows], offsets, None if clouds.weights is None else clouds.weights[rows], clouds.period)
