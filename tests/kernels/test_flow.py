import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from sparsegen.errors import ConfigError, DataError
from sparsegen.kernels import assign, pairwise_emd
from sparsegen.kernels.native import extension

ENGINES = [
    "scipy",
    pytest.param("native", marks=pytest.mark.skipif(extension() is None, reason="no native extension")),
]
native = pytest.mark.skipif(extension() is None, reason="no native extension")


def ragged(counts, seed, dim=2, kind="normal"):
    source = np.random.default_rng(seed)
    n = int(np.sum(counts))
    # Integers: many equal distances and masses, so that most pivots move nothing.
    points = source.integers(0, 3, (n, dim)).astype(float) if kind == "integers" else source.normal(size=(n, dim))
    masses = source.integers(0, 3, n).astype(float) if kind == "integers" else source.exponential(size=n)
    return torch.from_numpy(points), torch.tensor([0, *np.cumsum(counts)]), torch.from_numpy(masses)


@native
@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=3),
    st.lists(st.integers(0, 9), min_size=1, max_size=3),
    st.integers(0, 10_000),
    st.sampled_from(["normal", "integers"]),
    st.sampled_from([None, 0.0, 0.3, 2.0]),
)
def test_both_engines_agree_for_any_masses_and_any_price_of_what_is_unmatched(left, right, seed, kind, unmatched):
    a, a_offsets, mass_a = ragged(left, seed, kind=kind)
    b, b_offsets, mass_b = ragged(right, seed + 1, kind=kind)
    found = [
        pairwise_emd(a, a_offsets, b, b_offsets, a_masses=mass_a, b_masses=mass_b, unmatched=unmatched, engine=engine)
        for engine in ("native", "scipy")
    ]
    assert torch.allclose(*found, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("mass", [None, 0.3])
def test_as_many_points_of_one_mass_cost_what_their_best_matching_does(engine, mass, level):
    counts = [1, 2, 7, 33]
    (a, offsets, _), (b, _, _) = ragged(counts, 5), ragged(counts, 6)
    masses = (
        {}
        if mass is None
        else {
            "a_masses": torch.full((len(a),), mass, dtype=a.dtype),
            "b_masses": torch.full((len(b),), mass, dtype=b.dtype),
        }
    )
    found = pairwise_emd(a, offsets, b, offsets, unmatched=None if mass is None else 2.0, engine=engine, **masses)
    for k, n in enumerate(counts):
        own = slice(*offsets[k : k + 2])
        cost = cdist(a[own], b[own])
        best = cost[linear_sum_assignment(cost)].sum() * (1 / n if mass is None else mass)
        assert float(found[k, k]) == pytest.approx(best, rel=1e-9)


@native
def test_every_instruction_set_equals_pot(level):
    ot = pytest.importorskip("ot")
    a, a_offsets, mass_a = ragged([1, 7, 30, 64], 1)
    b, b_offsets, mass_b = ragged([2, 33, 50], 2)
    found = pairwise_emd(a, a_offsets, b, b_offsets, a_masses=mass_a, b_masses=mass_b)
    for i in range(4):
        for j in range(3):
            rows, columns = slice(*a_offsets[i : i + 2]), slice(*b_offsets[j : j + 2])
            u, v = mass_a[rows].numpy(), mass_b[columns].numpy()
            expected = ot.emd2(u / u.sum(), v / v.sum(), cdist(a[rows], b[columns]))
            assert float(found[i, j]) == pytest.approx(expected, rel=1e-9)


@native
def test_equal_masses_and_sizes_give_the_assignment():
    a, offsets, _ = ragged([40, 40], 3)
    b, _, _ = ragged([40, 40], 4)
    partner = assign(a, offsets, b, offsets, power=1)
    expected = (a - b[partner]).norm(dim=1).view(2, 40).mean(1)
    assert torch.allclose(pairwise_emd(a, offsets, b, offsets).diagonal(), expected, rtol=1e-12)


@pytest.mark.parametrize("engine", ENGINES)
def test_one_sample_with_itself_is_symmetric_with_a_zero_diagonal(engine):
    a, offsets, masses = ragged([3, 5, 4], 5)
    both = pairwise_emd(a, offsets, a, offsets, a_masses=masses, b_masses=masses, engine=engine)
    own = pairwise_emd(a, offsets, a_masses=masses, engine=engine)
    assert torch.equal(own, own.T)
    assert torch.equal(own.diagonal(), torch.zeros(3, dtype=torch.float64))
    assert torch.allclose(own, both, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("engine", ENGINES)
def test_translation_scale_and_the_short_way_round(engine):
    a, offsets, masses = ragged([6], 6)
    a = 0.05 * a
    move = torch.tensor([3.0, -4.0], dtype=torch.float64)
    extra = {"a_masses": masses, "b_masses": masses, "engine": engine}
    assert float(pairwise_emd(a, offsets, a + move, offsets, **extra)) == pytest.approx(5)
    assert float(pairwise_emd(a, offsets, a + move, offsets, period=(3.0, 5.0), **extra)) == pytest.approx(1)
    heavier = dict(extra, a_masses=4 * masses, unmatched=0.5)
    assert float(pairwise_emd(a, offsets, a, offsets, **heavier)) == pytest.approx(1.5 * float(masses.sum()))


@pytest.mark.parametrize("engine", ENGINES)
def test_faults_are_named(engine):
    a, offsets, masses = ragged([2, 2], 7)
    broken = a.clone()
    broken[3] = torch.nan
    with pytest.raises(DataError, match="set 1 of a or set 0 of b"):
        pairwise_emd(broken, offsets, a, offsets, engine=engine)
    with pytest.raises(DataError, match="none negative"):
        pairwise_emd(a, offsets, a_masses=-masses, engine=engine)
    with pytest.raises(ConfigError, match="unmatched=-1"):
        pairwise_emd(a, offsets, unmatched=-1.0, engine=engine)
    with pytest.raises(DataError, match="agree in axes"):
        pairwise_emd(a, offsets, a[:, :1], offsets, engine=engine)
