"""Normalisation sees active sites only."""

import pytest
import torch

from sparsegen.sparse import BatchNorm, InstanceNorm, LayerNorm, SparseTensor


def test_batch_norm_takes_its_statistics_from_active_sites(cloud):
    x = cloud((6, 6), 3, occupancy=0.2)
    x = x.replace(3 * x.features + 5)
    norm = BatchNorm(3).double()
    y = norm(x)
    assert torch.allclose(y.features.mean(0), torch.zeros(3).double(), atol=1e-12)
    assert torch.allclose(y.features.var(0, correction=0), torch.ones(3).double(), atol=1e-4)
    assert torch.allclose(norm.running_mean, 0.1 * x.features.mean(0))
    norm.eval()
    expected = (x.features - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
    assert torch.allclose(norm(x).features, expected)


def test_instance_norm_takes_each_event_alone(cloud):
    x = cloud((6, 6), 3, batch=3, occupancy=0.3)
    y = InstanceNorm(3).double()(x)
    for event in range(2):
        rows = y.features[x.sites.batch == event]
        assert torch.allclose(rows.mean(0), torch.zeros(3).double(), atol=1e-12)
        assert torch.allclose(rows.var(0, correction=0), torch.ones(3).double(), atol=1e-3)


def test_instance_norm_of_a_full_lattice_is_torchs(cloud):
    x = cloud((6, 6), 3, occupancy=1.0)
    expected = torch.nn.functional.instance_norm(x.to_dense())
    assert torch.allclose(InstanceNorm(3).double()(x).to_dense(), expected)


def test_layer_norm_takes_each_site_alone(cloud):
    x = cloud((6, 6), 8)
    y = LayerNorm(8).double()(x)
    assert torch.allclose(y.features.mean(1), torch.zeros(len(x)).double(), atol=1e-12)
    assert y.sites is x.sites


@pytest.mark.parametrize("norm", [BatchNorm, InstanceNorm, LayerNorm])
def test_empty_tensors_and_single_sites_pass(norm):
    for n in (0, 1):
        x = SparseTensor(torch.ones(n, 2), torch.zeros(n, 3, dtype=torch.int64), (4, 4), 2)
        assert bool(norm(2)(x).features.isfinite().all())
