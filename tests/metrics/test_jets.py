import math

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from sparsegen import metrics
from sparsegen.metrics.efp import EFPS_N4_D4_PRIME, efps
from sparsegen.metrics.protocol import Protocol


@pytest.mark.parametrize("name", ["w1p", "w1m", "w1efp"])
def test_published_names_follow_the_published_protocol(name, jets, more_jets):
    result = metrics.METRICS[name].function(more_jets, jets)
    assert result.name == name
    assert result.protocol["name"] == "jetnet0.2"
    assert result.protocol["batches"] == 5
    assert result.protocol["events"] == [50_000, 50_000]


def test_unseeded_draws_and_a_tuple_where_a_number_belongs_are_not_inherited(jets, more_jets):
    first, again = (metrics.w1m(more_jets, jets) for _ in range(2))
    assert first == again
    assert isinstance(first.value, float)
    assert metrics.w1m(more_jets, jets, seed=1).value != first.value


def test_identical_small_samples_are_at_zero_on_whole_samples_and_bootstrap_only_where_named(jets):
    assert metrics.w1_mass(jets, jets).value == 0
    small = metrics.w1m(jets, jets, protocol="mpgan2021")
    assert small.value > 0
    assert small.protocol["replacement"]
    assert small.protocol["available"] == [600, 600]


def test_w1efp_equals_scipy_on_whole_samples(jets, more_jets):
    a, b = (efps(e, EFPS_N4_D4_PRIME).numpy() for e in (more_jets, jets))
    expected = [wasserstein_distance(a[:, i], b[:, i]) for i in range(5)]
    result = metrics.w1efp(more_jets, jets, protocol=Protocol())
    assert list(result.protocol["per_feature"].values()) == pytest.approx(expected, rel=1e-9)
    assert result.value == pytest.approx(np.mean(expected), rel=1e-9)


def test_padding_and_masks_do_not_enter(jets, more_jets):
    coords, features, mask = more_jets.to_padded(80)
    again = type(more_jets).from_padded(coords, features, mask, axes=more_jets.axes, columns=more_jets.columns)
    assert metrics.w1p(again, jets).value == metrics.w1p(more_jets, jets).value


def test_batches_average_to_the_published_expectation(jets, more_jets):
    """Five batches of 10,000 with replacement, written out with scipy."""
    masses = [metrics.jet_mass(e).numpy() for e in (more_jets, jets)]
    rng = np.random.default_rng(0)
    values = [wasserstein_distance(*(m[rng.integers(len(m), size=10_000)] for m in masses)) for _ in range(5)]
    result = metrics.w1m(more_jets, jets, protocol="mpgan2021")
    assert abs(result.value - np.mean(values)) < 4 * math.hypot(result.error, np.std(values)) / math.sqrt(5)
