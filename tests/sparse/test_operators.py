"""The products as torch operators: seen by ``torch.compile`` and the profiler, with all their derivatives."""

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from sparsegen.sparse import (
    GenerativeConvTranspose,
    GlobalPool,
    MaxPool,
    SparseConv,
    SparseConvTranspose,
    SparseTensor,
    SubmanifoldConv,
    use_backend,
)
from sparsegen.sparse.backends import BACKENDS
from sparsegen.sparse.maps import submanifold

OPERATED = [name for name in ("native", "torch") if name in BACKENDS]
needs_native = pytest.mark.skipif("native" not in BACKENDS, reason="the native extension is not built")


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.up = SubmanifoldConv(2, 2, 4, 3), GenerativeConvTranspose(2, 4, 3, 2, 2)
        self.down, self.wide = SparseConv(2, 3, 4, 2, 2), SparseConv(2, 4, 4, 2, 2, groups=2)
        self.back, self.local = SparseConvTranspose(2, 4, 4, 2, 2), MaxPool(2, 2)
        self.pool, self.last = GlobalPool("mean"), nn.Linear(4, 1)

    def forward(self, x):
        for layer in (self.first, self.up, self.down):
            x = layer(x)
            x = x.replace(x.features.tanh())
        return self.last(self.pool(self.local(self.back(self.wide(x), x))))[:, 0]


def step(network, x):
    """Scores, and the gradients of features and weights."""
    features = x.features.detach().clone().requires_grad_()
    fresh = SparseTensor(features, x.coords, x.spatial_shape, x.batch_size, periodic=x.periodic)
    score = network(fresh)
    return [score, *torch.autograd.grad(score.square().sum(), [features, *network.parameters()])]


def assert_compiles(network, inputs, **options):
    torch._dynamo.reset()
    compiled = torch.compile(network, backend="aot_eager", **options)
    for x in inputs:
        for a, b in zip(step(compiled, x), step(network, x), strict=True):
            assert torch.allclose(a, b, atol=1e-12)


@needs_native
def test_a_critic_compiles_to_one_graph_for_batches_of_any_size(cloud):
    inputs = [cloud((8, 8), occupancy=0.4, seed=seed, periodic=(0,)) for seed in range(2)]
    with use_backend("native"):
        assert_compiles(Critic().double(), inputs, fullgraph=True, dynamic=True)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.pool = SubmanifoldConv(2, 2, 1, 3), GlobalPool("sum")

    def forward(self, x):
        return self.pool(self.layer(x))


# The tracer looks at the gradient of what is no leaf.
@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_maps_that_depend_on_their_data_break_the_graph_and_change_nothing(cloud):
    with use_backend("torch"):
        assert_compiles(Small().double(), [cloud((6, 6))])


def arguments(cloud, name, wraps):
    """Of both operators, in double precision and with gradients."""
    x = cloud((5, 4), 2, occupancy=0.5, periodic=(0,) if wraps else ())
    kernel_map = submanifold(x.sites, (3, 3), (1, 1))
    weight = torch.randn(9, 2, 3, dtype=torch.float64)
    pairs = (kernel_map.inputs, kernel_map.outputs, kernel_map.starts)
    y, bias = torch.randn(len(x), 3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    leaves = [t.requires_grad_() for t in (x.features, weight, bias, y)]
    return (
        (*leaves[:3], *pairs, len(x), 4, wraps, name),
        (leaves[0], leaves[3], *pairs, 4, wraps, name),
    )


@needs_native
@pytest.mark.parametrize("wraps", [False, True], ids=["open", "periodic"])
def test_operators_pass_torchs_own_check(cloud, wraps):
    convolve, correlate = arguments(cloud, "native", wraps)
    torch.library.opcheck(torch.ops.sparsegen.convolve, convolve)
    torch.library.opcheck(torch.ops.sparsegen.correlate, correlate)


@needs_native
def test_map_operators_pass_torchs_own_check(cloud):
    sites = cloud((5, 4)).sites
    bitmap = torch.ops.sparsegen.mark_sites(sites.keys, sites.volume)
    geometry = [3, 1, 1, 1, 5, 5, 0, 3, 1, 1, 1, 4, 4, 0]
    torch.library.opcheck(torch.ops.sparsegen.mark_sites, (sites.keys, sites.volume))
    for mirrored in (True, False):
        torch.library.opcheck(torch.ops.sparsegen.search_sites, (sites.coords, *bitmap, geometry, mirrored))
    pairs = torch.ops.sparsegen.search_sites(sites.coords, *bitmap, geometry, True)
    torch.library.opcheck(torch.ops.sparsegen.order_pairs, (*pairs, len(sites)))
    for down in (True, False):
        torch.library.opcheck(torch.ops.sparsegen.reach_sites, (sites.coords, geometry, down, 2))


@pytest.mark.parametrize("name", OPERATED)
@pytest.mark.parametrize("wraps", [False, True], ids=["open", "periodic"])
def test_operators_differentiate_twice(cloud, name, wraps):
    convolve, correlate = arguments(cloud, name, wraps)
    for function, leaves in (
        (lambda *t: torch.ops.sparsegen.convolve(*t, *convolve[3:]), convolve[:3]),
        (lambda *t: torch.ops.sparsegen.correlate(*t, *correlate[2:]), correlate[:2]),
    ):
        assert gradcheck(function, leaves, fast_mode=True)
        assert gradgradcheck(function, leaves, fast_mode=True)


@pytest.mark.parametrize("name", OPERATED)
def test_the_profiler_sees_the_operators(cloud, name):
    with use_backend(name), torch.profiler.profile() as profile:
        step(Critic().double(), cloud((8, 8)))
    names = {event.key for event in profile.key_averages()}
    assert {"sparsegen::convolve", "sparsegen::correlate"} <= names
    assert ("sparsegen::search_sites" in names) == (name == "native")
