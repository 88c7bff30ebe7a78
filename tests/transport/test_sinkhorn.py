import math

import ot
import pytest
import torch

from sparsegen.errors import ConfigError, DataError
from sparsegen.transport import emd, sinkhorn, sinkhorn_divergence


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def problem(batch=2, n=6, m=5, seed=0):
    g = seeded(seed)
    cost = torch.rand(batch, n, m, dtype=torch.double, generator=g)
    a, b = (torch.rand(batch, k, dtype=torch.double, generator=g) + 0.1 for k in (n, m))
    return cost, a / a.sum(1, keepdim=True), b / b.sum(1, keepdim=True)


def test_the_plan_is_that_of_pot_and_its_marginals_hold():
    cost, a, b = problem()
    result = sinkhorn(cost, a, b, epsilon=0.05, tolerance=1e-9)
    for i in range(2):
        plan = ot.sinkhorn(a[i].numpy(), b[i].numpy(), cost[i].numpy(), 0.05, stopThr=1e-12)
        assert torch.from_numpy(plan).sub(result.plan[i]).abs().max() < 1e-8
    assert result.converged
    assert (result.plan.sum(2) - a).abs().sum(1).max() < 1e-8
    assert (result.plan.sum(1) - b).abs().sum(1).max() < 1e-8


def test_the_reported_marginal_error_is_the_plans_own():
    cost, a, b = problem()
    result = sinkhorn(cost, a, b, epsilon=0.01, iterations=5, scaling=None)
    assert not result.converged
    torch.testing.assert_close(result.marginal_error, (result.plan.sum(2) - a).abs().sum(1))
    assert (result.plan.sum(1) - b).abs().max() < 1e-12


def test_unbalanced_agrees_with_pot():
    cost, a, b = problem()
    result = sinkhorn(cost, a, 2 * b, epsilon=0.05, unbalanced=0.3, tolerance=1e-12, iterations=5000)
    reference = ot.unbalanced.sinkhorn_unbalanced(
        a[0].numpy(), 2 * b[0].numpy(), cost[0].numpy(), 0.05, 0.3, numItermax=5000, stopThr=1e-14
    )
    assert torch.from_numpy(reference).sub(result.plan[0]).abs().max() < 1e-8


@pytest.mark.parametrize("unbalanced", [None, 0.5])
def test_the_gradient_is_that_of_the_penalised_value(unbalanced):
    cost, a, b = problem(n=4, m=3)

    # Masses through a softmax: the value is defined on the simplex only.
    def value(cost, x, y):
        return sinkhorn(cost, x.softmax(1), y.softmax(1), 0.2, 5000, 1e-13, unbalanced).value

    assert torch.autograd.gradcheck(value, tuple(t.requires_grad_() for t in (cost, a.log(), b.log())))


@pytest.mark.parametrize("unbalanced", [None, 0.5])
def test_the_value_is_the_primal_objective_of_the_plan(unbalanced):
    cost, a, b = problem()
    result = sinkhorn(cost, a, b, 0.1, 5000, 1e-12, unbalanced)

    def kl(p, q):
        return (p * (p / q).log() - p + q).flatten(1).sum(1)

    primal = result.cost + 0.1 * kl(result.plan, a[:, :, None] * b[:, None])
    if unbalanced is not None:
        primal = primal + unbalanced * (kl(result.plan.sum(2), a) + kl(result.plan.sum(1), b))
    torch.testing.assert_close(result.value, primal, rtol=1e-9, atol=0)


def test_small_epsilon_gives_the_exact_cost():
    cost, a, b = problem()
    result = sinkhorn(cost, a, b, epsilon=1e-3, iterations=20000)
    exact = ot.emd2(a[0].numpy(), b[0].numpy(), cost[0].numpy())
    assert exact - 1e-6 <= result.cost[0].item() < exact + 5e-3


def test_padding_with_mass_zero_changes_nothing():
    cost, a, b = problem()
    padded = torch.cat([cost, torch.full((2, 3, 5), 7.0, dtype=torch.double)], 1)
    wide = sinkhorn(padded, torch.cat([a, a.new_zeros(2, 3)], 1), b, scaling=None)
    torch.testing.assert_close(wide.value, sinkhorn(cost, a, b, scaling=None).value)
    assert wide.plan[:, 6:].abs().max() == 0


def test_a_warm_start_needs_one_iteration():
    cost, a, b = problem()
    cold = sinkhorn(cost, a, b)
    warm = sinkhorn(cost, a, b, start=(cold.f, cold.g))
    assert warm.iterations == 1 < cold.iterations


def test_single_precision_reaches_the_same_marginals():
    cost, a, b = (t.float() for t in problem(n=64, m=64))
    assert sinkhorn(cost, a, b, epsilon=0.02, iterations=5000).converged


@pytest.mark.parametrize("power", [1, 2])
def test_divergence_is_zero_for_equal_sets_and_positive_otherwise(power):
    g = seeded(0)
    x, y = (torch.rand(3, 7, 2, dtype=torch.double, generator=g) for _ in range(2))
    assert sinkhorn_divergence(x, x[:, [3, 1, 2, 0, 6, 5, 4]], power=power).abs().max() < 1e-6
    assert sinkhorn_divergence(x, y, power=power).min() > 1e-3


def test_divergence_of_a_shift_is_its_square():
    x = torch.rand(1, 6, 2, dtype=torch.double, generator=seeded(0))
    value = sinkhorn_divergence(x, x + torch.tensor([0.6, 0.8]), epsilon=0.1, tolerance=1e-9)
    assert value.item() == pytest.approx(1.0, abs=1e-6)


def test_divergence_at_small_epsilon_is_the_emd():
    x, y = (torch.rand(2, 6, 2, dtype=torch.double, generator=seeded(s)) for s in (0, 1))
    value = sinkhorn_divergence(x, y, epsilon=1e-3, power=1, iterations=20000)
    torch.testing.assert_close(value, emd(x, y), rtol=0, atol=5e-3)


def test_divergence_of_ragged_sets_and_empty_ones():
    x = torch.rand(5, 2, dtype=torch.double, generator=seeded(0))
    value = sinkhorn_divergence((x, torch.tensor([0, 2, 5, 5, 5])), (x.flip(0), torch.tensor([0, 3, 3, 5, 5])))
    assert value[1:].tolist() == [math.inf, math.inf, 0]
    torch.testing.assert_close(value[:1], sinkhorn_divergence(x[None, :2], x.flip(0)[None, :3]))


def test_divergence_has_the_right_gradient():
    x, y = (torch.rand(1, 4, 2, dtype=torch.double, generator=seeded(s)).requires_grad_() for s in (0, 1))
    assert torch.autograd.gradcheck(lambda x, y: sinkhorn_divergence(x, y, 0.2, tolerance=1e-13), (x, y))


def test_bad_input_names_its_fault():
    cost, a, b = problem()
    with pytest.raises(DataError, match="normalise them, or pass unbalanced="):
        sinkhorn(cost, a, 2 * b)
    with pytest.raises(DataError, match="not finite"):
        sinkhorn(cost * math.nan, a, b)
    with pytest.raises(DataError, match="masses a"):
        sinkhorn(cost, -a, b)
    with pytest.raises(DataError, match="masses b of shape"):
        sinkhorn(cost, a, a)
    with pytest.raises(ConfigError, match="epsilon=0"):
        sinkhorn(cost, a, b, epsilon=0)
