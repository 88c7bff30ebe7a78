import math

import pytest
import torch

from sparsegen.kernels import nearest_both, pairwise_chamfer
from sparsegen.kernels.native import extension

ENGINES = [
    "torch",
    "kdtree",
    pytest.param("native", marks=pytest.mark.skipif(extension() is None, reason="no native extension")),
]


def clouds(counts, dim, seed, dtype=torch.float32):
    points = torch.randn(sum(counts), dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return points.to(dtype), torch.tensor([0, *counts]).cumsum(0)


def one_by_one(a, a_offsets, b, b_offsets, squared):
    forward = torch.zeros(len(a_offsets) - 1, len(b_offsets) - 1, dtype=torch.float64)
    backward = torch.zeros_like(forward)
    for i in range(forward.shape[0]):
        for j in range(forward.shape[1]):
            x, y = a[a_offsets[i] : a_offsets[i + 1]], b[b_offsets[j] : b_offsets[j + 1]]
            pair = nearest_both(x, torch.tensor([0, len(x)]), y, torch.tensor([0, len(y)]), engine="torch")
            for out, found in zip((forward, backward), pair, strict=True):
                values = found.squared.double() if squared else found.squared.double().sqrt()
                out[i, j] = values.mean() if len(values) else 0.0
    return forward, backward


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("dim", [2, 3, 4])
def test_engines_agree_with_nearest_neighbours_pair_by_pair(engine, dtype, squared, dim):
    a, a_offsets = clouds([5, 0, 33, 100], dim, 1, dtype)
    b, b_offsets = clouds([16, 1, 0, 130, 17], dim, 2, dtype)
    expected = one_by_one(a, a_offsets, b, b_offsets, squared)
    found = pairwise_chamfer(a, a_offsets, b, b_offsets, squared=squared, engine=engine)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f, e, rtol=tolerance, atol=0)


def test_instruction_sets_agree(level):
    a, a_offsets = clouds([2100, 700], 3, 3)
    b, b_offsets = clouds([300, 4100], 3, 4)
    found = pairwise_chamfer(a, a_offsets, b, b_offsets, engine="native")
    expected = pairwise_chamfer(a, a_offsets, b, b_offsets, engine="torch")
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f, e, rtol=3 * torch.finfo(torch.float32).eps, atol=0)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_set_with_itself_is_symmetric_with_a_zero_diagonal(engine):
    a, offsets = clouds([40, 20, 60], 3, 5)
    forward, backward = pairwise_chamfer(a, offsets, engine=engine)
    assert torch.equal(forward, backward.T)
    assert (forward.diagonal() == 0).all()
    full, _ = pairwise_chamfer(a, offsets, a.clone(), offsets, engine=engine)
    torch.testing.assert_close(forward, full, rtol=1e-12, atol=0)


@pytest.mark.parametrize("engine", ["torch", ENGINES[2]])
def test_a_half_turn_is_no_distance_on_an_axis_of_that_period(engine):
    a, offsets = clouds([40, 30], 2, 6, torch.float64)
    moved = a + torch.tensor([0.0, 0.5], dtype=torch.float64)
    forward, backward = pairwise_chamfer(a, offsets, moved, offsets, period=(math.inf, 0.5), engine=engine)
    assert forward.diagonal().abs().max() < 1e-28
    assert backward.diagonal().abs().max() < 1e-28
    assert forward[0, 1] > 1e-4


@pytest.mark.parametrize("engine", ENGINES)
def test_an_empty_cloud_is_infinitely_far_from_points_and_nowhere_from_itself(engine):
    a, offsets = clouds([3, 0], 2, 7)
    forward, backward = pairwise_chamfer(a, offsets, a.clone(), offsets, engine=engine)
    assert forward.tolist() == [[0.0, math.inf], [0.0, 0.0]]
    assert backward.tolist() == [[0.0, 0.0], [math.inf, 0.0]]


def test_two_threads_give_what_one_gives():
    a, offsets = clouds([200] * 20, 3, 8)
    one = pairwise_chamfer(a, offsets)
    torch.set_num_threads(2)
    two = pairwise_chamfer(a, offsets)
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dim", [1, 2, 3, 6])
def test_skipping_far_leaves_changes_nothing(level, dtype, dim):
    # Clusters far apart, a far outlier, repeated points, clouds of 0 and 1 points among the large ones.
    counts = [900, 0, 1, 17, 1031]
    a, offsets = clouds(counts, dim, 9, dtype)
    b, _ = clouds(counts, dim, 10, dtype)
    a[:400] += 20
    b[100:300] = b[100]
    b[5] = 1e4
    found = pairwise_chamfer(a, offsets, b, offsets, engine="native")
    expected = pairwise_chamfer(a, offsets, b, offsets, engine="torch")
    for f, e in zip(found, expected, strict=True):
        # One rounding an axis apart (fused multiply-adds), and the order of a sum in float64.
        torch.testing.assert_close(f, e, rtol=max(dim * torch.finfo(dtype).eps, 1e-14), atol=0)


@pytest.mark.parametrize("count", [40, 600])
def test_nan_makes_the_distance_infinite_not_small(level, count):
    a, offsets = clouds([count, count], 3, 11)
    a[count // 2, 1] = math.nan
    forward, _ = pairwise_chamfer(a, offsets, a.clone(), offsets, engine="native")
    assert forward.isinf().tolist() == [[True, True], [False, False]]
