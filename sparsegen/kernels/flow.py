"""Earth mover's distances of all sets to all sets, exactly, with any masses."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment, linprog
from scipy.sparse import csr_matrix
from torch import Tensor

from sparsegen.errors import ConfigError, DataError
from sparsegen.kernels.native import extension, period_argument, resolve, threads
from sparsegen.kernels.ragged import flat_points, pair_squares

__all__ = ["pairwise_emd"]

_ENGINES = ("native", "scipy")


def pairwise_emd(
    a: Tensor,
    a_offsets: Tensor,
    b: Tensor | None = None,
    b_offsets: Tensor | None = None,
    *,
    a_masses: Tensor | None = None,
    b_masses: Tensor | None = None,
    unmatched: float | None = None,
    period: Sequence[float] | None = None,
    engine: str = "auto",
) -> Tensor:
    r"""The least cost of carrying every set of ``a`` onto every set of ``b``.

    .. math:: \min_P \sum_{kl} P_{kl} |x_k - y_l|

    over plans whose marginals are the masses.

    Args:
        a: ``(N, D)`` points of A sets, one after the other.
        a_offsets: ``(A + 1,)``.
        b: ``(M, D)`` points of B sets; None: ``a`` with itself, at half the cost.
        b_offsets: ``(B + 1,)``.
        a_masses: ``(N,)`` non-negative masses; equal by default.
        b_masses: ``(M,)``.
        unmatched: None: each set has mass one. Otherwise masses are as given, and what one side has more costs this
            much a unit.
        period: Length of each axis that wraps, ``inf`` for one that does not.
        engine: ``native``, ``scipy`` (a linear program a pair), or ``auto``. Both work in float64 on the CPU and agree
            to rounding. As many points of one mass on both sides are matched one to one, which is faster.

    Returns:
        ``(A, B)`` float64. With mass one: 0 where both sets are empty, ``inf`` where one is.

    Raises:
        DataError: Shapes that do not fit, negative masses, or values that are not finite.
        ConfigError: A negative price of unmatched mass, an unknown engine, or a period that does not fit.
        BackendError: The engine cannot be used here.

    Example:
        >>> x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0]])
        >>> pairwise_emd(x, torch.tensor([0, 2]), y, torch.tensor([0, 1]), a_masses=torch.tensor([3.0, 1.0]))
        tensor([[2.7500]], dtype=torch.float64)
        >>> pairwise_emd(x, torch.tensor([0, 2]), y, torch.tensor([0, 1]), unmatched=5.0)
        tensor([[7.]], dtype=torch.float64)

    References:
        Network Flows: Theory, Algorithms, and Applications (Ahuja, Magnanti, Orlin, 1993), chapter 11
    """
    symmetric = b is None
    if b is None or b_offsets is None:
        b, b_offsets, b_masses = a, a_offsets, a_masses
    if unmatched is not None and not (unmatched >= 0 and math.isfinite(unmatched)):
        raise ConfigError(f"pairwise_emd: unmatched={unmatched}: expected a price of 0 or more, or None")
    device = a.device
    a, a_offsets = flat_points(a.cpu(), a_offsets, torch.float64, "pairwise_emd: a")
    b, b_offsets = flat_points(b.cpu(), b_offsets, torch.float64, "pairwise_emd: b")
    if a.shape[1] != b.shape[1]:
        raise DataError(f"pairwise_emd: both sides must agree in axes, got {a.shape[1]} and {b.shape[1]}")
    mass_a, mass_b = _masses(a_masses, a, "a"), _masses(b_masses, b, "b")
    wrap = period_argument(None if period is None else tuple(period), a.shape[1], torch.float64)
    out = torch.empty(a_offsets.numel() - 1, b_offsets.numel() - 1, dtype=torch.float64)
    if resolve(engine, _ENGINES, (a, b), "scipy") == "native":
        module = extension()
        assert module is not None
        bad = module.pairwise_flow(
            a.data_ptr(),
            a_offsets.data_ptr(),
            mass_a.data_ptr(),
            out.shape[0],
            b.data_ptr(),
            b_offsets.data_ptr(),
            mass_b.data_ptr(),
            out.shape[1],
            a.shape[1],
            0 if wrap is None else wrap.data_ptr(),
            int(symmetric),
            -1.0 if unmatched is None else float(unmatched),
            out.data_ptr(),
            threads(),
        )
    else:
        bad = _scipy(a, a_offsets, mass_a, b, b_offsets, mass_b, wrap, unmatched, symmetric, out)
    if bad >= 0:
        i, j = divmod(bad, out.shape[1])
        raise DataError(f"pairwise_emd: set {i} of a or set {j} of b holds values that are not finite")
    return out.to(device)


def _masses(masses: Tensor | None, points: Tensor, name: str) -> Tensor:
    if masses is None:
        return torch.ones(len(points), dtype=torch.float64)
    found = masses.detach().to("cpu", torch.float64).contiguous()
    if found.shape != (len(points),) or bool((found < 0).any()):
        raise DataError(
            f"pairwise_emd: masses of {name} have shape {tuple(found.shape)}; expected ({len(points)},), none negative"
        )
    return found


def _scipy(
    a: Tensor,
    a_offsets: Tensor,
    a_masses: Tensor,
    b: Tensor,
    b_offsets: Tensor,
    b_masses: Tensor,
    period: Tensor | None,
    unmatched: float | None,
    symmetric: bool,
    out: Tensor,
) -> int:
    """Fills ``out``; -1, or the number of the first pair that is not finite."""
    cuts_a, cuts_b = a_offsets.tolist(), b_offsets.tolist()
    for i, j in np.ndindex(*out.shape):
        if symmetric and i >= j:
            out[i, j] = 0.0 if i == j else out[j, i]
            continue
        rows, columns = slice(cuts_a[i], cuts_a[i + 1]), slice(cuts_b[j], cuts_b[j + 1])
        cost = pair_squares(a[rows, None], b[None, columns], period).sqrt().numpy()
        source, target = a_masses[rows].numpy(), b_masses[columns].numpy()
        if not (np.isfinite(cost).all() and np.isfinite(source).all() and np.isfinite(target).all()):
            return i * out.shape[1] + j
        out[i, j] = _program(cost, source, target, unmatched)
    return -1


def _program(
    cost: NDArray[np.float64], source: NDArray[np.float64], target: NDArray[np.float64], unmatched: float | None
) -> float:
    """The value of one transport program."""
    have, want = source.sum(), target.sum()
    if have == 0 or want == 0:
        if have == want:
            return 0.0
        return math.inf if unmatched is None else unmatched * float(have + want)
    if unmatched is None:
        source, target = source / have, target / want
    if len(source) == len(target) and np.unique(np.concatenate([source, target])).size == 1:
        return float(cost[linear_sum_assignment(cost)].sum() * source[0])
    if unmatched is not None and have > want:
        cost, target = np.pad(cost, ((0, 0), (0, 1)), constant_values=unmatched), np.append(target, have - want)
    elif unmatched is not None and want > have:
        cost, source = np.pad(cost, ((0, 1), (0, 0)), constant_values=unmatched), np.append(source, want - have)
    n, m = cost.shape
    row, column = np.divmod(np.arange(n * m), m)
    index = np.arange(n * m)
    marginals = csr_matrix((np.ones(2 * n * m), (np.concatenate([row, n + column]), np.concatenate([index, index]))))
    # One of the equations follows from the others: left out, so that rounding cannot make them contradict.
    solved = linprog(cost.ravel(), A_eq=marginals[:-1], b_eq=np.concatenate([source, target[:-1]]), method="highs")
    return float(solved.fun)
