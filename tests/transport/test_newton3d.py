import math

import numpy as np
import pytest
import torch

from sparsegen.transport import SemiDiscreteOT
from sparsegen.transport.newton2d import newton_heights
from sparsegen.transport.newton3d import cube_cells
from sparsegen.transport.source import Source
from sparsegen.transport.warm import warm_heights


def problem(n, seed=0, spread=0.02):
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(n, 3))
    return y, -(y**2).sum(1) / 6 + spread * rng.normal(size=n)


def lattice(n):
    y = np.stack(np.meshgrid(*[np.arange(float(n))] * 3, indexing="ij"), -1).reshape(-1, 3)
    return (y - y.mean(0)) / y.std()


def laplacian(y, cells):
    matrix = np.zeros((len(y), len(y)))
    i, j = cells.walls.T
    rate = cells.lengths / np.linalg.norm(y[i] - y[j], axis=1)
    np.add.at(matrix, (i, j), -rate)
    np.add.at(matrix, (j, i), -rate)
    return matrix - np.diag(matrix.sum(1))


@pytest.mark.parametrize(("n", "seed"), [(5, 0), (12, 1), (60, 2)])
def test_volumes_and_centres_are_those_of_samples(n, seed):
    y, h = problem(n, seed)
    cells = cube_cells(y, h)
    x = np.random.default_rng(9).random((200_000, 3)) - 0.5
    owner = (x @ y.T + h).argmax(1)
    sampled = np.bincount(owner, minlength=n) / len(x)
    assert np.abs(sampled - cells.masses).max() < 4.5 * math.sqrt(cells.masses.max() / len(x))
    for k in range(3):
        moment = np.bincount(owner, x[:, k], n) / len(x)
        assert np.abs(moment - cells.moments[:, k]).max() < 4.5 * math.sqrt(cells.masses.max() / 4 / len(x))
    assert cells.masses.sum() == pytest.approx(1, abs=1e-12)
    assert np.abs(cells.moments.sum(0)).max() < 1e-12


def test_walls_over_distances_are_the_derivative_of_volumes():
    y, h = problem(25, 3)
    step = 1e-6
    slopes = [
        (cube_cells(y, h + step * d).masses - cube_cells(y, h - step * d).masses) / (2 * step) for d in np.eye(25)
    ]
    np.testing.assert_allclose(laplacian(y, cube_cells(y, h)), np.array(slopes).T, atol=1e-7)


def test_a_constant_on_all_heights_and_the_order_of_targets_change_nothing():
    y, h = problem(30, 4)
    cells, order = cube_cells(y, h), np.random.default_rng(1).permutation(30)
    np.testing.assert_allclose(cube_cells(y, h + 3).masses, cells.masses, atol=1e-12)
    np.testing.assert_allclose(cube_cells(y[order], h[order]).masses, cells.masses[order], atol=1e-12)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_a_lattice_has_equal_cubes_as_cells(n):
    y = lattice(n)
    apart = y[1, 2] - y[0, 2]
    # <x, y> - |y|^2 / 2 n apart: walls half-way between the centres y / (n apart) of equal cubes
    cells = cube_cells(y, -(y**2).sum(1) / (2 * n * apart))
    np.testing.assert_allclose(cells.masses, 1 / n**3, rtol=1e-9)
    np.testing.assert_allclose(cells.moments * n**3, y / (n * apart), atol=1e-9)


@pytest.mark.parametrize("weighted", [False, True])
def test_newton_meets_the_weights_and_the_duality_gap_closes(weighted):
    y, _ = problem(150, 5)
    rng = np.random.default_rng(2)
    weights = rng.uniform(0.2, 1, 150) if weighted else np.ones(150)
    transport = SemiDiscreteOT(torch.from_numpy(y), torch.from_numpy(weights / weights.sum()))
    certificate = transport.fit(tol=1e-8)
    assert certificate.converged
    assert certificate.samples == 0
    assert certificate.empty_bound == 0
    assert transport.transport_cost == pytest.approx(certificate.dual, abs=1e-9)


def test_a_lattice_of_targets_is_solved():
    y = lattice(4)
    _, cells = newton_heights(y, np.full(64, 1 / 64), 1e-10, math.inf, None, cube_cells)
    np.testing.assert_allclose(cells.masses, 1 / 64, rtol=1e-9)


def test_targets_in_a_plane_are_left_to_sampling():
    y, _ = problem(40, 6)
    y[:, 2] = y[:, 0] - y[:, 1]
    certificate = SemiDiscreteOT(torch.from_numpy(y)).fit(tol=0.2, generator=torch.Generator().manual_seed(0))
    assert certificate.samples > 0
    assert certificate.converged


@pytest.mark.parametrize("weighted", [False, True])
def test_a_warm_start_leaves_no_cell_empty_and_most_near_their_masses(weighted):
    y, _ = problem(300, 7)
    y[:100] *= 0.1  # small cells among large ones
    weights = torch.linspace(0.2, 1.8, 300, dtype=torch.float64) if weighted else torch.ones(300, dtype=torch.float64)
    weights = weights / weights.sum()
    source, unit = Source("uniform", 3), torch.from_numpy((y - y.mean(0)) / y.std())
    heights = warm_heights(unit, weights, source, torch.Generator().manual_seed(0), math.inf)
    relative = cube_cells(unit.numpy(), heights.numpy()).masses / weights.numpy()
    assert relative.min() > 0.01
    assert (np.abs(relative - 1) < 0.5).mean() > 0.9


def test_a_fit_of_the_cube_goes_on_from_its_own_heights():
    y, _ = problem(80, 8)
    transport = SemiDiscreteOT(torch.from_numpy(y))
    transport.fit(tol=1e-6, generator=torch.Generator().manual_seed(0))
    before = transport.heights.clone()
    generator = torch.Generator().manual_seed(1)
    state = generator.get_state()
    transport.fit(tol=1e-6, generator=generator)
    assert torch.equal(generator.get_state(), state)
    torch.testing.assert_close(transport.heights, before, rtol=0, atol=1e-9)
