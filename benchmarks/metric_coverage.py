"""How often value and error of a metric cover the truth, for samples of one law and away from it.

The generated jets have a step over the root of the sample size more hits than the reference's. For every size and step:
value and floor, the spread of the value over repetitions, the root mean square of the reported error, and how often
1.96 errors around the value hold the mean value at that size (what an error is), how often they do with the scatter
of the scale added for a kernel distance (whose error takes the scale as given, while here every repetition has another
reference), and the distance between the laws themselves, from samples of 100,000 (which also asks for no bias of the
sample size).
``python benchmarks/metric_coverage.py [METRIC ...]`` prints and writes benchmarks/results/metric_coverage.json.
"""

from __future__ import annotations

import json
import math
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sparsegen import metrics
from sparsegen.events import Column, Events
from sparsegen.metrics.protocol import Protocol

RESULTS = Path(__file__).parent / "results" / "metric_coverage.json"
REPETITIONS, SIZES, STEPS = 200, (200, 500, 1000), (0.0, 10.0, 20.0, 40.0)
SEED = 1127
LAW = 100_000


def draw(n: int, rng: np.random.Generator, hits: float = 6.0) -> Events:
    """Small jets of a law with a heavy tail, whose hits are alike within a jet."""
    counts = 1 + rng.poisson(hits - 1, size=n)
    total = int(counts.sum())
    place = np.repeat(rng.normal(0, 0.1, size=(n, 2)), counts, 0)
    momentum = np.repeat(rng.gamma(16.0, size=(n, 1)) / 16, counts, 0)
    return Events(
        torch.tensor(rng.normal(0, 0.2, size=(total, 2)) + place),
        torch.tensor(rng.gamma(2.0, size=(total, 1)) * momentum),
        torch.tensor(np.concatenate([[0], np.cumsum(counts)])),
        axes=("etarel", "phirel"),
        columns=(Column("ptrel"),),
    )


def features(events: Events) -> np.ndarray:
    return np.stack([events.total("ptrel").numpy(), metrics.jet_mass(events).numpy()], 1)


OPTIONS: dict[str, dict[str, Any]] = {"w1_mass": {}, "frechet": {"features": features}, "kpd": {"features": features}}


def measure(name: str, size: int, step: float) -> dict[str, float]:
    function, options = metrics.METRICS[name].function, OPTIONS[name]
    hits = 6.0 + step / math.sqrt(size)
    rng = np.random.default_rng([SEED, size, int(step)])
    found = [
        function(draw(size, rng, hits), draw(size, rng), protocol=Protocol(pairs=4), seed=i, **options)
        for i in range(REPETITIONS)
    ]
    value, error, floor = (np.array([getattr(r, key) for r in found]) for key in ("value", "error", "floor"))
    whole = np.hypot(error, [r.protocol.get("scale_error", 0.0) for r in found])
    covers = lambda truth, error=error: int((abs(value - truth) < 1.96 * error).sum())
    # For samples of one law the floor is that mean, and known better.
    mean = value.mean() if step else floor.mean()
    row = {
        "value": value.mean(),
        "floor": floor.mean(),
        "spread": value.std(ddof=1),
        "error": math.sqrt((error**2).mean()),
        "covers_the_mean": covers(mean),
        "covers_with_the_scale": covers(mean, whole),
    }
    # The kernel distance is scaled by the largest value of the reference, which grows with the sample: no law's own.
    if step and name != "kpd":
        law = np.random.default_rng([SEED, 0, int(step)])
        large = function(draw(LAW, law, hits), draw(LAW, law), protocol=Protocol(resamples=2, pairs=1), **options)
        row |= {"between_laws": large.value, "covers_the_laws_distance": covers(large.value)}
    return {key: float(number) for key, number in row.items()}


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", metrics.SmallSampleWarning)
    heads = " ".join(f"{head:>9}" for head in ("value", "floor", "spread", "error"))
    print(f"{'metric':<8} {'n':>5} {'step':>5} {heads}  mean scale  laws  of {REPETITIONS}")
    for name in names or OPTIONS:
        rows = {}
        for size in SIZES:
            for step in STEPS:
                row = rows[f"{size}, {step:g}"] = measure(name, size, step)
                numbers = " ".join(f"{row[key]:9.3g}" for key in ("value", "floor", "spread", "error"))
                laws = row.get("covers_the_laws_distance", math.nan)
                counts = " ".join(f"{row[key]:5.0f}" for key in ("covers_the_mean", "covers_with_the_scale"))
                print(f"{name:<8} {size:5d} {step:5g} {numbers} {counts} {laws:5.0f}", flush=True)
        found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        found[name] = rows
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
