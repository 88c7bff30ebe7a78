"""Interpolates between events, and the gradient of a critic there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparsegen import nets
from sparsegen.events import Column, Events
from sparsegen.grid import Grid
from sparsegen.losses import gradient_norm, interpolate
from sparsegen.nets import Critic

GRID = Grid.regular((8, 16), (0.0, 0.0), (8.0, 16.0), ("x", "y"), periodic=("y",))
COLUMNS = (Column("energy", "GeV"), Column("time", "ns", additive=False))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cells(counts: list[int], seed: int) -> Events:
    generator = seeded(seed)
    keys = [torch.randperm(GRID.cells, generator=generator)[:n].sort().values for n in counts]
    return Events(
        GRID.unravel(torch.cat(keys)),
        torch.rand(sum(counts), 2, generator=generator, dtype=torch.float64) + 0.1,
        torch.tensor([0, *counts]).cumsum(0),
        axes=GRID.names,
        columns=COLUMNS,
        grid=GRID,
    )


def points(counts: list[int], seed: int) -> Events:
    return cells(counts, seed).devoxelize("uniform", seeded(seed)).to(torch.float64)


def critic(family: str, columns: tuple[Column, ...] = COLUMNS) -> Critic:
    torch.manual_seed(1)
    net = nets.build(family, "critic", grid=GRID, columns=columns, width=6).double()
    assert isinstance(net, Critic)
    return net


def keys(events: Events, event: int) -> set[int]:
    return set(GRID.ravel(events[event].coords).tolist())


def dense_u(net: Critic, events: Events) -> Tensor:
    return events.with_features(net.scaler.compand(events.features), [Column(c.name) for c in COLUMNS]).to_dense()


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Fixes how far every event is on its way from the generated to the real one."""

    def fix(t: float) -> None:
        monkeypatch.setattr(torch, "rand", lambda *size, device=None, generator=None: torch.full(size, t))

    return fix


def test_cells_are_interpolated_on_the_union_of_sites() -> None:
    net = critic("sparse")
    real, fake = cells([5, 0, 9], 1), cells([7, 4, 0], 2)
    between = interpolate(net, real, fake, seeded())
    for event in range(3):
        assert keys(between, event) == keys(real, event) | keys(fake, event)
    t = torch.rand(3, generator=seeded()).double().view(3, 1, 1, 1)
    expected = t * dense_u(net, real) + (1 - t) * dense_u(net, fake)
    torch.testing.assert_close(dense_u(net, between), expected)


def test_a_dense_critic_is_given_every_cell() -> None:
    between = interpolate(critic("dense"), cells([5, 0], 1), cells([7, 4], 2), seeded())
    assert between.counts.tolist() == [GRID.cells, GRID.cells]


@pytest.mark.parametrize("family", ["sparse", "dense", "points"])
@pytest.mark.parametrize("make", [cells, points], ids=["cells", "points"])
def test_the_ends_are_the_events_themselves(family: str, make: Any, at: Any) -> None:
    net = critic(family)
    real, fake = make([5, 3], 1), make([6, 3], 2)
    for t, end in ((1.0, real), (0.0, fake)):
        at(t)
        between = interpolate(net, real, fake, seeded())
        torch.testing.assert_close(net(between.select_hits(between.features[:, 0] > 1e-9)), net(end))


def test_cells_that_come_twice_are_merged_before_they_fade(at: Any) -> None:
    net, once = critic("sparse"), cells([4], 1)
    twice = Events.cat([once]).replace(
        coords=once.coords.repeat(2, 1), features=once.features.repeat(2, 1), offsets=torch.tensor([0, 8])
    )
    fake = cells([3], 2)
    at(1.0)
    between = interpolate(net, twice, fake, seeded())
    torch.testing.assert_close(between.total("energy"), twice.total("energy"))


def test_points_are_paired_by_assignment_and_those_left_over_fade(at: Any) -> None:
    net = critic("points")
    real, fake = points([5], 1), points([2], 2)
    # The partners of the generated points are near them: any other matching costs more.
    near = fake.replace(coords=real.coords[[3, 1]] + 0.01, features=real.features[[3, 1]])
    at(0.25)
    between = interpolate(net, real, near, seeded())
    assert len(between.coords) == 5
    order = torch.cdist(real.coords, between.coords).argmin(1)
    moved, u, v = between.coords[order], net.scaler.compand(between.features[order]), net.scaler.compand(real.features)
    torch.testing.assert_close(moved[[3, 1]], real.coords[[3, 1]] + 0.75 * 0.01, rtol=0, atol=1e-9)
    torch.testing.assert_close(u[[3, 1]], v[[3, 1]])
    torch.testing.assert_close(moved[[0, 2, 4]], real.coords[[0, 2, 4]])
    torch.testing.assert_close(u[[0, 2, 4]], 0.25 * v[[0, 2, 4]])


def test_periodic_axes_take_the_short_way(at: Any) -> None:
    net = critic("points")
    one = Events(
        torch.tensor([[4.0, 15.8], [4.0, 6.0]], dtype=torch.float64),
        torch.ones(2, 2, dtype=torch.float64),
        torch.tensor([0, 2]),
        axes=GRID.names,
        columns=COLUMNS,
        grid=GRID,
    )
    other = one.replace(coords=torch.tensor([[4.0, 9.0], [4.0, 0.4]], dtype=torch.float64))
    at(0.5)
    y = interpolate(net, one, other, seeded()).coords[:, 1] % 16.0
    # 15.8 meets 0.4 across the seam, 6 meets 9; the long way would pair 15.8 with 9.
    torch.testing.assert_close(y.sort().values, torch.tensor([0.1, 7.5], dtype=torch.float64))


@pytest.mark.parametrize("family", ["sparse", "dense", "points"])
@pytest.mark.parametrize("real", [cells, points], ids=["real cells", "real points"])
@pytest.mark.parametrize("fake", [cells, points], ids=["fake cells", "fake points"])
def test_a_penalty_reaches_the_parameters_of_every_critic(family: str, real: Any, fake: Any) -> None:
    net = critic(family)
    between, leaves = net.leaves(interpolate(net, real([5, 0, 3], 1), fake([4, 6, 1], 2), seeded()))
    norm = gradient_norm(net, between, leaves)
    assert norm.shape == (3,) and bool((norm > 0).all())
    # A bias moves no gradient of a piecewise linear function; every weight does.
    weights = {name: p for name, p in net.named_parameters() if p.ndim > 1}
    second = torch.autograd.grad(norm.sqrt().sum(), list(weights.values()), materialize_grads=True)
    assert not [name for name, g in zip(weights, second, strict=True) if not bool(g.abs().sum() > 0)]


class Cubic(nn.Module):
    """A critic of which everything is known: the sum of cubes over hits."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def forward(self, events: Events) -> Tensor:
        return self.weight * events.sum_hits(events.features.pow(3).sum(1))


def test_gradient_norm_of_a_polynomial_and_its_own_gradient() -> None:
    net, events = Cubic(), cells([3, 0, 4], 1)
    x = events.features.requires_grad_()
    norm = gradient_norm(net, events.with_features(x), (x,))
    torch.testing.assert_close(norm, events.sum_hits(36 * x.pow(4).sum(1)))
    slope, weight = torch.autograd.grad(norm.sum(), (x, net.weight))
    torch.testing.assert_close(slope, 144 * x.pow(3))
    torch.testing.assert_close(weight, norm.detach().sum())


@pytest.mark.parametrize("family", ["sparse", "points"])
def test_gradient_norm_against_finite_differences(family: str) -> None:
    net = critic(family)
    events, leaves = net.leaves(points([3, 2], 3) if family == "points" else cells([3, 2], 3))
    norm = gradient_norm(net, events, leaves)
    u = leaves[0].detach()
    step, scores = 1e-6, []
    for row in range(len(u)):
        for column in range(u.shape[1]):
            change = torch.zeros_like(u)
            change[row, column] = step
            high = net(events.with_features(net.scaler.expand(u + change)))
            low = net(events.with_features(net.scaler.expand(u - change)))
            scores.append((high - low).detach() / (2 * step))
    squared = torch.stack(scores).square().sum(0)
    if family == "points":
        p = leaves[1].detach()
        for row in range(len(p)):
            for axis in range(2):
                change = torch.zeros_like(p)
                change[row, axis] = step
                shifted = [events._like(coords=net.scaler.displace(p + s * change)) for s in (1, -1)]
                squared = squared + ((net(shifted[0]) - net(shifted[1])).detach() / (2 * step)).square()
    torch.testing.assert_close(norm.detach(), squared, rtol=1e-6, atol=1e-10)


def test_sparse_and_dense_penalties_agree_where_every_cell_is_active() -> None:
    sparse, dense = critic("sparse"), critic("dense")
    a: Any = sparse.trunk
    b: Any = dense.trunk
    with torch.no_grad():
        pairs = [*zip(a.mix, (m.conv for m in b.mix), strict=True), *zip(a.down, b.down, strict=True)]
        for one, other in [*pairs, (a.last, b.last.conv)]:
            other.weight.copy_(one.dense_weight())
            other.bias.zero_()
        b.narrow.conv.weight.copy_(a.narrow.weight[:, :, None, None])
        b.narrow.conv.bias.zero_()
    b.read.load_state_dict(a.read.state_dict())
    full = cells([GRID.cells, GRID.cells], 1), cells([GRID.cells, GRID.cells], 2)
    values, gradients = [], []
    for net in (sparse, dense):
        between, leaves = net.leaves(interpolate(net, *full, seeded()))
        penalty = (gradient_norm(net, between, leaves).sqrt() - 1).square().mean()
        values.append(penalty)
        (gradient,) = torch.autograd.grad(penalty, [net.get_submodule("trunk.read")[0].weight])  # type: ignore[index]
        gradients.append(gradient)
    torch.testing.assert_close(values[0], values[1], rtol=1e-5, atol=0)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-10)
