import math

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from sparsegen import metrics
from sparsegen.events import Events
from sparsegen.metrics.efp import EFPS_N4_D4_PRIME, efps
from sparsegen.metrics.jets import cov_mmd, energy_movers_distance
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


def test_energy_movers_distance_equals_a_program_with_a_particle_at_distance_one(jets):
    ot = pytest.importorskip("ot")
    some = jets[:4]
    found = energy_movers_distance(some[:2], some[2:])
    for i in range(2):
        for j in range(2):
            (x, p), (y, q) = (
                (e.coords.double().numpy(), e.features[:, 0].double().numpy()) for e in (some[i], some[2 + j])
            )
            cost = np.pad(np.linalg.norm(x[:, None] - y[None], axis=2), ((0, 1), (0, 1)), constant_values=1.0)
            cost[-1, -1] = 0
            more = p.sum() - q.sum()
            p, q = np.append(p, max(-more, 0)), np.append(q, max(more, 0))
            assert found[i, j] == pytest.approx(ot.emd2(p, q * (p.sum() / q.sum()), cost), rel=1e-6)


def test_momentum_that_has_no_partner_costs_itself(jets):
    one = jets[0]
    half = one.with_features(one.features / 2)
    assert energy_movers_distance(one, half).item() == pytest.approx(float(half.features.double().sum()), rel=1e-6)
    assert energy_movers_distance(one, one).item() == pytest.approx(0, abs=1e-12)


def test_cov_mmd_of_one_law_is_the_floor_and_of_moved_jets_is_not(make):
    jets, more_jets = make(2000, seed=1, mean=4), make(2000, seed=2, mean=4)
    cov, mmd = cov_mmd(more_jets, jets)
    assert abs(cov.value - cov.floor) < 5 * cov.error
    assert abs(mmd.value - mmd.floor) < 5 * mmd.error
    assert cov_mmd(more_jets, jets) == (cov, mmd)
    wide = more_jets.replace(coords=8 * more_jets.coords)
    assert metrics.mmd_jets(wide, jets).value > mmd.floor + 5 * mmd.error
    few = Events.cat([more_jets[0]] * 1000)
    assert metrics.cov_jets(few, jets).value == pytest.approx(1 / 100)
