"""Tiny models and data for the trainer's tests, also a program: ``training_toys.py FOLDER SCENARIOS``."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from sparsegen.data import EventsSource
from sparsegen.errors import SparsegenError
from sparsegen.events import Events
from sparsegen.models.base import FitStage, GradientStage, Model, Optimizers, Stage
from sparsegen.training import RunConfig, RunResult, Trainer


def make_events(n: int = 96, seed: int = 0, hits: int = 6) -> Events:
    """Events of 0 to ``hits`` hits in the plane."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, hits + 1, (n,), generator=generator)
    total = int(counts.sum())
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    coords = torch.randn(total, 2, generator=generator)
    features = torch.rand(total, 1, generator=generator) + 0.1
    return Events(coords, features, offsets, axes=("x", "y"), columns=("energy",))


class HitNet(nn.Module):
    """Events to scores ``(B,)``: a small network on each hit, summed."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1))

    def forward(self, events: Events) -> Tensor:
        return events.sum_hits(self.layers(torch.cat([events.positions, events.features], 1))[:, 0])


class Shift(nn.Module):
    """Noise to events: one affine map of each hit."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, noise: Tensor, counts: Tensor) -> Events:
        out = self.linear(noise)
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return Events(out[:, :2], out[:, 2:].exp(), offsets, axes=("x", "y"), columns=("energy",))


class Regressor(Model):
    """Learns the number of hits; no noise anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.net = HitNet()

    def step(self, events: Events, optimizers: Optimizers, generator: torch.Generator) -> dict[str, Tensor]:
        loss = (self.net(events) - events.counts).square().mean()
        optimizers.minimise("model", loss)
        return {"loss": loss.detach()}


class Game(Model):
    """A Wasserstein game with gradient penalty, dropout and noise, between two fits: every kind of state there is."""

    betas = (0.5, 0.9)
    lr_factors = MappingProxyType({"critic": 2.0})

    def __init__(self, pause: float = 0.0) -> None:
        super().__init__()
        self.generator = Shift()
        self.critic = HitNet(dropout=0.1)
        self.register_buffer("mean_hits", torch.zeros(()))
        self.register_buffer("spread", torch.zeros(3))
        self.pause = pause

    mean_hits: Tensor
    spread: Tensor

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (
            FitStage(self.count, "count"),
            GradientStage(self.step, "play", share=2.0),
            FitStage(self.measure, "measure"),
            GradientStage(self.step, "finish"),
        )

    @property
    def optimized(self) -> dict[str, tuple[str, ...]]:
        return {"critic": ("critic",), "generator": ("generator",)}

    @property
    def sampled(self) -> tuple[str, ...]:
        return ("generator",)

    def count(self, batches: Any, generator: torch.Generator) -> dict[str, Any]:
        counts = torch.cat([b.counts for b in batches()])
        self.mean_hits = counts.to(self.mean_hits.dtype).mean()
        return {"hits": float(self.mean_hits)}

    def measure(self, batches: Any, generator: torch.Generator) -> dict[str, Any]:
        noise = torch.randn(64, 3, generator=generator) + 0.1 * torch.randn(64, 3)
        with torch.no_grad():
            made = self.generator(noise, torch.tensor([64]))
        self.spread = torch.cat([made.coords, made.features], 1).std(0)
        return {}

    def make(self, counts: Tensor, generator: torch.Generator | None) -> Events:
        return self.generator(torch.randn(int(counts.sum()), 3, generator=generator), counts)

    def step(self, events: Events, optimizers: Optimizers, generator: torch.Generator) -> dict[str, Tensor]:
        if self.pause:
            time.sleep(self.pause)
        with torch.no_grad():
            fake = self.make(events.counts, generator)
        features = events.features.clone().requires_grad_()
        penalised = events.with_features(features)
        (slope,) = torch.autograd.grad(self.critic(penalised).sum(), features, create_graph=True)
        penalty = slope.square().mean()
        critic_loss = (self.critic(fake) - self.critic(events)).mean() + penalty
        optimizers.minimise("critic", critic_loss)
        loss = -self.critic(self.make(events.counts, generator)).mean()
        optimizers.minimise("generator", loss)
        return {"critic": critic_loss.detach(), "generator": loss.detach()}

    def sample(
        self,
        n: int,
        condition: Tensor | None = None,
        *,
        counts: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Events:
        return self.make(counts if counts is not None else torch.full((n,), 3), generator)


def make_config(**training: Any) -> RunConfig:
    defaults = {"epochs": 2, "batch": 16, "log_every": 5, "checkpoint_every": 7, "monitor": 16, "accelerator": "cpu"}
    return RunConfig.from_dict({"data": "toy", "model": "game", "network": "toy", "training": defaults | training})


def fit(run_dir: Any, model: Model, config: RunConfig, events: Events | None = None) -> RunResult:
    return Trainer(run_dir, config).fit(model, EventsSource(make_events() if events is None else events, "toy"))


class Terminated(Game):
    """Receives SIGTERM on rank 1 in the middle of a step."""

    at = 0
    calls = 0

    def step(self, events: Events, optimizers: Optimizers, generator: torch.Generator) -> dict[str, Tensor]:
        self.calls += 1
        if self.calls == self.at and os.environ.get("LOCAL_RANK") == "1":
            signal.raise_signal(signal.SIGTERM)
        return super().step(events, optimizers, generator)


def play(folder: Path, scenario: dict[str, Any]) -> int:
    """One run; leaves the outcome and the weights of this rank beside it."""
    torch.manual_seed(0)
    kind, pause = scenario.pop("model", "game"), scenario.pop("pause", 0.0)
    model: Model = Regressor() if kind == "regressor" else Terminated(pause)
    Terminated.at = scenario.pop("term_at", 0)
    events = make_events()
    if "nan_event" in scenario:
        hits = (events.batch == scenario.pop("nan_event")).nonzero()[:, 0]
        events = events.with_features(events.features.index_fill(0, hits, float("nan")))
    run, rank = scenario.pop("run"), os.environ.get("LOCAL_RANK", "0")
    try:
        outcome: Any = fit(folder / run, model, make_config(**scenario), events).exit_code
    except SparsegenError as error:
        outcome = str(error)
    with open(folder / f"{run}-{rank}.json", "a") as file:
        file.write(json.dumps(outcome) + "\n")
    torch.save(model.state_dict(), folder / f"{run}-{rank}.pt")
    return outcome if isinstance(outcome, int) else 2


if __name__ == "__main__":
    sys.exit(max(play(Path(sys.argv[1]), scenario) for scenario in json.loads(sys.argv[2])))
