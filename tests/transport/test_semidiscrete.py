import math

import numpy as np
import ot
import pytest
import torch
from scipy.stats import norm

from sparsegen.errors import ConfigError, DataError
from sparsegen.kernels import MirrorSearch
from sparsegen.transport import SemiDiscreteOT
from sparsegen.transport.cells import best_cells
from sparsegen.transport.certificate import certify_counts, samples_needed
from sparsegen.transport.newton2d import NORMAL, SQUARE, newton_heights, power_cells
from sparsegen.transport.sampling import _repeats, measure_cells
from sparsegen.transport.sgd import best_search, gaussian_heights
from sparsegen.transport.source import Source


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def gaussians(n, d, seed=0):
    return torch.randn(n, d, dtype=torch.double, generator=seeded(seed))


def dirichlet(n, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).dirichlet(np.full(n, 5.0)))


# Cells


def test_cells_agree_with_brute_force_across_tiles(monkeypatch):
    monkeypatch.setattr("sparsegen.transport.cells.ROWS", 7)
    monkeypatch.setattr("sparsegen.transport.cells.COLUMNS", 5)
    x, y, h = gaussians(20, 3), gaussians(33, 3, 1), gaussians(33, 1, 2)[:, 0]
    scores = x @ y.T + h
    best, where = best_cells(x, y, h, 4)
    torch.testing.assert_close(best, scores.topk(4).values)
    assert torch.equal(where, scores.topk(4).indices)


# Exact solvers


@pytest.mark.parametrize("source", ["uniform", "normal"])
def test_on_a_line_the_map_is_the_quantile_map(source):
    y, w = gaussians(30, 1), dirichlet(30)
    transport = SemiDiscreteOT(y, w, source)
    certificate = transport.fit()
    x = torch.linspace(-0.499, 0.499, 501, dtype=torch.double)[:, None] * (1 if source == "uniform" else 6)
    level = x + 0.5 if source == "uniform" else torch.from_numpy(norm.cdf(x))
    order = y[:, 0].argsort()
    expected = y[order[torch.searchsorted(w[order].cumsum(0), level[:, 0]).clamp_max(29)]]
    assert torch.equal(transport.map(x), expected)
    assert certificate.samples == 0
    assert certificate.rms < 1e-10


def test_targets_on_a_line_in_space_are_solved_as_such():
    place = gaussians(20, 1)
    transport = SemiDiscreteOT(place * torch.tensor([1.0, 2.0, -1.0], dtype=torch.double) + 5, source="normal")
    assert transport.fit().rms < 1e-10
    constant = SemiDiscreteOT(torch.cat([place, torch.full((20, 1), 3.0)], 1))
    assert constant.fit().rms < 1e-10
    oblique = SemiDiscreteOT(place * torch.tensor([1.0, 2.0], dtype=torch.double))
    certificate = oblique.fit(generator=seeded(0))
    assert certificate.converged
    assert certificate.samples > 0


@pytest.mark.parametrize("law", [SQUARE, NORMAL])
def test_exact_cells_are_those_of_a_fine_grid(law):
    y, h = gaussians(15, 2).numpy(), 0.2 * gaussians(15, 1, 1)[:, 0].numpy()
    cells = power_cells(y, h, law)
    grid = ((np.arange(600) + 0.5) / 600 - 0.5) * (1 if law is SQUARE else 12)
    x = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)
    density = np.ones(len(x)) if law is SQUARE else np.exp(-(x**2).sum(1) / 2)
    density /= density.sum()
    owner = (x @ y.T + h).argmax(1)
    np.testing.assert_allclose(cells.masses, np.bincount(owner, weights=density, minlength=15), atol=2e-3)
    for axis in range(2):
        moment = np.bincount(owner, weights=density * x[:, axis], minlength=15)
        np.testing.assert_allclose(cells.moments[:, axis], moment, atol=5e-3)
    assert cells.masses.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("law", [SQUARE, NORMAL])
def test_walls_over_distances_are_the_hessian(law):
    y, h, e = gaussians(15, 2).numpy(), 0.2 * gaussians(15, 1, 1)[:, 0].numpy(), 1e-6
    cells = power_cells(y, h, law)
    hessian = np.zeros((15, 15))
    i, j = cells.walls.T
    rate = cells.lengths / np.hypot(*(y[i] - y[j]).T)
    np.add.at(hessian, (np.r_[i, j, i, j], np.r_[j, i, i, j]), np.r_[-rate, -rate, rate, rate])
    differences = [
        (power_cells(y, h + e * d, law).masses - power_cells(y, h - e * d, law).masses) / (2 * e) for d in np.eye(15)
    ]
    np.testing.assert_allclose(hessian, differences, atol=1e-7)


def test_a_wall_through_the_origin_halves_a_normal_law():
    y = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, -50.0]])
    masses = power_cells(y, np.array([0.0, 0.0, -500.0]), NORMAL).masses
    np.testing.assert_allclose(masses, [0.5, 0.5, 0.0], atol=1e-12)


@pytest.mark.parametrize("source", ["uniform", "normal"])
@pytest.mark.parametrize("n", [3, 40])
def test_newton_meets_any_weights_exactly(n, source):
    transport = SemiDiscreteOT(gaussians(n, 2), dirichlet(n), source)
    certificate = transport.fit(tol=1e-6)
    assert certificate.converged
    assert certificate.rms < 1e-8
    assert certificate.empty_bound == 0
    torch.testing.assert_close(transport.cell_measures, dirichlet(n), rtol=1e-7, atol=0)


def test_newton_on_a_regular_lattice_where_four_cells_meet():
    side = np.linspace(-1, 1, 6)
    y = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    _, cells = newton_heights(y, np.full(36, 1 / 36), 1e-10, math.inf)
    np.testing.assert_allclose(cells.masses * 36, 1, atol=1e-9)


def test_the_cost_is_that_of_the_linear_program_on_a_discretised_source():
    y, w = gaussians(12, 2), dirichlet(12)
    transport = SemiDiscreteOT(y, w)
    certificate = transport.fit()
    grid = (np.arange(40) + 0.5) / 40 - 0.5
    x = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)
    exact = ot.emd2(np.full(1600, 1 / 1600), w.numpy(), ot.dist(x, y.numpy()), numItermax=1_000_000)
    assert transport.transport_cost == pytest.approx(exact, abs=2e-3)
    assert certificate.dual == pytest.approx(transport.transport_cost, abs=1e-9)


# Stochastic solvers


@pytest.mark.parametrize("source", ["uniform", "normal", lambda n, g: torch.rand(n, 5, generator=g).square()])
def test_averaged_sgd_keeps_its_promise(source):
    transport = SemiDiscreteOT(gaussians(60, 5) * 2 + 3, dirichlet(60), source)
    certificate = transport.fit(tol=0.1, generator=seeded(0))
    assert certificate.converged
    x = transport.source.draw(400_000, seeded(1), transport.targets)
    share = torch.bincount(transport.assign(x), minlength=60) / 400_000
    relative = share / transport.weights - 1
    assert (transport.weights * relative.square()).sum().sqrt() < 0.1
    # the map pays what the dual says, but for the masses that are not yet right
    gap = transport.transport_cost - certificate.dual
    wrong = transport.cell_measures - transport.weights
    assert gap == pytest.approx(float(wrong @ (transport.targets.square().sum(1) + 2 * transport.heights)), abs=1e-3)


def test_mirror_images_are_used_where_they_are_worth_it():
    def groups(targets, source):
        law = Source(source, targets.shape[1])
        weights = torch.full((len(targets),), 1 / len(targets))
        return best_search(targets, law, gaussian_heights(targets, weights, law, None), seeded(0)).groups

    y = gaussians(400, 16).float()
    assert groups(y, "uniform") == 16
    assert groups(y, lambda n, g: torch.rand(n, 16, generator=g)) == 0
    assert groups(y[:, :3].contiguous(), "normal") == 0
    # few directions that matter: images that differ elsewhere are the same sample over again
    assert groups(y * torch.tensor(2 * [1.0] + 14 * [1e-3]), "uniform") == 4


def test_stochastic_and_exact_solvers_agree_in_the_plane():
    y = gaussians(20, 2)
    exact, stochastic = SemiDiscreteOT(y), SemiDiscreteOT(y)
    exact.fit()
    stochastic.fit(tol=0.1, generator=seeded(0), solver="sgd")
    x = torch.rand(5000, 2, dtype=torch.double, generator=seeded(1)) - 0.5
    assert (exact.assign(x) == stochastic.assign(x)).double().mean() > 0.9


def test_the_classical_solver_is_there_for_reference():
    certificate = SemiDiscreteOT(gaussians(20, 4)).fit(tol=0.2, max_seconds=20, generator=seeded(0), solver="adam")
    assert certificate.converged


def test_two_targets_are_parted_by_a_hyperplane_at_a_quantile():
    direction = torch.tensor([3.0, 0.0, 4.0], dtype=torch.double) / 5
    transport = SemiDiscreteOT(torch.stack([-direction, direction]), torch.tensor([0.3, 0.7]), "normal")
    transport.fit()
    x = gaussians(2000, 3)
    assert torch.equal(transport.assign(x), (x @ direction > norm.ppf(0.3)).long())


def test_many_targets_start_from_clusters(monkeypatch):
    monkeypatch.setattr("sparsegen.transport.semidiscrete.TWO_LEVEL", 500)
    transport = SemiDiscreteOT(gaussians(1000, 6))
    heights = transport._start(seeded(0))
    x = transport.source.draw(20_000, seeded(1), transport._unit)
    zero, start = (transport._search.best(x, h).cells for h in (heights * 0, heights))
    assert (start.bincount(minlength=1000) == 0).sum() < (zero.bincount(minlength=1000) == 0).sum() / 5


# The certificate


@pytest.mark.parametrize(
    ("n", "spread", "samples"), [(3, 0.1, 3000), (200, 0.05, 20_000), (500, 0.3, 3000), (50, 0.0, 9000)]
)
def test_the_interval_of_the_certificate_holds_the_true_error(n, spread, samples):
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        nu = rng.dirichlet(np.full(n, 5.0))
        w = nu * np.exp(spread * rng.normal(size=n))
        w /= w.sum()
        certificate = certify_counts(rng.multinomial(samples, w), nu, 0.0, 0.0, 0.05, 0.0)
        true = math.sqrt(float((nu * (w / nu - 1) ** 2).sum()))
        held += certificate.rms_ci[0] <= true <= certificate.rms_ci[1]
        assert certificate.tv_bound == certificate.rms_ci[1] / 2
    # 95 % of 300, less four standard deviations
    assert held > 270


@pytest.mark.parametrize(("n", "dim", "groups"), [(20, 4, 4), (100, 8, 8), (12, 16, 16)])
def test_the_interval_holds_where_samples_come_as_mirror_images(n, dim, groups):
    y, h = gaussians(n, dim).float(), 0.05 * gaussians(n, 1, 1)[:, 0].float()
    y, source, nu = y / y.std(), Source("uniform", dim), np.full(n, 1 / n)
    zero = torch.zeros(dim)
    plain = measure_cells(MirrorSearch(y, 0), h, source, zero, 1.0, 1_000_000, seeded(0))
    true = certify_counts(plain.counts.numpy(), nu, 0.0, 0.0, 0.05, 0.0).rms
    search, g, held = MirrorSearch(y, groups), seeded(1), 0
    for _ in range(100):
        found = measure_cells(search, h, source, zero, 1.0, 2000, g)
        blocks = found.repeats.numpy(), found.blocks.numpy()
        certificate = certify_counts(found.counts.numpy(), nu, 0.0, 0.0, 0.05, 0.0, *blocks)
        held += certificate.rms_ci[0] <= true <= certificate.rms_ci[1]
    # 95 % of 100, less four standard deviations
    assert held > 86
    many = found.counts > 100
    torch.testing.assert_close(found.barycentres[many], plain.barycentres[many], rtol=0, atol=0.15)


def test_repeats_are_pairs_of_images_in_one_cell():
    cells = torch.tensor([[2, 0, 2, 2], [1, 1, 0, 0]])
    assert _repeats(cells, 3).tolist() == [2, 2, 6]


def test_bounds_hold_at_once():
    rng = np.random.default_rng(1)
    nu, w = np.full(100, 0.01), rng.dirichlet(np.full(100, 3.0))
    broken = 0
    for _ in range(200):
        certificate = certify_counts(rng.multinomial(3000, w), nu, 0.0, 0.0, 0.05, 0.0)
        broken += certificate.max_bound < (w / nu - 1).max()
        assert certificate.empty_bound >= (w == 0).sum()
    assert broken <= 20


def test_enough_samples_confirm_an_error_below_the_tolerance():
    rng = np.random.default_rng(2)
    w = np.full(1000, 1e-3) * (1 + 0.0425 * np.tile([1, -1], 500))
    runs = [rng.multinomial(samples_needed(1000, 0.05), w) for _ in range(50)]
    assert sum(certify_counts(c, np.full(1000, 1e-3), 0.0, 0.0, 0.05, 0.0).converged for c in runs) > 40


def test_no_time_no_claim():
    certificate = SemiDiscreteOT(gaussians(3000, 16)).fit(tol=0.01, max_seconds=0.2, generator=seeded(0))
    assert not certificate.converged
    assert certificate.rms_ci[1] > 0.01
    assert "not converged" in str(certificate)


# Identities


def test_translation_and_scaling_leave_the_cells_alone():
    y, x = gaussians(15, 2), torch.rand(500, 2, dtype=torch.double, generator=seeded(3)) - 0.5
    plain, moved = SemiDiscreteOT(y), SemiDiscreteOT(4 * y + torch.tensor([100.0, -7.0], dtype=torch.double))
    for transport in (plain, moved):
        transport.fit()
    assert torch.equal(plain.assign(x), moved.assign(x))
    gap = moved.heights - 4 * plain.heights + 0 * x[0, 0]
    # heights over moved targets differ by the scale and a constant, as <x, c> is common to all planes
    assert (gap - gap.mean()).abs().max() < 1e-6


def test_public_heights_give_the_cells_of_the_public_targets():
    transport = SemiDiscreteOT(gaussians(15, 2) * 3 + 8)
    transport.fit()
    x = torch.rand(500, 2, dtype=torch.double, generator=seeded(3)) - 0.5
    assert torch.equal(transport.assign(x), (x @ transport.targets.T + transport.heights).argmax(1))


def test_equal_targets_are_merged_and_their_weights_added():
    y = gaussians(5, 2)
    transport = SemiDiscreteOT(y[[3, 1, 3, 0, 1, 1]])
    assert transport.merged == 3
    assert torch.equal(transport.targets, y[[3, 1, 0]])
    torch.testing.assert_close(transport.weights, torch.tensor([2.0, 3.0, 1.0], dtype=torch.double) / 6)


# The extended map


def test_the_extended_map_is_continuous_piecewise_linear_on_a_line():
    y, w = torch.tensor([[0.0], [1.0], [4.0]], dtype=torch.double), torch.tensor([0.25, 0.5, 0.25])
    transport = SemiDiscreteOT(y, w)
    transport.fit()
    x = torch.tensor([[-0.375], [-0.25 - 1e-9], [-0.25 + 1e-9], [0.0], [0.125], [0.375]], dtype=torch.double)
    expected = torch.tensor([0.0, 0.5, 0.5, 1.0, 1.75, 4.0], dtype=torch.double)
    torch.testing.assert_close(transport.map(x, extended=True, theta=2.0)[:, 0], expected, rtol=0, atol=1e-6)


def test_a_small_angle_keeps_modes_apart():
    modes = torch.tensor([[-10.0, 0.0], [10.0, 0.0]], dtype=torch.double)
    transport = SemiDiscreteOT((modes[:, None] + 0.5 * gaussians(200, 2).view(2, 100, 2)).view(-1, 2))
    transport.fit()
    points, share = transport.sample(4000, seeded(1), theta=0.2)
    assert share > 0.9
    between = (points[:, 0].abs() < 5).double().mean()
    assert between == 0
    assert transport.sample(4000, seeded(1), theta=3.0)[0][:, 0].abs().min() < 5
    # both modes keep their mass, and samples are new points
    assert abs((points[:, 0] > 0).double().mean() - 0.5) < 0.04
    assert torch.cdist(points, transport.targets).amin(1).median() > 1e-3


def test_a_reach_keeps_modes_apart_wherever_they_are_and_whatever_their_scale():
    step = torch.linspace(-2.0, 2.0, 5, dtype=torch.double)
    modes = torch.cartesian_prod(step, step)
    y = (modes[:, None] + 0.03 * gaussians(400, 2).view(25, 16, 2)).view(-1, 2)
    off_modes, shares = [], []
    for scale, shift in ((1.0, 0.0), (1e3, 5e4)):
        transport = SemiDiscreteOT(scale * y + shift)
        transport.fit()
        for tests in ({"theta": math.pi, "reach": 5.0}, {"theta": 0.5}):
            points, share = transport.sample(2000, seeded(1), **tests)
            distance = torch.cdist((points - shift) / scale, modes).amin(1)
            off_modes.append(float((distance > 0.2).double().mean()))
            shares.append(share)
    # the angle between two codes of neighbouring modes is small far from the origin
    assert off_modes[0] == off_modes[2] == 0 < min(off_modes[1], off_modes[3])
    assert shares[0] == shares[2] > 0.9


def test_a_reach_that_rejects_everything_says_which_would_not():
    transport = SemiDiscreteOT(gaussians(10, 2))
    transport.fit()
    with pytest.raises(ConfigError, match=r"reach=1e-06 accepts no pair.*by reach.*10: 100.0%"):
        transport.sample(10, seeded(0), theta=math.pi, reach=1e-6)
    with pytest.raises(ConfigError, match="reach=0; expected a positive number"):
        transport.map(torch.zeros(1, 2), extended=True, reach=0)


def test_the_hard_map_gives_targets():
    transport = SemiDiscreteOT(gaussians(10, 2))
    transport.fit()
    points, share = transport.sample(50, seeded(0), extended=False)
    assert share == 1.0
    assert (points[:, None] == transport.targets).all(2).any(1).all()


def test_samples_without_a_partner_can_be_dropped():
    modes = torch.tensor([[-10.0, 0.0], [10.0, 0.0]], dtype=torch.double)
    lonely = torch.tensor([[0.0, 30.0]], dtype=torch.double)
    y = torch.cat([(modes[:, None] + 0.5 * gaussians(60, 2).view(2, 30, 2)).view(-1, 2), lonely])
    transport = SemiDiscreteOT(y)
    transport.fit()
    own, share = transport.sample(5000, seeded(1), theta=0.2)
    kept, same = transport.sample(5000, seeded(1), theta=0.2, rejected="drop")
    assert own.shape == kept.shape
    assert share == pytest.approx(same, abs=0.02)
    assert 0.9 < share < 1
    assert abs((own[:, 1] > 20).double().mean() - 1 / 61) < 0.01
    assert (kept[:, 1] < 20).all()
    with pytest.raises(ConfigError, match="did you mean drop"):
        transport.sample(5, rejected="dropp")


def test_an_angle_that_rejects_everything_says_which_would_not():
    transport = SemiDiscreteOT(gaussians(10, 2))
    transport.fit()
    with pytest.raises(ConfigError, match=r"accepts no pair.*by angle.*1.6: 100.0%"):
        transport.sample(10, seeded(0), theta=1e-6)


# State


def test_a_stopped_fit_goes_on_where_it_stood():
    y = gaussians(300, 6).float()
    whole, first = SemiDiscreteOT(y), SemiDiscreteOT(y)
    first.fit(tol=0.02, max_seconds=0.3, generator=seeded(0))
    second = SemiDiscreteOT(torch.rand(4, 6))
    second.load_state_dict(first.state_dict())
    assert torch.equal(second.heights, first.heights)
    x = whole.source.draw(100, seeded(5), y)
    for extended in (False, True):
        assert torch.equal(first.map(x, extended, 2.0), second.map(x, extended, 2.0))
    results = []
    for transport in (first, second):
        transport._solver.advance(5000, seeded(1))
        results.append(transport._solver.heights)
    assert torch.equal(*results)
    before = first._solver.seen
    first.fit(tol=0.1, max_seconds=5, generator=seeded(1))
    assert first._solver.seen > before


class Interrupts:
    """A sampler that is interrupted once, as by Ctrl-C."""

    def __init__(self, draws):
        self.left = draws

    def __call__(self, n, generator):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return torch.rand(n, 6, generator=generator) - 0.5


def test_an_interrupted_fit_keeps_what_it_reached_and_goes_on():
    transport = SemiDiscreteOT(gaussians(200, 6), source=Interrupts(8))
    start = transport._start(seeded(0))
    with pytest.raises(KeyboardInterrupt):
        transport.fit(tol=0.05, generator=seeded(0))
    seen = transport._solver.seen
    assert seen > 0
    assert torch.equal(transport._heights, transport._solver.heights)
    assert not torch.equal(transport._heights, start)
    with pytest.raises(ConfigError, match="not measured"):
        _ = transport.cell_measures
    certificate = transport.fit(tol=0.2, generator=seeded(1))
    assert certificate.converged
    assert transport._solver.seen > seen


@pytest.mark.parametrize("name", ["sgd", "newton"])
def test_more_time_never_makes_the_map_worse(name):
    y = gaussians(800, 2 if name == "newton" else 8)
    transport = SemiDiscreteOT(y)
    first = transport.fit(tol=0.02, max_seconds=0.05, generator=seeded(0))
    second = transport.fit(tol=0.05, max_seconds=60, generator=seeded(1))
    assert second.converged
    # Each error is an estimate on samples of its own
    assert second.rms_ci[0] <= first.rms_ci[1]


# Bad input


@pytest.mark.parametrize(
    ("targets", "weights", "message"),
    [
        (torch.zeros(1, 2), None, "at least 2"),
        (torch.ones(5, 2), None, "same point"),
        (torch.tensor([[0.0], [math.nan]]), None, "target 1 is not finite"),
        (torch.zeros(3), None, "expected floats"),
        (torch.eye(3), torch.tensor([0.5, 0.5]), "weights of shape"),
        (torch.eye(3), torch.tensor([0.5, 0.5, 0.5]), "sum to 1.5"),
        (torch.eye(3), torch.tensor([0.5, 0.5, 0.0]), "target 2; weights must be positive"),
    ],
)
def test_bad_targets_are_refused(targets, weights, message):
    with pytest.raises(DataError, match=message):
        SemiDiscreteOT(targets, weights)


def test_bad_settings_are_refused():
    y = gaussians(10, 3)
    with pytest.raises(ConfigError, match="unknown source"):
        SemiDiscreteOT(y, source="unifrom")
    with pytest.raises(ConfigError, match=r"samples of shape \(\d+, 3\)"):
        SemiDiscreteOT(y, source=lambda n, g: torch.rand(n, 2)).fit()
    with pytest.raises(ConfigError, match="must be positive"):
        SemiDiscreteOT(y).fit(tol=0)
    with pytest.raises(ConfigError, match="on one line"):
        SemiDiscreteOT(y).fit(solver="quantile")
    with pytest.raises(ConfigError, match="in the plane"):
        SemiDiscreteOT(y, source="normal").fit(solver="newton")
    with pytest.raises(ConfigError, match=r"call fit\(\) first"):
        SemiDiscreteOT(y).sample(3)
    with pytest.raises(DataError, match="3 dimensions"):
        SemiDiscreteOT(y).assign(torch.zeros(4, 2))
