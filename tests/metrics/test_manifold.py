import numpy as np
import pytest

from sparsegen import metrics
from sparsegen.errors import ConfigError
from sparsegen.metrics.manifold import prdc


def modes(n, centres, seed):
    rng = np.random.default_rng(seed)
    return np.array(centres, dtype=float)[rng.integers(len(centres), size=n)] + rng.normal(0, 0.1, size=(n, 2))


BOTH, LEFT, THREE = [(0, 0), (5, 0)], [(0, 0)], [(0, 0), (5, 0), (0, 5)]


def test_equal_sets_have_precision_recall_and_coverage_one():
    x = modes(200, BOTH, 0)
    answer = prdc(x, x)
    assert answer["precision"] == answer["recall"] == answer["coverage"] == 1
    # Each of 200 events lies within its own radius and, on average, within five others'.
    assert answer["density"] == pytest.approx(6 / 5)


def test_a_dropped_mode_lowers_recall_and_coverage_only():
    answer = prdc(modes(400, LEFT, 1), modes(400, BOTH, 2))
    assert answer["precision"] > 0.9
    assert 0.4 < answer["recall"] < 0.6
    assert 0.4 < answer["coverage"] < 0.6


def test_an_invented_mode_lowers_precision_and_density_only():
    answer = prdc(modes(600, THREE, 1), modes(400, BOTH, 2))
    assert 0.55 < answer["precision"] < 0.75
    assert answer["density"] < 0.8
    assert answer["recall"] > 0.9
    assert answer["coverage"] > 0.9


def test_disjoint_sets_have_none_of_the_four():
    assert set(prdc(modes(50, [(0, 0)], 0), modes(50, [(100, 0)], 1)).values()) == {0.0}


def test_an_outlier_spoils_recall_less_than_one_event_of_coverage():
    """One far real event makes a huge real ball: precision of garbage rises, density does not."""
    real = np.concatenate([modes(200, LEFT, 0), [[50.0, 0.0]]])
    garbage = modes(200, [(25.0, 0.0)], 1)
    answer = prdc(garbage, real)
    assert answer["precision"] == 1.0
    assert answer["density"] == pytest.approx(1 / 5)
    assert answer["coverage"] <= 1 / 201 + 1e-12


def test_equals_a_slow_loop():
    x, y = modes(30, BOTH, 3), modes(25, BOTH, 4)
    k = 3
    distance = lambda a, b: np.linalg.norm(a - b)
    ry = [sorted(distance(a, b) for b in y)[k] for a in y]
    rx = [sorted(distance(a, b) for b in x)[k] for a in x]
    inside = np.array([[distance(a, b) <= ry[i] for b in x] for i, a in enumerate(y)])
    expected = {
        "precision": inside.any(0).mean(),
        "density": inside.sum() / (k * len(x)),
        "coverage": inside.any(1).mean(),
        "recall": np.mean([any(distance(a, b) <= rx[j] for j, b in enumerate(x)) for a in y]),
    }
    assert prdc(x, y, k) == pytest.approx(expected)
    with pytest.raises(ConfigError, match="k=30"):
        prdc(x, y, 30)


@pytest.mark.parametrize("name", ["precision", "recall", "density", "coverage"])
def test_real_events_are_at_the_floor(name, jets, more_jets):
    result = metrics.METRICS[name].function(more_jets, jets)
    assert abs(result.value - result.floor) < 5 * result.error
    assert result.higher_is_better
    assert result.protocol["events"] == [600, 600]
    assert metrics.METRICS[name].function(jets, jets).value == pytest.approx(1, abs=0.25 if name == "density" else 0)
