"""Nearest neighbours event by event: what Chamfer distances and memorisation ratios stand on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from sparsegen.errors import DataError
from sparsegen.kernels.native import extension, period_argument, resolve, threads, usable
from sparsegen.kernels.ragged import chunks, flat_points, pad, pair_squares, shared_dtype, squares_between

__all__ = ["Nearest", "nearest", "nearest_both"]

_ENGINES = ("native", "kdtree", "torch")

# Above this many targets an event, in up to three dimensions, a tree beats comparing all pairs.
_TREE_TARGETS = 20_000
# Without the native extension the tree wins much earlier.
_TREE_TARGETS_WITHOUT_NATIVE = 256


class Nearest(NamedTuple):
    """Where the nearest neighbours are.

    Args:
        indices: ``(N,)`` int64 into the other side's flat points; -1 where its event is empty.
        squared: ``(N,)`` squared distance, computed from differences; ``inf`` where the event is empty.
    """

    indices: Tensor
    squared: Tensor


def nearest(
    queries: Tensor,
    query_offsets: Tensor,
    targets: Tensor,
    target_offsets: Tensor,
    *,
    period: Sequence[float] | None = None,
    engine: str = "auto",
) -> Nearest:
    r"""The nearest target of every query within its event, :math:`\arg\min_j |x_i - y_j|^2`.

    Distances come from differences, so they are exact far from the origin. Ties go to the lowest index; the ``kdtree``
    engine alone may choose another among points that are equally far to rounding. Nothing here has a gradient: gather
    with ``indices`` and subtract, and the distance has one.

    Args:
        queries: ``(N, D)`` points, event after event.
        query_offsets: ``(B + 1,)`` where each event's queries begin.
        targets: ``(M, D)`` points.
        target_offsets: ``(B + 1,)``.
        period: Length of each axis that wraps, ``inf`` for one that does not.
        engine: ``native`` (CPU), ``kdtree`` (scipy), ``torch`` (any device), or ``auto``: native on the CPU, torch
            elsewhere, a tree for very large events.

    Returns:
        Index and squared distance of every query. A query that is NaN or infinitely far from all targets gets the
        event's first target and its distance as it is.

    Raises:
        DataError: Shapes or offsets that do not fit.
        ConfigError: Unknown engine, or a period that does not fit.
        BackendError: The engine cannot be used here.

    Example:
        >>> import torch
        >>> x, y = torch.tensor([[0.0], [5.0]]), torch.tensor([[1.0], [4.5], [9.0]])
        >>> nearest(x, torch.tensor([0, 2]), y, torch.tensor([0, 3]))
        Nearest(indices=tensor([0, 1]), squared=tensor([1.0000, 0.2500]))
    """
    return _search(queries, query_offsets, targets, target_offsets, period, engine, both=False)[0]


def nearest_both(
    a: Tensor,
    a_offsets: Tensor,
    b: Tensor,
    b_offsets: Tensor,
    *,
    period: Sequence[float] | None = None,
    engine: str = "auto",
) -> tuple[Nearest, Nearest]:
    """The nearest ``b`` of every ``a`` and the nearest ``a`` of every ``b``, in one pass; otherwise as `nearest`."""
    there, back = _search(a, a_offsets, b, b_offsets, period, engine, both=True)
    return there, back


def _search(
    a: Tensor,
    a_offsets: Tensor,
    b: Tensor,
    b_offsets: Tensor,
    period: Sequence[float] | None,
    engine: str,
    *,
    both: bool,
) -> list[Nearest]:
    dtype = shared_dtype(a, b)
    a, a_offsets = flat_points(a, a_offsets, dtype, "nearest: queries")
    b, b_offsets = flat_points(b, b_offsets, dtype, "nearest: targets")
    if a.shape[1] != b.shape[1] or a_offsets.shape != b_offsets.shape:
        raise DataError(
            f"nearest: queries and targets must agree in axes and events, got {a.shape[1]} and {b.shape[1]} axes, "
            f"{a_offsets.numel() - 1} and {b_offsets.numel() - 1} events"
        )
    wrap = period_argument(None if period is None else tuple(period), a.shape[1], dtype)
    tree = engine == "auto" and _prefers_tree(a, b, b_offsets)
    engine = "kdtree" if tree else resolve(engine, _ENGINES, (a, b), "torch")
    if engine == "native":
        return _native(a, a_offsets, b, b_offsets, wrap, both)
    one_way = _kdtree if engine == "kdtree" else _torch
    found = [one_way(a, a_offsets, b, b_offsets, wrap)]
    return [*found, one_way(b, b_offsets, a, a_offsets, wrap)] if both else found


def _prefers_tree(a: Tensor, b: Tensor, offsets: Tensor) -> bool:
    events = max(offsets.numel() - 1, 1)
    if b.device.type != "cpu" or b.shape[1] > 3 or b.shape[0] <= _TREE_TARGETS_WITHOUT_NATIVE * events:
        return False
    limit = _TREE_TARGETS if usable(b) else _TREE_TARGETS_WITHOUT_NATIVE
    # A tree refuses NaN; a diverging training run must come to its own end.
    return b.shape[0] > limit * events and bool(a.isfinite().all()) and bool(b.isfinite().all())


def _native(
    a: Tensor, a_offsets: Tensor, b: Tensor, b_offsets: Tensor, period: Tensor | None, both: bool
) -> list[Nearest]:
    module = extension()
    assert module is not None
    sides = [
        Nearest(torch.empty(len(x), dtype=torch.int64), torch.empty_like(x[:, 0])) for x in ([a, b] if both else [a])
    ]
    there, back = sides[0], sides[-1]
    kernel = module.nearest_f64 if a.dtype == torch.float64 else module.nearest_f32
    kernel(
        a.data_ptr(),
        a_offsets.data_ptr(),
        b.data_ptr(),
        b_offsets.data_ptr(),
        a_offsets.numel() - 1,
        a.shape[1],
        0 if period is None else period.data_ptr(),
        there.indices.data_ptr(),
        there.squared.data_ptr(),
        back.indices.data_ptr() if both else 0,
        back.squared.data_ptr() if both else 0,
        threads(),
    )
    return sides


def _torch(a: Tensor, a_offsets: Tensor, b: Tensor, b_offsets: Tensor, period: Tensor | None) -> Nearest:
    x, real_x = pad(a, a_offsets)
    y, real_y = pad(b, b_offsets)
    index = torch.full(real_x.shape, -1, dtype=torch.int64, device=a.device)
    if x.shape[1] and y.shape[1]:
        for events in chunks(len(x), y.shape[1]):
            width = max(1, len(x[events]))
            for rows in chunks(x.shape[1], width * y.shape[1]):
                squares = squares_between(x[events, rows], y[events], real_y[events], period)
                index[events, rows] = squares.argmin(2)
    start = b_offsets[:-1, None].expand(index.shape)[real_x]
    empty = (b_offsets.diff() == 0)[:, None].expand(index.shape)[real_x]
    return _measured(a, b, torch.where(empty, -1, start + index[real_x]), period)


def _kdtree(a: Tensor, a_offsets: Tensor, b: Tensor, b_offsets: Tensor, period: Tensor | None) -> Nearest:
    queries, targets = a.cpu().double(), b.cpu().double()
    boxes = None
    if period is not None:
        # The tree wants coordinates within [0, box); 0 marks an axis that does not wrap.
        boxes = period.double().numpy()
        wrap = period.double()
        queries, targets = (
            torch.where(wrap > 0, x.remainder(torch.where(wrap > 0, wrap, 1.0)), x) for x in (queries, targets)
        )
        queries, targets = (torch.where((wrap > 0) & (x >= wrap), 0.0, x) for x in (queries, targets))
    if not (queries.isfinite().all() and targets.isfinite().all()):
        raise DataError("nearest: the kdtree engine takes finite coordinates only; pass engine='auto'")
    index = torch.full((len(a),), -1, dtype=torch.int64)
    ends, target_ends = a_offsets.tolist(), b_offsets.tolist()
    for first, last, start, stop in zip(ends, ends[1:], target_ends, target_ends[1:], strict=False):
        if last > first and stop > start:
            tree = cKDTree(targets[start:stop].numpy(), boxsize=boxes)
            index[first:last] = torch.from_numpy(tree.query(queries[first:last].numpy())[1]) + start
    return _measured(a, b, index.to(a.device), period)


def _measured(a: Tensor, b: Tensor, index: Tensor, period: Tensor | None) -> Nearest:
    squared = torch.full_like(a[:, 0], torch.inf)
    found = index >= 0
    squared[found] = pair_squares(a[found], b[index[found]], period)
    return Nearest(index, squared)
