"""Chamfer distances of all clouds to all clouds: what MMD, coverage and the nearest-neighbour test of clouds need."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from sparsegen.errors import DataError
from sparsegen.kernels.native import extension, period_argument, resolve, threads
from sparsegen.kernels.ragged import chunks, flat_points, pad, shared_dtype, squares_between

__all__ = ["pairwise_chamfer"]

_ENGINES = ("native", "kdtree", "torch")
_LEAF = 40
"""Points of a leaf: with more, whole vectors are compared; with fewer, more of them are left out."""
_TREE_POINTS = 64
"""Points of a cloud, on the mean, from which on a tree is the faster fallback."""


def pairwise_chamfer(
    a: Tensor,
    a_offsets: Tensor,
    b: Tensor | None = None,
    b_offsets: Tensor | None = None,
    *,
    squared: bool = True,
    period: Sequence[float] | None = None,
    engine: str = "auto",
) -> tuple[Tensor, Tensor]:
    r"""Both halves of the Chamfer distance between every cloud of ``a`` and every cloud of ``b``.

    .. math:: F_{ij} = \frac{1}{|a_i|} \sum_{x \in a_i} \min_{y \in b_j} |x - y|^2, \qquad
              G_{ij} = \frac{1}{|b_j|} \sum_{y \in b_j} \min_{x \in a_i} |x - y|^2

    The Chamfer distance is their sum. Distances come from differences and are averaged in float64. A cloud without
    points has mean 0, and is at infinity for a cloud that has points.

    Args:
        a: ``(N, D)`` points of A clouds, one after the other.
        a_offsets: ``(A + 1,)``.
        b: ``(M, D)`` points of B clouds; None: ``a`` with itself, at half the cost.
        b_offsets: ``(B + 1,)``.
        squared: Average squared distances, or distances.
        period: Length of each axis that wraps, ``inf`` for one that does not.
        engine: ``native`` (CPU), ``kdtree`` (scipy; not periodic), ``torch`` (any device), or ``auto``:
            native where it can be, else the faster of the two others.

    Returns:
        ``F`` and ``G``, each ``(A, B)`` float64.

    Raises:
        DataError: Shapes that do not fit.
        ConfigError: Unknown engine, or a period that does not fit.
        BackendError: The engine cannot be used here.

    Example:
        >>> import torch
        >>> x, y = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [4.0]])
        >>> pairwise_chamfer(x, torch.tensor([0, 2]), y, torch.tensor([0, 1, 2]))[0]
        tensor([[ 1., 10.]], dtype=torch.float64)
    """
    symmetric = b is None
    if b is None or b_offsets is None:
        b, b_offsets = a, a_offsets
    dtype = shared_dtype(a, b)
    a, a_offsets = flat_points(a, a_offsets, dtype, "pairwise_chamfer: a")
    b, b_offsets = (a, a_offsets) if symmetric else flat_points(b, b_offsets, dtype, "pairwise_chamfer: b")
    if a.shape[1] != b.shape[1]:
        raise DataError(f"pairwise_chamfer: both sides must agree in axes, got {a.shape[1]} and {b.shape[1]}")
    wrap = period_argument(None if period is None else tuple(period), a.shape[1], dtype)
    tree = wrap is None and _prefers_tree(a, a_offsets) and _prefers_tree(b, b_offsets)
    engine = resolve(engine, _ENGINES, (a, b), "kdtree" if tree else "torch")
    if engine == "torch":
        return _torch(a, a_offsets, b, b_offsets, wrap, squared)
    if engine == "kdtree":
        if wrap is not None:
            raise DataError("pairwise_chamfer: the kdtree engine takes no periodic axes; pass engine='torch'")
        return _kdtree(a, a_offsets, b, b_offsets, squared)
    module = extension()
    assert module is not None
    forward = torch.empty(a_offsets.numel() - 1, b_offsets.numel() - 1, dtype=torch.float64)
    backward = torch.empty_like(forward)
    kernel = module.chamfer_f64 if dtype == torch.float64 else module.chamfer_f32
    kernel(
        a.data_ptr(),
        a_offsets.data_ptr(),
        forward.shape[0],
        b.data_ptr(),
        b_offsets.data_ptr(),
        forward.shape[1],
        a.shape[1],
        0 if wrap is None else wrap.data_ptr(),
        int(squared),
        int(symmetric),
        forward.data_ptr(),
        backward.data_ptr(),
        threads(),
    )
    return forward, backward


def _prefers_tree(points: Tensor, offsets: Tensor) -> bool:
    """Whether a tree beats comparing all pairs of points; one refuses NaN, which must come to its own end."""
    few_axes = points.device.type == "cpu" and points.shape[1] <= 3
    return few_axes and len(points) >= _TREE_POINTS * (len(offsets) - 1) and bool(points.isfinite().all())


def _torch(
    a: Tensor, a_offsets: Tensor, b: Tensor, b_offsets: Tensor, period: Tensor | None, squared: bool
) -> tuple[Tensor, Tensor]:
    x, real_x = pad(a, a_offsets)
    y, real_y = pad(b, b_offsets)
    forward = torch.zeros(len(x), len(y), dtype=torch.float64, device=a.device)
    backward = torch.zeros_like(forward)
    if not (len(x) and len(y)):
        return forward, backward
    for j, count in enumerate(b_offsets.diff().tolist()):
        one, real = y[j : j + 1, :count], real_y[j : j + 1, :count]
        for some in chunks(len(x), x.shape[1] * count):
            squares = squares_between(x[some], one, real, period)
            squares = torch.where(real_x[some, :, None], squares, torch.inf)
            nothing = squares.new_full((*squares.shape[:2], 1), torch.inf)
            forward[some, j] = _mean(torch.cat([squares, nothing], 2).amin(2), real_x[some], squared)
            nothing = squares.new_full((len(squares), 1, count), torch.inf)
            backward[some, j] = _mean(torch.cat([squares, nothing], 1).amin(1), real.expand(len(squares), -1), squared)
    return forward, backward


def _kdtree(a: Tensor, a_offsets: Tensor, b: Tensor, b_offsets: Tensor, squared: bool) -> tuple[Tensor, Tensor]:
    forward = _to_trees(a, a_offsets, _trees(b, b_offsets), squared)
    if a is b:
        return forward.to(a.device), forward.T.contiguous().to(a.device)
    backward = _to_trees(b, b_offsets, _trees(a, a_offsets), squared).T.contiguous()
    return forward.to(a.device), backward.to(a.device)


def _trees(points: Tensor, offsets: Tensor) -> list[cKDTree | None]:
    clouds = points.cpu().double().split(offsets.diff().tolist())
    return [cKDTree(cloud.numpy(), leafsize=_LEAF) if len(cloud) else None for cloud in clouds]


def _to_trees(points: Tensor, offsets: Tensor, trees: list[cKDTree | None], squared: bool) -> Tensor:
    """Mean distance of each cloud's points to each tree's ``(clouds, trees)``."""
    counts = offsets.diff().cpu()
    means = torch.full((len(counts), len(trees)), math.inf, dtype=torch.float64)
    means[counts == 0] = 0.0
    if not len(points):
        return means
    # Points of all clouds in one order of place: each search takes the way of the one before
    flat = points.cpu().double().numpy()
    order = cKDTree(flat).indices
    flat, cloud = flat[order], torch.repeat_interleave(counts).numpy()[order]
    for column, tree in enumerate(trees):
        if tree is not None:
            distance = tree.query(flat)[0]
            sums = np.bincount(cloud, distance * distance if squared else distance, minlength=len(counts))
            means[:, column] = torch.from_numpy(sums) / counts.clamp(min=1)
    return means


def _mean(squares: Tensor, real: Tensor, squared: bool) -> Tensor:
    values = squares.double() if squared else squares.double().sqrt()
    return torch.where(real, values, 0.0).sum(1) / real.sum(1).clamp(min=1)
