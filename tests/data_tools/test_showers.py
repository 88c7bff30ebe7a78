"""Showers: what was put in comes out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import optimize, special

import sparsegen.data as data
from data_tools.cli import main
from data_tools.showers import ShowerShape, shower_voxels
from sparsegen.errors import ConfigError


@pytest.mark.parametrize("energy", [5.0, 100.0])
def test_a_fit_recovers_the_longitudinal_profile(energy: float) -> None:
    shape = ShowerShape()
    voxels = shower_voxels(np.full(3000, energy), "2", np.random.default_rng(0))
    layers = voxels.reshape(-1, 45, 144).sum((0, 2), dtype=np.float64)
    edges = shape.layer_depth * np.arange(46)

    def profile(_: np.ndarray, a: float, b: float) -> np.ndarray:
        shares = np.diff(special.gammainc(a, b * edges))
        return shares / shares.sum()

    (a, b), _ = optimize.curve_fit(profile, edges[:-1], layers / layers.sum(), p0=(3.0, 0.7))
    assert a == pytest.approx(float(shape.a(np.array([energy]))[0]), rel=0.02)
    assert b == pytest.approx(shape.b, rel=0.02)


def test_a_fit_recovers_the_resolution() -> None:
    shape = ShowerShape(sampling=0.12, constant=0.02)
    generator = np.random.default_rng(1)
    energies = np.array([1.0, 3.0, 10.0, 50.0, 200.0, 1000.0])
    widths = []
    for energy in energies:
        total = shower_voxels(
            np.full(6000, energy), "2", generator, ShowerShape(sampling=0.12, constant=0.02, spots=5)
        ).sum(1, dtype=np.float64)
        assert total.mean() == pytest.approx(1000 * energy, rel=0.01)
        widths.append(total.std() / total.mean())
    slope, offset = np.polyfit(1 / energies, np.square(widths), 1, w=energies)
    assert np.sqrt(slope) == pytest.approx(shape.sampling, rel=0.05)
    assert np.sqrt(offset) == pytest.approx(shape.constant, rel=0.05)


def test_the_radial_profile_has_core_and_tail() -> None:
    shape = ShowerShape()
    voxels = shower_voxels(np.full(2000, 100.0), "3", np.random.default_rng(2)).reshape(-1, 45, 50, 18)
    rings = voxels.sum((0, 1, 2), dtype=np.float64)
    edges = 2.325 * np.arange(19)
    shares = sum(
        weight * np.diff(special.gammainc(2, edges / radius))
        for weight, radius in [(shape.core, shape.core_radius), (1 - shape.core, shape.tail_radius)]
    )
    np.testing.assert_allclose(rings / rings.sum(), shares / shares.sum(), rtol=0.05)


def test_alpha_is_even() -> None:
    voxels = shower_voxels(np.full(500, 50.0), "2", np.random.default_rng(3)).reshape(-1, 45, 16, 9)
    sectors = voxels.sum((0, 1, 3), dtype=np.float64)
    np.testing.assert_allclose(sectors / sectors.mean(), 1, atol=0.05)


def test_a_file_is_its_seed_s_and_reads_as_calochallenge(tmp_path: Path) -> None:
    for name, seed in [("a", "3"), ("b", "3"), ("c", "4")]:
        path = str(tmp_path / f"{name}.hdf5")
        assert main(["showers", path, "--events", "40", "--seed", seed, "--energies", "2", "50"]) == 0
    first, same, other = (data.open(tmp_path / f"{name}.hdf5", condition="all")[:] for name in "abc")
    assert (first.features == same.features).all()
    assert len(first.features) != len(other.features)
    assert first.axes == ("layer", "alpha", "r")
    assert first.condition is not None
    ratio = first.total("energy") / first.condition[:, 0]
    assert 0.5 < float(ratio.min()) < float(ratio.max()) < 1.5
    assert 2000 <= float(first.condition.min()) < float(first.condition.max()) <= 50_000


def test_bad_requests_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="unknown geometry '4'"):
        shower_voxels(np.ones(1), "4", np.random.default_rng(0))
    assert main(["showers", str(tmp_path / "a.hdf5"), "--energies", "5", "2"]) == 2
    assert "expected at least one and 0 < low <= high" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
