"""Adversarial losses and divergences against their closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from sparsegen.errors import ConfigError
from sparsegen.losses import LOSSES, kl_standard_normal

ZERO = torch.zeros(5)
LOG2 = math.log(2)
AT_ZERO = {
    "minimax": (2 * LOG2, -LOG2),
    "nonsaturating": (2 * LOG2, LOG2),
    "hinge": (2.0, 0.0),
    "wasserstein": (0.0, 0.0),
    "least-squares": (0.5, 0.5),
}


@pytest.mark.parametrize("name", list(LOSSES))
def test_at_scores_of_zero_every_loss_has_its_closed_form(name: str) -> None:
    critic, generator = AT_ZERO[name]
    torch.testing.assert_close(LOSSES[name].critic(ZERO, ZERO), torch.tensor(critic))
    torch.testing.assert_close(LOSSES[name].generator(ZERO), torch.tensor(generator))


@pytest.mark.parametrize("name", list(LOSSES))
def test_critic_and_generator_pull_scores_in_opposite_directions(name: str) -> None:
    real, fake = torch.zeros(4, requires_grad=True), torch.zeros(4, requires_grad=True)
    up, down = torch.autograd.grad(LOSSES[name].critic(real, fake), (real, fake), materialize_grads=True)
    (against,) = torch.autograd.grad(LOSSES[name].generator(fake), fake)
    assert bool((up < 0).all()) and bool((down >= 0).all()) and bool((against < 0).all())
    assert bool((down > 0).all()) or name == "least-squares"


def test_cross_entropy_is_that_of_a_classifier() -> None:
    real, fake = torch.randn(7), torch.randn(9)
    expected = -real.sigmoid().log().mean() - (1 - fake.sigmoid()).log().mean()
    for name in ("minimax", "nonsaturating"):
        torch.testing.assert_close(LOSSES[name].critic(real, fake), expected)
    torch.testing.assert_close(LOSSES["minimax"].generator(fake), (1 - fake.sigmoid()).log().mean())
    torch.testing.assert_close(LOSSES["nonsaturating"].generator(fake), -fake.sigmoid().log().mean())


def test_cross_entropy_is_finite_at_scores_where_a_sigmoid_saturates() -> None:
    far = torch.tensor([-1e4, 1e4])
    assert bool(LOSSES["nonsaturating"].critic(far, far).isfinite())
    torch.testing.assert_close(LOSSES["nonsaturating"].generator(far), torch.tensor(5e3))


def test_hinge_is_flat_beyond_its_margins() -> None:
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([-1.0, -8.0])
    assert float(LOSSES["hinge"].critic(real, fake)) == 0
    torch.testing.assert_close(LOSSES["hinge"].critic(real - 1, fake), torch.tensor(0.5))
    torch.testing.assert_close(LOSSES["hinge"].critic(real, fake + 2), torch.tensor(1.0))
    assert float(LOSSES["hinge"].generator(fake)) == 4.5


def test_wasserstein_is_the_difference_of_means_and_sees_no_shift() -> None:
    real, fake = torch.randn(6), torch.randn(4)
    critic = LOSSES["wasserstein"].critic
    torch.testing.assert_close(critic(real, fake), fake.mean() - real.mean())
    torch.testing.assert_close(critic(real + 3, fake + 3), critic(real, fake))


def test_least_squares_vanishes_at_its_targets() -> None:
    assert float(LOSSES["least-squares"].critic(torch.ones(3), ZERO)) == 0
    assert float(LOSSES["least-squares"].generator(torch.ones(3))) == 0
    torch.testing.assert_close(LOSSES["least-squares"].critic(torch.full((3,), 3.0), ZERO + 2), torch.tensor(4.0))


def test_an_unknown_loss_names_its_neighbours() -> None:
    with pytest.raises(ConfigError, match="unknown adversarial loss 'wasserstien': did you mean wasserstein"):
        LOSSES["wasserstien"]


def test_the_divergence_is_that_of_the_distributions() -> None:
    mean, log_var = torch.randn(6, 4, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)
    law = Independent(Normal(mean, (0.5 * log_var).exp()), 1)
    standard = Independent(Normal(torch.zeros_like(mean), torch.ones_like(mean)), 1)
    torch.testing.assert_close(kl_standard_normal(mean, log_var), kl_divergence(law, standard))
    assert bool((kl_standard_normal(mean, log_var) > 0).all())
    assert bool((kl_standard_normal(0 * mean, 0 * log_var) == 0).all())
