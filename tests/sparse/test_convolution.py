"""Every convolution equals its dense counterpart wherever it is defined, on every back end."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sparsegen.errors import ConfigError
from sparsegen.sparse import (
    GenerativeConvTranspose,
    SparseConv,
    SparseConvTranspose,
    SparseTensor,
    SparsityInvariantConv,
    SubmanifoldConv,
    prune,
    use_backend,
)

SHAPES = {1: (12,), 2: (8, 6), 3: (6, 4, 6), 4: (4, 4, 2, 4)}
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


def dense_conv(x, weight, stride, padding, dilation, groups=1, periodic=()):
    """torch's convolution in any dimension, wrapping along periodic axes."""
    dim = x.ndim - 2
    for axis in range(dim):
        n, k, s, p, d = x.shape[2 + axis], weight.shape[2 + axis], stride[axis], padding[axis], dilation[axis]
        if axis < len(periodic) and periodic[axis]:
            sites = torch.arange(-p, -p + (n // s - 1) * s + d * (k - 1) + 1) % n
            x = x.index_select(2 + axis, sites)
        else:
            x = F.pad(x, [0, 0] * (dim - 1 - axis) + [p, p])
    if dim < 4:
        return (F.conv1d, F.conv2d, F.conv3d)[dim - 1](x, weight, None, stride, 0, dilation, groups)
    outputs = (x.shape[2] - dilation[0] * (weight.shape[2] - 1) - 1) // stride[0] + 1
    total = 0
    for tap in range(weight.shape[2]):
        start = tap * dilation[0]
        part = x[:, :, start : start + (outputs - 1) * stride[0] + 1 : stride[0]].transpose(1, 2)
        flat = F.conv3d(part.flatten(0, 1), weight[:, :, tap], None, stride[1:], 0, dilation[1:], groups)
        total = total + flat.view(*part.shape[:2], *flat.shape[1:]).transpose(1, 2)
    return total


def dense_transpose(x, weight, shape, stride, padding, dilation, groups=1, periodic=()):
    """The adjoint of :func:`dense_conv`: torch's transposed convolution."""
    out = torch.zeros(x.shape[0], weight.shape[1] * groups, *shape, dtype=x.dtype, requires_grad=True)
    made = dense_conv(out, weight, stride, padding, dilation, groups, periodic)
    return torch.autograd.grad(made, out, x, create_graph=True)[0]


def at(dense: Tensor, x: SparseTensor) -> Tensor:
    """Values of a dense tensor at the sites of a sparse one."""
    return dense.movedim(1, -1)[tuple(x.coords.unbind(1))]


def geometries(dim):
    k3, ones, zeros = (3,) * dim, (1,) * dim, (0,) * dim
    uneven = tuple((3, 2, 1, 2)[:dim])
    return [
        (k3, ones, ones, ones),
        ((2,) * dim, (2,) * dim, zeros, ones),
        (k3, (2,) * dim, ones, ones),
        (uneven, tuple((2, 1, 2, 1)[:dim]), tuple((1, 0, 0, 1)[:dim]), ones),
        ((2,) * dim, ones, ones, (2,) * dim),
    ]


CASES = [(dim, g) for dim in SHAPES for g in geometries(dim)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("periodic", ["none", "all", "first"])
@pytest.mark.parametrize(("dim", "geometry"), CASES)
@pytest.mark.parametrize("occupancy", [0.2, 1.0])
def test_convolution_equals_dense(backend, cloud, dim, geometry, periodic, dtype, occupancy):
    wraps = tuple(periodic == "all" or (periodic == "first" and axis == 0) for axis in range(dim))
    x = cloud(SHAPES[dim], 3, 3, occupancy, wraps, dtype)
    layer = SparseConv(dim, 3, 5, *geometry).to(dtype)
    y = layer(x)
    expected = dense_conv(x.to_dense(), layer.dense_weight(), *geometry[1:], periodic=wraps)
    expected = expected + layer.bias.view(-1, *(1,) * dim)
    assert y.spatial_shape == tuple(expected.shape[2:])
    assert torch.allclose(y.features, at(expected, y), rtol=0, atol=TOLERANCE[dtype])
    reached = dense_conv(
        (x.to_dense() != 0).any(1, keepdim=True).double(),
        torch.ones(1, 1, *geometry[0]).double(),
        *geometry[1:],
        periodic=wraps,
    )
    assert torch.equal((reached[:, 0] > 0.5).nonzero(), y.coords)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("wraps", [False, True])
@pytest.mark.parametrize("dim", SHAPES)
def test_submanifold_equals_dense_at_its_sites(backend, cloud, dim, wraps, groups):
    kernel, dilation = tuple((3, 5, 1, 3)[:dim]), tuple((2, 1, 1, 1)[:dim])
    x = cloud(SHAPES[dim], 4, periodic=(wraps,) * dim)
    layer = SubmanifoldConv(dim, 4, 8, kernel, dilation, groups, bias=False).double()
    padding = tuple(d * (k // 2) for k, d in zip(kernel, dilation, strict=True))
    expected = dense_conv(x.to_dense(), layer.dense_weight(), (1,) * dim, padding, dilation, groups, (wraps,) * dim)
    y = layer(x)
    assert y.sites is x.sites
    assert torch.allclose(y.features, at(expected, y), rtol=0, atol=1e-10)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("wraps", [False, True])
@pytest.mark.parametrize(("dim", "geometry"), CASES)
def test_transposed_convolutions_equal_dense(backend, cloud, dim, geometry, wraps, groups):
    kernel, stride, padding, dilation = geometry
    periodic = (wraps,) * dim
    x = cloud(SHAPES[dim], 4, periodic=periodic)
    layer = GenerativeConvTranspose(dim, 4, 6, kernel, stride, padding, dilation, groups, bias=False).double()
    y = layer(x)
    expected = dense_transpose(x.to_dense(), layer.dense_weight(), y.spatial_shape, *geometry[1:], groups, periodic)
    assert torch.allclose(y.to_dense(), expected, rtol=0, atol=1e-10)
    onto = SparseConvTranspose(dim, 4, 6, kernel, stride, padding, dilation, groups, bias=False).double()
    onto.load_state_dict(layer.state_dict())
    target = cloud(y.spatial_shape, 1, periodic=periodic, seed=1)
    z = onto(x, target)
    assert z.sites is target.sites
    assert torch.allclose(z.features, at(expected, z), rtol=0, atol=1e-10)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_dense_weight_is_what_torch_takes(backend, cloud, dim):
    x = cloud(SHAPES[dim], 4, occupancy=1.0)
    down = SparseConv(dim, 4, 6, 3, 2, 1, groups=2).double()
    dense = (F.conv1d, F.conv2d, F.conv3d)[dim - 1]
    expected = dense(x.to_dense(), down.dense_weight(), down.bias, 2, 1, groups=2)
    assert torch.allclose(down(x).to_dense(), expected, atol=1e-12)
    up = GenerativeConvTranspose(dim, 4, 6, 3, 2, 1, groups=2).double()
    dense = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[dim - 1]
    expected = dense(x.to_dense(), up.dense_weight(), up.bias, 2, 1, groups=2)
    assert torch.allclose(up(x).to_dense(), expected, atol=1e-12)


def grouped(weight, groups):
    """A sparse layer's weight ``(K, Cin / groups, Cout)`` without groups, zero where channels do not see each other."""
    return torch.stack([torch.block_diag(*tap.chunk(groups, 1)) for tap in weight])


def expected(layer, x, y):
    """What dense convolution gives at the sites of ``y``, differentiable in features and parameters alike."""
    w, ones, padding = layer.window, (1,) * layer.dim, layer.window.padding
    if isinstance(layer, SubmanifoldConv):
        padding = tuple(d * (k // 2) for k, d in zip(w.kernel, w.dilation, strict=True))
    geometry = (w.stride, padding, w.dilation)
    if isinstance(layer, SparseConvTranspose | GenerativeConvTranspose):
        kernel = grouped(layer.weight, layer.groups).permute(1, 2, 0).unflatten(2, w.kernel)
        dense = dense_transpose(x.to_dense(), kernel, y.spatial_shape, *geometry)
    else:
        kernel = grouped(layer.weight, layer.groups).permute(2, 1, 0).unflatten(2, w.kernel)
        dense = dense_conv(x.to_dense(), kernel, *geometry)
    if isinstance(layer, SparsityInvariantConv):
        active = x.replace(torch.ones_like(x.features[:, :1])).to_dense()
        dense = dense / dense_conv(active, torch.ones_like(kernel[:1, :1]), *geometry).clamp(min=1)
    return at(dense + layer.bias.view(-1, *ones), y)


EVERY_LAYER = {
    "submanifold": lambda dim: SubmanifoldConv(dim, 4, 6, 3),
    "submanifold, even, dilated": lambda dim: SubmanifoldConv(dim, 4, 6, 2, dilation=2),
    "submanifold, grouped": lambda dim: SubmanifoldConv(dim, 4, 6, 3, groups=2),
    "tiles": lambda dim: SparseConv(dim, 4, 6, 2, 2),
    "strided": lambda dim: SparseConv(dim, 4, 6, 3, 2, 1, groups=2),
    "strided, floor": lambda dim: SparseConv(dim, 4, 6, 3, 2, 1, support="floor"),
    "padded, dilated": lambda dim: SparseConv(dim, 4, 6, 2, 1, 1, 2),
    "invariant": lambda dim: SparsityInvariantConv(dim, 4, 6, 3),
    "transposed": lambda dim: SparseConvTranspose(dim, 4, 6, 2, 2),
    "transposed, uneven": lambda dim: SparseConvTranspose(dim, 4, 6, 3, 2, 1, groups=2),
    "generative": lambda dim: GenerativeConvTranspose(dim, 4, 6, 2, 2),
    "generative, uneven": lambda dim: GenerativeConvTranspose(dim, 4, 6, 3, 2, 1, groups=2),
}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["f32", "f64"])
@pytest.mark.parametrize("dim", SHAPES)
@pytest.mark.parametrize("name", EVERY_LAYER)
def test_every_layer_and_its_gradients_equal_dense_and_torchs(backend, cloud, name, dim, dtype):
    torch.manual_seed(0)
    x = cloud(SHAPES[dim], 4, 3, dtype=dtype)
    layer = EVERY_LAYER[name](dim).to(dtype)
    more = ()
    if isinstance(layer, SparseConvTranspose):
        more = (cloud(layer.window.shape_up(SHAPES[dim], (False,) * dim), 1, 3, dtype=dtype, seed=1),)
    inputs = [x.features.requires_grad_(), *layer.parameters()]

    def run(x):
        y = layer(SparseTensor(x.features, x.coords, x.spatial_shape, x.batch_size), *more)
        return y, [y.features, *torch.autograd.grad(y.features.square().sum(), inputs)]

    y, found = run(x)
    dense = expected(layer, x, y)
    dense = [dense, *torch.autograd.grad(dense.square().sum(), inputs)]
    with use_backend("torch"):
        other, reference = run(x)
    assert other.sites.same(y.sites)
    for a, b, c in zip(found, dense, reference, strict=True):
        scale = max(1.0, float(b.detach().abs().max()))
        assert torch.allclose(a, b, rtol=0, atol=TOLERANCE[dtype] * scale)
        assert torch.allclose(a, c, rtol=0, atol=TOLERANCE[dtype] * scale)


@pytest.mark.parametrize("dim", SHAPES)
@pytest.mark.parametrize("name", EVERY_LAYER)
def test_every_layer_takes_a_tensor_whose_sites_were_all_pruned(backend, cloud, name, dim):
    x = cloud(SHAPES[dim], 4)
    none = prune(x.replace(x.features.requires_grad_()), torch.zeros(len(x), dtype=torch.bool))
    layer = EVERY_LAYER[name](dim).double()
    shape = layer.window.shape_up(SHAPES[dim], (False,) * dim)
    y = layer(none, cloud(shape, 1)) if isinstance(layer, SparseConvTranspose) else layer(none)
    assert torch.equal(y.features, layer.bias.expand(len(y), -1))
    y.features.sum().backward()
    assert not bool(layer.weight.grad.any()) and not bool(x.features.grad.any())


def test_floor_rule_keeps_the_sites_that_contain_an_input(backend, cloud):
    x = cloud((9, 8), occupancy=0.1)
    reach, floor = SparseConv(2, 2, 3, 3, 2, 1).double(), SparseConv(2, 2, 3, 3, 2, 1, support="floor").double()
    floor.load_state_dict(reach.state_dict())
    wide, narrow = reach(x), floor(x)
    contained = x.coords.clone()
    contained[:, 1:] //= 2
    assert torch.equal(narrow.coords, contained.unique(dim=0))
    assert len(narrow) < len(wide)
    assert torch.allclose(narrow.features, at(wide.to_dense(), narrow), atol=1e-12)


def test_an_invariant_window_that_sees_nothing_gives_the_bias(backend):
    x = SparseTensor(torch.ones(2, 1), torch.tensor([[0, 1], [0, 2]]), (6,), 1)
    layer = SparsityInvariantConv(1, 1, 2, 1, stride=2, support="floor")
    y = layer(x)
    assert torch.equal(y.coords[:, 1], torch.tensor([0, 1]))
    assert torch.equal(y.features[0], layer.bias)


@pytest.mark.parametrize("support", ["reach", "floor"])
def test_sparsity_invariant_convolution_divides_by_the_sites_it_sees(backend, cloud, support):
    x = cloud((7, 6), occupancy=0.15)
    layer = SparsityInvariantConv(2, 2, 3, 3, stride=2, support=support).double()
    y = layer(x)
    active = (x.to_dense() != 0).any(1, keepdim=True).double()
    seen = F.conv2d(active, torch.ones(1, 1, 3, 3).double(), stride=2, padding=1)
    expected = F.conv2d(x.to_dense(), layer.dense_weight(), stride=2, padding=1) / seen.clamp(min=1)
    assert torch.allclose(y.features, at(expected, y) + layer.bias, atol=1e-12)


def test_a_constant_image_stays_constant_under_an_invariant_convolution(backend, cloud):
    x = cloud((9, 9), 1, occupancy=0.3)
    layer = SparsityInvariantConv(2, 1, 1, 3, bias=False).double()
    torch.nn.init.constant_(layer.weight, 2.0)
    y = layer(x.replace(torch.ones_like(x.features)))
    assert torch.allclose(y.features, torch.full_like(y.features, 2.0))


def test_events_do_not_see_each_other(backend, cloud):
    x = cloud((6, 6), batch=3, occupancy=0.5)
    layer = SubmanifoldConv(2, 2, 4, 3).double()
    alone = x.sites.batch == 1
    coords = x.coords[alone].clone()
    coords[:, 0] = 0
    one = SparseTensor(x.features[alone], coords, (6, 6), 1)
    assert torch.allclose(layer(x).features[alone], layer(one).features, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dim", SHAPES)
def test_empty_tensors_pass_through_every_layer(backend, dim):
    shape = SHAPES[dim]
    x = SparseTensor(torch.zeros(0, 2, requires_grad=True), torch.zeros(0, 1 + dim, dtype=torch.int64), shape, 2)
    y = SparseConv(dim, 2, 4, 2, 2)(SubmanifoldConv(dim, 2, 2, 3)(x))
    z = GenerativeConvTranspose(dim, 4, 3, 2, 2)(y)
    assert len(z) == 0
    assert z.spatial_shape == shape
    back = SparseConvTranspose(dim, 4, 3, 2, 2)(y, x)
    (back.features.sum() + z.features.sum()).backward()
    assert math.prod(z.to_dense().shape) == 2 * 3 * math.prod(shape)


def test_nan_stays_where_a_dense_convolution_would_put_it(backend, cloud):
    x = cloud((6, 6), occupancy=1.0, batch=1)
    features = x.features.clone()
    features[14, 0] = torch.nan
    layer = SparseConv(2, 2, 3, 3, padding=1).double()
    y = layer(x.replace(features)).to_dense()
    expected = F.conv2d(x.replace(features).to_dense(), layer.dense_weight(), layer.bias, padding=1)
    assert torch.equal(y.isnan(), expected.isnan())
    assert int(y.isnan().sum()) == 27


@pytest.mark.parametrize("layer", [SparseConv, GenerativeConvTranspose])
def test_many_channels_cross_every_block_of_the_kernels(backend, cloud, layer):
    x = cloud((5, 5, 5), 37, occupancy=0.6, dtype=torch.float32)
    conv = layer(3, 37, 71, 3, padding=1)
    y = conv(x)
    double = layer(3, 37, 71, 3, padding=1).double()
    double.load_state_dict(conv.state_dict())
    expected = double(x.replace(x.features.double()))
    assert torch.allclose(y.features.double(), expected.features, rtol=0, atol=1e-5)


def test_a_stride_must_divide_a_periodic_axis(cloud):
    with pytest.raises(ConfigError, match="stride 2 does not divide the 5 sites of periodic axis 1"):
        SparseConv(2, 2, 2, 2, 2).double()(cloud((4, 5), periodic=(1,)))


def test_a_kernel_must_fit_the_lattice(cloud):
    with pytest.raises(ConfigError, match="does not fit"):
        SparseConv(2, 2, 2, 5).double()(cloud((4, 4)))
    with pytest.raises(ConfigError, match="leaves no lattice"):
        GenerativeConvTranspose(1, 2, 2, 1, padding=2).double()(cloud((4,)))
