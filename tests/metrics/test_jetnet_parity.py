"""The published definitions against the published library, where that can be installed."""

import numpy as np
import pytest

from sparsegen import metrics
from sparsegen.metrics.arrays import jets_from_arrays
from sparsegen.metrics.jets import energy_movers_distance
from sparsegen.metrics.protocol import Protocol

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore"),
]
gen_metrics = pytest.importorskip(
    "jetnet.evaluation.gen_metrics", reason="jetnet is not installed", exc_type=ImportError
)
energyflow = pytest.importorskip("energyflow")


def padded(n, seed, particles=30):
    rng = np.random.default_rng(seed)
    x = np.concatenate(
        [rng.normal(0, 0.15, size=(n, particles, 2)), rng.exponential(size=(n, particles, 1)) / particles], 2
    )
    x[np.arange(particles) >= rng.integers(5, particles + 1, size=n)[:, None]] = 0
    return x


@pytest.fixture(scope="module")
def arrays():
    return padded(1200, 0), padded(1000, 1)


@pytest.fixture(scope="module")
def events(arrays):
    return tuple(jets_from_arrays(x) for x in arrays)


def test_energy_flow_polynomials(arrays, events):
    expected = gen_metrics.get_fpd_kpd_jet_features(arrays[0][:200], efp_jobs=1)
    assert np.allclose(metrics.efps(events[0][:200]).numpy(), expected, rtol=1e-6, atol=1e-12)


def test_polynomials_of_150_particles():
    x = padded(10, 3, 150)
    expected = gen_metrics.get_fpd_kpd_jet_features(x, efp_jobs=1)
    assert np.allclose(metrics.efps(jets_from_arrays(x)).numpy(), expected, rtol=1e-6, atol=1e-12)


def test_jet_mass_and_its_distance(arrays, events):
    from jetnet import utils

    for x, jets in zip(arrays, events, strict=True):
        expected = np.asarray(utils.jet_features(x)["mass"])
        assert np.allclose(metrics.jet_mass(jets).numpy(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["w1m", "w1p", "w1efp"])
def test_one_dimensional_distances_under_the_same_draws(name, arrays, events, monkeypatch):
    """Every event once, in place of random draws: both libraries then compare the same samples."""

    class InOrder:
        @staticmethod
        def choice(n, size):
            return np.arange(size)

    monkeypatch.setattr(gen_metrics, "rng", InOrder)
    n = min(map(len, arrays))
    extra = {"efp_jobs": 1} if name == "w1efp" else {}
    expected, _ = getattr(gen_metrics, name)(*(x[:n] for x in arrays), num_eval_samples=n, num_batches=1, **extra)
    found = metrics.METRICS[name].function(*(e[:n] for e in events), protocol=Protocol())
    if name != "w1m":
        assert list(found.protocol["per_feature"].values()) == pytest.approx(list(expected), rel=1e-5)
    assert found.value == pytest.approx(np.mean(expected), rel=1e-5)


def test_frechet_physics_distance_with_the_same_seed(events):
    x, y = (metrics.efps(e).numpy() for e in events)
    sizes = {"min_samples": 300, "max_samples": 900, "num_batches": 4}
    expected, _ = gen_metrics.fpd(y, x, **sizes)
    scale = np.abs(y).max(0)
    value, _ = metrics.frechet_infinity(x / scale, y / scale, smallest=300, largest=900, batches=4, seed=42)
    # Their root of a nearly singular product is good to about this.
    assert value == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_kernel_physics_distance_of_the_same_batches(events):
    x, y = (metrics.efps(e).numpy() for e in events)
    scale = np.abs(y).max(0)
    x, y = x / scale, y / scale
    expected = gen_metrics._mmd_poly_quadratic_unbiased(y, x)
    assert metrics.polynomial_mmd(x, y) == pytest.approx(expected, rel=1e-5)


def test_kernel_physics_distance_with_the_same_seed(events):
    x, y = (metrics.efps(e).numpy() for e in events)
    from sparsegen.metrics.kernel_mmd import published_kpd

    expected = gen_metrics.kpd(y, x, num_batches=3, batch_size=500)
    scale = np.abs(y).max(0)
    assert published_kpd(x / scale, y / scale, 3, 500, 42) == pytest.approx(expected, rel=1e-5)


def test_energy_movers_distance(arrays, events):
    a, b = (x[:20][:, :, [2, 0, 1]] for x in arrays)
    expected = energyflow.emd.emds(a, b)
    found = energy_movers_distance(events[0][:20], events[1][:20])
    assert np.allclose(found, expected, rtol=1e-6, atol=1e-9)
