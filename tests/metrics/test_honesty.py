"""Whether errors and floors are what they say: both samples from one law, again and again."""

import numpy as np
import pytest
import torch

from sparsegen import metrics
from sparsegen.events import Events
from sparsegen.metrics.protocol import Protocol

pytestmark = pytest.mark.filterwarnings("ignore::sparsegen.metrics.SmallSampleWarning")
REPETITIONS = 200


def draw(n, rng, hits=6):
    """Small events of a law with a heavy tail."""
    coords = torch.tensor(rng.normal(0, 0.2, size=(n * hits, 2)))
    energy = torch.tensor(rng.gamma(2.0, size=(n * hits, 1)))
    return Events(coords, energy, torch.arange(n + 1) * hits, axes=("etarel", "phirel"), columns=("ptrel",))


def few_features(events):
    return np.stack([events.total("ptrel").numpy(), metrics.jet_mass(events).numpy()], 1)


CASES = {
    "w1_mass": {},
    "w1_hits": {},
    "frechet": {"features": few_features},
    "kpd": {"features": few_features},
    "precision": {"features": few_features},
    "recall": {"features": few_features},
    "coverage": {"features": few_features},
    "jsd": {},
    "nna_cd": {},
    "mmd_cd": {},
}


# Intervals that do not keep their promise yet.
KNOWN = {"w1_hits": "too wide", "kpd": "too narrow"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.xfail(reason=KNOWN[name]) if name in KNOWN else ()) for name in CASES],
)
def test_the_95_percent_interval_covers_the_floor_in_180_to_198_of_200_repetitions(name):
    rng = np.random.default_rng(3)
    protocol = Protocol(resamples=100, pairs=10)
    # These depend on the size: the reference holds two samples of it, so that the floor needs no extrapolation.
    twice = name in ("jsd", "mmd_cd", "nna_cd", "precision", "recall", "coverage")
    function = metrics.METRICS[name].function
    results = [
        function(
            draw(120, rng),
            draw(240 if twice else 120, rng),
            protocol=protocol,
            seed=i,
            **CASES[name],
        )
        for i in range(REPETITIONS)
    ]
    floor = np.mean([r.floor for r in results])
    covered = sum(abs(r.value - floor) < 1.96 * r.error for r in results)
    # The Fréchet distance of heavy tails has errors that are some 30 % too large, never too small.
    assert 180 <= covered <= (200 if name == "frechet" else 198)
    # The floor is the mean of the metric itself between samples of one law.
    spread = np.std([r.value for r in results]) / np.sqrt(REPETITIONS)
    own = np.std([r.floor for r in results]) / np.sqrt(REPETITIONS)
    assert abs(np.mean([r.value for r in results]) - floor) < 4 * np.hypot(spread, own)
