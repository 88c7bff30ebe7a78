import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsegen.errors import ConfigError, DataError
from sparsegen.kernels import CellSearch, MirrorSearch
from sparsegen.kernels.native import extension

needs_native = pytest.mark.skipif(extension() is None, reason="no native extension")
ENGINES = ["torch", "numpy", pytest.param("native", marks=needs_native)]


def problem(m, n, d, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(m, d, generator=g), torch.randn(n, d, generator=g), torch.randn(n, generator=g)


@pytest.mark.parametrize(("groups", "dim"), [(4, 4), (4, 7), (8, 8), (8, 21), (16, 16), (16, 40)])
def test_images_are_distinct_signs_of_the_point_and_differ_in_half_of_the_groups_or_in_all(groups, dim):
    x, y, _ = problem(3, 5, dim)
    search = MirrorSearch(y, groups)
    images = search.expand(x).view(3, search.images, dim)
    assert search.images == 2 * groups
    assert torch.equal(images.abs(), x.abs()[:, None].expand_as(images))
    signs = search.expand(torch.ones(1, dim))
    if dim % groups == 0:
        apart = {int((a != b).sum()) for a, b in itertools.combinations(signs, 2)}
        assert apart == {dim // 2, dim}
    assert torch.equal(signs[:groups], -signs[groups:])
    direction = torch.randn(dim)
    torch.testing.assert_close(search.products(x, direction), images @ direction)


@pytest.mark.parametrize("engine", ENGINES)
@given(
    m=st.integers(0, 40),
    n=st.integers(1, 300),
    dim=st.integers(4, 40),
    groups=st.sampled_from((0, 4, 8, 16)),
    seed=st.integers(0, 1000),
)
def test_every_image_gets_its_best_cell(engine, m, n, dim, groups, seed):
    groups = groups if groups <= dim else 4
    x, y, h = problem(m, n, dim, seed)
    search = MirrorSearch(y, groups, engine)
    cells, scores = search.best(x, h)
    exact = search.expand(x).double() @ y.double().T + h.double()
    assert cells.shape == scores.shape == (m, search.images)
    if m:
        found = exact.gather(1, cells.view(-1, 1))[:, 0]
        bound = 2**-16 * (exact.abs().amax(1) + h.abs().max())
        assert (exact.amax(1) - found <= bound).all()
        assert ((scores.flatten() - exact.amax(1)).abs() <= bound).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_targets_beyond_one_span_are_all_seen(engine):
    x, y, h = problem(5, 20_000, 16, 1)
    search = MirrorSearch(y, 16, engine)
    cells, _ = search.best(x, h)
    exact = search.expand(x).double() @ y.double().T + h.double()
    assert (exact.amax(1) - exact.gather(1, cells.view(-1, 1))[:, 0]).max() < 1e-3
    assert cells.max() > 10_000


@pytest.mark.parametrize("groups", [0, 4, 8])
def test_sums_are_those_of_the_images(groups):
    x, y, h = problem(30, 20, 9)
    search = MirrorSearch(y, groups)
    cells, _ = search.best(x, h)
    expected = torch.zeros(20, 9).index_add_(0, cells.flatten(), search.expand(x))
    torch.testing.assert_close(search.sums(x, cells), expected)


@pytest.mark.parametrize("groups", [0, 8])
def test_steps_follow_the_equation(groups):
    x, y, h = problem(6 * 4, 20, 9)
    search = MirrorSearch(y, groups)
    weights = torch.full((20,), 1 / 20)
    lengths, rates = torch.linspace(0.5, 0.1, 6), torch.linspace(1.0, 0.2, 6)
    iterate, average = h.clone(), h.clone()
    search.descend(x, weights, lengths, rates, iterate, average)
    expected, mean = h.clone(), h.clone()
    for block, length, rate in zip(x.split(4), lengths, rates, strict=True):
        images = search.expand(block)
        cells = CellSearch(y).best(images, expected).cells
        expected = expected - length * (torch.bincount(cells, minlength=20) / len(images) - weights)
        mean = mean + rate * (expected - mean)
    torch.testing.assert_close(iterate, expected)
    torch.testing.assert_close(average, mean)


@needs_native
def test_instruction_sets_agree_but_for_points_on_a_wall(level):
    x, y, h = problem(50, 700, 24)
    search = MirrorSearch(y, 16)
    cells, scores = search.best(x, h)
    plain = CellSearch(y, "numpy").best(search.expand(x), h)
    assert (cells.flatten() == plain.cells).double().mean() > 0.999
    torch.testing.assert_close(scores.flatten(), plain.scores, rtol=2e-5, atol=2e-5)


@needs_native
def test_threads_do_not_change_a_bit():
    x, y, h = problem(2000, 900, 8)
    search, before = MirrorSearch(y, 8), torch.get_num_threads()
    results = []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        iterate, average = h.clone(), h.clone()
        search.descend(x, torch.full((900,), 1 / 900), torch.ones(2), torch.ones(2), iterate, average)
        results.append((*search.best(x, h), iterate, average))
    torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@needs_native
def test_a_point_with_a_nan_gets_some_cell():
    x, y, h = problem(3, 50, 8)
    x[1, 2] = float("nan")
    cells, _ = MirrorSearch(y, 8).best(x, h)
    assert ((cells >= 0) & (cells < 50)).all()


def test_groups_and_shapes_that_do_not_fit_are_refused():
    y = torch.randn(10, 6)
    with pytest.raises(ConfigError, match="groups=8 for targets"):
        MirrorSearch(y, 8)
    with pytest.raises(ConfigError, match="groups=3"):
        MirrorSearch(y, 3)
    search = MirrorSearch(y, 4)
    with pytest.raises(DataError, match="for targets"):
        search.best(torch.zeros(2, 6), torch.zeros(9))
    with pytest.raises(DataError, match="5 points for 2 steps"):
        search.descend(torch.zeros(5, 6), *(torch.zeros(k) for k in (10, 2, 2, 10, 10)))
