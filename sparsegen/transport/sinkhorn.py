r"""Entropic optimal transport in the log domain, in batches, balanced or unbalanced.

References:
    Sinkhorn Distances: Lightspeed Computation of Optimal Transport (Cuturi, 2013), https://arxiv.org/abs/1306.0895
    Scaling Algorithms for Unbalanced Optimal Transport Problems (Chizat et al., 2018),
    https://arxiv.org/abs/1607.05816
    Interpolating between Optimal Transport and MMD using Sinkhorn Divergences (Feydy et al., 2019),
    https://arxiv.org/abs/1810.08278
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sparsegen.errors import ConfigError, DataError
from sparsegen.transport.clouds import Clouds, PointSets, lengths_of, one_empty, pair_clouds

__all__ = ["SinkhornResult", "sinkhorn", "sinkhorn_divergence"]


@dataclass(frozen=True)
class SinkhornResult:
    """What entropic transport finds for every problem of a batch.

    Args:
        value: The minimum of the entropic problem ``(B,)``; carries the gradient.
        cost: What the plan pays, ``<P, C>`` ``(B,)``; its gradient is that of the value, taken at a fixed plan.
        plan: ``(B, N, M)``, without gradient.
        f: Potential of the rows ``(B, N)``, without gradient.
        g: Potential of the columns ``(B, M)``, without gradient; (f, g) starts the next call warm.
        marginal_error: Mass in the wrong place ``|P 1 - a|_1`` ``(B,)``, the column sums being exact; for
            unbalanced transport the mass that the last iteration still moved.
        iterations: Iterations at the final epsilon.
        converged: Whether every problem reached the tolerance.
    """

    value: Tensor
    cost: Tensor
    plan: Tensor
    f: Tensor
    g: Tensor
    marginal_error: Tensor
    iterations: int
    converged: bool


def sinkhorn(
    cost: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    epsilon: float = 0.05,
    iterations: int = 1000,
    tolerance: float = 1e-6,
    unbalanced: float | None = None,
    scaling: float | None = 0.5,
    start: tuple[Tensor, Tensor] | None = None,
) -> SinkhornResult:
    r"""Entropic transport between discrete measures.

    .. math:: \min_{P \ge 0} \langle P, C \rangle + \varepsilon\, \mathrm{KL}(P \| a b^\top)
              \quad \text{with } P 1 = a,\ P^\top 1 = b,

    or, unbalanced, with :math:`\tau\,\mathrm{KL}(P 1 \| a) + \tau\,\mathrm{KL}(P^\top 1 \| b)` for the constraints.
    Gradients follow from the envelope theorem at the potentials found: :math:`\partial / \partial C = P`,
    :math:`\partial / \partial a = f`; they are those of ``value``, entropy included, and once differentiable. The
    iteration runs in double precision whatever the cost's.

    Args:
        cost: ``(B, N, M)`` or ``(N, M)``, finite.
        a: Masses of the rows ``(B, N)`` or ``(N,)``; None: 1 / N. A mass of 0 takes a padded row out.
        b: Masses of the columns ``(B, M)`` or ``(M,)``; None: 1 / M.
        epsilon: Strength of the entropy, in the unit of the cost.
        iterations: The most iterations at this epsilon.
        tolerance: Marginal error at which the iteration stops.
        unbalanced: tau: the price of creating or destroying mass; None: marginals hold.
        scaling: Ratio of a geometric descent of epsilon from the largest cost; None: no descent.
        start: Potentials (f, g) of an earlier call; no descent then.

    Returns:
        Value, cost, plan, potentials and errors; all batched, B = 1 for a single matrix.

    Raises:
        ConfigError: A setting out of its range.
        DataError: Shapes that do not fit, negative or empty masses, costs that are not finite, different total masses.

    Example:
        >>> result = sinkhorn(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), epsilon=0.01)
        >>> result.converged, round(float(result.plan[0, 0, 0]), 3)
        (True, 0.5)
    """
    if not (epsilon > 0 and tolerance > 0 and iterations > 0):
        raise ConfigError(f"epsilon={epsilon}, tolerance={tolerance}, iterations={iterations}; all must be positive")
    if unbalanced is not None and not unbalanced > 0:
        raise ConfigError(f"unbalanced={unbalanced}; expected the positive price of mass, or None")
    if scaling is not None and not 0 < scaling < 1:
        raise ConfigError(f"scaling={scaling}; expected a ratio between 0 and 1, or None")
    cost, a, b = _checked(cost, a, b, balanced=unbalanced is None)
    matrix, rows, columns = cost.detach().double(), a.detach().double(), b.detach().double()
    log_rows, log_columns = rows.log(), columns.log()
    f, g = torch.zeros_like(rows), torch.zeros_like(columns)
    if start is not None:
        f, g = start[0].to(rows).expand_as(rows), start[1].to(columns).expand_as(columns)

    def row_potential(eps: float) -> Tensor:
        inner = (g[:, None] - matrix) / eps + log_columns[:, None]
        return -_damped(eps, unbalanced) * inner.logsumexp(2)

    def column_potential(eps: float) -> Tensor:
        inner = (f[:, :, None] - matrix) / eps + log_rows[:, :, None]
        return -_damped(eps, unbalanced) * inner.logsumexp(1)

    # Descent: potentials of a large epsilon are a good start for a smaller one.
    if scaling is not None and start is None:
        level = float(matrix.abs().max())
        while level > epsilon:
            f = row_potential(level)
            g = column_potential(level)
            level *= scaling

    # Alternate. The columns of (f, g) fit exactly; how f would change next tells what its rows lack.
    g = column_potential(epsilon)
    done = 0
    while True:
        done += 1
        f_next = row_potential(epsilon)
        error = (rows * ((f - f_next) / epsilon).expm1().abs()).sum(1)
        converged = bool((error <= tolerance).all())
        if converged or done == iterations:
            break
        f = f_next
        g = column_potential(epsilon)

    plan = rows[:, :, None] * columns[:, None] * ((f[:, :, None] + g[:, None] - matrix) / epsilon).exp()
    return SinkhornResult(
        value=_dual_value(cost, a, b, f.to(cost), g.to(cost), epsilon, unbalanced),
        cost=(plan.to(cost) * cost).sum((1, 2)),
        plan=plan.to(cost),
        f=f.to(cost),
        g=g.to(cost),
        marginal_error=error,
        iterations=done,
        converged=converged,
    )


def sinkhorn_divergence(
    a: PointSets,
    b: PointSets,
    epsilon: float = 0.05,
    power: Literal[1, 2] = 2,
    weights: str | tuple[Tensor | None, Tensor | None] | None = None,
    *,
    iterations: int = 1000,
    tolerance: float = 1e-6,
    features: Sequence[str] = (),
    scales: Mapping[str, float] | None = None,
    period: Sequence[float] | None = None,
) -> Tensor:
    r"""Entropic transport without its bias: :math:`S(A, B) = OT(A, B) - \tfrac12 OT(A, A) - \tfrac12 OT(B, B)`.

    Non-negative, zero only for equal measures; from the squared 2-Wasserstein distance (``power=2``) or the ``emd``
    (``power=1``) at small epsilon to a maximum mean discrepancy at large.

    Args:
        a: Events, a tensor ``(B, N, D)``, or ``(points (N, D), offsets (B + 1,))``.
        b: The same, with as many sets.
        epsilon: Strength of the entropy, in the unit of ``distance ** power``.
        power: The cost is the distance to this power.
        weights: A column (an energy), or one tensor of masses a side; normalised set by set.
        iterations: The most iterations of each of the three problems.
        tolerance: Marginal error at which they stop.
        features: Columns compared next to the coordinates.
        scales: Axis or column name -> the length that counts as 1.
        period: For plain tensors: the length of each axis that wraps, ``inf`` for others. Events know theirs.

    Returns:
        ``(B,)``; 0 where both sets are empty, ``inf`` where one is.

    Example:
        >>> x = torch.rand(2, 5, 3)
        >>> bool((sinkhorn_divergence(x, x).abs() < 1e-5).all())
        True
    """
    if power not in (1, 2):
        raise ConfigError(f"power={power}; expected 1 or 2")
    first, second = pair_clouds(a, b, weights=weights, features=features, scales=scales, period=period)
    (x, mass_x), (y, mass_y) = _never_empty(first), _never_empty(second)

    def entropic(u: Tensor, mass_u: Tensor, v: Tensor, mass_v: Tensor) -> Tensor:
        difference = first.difference(u[:, :, None], v[:, None])
        cost = difference.square().sum(3) if power == 2 else lengths_of(difference)
        return sinkhorn(cost, mass_u, mass_v, epsilon, iterations, tolerance).value

    total = entropic(x, mass_x, y, mass_y)
    total = total - (entropic(x, mass_x, x, mass_x) + entropic(y, mass_y, y, mass_y)) / 2
    empty = first.counts + second.counts == 0
    return torch.where(one_empty(first, second), torch.inf, torch.where(empty, 0.0, total))


def _damped(epsilon: float, unbalanced: float | None) -> float:
    """Epsilon, shrunk by how much the marginals may give way."""
    return epsilon if unbalanced is None else epsilon * unbalanced / (unbalanced + epsilon)


def _dual_value(
    cost: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor, epsilon: float, unbalanced: float | None
) -> Tensor:
    """The dual at fixed potentials: its partial derivatives are the gradients (envelope theorem)."""
    gain_f = f if unbalanced is None else -unbalanced * (-f / unbalanced).expm1()
    gain_g = g if unbalanced is None else -unbalanced * (-g / unbalanced).expm1()
    kernel = ((f[:, :, None] + g[:, None] - cost) / epsilon).exp()
    carried = (a[:, :, None] * b[:, None] * kernel).sum((1, 2))
    return (a * gain_f).sum(1) + (b * gain_g).sum(1) - epsilon * (carried - a.sum(1) * b.sum(1))


def _never_empty(clouds: Clouds) -> tuple[Tensor, Tensor]:
    """Padded points and masses; an empty set gets one point at the origin, to be masked by the caller."""
    points, masses = clouds.padded()
    if points.shape[1] == 0:
        points, masses = points.new_zeros(len(clouds), 1, points.shape[2]), masses.new_zeros(len(clouds), 1)
    empty = (clouds.counts == 0).to(masses.dtype)
    return points, torch.cat([masses[:, :1] + empty[:, None], masses[:, 1:]], dim=1)


def _checked(cost: Tensor, a: Tensor | None, b: Tensor | None, balanced: bool) -> tuple[Tensor, Tensor, Tensor]:
    if cost.ndim == 2:
        cost = cost[None]
    if cost.ndim != 3 or 0 in cost.shape[1:]:
        raise DataError(f"cost of shape {tuple(cost.shape)}; expected (B, N, M) or (N, M) with N, M > 0")
    if not bool(cost.isfinite().all()):
        raise DataError("the cost is not finite everywhere; give a forbidden or padded pair a large cost or mass 0")
    masses = []
    for name, mass, size in (("a", a, cost.shape[1]), ("b", b, cost.shape[2])):
        mass = cost.new_full((cost.shape[0], size), 1 / size) if mass is None else mass.to(cost)
        if mass.shape[-1] != size or mass.ndim > 2:
            raise DataError(f"masses {name} of shape {tuple(mass.shape)} for a cost {tuple(cost.shape)}")
        mass = mass.expand(cost.shape[0], size)
        if not bool((mass >= 0).all()) or bool((mass.sum(1) <= 0).any()):
            raise DataError(f"masses {name} must be >= 0 and sum to more than 0 in every problem")
        masses.append(mass)
    gap = (masses[0].sum(1) - masses[1].sum(1)).abs()
    if balanced and bool((gap > 1e-4 * masses[0].sum(1)).any()):
        event = int(gap.argmax())
        raise DataError(
            f"problem {event} has masses {float(masses[0][event].sum()):g} and {float(masses[1][event].sum()):g}; "
            "normalise them, or pass unbalanced="
        )
    return cost, masses[0], masses[1]
