r"""The exact earth mover's distance between ragged batches of point sets.

References:
    The Earth Mover's Distance as a Metric for Image Retrieval (Rubner et al., 2000)
    A Point Set Generation Network for 3D Object Reconstruction from a Single Image (Fan et al., 2017),
    https://arxiv.org/abs/1612.00603
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import csr_matrix
from torch import Tensor

from sparsegen import kernels
from sparsegen.errors import DivergedError
from sparsegen.transport.clouds import Clouds, PointSets, lengths_of, one_empty, pair_clouds, segment_mean, segment_sum

__all__ = ["emd", "exact_plan"]

Array = NDArray[np.float64]


def emd(
    a: PointSets,
    b: PointSets,
    weights: str | tuple[Tensor | None, Tensor | None] | None = None,
    *,
    features: Sequence[str] = (),
    scales: Mapping[str, float] | None = None,
    period: Sequence[float] | None = None,
) -> Tensor:
    r"""The least mean distance over which the mass of one set is carried onto the other, with Euclidean distances.

    Both sides have mass 1. With N points a side and no weights it is the best one-to-one matching,

    .. math:: \frac1N \min_{\phi} \sum_{x \in A} \|x - \phi(x)\|,

    and in general the linear program :math:`\min_P \sum_{ij} P_{ij} \|x_i - y_j\|` over plans with marginals
    ``weights / sum(weights)`` (or 1 / N). Optimal, not approximate: published "EMD" values from approximate
    matchings are larger by some 20 %. The gradient is that of the value at the optimal plan, for positions and weights.

    Args:
        a: Events, a tensor ``(B, N, D)``, or ``(points (N, D), offsets (B + 1,))``.
        b: The same, with as many sets.
        weights: A column (an energy), or one tensor of masses a side; normalised set by set.
        features: Columns compared next to the coordinates.
        scales: Axis or column name -> the length that counts as 1.
        period: For plain tensors: the length of each axis that wraps, ``inf`` for others. Events know theirs.

    Returns:
        ``(B,)`` in the unit of the coordinates; 0 where both sets are empty, ``inf`` where one is.

    Example:
        >>> x = torch.tensor([[[0.0, 0.0], [1.0, 0.0]]])
        >>> emd(x, x.flip(1) + torch.tensor([0.0, 3.0]))
        tensor([3.])
    """
    first, second = pair_clouds(a, b, weights=weights, features=features, scales=scales, period=period)
    if first.weights is None and second.weights is None and torch.equal(first.counts, second.counts):
        partner = kernels.assign(first.points, first.offsets, second.points, second.offsets, power=1, period=first.wrap)
        return segment_mean(lengths_of(first.difference(first.points, second.points[partner])), first.offsets)
    total = _carried(first, second)
    return torch.where(one_empty(first, second), torch.inf, total)


def exact_plan(cost: Array, source: Array, target: Array) -> tuple[Array, Array, Array, Array, Array]:
    """The optimal plan between two discrete measures of equal mass, and its dual potentials.

    The network simplex of POT where it is installed, otherwise the linear program of scipy.

    Args:
        cost: ``(n, m)``.
        source: ``(n,)``, sums to 1.
        target: ``(m,)``, sums to 1.

    Returns:
        Rows, columns and masses of the plan's non-zero entries, and the potentials ``(n,)`` and ``(m,)``.
    """
    if importlib.util.find_spec("ot") is not None:
        import ot

        plan, log = ot.emd(source, target, cost, log=True, numItermax=10_000_000)
        if log["warning"] is not None:
            raise DivergedError(f"exact transport of {cost.shape} masses did not finish: {log['warning']}")
        rows, columns = plan.nonzero()
        return rows, columns, plan[rows, columns], log["u"], log["v"]
    n, m = cost.shape
    row, column = np.divmod(np.arange(n * m), m)
    ones, index = np.ones(2 * n * m), np.arange(n * m)
    marginals = csr_matrix((ones, (np.concatenate([row, n + column]), np.concatenate([index, index]))))
    # one of the n + m equations follows from the others: left out, so that rounding cannot make them contradict
    solved = linprog(cost.ravel(), A_eq=marginals[:-1], b_eq=np.concatenate([source, target[:-1]]), method="highs")
    if solved.x is None:
        raise DivergedError(f"exact transport of {cost.shape} masses failed: {solved.message}")
    plan = solved.x.reshape(n, m)
    rows, columns = (plan > 0).nonzero()
    potentials = np.append(solved.eqlin.marginals, 0.0)
    return rows, columns, plan[rows, columns], potentials[:n], potentials[n:]


def _carried(a: Clouds, b: Clouds) -> Tensor:
    """Total cost of the optimal plan of every pair, differentiable in points and masses."""
    x, y = a.points.detach().double().cpu(), b.points.detach().double().cpu()
    mass_a, mass_b = a.masses, b.masses
    source, target = mass_a.detach().double().cpu().numpy(), mass_b.detach().double().cpu().numpy()
    rows, columns, carried = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0)]
    price_a, price_b = np.zeros(len(source)), np.zeros(len(target))
    starts_a, starts_b = a.offsets.tolist(), b.offsets.tolist()
    for event in range(len(a)):
        here, there = slice(starts_a[event], starts_a[event + 1]), slice(starts_b[event], starts_b[event + 1])
        if here.start == here.stop or there.start == there.stop:
            continue
        cost = a.difference(x[here, None], y[None, there]).norm(dim=2).numpy()
        # sums of single-precision masses differ from 1 by rounding; both sides must sum to the same
        supply, demand = source[here] / source[here].sum(), target[there] / target[there].sum()
        row, column, mass, price_a[here], price_b[there] = exact_plan(cost, supply, demand)
        rows.append(row + here.start)
        columns.append(column + there.start)
        carried.append(mass)
    device, kind = a.points.device, a.points.dtype
    row_index = torch.from_numpy(np.concatenate(rows)).to(device)
    column_index = torch.from_numpy(np.concatenate(columns)).to(device)
    distance = lengths_of(a.difference(a.points[row_index], b.points[column_index]))
    paid = distance * torch.from_numpy(np.concatenate(carried)).to(device, kind)
    total = torch.zeros(len(a), dtype=kind, device=device).index_add(0, a.batch[row_index], paid)
    # the derivative by a mass is its dual price; the terms themselves are zero
    for masses, prices, offsets in ((mass_a, price_a, a.offsets), (mass_b, price_b, b.offsets)):
        if masses.requires_grad:
            price = torch.from_numpy(prices).to(device, kind)
            total = total + segment_sum((masses - masses.detach()) * price, offsets)
    return total
