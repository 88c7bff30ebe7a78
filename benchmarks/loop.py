"""What the trainer costs: a tiny model trained by it against a bare loop over the same batches, as a ratio.

Both take the same steps from the same weights, in turn, in one process; each trained round is held against the bare
ones before and after it. ``python benchmarks/loop.py`` prints the median ratio and its spread, and fails above the bar.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from sparsegen.data import EventsSource
from sparsegen.events import Events
from sparsegen.models.base import Model, Optimizers
from sparsegen.training import RunConfig, Trainer

BAR = 1.15


class Tiny(Model):
    """A deep set that learns the energy of an event from its hits."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.net = DeepSet(width)

    def step(self, events: Events, optimizers: Optimizers, generator: torch.Generator) -> dict[str, Tensor]:
        loss = (self.net(events) - events.total("energy")).square().mean()
        optimizers.minimise("model", loss)
        return {"loss": loss.detach()}

    def sample(
        self,
        n: int,
        condition: Tensor | None = None,
        *,
        counts: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Events:
        return make_events(n, 1)


class DeepSet(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.hit = nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.event = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, events: Events) -> Tensor:
        return self.event(events.sum_hits(self.hit(torch.cat([events.coords, events.features], 1))))[:, 0]


def make_events(n: int, seed: int) -> Events:
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(20, 40, (n,), generator=generator)
    total = int(counts.sum())
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    coords = torch.randn(total, 2, generator=generator)
    energy = torch.rand(total, 1, generator=generator)
    return Events(coords, energy, offsets, axes=("x", "y"), columns=("energy",))


def fresh() -> Tiny:
    torch.manual_seed(0)
    return Tiny()


def bare(source: EventsSource, epochs: int, batch: int) -> float:
    model = fresh()
    optimizers = Optimizers({"model": torch.optim.Adam(model.parameters(), lr=1e-3)})
    generator = torch.Generator().manual_seed(0)
    start = time.perf_counter()
    for epoch in range(epochs):
        for events in source.batches(batch, shuffle=True, seed=1, epoch=epoch, drop_last=True):
            model.step(events, optimizers, generator)
    return time.perf_counter() - start


def trained(source: EventsSource, epochs: int, batch: int) -> float:
    config = RunConfig.from_dict(
        {
            "data": "memory",
            "model": "tiny",
            "network": "points",
            "training": {"epochs": epochs, "batch": batch, "accelerator": "cpu"},
        }
    )
    model = fresh()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        Trainer(Path(folder) / "run", config).fit(model, source)
        return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--events", type=int, default=6400)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    source = EventsSource(make_events(options.events, 0), "memory")
    steps = options.epochs * (options.events // options.batch)
    trained(source, 1, options.batch)
    ratios = []
    alone = bare(source, options.epochs, options.batch)
    for _ in range(options.rounds):
        by_trainer = trained(source, options.epochs, options.batch)
        before, alone = alone, bare(source, options.epochs, options.batch)
        ratios.append(2 * by_trainer / (before + alone))
    low, *_, high = sorted(ratios)
    median = statistics.median(ratios)
    print(
        f"trainer / bare loop over {steps} steps of {1e3 * alone / steps:.2f} ms: "
        f"{median:.3f} (from {low:.3f} to {high:.3f} in {options.rounds} rounds; bar {BAR})"
    )
    return int(median > BAR)


if __name__ == "__main__":
    sys.exit(main())
