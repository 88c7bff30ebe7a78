"""Spectral normalisation: the norms it divides by, its gradient, and the Lipschitz bound it gives a critic."""

import pytest
import torch
from torch import nn

from sparsegen.errors import ConfigError
from sparsegen.sparse import (
    GenerativeConvTranspose,
    GlobalPool,
    MaxPool,
    SparseConv,
    SparseTensor,
    SubmanifoldConv,
    operator_norm,
    spectral_norm,
    spectral_normalise,
)


def matrix_of(layer, x):
    """The layer as a matrix on the features of ``x``."""

    def apply(flat):
        return layer(x.replace(flat.view_as(x.features))).features.flatten()

    return torch.autograd.functional.jacobian(apply, torch.zeros(x.features.numel(), dtype=x.features.dtype))


LAYERS = [
    lambda: nn.Linear(5, 3),
    lambda: nn.Conv2d(3, 4, 3),
    lambda: nn.ConvTranspose2d(3, 4, 3),
    lambda: SubmanifoldConv(2, 3, 4, 3),
    lambda: SparseConv(3, 3, 4, 2, 2),
]


@pytest.mark.parametrize("make", LAYERS)
def test_power_iteration_finds_the_largest_singular_value(make):
    torch.manual_seed(0)
    layer = make()
    weight = layer.weight.detach()
    if isinstance(layer, (SubmanifoldConv, SparseConv)):
        matrix = weight.permute(2, 1, 0).flatten(1)
    else:
        matrix = weight.flatten(1)
    assert operator_norm(layer, "reshape") == pytest.approx(float(torch.linalg.matrix_norm(matrix, 2)), rel=1e-4)


def test_a_linear_layer_and_disjoint_windows_have_their_matrix_norm_as_operator_norm(cloud):
    torch.manual_seed(0)
    layer = SparseConv(2, 3, 4, 2, 2, bias=False)
    x = cloud((4, 4), 3, batch=1, occupancy=1.0, dtype=torch.float32)
    exact = float(torch.linalg.matrix_norm(matrix_of(layer, x), 2))
    assert operator_norm(layer) == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize("periodic", [(), (0, 1)], ids=["open", "periodic"])
@pytest.mark.parametrize("occupancy", [0.2, 1.0])
def test_the_operator_norm_bounds_the_layer_on_every_support(cloud, occupancy, periodic):
    torch.manual_seed(0)
    layer = SubmanifoldConv(2, 2, 3, 3, bias=False)
    x = cloud((8, 8), 2, batch=1, occupancy=occupancy, dtype=torch.float32, periodic=periodic)
    exact = float(torch.linalg.matrix_norm(matrix_of(layer, x), 2))
    bound = operator_norm(layer)
    assert exact <= bound
    # Eight sites of a periodic axis see every second of the sampled frequencies.
    if periodic and occupancy == 1:
        assert bound < 1.1 * exact


def test_a_symmetric_sign_pattern_exceeds_the_reshaped_norm(cloud):
    layer = SubmanifoldConv(2, 1, 1, 3, bias=False)
    nn.init.ones_(layer.weight)
    x = cloud((12, 12), 1, batch=1, occupancy=1.0, dtype=torch.float32, periodic=(0, 1))
    exact = float(torch.linalg.matrix_norm(matrix_of(layer, x), 2))
    assert exact == pytest.approx(9.0, rel=1e-5)
    assert operator_norm(layer, "reshape") == pytest.approx(3.0, rel=1e-5)
    assert 9.0 <= operator_norm(layer) < 9.4


def test_long_kernels_are_bounded_too(cloud):
    torch.manual_seed(0)
    layer = SubmanifoldConv(1, 1, 1, 19, bias=False)
    x = cloud((400,), 1, batch=1, occupancy=1.0, dtype=torch.float32, periodic=(0,))
    exact = float(torch.linalg.matrix_norm(matrix_of(layer, x), 2))
    assert exact <= operator_norm(layer) < 1.1 * exact


STRIDED = [
    lambda: SparseConv(2, 2, 3, 3, 2, 1, bias=False),
    lambda: SparseConv(2, 2, 3, 2, 2, dilation=2, bias=False),
    lambda: SparseConv(2, 2, 3, (3, 2), (2, 3), (1, 0), dilation=(3, 2), bias=False),
    lambda: SparseConv(2, 4, 6, 3, 2, 1, groups=2, bias=False),
    lambda: SubmanifoldConv(2, 4, 2, 3, dilation=2, groups=2, bias=False),
    lambda: GenerativeConvTranspose(2, 2, 3, 3, 2, 1, bias=False),
    lambda: GenerativeConvTranspose(2, 4, 6, 2, 2, groups=2, bias=False),
]


@pytest.mark.parametrize("make", STRIDED)
def test_strides_dilations_and_groups_are_bounded_tightly(cloud, make):
    torch.manual_seed(0)
    layer = make()
    x = cloud((12, 12), layer.in_channels, batch=1, occupancy=1.0, dtype=torch.float32, periodic=(0, 1))
    exact = float(torch.linalg.matrix_norm(matrix_of(layer, x), 2))
    assert exact <= operator_norm(layer) * (1 + 1e-6)
    assert operator_norm(layer) < 1.1 * exact
    assert operator_norm(spectral_norm(layer, "operator")) == pytest.approx(1.0, abs=1e-2)


@pytest.mark.parametrize("groups", [1, 2])
def test_dense_and_sparse_layers_of_the_same_weight_have_the_same_norm(groups):
    torch.manual_seed(0)
    for sparse, dense in (
        (SparseConv(2, 4, 6, 3, 2, 1, groups=groups), nn.Conv2d(4, 6, 3, 2, 1, groups=groups)),
        (GenerativeConvTranspose(2, 4, 6, 3, 2, 1, groups=groups), nn.ConvTranspose2d(4, 6, 3, 2, 1, groups=groups)),
    ):
        dense.weight.data = sparse.dense_weight().detach()
        assert operator_norm(sparse) == pytest.approx(operator_norm(dense), rel=1e-4)


def test_the_gradient_is_that_of_the_paper():
    torch.manual_seed(0)
    layer = spectral_norm(nn.Linear(6, 4, bias=False).double(), "reshape").eval()
    for _ in range(200):
        layer.train()
        _ = layer.weight
    layer.eval()
    weight = layer.parametrizations.weight.original
    left, sigma, right = torch.linalg.svd(weight.detach())
    g = torch.randn(4, 6, dtype=torch.float64)
    (found,) = torch.autograd.grad((layer.weight * g).sum(), weight)
    # d (W / s) / dW applied to g: (g - <g, W / s> u v^T) / s.
    normalised = weight.detach() / sigma[0]
    expected = (g - (g * normalised).sum() * torch.outer(left[:, 0], right[0])) / sigma[0]
    assert torch.allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("norm", ["reshape", "operator"])
def test_a_normalised_layer_has_norm_one_and_follows_its_weights(norm):
    torch.manual_seed(0)
    layer = spectral_norm(SubmanifoldConv(2, 3, 4, 3), norm)
    assert operator_norm_of_current(layer, norm) == pytest.approx(1.0, abs=2e-3)
    with torch.no_grad():
        layer.parametrizations.weight.original.mul_(5).add_(0.1 * torch.randn(9, 3, 4))
    for _ in range(50):
        _ = layer.weight
    assert operator_norm_of_current(layer, norm) == pytest.approx(1.0, abs=2e-3)


def operator_norm_of_current(layer, norm):
    bare = SubmanifoldConv(2, 3, 4, 3)
    bare.weight.data.copy_(layer.weight.detach())
    return operator_norm(bare, norm)


class Critic(nn.Module):
    def __init__(self, pool):
        super().__init__()
        self.first, self.second = SubmanifoldConv(2, 1, 4, 3), SubmanifoldConv(2, 4, 4, 3)
        self.down, self.third = SparseConv(2, 4, 4, 2, 2), SubmanifoldConv(2, 4, 4, 3)
        self.local, self.pool, self.last = MaxPool(2, 2), GlobalPool(pool), nn.Linear(4, 1)

    def forward(self, x):
        for layer in (self.first, self.second, self.down, self.local, self.third):
            x = layer(x)
            x = x.replace(torch.nn.functional.leaky_relu(x.features, 0.2))
        return self.last(self.pool(x))[:, 0]


def quotient(critic, x):
    """The largest slope found: gradient ascent on the direction, started at random features."""
    features = x.features.clone().requires_grad_()
    best = 0.0
    for _ in range(20):
        (slope,) = torch.autograd.grad(critic(x.replace(features)).sum(), features)
        best = max(best, float(slope.norm()))
        features = (features + slope / slope.norm().clamp(min=1e-12)).detach().requires_grad_()
    return best


def steepest(cloud, norm, pool, occupancy, equal):
    """The largest slope of a normalised critic on three supports, with random weights or with equal ones."""
    torch.manual_seed(0)
    critic = Critic(pool)
    for layer in critic.modules():
        if equal and hasattr(layer, "weight"):
            # All taps of all channels work together: the most that a reshaped norm misses.
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
    spectral_normalise(critic, norm).eval()
    found = []
    for seed in range(3):
        x = cloud((32, 32), 1, batch=1, occupancy=occupancy, dtype=torch.float32, seed=seed + 1)
        found.append(quotient(critic, x.replace(x.features.abs()) if equal else x))
    return max(found)


@pytest.mark.parametrize("equal", [False, True], ids=["random", "equal"])
@pytest.mark.parametrize("pool", ["max", "mean"])
@pytest.mark.parametrize("occupancy", [0.01, 0.05, 0.2, 1.0])
def test_a_critic_normalised_by_the_operator_is_lipschitz_at_every_occupancy(cloud, occupancy, pool, equal):
    assert 0 < steepest(cloud, "operator", pool, occupancy, equal) <= 1


@pytest.mark.parametrize(("pool", "occupancy", "least"), [("max", 0.2, 1.2), ("max", 1.0, 5.0), ("mean", 1.0, 1.7)])
def test_a_critic_normalised_by_the_reshaped_weight_is_not(cloud, pool, occupancy, least):
    assert steepest(cloud, "reshape", pool, occupancy, True) > least


def test_the_reshaped_norm_bounds_no_stack_of_layers():
    layers = [SubmanifoldConv(2, 1, 1, 3, bias=False) for _ in range(3)]
    for layer in layers:
        nn.init.ones_(layer.weight)
        spectral_norm(layer, "reshape").eval()
    coords = torch.ones(1, 12, 12).nonzero()
    x = SparseTensor(torch.ones(144, 1, requires_grad=True), coords, (12, 12), 1)
    y = nn.Sequential(*layers)(x)
    (slope,) = torch.autograd.grad(y.features.norm(), x.features)
    assert 15 < float(slope.norm()) <= 27


def test_normalised_layers_save_and_load():
    torch.manual_seed(0)
    a, b = (spectral_normalise(Critic("max"), "operator") for _ in range(2))
    b.load_state_dict(a.state_dict())
    x = SparseTensor(torch.ones(3, 1), torch.tensor([[0, 1, 1], [0, 1, 2], [0, 5, 5]]), (8, 8), 1)
    assert torch.equal(a.eval()(x), b.eval()(x))


def test_unknown_norms_and_layers_are_refused():
    with pytest.raises(ConfigError, match="spectral norm"):
        spectral_norm(nn.Linear(2, 2), "frobenius")
    with pytest.raises(ConfigError, match="ReLU is not a linear or convolution layer"):
        spectral_norm(nn.ReLU())
    with pytest.raises(ConfigError, match="repeats inputs"):
        spectral_norm(nn.Conv2d(2, 2, 3, padding=1, padding_mode="replicate"), "operator")


@pytest.mark.parametrize("norm", ["reshape", "operator"])
def test_a_layer_may_be_used_twice_before_its_backward(norm):
    torch.manual_seed(0)
    for layer in (spectral_norm(SubmanifoldConv(2, 3, 3, 3), norm), spectral_norm(nn.Linear(3, 3), norm)):
        (layer.weight.square().sum() + layer.weight.sum()).backward()
        assert bool(layer.parametrizations.weight.original.grad.isfinite().all())
