"""Kernel maps: shared across a lineage, and independent of how sites are found."""

import gc
import weakref

import pytest
import torch

from sparsegen.sparse import SparseConv, SparseConvTranspose, SparseTensor, SubmanifoldConv, bitmap, maps, search
from sparsegen.sparse.kernel_map import KernelMap, Window
from sparsegen.sparse.maps import generated, strided, submanifold, transposed


def pairs(kernel_map: KernelMap) -> set[tuple[int, int, int]]:
    taps = torch.arange(len(kernel_map.counts)).repeat_interleave(torch.tensor(kernel_map.counts))
    return set(zip(taps.tolist(), kernel_map.inputs.tolist(), kernel_map.outputs.tolist(), strict=True))


def brute_force(source, target, window, target_shape, periodic):
    """Pairs by comparing every input with every output; the target is the coarse side."""
    found = set()
    for tap, offset in enumerate(window.offsets(torch.device("cpu")).tolist()):
        for o, out in enumerate(target.tolist()):
            place = [out[0]]
            for axis, (c, d) in enumerate(zip(out[1:], offset, strict=True)):
                reached = c * window.stride[axis] + d
                place.append(reached % target_shape[axis] if periodic[axis] else reached)
            found |= {(tap, i, o) for i, site in enumerate(source.tolist()) if site == place}
    return found


@pytest.mark.parametrize("periodic", [(False, False), (True, False)])
@pytest.mark.parametrize("table", [True, False], ids=["table", "search"])
def test_maps_hold_exactly_the_pairs_that_meet(backend, cloud, monkeypatch, table, periodic):
    if not table:
        monkeypatch.setattr(search, "LARGEST_TABLE", 0)
        monkeypatch.setattr(bitmap, "LARGEST_BITMAP", 0)
        monkeypatch.setattr(bitmap, "SITES_PER_ROW", 0)
    x = cloud((6, 7), occupancy=0.4, periodic=periodic).sites
    same = Window((3, 3), (1, 1), (2, 1), (2, 1))
    found = submanifold(x, (3, 3), (2, 1))
    assert pairs(found) == brute_force(x.coords, x.coords, same, x.spatial_shape, periodic)
    window = Window((3, 2), (2, 1), (1, 0), (1, 1))
    for rule in ("reach", "floor"):
        coarse, down = strided(x, window, rule)
        assert pairs(down) == brute_force(x.coords, coarse.coords, window, x.spatial_shape, periodic)
        assert down.sizes == (len(x), len(coarse))
    fine, up = generated(x, window)
    expected = brute_force(fine.coords, x.coords, window, fine.spatial_shape, periodic)
    assert pairs(up) == {(tap, o, i) for tap, i, o in expected}
    assert {(tap, o, i) for tap, i, o in pairs(up)} == pairs(up.swapped)
    assert pairs(transposed(x, fine, window)) == pairs(up)


def test_counts_add_up_and_outputs_rise_within_a_tap(backend, cloud):
    found = submanifold(cloud((8, 8)).sites, (3, 3), (1, 1))
    assert sum(found.counts) == len(found.inputs) == len(found.outputs)
    for part in found.outputs.split(found.counts):
        assert bool((part.diff() > 0).all())


def test_one_map_serves_every_layer_of_a_lineage(backend, cloud, monkeypatch):
    x = cloud((8, 8))
    first, second = SubmanifoldConv(2, 2, 2, 3).double(), SubmanifoldConv(2, 2, 2, 3).double()
    down = SparseConv(2, 2, 2, 2, 2).double()
    y = second(first(x))
    low = down(y)
    for builder in ("bitmap", "search"):
        monkeypatch.setattr(maps, builder, None)
    again = down(second(first(y.replace(y.features + 1))))
    assert again.sites is low.sites


def test_a_volume_beyond_any_table_is_searched(backend):
    coords = torch.tensor([[0, 5, 5, 5], [0, 5, 5, 6], [1, 2**19, 3, 2**19]])
    x = SparseTensor(torch.ones(3, 1), coords, (2**20, 2**20, 2**20), 2)
    layer = SubmanifoldConv(3, 1, 1, 3, bias=False)
    torch.nn.init.ones_(layer.weight)
    assert layer(x).features[:, 0].tolist() == [2, 2, 1]
    low = SparseConv(3, 1, 1, 2, 2)(x)
    assert low.coords.tolist() == [[0, 2, 2, 2], [0, 2, 2, 3], [1, 2**18, 1, 2**18]]


@pytest.mark.parametrize("periodic", [(), (0,)], ids=["open", "periodic"])
def test_maps_are_freed_with_their_tensors(backend, cloud, periodic):
    gc.disable()
    try:
        x = cloud((6, 6), periodic=periodic)
        found = submanifold(x.sites, (3, 3), (1, 1))
        assert found.swapped.swapped is found
        watch = weakref.ref(found)
        y = SparseConvTranspose(2, 2, 2, 2, 2).double()(SparseConv(2, 2, 2, 2, 2).double()(x), x)
        y.features.sum().backward()
        del x, y, found
        assert watch() is None
    finally:
        gc.enable()
