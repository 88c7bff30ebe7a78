"""First and second derivatives of every layer, and of a gradient penalty, on every back end."""

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from sparsegen.sparse import (
    BatchNorm,
    GenerativeConvTranspose,
    GlobalPool,
    InstanceNorm,
    LayerNorm,
    MaxPool,
    MeanPool,
    SparseConv,
    SparseConvTranspose,
    SparseTensor,
    SparsityInvariantConv,
    SubmanifoldConv,
    SumPool,
    Unpool,
    concat,
    prune,
    union_add,
)
from sparsegen.sparse.backends import BACKENDS, choose

LAYERS = {
    "submanifold": lambda: SubmanifoldConv(2, 2, 3, 3),
    "submanifold, dilated, even": lambda: SubmanifoldConv(2, 2, 2, (2, 3), dilation=2),
    "grouped": lambda: SubmanifoldConv(2, 2, 4, 3, groups=2),
    "strided": lambda: SparseConv(2, 2, 3, 3, 2, 1),
    "invariant": lambda: SparsityInvariantConv(2, 2, 3, 3),
    "generative": lambda: GenerativeConvTranspose(2, 2, 2, 2, 2),
    "sum": lambda: SumPool(2, 2),
    "mean": lambda: MeanPool(2, 3, 2, 1),
    "max": lambda: MaxPool(2, 2),
    "batch norm": lambda: BatchNorm(2),
    "layer norm": lambda: LayerNorm(2),
    "instance norm": lambda: InstanceNorm(2),
    "global max": lambda: GlobalPool("max"),
    "global mean": lambda: GlobalPool("mean"),
    "global sum": lambda: GlobalPool("sum"),
}


def check(function, *inputs):
    inputs = tuple(x.detach().requires_grad_() for x in inputs)
    assert gradcheck(function, inputs, fast_mode=True)
    if choose(inputs[0], 2, False).capabilities.double_backward:
        assert gradgradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize("periodic", [(), (0,)], ids=["open", "periodic"])
@pytest.mark.parametrize("name", LAYERS)
def test_derivatives(backend, cloud, name, periodic):
    x = cloud((4, 5), occupancy=0.5, periodic=periodic)
    layer = LAYERS[name]().double()
    names = [n for n, _ in layer.named_parameters()]

    def function(features, *parameters):
        y = torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), x.replace(features))
        return y.features if isinstance(y, SparseTensor) else y

    check(function, x.features, *layer.parameters())


def test_derivatives_onto_given_sites(backend, cloud):
    x, target = cloud((3, 3), occupancy=0.6), cloud((6, 6), occupancy=0.4, seed=1)
    layer = SparseConvTranspose(2, 2, 3, 2, 2).double()

    def function(features, weight, bias):
        given = {"weight": weight, "bias": bias}
        return torch.func.functional_call(layer, given, (x.replace(features), target)).features

    check(function, x.features, layer.weight, layer.bias)


def test_derivatives_of_a_whole_network(backend, cloud):
    x = cloud((6, 6), occupancy=0.4)
    first, down = SubmanifoldConv(2, 2, 3, 3).double(), SparseConv(2, 3, 2, 2, 2).double()
    pool, unpool, up = MaxPool(2, 1, return_switches=True), Unpool(), SparseConvTranspose(2, 2, 3, 2, 2).double()

    def function(features):
        h = first(x.replace(features))
        low = down(h.replace(h.features.tanh()))
        kept, switches = pool(low)
        joined = concat(up(unpool(kept, switches), h), h)
        half = prune(joined, torch.arange(len(joined)) % 2 == 0)
        return union_add(joined, half).features.tanh()

    check(function, x.features)


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = SubmanifoldConv(3, 2, 6, 3)
        self.second = SparseConv(3, 6, 6, 3, 2, 1)
        self.last = nn.Linear(6, 1)
        self.pool = GlobalPool("mean")

    def forward(self, x):
        h = self.first(x)
        h = self.second(h.replace(h.features.tanh()))
        return self.last(self.pool(h.replace(h.features.tanh())))[:, 0]


def test_a_gradient_penalty_reaches_the_weights(backend, cloud, needs):
    needs("double_backward")
    torch.manual_seed(0)
    x = cloud((5, 5, 5), batch=3, occupancy=0.3)
    critic = Critic().double()
    features = x.features.requires_grad_()
    (slope,) = torch.autograd.grad(critic(x.replace(features)).sum(), features, create_graph=True)
    norms = slope.new_zeros(3).index_add(0, x.sites.batch, slope.square().sum(1)).add(1e-12).sqrt()
    penalty = (norms[:2] - 1).square().mean()
    gradients = torch.autograd.grad(penalty, [critic.first.weight, critic.second.weight])
    step = 1e-5
    for layer, gradient in zip([critic.first, critic.second], gradients, strict=True):
        assert gradient.norm() > 1e-3
        direction = torch.randn_like(layer.weight)
        values = []
        for sign in (1, -1):
            layer.weight.data += sign * step * direction
            (slope,) = torch.autograd.grad(critic(x.replace(features)).sum(), features)
            norms = slope.new_zeros(3).index_add(0, x.sites.batch, slope.square().sum(1)).add(1e-12).sqrt()
            values.append(float((norms[:2] - 1).square().mean()))
            layer.weight.data -= sign * step * direction
        measured = (values[0] - values[1]) / (2 * step)
        assert measured == pytest.approx(float((gradient * direction).sum()), rel=1e-6)


def test_only_the_gradients_that_are_asked_for_are_computed(backend, cloud, monkeypatch):
    x = cloud((5, 5), occupancy=0.5)
    layer = SubmanifoldConv(2, 2, 3, 3).double()
    inner = SubmanifoldConv(2, 2, 2, 3).double()
    features = x.features.requires_grad_()
    y = layer(inner(x.replace(features))).features.tanh()
    kinds = {"features": [features], "weight": [layer.weight], "both": [features, layer.weight, inner.weight]}
    done = dict.fromkeys(kinds, 0)
    used = type(BACKENDS[backend])
    correlate = used.correlate
    for kind, inputs in kinds.items():

        def counted(self, *arguments, kind=kind):
            done[kind] += 1
            return correlate(self, *arguments)

        monkeypatch.setattr(used, "correlate", counted)
        found = torch.autograd.grad(y.sum(), inputs, retain_graph=True)
        monkeypatch.setattr(used, "correlate", correlate)
        whole = torch.autograd.grad(y.sum(), [features, layer.weight, inner.weight], retain_graph=True)
        expected = {"features": whole[:1], "weight": whole[1:2], "both": whole}[kind]
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert done == {"features": 0, "weight": 1, "both": 2}


def test_results_are_bitwise_equal_from_run_to_run(backend, cloud, needs):
    needs("deterministic")
    x = cloud((20, 20), 16, occupancy=0.5, dtype=torch.float32)
    layer = SubmanifoldConv(2, 16, 24, 3)
    runs = []
    for _ in range(2):
        features = x.features.clone().requires_grad_()
        fresh = SparseTensor(features, x.coords, x.spatial_shape, x.batch_size)
        y = layer(fresh)
        runs.append([y.features, *torch.autograd.grad(y.features.square().sum(), [features, layer.weight])])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_autocast_keeps_the_weights_type(backend, cloud):
    x = cloud((6, 6), 4, occupancy=0.5, dtype=torch.float32)
    layer = SubmanifoldConv(2, 4, 4, 3)
    expected = layer(x).features
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x).features, expected)
        half = layer(x.replace(x.features.bfloat16())).features
    assert half.dtype == torch.float32
    assert torch.allclose(half, expected, atol=0.05)
