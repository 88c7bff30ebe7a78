"""Exact linear assignment for batches of small problems: matched pairs of points, earth mover's distances."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from sparsegen.errors import ConfigError, DataError
from sparsegen.kernels.native import extension, period_argument, resolve, threads
from sparsegen.kernels.ragged import flat_points, pair_squares

__all__ = ["Assignment", "assign", "assign_costs"]

_ENGINES = ("native", "scipy")


class Assignment(NamedTuple):
    """A cheapest matching of every event.

    Args:
        partner: int64, for every row the flat index of its column, -1 for rows left over where they outnumber columns.
        total: ``(B,)`` float64, the cost of each event's matching.
    """

    partner: Tensor
    total: Tensor


def assign(
    a: Tensor,
    a_offsets: Tensor,
    b: Tensor,
    b_offsets: Tensor,
    *,
    power: int = 2,
    period: Sequence[float] | None = None,
    engine: str = "auto",
) -> Tensor:
    r"""Pairs each point of ``a`` with one of ``b`` at least :math:`\sum |a_i - b_{\pi(i)}|^p`, event by event.

    All of the smaller side is matched. Costs are computed and solved in float64 on the CPU, whatever the device.

    Args:
        a: ``(N, D)`` points, event after event.
        a_offsets: ``(B + 1,)`` where each event begins.
        b: ``(M, D)`` points.
        b_offsets: ``(B + 1,)``.
        power: 1 for distances, 2 for their squares.
        period: Length of each axis that wraps, ``inf`` for one that does not.
        engine: ``native``, ``scipy`` or ``auto``.

    Returns:
        ``(N,)`` int64: the flat index of each point's partner in ``b``, -1 for points left over.

    Raises:
        DataError: Shapes that do not fit, or coordinates that are not finite (the message names the event).
        ConfigError: Unknown engine, another power, or a period that does not fit.
        BackendError: The engine cannot be used here.

    Example:
        >>> import torch
        >>> x, y = torch.tensor([[0.0], [1.0], [9.0]]), torch.tensor([[1.1], [0.2]])
        >>> assign(x, torch.tensor([0, 3]), y, torch.tensor([0, 2]))
        tensor([ 1,  0, -1])

    References:
        A Shortest Augmenting Path Algorithm for Dense and Sparse Linear Assignment Problems (Jonker and Volgenant,
        1987), https://doi.org/10.1007/BF02278710
    """
    if power not in (1, 2):
        raise ConfigError(f"assign: power {power}: expected 1 (distances) or 2 (squared distances)")
    device = a.device
    a, a_offsets = flat_points(a.cpu(), a_offsets, torch.float64, "assign: a")
    b, b_offsets = flat_points(b.cpu(), b_offsets, torch.float64, "assign: b")
    if a.shape[1] != b.shape[1] or a_offsets.shape != b_offsets.shape:
        raise DataError(
            f"assign: both sides must agree in axes and events, got {a.shape[1]} and {b.shape[1]} axes, "
            f"{a_offsets.numel() - 1} and {b_offsets.numel() - 1} events"
        )
    wrap = period_argument(None if period is None else tuple(period), a.shape[1], torch.float64)
    partner, total = torch.empty(len(a), dtype=torch.int64), torch.empty(a_offsets.numel() - 1, dtype=torch.float64)
    if resolve(engine, _ENGINES, (a, b), "scipy") == "native":
        module = extension()
        assert module is not None
        bad = module.assign_points(
            a.data_ptr(),
            a_offsets.data_ptr(),
            b.data_ptr(),
            b_offsets.data_ptr(),
            total.numel(),
            a.shape[1],
            0 if wrap is None else wrap.data_ptr(),
            power,
            partner.data_ptr(),
            total.data_ptr(),
            threads(),
        )
    else:
        blocks = []
        for (first, last), (start, stop) in zip(_spans(a_offsets), _spans(b_offsets), strict=True):
            squares = pair_squares(a[first:last, None], b[None, start:stop], wrap)
            blocks.append(squares.sqrt() if power == 1 else squares)
        bad = _scipy(blocks, a_offsets, b_offsets, partner, total)
    if bad >= 0:
        raise DataError(
            f"assign: event {bad} holds coordinates that are not finite or differ by more than float64 holds"
        )
    return partner.to(device)


def assign_costs(costs: Tensor, rows: Tensor, columns: Tensor, *, engine: str = "auto") -> Assignment:
    r"""Cheapest assignment :math:`\min_\pi \sum_i C_{i \pi(i)}` of every matrix of a ragged batch.

    All of the smaller side is matched.

    Args:
        costs: Flat: matrix after matrix, row-major; or ``(B, n, m)``, where ``rows`` and ``columns`` may say that
            only the upper left corner of a matrix counts.
        rows: ``(B,)`` rows of each matrix.
        columns: ``(B,)`` columns of each matrix.
        engine: ``native``, ``scipy`` or ``auto``.

    Returns:
        Partners (flat row to flat column, -1 for rows left over) and total costs.

    Raises:
        DataError: Sizes that do not fit, or a cost that is not finite.
        ConfigError: Unknown engine.
        BackendError: The engine cannot be used here.

    Example:
        >>> import torch
        >>> assign_costs(torch.tensor([[[1.0, 0.0], [5.0, 3.0]]]), torch.tensor([2]), torch.tensor([2]))
        Assignment(partner=tensor([0, 1]), total=tensor([4.], dtype=torch.float64))
    """
    device = costs.device
    rows, columns = (x.to("cpu", torch.int64) for x in (rows, columns))
    costs = costs.detach().to("cpu", torch.float64)
    if costs.ndim == 3:
        inside = (torch.arange(costs.shape[1]) < rows[:, None])[:, :, None]
        costs = costs[inside & (torch.arange(costs.shape[2]) < columns[:, None])[:, None]]
    if costs.ndim != 1 or rows.shape != columns.shape or costs.numel() != int((rows * columns).sum()):
        raise DataError(
            f"assign_costs: {costs.numel()} costs for matrices of {int((rows * columns).sum())} entries together"
        )
    costs = costs.contiguous()
    row_offsets, column_offsets = (torch.cat([x.new_zeros(1), x.cumsum(0)]) for x in (rows, columns))
    partner = torch.empty(int(row_offsets[-1]), dtype=torch.int64)
    total = torch.empty(rows.numel(), dtype=torch.float64)
    if resolve(engine, _ENGINES, (costs,), "scipy") == "native":
        module = extension()
        assert module is not None
        bad = module.assign_costs(
            costs.data_ptr(),
            row_offsets.data_ptr(),
            column_offsets.data_ptr(),
            total.numel(),
            partner.data_ptr(),
            total.data_ptr(),
            threads(),
        )
    else:
        shapes = list(zip(rows.tolist(), columns.tolist(), strict=True))
        blocks = [x.view(shape) for x, shape in zip(costs.split([n * m for n, m in shapes]), shapes, strict=True)]
        bad = _scipy(blocks, row_offsets, column_offsets, partner, total)
    if bad >= 0:
        raise DataError(f"assign_costs: matrix {bad} holds a cost that is not finite")
    return Assignment(partner.to(device), total.to(device))


def _spans(offsets: Tensor) -> list[tuple[int, int]]:
    ends = offsets.tolist()
    return list(itertools.pairwise(ends))


def _scipy(blocks: list[Tensor], row_offsets: Tensor, column_offsets: Tensor, partner: Tensor, total: Tensor) -> int:
    """Fills ``partner`` and ``total``; -1, or the first matrix that is not finite."""
    partner.fill_(-1)
    for e, (block, row, column) in enumerate(zip(blocks, row_offsets.tolist(), column_offsets.tolist(), strict=False)):
        if not block.isfinite().all():
            return e
        i, j = (torch.from_numpy(x) for x in linear_sum_assignment(block.numpy()))
        partner[row + i] = column + j
        total[e] = block[i, j].sum()
    return -1
