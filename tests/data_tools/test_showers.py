"""Showers: what was put in comes out."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy import optimize, special

import sparsegen.data as data
from data_tools.cli import main
from data_tools.showers import ShowerShape, incident_energies, shower_voxels
from sparsegen.errors import ConfigError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray]:
    """Incident energies [GeV] and voxels [MeV] of a file that the verb wrote, over the whole range of energies."""
    path = tmp_path_factory.mktemp("showers") / "a.hdf5"
    assert main(["showers", str(path), "--events", "12000"]) == 0
    with h5py.File(path) as file:
        return file["incident_energies"][:, 0] / 1000, file["showers"][:].reshape(-1, 45, 144).sum(2, dtype=np.float64)


@pytest.mark.parametrize(("low", "high"), [(1, 3), (3, 10), (10, 30), (30, 100), (100, 300), (300, 1000)])
def test_a_fit_recovers_the_longitudinal_profile(made: tuple[np.ndarray, np.ndarray], low: float, high: float) -> None:
    shape = ShowerShape()
    energy, layers = made
    chosen = (energy >= low) & (energy < high)
    energy, shares = energy[chosen], layers[chosen] / layers[chosen].sum(1, keepdims=True)
    edges = shape.layer_depth * np.arange(46)

    def profile(_: np.ndarray, intercept: float, b: float) -> np.ndarray:
        # Events of one bin differ in energy: the mean of their profiles, with a = intercept + b ln E
        a = intercept + b * np.log(energy[:, None])
        model = np.diff(special.gammainc(a, b * edges), axis=1)
        return (model / model.sum(1, keepdims=True)).mean(0)

    (intercept, b), _ = optimize.curve_fit(profile, edges[:-1], shares.mean(0), p0=(3.0, 0.7))
    middle = np.sqrt(low * high)
    assert intercept + b * np.log(middle) == pytest.approx(float(shape.a(np.array([middle]))[0]), rel=0.02)
    assert b == pytest.approx(shape.b, rel=0.02)


def test_a_fit_to_a_file_recovers_the_resolution(made: tuple[np.ndarray, np.ndarray]) -> None:
    shape = ShowerShape()
    energy, layers = made
    response = layers.sum(1) / (1000 * energy)
    edges = np.geomspace(1, 1000, 11)
    place = np.digitize(energy, edges[1:-1])
    assert np.bincount(place).min() > 1000
    means = np.array([response[place == k].mean() for k in range(10)])
    np.testing.assert_allclose(means, 1, atol=0.01)
    widths = np.array([response[place == k].std() for k in range(10)])
    inverse = np.array([(1 / energy[place == k]).mean() for k in range(10)])
    slope, offset = np.polyfit(inverse, widths**2, 1, w=1 / widths**2)
    assert np.sqrt(slope) == pytest.approx(shape.sampling, rel=0.05)
    assert np.sqrt(offset) == pytest.approx(shape.constant, rel=0.05)


def test_a_fit_recovers_any_resolution() -> None:
    shape = ShowerShape(sampling=0.2, constant=0.02, spots=5)
    generator = np.random.default_rng(1)
    energies = np.array([1.0, 10.0, 100.0, 1000.0])
    widths = []
    for energy in energies:
        blocks = [shower_voxels(np.full(500, energy), "2", generator, shape) for _ in range(10)]
        total = np.concatenate([block.sum(1, dtype=np.float64) for block in blocks])
        widths.append(total.std() / total.mean())
    slope, offset = np.polyfit(1 / energies, np.square(widths), 1, w=1 / np.square(widths))
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


@pytest.mark.parametrize("geometry", ["2", "3"])
def test_h5py_reads_the_voxels_that_were_drawn(tmp_path: Path, geometry: str) -> None:
    path = tmp_path / "a.hdf5"
    assert main(["showers", str(path), "--geometry", geometry, "--events", "150", "--seed", "5"]) == 0
    with h5py.File(path) as file:
        assert (file["showers"].compression, file["showers"].dtype) == ("gzip", "<f4")
        energy = file["incident_energies"][:, 0] / 1000
        drawn = [
            shower_voxels(incident_energies(1, 1000, 150, 5)[first : first + 128], geometry, generator)
            for first in (0, 128)
            for generator in [np.random.default_rng([5, 1, first])]
        ]
        assert np.array_equal(file["showers"][:], np.concatenate(drawn))
        np.testing.assert_allclose(energy, incident_energies(1, 1000, 150, 5), rtol=1e-6)
