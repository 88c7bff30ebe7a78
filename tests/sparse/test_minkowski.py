"""MinkowskiEngine beside this engine: its rules, its silent zero, and models that run in either."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from sparsegen.errors import BackendError, DataError
from sparsegen.sparse import (
    BatchNorm,
    GenerativeConvTranspose,
    GlobalPool,
    SparseConv,
    SparseConvTranspose,
    SparseTensor,
    SparsityInvariantConv,
    SubmanifoldConv,
    backends,
    from_minkowski,
    prune,
    to_minkowski,
    use_backend,
)
from sparsegen.sparse.backends import BACKENDS, choose
from sparsegen.sparse.minkowski import minkowski_engine

# The published source makes instances of its autograd functions.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
needs_minkowski = pytest.mark.skipif(
    "minkowski" not in BACKENDS, reason="not run: the minkowski back end is not installed"
)


@pytest.mark.skipif("minkowski" in BACKENDS, reason="MinkowskiEngine is installed")
def test_where_it_is_absent_errors_say_how_to_get_it():
    assert "minkowski" not in backends()
    for ask in (lambda: use_backend("minkowski"), lambda: to_minkowski(BatchNorm(2)), lambda: from_minkowski(None)):
        with pytest.raises(BackendError, match="tools/minkowski makes an environment that has MinkowskiEngine"):
            ask()


@needs_minkowski
def test_it_is_imported_when_it_is_first_used():
    code = "import sys, sparsegen.sparse as s; print('minkowski' in s.backends(), 'MinkowskiEngine' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


@needs_minkowski
def test_it_is_chosen_by_name_only():
    assert choose(torch.zeros(1, 1), 2, False).name != "minkowski"
    with use_backend("minkowski"):
        assert choose(torch.zeros(1, 1), 2, False).name == "minkowski"


@needs_minkowski
@pytest.mark.parametrize(
    ("x", "periodic", "text"),
    [
        (torch.zeros(1, 1, dtype=torch.bfloat16), False, "no torch.bfloat16"),
        (torch.zeros(1, 1, device="meta"), False, "no device meta"),
        (torch.zeros(1, 1), True, "no periodic axes; native, torch can"),
    ],
)
def test_what_it_lacks_is_refused(x, periodic, text):
    with use_backend("minkowski"), pytest.raises(BackendError, match=text):
        choose(x, 2, periodic)


@needs_minkowski
def test_sites_beyond_its_integers_are_refused():
    coords = torch.tensor([[0, 2**40, 0], [0, 2**40, 1]])
    with use_backend("minkowski"), pytest.raises(BackendError, match="32 bits; native and torch"):
        SubmanifoldConv(2, 1, 1, 3)(SparseTensor(torch.ones(2, 1), coords, (2**41, 4), 1))
    with pytest.raises(DataError, match="32 bits"):
        to_minkowski(SparseTensor(torch.ones(2, 1), coords, (2**41, 4), 1))


@needs_minkowski
def test_threads_of_the_process_stay_as_they_are(cloud):
    x, before = cloud((6, 6)), torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        with use_backend("minkowski"):
            SubmanifoldConv(2, 2, 2, 3).double()(SparseTensor(x.features, x.coords, (6, 6), 2))
        to_minkowski(x)
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.score, self.pool = SubmanifoldConv(3, 3, 8, 3), nn.Linear(8, 1), GlobalPool("sum")

    def forward(self, x):
        h = self.conv(x)
        return self.score(self.pool(h.replace(h.features.tanh())))[:, 0]


def penalty(scores, features, batch, events):
    (slope,) = torch.autograd.grad(scores.sum(), features, create_graph=True)
    norms = slope.new_zeros(events).index_add(0, batch, slope.square().sum(1)).sqrt()
    return (norms - 1).square().mean()


@needs_minkowski
def test_a_gradient_penalty_raises_here_where_there_it_is_silently_nothing(cloud):
    torch.manual_seed(0)
    x = cloud((6, 6, 6), 3, 4, occupancy=0.3)
    features, critic, batch = x.features.requires_grad_(), Critic().double(), x.sites.batch
    weights = [critic.conv.weight, critic.score.weight]

    here = penalty(critic(x), features, batch, 3)
    assert all(bool(g.any()) for g in torch.autograd.grad(here, weights))

    layer, rows = to_minkowski(critic.conv), to_minkowski(x)
    pooled = torch.zeros(4, 8, dtype=torch.float64).index_add(0, rows.C[:, 0].long(), layer(rows).F.tanh())
    scores = critic.score(pooled)[:, 0]
    assert torch.allclose(scores, critic(x), rtol=0, atol=1e-10)
    there = penalty(scores, features, batch, 3)
    assert float(there.detach()) == pytest.approx(float(here.detach()))
    assert not there.requires_grad
    alone = torch.autograd.grad(scores.mean(), layer.kernel, retain_graph=True)
    penalised = torch.autograd.grad(scores.mean() + 10 * there, layer.kernel)
    assert torch.equal(alone[0], penalised[0])

    with use_backend("minkowski"), pytest.raises(BackendError, match=r"no double backward .* use_backend\('native'\)"):
        penalty(critic(x), features, batch, 3)


@needs_minkowski
def test_tensors_go_there_and_back_with_their_gradient(cloud):
    x = cloud((5, 6, 3), 4, dtype=torch.float32)
    x = SparseTensor(x.features.requires_grad_(), x.coords, x.spatial_shape, 2, stride=(2, 1, 4))
    there = to_minkowski(x)
    assert list(there.tensor_stride) == [2, 1, 4]
    assert torch.equal(there.C.long(), x.coords * torch.tensor([1, 2, 1, 4]))
    back = from_minkowski(there, (5, 6, 3), 2)
    assert back.sites.same(x.sites)
    assert back.stride == x.stride
    assert torch.equal(back.features, x.features)
    back.features.square().sum().backward()
    assert torch.equal(x.features.grad, 2 * x.features)


@needs_minkowski
def test_tensors_that_do_not_fit_are_refused(cloud):
    x = cloud((5, 6), 4)
    with pytest.raises(DataError, match="no periodic axes"):
        to_minkowski(cloud((5, 6), periodic=(0,)))
    with pytest.raises(DataError, match="spatial_shape= and batch_size="):
        from_minkowski(to_minkowski(x))
    with pytest.raises(DataError, match=r"lies outside \(2, 4, 6\)"):
        from_minkowski(to_minkowski(x), (4, 6), 2)
    coords = torch.tensor([[0, 1, 1]], dtype=torch.int32)
    odd = minkowski_engine().SparseTensor(torch.ones(1, 1), coords, tensor_stride=2)
    with pytest.raises(DataError, match="no multiples of their stride"):
        from_minkowski(odd, (4, 6), 1)


@needs_minkowski
def test_a_convolution_of_stride_2_keeps_its_sites_under_the_floor_rule(cloud):
    x = cloud((9, 8), occupancy=0.15)
    floor, reach = (SparseConv(2, 2, 3, 3, 2, 1, support=rule).double() for rule in ("floor", "reach"))
    reach.load_state_dict(floor.state_dict())
    there = from_minkowski(to_minkowski(floor)(to_minkowski(x)), (5, 4), 2)
    assert there.sites.same(floor(x).sites)
    assert torch.allclose(there.features, floor(x).features, rtol=0, atol=1e-12)
    wide = reach(x)
    assert len(wide) > len(there)
    kept = wide.to_dense().movedim(1, -1)[tuple(there.coords.unbind(1))]
    assert torch.allclose(there.features, kept, rtol=0, atol=1e-12)


TWINS = {
    "submanifold": lambda dim: SubmanifoldConv(dim, 2, 5, 3),
    "submanifold, uneven": lambda dim: SubmanifoldConv(dim, 2, 5, (3, 1, 5)[:dim], dilation=2, bias=False),
    "one tap": lambda dim: SubmanifoldConv(dim, 2, 5, 1),
    "tiles": lambda dim: SparseConv(dim, 2, 5, 2, 2),
    "floor": lambda dim: SparseConv(dim, 2, 5, (3, 2, 1)[:dim], 2, (1, 0, 0)[:dim], support="floor"),
    "generative": lambda dim: GenerativeConvTranspose(dim, 2, 5, 2, 2),
    "generative, larger": lambda dim: GenerativeConvTranspose(dim, 2, 5, 4, 2),
    "transposed": lambda dim: SparseConvTranspose(dim, 2, 5, 2, 2),
    "transposed, larger": lambda dim: SparseConvTranspose(dim, 2, 5, 3, 2, 1),
}


@needs_minkowski
@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("name", TWINS)
def test_a_layer_computes_the_same_in_both(cloud, name, dim):
    shape = (8, 6, 4)[:dim]
    x, layer = cloud(shape, occupancy=0.3), TWINS[name](dim).double()
    x = SparseTensor(x.features, x.coords, shape, 2, stride=2)
    there = to_minkowski(x)
    if isinstance(layer, SparseConvTranspose):
        target = cloud(tuple(2 * n for n in shape), 1, seed=1)
        onto = to_minkowski(target, there.coordinate_manager)
        expected, found = layer(x, target), to_minkowski(layer)(there, onto)
    else:
        expected, found = layer(x), to_minkowski(layer)(there)
    found = from_minkowski(found, expected.spatial_shape, 2)
    assert found.sites.same(expected.sites)
    assert found.stride == expected.stride
    assert torch.allclose(found.features, expected.features, rtol=0, atol=1e-12)
    again = from_minkowski(to_minkowski(layer))
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), layer.parameters(), strict=True))
    assert (type(again), again.window.kernel) == (type(layer), layer.window.kernel)


@needs_minkowski
@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (SubmanifoldConv(2, 4, 4, 3, groups=2), "its groups"),
        (SubmanifoldConv(2, 4, 4, 2), "even kernel"),
        (SparseConv(2, 4, 4, 3, 2, 1), "'reach'"),
        (SparseConv(2, 4, 4, 3, 2, 0, support="floor"), "padding"),
        (SparseConv(2, 4, 4, 4, 2, 0, support="floor"), "even kernel"),
        (GenerativeConvTranspose(2, 4, 4, 3, 2, 1), "odd kernel .* beyond the lattice"),
        (SparsityInvariantConv(2, 4, 4, 3), "SparsityInvariantConv has no counterpart"),
        (nn.Linear(2, 2), "Linear has no counterpart"),
    ],
)
def test_layers_without_a_counterpart_there_are_refused(layer, text):
    with pytest.raises(DataError, match=text):
        to_minkowski(layer)


@needs_minkowski
def test_layers_without_a_counterpart_here_are_refused():
    there = minkowski_engine()
    cross = there.KernelGenerator(3, region_type=there.RegionType.HYPER_CROSS, dimension=2)
    for layer, text in (
        (there.MinkowskiConvolution(2, 2, kernel_size=3, expand_coordinates=True, dimension=2), "expand_coordinates"),
        (there.MinkowskiConvolution(2, 2, kernel_size=2, dimension=2), "even kernel"),
        (there.MinkowskiConvolution(2, 2, kernel_generator=cross, dimension=2), "region"),
        (there.MinkowskiChannelwiseConvolution(2, kernel_size=3, dimension=2), "MinkowskiChannelwiseConvolution"),
    ):
        with pytest.raises(DataError, match=text):
            from_minkowski(layer)


class Net(nn.Module):
    """Submanifold, down, generative up, pruned below its mean score, and submanifold again.

    A fixed threshold may prune everything, which crashes MinkowskiEngine.
    """

    def __init__(self):
        super().__init__()
        self.first, self.norm = SubmanifoldConv(3, 2, 8, 3), BatchNorm(8)
        self.down, self.up = SparseConv(3, 8, 16, 2, 2), GenerativeConvTranspose(3, 16, 8, 2, 2)
        self.score, self.last = SubmanifoldConv(3, 8, 1, 1), SubmanifoldConv(3, 8, 2, 3)

    def forward(self, x):
        h = self.norm(self.first(x))
        h = self.up(self.down(h.replace(h.features.relu())))
        score = self.score(h).features
        h = prune(h.replace(h.features.relu() * score.sigmoid()), score[:, 0] > score.mean())
        return self.last(h)


class Twin(nn.Module):
    def __init__(self, net):
        super().__init__()
        there = minkowski_engine()
        for name, layer in net.named_children():
            setattr(self, name, to_minkowski(layer))
        self.relu, self.pruning = there.MinkowskiReLU(), there.MinkowskiPruning()

    def forward(self, x):
        there = minkowski_engine()
        h = self.up(self.down(self.relu(self.norm(self.first(x)))))
        score = self.score(h).F
        features = h.F.relu() * score.sigmoid()
        h = there.SparseTensor(
            features, coordinate_map_key=h.coordinate_map_key, coordinate_manager=h.coordinate_manager
        )
        return self.last(self.pruning(h, score[:, 0] > score.mean()))


@needs_minkowski
@pytest.mark.parametrize("where", ["here", "there"])
def test_a_model_trained_in_one_runs_in_the_other(cloud, where):
    torch.manual_seed(0)
    x = cloud((8, 8, 8), 2, 3, 0.1, dtype=torch.float32)
    net = Net()
    twin = Twin(net)
    trained = net if where == "here" else twin
    optimiser = torch.optim.Adam(trained.parameters(), 1e-2)
    for _ in range(10):
        y = net(x).features if where == "here" else twin(to_minkowski(x)).F
        loss = (y - 1).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    trained.eval()
    if where == "here":
        other = Twin(net).eval()
    else:
        other = Net().eval()
        for name, _ in list(other.named_children()):
            setattr(other, name, from_minkowski(getattr(twin, name)))
        net, twin = other, twin
    there = from_minkowski(other(to_minkowski(x)) if where == "here" else twin(to_minkowski(x)), (8, 8, 8), 3)
    here = net(x)
    assert 0 < len(here) < 8 * len(SparseConv(3, 2, 1, 2, 2)(x))
    assert there.sites.same(here.sites)
    assert torch.allclose(there.features, here.features, rtol=0, atol=1e-5)
