import math

import pytest
import torch

from sparsegen.errors import ConfigError
from sparsegen.transport import chamfer, emd, pairwise, sliced


def ragged(seed, counts):
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(sum(counts), 2, dtype=torch.double, generator=generator)
    return points, torch.tensor([0, *counts]).cumsum(0)


A, B = ragged(0, (3, 5, 0, 4)), ragged(1, (5, 2, 6))


@pytest.mark.parametrize("metric", ["chamfer", "chamfer_distance", "emd", "sliced"])
def test_every_entry_is_the_distance_of_its_pair(metric):
    matrix = pairwise(A, B, metric, generator=torch.Generator().manual_seed(3))
    assert matrix.shape == (4, 3)
    for i in range(4):
        for j in range(3):
            x, y = (points[low:high][None] for (points, o), k in ((A, i), (B, j)) for low, high in [o[k : k + 2]])
            expected = {
                "chamfer": chamfer,
                "chamfer_distance": lambda x, y: chamfer(x, y, squared=False),
                "emd": emd,
                "sliced": lambda x, y: sliced(x, y, 100, generator=torch.Generator().manual_seed(3)),
            }[metric](x, y)
            torch.testing.assert_close(matrix[i, j : j + 1], expected)


def test_periods_and_weights_count():
    x, y = torch.tensor([[[0.1]]]), torch.tensor([[[0.9], [0.5]]])
    assert pairwise(x, y, "emd", period=(1.0,)).item() == pytest.approx(0.3)
    masses = (None, torch.tensor([3.0, 1.0]))
    assert pairwise(x, y, "emd", weights=masses, period=(math.inf,)).item() == pytest.approx(0.7)


def test_an_unknown_metric_is_named():
    with pytest.raises(ConfigError, match="unknown metric 'emdd': did you mean emd"):
        pairwise(A, B, "emdd")
    with pytest.raises(ConfigError, match="no weights"):
        pairwise(A, B, weights=(A[0][:, 0], None))
