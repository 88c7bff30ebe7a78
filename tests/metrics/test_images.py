import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import wasserstein_distance

from sparsegen import metrics
from sparsegen.events import Events
from sparsegen.grid import Grid
from sparsegen.metrics.images import laplace_variance

GRID = Grid.regular((25, 25), (-0.8, -0.8), (0.8, 0.8), ("etarel", "phirel"))


def test_laplacian_of_a_plane_and_of_a_point():
    x, y = np.indices((6, 7))
    ring = torch.tensor(np.sin(2 * np.pi * x / 6) + 0.0 * y)[None]
    # On the ring the Laplacian of a wave is the wave times its eigenvalue.
    eigenvalue = 2 * np.cos(2 * np.pi / 6) - 2
    assert float(laplace_variance(ring, (True, True))) == pytest.approx(eigenvalue**2 / 2)
    point = torch.zeros(1, 5, 5)
    point[0, 2, 2] = 1
    values = [-4] + 4 * [1] + 20 * [0]
    assert float(laplace_variance(point)) == pytest.approx(np.var(values))
    corner = torch.zeros(1, 5, 5)
    corner[0, 0, 0] = 1
    assert float(laplace_variance(corner)) == pytest.approx(np.var([-4] + 2 * [1] + 22 * [0]))


def test_blurred_images_are_less_sharp_and_equal_ones_equally(jets):
    cells, _ = jets.voxelize(GRID, outside="drop")
    same = metrics.sharpness(jets, cells.devoxelize("centre").replace(grid=None))
    assert same.value == pytest.approx(1, abs=1e-6)
    dense = cells.to_dense().double().numpy()
    blurred = Events.from_dense(torch.tensor(gaussian_filter(dense, (0, 0, 1, 1))), GRID, cells.columns)
    assert metrics.sharpness(blurred, cells.to(torch.float64)).value < 0.5


def test_cell_spectrum_equals_scipy(jets, more_jets):
    a, b = (e.voxelize(GRID, outside="drop")[0] for e in (more_jets, jets))
    expected = wasserstein_distance(*(np.log10(e.features[:, 0].double().numpy()) for e in (a, b)))
    result = metrics.w1_cells(more_jets, jets)
    assert result.value == pytest.approx(expected, rel=1e-9)
    wide = jets.replace(coords=6 * jets.coords)
    assert metrics.w1_cells(wide, jets).protocol["hits_outside"] == [int((wide.coords.abs() > 0.8).any(1).sum()), 0]
    assert abs(result.value - result.floor) < 4 * result.error
