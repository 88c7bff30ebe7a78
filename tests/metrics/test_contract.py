"""What every metric of the two kinds of events promises, whatever it measures."""

import math

import numpy as np
import pytest
import torch
from test_honesty import showers

from sparsegen import metrics

pytestmark = pytest.mark.filterwarnings("ignore::sparsegen.metrics.SmallSampleWarning")


@pytest.fixture(params=["jets", "showers"])
def sides(request, make):
    rng = np.random.default_rng(0)
    return [make(n, n) if request.param == "jets" else showers(n, rng) for n in (100, 200, 101)]


def states(events):
    given = [x.clone() for e in events for x in (e.coords, e.features, e.offsets)]
    return [*given, torch.random.get_rng_state(), torch.from_numpy(np.random.get_state()[1].copy())]  # noqa: NPY002


def test_results_are_complete_and_reproducible_and_leave_events_and_random_states_as_they_were(sides):
    before = states(sides)
    generated, reference, train = sides
    once, again = (metrics.evaluate(generated, reference, "full", train=train, seed=3) for _ in range(2))
    changed = [k for k, (a, b) in enumerate(zip(before, states(sides), strict=True)) if not torch.equal(a, b)]
    assert not changed
    for result, repeated in zip(once, again, strict=True):
        assert repr(result) == repr(repeated)
        assert all(math.isfinite(number) for number in (result.value, result.error, result.floor)), result.name
        assert result.n >= 2
        missing = {"name", "events", "seed", "error", "floor", "reference_invalid"} - set(result.protocol)
        assert not missing, result.name
