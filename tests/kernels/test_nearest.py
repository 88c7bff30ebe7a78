import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsegen.errors import BackendError, ConfigError, DataError
from sparsegen.kernels import nearest, nearest_both
from sparsegen.kernels.native import extension

needs_native = pytest.mark.skipif(extension() is None, reason="no native extension")
ENGINES = ["torch", "kdtree", pytest.param("native", marks=needs_native)]


def ragged(counts, dim, seed, dtype=torch.float32, scale=1.0):
    points = torch.randn(sum(counts), dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale
    return points.to(dtype), torch.tensor([0, *np.cumsum(counts)])


def brute(x, x_offsets, y, y_offsets, period=None):
    """float64, one pair at a time over events; ties to the lowest index."""
    x, y = x.double().numpy(), y.double().numpy()
    indices, squares = [], []
    for e in range(len(x_offsets) - 1):
        rows = y[y_offsets[e] : y_offsets[e + 1]]
        for p in x[x_offsets[e] : x_offsets[e + 1]]:
            if len(rows) == 0:
                indices.append(-1)
                squares.append(math.inf)
                continue
            delta = np.abs(rows - p)
            if period is not None:
                wrap = np.asarray(period)
                delta = np.where(np.isinf(wrap), delta, np.minimum(delta % wrap, wrap - delta % wrap))
            distance = (delta**2).sum(1)
            indices.append(int(y_offsets[e]) + int(distance.argmin()))
            squares.append(distance.min())
    return np.array(indices, dtype=np.int64), np.array(squares)


sizes = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=6)


@pytest.mark.parametrize("engine", ENGINES)
@given(sizes=sizes, dim=st.integers(1, 16), seed=st.integers(0, 1000))
def test_every_engine_finds_the_brute_force_answer(engine, sizes, dim, seed):
    x, x_offsets = ragged([n for n, _ in sizes], dim, seed, torch.float64)
    y, y_offsets = ragged([m for _, m in sizes], dim, seed + 1, torch.float64)
    there, back = nearest_both(x, x_offsets, y, y_offsets, engine=engine)
    for found, expected in (
        (there, brute(x, x_offsets, y, y_offsets)),
        (back, brute(y, y_offsets, x, x_offsets)),
        (nearest(x, x_offsets, y, y_offsets, engine=engine), brute(x, x_offsets, y, y_offsets)),
    ):
        assert found.indices.tolist() == expected[0].tolist()
        np.testing.assert_allclose(found.squared.numpy(), expected[1], rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dim", [1, 2, 3, 5])
@pytest.mark.parametrize("periodic", [False, True])
def test_instruction_sets_equal_torch_to_the_last_bit(level, dim, dtype, periodic):
    # Sizes around every vector length and tile border.
    x, x_offsets = ragged([1, 15, 16, 17, 70, 0, 5, 3, 300], dim, 3, dtype)
    y, y_offsets = ragged([31, 33, 1, 255, 257, 4, 0, 64, 700], dim, 4, dtype)
    period = (2.5, *[math.inf] * (dim - 1)) if periodic else None
    expected = nearest_both(x, x_offsets, y, y_offsets, period=period, engine="torch")
    found = nearest_both(x, x_offsets, y, y_offsets, period=period, engine="native")
    for f, e in zip(found, expected, strict=True):
        assert torch.equal(f.indices, e.indices)
        assert torch.equal(f.squared, e.squared)


@pytest.mark.parametrize("engine", ENGINES)
def test_distances_are_exact_far_from_the_origin(engine):
    x, offsets = ragged([200], 3, 5)
    # Multiples of 2^-8 stay exact next to 4096 in float32, so moving both clouds must change nothing at all.
    x = (x * 256).round() / 256
    y = x[torch.randperm(200, generator=torch.Generator().manual_seed(2))] + 1 / 64
    here = nearest(x, offsets, y, offsets, engine=engine)
    far = nearest(x + 4096, offsets, y + 4096, offsets, engine=engine)
    assert torch.equal(here.squared, far.squared)
    assert torch.equal(here.indices, far.indices)


@pytest.mark.parametrize("engine", ENGINES)
@given(shift=st.integers(-3, 3), seed=st.integers(0, 100))
def test_a_whole_turn_changes_nothing_on_a_periodic_axis(engine, shift, seed):
    x, offsets = ragged([30, 20], 2, seed, torch.float64)
    y, _ = ragged([30, 20], 2, seed + 1, torch.float64)
    period = (math.inf, 2 * math.pi)
    turned = x + torch.tensor([0.0, 2 * math.pi * shift], dtype=torch.float64)
    plain = nearest(x, offsets, y, offsets, period=period, engine=engine)
    after = nearest(turned, offsets, y, offsets, period=period, engine=engine)
    expected = brute(x, offsets, y, offsets, period)
    assert plain.indices.tolist() == after.indices.tolist() == expected[0].tolist()
    np.testing.assert_allclose(after.squared.numpy(), expected[1], rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("engine", ["torch", pytest.param("native", marks=needs_native)])
def test_ties_go_to_the_lowest_index(engine):
    y = torch.zeros(600, 3)
    x = torch.ones(5, 3)
    there, back = nearest_both(x, torch.tensor([0, 5]), y, torch.tensor([0, 600]), engine=engine)
    assert there.indices.tolist() == [0] * 5
    assert back.indices.tolist() == [0] * 600


@pytest.mark.parametrize("engine", ["torch", pytest.param("native", marks=needs_native)])
def test_nan_shows_in_the_distance_and_leaves_a_valid_index(engine):
    x = torch.tensor([[math.nan, 0.0], [1.0, 1.0]])
    y = torch.tensor([[5.0, 5.0], [1.0, 2.0], [math.nan, 1.0]])
    found = nearest(x, torch.tensor([0, 2]), y, torch.tensor([0, 3]), engine=engine)
    assert found.indices.tolist() == [0, 1]
    assert found.squared[0].isnan()
    assert found.squared[1] == 1


@needs_native
def test_two_threads_give_what_one_gives():
    x, x_offsets = ragged([900, 1200, 40], 3, 6)
    y, y_offsets = ragged([1500, 1000, 50], 3, 7)
    one = [*nearest_both(x, x_offsets, y, y_offsets), nearest(x, x_offsets, y, y_offsets)]
    torch.set_num_threads(2)
    two = [*nearest_both(x, x_offsets, y, y_offsets), nearest(x, x_offsets, y, y_offsets)]
    torch.set_num_threads(8)
    many = [*nearest_both(x, x_offsets, y, y_offsets), nearest(x, x_offsets, y, y_offsets)]
    for a, b, c in zip(one, two, many, strict=True):
        assert torch.equal(a.indices, b.indices)
        assert torch.equal(a.squared, b.squared)
        assert torch.equal(a.indices, c.indices)


def test_a_large_event_goes_to_the_tree_with_the_same_answer():
    x, x_offsets = ragged([50], 2, 8, torch.float64)
    y, y_offsets = ragged([20_001], 2, 9, torch.float64)
    auto = nearest(x, x_offsets, y, y_offsets)
    tiled = nearest(x, x_offsets, y, y_offsets, engine="torch")
    assert torch.equal(auto.indices, tiled.indices)
    assert torch.equal(auto.squared, tiled.squared)


def test_half_precision_is_computed_in_float32():
    x, offsets = ragged([20], 3, 10)
    found = nearest(x.bfloat16(), offsets, x.bfloat16(), offsets)
    assert found.squared.dtype == torch.float32
    assert (found.squared == 0).all()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"engine": "kdtre"}, ConfigError),
        ({"period": (1.0,)}, ConfigError),
        ({"period": (1.0, -1.0)}, ConfigError),
        ({"target_offsets": torch.tensor([0, 2])}, DataError),
        ({"target_offsets": torch.tensor([0, 2, 3])}, DataError),
        ({"targets": torch.zeros(3, 1)}, DataError),
    ],
)
def test_bad_arguments_are_refused(change, error):
    arguments = {
        "queries": torch.zeros(2, 2),
        "query_offsets": torch.tensor([0, 2]),
        "targets": torch.zeros(3, 2),
        "target_offsets": torch.tensor([0, 3]),
    }
    with pytest.raises(error):
        nearest(**(arguments | change))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_tensors_go_to_torch_and_agree_with_the_cpu():
    x, offsets = ragged([100, 0, 50], 3, 11)
    y, _ = ragged([100, 0, 50], 3, 12)
    here = nearest(x, offsets, y, offsets)
    there = nearest(x.cuda(), offsets.cuda(), y.cuda(), offsets.cuda())
    assert torch.equal(here.indices, there.indices.cpu())
    with pytest.raises(BackendError):
        nearest(x.cuda(), offsets.cuda(), y.cuda(), offsets.cuda(), engine="native")
