"""Layers of ragged point sets against loops over events, and their symmetries."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from sparsegen import nets
from sparsegen.events import Column, Events
from sparsegen.points import EdgeConv, EPiC, TNet, knn, pool_max, pool_mean, pool_sum, shared_first

COUNTS = [4, 0, 1, 6]
OFFSETS = torch.tensor([0, *COUNTS]).cumsum(0)
BATCH = torch.repeat_interleave(torch.arange(4), torch.tensor(COUNTS))


def rows(width: int, seed: int = 0) -> Tensor:
    return torch.randn(sum(COUNTS), width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def shuffled_within_events() -> Tensor:
    generator = torch.Generator().manual_seed(5)
    parts = [torch.randperm(n, generator=generator) + int(o) for n, o in zip(COUNTS, OFFSETS[:-1], strict=True)]
    return torch.cat(parts)


LOOPS: dict[Any, Any] = {pool_sum: lambda x: x.sum(0), pool_mean: lambda x: x.mean(0), pool_max: lambda x: x.amax(0)}


@pytest.mark.parametrize("pool", LOOPS, ids=lambda p: p.__name__)
def test_pooling_equals_a_loop_and_empty_events_give_zero(pool: Any) -> None:
    x = rows(3) - 5.0  # below zero, so that a zero start of the maximum would show
    expected = torch.stack([LOOPS[pool](e) if len(e) else torch.zeros(3).double() for e in x.split(COUNTS)])
    torch.testing.assert_close(pool(x, BATCH, 4), expected)
    assert pool(x[:0], BATCH[:0], 2).tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize("pool", LOOPS, ids=lambda p: p.__name__)
def test_pooling_is_differentiable_twice(pool: Any) -> None:
    x = rows(2).requires_grad_()
    assert gradcheck(lambda x: pool(x, BATCH, 4), (x,))
    assert gradgradcheck(lambda x: pool(x, BATCH, 4).pow(3), (x,))


def test_epic_is_equivariant_to_the_order_of_hits_and_of_events() -> None:
    layer, g = EPiC(5, 3, hits=4.0).double(), torch.randn(4, 3, dtype=torch.float64)
    x, order = rows(5), shuffled_within_events()
    y, h = layer(x, g, BATCH)
    y_shuffled, h_shuffled = layer(x[order], g, BATCH)
    torch.testing.assert_close(y_shuffled, y[order])
    torch.testing.assert_close(h_shuffled, h)
    # the last event on its own
    y_alone, h_alone = layer(x[5:], g[3:], BATCH[5:] - 3)
    torch.testing.assert_close(y_alone, y[5:])
    torch.testing.assert_close(h_alone, h[3:])


def test_epic_is_its_equation_event_by_event() -> None:
    layer, x = EPiC(5, 3, hits=4.0).double(), rows(5)
    g = torch.randn(4, 3, dtype=torch.float64)
    y, h = layer(x, g, BATCH)
    for event, (before, after) in enumerate(zip(x.split(COUNTS), y.split(COUNTS), strict=True)):
        mean = before.mean(0) if len(before) else torch.zeros(5, dtype=torch.float64)
        inner = F.leaky_relu(layer.gather(torch.cat([mean, before.sum(0) / 4.0, g[event]])), 0.1)
        vector = F.leaky_relu(g[event] + layer.update(inner), 0.1)
        torch.testing.assert_close(h[event], vector)
        told = F.leaky_relu(layer.tell(torch.cat([before, vector.expand(len(before), 3)], 1)), 0.1)
        torch.testing.assert_close(after, F.leaky_relu(before + layer.local(told), 0.1))


def test_epic_tells_the_event_of_every_hit_and_every_hit_of_the_event() -> None:
    layer, x = EPiC(5, 3, hits=4.0).double(), rows(5).requires_grad_()
    y, _ = layer(x, torch.zeros(4, 3, dtype=torch.float64), BATCH)
    (gradient,) = torch.autograd.grad(y[0].sum(), x)
    assert (gradient.abs().sum(1) > 0).tolist() == [True] * 4 + [False] * 7


def test_epic_has_a_second_derivative() -> None:
    layer, x = EPiC(3, 2, hits=4.0).double(), rows(3).requires_grad_()
    g = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    assert gradgradcheck(lambda x, g: tuple(t.pow(2) for t in layer(x, g, BATCH)), (x, g))


def test_shared_first_is_the_concatenation() -> None:
    linear = nn.Linear(5, 7).double()
    local, shared = rows(3), torch.randn(4, 2, dtype=torch.float64)
    expected = linear(torch.cat([local, shared[BATCH]], 1))
    torch.testing.assert_close(shared_first(linear, local, shared, BATCH), expected)


def test_a_tnet_starts_at_the_identity_without_penalty() -> None:
    net, x = TNet(3, 8).double(), rows(3)
    mapped, penalty = net(x, BATCH, 4)
    assert torch.equal(mapped, x) and penalty.tolist() == [0.0] * 4


def test_a_tnet_maps_each_event_by_one_matrix_and_punishes_what_is_not_orthogonal() -> None:
    net, x = TNet(3, 8).double(), rows(3)
    last: Any = net.matrix[-1]
    nn.init.normal_(last.weight)
    mapped, penalty = net(x, BATCH, 4)
    for event, (before, after) in enumerate(zip(x.split(COUNTS), mapped.split(COUNTS), strict=True)):
        if len(before) >= 3:
            a = torch.linalg.lstsq(before, after).solution
            torch.testing.assert_close(before @ a, after)
            torch.testing.assert_close(penalty[event], (torch.eye(3) - a @ a.t()).square().sum())
    order = shuffled_within_events()
    torch.testing.assert_close(net(x[order], BATCH, 4)[0], mapped[order])
    penalty.sum().backward()
    assert bool((last.weight.grad.abs() > 0).any())


@pytest.mark.parametrize("k", [1, 2, 3, 10])
def test_neighbours_equal_brute_force_and_events_do_not_mix(k: int) -> None:
    x = rows(3)
    expected = set()
    for start, points in zip(OFFSETS[:-1].tolist(), x.split(COUNTS), strict=True):
        for i, point in enumerate(points):
            others = sorted((float((point - p).square().sum()), j) for j, p in enumerate(points) if j != i)
            expected |= {(start + j, start + i) for _, j in others[:k]}
    found = knn(x, OFFSETS, k)
    assert set(map(tuple, found.t().tolist())) == expected and found.shape[1] == len(expected)
    assert torch.equal(BATCH[found[0]], BATCH[found[1]])


def test_no_neighbours_where_there_are_none() -> None:
    assert knn(torch.zeros(0, 2), torch.tensor([0]), 3).shape == (2, 0)
    assert knn(torch.zeros(0, 2), torch.tensor([0, 0, 0]), 3).shape == (2, 0)
    assert knn(torch.rand(3, 2), torch.tensor([0, 1, 2, 3]), 3).shape == (2, 0)


def test_points_in_one_place_are_neighbours_but_never_of_themselves() -> None:
    edges = knn(torch.zeros(4, 2), torch.tensor([0, 4]), 2)
    assert edges.shape == (2, 8) and bool((edges[0] != edges[1]).all())


def test_edge_convolution_is_a_maximum_over_neighbours() -> None:
    layer, x = EdgeConv(3, 5, k=2).double(), rows(3)
    result = layer(x, OFFSETS)
    source, target = knn(x, OFFSETS, 2)
    messages = layer.conv.nn(torch.cat([x[target], x[source] - x[target]], 1))
    for point in range(len(x)):
        mine = messages[target == point]
        expected = mine.amax(0) if len(mine) else torch.zeros(5, dtype=torch.float64)
        torch.testing.assert_close(result[point], expected)
    order = shuffled_within_events()
    torch.testing.assert_close(layer(x[order], OFFSETS), result[order])


def test_a_pointnet_sees_only_its_critical_set_through_the_maximum() -> None:
    torch.manual_seed(0)
    net: Any = nets.build("pointnet", "encoder", axes=("x", "y"), columns=(Column("energy"),), latent=4, width=2)
    net.double()
    generator = torch.Generator().manual_seed(1)
    events = Events(
        torch.randn(60, 2, generator=generator, dtype=torch.float64),
        torch.rand(60, 1, generator=generator, dtype=torch.float64),
        torch.tensor([0, 60]),
        axes=("x", "y"),
        columns=(Column("energy"),),
    )
    half = net.trunk.read[0].in_features // 2
    with torch.no_grad():  # the mean is left out of the first layer after pooling
        net.trunk.read[0].weight[:, half:] = 0
    local = net.trunk.shared(torch.cat([net.scaler.place(events.coords), net.scaler.compand(events.features)], 1))
    critical = torch.zeros(60, dtype=torch.bool).index_fill(0, local.argmax(0), True)
    assert int(critical.sum()) <= half < 60
    torch.testing.assert_close(net(events.select_hits(critical)), net(events))
    first = critical.nonzero()[0, 0]
    without = net(events.select_hits(torch.arange(60) != first))
    assert bool((without - net(events)).abs().max() > 1e-6)
