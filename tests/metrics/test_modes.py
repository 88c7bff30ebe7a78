import math

import numpy as np
import pytest

from sparsegen.errors import DataError
from sparsegen.metrics.modes import mode_report

RING = np.stack([np.cos(np.arange(8) * math.pi / 4), np.sin(np.arange(8) * math.pi / 4)], 1) * 2


def sample(n, modes, seed=0, sigma=0.05):
    rng = np.random.default_rng(seed)
    return RING[np.array(modes)[rng.integers(len(modes), size=n)]] + rng.normal(0, sigma, size=(n, 2))


def test_a_perfect_sampler_finds_all_modes_with_the_expected_quality():
    report = mode_report(sample(20_000, range(8)), RING, 0.05)
    assert report.found == report.modes == 8
    assert report.high_quality == pytest.approx(report.expected_quality, abs=0.003)
    assert report.expected_quality == pytest.approx(1 - math.exp(-4.5))
    assert report.divergence < 0.01


def test_dropped_modes_are_counted_and_cost_their_logarithm():
    report = mode_report(sample(4000, [0, 3]), RING, 0.05)
    assert report.found == 2
    assert report.divergence == pytest.approx(math.log(4), abs=0.01)
    assert sum(report.shares) == pytest.approx(1)


def test_points_between_modes_are_of_low_quality():
    report = mode_report(np.zeros((10, 2)), RING, 0.05)
    assert (report.found, report.high_quality, report.divergence) == (0, 0.0, math.inf)


def test_bad_input_is_named():
    with pytest.raises(DataError, match="1 points are not finite"):
        mode_report([[math.nan, 0.0]], RING, 0.05)
    with pytest.raises(DataError, match="expected"):
        mode_report(np.zeros((3, 3)), RING, 0.05)
