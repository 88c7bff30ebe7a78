import math
from functools import partial

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit

from sparsegen import metrics
from sparsegen.errors import DataError
from sparsegen.metrics import features as features_module
from sparsegen.metrics.extrapolation import batch_moments, frechet_infinity
from sparsegen.metrics.features import Moments
from sparsegen.metrics.frechet import PUBLISHED, efp_features

small = pytest.mark.filterwarnings("ignore::sparsegen.metrics.SmallSampleWarning")


def gaussian(dim, seed):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(dim, dim))
    return rng.normal(size=dim), a @ a.T


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(0, 1000))
def test_distance_equals_the_textbook_formula_with_a_matrix_root(dim, seed):
    (m1, s1), (m2, s2) = gaussian(dim, seed), gaussian(dim, seed + 1)
    expected = np.sum((m1 - m2) ** 2) + np.trace(s1 + s2 - 2 * scipy.linalg.sqrtm(s1 @ s2).real)
    assert metrics.frechet_distance(m1, s1, m2, s2) == pytest.approx(expected, rel=1e-7, abs=1e-7)


def test_closed_forms_and_singular_covariances():
    assert metrics.frechet_distance([1.0, 2.0], np.eye(2), [1.0, 2.0], np.eye(2)) == pytest.approx(0, abs=1e-14)
    line = np.array([[1.0, 1.0], [1.0, 1.0]])
    # A rank-one covariance against itself and against its double: (1 - sqrt 2)^2 of the trace.
    assert metrics.frechet_distance([0, 0], line, [0, 0], line) == pytest.approx(0, abs=1e-14)
    assert metrics.frechet_distance([0, 0], line, [0, 0], 2 * line) == pytest.approx(2 * (1 - math.sqrt(2)) ** 2)
    with pytest.raises(DataError, match="expected"):
        metrics.frechet_distance([0.0], np.eye(2), [0.0, 0.0], np.eye(2))


@given(st.integers(0, 1000), st.integers(1, 20))
def test_moments_of_portions_merge_to_those_of_the_whole_far_from_the_origin_too(seed, cut):
    rows = np.random.default_rng(seed).normal(1e6, 1.0, size=(21, 3))
    merged = Moments().update(rows[:cut]).merge(Moments().update(rows[cut:]))
    assert np.allclose(merged.mean, rows.mean(0), rtol=1e-13)
    assert np.allclose(merged.covariance, np.cov(rows.T), rtol=1e-6, atol=1e-6)


def test_extrapolation_equals_the_published_definition_written_out():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(900, 3)), rng.normal(0.2, 1.1, size=(1000, 3))
    sizes = (1 / np.linspace(1.0 / 200, 1.0 / 500, 10)).astype("int32")
    draw = np.random.default_rng(42)
    values = []
    for size in sizes:
        batch = []
        for _ in range(4):
            real, fake = y[draw.choice(len(y), size=size)], x[draw.choice(len(x), size=size)]
            root = scipy.linalg.sqrtm(np.cov(real.T) @ np.cov(fake.T)).real
            step = real.mean(0) - fake.mean(0)
            batch.append(step @ step + np.trace(np.cov(real.T) + np.cov(fake.T) - 2 * root))
        values.append(np.mean(batch))
    fit, covariance = curve_fit(lambda t, a, b: a + b * t, 1 / sizes, values, bounds=([0, 0], [np.inf, np.inf]))
    value, error = frechet_infinity(x, y, smallest=200, largest=500, batches=4, seed=42)
    assert value == pytest.approx(fit[0], rel=1e-5)
    assert error == pytest.approx(math.sqrt(covariance[0, 0]), rel=1e-4)


@small
@pytest.mark.parametrize(("name", "scale"), [("frechet", 1.3), ("fpd", 2), ("kpd", 2)])
def test_identical_samples_are_not_above_zero_and_a_scaled_one_is(name, scale, jets):
    # The polynomials are heavy-tailed: the kernel distance of 600 jets sees this only in the summary features.
    extra = {"features": metrics.summary_features} if name == "kpd" else {}
    function = partial(metrics.METRICS[name].function, **extra)
    same = function(jets, jets)
    # Copies are nearer than any two samples: an unbiased distance falls below zero.
    assert same.value < 3 * same.error + 1e-12
    moved = function(jets.replace(coords=scale * jets.coords), jets)
    assert moved.value > moved.floor + 1.5 * moved.error
    assert moved.value > 3 * abs(moved.floor)


@small
@pytest.mark.parametrize("name", ["frechet", "fpd", "kpd"])
def test_seeded_and_honest_about_invalid_events(name, jets, more_jets):
    features = more_jets.features.clone()
    features[0] = math.nan
    bad = more_jets.replace(features=features)
    function = metrics.METRICS[name].function
    first, again = (function(bad, jets, seed=5) for _ in range(2))
    assert first == again
    assert first.invalid == 1
    assert first.n == len(bad) - 1


def test_plain_frechet_of_identical_samples_is_zero(jets):
    assert metrics.frechet(jets, jets).value == pytest.approx(0, abs=1e-10)


def test_kpd_estimator_equals_a_loop_and_is_unbiased():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(7, 3)), rng.normal(size=(9, 3))
    k = lambda a, b: (a @ b / 3 + 1) ** 4
    xx = np.mean([k(x[i], x[j]) for i in range(7) for j in range(7) if i != j])
    yy = np.mean([k(y[i], y[j]) for i in range(9) for j in range(9) if i != j])
    xy = np.mean([k(a, b) for a in x for b in y])
    assert metrics.polynomial_mmd(x, y) == pytest.approx(xx + yy - 2 * xy)
    values = [metrics.polynomial_mmd(*rng.normal(size=(2, 30, 3))) for _ in range(400)]
    assert abs(np.mean(values)) < 4 * np.std(values) / 20


def test_kpd_sees_what_two_moments_do_not():
    """A mixture with the mean and variance of a Gaussian: the Fréchet distance is blind to it."""
    rng = np.random.default_rng(2)
    n = 6000
    two = rng.choice([-1.0, 1.0], size=(n, 1)) * 0.9 + rng.normal(0, math.sqrt(1 - 0.81), size=(n, 1))
    one = rng.normal(size=(n, 1))
    assert metrics.frechet_distance(two.mean(0), np.cov(two.T), one.mean(0), np.cov(one.T)) < 1e-2
    assert metrics.polynomial_mmd(two[:2000], one[:2000]) > 0.1


@small
def test_own_features_are_used(jets, more_jets):
    result = metrics.frechet(more_jets, jets, features=lambda e: e.counts.double().numpy()[:, None])
    a, b = more_jets.counts.numpy().astype(float), jets.counts.numpy().astype(float)
    a, b = a / b.std(), b / b.std()
    assert result.value == pytest.approx((a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2, abs=1e-9)
    assert efp_features(jets).shape == (len(jets), 36)


def test_moments_of_batches_in_blocks_are_those_of_the_rows_drawn():
    rng = np.random.default_rng(4)
    rows = rng.normal(1e3, 1.0, size=(500, 3))
    drawn = [rng.integers(500, size=size) for size in (40, 700)]
    blocks = [rows[:100], rows[100:101], rows[101:]]
    for (mean, covariance), chosen in zip(batch_moments(blocks, lambda: iter(drawn)), drawn, strict=True):
        assert np.allclose(mean, rows[chosen].mean(0), rtol=1e-12)
        assert np.allclose(covariance, np.cov(rows[chosen].T), rtol=1e-9)


@small
def test_a_published_distance_streams_to_the_value_of_whole_arrays(jets, more_jets, monkeypatch):
    monkeypatch.setattr(features_module, "BLOCK", 64)
    monkeypatch.setitem(PUBLISHED, "jetnet0.2", 2_000)
    found = metrics.fpd(more_jets, jets, protocol="jetnet0.2", seed=7)
    x, y = (efp_features(events) for events in (more_jets, jets))
    scale = np.abs(y).max(0)
    expected = frechet_infinity(x / scale, y / scale, smallest=2_000, seed=7)
    assert (found.value, found.error) == pytest.approx(expected, rel=1e-9)
    assert found.protocol["available"] == [600, 600]
    with pytest.raises(DataError, match="600 of 600 are invalid"):
        metrics.fpd(more_jets, jets.with_features(jets.features * math.nan), protocol="jetnet0.2")


@small
@pytest.mark.parametrize("name", ["frechet", "kpd", "precision", "coverage", "classifier_auc"])
def test_metrics_of_features_take_what_was_collected_in_portions(name, jets, more_jets):
    read = features_module.collect
    parts = [read(more_jets[cut], role="generated") for cut in (slice(0, 100), slice(100, 300))]
    held = parts[0].merge(parts[1]).reduce()
    function = partial(metrics.METRICS[name].function, features=metrics.summary_features)
    assert function(held, read(jets[:300], role="reference")) == function(more_jets[:300], jets[:300])
    with pytest.raises(DataError, match="one side is features"):
        function(held, jets[:300])
    with pytest.raises(DataError, match="expected the same"):
        function(held, metrics.FeatureSample(np.ones((300, 2))))
    with pytest.raises(DataError, match="all finite"):
        function(held, metrics.FeatureSample(np.full((300, 2), math.nan)))
