import importlib.util
import math

import numpy as np
import ot
import pytest
import torch

from sparsegen.errors import ConfigError, DataError
from sparsegen.events import Column, Events
from sparsegen.grid import Grid
from sparsegen.transport import chamfer, density_aware_chamfer, emd, exact_plan, sinkhorn_divergence, sliced

DISTANCES = [chamfer, density_aware_chamfer, emd, lambda a, b, **k: sliced(a, b, 16, generator=seeded(7), **k)]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def clouds(seed, batch=3, points=9, dim=2):
    return torch.rand(batch, points, dim, dtype=torch.double, generator=seeded(seed))


def ragged(dense, counts):
    points = torch.cat([x[:n] for x, n in zip(dense, counts, strict=True)])
    return points, torch.tensor([0, *np.cumsum(counts)])


def events_of(coords, energy, counts, grid=None):
    return Events(
        coords,
        energy[:, None],
        torch.tensor([0, *np.cumsum(counts)]),
        axes=("eta", "phi"),
        columns=(Column("energy", "GeV"),),
        grid=grid,
    )


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_set_is_at_distance_zero_of_itself_in_any_order(distance):
    a = clouds(0)
    assert distance(a, a[:, torch.randperm(9, generator=seeded(1))]).abs().max() < 1e-12


@pytest.mark.parametrize("distance", DISTANCES)
def test_distances_are_symmetric(distance):
    a, b = clouds(0), clouds(1, points=6)
    torch.testing.assert_close(distance(a, b), distance(b, a))


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_ragged_batch_gives_what_its_events_give_alone(distance):
    counts, others = (9, 1, 4), (3, 9, 4)
    a, b = ragged(clouds(0), counts), ragged(clouds(1), others)
    together = distance(a, b)
    for i in range(3):
        alone = distance(clouds(0)[i : i + 1, : counts[i]], clouds(1)[i : i + 1, : others[i]])
        torch.testing.assert_close(together[i : i + 1], alone)


@pytest.mark.parametrize("distance", DISTANCES)
def test_empty_sets(distance):
    points = clouds(0, batch=1, points=4)[0]
    both = distance((points, torch.tensor([0, 4, 4, 4])), (points, torch.tensor([0, 0, 0, 4])))
    far = 1.0 if distance is density_aware_chamfer else math.inf
    assert both.tolist() == [far, 0.0, far]


def test_chamfer_is_the_brute_force_sum_of_both_directions():
    a, b = clouds(0), clouds(1, points=6)
    d = torch.cdist(a, b)
    torch.testing.assert_close(chamfer(a, b), d.amin(2).square().mean(1) + d.amin(1).square().mean(1))
    torch.testing.assert_close(chamfer(a, b, squared=False, reduce="sum"), d.amin(2).sum(1) + d.amin(1).sum(1))


def test_chamfer_is_exact_far_from_the_origin():
    a, b = clouds(0).float() + 10, clouds(1).float() + 10
    torch.testing.assert_close(chamfer(a, b), chamfer(a.double(), b.double()).float(), rtol=1e-6, atol=0)


def test_chamfer_with_weights_equals_repeated_points():
    a, b = clouds(0, batch=1, points=3), clouds(1, batch=1, points=4)
    weights = (torch.tensor([1.0, 2.0, 3.0], dtype=torch.double), None)
    repeated = a[:, torch.tensor([0, 1, 1, 2, 2, 2])]
    torch.testing.assert_close(chamfer(a, b, weights=weights), chamfer(repeated, b))


def test_density_aware_chamfer_stays_below_one_and_punishes_a_collapsed_set():
    a = clouds(0, batch=1, points=32)
    spread, collapsed = a[:, ::2], a[:, :1].expand(1, 16, 2)
    assert density_aware_chamfer(a, spread, alpha=5.0) < density_aware_chamfer(a, collapsed, alpha=5.0) <= 1


@pytest.mark.parametrize("counts", [(8, 8), (8, 5)])
def test_emd_is_the_linear_program(counts):
    a, b = clouds(0, points=counts[0]), clouds(1, points=counts[1])
    for i, value in enumerate(emd(a, b)):
        assert value.item() == pytest.approx(ot.emd2([], [], torch.cdist(a[i], b[i]).numpy()), abs=1e-12)


def test_emd_of_a_translated_set_is_the_length_of_the_shift():
    a = clouds(0)
    torch.testing.assert_close(emd(a, a + torch.tensor([3.0, 4.0])), torch.full((3,), 5.0, dtype=torch.double))


def test_emd_without_pot_agrees(monkeypatch):
    rng = np.random.default_rng(0)
    cost, source, target = rng.random((7, 5)), rng.dirichlet(np.ones(7)), rng.dirichlet(np.ones(5))
    with_pot = exact_plan(cost, source, target)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    without = exact_plan(cost, source, target)
    for rows, columns, mass, u, v in (with_pot, without):
        assert mass @ cost[rows, columns] == pytest.approx(source @ u + target @ v, abs=1e-12)
        assert (u[:, None] + v <= cost + 1e-12).all()
    assert with_pot[2] @ cost[with_pot[:2]] == pytest.approx(without[2] @ cost[without[:2]], abs=1e-12)


def test_sliced_is_below_emd_and_its_one_dimensional_case_is_exact():
    a, b = clouds(0, points=12), clouds(1, points=7)
    assert (sliced(a, b, 50, generator=seeded(0)) <= emd(a, b)).all()
    torch.testing.assert_close(sliced(a[..., :1], b[..., :1], 1), emd(a[..., :1], b[..., :1]))


def test_sliced_with_weights_is_the_weighted_distance_of_each_shadow():
    a, b = clouds(0, points=6), clouds(1, points=4)
    wa, wb = torch.rand(18, dtype=torch.double, generator=seeded(2)), torch.rand(12, dtype=torch.double)
    axis = torch.tensor([[0.0, 1.0]], dtype=torch.double)
    value = sliced(a, b, axis, weights=(wa, wb))
    torch.testing.assert_close(value, emd(a[..., 1:], b[..., 1:], weights=(wa, wb)))


@pytest.mark.parametrize("distance", DISTANCES)
def test_gradients_in_the_points(distance):
    a, b = clouds(0, batch=2, points=5).requires_grad_(), clouds(1, batch=2, points=4).requires_grad_()
    if distance is density_aware_chamfer:
        distance = lambda a, b: density_aware_chamfer(a, b, alpha=2.0)
    assert torch.autograd.gradcheck(distance, (a, b))


@pytest.mark.parametrize("distance", [chamfer, emd, DISTANCES[-1]])
def test_gradients_in_the_weights(distance):
    a, b = clouds(0, batch=2, points=5), clouds(1, batch=2, points=4)
    w = torch.rand(10, dtype=torch.double, generator=seeded(3)) + 0.1
    assert torch.autograd.gradcheck(lambda w: distance(a, b, weights=(w, None)), (w.requires_grad_(),))


@pytest.mark.parametrize("distance", [*DISTANCES, sinkhorn_divergence])
def test_half_precision_is_compared_in_single(distance):
    a, b = clouds(0).bfloat16().requires_grad_(), clouds(1, points=6).float()
    value = distance(a, b)
    torch.testing.assert_close(value, distance(a.float(), b))
    value.sum().backward()
    assert a.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("distance", [chamfer, emd])
def test_points_that_meet_have_no_nan_gradient(distance):
    a = clouds(0).requires_grad_()
    keywords = {"squared": False} if distance is chamfer else {}
    distance(a, a.detach(), **keywords).sum().backward()
    assert a.grad.isfinite().all()


@pytest.mark.parametrize("distance", [chamfer, emd])
def test_a_periodic_axis_takes_the_short_way_round(distance):
    grid = Grid.regular(
        (4, 8), (-1.0, -math.pi), (1.0, math.pi), names=("eta", "phi"), units=("", "rad"), periodic=("phi",)
    )
    a = events_of(torch.tensor([[0.0, 3.1]]), torch.ones(1), (1,), grid)
    b = events_of(torch.tensor([[0.0, -3.1]]), torch.ones(1), (1,), grid)
    gap = 2 * math.pi - 6.2
    expected = 2 * gap**2 if distance is chamfer else gap
    assert distance(a, b).item() == pytest.approx(expected, rel=1e-4)
    plain = [(e.coords, e.offsets) for e in (a, b)]
    assert distance(*plain, period=(math.inf, 2 * math.pi)).item() == pytest.approx(expected, rel=1e-4)


def test_events_compare_by_columns_and_weights():
    coords = torch.zeros(4, 2)
    a = events_of(coords, torch.tensor([1.0, 2.0, 3.0, 4.0]), (1, 3))
    b = events_of(coords, torch.tensor([3.0, 2.0, 3.0, 4.0]), (1, 3))
    assert chamfer(a, b).tolist() == [0, 0]
    assert emd(a, b, features=("energy",), scales={"energy": 2.0}).tolist() == [1, 0]
    assert emd(a, b, weights="energy").tolist() == [0, 0]


def test_cells_stand_for_their_centres():
    grid = Grid.regular((4, 4), (0.0, 0.0), (4.0, 8.0), names=("eta", "phi"), units=("", "rad"))
    a = events_of(torch.tensor([[0, 0]]), torch.ones(1), (1,), grid)
    b = events_of(torch.tensor([[0, 1]]), torch.ones(1), (1,), grid)
    assert emd(a, b).item() == 2


def test_bad_input_names_its_fault():
    a = clouds(0)
    with pytest.raises(DataError, match="not finite"):
        chamfer(a * math.nan, a)
    with pytest.raises(DataError, match="3 and 2 sets"):
        emd(a, a[:2])
    with pytest.raises(DataError, match="2 and 1 dimensions"):
        sliced(a, a[..., :1])
    with pytest.raises(DataError, match="sum to 0"):
        emd(a, a, weights=(torch.zeros(27), None))
    with pytest.raises(DataError, match="no mass"):
        emd(a, a, weights=(-torch.ones(27), None))
    with pytest.raises(ConfigError, match="reduce"):
        chamfer(a, a, reduce="max")
    with pytest.raises(ConfigError, match="wrap"):
        sliced(*(events_of(torch.zeros(1, 2), torch.ones(1), (1,), PERIODIC) for _ in range(2)))


PERIODIC = Grid.regular((4, 4), (0.0, 0.0), (1.0, 1.0), names=("eta", "phi"), units=("", "rad"), periodic=("phi",))
