"""One training step of a VAE (forward, backward, Adam): sparse networks against dense ones of the same channels, and
sparse ones with the native back end against the torch back end.

Cases: the embedded jets on lattices of 25 x 25 and 64 x 64 cells, and clustered random events that fill 1 % of
32 x 32 x 32 cells. All sides see the same batches, in one process, on one thread, alternating; times are process CPU
time. Prints, for each case, the mean share of active cells and the time of the dense step, and of the torch back end's,
over the sparse step's (above 1: sparse, and native, is faster), as the median of the rounds and their spread; exits
with 1 where a bar is missed. Equal channels are not equal parameters: both counts are printed.

    python benchmarks/step.py [--rounds 3] [--width 8] [--batch 64] [--output benchmarks/results/step.json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch

import sparsegen.data as data
from sparsegen import models
from sparsegen.events import Column, Events
from sparsegen.grid import Grid
from sparsegen.models import Optimizers
from sparsegen.nets import Schema, count_parameters
from sparsegen.sparse import backends, use_backend

# Dense time over sparse time that each case has to reach; None: reported only.
BARS = {"jets 25x25": None, "jets 64x64": 1.0, "clusters 32x32x32": 1.0}
# The torch back end's time over the native one's.
NATIVE_BAR = 1.5


def jets(cells: int, batch: int) -> Events:
    """The first embedded jets on a square lattice of one unit of rapidity and azimuth to each side."""
    grid = Grid.regular((cells, cells), (-1.0, -1.0), (1.0, 1.0), ("etarel", "phirel"), ("rad", "rad"))
    return data.open("pythia-jets")[:batch].voxelize(grid, outside="drop")[0]


def clusters(batch: int, occupancy: float = 0.01, size: int = 32, blobs: int = 4) -> Events:
    """Random events of a few dense blobs each, with exactly the wanted share of active cells."""
    grid = Grid.regular((size,) * 3, (0.0,) * 3, (1.0,) * 3, ("x", "y", "z"))
    generator = torch.Generator().manual_seed(0)
    hits = round(occupancy * grid.cells)
    centres = 0.2 + 0.6 * torch.rand(batch, blobs, 1, 3, generator=generator)
    # More draws than cells wanted: distinct cells are kept in the order of their drawing.
    draws = centres + 0.08 * torch.randn(batch, blobs, 3 * hits, 3, generator=generator)
    keys = grid.ravel((draws.clamp(0, 1 - 1e-6) * size).long().transpose(1, 2).reshape(-1, 3)).view(batch, -1)
    chosen = [torch.tensor(list(dict.fromkeys(row))[:hits]).sort().values for row in keys.tolist()]
    coords = grid.unravel(torch.cat(chosen))
    energy = torch.rand(len(coords), 1, generator=generator) + 0.05
    offsets = torch.arange(batch + 1) * hits
    return Events(coords, energy, offsets, axes=grid.names, columns=(Column("energy", "GeV"),), grid=grid)


class Side:
    """A model of one family with its optimiser, ready to step."""

    def __init__(self, family: str, events: Events, width: float) -> None:
        torch.manual_seed(0)
        self.model = models.build({"name": "vae"}, {"name": family, "width": width}, Schema.fit(events))
        self.optimizers = Optimizers({"model": torch.optim.Adam(self.model.parameters(), lr=1e-3)})
        self.generator = torch.Generator().manual_seed(0)

    def step(self, events: Events) -> float:
        """CPU seconds of one step."""
        start = time.process_time()
        self.model.step(events, self.optimizers, self.generator)
        return time.process_time() - start


def compare(events: Events, width: float, rounds: int) -> dict[str, object]:
    """Alternating steps on the same batch, after one of each that is not timed."""
    assert events.grid is not None
    sparse, dense = Side("sparse", events, width), Side("dense", events, width)
    sparse.step(events)
    dense.step(events)
    pairs = [(sparse.step(events), dense.step(events)) for _ in range(rounds)]
    ratios = sorted(theirs / ours for ours, theirs in pairs)
    turns = []
    # Steps of one back end cost little and vary more.
    for _ in range(1 + 5 * rounds if "native" in backends() else 0):
        turn = {}
        for name in ("native", "torch"):
            with use_backend(name):
                turn[name] = sparse.step(events)
        turns.append(turn["torch"] / turn["native"])
    return {
        "torch_over_native": statistics.median(turns[1:]) if turns else None,
        "torch_ratios": sorted(turns[1:]),
        "occupancy": float(events.counts.double().mean()) / events.grid.cells,
        "parameters": {"sparse": count_parameters(sparse.model), "dense": count_parameters(dense.model)},
        "dense_over_sparse": statistics.median(ratios),
        "ratios": ratios,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="timed pairs of steps for each case")
    parser.add_argument("--width", type=float, default=8.0, help="channels of the finest level, in both families")
    parser.add_argument("--batch", type=int, default=64, help="events in a step")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/step.json"), help="where figures go")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    batches = {
        "jets 25x25": jets(25, arguments.batch),
        "jets 64x64": jets(64, arguments.batch),
        "clusters 32x32x32": clusters(arguments.batch),
    }
    results, missed = {}, []
    for name, events in batches.items():
        results[name] = found = compare(events, arguments.width, arguments.rounds) | {"bar": BARS[name]}
        ratio, ratios, bar = found["dense_over_sparse"], found["ratios"], BARS[name]
        print(
            f"{name}: {100 * found['occupancy']:.1f} % active, dense / sparse step {ratio:.2f} "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f}), bar {bar or 'none'}, parameters "
            f"{found['parameters']['sparse']:,} sparse, {found['parameters']['dense']:,} dense",
            flush=True,
        )
        if bar is not None and ratio < bar:
            missed.append(name)
        gain, gains = found["torch_over_native"], found["torch_ratios"]
        if gain is None:
            print(f"{name}: native back end not run")
            continue
        print(
            f"{name}: torch / native step {gain:.2f} ({gains[0]:.2f} to {gains[-1]:.2f}), bar {NATIVE_BAR}", flush=True
        )
        if gain < NATIVE_BAR:
            missed.append(f"{name}, native")
    settings = {"batch": arguments.batch, "width": arguments.width, "threads": 1}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps({"settings": settings, "cases": results}, indent=1) + "\n")
    sys.exit(f"below the bar: {', '.join(missed)}" if missed else 0)


if __name__ == "__main__":
    main()
