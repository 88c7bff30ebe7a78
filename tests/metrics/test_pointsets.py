import math

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from sparsegen import metrics
from sparsegen.errors import ConfigError, DataError
from sparsegen.events import Events
from sparsegen.metrics.occupancy import js_divergence
from sparsegen.metrics.pointsets import (
    coverage_of_matches,
    minimum_matching_distance,
    nearest_neighbour_accuracy,
    pairwise_distances,
)

NAMES = ("mmd_cd", "mmd_emd", "cov_cd", "cov_emd", "nna_cd", "nna_emd")
small = pytest.mark.filterwarnings("ignore::sparsegen.metrics.SmallSampleWarning")


def clouds(n, seed=0, points=16, spread=1.0, centre=0.0, dtype=torch.float32):
    """Clouds, each an ellipse of random half-axes."""
    rng = np.random.default_rng(seed)
    axes = rng.uniform(0.1, 0.4, size=(n, 1, 3)) * spread
    x = rng.normal(size=(n, points, 3))
    x = x / np.linalg.norm(x, axis=2, keepdims=True) * axes + centre
    flat = torch.tensor(x.reshape(-1, 3), dtype=dtype)
    return Events(
        flat, torch.ones(len(flat), 1, dtype=dtype), torch.arange(n + 1) * points, axes=("x", "y", "z"), columns=("w",)
    )


def slow(a, b, kind):
    out = np.zeros((len(a), len(b)))
    for i in range(len(a)):
        for j in range(len(b)):
            d = cdist(a[i].coords.double(), b[j].coords.double())
            if kind == "cd":
                out[i, j] = (d**2).min(0).mean() + (d**2).min(1).mean()
            else:
                out[i, j] = d[linear_sum_assignment(d)].mean()
    return out


@pytest.mark.parametrize("kind", ["cd", "emd"])
def test_distances_equal_a_slow_loop_also_far_from_the_origin(kind):
    a, b = clouds(5, 0), clouds(4, 1)
    assert np.allclose(pairwise_distances(a, b, kind), slow(a, b, kind), rtol=1e-5)
    assert np.allclose(pairwise_distances(a, None, kind), slow(a, a, kind), rtol=1e-5, atol=1e-9)
    far_a, far_b = (e.replace(coords=e.coords + 10.0) for e in (a, b))
    assert np.allclose(pairwise_distances(far_a, far_b, kind), slow(far_a, far_b, kind), rtol=1e-5)
    assert np.diag(pairwise_distances(far_a, far_a, kind)).max() == 0


def test_unknown_distance_is_refused():
    with pytest.raises(ConfigError, match="cd"):
        pairwise_distances(clouds(2), None, "hausdorff")


def test_accuracy_equals_a_slow_loop():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(11, 2))
    d = cdist(x, x)
    labels = np.r_[np.zeros(6), np.ones(5)]
    right = []
    for i in range(11):
        others = [j for j in range(11) if j != i]
        right.append(labels[min(others, key=lambda j: d[i, j])] == labels[i])
    found = nearest_neighbour_accuracy(d[:6, :6], d[:6, 6:], d[6:, 6:])
    assert found == pytest.approx((np.mean(right), np.mean(right[:6]), np.mean(right[6:])))
    with pytest.raises(DataError, match="1-NNA"):
        nearest_neighbour_accuracy(d[:6, :6], d[:5, 6:], d[6:, 6:])


def test_orientation_of_the_matrix_matters_and_is_generated_by_real():
    # One generated set near everything: it matches one real set, and every real set has it near.
    d = np.array([[0.1, 0.2, 0.3], [9.0, 9.1, 9.2]])
    assert minimum_matching_distance(d) == pytest.approx(0.2)
    assert coverage_of_matches(d) == pytest.approx(1 / 3)
    assert coverage_of_matches(d.T) == pytest.approx(1 / 2)


@small
@pytest.mark.parametrize("kind", ["cd", "emd"])
def test_identical_samples(kind):
    """Twins: every distance to the other sample's copy is zero, whatever order they are in."""
    x = clouds(20, 0)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    for name, value in (("mmd", 0), ("cov", 1), ("nna", 0)):
        assert metrics.METRICS[f"{name}_{kind}"].function(x[order], x).value == value
    d = pairwise_distances(x, x, kind)
    own = pairwise_distances(x, None, kind)
    assert minimum_matching_distance(d) == 0
    assert coverage_of_matches(d) == 1
    assert nearest_neighbour_accuracy(own, d, own) == (0, 0, 0)


@small
@pytest.mark.parametrize("kind", ["cd", "emd"])
def test_real_halves_are_at_half_and_coverage_of_a_perfect_sampler_is_far_from_one(kind):
    data = clouds(160, 1)
    nna = metrics.METRICS[f"nna_{kind}"].function(data[:40], data[40:])
    assert abs(nna.value - 0.5) < 4 * nna.error
    assert 0.25 < nna.floor < 0.75
    cov = metrics.METRICS[f"cov_{kind}"].function(data[:40], data[40:])
    assert 0.4 < cov.floor < 0.8
    assert abs(cov.value - cov.floor) < 5 * cov.error


@small
def test_blobs_are_at_one_and_jittered_copies_at_zero():
    data = clouds(120, 1, points=64)
    blobs = data.replace(coords=torch.randn(data.coords.shape, generator=torch.Generator().manual_seed(0)) * 0.15)
    apart = metrics.nna_cd(blobs[:60], data)
    assert apart.value > 0.85
    cov = metrics.cov_cd(blobs[:60], data)
    assert cov.value < 0.75 * cov.floor
    noise = 0.002 * torch.randn(data.coords.shape, generator=torch.Generator().manual_seed(1))
    own = pairwise_distances(data, None, "cd")
    copies = data.replace(coords=data.coords + noise)
    between = pairwise_distances(copies, data, "cd")
    assert nearest_neighbour_accuracy(pairwise_distances(copies, None, "cd"), between, own)[0] < 0.05
    assert coverage_of_matches(between) > 0.95


@small
def test_a_dropped_mode_lowers_coverage_and_raises_the_accuracy():
    order = torch.randperm(120, generator=torch.Generator().manual_seed(0))
    both = Events.cat([clouds(60, 0), clouds(60, 1, centre=3.0)])[order]
    only = clouds(60, 2)
    cov = metrics.cov_cd(only, both)
    assert cov.value < 0.75 * cov.floor
    nna = metrics.nna_cd(only, both)
    assert nna.value > 0.5 + 2 * nna.error


def test_a_narrow_generator_shows_in_the_one_sided_accuracies():
    # Generated sets crowd in one place; real ones find them nearer than each other.
    place = np.r_[np.linspace(-0.01, 0.01, 8), 10.0 * np.arange(-4, 4) + 5]
    d = np.abs(place[:, None] - place[None])
    both, of_generated, of_real = nearest_neighbour_accuracy(d[:8, :8], d[:8, 8:], d[8:, 8:])
    assert of_generated == 1
    assert of_real < 1
    assert both == pytest.approx((of_generated + of_real) / 2)


@small
def test_chamfer_hardly_sees_points_piled_on_one_part_and_emd_does():
    even = clouds(1, 0, points=64)
    # The same places, but most points sit on the first few.
    piled = even.replace(
        coords=torch.cat([even.coords, even.coords[:1].expand(192, 3)]),
        features=torch.ones(256, 1),
        offsets=torch.tensor([0, 256]),
    )
    spread = even.replace(coords=even.coords.repeat(4, 1), features=torch.ones(256, 1), offsets=torch.tensor([0, 256]))
    assert pairwise_distances(piled, spread, "cd").item() == pytest.approx(0, abs=1e-12)
    assert pairwise_distances(piled, spread, "emd").item() > 0.1


@small
def test_one_global_scale_leaves_accuracy_and_coverage_and_moves_mmd():
    data = clouds(90, 4)
    big = data.replace(coords=3 * data.coords)
    for name in ("nna_cd", "cov_cd"):
        function = metrics.METRICS[name].function
        assert function(big[:30], big[30:]).value == function(data[:30], data[30:]).value
    ratio = metrics.mmd_cd(big[:30], big[30:]).value / metrics.mmd_cd(data[:30], data[30:]).value
    assert ratio == pytest.approx(9, rel=1e-5)


@small
@pytest.mark.parametrize("name", NAMES)
def test_seeded_counted_and_both_sizes_equal(name):
    data = clouds(60, 5)
    bad = data[:30]
    coords = bad.coords.clone()
    coords[0] = math.nan
    function = metrics.METRICS[name].function
    first, again = (function(bad.replace(coords=coords), data) for _ in range(2))
    assert first == again
    assert first.invalid == 1
    assert first.protocol["events"] == [29, 29]
    assert "normalisation" in first.protocol


def test_sets_of_unequal_size_have_an_earth_movers_distance():
    a, b = clouds(1, 0, points=6, dtype=torch.float64), clouds(1, 1, points=4, dtype=torch.float64)
    # Points split into equal parts: 12 a side.
    x, y = (np.repeat(e.coords.numpy(), k, axis=0) for e, k in ((a, 2), (b, 3)))
    d = cdist(x, y)
    assert pairwise_distances(a, b, "emd").item() == pytest.approx(d[linear_sum_assignment(d)].mean(), rel=1e-9)


def test_divergence_closed_forms():
    assert js_divergence([1, 0], [0, 1]) == 1
    assert js_divergence([3, 1], [6, 2]) == 0
    p, q = np.array([0.5, 0.5]), np.array([0.9, 0.1])
    m = (p + q) / 2
    expected = sum(0.5 * x[i] * math.log2(x[i] / m[i]) for x in (p, q) for i in range(2))
    assert js_divergence(p, q) == pytest.approx(expected)
    with pytest.raises(DataError):
        js_divergence([1, 2], [0, 0])


def test_jsd_follows_the_published_lattice_and_counts_what_lies_outside():
    a, b = clouds(50, 0), clouds(60, 1)
    line = np.arange(28) / 27 - 0.5
    centres = np.stack(np.meshgrid(line, line, line, indexing="ij"), -1).reshape(-1, 3)
    centres = centres[np.linalg.norm(centres, axis=1) <= 0.5]
    histograms = [np.bincount(cdist(e.coords.double(), centres).argmin(1), minlength=len(centres)) for e in (a, b)]
    result = metrics.jsd(a, b)
    assert result.value == pytest.approx(js_divergence(*histograms))
    assert result.protocol["outside"] == [0, 0]
    assert metrics.jsd(a, a).value == 0
    far = a.replace(coords=a.coords + 2.0)
    assert metrics.jsd(far, b).protocol["outside"] == [len(a.coords), 0]
    assert metrics.jsd(far, b).value > 0.9


def test_jsd_of_jets_takes_the_lattice_and_is_honest(jets, more_jets):
    result = metrics.jsd(more_jets, jets)
    assert "25" in result.protocol["lattice"]
    assert abs(result.value - result.floor) < 4 * result.error


@small
def test_every_metric_of_bare_points_is_that_of_points_that_count_as_one():
    def bare(events):
        return events.replace(features=events.features[:, :0], columns=())

    weighted, plain = ((clouds(40, 0), clouds(40, 1)), (bare(clouds(40, 0)), bare(clouds(40, 1))))
    one, other = (metrics.evaluate(*pair, ["w1_hits", "frechet", "jsd", "mmd_cd"]) for pair in (weighted, plain))
    assert [r.value for r in one] == [r.value for r in other]


@pytest.mark.parametrize("radius", [1.0, 3.0])
def test_emd_moves_all_the_mass_and_sums_distances_not_their_squares(radius):
    # A matching that leaves mass behind at large radii, or one summed in squares, gives other numbers.
    x = radius * np.random.default_rng(0).normal(size=(1, 64, 3))
    moved = x + np.array([2.0, 0.0, 0.0]) * 100
    a, b = metrics.clouds_from_arrays(x), metrics.clouds_from_arrays(moved)
    assert pairwise_distances(a, b, "emd")[0, 0] == pytest.approx(200.0, rel=1e-9)
    assert pairwise_distances(a, b, "cd")[0, 0] > 2 * 100**2


@pytest.mark.filterwarnings("ignore::sparsegen.metrics.SmallSampleWarning")
def test_the_protocol_names_distance_normalisation_and_points():
    rng = np.random.default_rng(1)
    a, b = (metrics.clouds_from_arrays(rng.normal(size=(8, 12, 3))) for _ in range(2))
    for name, distance in (("nna_cd", "Chamfer, squared"), ("nna_emd", "exact")):
        protocol = metrics.METRICS[name].function(a, b).protocol
        assert distance in protocol["distance"]
        assert protocol["normalisation"] == "as given"
        assert protocol["points"] == [12, 12]
        assert len(protocol["one_sided"]) == 2


def normalised_alone(events):
    """Every cloud centred and scaled to its own largest coordinate."""
    x = events.coords.view(len(events), -1, 3)
    x = x - x.mean(1, keepdim=True)
    return events.replace(coords=(x / x.abs().amax((1, 2), keepdim=True)).reshape(-1, 3))


@small
def test_normalising_every_shape_alone_hides_a_wrong_size_that_one_global_scale_leaves_visible():
    real, half = clouds(80, 0), clouds(40, 1, spread=0.5)
    seen = metrics.nna_cd(half, real)
    assert seen.value > 0.75
    hidden = metrics.nna_cd(normalised_alone(half), normalised_alone(real))
    assert abs(hidden.value - 0.5) < 4 * hidden.error


@small
def test_generated_comes_first_and_swapping_the_arguments_moves_coverage_and_matching_distance():
    order = torch.randperm(80, generator=torch.Generator().manual_seed(0))
    both = Events.cat([clouds(40, 0), clouds(40, 1, centre=3.0)])[order]
    one = clouds(80, 2)
    # A generator that lacks a mode leaves real sets far from everything; one that has a mode more does not.
    assert metrics.mmd_cd(one, both).value > 100 * metrics.mmd_cd(both, one).value
    assert metrics.cov_cd(one, both).value < metrics.cov_cd(both, one).value


@small
def test_the_protocol_says_how_many_sets_were_at_hand_and_how_many_entered():
    # A validation and a test split of one class differ in size and never stand for one another.
    protocol = metrics.mmd_cd(clouds(30, 0), clouds(50, 1)).protocol
    assert protocol["available"] == [30, 50]
    assert protocol["events"] == [30, 30]


@pytest.mark.parametrize("kind", ["cd", "emd"])
def test_a_shape_sampled_twice_is_at_a_distance_that_falls_with_the_points_and_lies_below_other_shapes(kind):
    floors = []
    for points in (64, 512):
        rng = np.random.default_rng(points)
        axes = np.random.default_rng(0).uniform(0.1, 0.4, size=(6, 1, 3))
        x = rng.normal(size=(2, 6, points, 3))
        twice = [metrics.clouds_from_arrays(s / np.linalg.norm(s, axis=2, keepdims=True) * axes) for s in x]
        d = pairwise_distances(*twice, kind)
        assert (d.argmin(1) == np.arange(6)).all()
        floors.append(np.diag(d).mean())
        assert 0 < floors[-1] < np.median(d[~np.eye(6, dtype=bool)])
    assert floors[1] < 0.6 * floors[0]


def test_chamfer_is_never_negative_for_near_copies_far_from_the_origin():
    x = 1000.0 + 1e-4 * np.random.default_rng(0).normal(size=(4, 128, 3))
    d = pairwise_distances(*(metrics.clouds_from_arrays(s) for s in (x, x + 1e-6)), "cd")
    assert d.min() >= 0
    assert np.diag(d) == pytest.approx(6e-12, rel=0.05)
