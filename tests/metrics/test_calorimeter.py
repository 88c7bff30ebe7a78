import math

import numpy as np
import pytest
import torch

from sparsegen import metrics
from sparsegen.errors import DataError
from sparsegen.events import Column, Events
from sparsegen.grid import Grid
from sparsegen.metrics.calorimeter import histogram_separation, shower_features

GRID = Grid.regular((3, 4, 8), (0, -2, 0), (3, 2, 2 * math.pi), ("layer", "eta", "phi"), periodic=("phi",))
small = pytest.mark.filterwarnings("ignore::sparsegen.metrics.SmallSampleWarning")


def showers(n, seed=0, response=0.9, spread=0.5, hits=40):
    """Hits around the axis, energies that add up to about the response times the incident energy."""
    rng = np.random.default_rng(seed)
    incident = rng.uniform(1, 10, size=n)
    place = np.stack(
        [
            rng.integers(3, size=n * hits) + 0.5,
            np.clip(rng.normal(0, spread, n * hits), -1.9, 1.9),
            rng.normal(0, 0.4, n * hits) % (2 * math.pi),
        ],
        1,
    )
    energy = rng.dirichlet(np.ones(hits), size=n) * (incident * rng.normal(response, 0.05, size=n))[:, None]
    points = Events(
        torch.tensor(place),
        torch.tensor(energy.reshape(-1, 1)),
        torch.arange(n + 1) * hits,
        axes=("layer", "eta", "phi"),
        columns=(Column("energy", "GeV"),),
        condition=torch.tensor(incident[:, None]),
        conditions=("incident_energy",),
        grid=GRID,
    )
    return points.voxelize(GRID)[0]


def test_features_of_one_shower_equal_sums_over_its_dense_image():
    some = showers(3, 1)
    values, names = shower_features(some)
    dense = some.to_dense()[:, 0].double().numpy()
    eta = np.array([-1.5, -0.5, 0.5, 1.5])
    for i in range(3):
        row = dict(zip(names, values[i], strict=True))
        for layer in range(3):
            image = dense[i, layer]
            assert row[f"energy layer {layer}"] == pytest.approx(image.sum())
            assert row[f"sparsity layer {layer}"] == pytest.approx((image == 0).mean())
            centre = (image.sum(1) * eta).sum() / image.sum()
            assert row[f"centre eta layer {layer}"] == pytest.approx(centre)
            width = math.sqrt((image.sum(1) * (eta - centre) ** 2).sum() / image.sum())
            assert row[f"width eta layer {layer}"] == pytest.approx(width)
        assert row["energy"] == pytest.approx(dense[i].sum())


def test_centre_and_width_on_the_periodic_axis_do_not_see_the_seam():
    cells = torch.tensor([[0, 1, 0], [0, 1, 7]])
    one = Events(cells, torch.ones(2, 1), torch.tensor([0, 2]), axes=GRID.names, columns=("energy",), grid=GRID)
    values, names = shower_features(one)
    row = dict(zip(names, values[0], strict=True))
    step = 2 * math.pi / 8
    assert abs(math.remainder(row["centre phi layer 0"], 2 * math.pi)) < 1e-12
    assert row["width phi layer 0"] == pytest.approx(step / 2)
    assert row["energy layer 1"] == row["width eta layer 1"] == 0
    assert row["sparsity layer 1"] == 1


def test_sparsity_counts_valid_cells_only():
    valid = torch.ones(GRID.shape, dtype=torch.bool)
    valid[0, :2] = False
    grid = Grid.regular((3, 4, 8), (0, -2, 0), (3, 2, 2 * math.pi), GRID.names)
    grid = Grid([e.numpy() for e in grid.edges], valid=valid, names=GRID.names)
    one = Events(
        torch.tensor([[0, 3, 0]]),
        torch.ones(1, 1),
        torch.tensor([0, 1]),
        axes=GRID.names,
        columns=("energy",),
        grid=grid,
    )
    values, names = shower_features(one)
    assert dict(zip(names, values[0], strict=True))["sparsity layer 0"] == pytest.approx(1 - 1 / 16)


def test_events_without_layers_have_no_shower_features(jets):
    with pytest.raises(DataError, match="layer"):
        shower_features(jets)


def test_separation_closed_forms():
    assert histogram_separation([1, 0], [0, 1]) == 1
    assert histogram_separation([2, 2], [5, 5]) == 0
    p, q = np.array([0.2, 0.8]), np.array([0.5, 0.5])
    assert histogram_separation(p, q) == pytest.approx(0.5 * sum((p - q) ** 2 / (p + q)))
    with pytest.raises(DataError):
        histogram_separation([1], [1, 2])


@small
def test_separation_power_of_one_law_is_the_floor_and_of_another_is_not():
    a, b, c = showers(300, 1), showers(300, 2), showers(300, 3, spread=0.8)
    same = metrics.separation_power(a, b)
    assert abs(same.value - same.floor) < 4 * same.error
    assert metrics.separation_power(a, a).value == 0
    other = metrics.separation_power(c, b)
    assert other.value > other.floor + 5 * other.error
    assert set(other.protocol["per_feature"]) == set(shower_features(a)[1])


@small
def test_response_and_resolution_see_a_shift_of_scale_and_nothing_else():
    a, b = showers(400, 1), showers(400, 2)
    same = metrics.energy_response(a, b)
    assert abs(same.value - same.floor) < 4 * same.error
    low = metrics.energy_response(showers(400, 3, response=0.8), b)
    assert low.value == pytest.approx(1 - 0.8 / 0.9, abs=5 * low.error)
    assert metrics.energy_resolution(a.with_features(2 * a.features), a).value == pytest.approx(0, abs=1e-12)
    with pytest.raises(DataError, match="incident"):
        metrics.energy_response(*2 * [a.with_condition(None, ())])


@small
def test_a_calorimeter_gets_its_own_metrics_and_no_jet_observables():
    names = {m.name for m in metrics.applicable("full", showers(2))}
    assert {"separation_power", "energy_response", "fpd_showers", "w1_energy"} <= names
    assert not {"w1_mass", "fpd", "w1_tau21"} & names


@small
@pytest.mark.parametrize("name", ["fpd_showers", "kpd_showers", "classifier_auc_showers"])
def test_distances_on_shower_features_tell_laws_apart(name):
    function = metrics.METRICS[name].function
    a, b, c = showers(300, 1), showers(300, 2), showers(300, 3, spread=0.8)
    same, other = function(a, b), function(c, b)
    assert other.name == name
    assert other.value > same.value + 3 * math.hypot(same.error, other.error)


@small
@pytest.mark.parametrize("name", ["classifier_auc_voxels", "classifier_auc_cnn"])
def test_classifiers_of_cells_tell_laws_apart_and_not_one_law(name):
    function = metrics.METRICS[name].function
    a, b, c = showers(200, 1, hits=15), showers(400, 2, hits=15), showers(200, 3, spread=1.0, hits=15)
    same = function(a, b)
    assert abs(same.value - 0.5) < 4 * same.error
    assert abs(same.floor - 0.5) < 4 * same.protocol["floor_error"]
    other = function(c, b)
    assert other.name == name
    assert other.value > 0.5 + 4 * other.error
