"""The game: who steps on what, and what the penalties are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sparsegen import models, nets
from sparsegen.errors import ConfigError
from sparsegen.events import Events
from sparsegen.models import GAN, Optimizers


def events(size: int = 12, seed: int = 0) -> Events:
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(2, 7, (size,), generator=generator)
    total = int(counts.sum())
    return Events(
        torch.randn(total, 2, generator=generator),
        torch.rand(total, 1, generator=generator) + 0.1,
        torch.nn.functional.pad(counts.cumsum(0), (1, 0)),
        axes=("x", "y"),
        columns=("energy",),
    )


def gan(data: Events, **options: Any) -> GAN:
    torch.manual_seed(0)
    model = models.build({"name": "gan", "latent": 3} | options, {"name": "points", "width": 6}, nets.Schema.fit(data))
    assert isinstance(model, GAN)
    return model


class Recorded(Optimizers):
    """Takes no step and keeps names and losses."""

    def __init__(self) -> None:
        super().__init__({})
        self.steps: list[tuple[str, Tensor]] = []

    def minimise(self, name: str, loss: Tensor) -> float:
        self.steps.append((name, loss))
        return 0.0


@pytest.mark.parametrize(("size", "n_critic"), [(12, 3), (12, 5), (6, 4), (7, 1), (2, 5)])
def test_each_step_of_the_critic_has_a_batch_of_its_own(
    size: int, n_critic: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, optimizers = events(size), Recorded()
    model = gan(data, n_critic=n_critic)
    seen: list[list[int]] = []
    plain = GAN._critic_step

    def watched(self: GAN, real: Events, *rest: Any) -> dict[str, Tensor]:
        seen.append(real.ids.tolist())
        return plain(self, real, *rest)

    monkeypatch.setattr(GAN, "_critic_step", watched)
    model.step(data, optimizers, torch.Generator().manual_seed(1))
    steps = min(n_critic, size)
    assert [name for name, _ in optimizers.steps] == ["critic"] * steps + ["generator"]
    assert [i for part in seen for i in part] == list(range(size)), "shares overlap or leave events out"
    sizes = [len(part) for part in seen]
    assert len(seen) == steps and max(sizes) - min(sizes) <= 1
    assert model.batches_per_step == n_critic


def test_each_optimiser_moves_its_own_network_alone() -> None:
    data = events()
    model = gan(data)
    own = {name: model.get_submodule(child) for name, (child,) in model.optimized.items()}
    optimizers = Optimizers({name: torch.optim.SGD(net.parameters(), lr=0.1) for name, net in own.items()})
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model._critic_step(data, optimizers, torch.Generator().manual_seed(1))
    after = dict(model.named_parameters())
    assert all(torch.equal(before[n], after[n]) for n in before if n.startswith("decoder"))
    assert any(not torch.equal(before[n], after[n]) for n in before if n.startswith("critic"))


def test_generated_events_have_the_multiplicities_of_the_real_ones() -> None:
    data = events()
    fake = gan(data)._generate(data, torch.Generator().manual_seed(1))
    assert torch.equal(fake.counts, data.counts)


def test_r1_is_the_explicit_gradient_on_real_events() -> None:
    data = events()
    with_penalty, without = gan(data, penalty="r1", penalty_weight=3.0), gan(data, penalty="none")
    losses = []
    for model in (with_penalty, without):
        optimizers = Recorded()
        log = model._critic_step(data, optimizers, torch.Generator().manual_seed(1))
        losses.append(optimizers.steps[0][1].detach())
        if model is with_penalty:
            logged = log["penalty"]
    critic = with_penalty.critic
    u = critic.scaler.compand(data.features).requires_grad_()
    p = critic.scaler.place(data.coords).requires_grad_()
    scores = critic(data._like(coords=critic.scaler.displace(p), features=critic.scaler.expand(u)))
    gradients = torch.autograd.grad(scores.sum(), (u, p))
    expected = sum(float(g.square().sum()) for g in gradients) / len(data)
    assert float(logged) == pytest.approx(expected, rel=1e-4)
    assert float(losses[0] - losses[1]) == pytest.approx(1.5 * expected, rel=1e-3, abs=1e-5)


def test_the_gradient_penalty_vanishes_for_a_critic_of_slope_one(monkeypatch: pytest.MonkeyPatch) -> None:
    data = events()
    model = gan(data, loss="wasserstein", penalty="gp")
    assert model.penalty_weight == 10.0

    def slope_one(batch: Events) -> Tensor:
        u = model.critic.scaler.compand(batch.features)[:, 0]
        return batch.sum_hits(u) / batch.counts.to(u.dtype).sqrt()

    monkeypatch.setattr(model.critic, "forward", slope_one)
    log = model._critic_step(data, Recorded(), torch.Generator().manual_seed(1))
    assert float(log["penalty"]) < 1e-6


def test_a_critic_learns_to_tell_real_from_generated() -> None:
    data = events(40)
    model = gan(data, penalty="none")
    optimizers = Optimizers({"critic": torch.optim.Adam(model.critic.parameters(), lr=1e-2)})
    generator = torch.Generator().manual_seed(0)
    logs = [model._critic_step(data, optimizers, generator) for _ in range(40)]
    assert float(logs[-1]["critic"]) < 0.7 * float(logs[0]["critic"])
    assert float(logs[-1]["real"]) > float(logs[-1]["fake"])


def test_settings_that_do_not_exist_are_refused() -> None:
    data = events()
    with pytest.raises(ConfigError, match="unknown penalty 'r2': did you mean r1"):
        gan(data, penalty="r2")
    with pytest.raises(ConfigError, match="n_critic=0; expected at least 1"):
        gan(data, n_critic=0)
    with pytest.raises(ConfigError, match="unknown adversarial loss 'hing': did you mean hinge"):
        gan(data, loss="hing")
