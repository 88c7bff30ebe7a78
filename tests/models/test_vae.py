"""The bound, its weight, and what a VAE does with codes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from sparsegen import models, nets
from sparsegen.events import Events
from sparsegen.models import VAE, Optimizers

COUNTS = [4, 6, 3, 5]


def events(seed: int = 0, conditioned: bool = False) -> Events:
    generator = torch.Generator().manual_seed(seed)
    return Events(
        torch.randn(sum(COUNTS), 2, generator=generator),
        torch.rand(sum(COUNTS), 1, generator=generator) + 0.1,
        torch.tensor([0, *COUNTS]).cumsum(0),
        axes=("x", "y"),
        columns=("energy",),
        condition=torch.rand(4, 1, generator=generator) if conditioned else None,
        conditions=("pt",) if conditioned else (),
    )


def vae(data: Events, **options: Any) -> VAE:
    torch.manual_seed(0)
    model = models.build({"name": "vae", "latent": 3} | options, {"name": "points", "width": 6}, nets.Schema.fit(data))
    assert isinstance(model, VAE)
    return model


class Recorded(Optimizers):
    """Takes no step and keeps the loss with its graph."""

    def __init__(self) -> None:
        super().__init__({})
        self.loss = torch.zeros(())

    def minimise(self, name: str, loss: torch.Tensor) -> float:
        self.loss = loss
        return 0.0


def test_the_divergence_that_is_logged_is_the_closed_form() -> None:
    data = events()
    model = vae(data)
    with torch.no_grad():
        mean, raw = model.encoder(data).chunk(2, 1)
    law = Normal(mean, (0.5 * 6 * torch.tanh(raw / 6)).exp())
    expected = kl_divergence(law, Normal(torch.zeros_like(mean), torch.ones_like(mean))).sum(1).mean()
    log = model.step(data, Recorded(), torch.Generator().manual_seed(1))
    torch.testing.assert_close(log["kl"], expected)
    torch.testing.assert_close(model.encode(data), mean)


@pytest.mark.parametrize("beta", [0.0, 0.5, 2.0])
def test_the_loss_is_reconstruction_plus_weighted_divergence_per_typical_hit(beta: float) -> None:
    data, optimizers = events(), Recorded()
    model = vae(data, beta=beta)
    log = model.step(data, optimizers, torch.Generator().manual_seed(1))
    reconstruction = log["hits"] + log["total"]
    torch.testing.assert_close(log["loss"], reconstruction + beta / model.decoder.schema.hits * log["kl"])
    torch.testing.assert_close(optimizers.loss.detach(), log["loss"])


def test_without_weight_the_divergence_moves_nothing() -> None:
    data, optimizers = events(), Recorded()
    gradients = []
    for beta in (0.0, 1.0):
        model = vae(data, beta=beta)
        log = model.step(data, optimizers, torch.Generator().manual_seed(1))
        reconstruction = (
            optimizers.loss - beta / model.decoder.schema.hits * models.vae.kl_standard_normal(*model._law(data)).mean()
        )
        assert float(log["kl"]) > 0
        gradients.append(torch.autograd.grad(reconstruction, list(model.parameters()), allow_unused=True))
    for one, other in zip(*gradients, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_training_lowers_the_bound() -> None:
    data = events()
    model = vae(data, beta=0.1)
    optimizers = Optimizers({"model": torch.optim.Adam(model.parameters(), lr=1e-2)})
    generator = torch.Generator().manual_seed(0)
    losses = [float(model.step(data, optimizers, generator)["loss"]) for _ in range(60)]
    assert sum(losses[-10:]) < sum(losses[:10]) - 5


def test_interpolation_ends_at_the_reconstructions_and_keeps_its_noise() -> None:
    a, b = events(1, conditioned=True), events(2, conditioned=True)
    model = vae(a)
    path = model.interpolate(a, b, 4, counts=a.counts, generator=torch.Generator().manual_seed(3))
    codes = model.interpolate(
        model.encode(a), model.encode(b), 4, condition=a.condition, counts=a.counts,
        generator=torch.Generator().manual_seed(3),
    )  # fmt: skip
    for one, other in zip(path, codes, strict=True):
        assert torch.equal(one.features, other.features)
        assert one.condition is not None and torch.equal(one.condition, a.condition)  # type: ignore[arg-type]
    still = model.interpolate(a, a, 3, generator=torch.Generator().manual_seed(3), counts=a.counts)
    assert all(torch.equal(step.coords, still[0].coords) for step in still)
    assert not torch.equal(path[0].coords, path[-1].coords)
