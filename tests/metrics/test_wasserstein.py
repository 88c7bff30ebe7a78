import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from sparsegen import metrics
from sparsegen.errors import ConfigError, DataError
from sparsegen.events import Column, Events
from sparsegen.grid import Grid
from sparsegen.metrics.comparison import compare_w1
from sparsegen.metrics.observations import Observable, Observations, Reading
from sparsegen.metrics.protocol import Protocol

W1S = ("w1_mass", "w1_pt", "w1_multiplicity", "w1_hits", "w1_occupied", "w1_energy")
values = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30)


@given(values, values)
def test_w1_equals_scipy_for_samples_of_any_two_sizes(a, b):
    assert metrics.w1(a, b) == pytest.approx(wasserstein_distance(a, b), rel=1e-9, abs=1e-9)


@given(values, st.floats(-10, 10))
def test_w1_of_a_translated_sample_is_the_translation(a, shift):
    assert metrics.w1(a, np.add(a, shift)) == pytest.approx(abs(shift), abs=1e-9)


def test_weighted_w1_equals_scipy():
    rng = np.random.default_rng(0)
    a, b, u, v = rng.normal(size=40), rng.normal(size=25), rng.random(40), rng.random(25)
    assert metrics.w1(a, b, u, v) == pytest.approx(wasserstein_distance(a, b, u, v))


@pytest.mark.parametrize(("a", "b"), [([], [1.0]), ([math.nan], [1.0])])
def test_w1_refuses_empty_and_non_finite_samples(a, b):
    with pytest.raises(DataError):
        metrics.w1(a, b)


@pytest.mark.parametrize("name", W1S)
def test_identical_samples_are_at_distance_zero(name, jets):
    result = metrics.METRICS[name].function(jets, jets)
    assert result.value == 0
    assert result.floor > 0
    assert result.n == len(jets)


@pytest.mark.parametrize("name", W1S)
def test_same_seed_same_result_and_inputs_untouched(name, jets, more_jets):
    before = more_jets.features.clone(), more_jets.coords.clone()
    function = metrics.METRICS[name].function
    first, again = (function(more_jets, jets, seed=3) for _ in range(2))
    assert first == again
    assert torch.equal(more_jets.features, before[0])
    assert torch.equal(more_jets.coords, before[1])


@pytest.mark.parametrize("name", W1S)
def test_two_samples_of_one_law_are_near_the_floor_and_another_law_is_not(name, jets, more_jets, make):
    function = metrics.METRICS[name].function
    same = function(more_jets, jets)
    assert abs(same.value - same.floor) < 4 * same.error
    other = make(600, seed=3, mean=30)
    other = other.with_features(other.features * 2)
    moved = function(other.replace(coords=other.coords * 1.3), jets)
    assert moved.value > moved.floor + 5 * moved.error


def test_w1_mass_equals_scipy_on_masses(jets, more_jets):
    expected = wasserstein_distance(*(metrics.jet_mass(e).numpy() for e in (more_jets, jets)))
    assert metrics.w1_mass(more_jets, jets).value == pytest.approx(expected, rel=1e-12)


def test_jet_mass_of_boosted_back_to_back_pair_and_of_a_single_massless_hit():
    coords = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.3, 0.4]])
    pt = torch.tensor([[3.0], [3.0], [5.0]])
    pair = Events(coords, pt, torch.tensor([0, 2, 3]), axes=("eta", "phi"), columns=("pt",))
    mass = metrics.jet_mass(pair)
    # Energies 3 cosh 1 each, momenta parallel in the transverse plane: m^2 = E^2 - 6^2.
    assert float(mass[0]) == pytest.approx(math.sqrt((6 * math.cosh(1.0)) ** 2 - 36), rel=1e-6)
    assert float(mass[1]) == pytest.approx(0.0, abs=1e-6)


def test_w1_hits_pools_hits_and_averages_features(jets, more_jets):
    expected = [
        wasserstein_distance(more_jets.coords[:, 0], jets.coords[:, 0]),
        wasserstein_distance(more_jets.coords[:, 1], jets.coords[:, 1]),
        wasserstein_distance(more_jets.features[:, 0], jets.features[:, 0]),
    ]
    result = metrics.w1_hits(more_jets, jets)
    assert list(result.protocol["per_feature"].values()) == pytest.approx(expected, rel=1e-6)
    assert result.value == pytest.approx(np.mean(expected), rel=1e-6)


def test_occupied_cells_agree_between_points_and_their_cells(jets):
    grid = Grid.regular((25, 25), (-0.8, -0.8), (0.8, 0.8), jets.axes)
    cells, _ = jets.voxelize(grid, outside="drop")
    count, dropped = metrics.occupied_cells(jets)
    assert torch.equal(count, cells.counts.double())
    assert torch.equal(count, metrics.occupied_cells(cells)[0])
    assert int(dropped.sum()) == int(((jets.coords.abs() > 0.8).any(1)).sum())
    assert metrics.w1_occupied(cells, jets).value == 0


def spoil(events, kind):
    """The same events with the third one spoilt."""
    features, coords = events.features.clone(), events.coords.clone()
    row = int(events.offsets[2])
    if kind == "nan feature":
        features[row] = math.nan
    elif kind == "infinite coordinate":
        coords[row] = math.inf
    elif kind == "negative energy":
        features[row] = -1.0
    elif kind == "overflow":
        coords[row] = 1e6
    elif kind == "no hits":
        empty = Events(
            coords[:0], features[:0], torch.zeros(2, dtype=torch.int64), axes=events.axes, columns=events.columns
        )
        return Events.cat([events, empty])
    return events.replace(features=features, coords=coords)


@pytest.mark.parametrize("kind", ["nan feature", "infinite coordinate", "negative energy", "no hits", "overflow"])
def test_invalid_generated_events_are_counted_and_left_out(kind, jets, more_jets):
    bad = spoil(more_jets, kind)
    result = metrics.w1_mass(bad, jets)
    assert result.invalid == 1
    assert result.n == len(bad) - 1
    assert math.isfinite(result.value)


def test_invalid_events_raise_when_asked(jets, more_jets):
    with pytest.raises(DataError, match="generated event with id 2"):
        metrics.w1_mass(spoil(more_jets, "nan feature"), jets, protocol=Protocol(invalid="raise"))


def test_samples_of_other_columns_units_or_views_do_not_compare(jets):
    renamed = jets.replace(columns=(Column("ptrel", "GeV"),))
    with pytest.raises(DataError, match="GeV"):
        metrics.w1_mass(renamed, jets)
    cells, _ = jets.voxelize(Grid.regular((9, 9), (-1, -1), (1, 1), jets.axes), outside="drop")
    with pytest.raises(DataError, match="voxelize"):
        metrics.w1_multiplicity(cells, jets)


def test_a_tiny_sample_warns_and_its_floor_says_why_it_is_missing(jets):
    with pytest.warns(metrics.SmallSampleWarning, match="3 events"):
        result = metrics.w1_mass(jets[:50], jets[:3])
    assert math.isnan(result.floor)
    assert "too few" in result.protocol["floor"]


def test_three_axes_without_names_are_no_jet(jets):
    coords = torch.cat([jets.coords, jets.coords[:, :1]], 1)
    with pytest.raises(DataError, match="eta and phi"):
        metrics.w1_mass(*(2 * [jets.replace(coords=coords, axes=("x", "y", "z"))]))


def test_unnamed_two_axes_are_read_as_eta_phi_and_the_protocol_says_so(jets):
    plain = jets.replace(axes=("a", "b"), columns=(Column("q"),))
    result = metrics.w1_mass(plain, plain)
    assert result.protocol["read_as"] == "eta=a, phi=b, pt=q"


def test_streaming_in_portions_and_merging_equals_one_go(jets, more_jets):
    observable = Observable(("mass",), lambda e: Reading(metrics.jet_mass(e).numpy()[:, None]))
    whole = compare_w1("m", Observations(observable).update(more_jets), Observations(observable).update(jets))
    parts = Observations(observable).update(more_jets[:100])
    parts.merge(Observations(observable).update(more_jets[100:]))
    assert compare_w1("m", parts, Observations(observable).update(jets)) == whole
    with pytest.raises(ConfigError, match="cannot merge"):
        parts.merge(Observations(Observable(("pt",), observable.read)))


def test_published_protocols_draw_batches_with_replacement(jets, more_jets):
    result = metrics.w1_mass(more_jets, jets, protocol="mpgan2021")
    assert result.protocol["events"] == [10_000, 10_000]
    assert result.protocol["replacement"]
    assert result.error > 0
    with pytest.raises(ConfigError, match="mpgan2021"):
        metrics.w1_mass(jets, jets, protocol="mpgan2020")


def test_floor_is_the_mean_over_real_pairs_of_the_same_sizes(make):
    pool = make(12_000, seed=5)
    pairs = [metrics.w1(*np.split(metrics.jet_mass(pool[i : i + 300]).numpy(), 2)) for i in range(0, 12_000, 300)]
    reported = [metrics.w1_mass(pool[:150], pool[i : i + 150]).floor for i in range(150, 6000, 150)]
    spread = np.hypot(np.std(pairs), np.std(reported)) / math.sqrt(len(pairs))
    assert abs(np.mean(pairs) - np.mean(reported)) < 4 * spread


@pytest.mark.filterwarnings("ignore::sparsegen.metrics.SmallSampleWarning")
def test_evaluate_leaves_out_what_does_not_fit_and_refuses_what_is_asked_for_without_means(jets, more_jets):
    names = [r.name for r in metrics.evaluate(more_jets, jets, "fast")]
    assert {"w1_mass", "w1_hits", "w1_occupied", "w1_multiplicity"} <= set(names)
    assert "memorisation" not in names
    with pytest.raises(ConfigError, match="train="):
        metrics.evaluate(more_jets, jets, ["memorisation"])
    with pytest.raises(ConfigError, match="did you mean w1_mass"):
        metrics.evaluate(more_jets, jets, "w1_mas")
    with pytest.raises(DataError, match="0 generated"):
        metrics.evaluate(more_jets[:0], jets)
    assert [r.name for r in metrics.evaluate(more_jets, jets, "w1_pt, w1_mass")] == ["w1_pt", "w1_mass"]


def test_a_metric_that_wants_more_events_gives_nan_and_the_reason(jets, more_jets):
    (result,) = metrics.evaluate(more_jets[:3], jets, "kpd")
    assert math.isnan(result.value)
    assert "3 generated" in result.protocol["reason"]


@pytest.mark.filterwarnings("ignore::sparsegen.metrics.SmallSampleWarning")
def test_results_are_plain_enough_for_json(jets, more_jets):
    for result in metrics.evaluate(more_jets[:100], jets[:200], "full", train=more_jets[:100]):
        assert "reason" not in result.protocol
        assert json.loads(json.dumps(result.as_dict()))["name"] == result.name
