import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from sparsegen.errors import ConfigError, DataError
from sparsegen.kernels import assign, assign_costs
from sparsegen.kernels.native import extension

ENGINES = [
    "scipy",
    pytest.param("native", marks=pytest.mark.skipif(extension() is None, reason="no native extension")),
]
shapes = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=6)


def matrices(sizes, seed, kind):
    source = np.random.default_rng(seed)
    if kind == "integers":  # many ties
        return [source.integers(0, 4, size).astype(float) for size in sizes]
    return [source.normal(size=size) * 10.0 ** source.integers(-3, 4) for size in sizes]


def solve(blocks, engine):
    rows, columns = (torch.tensor([b.shape[k] for b in blocks]) for k in (0, 1))
    flat = torch.from_numpy(np.concatenate([b.ravel() for b in blocks]))
    return assign_costs(flat, rows, columns, engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
@given(sizes=shapes, seed=st.integers(0, 10_000), kind=st.sampled_from(["normal", "integers"]))
def test_the_matching_is_a_matching_of_least_cost(engine, sizes, seed, kind):
    blocks = matrices(sizes, seed, kind)
    found = solve(blocks, engine)
    row = column = 0
    for block, total in zip(blocks, found.total.tolist(), strict=True):
        n, m = block.shape
        partner = found.partner[row : row + n].numpy()
        matched = np.flatnonzero(partner >= 0)
        assert len(matched) == min(n, m)
        assert len(set(partner[matched])) == len(matched)
        assert all(column <= p < column + m for p in partner[matched])
        i, j = linear_sum_assignment(block)
        best = block[i, j].sum()
        scale = np.abs(block).max(initial=1e-30)
        assert block[matched, partner[matched] - column].sum() == pytest.approx(best, abs=1e-12 * scale * max(n, 1))
        assert total == pytest.approx(best, abs=1e-12 * scale * max(n, 1))
        row, column = row + n, column + m


def test_instruction_sets_choose_the_same_matching(level):
    blocks = matrices([(30, 30), (7, 20), (20, 7), (64, 65), (1, 1)], 1, "integers")
    found = solve(blocks, "native")
    native = extension()
    native.select("portable")
    reference = solve(blocks, "native")
    native.select(level)
    assert torch.equal(found.partner, reference.partner)
    assert torch.equal(found.total, reference.total)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("period", [None, (math.inf, 1.5)])
def test_points_are_paired_as_their_cost_matrix_says(engine, power, period, generator):
    a = torch.randn(65, 2, generator=generator)
    b = torch.randn(62, 2, generator=generator)
    a_offsets, b_offsets = torch.tensor([0, 30, 30, 40, 65]), torch.tensor([0, 20, 25, 45, 62])
    partner = assign(a, a_offsets, b, b_offsets, power=power, period=period, engine=engine)
    for e in range(4):
        x, y = a[a_offsets[e] : a_offsets[e + 1]].double(), b[b_offsets[e] : b_offsets[e + 1]].double()
        delta = (x[:, None] - y[None]).numpy()
        if period is not None:
            delta[..., 1] -= 1.5 * np.round(delta[..., 1] / 1.5)
        cost = (delta**2).sum(-1) ** (power / 2)
        i, j = linear_sum_assignment(cost)
        mine = partner[a_offsets[e] : a_offsets[e + 1]].numpy()
        matched = np.flatnonzero(mine >= 0)
        assert cost[matched, mine[matched] - int(b_offsets[e])].sum() == pytest.approx(cost[i, j].sum(), rel=1e-12)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_shuffled_cloud_finds_itself(engine, generator):
    a = torch.randn(100, 3, generator=generator)
    order = torch.randperm(100, generator=generator)
    partner = assign(a, torch.tensor([0, 100]), a[order], torch.tensor([0, 100]), engine=engine)
    assert torch.equal(order[partner], torch.arange(100))


@pytest.mark.parametrize("engine", ENGINES)
def test_padded_matrices_count_their_corner_only(engine, generator):
    costs = torch.rand(3, 6, 7, generator=generator)
    rows, columns = torch.tensor([6, 2, 0]), torch.tensor([7, 5, 3])
    padded = assign_costs(costs, rows, columns, engine=engine)
    flat = torch.cat([costs[e, :n, :m].flatten() for e, (n, m) in enumerate(zip(rows, columns, strict=True))])
    assert torch.equal(padded.partner, assign_costs(flat, rows, columns, engine=engine).partner)


def test_threads_do_not_change_the_answer(generator):
    a, b = (torch.randn(64 * 40, 3, generator=generator) for _ in range(2))
    offsets = torch.arange(65) * 40
    one = assign(a, offsets, b, offsets)
    torch.set_num_threads(2)
    assert torch.equal(one, assign(a, offsets, b, offsets))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_cost_that_is_not_finite_names_its_event(engine, bad, generator):
    a = torch.randn(9, 2, generator=generator)
    offsets = torch.tensor([0, 3, 6, 9])
    broken = a.clone()
    broken[4, 0] = bad
    with pytest.raises(DataError, match="event 1"):
        assign(a, offsets, broken, offsets, engine=engine)


def test_bad_arguments_are_refused():
    a, offsets = torch.zeros(2, 2), torch.tensor([0, 2])
    with pytest.raises(ConfigError, match="power 3"):
        assign(a, offsets, a, offsets, power=3)
    with pytest.raises(ConfigError, match="engine"):
        assign(a, offsets, a, offsets, engine="hungarian")
    with pytest.raises(DataError):
        assign_costs(torch.zeros(5), torch.tensor([2]), torch.tensor([2]))
