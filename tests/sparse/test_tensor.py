"""Sparse tensors: round trips, unions, and errors at the boundary."""

from dataclasses import replace

import pytest
import torch

from sparsegen.errors import BackendError, ConfigError, DataError
from sparsegen.events import Events
from sparsegen.grid import Grid
from sparsegen.sparse import (
    GenerativeConvTranspose,
    SparseConv,
    SparseConvTranspose,
    SparseTensor,
    SubmanifoldConv,
    backends,
    concat,
    prune,
    union_add,
    use_backend,
)
from sparsegen.sparse.backends import BACKENDS, TorchBackend


def test_rows_are_sorted_and_dense_round_trips(cloud):
    x = cloud((5, 6, 3), 4)
    assert bool((x.sites.keys.diff() > 0).all())
    dense = x.to_dense()
    coords = (dense != 0).any(1).nonzero()
    again = SparseTensor(dense.movedim(1, -1)[tuple(coords.unbind(1))], coords, x.spatial_shape, x.batch_size)
    assert again.sites.same(x.sites)
    assert torch.equal(again.features, x.features)


def test_events_become_sparse_tensors():
    grid = Grid.regular((4, 6), (0.0, -3.0), (4.0, 3.0), ("x", "phi"), ("", "rad"), periodic=("phi",))
    coords = torch.tensor([[3, 5], [0, 0], [3, 5], [1, 2]])
    features = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    events = Events(coords, features, torch.tensor([0, 3, 3, 4]), axes=("x", "phi"), columns=("energy",), grid=grid)
    x = SparseTensor.from_events(events)
    assert x.coords.tolist() == [[0, 0, 0], [0, 3, 5], [2, 1, 2]]
    assert x.features[:, 0].tolist() == [2, 4, 4]
    assert x.periodic == (False, True)
    assert torch.equal(x.to_dense(), events.to_dense())
    assert SparseTensor.from_events(events, (8, 6)).spatial_shape == (8, 6)
    with pytest.raises(DataError, match="does not hold the grid"):
        SparseTensor.from_events(events, (2, 6))
    with pytest.raises(DataError, match="changes a periodic axis"):
        SparseTensor.from_events(events, (4, 8))
    with pytest.raises(DataError, match="voxelize"):
        SparseTensor.from_events(events.devoxelize())


def test_a_union_adds_where_both_have_a_site(cloud):
    a, b = cloud((5, 5), 3), cloud((5, 5), 3, seed=1)
    both = union_add(a, b)
    assert torch.allclose(both.to_dense(), a.to_dense() + b.to_dense())
    assert bool((both.sites.keys.diff() > 0).all())
    assert len(both) == len(torch.cat([a.coords, b.coords]).unique(dim=0))
    assert union_add(a, a.replace(a.features)).sites is a.sites


def test_concat_puts_channels_side_by_side(cloud):
    a = cloud((5, 5), 3)
    joined = concat(a, a.replace(2 * a.features))
    assert torch.equal(joined.features, torch.cat([a.features, 2 * a.features], 1))
    with pytest.raises(DataError, match="sites differ"):
        concat(a, cloud((5, 5), 3, seed=1))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_pruned_tensors_go_on_through_layers(backend, cloud, share):
    x = cloud((6, 6))
    keep = torch.rand(len(x), generator=torch.Generator().manual_seed(0)) < share
    less = prune(x, keep)
    assert torch.equal(less.features, x.features[keep])
    y = SparseConv(2, 2, 3, 3, 2, 1).double()(SubmanifoldConv(2, 2, 2, 3).double()(less))
    assert y.spatial_shape == (3, 3)
    assert (len(y) == 0) == (share == 0)


def test_order_of_the_rows_does_not_matter(backend, cloud):
    x = cloud((6, 6))
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    layer = SubmanifoldConv(2, 2, 3, 3).double()
    shuffled = SparseTensor(x.features[order], x.coords[order], (6, 6), 2)
    assert torch.equal(layer(shuffled).features, layer(x).features)


@pytest.mark.parametrize("layout", ["strided rows", "column major", "every second channel"])
def test_features_and_sites_of_any_layout(backend, cloud, layout):
    x = cloud((6, 6), 4)
    layer = SubmanifoldConv(2, 4, 3, 3).double()
    expected = layer(x).features
    features = {
        "strided rows": torch.stack([x.features, x.features], 1)[:, 1],
        "column major": x.features.t().contiguous().t(),
        "every second channel": x.features.repeat_interleave(2, 1)[:, ::2],
    }[layout]
    coords = x.coords.t().contiguous().t()
    assert not features.is_contiguous()
    assert torch.allclose(layer(SparseTensor(features, coords, (6, 6), 2)).features, expected)
    weight = layer.weight.detach().transpose(1, 2).contiguous().transpose(1, 2)
    layer.weight = torch.nn.Parameter(weight)
    assert torch.allclose(layer(x).features, expected)


COORDS = torch.tensor([[0, 1, 1], [0, 2, 0]])
ONES = torch.ones(2, 3)


@pytest.mark.parametrize(
    ("features", "coords", "shape", "text"),
    [
        (ONES, torch.tensor([[0, 1, 1], [0, 1, 1]]), (4, 4), r"site \(0, 1, 1\) appears twice"),
        (ONES, torch.tensor([[0, 1, 1], [0, 4, 0]]), (4, 4), r"site \(0, 4, 0\) in row 1 lies outside \(1, 4, 4\)"),
        (ONES, torch.tensor([[0, 1, 1], [1, 2, 0]]), (4, 4), r"site \(1, 2, 0\) in row 1 lies outside"),
        (ONES, torch.tensor([[0, 1, 1], [0, -1, 0]]), (4, 4), r"site \(0, -1, 0\) in row 1 lies outside"),
        (ONES, COORDS.int(), (4, 4), r"type torch.int32; expected \(N, 3\) int64"),
        (ONES, COORDS, (4, 4, 4), r"expected \(N, 4\) int64"),
        (ONES[:1], COORDS, (4, 4), r"features of shape \(1, 3\) .* for 2 sites"),
        (ONES.long(), COORDS, (4, 4), r"type torch.int64 for 2 sites; expected \(N, C\) of a floating type"),
        (ONES, COORDS.to("meta"), (4, 4), "features on cpu, coords on meta"),
        (ONES, COORDS, (2**31, 2**31), "more sites than 62 bits count"),
        (ONES, COORDS.float(), (4, 4), r"type torch.float32; expected \(N, 3\) int64"),
        (ONES[:, 0], COORDS, (4, 4), r"features of shape \(2,\) .* expected \(N, C\)"),
        (ONES[:0], COORDS[:0], (0, 4), "expected axes of at least one site"),
        (ONES[:0], COORDS[:0, :1], (), "expected axes of at least one site"),
    ],
)
def test_bad_tensors_are_refused(backend, features, coords, shape, text):
    with pytest.raises(DataError, match=text):
        SparseTensor(features, coords, shape, 1)


@pytest.mark.parametrize(
    ("features", "text"),
    [
        (ONES[:1], r"shape \(1, 3\) .* for 2 sites"),
        (ONES[:, 0], r"shape \(2,\)"),
        (ONES[..., None], r"shape \(2, 3, 1\)"),
        (ONES.long(), "type torch.int64 .* expected .* a floating type"),
        (ONES.to("meta"), "features on meta, sites on cpu"),
    ],
)
def test_bad_features_are_not_put_on_sites(features, text):
    with pytest.raises(DataError, match=text):
        SparseTensor(ONES, COORDS, (4, 4), 1).replace(features)


@pytest.mark.parametrize("stride", [0, (1, 0), (2, 2, 2)])
def test_a_stride_is_one_positive_number_an_axis(stride):
    with pytest.raises(DataError, match="expected 2 numbers of at least 1"):
        SparseTensor(ONES, COORDS, (4, 4), 1, stride)


def parameter(*shape, **options):
    return torch.nn.Parameter(torch.ones(*shape, **options))


@pytest.mark.parametrize("kind", [SubmanifoldConv, SparseConv, GenerativeConvTranspose])
@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        (
            "weight",
            parameter(4, 3, 5),
            r"weight \(4, 3, 5\) in 1 groups; expected \(2, Cin\) and \(9, Cin / groups, Cout\)",
        ),
        ("weight", parameter(9, 2, 5), r"features \(2, 3\) and weight \(9, 2, 5\)"),
        ("weight", parameter(9, 3, 5, device="meta"), "weight on meta, sites on cpu; move them"),
        ("bias", parameter(4), r"bias \(4,\) .* expected \(5,\)"),
        ("bias", parameter(5, dtype=torch.float64), "bias .* of torch.float64 .* of torch.float32"),
        ("bias", parameter(5, device="meta"), "bias .* on meta"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(backend, kind, name, value, text):
    layer = kind(2, 3, 5, 3)
    setattr(layer, name, value)
    with pytest.raises(DataError, match=text):
        layer(SparseTensor(ONES, COORDS, (4, 4), 1))


def test_lattices_that_an_index_does_not_hold_are_refused(backend):
    coords = torch.tensor([[0, 0, 0], [0, 2**40, 2**20 - 1]])
    x = SparseTensor(torch.ones(2, 1), coords, (2**40 + 1, 2**20), 1)
    with pytest.raises(DataError, match="more sites than 62 bits count"):
        GenerativeConvTranspose(2, 1, 1, 4, 4)(x)
    with pytest.raises(DataError, match="more sites than 62 bits count"):
        SparseConv(2, 3, 1, 3, padding=2**31)(SparseTensor(ONES, COORDS, (4, 4), 1))


def test_layers_refuse_what_does_not_fit(cloud):
    x = cloud((6, 6), 3, dtype=torch.float32)
    with pytest.raises(DataError, match="SubmanifoldConv of 4 input channels"):
        SubmanifoldConv(2, 4, 2, 3)(x)
    with pytest.raises(DataError, match="SubmanifoldConv of 3 dimensions"):
        SubmanifoldConv(3, 3, 2, 3)(x)
    with pytest.raises(ConfigError, match="2 groups do not divide 3 -> 4 channels"):
        SubmanifoldConv(2, 3, 4, 3, groups=2)
    with pytest.raises(ConfigError, match="expected 1 to 4"):
        SubmanifoldConv(5, 3, 4, 3)
    with pytest.raises(ConfigError, match="expected 2 numbers"):
        SubmanifoldConv(2, 3, 4, (3, 3, 3))
    with pytest.raises(ConfigError, match="support rule"):
        SparseConv(2, 3, 4, 3, support="ceiling")
    with pytest.raises(DataError, match="leads to the lattice"):
        SparseConvTranspose(2, 3, 4, 2, 2)(x, x)
    with pytest.raises(DataError, match="leads to the lattice"):
        SparseConvTranspose(2, 3, 4, 2, 2)(x, cloud((12, 12), periodic=(0,)))
    for other in (x.to_dense(), x.features):
        with pytest.raises(DataError, match="of a Tensor; expected a SparseTensor"):
            SubmanifoldConv(2, 3, 2, 3)(other)
    with pytest.raises(DataError, match="onto a Tensor; expected a SparseTensor"):
        SparseConvTranspose(2, 3, 4, 2, 2)(x, x.to_dense())
    for channels in ((0, 4), (3, 0)):
        with pytest.raises(ConfigError, match="expected 1 or more"):
            SubmanifoldConv(2, *channels, 3)
    with pytest.raises(ConfigError, match="expected 1 or more"):
        SubmanifoldConv(2, 3, 4, 3, groups=0)
    with pytest.raises(DataError, match="expected bool"):
        prune(x, torch.ones(len(x)))
    with pytest.raises(DataError, match=r"on meta .* on cpu"):
        prune(x, torch.ones(len(x), dtype=torch.bool, device="meta"))
    with pytest.raises(DataError, match="lattices differ"):
        union_add(x, cloud((6, 7), 3, dtype=torch.float32))
    with pytest.raises(DataError, match="3 channels and 2 channels"):
        union_add(x, cloud((6, 6), 2, dtype=torch.float32, seed=1))


def test_back_ends_say_what_they_can():
    assert backends()["torch"].double_backward
    with pytest.raises(BackendError, match="sparse back end"):
        use_backend("magic")
    layer = SubmanifoldConv(1, 1, 1, 3).half()
    x = SparseTensor(torch.ones(1, 1).half(), torch.tensor([[0, 0]]), (2,), 1)
    with use_backend("torch"), pytest.raises(BackendError, match=r"the torch back end has no torch\.float16; none can"):
        layer(x)


class Once(TorchBackend):
    name = "once"
    capabilities = replace(TorchBackend.capabilities, double_backward=False)


def test_a_gradient_penalty_on_a_back_end_without_second_derivatives_is_refused(cloud, monkeypatch):
    monkeypatch.setitem(BACKENDS._items, "once", Once())
    x, layer = cloud((6, 6)), SubmanifoldConv(2, 2, 1, 3).double()
    features = x.features.requires_grad_()
    with use_backend("once"):
        y = layer(x.replace(features)).features.square().sum()
        with pytest.raises(BackendError, match=r"once back end has no double backward .* use_backend\('"):
            torch.autograd.grad(y, features, create_graph=True)
        (once,) = torch.autograd.grad(y, features)
    (twice,) = torch.autograd.grad(layer(x.replace(features)).features.square().sum(), features)
    assert torch.allclose(once, twice)
