"""Points -> cells -> dense -> cells of 20,000 events with 1,000,000 hits, against numpy.histogramdd on the same hits.

One thread, process CPU time, both in one process and alternating. Prints the rate of the whole chain as a share of
histogramdd's over the flattened hits, the median of the pairs and their spread.

    python benchmarks/conversions.py [--rounds 7]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from sparsegen.events import Events
from sparsegen.grid import Grid


def seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/conversions.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    grid = Grid.regular((25, 25), (-0.8, -0.8), (0.8, 0.8), ("eta", "phi"))
    generator = torch.Generator().manual_seed(0)
    hits = (0.25 * torch.randn(1_000_000, 2, generator=generator)).clamp(-0.79, 0.79)
    energy = torch.rand(1_000_000, 1, generator=generator)
    events = Events(hits, energy, torch.arange(0, 1_000_001, 50), axes=grid.names, columns=("energy",))
    edges = [e.numpy() for e in grid.edges]
    points, weights = hits.numpy(), energy[:, 0].numpy()

    def chain() -> Events:
        cells, _ = events.voxelize(grid)
        return Events.from_dense(cells.to_dense(), grid, ("energy",))

    expected, _ = np.histogramdd(points, bins=edges, weights=weights)
    np.testing.assert_allclose(chain().to_dense().sum((0, 1)).numpy(), expected, rtol=1e-3)
    pairs = [
        (seconds(chain), seconds(lambda: np.histogramdd(points, bins=edges, weights=weights)))
        for _ in range(arguments.rounds)
    ]
    ratios = sorted(theirs / ours for ours, theirs in pairs)
    median = float(np.median(ratios))
    print(f"rate of the chain / rate of histogramdd: {median:.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f}), bar 0.100")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps({"median": median, "ratios": ratios, "bar": 0.1}, indent=1) + "\n")


if __name__ == "__main__":
    main()
