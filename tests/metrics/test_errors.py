"""The variances behind errors, against what leaving out events and moving scales does."""

import math

import numpy as np
import pytest

from sparsegen.metrics.gaussians import linear_frechet
from sparsegen.metrics.kernel_mmd import linear_mmd, polynomial_mmd
from sparsegen.metrics.resampling import scale_variance, squared_error
from sparsegen.metrics.wasserstein import Pair

RNG = np.random.default_rng(0)


def jackknife(statistic, x, y):
    """Variance of a statistic of two samples from leaving out one event after another."""
    total = 0.0
    for side, other, turned in ((x, y, False), (y, x, True)):
        n = len(side)
        left = [np.delete(side, i, 0) for i in range(n)]
        values = [statistic(other, part) if turned else statistic(part, other) for part in left]
        total += (n - 1) / n * np.sum((values - np.mean(values)) ** 2)
    return total


def pair(x, y):
    return Pair(*((z[:, None] if z.ndim == 1 else z, np.ones(len(z), dtype=np.int64)) for z in (x, y)))


def test_variance_of_w1_is_that_of_leaving_out_events():
    x, y = RNG.normal(size=150), RNG.gamma(2.0, size=200)
    expected = jackknife(lambda a, b: pair(a, b).whole.mean(), x, y)
    assert pair(x, y).variance == pytest.approx(expected, rel=0.05)


def test_hits_of_one_event_count_together():
    x, y = RNG.normal(size=(80, 1)), RNG.gamma(2.0, size=(90, 1))
    thrice = Pair(*((np.repeat(z, 3, 0), np.full(len(z), 3)) for z in (x, y)))
    assert thrice.variance == pytest.approx(pair(x[:, 0], y[:, 0]).variance, rel=1e-9)


def test_variance_of_the_frechet_distance_is_that_of_leaving_out_events_with_the_scale_and_without():
    x, y = RNG.normal(0.5, 1.5, size=(150, 3)), RNG.normal(size=(200, 3)) @ RNG.normal(size=(3, 3))
    fixed = jackknife(lambda a, b: linear_frechet(a, b).value, x, y)
    assert linear_frechet(x, y).variance == pytest.approx(fixed, rel=0.1)
    scaled = jackknife(lambda a, b: linear_frechet(a / b.std(0), b / b.std(0)).value, x, y)
    found = linear_frechet(x / y.std(0), y / y.std(0), own_scale=True).variance
    assert found == pytest.approx(scaled, rel=0.1)


def test_a_constant_feature_and_more_features_than_events_have_a_finite_variance():
    x, y = RNG.normal(size=(6, 9)), RNG.normal(size=(7, 9))
    x[:, 0] = y[:, 0] = 2.0
    found = linear_frechet(x, y, own_scale=True)
    assert math.isfinite(found.variance)
    assert np.isfinite(found.by_scale).all()


def test_variance_of_the_kernel_distance_is_that_of_leaving_out_events():
    x, y = RNG.normal(0.5, 1.0, size=(60, 2)), RNG.normal(size=(70, 2))
    expected = jackknife(lambda a, b: polynomial_mmd(a, b), x, y)
    found = linear_mmd(x, y)
    assert found.variance == pytest.approx(expected, rel=0.1)
    assert found.value == pytest.approx(polynomial_mmd(x, y), rel=1e-12)


@pytest.mark.parametrize("of", [linear_frechet, lambda x, y: linear_mmd(x, y, scale=True)])
def test_derivative_by_the_scale_is_that_of_moving_it(of):
    x, y = RNG.normal(0.5, 1.0, size=(60, 3)), RNG.normal(size=(70, 3))
    step = 1e-5
    for feature in range(3):
        scale = np.ones(3)
        scale[feature] = math.exp(step)
        numerical = (of(x / scale, y / scale).value - of(x * scale, y * scale).value) / (2 * step)
        assert of(x, y).by_scale[feature] == pytest.approx(numerical, rel=1e-5)


@pytest.mark.parametrize("squares", [1, 2, 3, 10])
def test_errors_of_sums_of_squares_hold_their_mean_in_93_to_99_of_100_draws(squares):
    z = np.random.default_rng(squares).normal(size=(20_000, squares))
    value = (z**2).sum(1)
    # The delta method's variance of each draw; its mean is the null's.
    error = np.array([squared_error(4 * v, 4 * squares) for v in value])
    assert 0.93 < np.mean(np.abs(value - squares) < 1.96 * error) < 0.99


def test_scatter_of_the_largest_value_is_told_from_one_sample():
    rng = np.random.default_rng(1)
    # Pareto tails: the logarithm of the largest of n scatters by pi / sqrt(6) / 3 for every n.
    found = [scale_variance(rng.pareto(3.0, size=(1000, 1)) + 1, np.ones(1), rng) for _ in range(100)]
    assert math.sqrt(np.mean(found)) == pytest.approx(math.pi / math.sqrt(6) / 3, rel=0.1)
