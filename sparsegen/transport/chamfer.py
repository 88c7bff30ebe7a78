r"""Chamfer distances between ragged batches of point sets.

The indices of the nearest points need no gradient: they are found by the fastest engine, then distances are gathered
and differentiated, so that memory stays linear in the number of points.

References:
    A Point Set Generation Network for 3D Object Reconstruction from a Single Image (Fan et al., 2017),
    https://arxiv.org/abs/1612.00603
    Learning Representations and Generative Models for 3D Point Clouds (Achlioptas et al., 2018),
    https://arxiv.org/abs/1707.02392
    Density-aware Chamfer Distance as a Comprehensive Metric for Point Cloud Completion (Wu et al., 2021),
    https://arxiv.org/abs/2111.12702
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from sparsegen import kernels
from sparsegen.errors import ConfigError
from sparsegen.transport.clouds import (
    Clouds,
    PointSets,
    lengths_of,
    one_empty,
    pair_clouds,
    segment_mean,
    segment_sum,
)

__all__ = ["chamfer", "density_aware_chamfer"]


def chamfer(
    a: PointSets,
    b: PointSets,
    squared: bool = True,
    reduce: Literal["mean", "sum"] = "mean",
    *,
    weights: str | tuple[Tensor | None, Tensor | None] | None = None,
    features: Sequence[str] = (),
    scales: Mapping[str, float] | None = None,
    period: Sequence[float] | None = None,
) -> Tensor:
    r"""Distance to the nearest point of the other set, both ways, added (not halved).

    .. math:: \frac1{|A|} \sum_{x \in A} \min_{y \in B} \|x - y\|^2
              + \frac1{|B|} \sum_{y \in B} \min_{x \in A} \|x - y\|^2

    Args:
        a: Events, a tensor ``(B, N, D)``, or ``(points (N, D), offsets (B + 1,))``.
        b: The same, with as many sets.
        squared: Squared distances, the usual convention; False: distances themselves.
        reduce: ``mean`` over the points of each set, or ``sum``.
        weights: A column (an energy), or one tensor of masses a side: weighted means or sums.
        features: Columns compared next to the coordinates.
        scales: Axis or column name -> the length that counts as 1.
        period: For plain tensors: the length of each axis that wraps, ``inf`` for others. Events know theirs.

    Returns:
        ``(B,)``; 0 where both sets are empty, ``inf`` where one is.

    Example:
        >>> chamfer(torch.zeros(1, 2, 3), torch.full((1, 4, 3), 2.0))
        tensor([24.])
    """
    if reduce not in ("mean", "sum"):
        raise ConfigError(f"reduce={reduce!r}; expected 'mean' or 'sum'")
    first, second = pair_clouds(a, b, weights=weights, features=features, scales=scales, period=period)
    to_second, to_first = _nearest(first, second)
    forward = _gathered(first, second, to_second, squared, reduce)
    backward = _gathered(second, first, to_first, squared, reduce)
    return torch.where(one_empty(first, second), torch.inf, forward + backward)


def density_aware_chamfer(
    a: PointSets,
    b: PointSets,
    alpha: float = 1000.0,
    *,
    features: Sequence[str] = (),
    scales: Mapping[str, float] | None = None,
    period: Sequence[float] | None = None,
) -> Tensor:
    r"""Chamfer with a bounded distance, shared between all points that have the same nearest neighbour; in [0, 1].

    .. math:: \tfrac12 \sum_{\text{ways}} \frac1{|A|} \sum_{x \in A}
              \left(1 - \frac{e^{-\alpha \|x - \hat y\|}}{n_{\hat y}}\right),
              \quad n_{\hat y} = |\{x : \hat y(x) = \hat y\}|

    Args:
        a: See ``chamfer``.
        b: See ``chamfer``.
        alpha: Inverse length over which two points count as one.
        features: See ``chamfer``.
        scales: See ``chamfer``.
        period: See ``chamfer``.

    Returns:
        ``(B,)``; 0 where both sets are empty, 1 where one is.

    Example:
        >>> density_aware_chamfer(torch.zeros(1, 2, 3), torch.zeros(1, 1, 3))
        tensor([0.2500])
    """
    first, second = pair_clouds(a, b, features=features, scales=scales, period=period)
    total = first.points.new_zeros(len(first))
    for x, y, index in zip((first, second), (second, first), _nearest(first, second), strict=True):
        found = index >= 0
        chosen = index[found]
        crowd = torch.bincount(chosen, minlength=y.points.shape[0])[chosen]
        kept = torch.exp(-alpha * lengths_of(x.difference(x.points[found], y.points[chosen]))) / crowd
        missing = torch.ones_like(x.points[:, 0]).index_put((found.nonzero()[:, 0],), 1 - kept)
        total = total + segment_mean(missing, x.offsets) / 2
    return torch.where(one_empty(first, second), 1.0, total)


def _nearest(a: Clouds, b: Clouds) -> tuple[Tensor, Tensor]:
    """Rows of the other side's nearest points ``(N,)`` and ``(M,)``; -1 where the other set is empty."""
    there, back = kernels.nearest_both(a.points, a.offsets, b.points, b.offsets, period=a.wrap)
    return there.indices, back.indices


def _gathered(x: Clouds, y: Clouds, index: Tensor, squared: bool, reduce: str) -> Tensor:
    """Mean or sum over each set of the distance to the given points of the other; 0 for a set without points."""
    difference = x.difference(x.points, y.points[index]) if y.points.shape[0] else torch.zeros_like(x.points)
    distance = difference.square().sum(1) if squared else lengths_of(difference)
    if reduce == "mean":
        return segment_mean(distance, x.offsets, x.weights)
    return segment_sum(distance if x.weights is None else distance * x.weights, x.offsets)
