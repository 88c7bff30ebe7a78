import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsegen.errors import ConfigError, DataError
from sparsegen.kernels import CellSearch
from sparsegen.kernels.native import extension

needs_native = pytest.mark.skipif(extension() is None, reason="no native extension")
ENGINES = ["torch", "numpy", pytest.param("native", marks=needs_native)]


def problem(m, n, d, seed, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(*shape, generator=g, dtype=dtype) for shape in ((m, d), (n, d), (n,)))


@pytest.mark.parametrize("engine", ENGINES)
@given(m=st.integers(0, 200), n=st.integers(1, 300), d=st.integers(1, 40), seed=st.integers(0, 1000))
def test_every_engine_finds_the_two_best_scores(engine, m, n, d, seed):
    x, y, h = problem(m, n, d, seed)
    found = CellSearch(y, engine).best(x, h, second=True)
    scores = x @ y.T + h
    ordered = torch.cat([scores, torch.full((m, 1), -torch.inf, dtype=scores.dtype)], 1).sort(1, descending=True).values
    torch.testing.assert_close(found.scores, ordered[:, 0])
    torch.testing.assert_close(found.seconds, ordered[:, 1])
    torch.testing.assert_close(scores.gather(1, found.cells[:, None])[:, 0], ordered[:, 0])


@pytest.mark.parametrize("engine", ENGINES)
def test_targets_beyond_one_cache_chunk_are_all_seen(engine):
    x, y, h = problem(70, 30_000, 9, 1, torch.float32)
    found = CellSearch(y, engine).best(x, h)
    exact = x.double() @ y.double().T + h.double()
    assert float((exact.amax(1) - exact.gather(1, found.cells[:, None])[:, 0]).max()) < 1e-5
    assert found.seconds.numel() == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_ties_go_to_the_lowest_index_and_count_as_second(engine):
    y = torch.ones(500, 3)
    h = torch.zeros(500)
    h[[77, 78, 400]] = 1.0
    found = CellSearch(y, engine).best(torch.ones(5, 3), h, second=True)
    assert found.cells.tolist() == [77] * 5
    assert found.seconds.tolist() == [4.0] * 5


@pytest.mark.parametrize("engine", ENGINES)
def test_a_height_that_is_minus_infinity_takes_its_cell_out(engine):
    x, y, h = problem(50, 40, 3, 2)
    h[::2] = -torch.inf
    assert (CellSearch(y, engine).best(x, h).cells % 2 == 1).all()


@needs_native
def test_threads_do_not_change_a_bit():
    x, y, h = problem(3000, 900, 8, 3, torch.float32)
    search, before = CellSearch(y), torch.get_num_threads()
    results = []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        results.append(search.best(x, h, second=True))
    torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_shapes_types_and_engines_that_do_not_fit_are_refused():
    y = torch.randn(4, 2)
    with pytest.raises(DataError, match="expected \\(n, d\\)"):
        CellSearch(torch.zeros(0, 2))
    with pytest.raises(DataError, match="float32 or float64"):
        CellSearch(torch.zeros(3, 2, dtype=torch.int64))
    with pytest.raises(DataError, match="for targets"):
        CellSearch(y).best(torch.zeros(5, 3), torch.zeros(4))
    with pytest.raises(DataError, match="for targets"):
        CellSearch(y).best(torch.zeros(5, 2), torch.zeros(5))
    with pytest.raises(ConfigError, match="unknown engine"):
        CellSearch(y, engine="magic")


@needs_native
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_of_another_type_are_compared_in_that_of_the_targets(dtype):
    x, y, h = problem(20, 30, 4, 5)
    found = CellSearch(y.to(dtype)).best(x, h)
    assert found.scores.dtype == dtype
    np.testing.assert_array_equal(found.cells, (x @ y.T + h).argmax(1))
