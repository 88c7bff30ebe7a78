"""Pooling and its inverse."""

import pytest
import torch
from torch.nn import functional as F

from sparsegen.errors import DataError
from sparsegen.sparse import GlobalPool, MaxPool, MeanPool, SparseTensor, SubmanifoldConv, SumPool, Switches, Unpool


def at(dense, x):
    return dense.movedim(1, -1)[tuple(x.coords.unbind(1))]


@pytest.mark.parametrize("occupancy", [0.3, 1.0])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, 2, 0), (3, 2, 1), ((3, 2), (1, 2), (1, 0))])
def test_pools_equal_dense_over_active_sites(cloud, kernel, stride, padding, occupancy):
    x = cloud((6, 8), occupancy=occupancy)
    active = SparseTensor(torch.ones_like(x.features), x.coords, (6, 8), 2).to_dense()
    hidden = torch.where(active > 0, x.to_dense(), -torch.inf)
    y = MaxPool(2, kernel, stride, padding)(x)
    assert torch.equal(y.features, at(F.max_pool2d(hidden, kernel, stride, padding), y))
    ones = torch.ones(2, 1, *((kernel, kernel) if isinstance(kernel, int) else kernel)).double()
    summed = F.conv2d(x.to_dense(), ones, None, stride, padding, groups=2)
    seen = F.conv2d(active, ones, None, stride, padding, groups=2)
    assert torch.allclose(SumPool(2, kernel, stride, padding)(x).features, at(summed, y), atol=1e-12)
    assert torch.allclose(MeanPool(2, kernel, stride, padding)(x).features, at(summed / seen, y), atol=1e-12)


def test_a_full_lattice_pools_like_torch(cloud):
    x = cloud((4, 6, 4), occupancy=1.0)
    assert torch.equal(MaxPool(3, 2)(x).to_dense(), F.max_pool3d(x.to_dense(), 2))
    assert torch.allclose(MeanPool(3, 2)(x).to_dense(), F.avg_pool3d(x.to_dense(), 2))


def test_windows_wrap_around_periodic_axes(cloud):
    x = cloud((6,), 1, occupancy=1.0, periodic=(0,))
    wrapped = torch.cat([x.to_dense()[..., -1:], x.to_dense()], 2)
    assert torch.equal(MaxPool(1, 3, 2, 1)(x).to_dense(), F.max_pool1d(wrapped, 3, 2))


def test_pooling_undoes_unpooling(cloud):
    x = cloud((6, 6), 3, occupancy=0.4)
    y, switches = MaxPool(2, 2, return_switches=True)(x)
    positive = y.replace(y.features.abs())
    back = Unpool()(positive, switches)
    assert back.sites is x.sites
    assert torch.equal(MaxPool(2, 2)(back).features, positive.features)


def test_unpooling_a_full_lattice_leaves_one_value_a_window_and_zeros_elsewhere(cloud):
    x = cloud((8, 8), 3, occupancy=1.0)
    y, switches = MaxPool(2, 2, return_switches=True)(x)
    back = Unpool()(y.replace(y.features.abs() + 1), switches)
    assert float((back.features == 0).double().mean()) == 0.75
    assert torch.equal(F.max_pool2d(back.to_dense(), 2), (y.replace(y.features.abs() + 1)).to_dense())


def test_switches_tell_a_decoder_where_hits_were():
    """A code without them knows what is in a window, not where: the way back is worse, for the same networks."""
    generator = torch.Generator().manual_seed(0)
    image = (torch.rand(16, 1, 8, 8, generator=generator) < 0.15).float()
    every = torch.cartesian_prod(torch.arange(16), torch.arange(8), torch.arange(8))
    x = SparseTensor(image.flatten()[:, None], every, (8, 8), 16)
    losses = {}
    for told in (True, False):
        torch.manual_seed(0)
        encode, decode = SubmanifoldConv(2, 1, 4, 3), SubmanifoldConv(2, 4, 1, 3)
        adam = torch.optim.Adam([*encode.parameters(), *decode.parameters()], lr=2e-2)
        for _ in range(150):
            y, switches = MaxPool(2, 2, return_switches=True)(encode(x))
            # Without its switch a maximum goes to the first site of its window.
            corner = torch.searchsorted(_keys(x.coords), _keys(y.coords * torch.tensor([1, 2, 2])))
            rows = switches.rows if told else corner[:, None].expand_as(switches.rows)
            back = decode(Unpool()(y, Switches(switches.sites, rows)))
            loss = (back.features - x.features).square().mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
        losses[told] = float(loss.detach())
    assert losses[True] < 0.5 * losses[False], losses


def _keys(coords):
    return (coords[:, 0] * 8 + coords[:, 1]) * 8 + coords[:, 2]


def test_unpooling_is_the_adjoint_of_taking_the_maxima(cloud):
    x = cloud((6, 6), 3, occupancy=0.4)
    y, switches = MaxPool(2, 3, 2, 1, return_switches=True)(x)
    other, low = torch.randn_like(x.features), torch.randn_like(y.features)
    taken = other.gather(0, switches.rows)
    assert torch.allclose((taken * low).sum(), (other * Unpool()(y.replace(low), switches).features).sum())


def test_equal_maxima_have_one_switch_and_one_gradient():
    coords = torch.tensor([[0, 0], [0, 1], [0, 2], [0, 3]])
    features = torch.tensor([[1.0], [1.0], [-2.0], [-2.0]], requires_grad=True)
    y, switches = MaxPool(1, 2, return_switches=True)(SparseTensor(features, coords, (4,), 1))
    y.features.sum().backward()
    assert switches.rows[:, 0].tolist() == [0, 2]
    assert features.grad[:, 0].tolist() == [1, 0, 1, 0]


def test_nan_is_pooled_as_nan():
    coords = torch.tensor([[0, 0], [0, 1], [0, 2], [0, 3]])
    x = SparseTensor(torch.tensor([[1.0], [torch.nan], [2.0], [3.0]]), coords, (4,), 1)
    for pool in (MaxPool(1, 2), MeanPool(1, 2), SumPool(1, 2)):
        assert pool(x).features.isnan()[:, 0].tolist() == [True, False]
    assert bool(GlobalPool("max")(x).isnan().all())


@pytest.mark.parametrize("reduce", ["max", "mean", "sum"])
def test_global_pools_see_one_event_each(cloud, reduce):
    x = cloud((5, 5), 3, batch=4)
    pooled = GlobalPool(reduce)(x)
    assert bool((pooled[-1] == 0).all())
    for event in range(3):
        rows = x.features[x.sites.batch == event]
        expected = rows.amax(0) if reduce == "max" else getattr(rows, reduce)(0)
        assert torch.allclose(pooled[event], expected)


def test_empty_tensors_pool_to_empty_tensors(cloud):
    x = SparseTensor(torch.zeros(0, 2), torch.zeros(0, 3, dtype=torch.int64), (4, 4), 2)
    y, switches = MaxPool(2, 2, return_switches=True)(x)
    assert len(y) == len(Unpool()(y, switches)) == 0
    assert len(MeanPool(2, 2)(x)) == len(SumPool(2, 2)(x)) == 0
    assert torch.equal(GlobalPool("max")(x), torch.zeros(2, 2))


def test_unpooling_other_sites_is_refused(cloud):
    x = cloud((6, 6))
    _, switches = MaxPool(2, 2, return_switches=True)(x)
    with pytest.raises(DataError, match="Unpool"):
        Unpool()(x, switches)
    with pytest.raises(DataError, match="MaxPool of 3 dimensions"):
        MaxPool(3, 2)(x)
