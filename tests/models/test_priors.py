"""Laws of codes: each is fitted, restored and sampled alike; each reproduces a law that it can; cells of conditions."""

from __future__ import annotations

import builtins
from typing import Any

import pytest
import torch
from torch import Tensor

from sparsegen.errors import ConfigError, DataError, MissingExtraError
from sparsegen.models.priors import PRIORS, CodeLaw, ConditionCells, Drift, LatentPrior, Whitening, build_prior

# Enough for a law in the plane, and no more.
QUICK: dict[str, dict[str, Any]] = {
    "flow": {"steps": 150, "lr": 5e-3, "width": 32, "transforms": 2},
    "gan": {"steps": 100, "lr": 1e-3, "width": 32},
    "wgan": {"steps": 150, "lr": 1e-3, "width": 32},
}


# A game comes near the law, no more; the plain one drops modes.
LOOSE = {"wgan": 3}
FAITHFUL = [name for name in PRIORS if name not in ("normal", "gan")]


def short(name: str) -> dict[str, Any]:
    """A fit that need not be good."""
    return {"name": name} | QUICK.get(name, {}) | ({"steps": 15} if name in QUICK else {})


def prior(name: str, **options: Any) -> LatentPrior:
    return build_prior({"name": name} | QUICK.get(name, {}) | options)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def codes(n: int = 600, d: int = 2) -> Tensor:
    """Two unequal modes."""
    generator = seeded(7)
    mode = (torch.rand(n, 1, generator=generator) < 0.3).float()
    return torch.randn(n, d, generator=generator) * 0.3 + 2 * mode - 0.6


@pytest.fixture(scope="module")
def fits() -> dict[str, tuple[LatentPrior, dict[str, Any]]]:
    made = {name: prior(name) for name in PRIORS}
    return {name: (law, law.fit(codes(), seeded())) for name, law in made.items()}


@pytest.mark.parametrize("name", list(PRIORS))
def test_a_law_restored_from_its_state_samples_the_same(name: str, fits: Any) -> None:
    law, log = fits[name]
    assert all(isinstance(value, (int, float)) for value in log.values())
    other = prior(name)
    other.load(law.state())
    first = law.sample(40, seeded(1))
    assert first.shape == (40, 2) and bool(first.isfinite().all()) and not first.requires_grad
    assert torch.equal(other.sample(40, seeded(1)), first)
    assert not torch.equal(law.sample(40, seeded(2)), first)


@pytest.mark.parametrize("name", list(PRIORS))
def test_the_same_seed_fits_the_same_law_and_leaves_the_global_state_alone(name: str) -> None:
    before = torch.get_rng_state()
    laws = [build_prior(short(name)) for _ in range(2)]
    for law in laws:
        law.fit(codes(), seeded())
    first, again = (law.sample(40, seeded(1)) for law in laws)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)


@pytest.mark.parametrize("name", FAITHFUL)
def test_mean_and_spread_of_the_codes_are_reproduced(name: str, fits: Any) -> None:
    made, real = fits[name][0].sample(4000, seeded(3)), codes()
    loose = LOOSE.get(name, 1)
    torch.testing.assert_close(made.mean(0), real.mean(0), rtol=0, atol=0.2 * loose)
    torch.testing.assert_close(made.std(0), real.std(0), rtol=0.2 * loose, atol=0)


@pytest.mark.parametrize("name", FAITHFUL)
def test_both_modes_are_kept(name: str, fits: Any) -> None:
    made = fits[name][0].sample(2000, seeded(4))
    upper = float((made.mean(1) > 0.4).double().mean())
    low, high = (0.05, 0.7) if name in LOOSE else (0.2, 0.4)
    assert low < upper < high, f"{upper:.2f} of the samples are in the mode that holds 0.30 of the codes"


@pytest.mark.parametrize("name", list(PRIORS))
def test_a_law_without_a_fit_says_so(name: str) -> None:
    with pytest.raises(DataError, match="not fitted; train the model through all its stages"):
        prior(name).sample(1, seeded())
    fresh = prior(name)
    fresh.load(prior(name).state())
    with pytest.raises(DataError, match="not fitted"):
        fresh.sample(1, seeded())


def test_the_likelihood_of_a_flow_is_near_that_of_the_truth() -> None:
    normal = torch.randn(1000, 1, generator=seeded(5)) @ torch.tensor([[1.0, 0.8]])
    normal = normal + 0.3 * torch.randn(1000, 2, generator=seeded(6))
    law = prior("flow", steps=120)
    log = law.fit(normal, seeded())
    truth = torch.distributions.MultivariateNormal(torch.zeros(2), normal.T.cov())
    standardised = float(-truth.log_prob(normal).mean()) - float(normal.std(0).log().sum())
    assert abs(log["nll"] - standardised) < 0.15


def test_the_map_reports_its_acceptance_and_certificate() -> None:
    law = prior("ot", theta=0.5)
    law.fit(codes(), seeded())
    assert "acceptance" not in law.report(), "nothing has been drawn yet"
    law.sample(300, seeded(1))
    report = law.report()
    assert 0 < report["acceptance"] <= 1 and report["certificate"]["converged"]
    everywhere = prior("ot", theta=None)
    everywhere.fit(codes(), seeded())
    everywhere.sample(300, seeded(1))
    assert everywhere.report()["acceptance"] == 1.0


def test_the_test_of_the_singular_set_keeps_modes_apart() -> None:
    apart = torch.cat([codes(300) * 0.1 + 3, codes(300) * 0.1 - 3])
    between = []
    for theta, reach in ((0.1, None), (None, 8.0), (None, None)):
        law = prior("ot", theta=theta, reach=reach, tol=1e-3)
        law.fit(apart, seeded())
        between.append(int((law.sample(4000, seeded(1)).mean(1).abs() < 2.5).sum()))
        assert law.report().get("reach") == reach
    assert between[0] == between[1] == 0 < between[2]


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match="unknown latent prior 'normel': did you mean normal"):
        build_prior("normel")
    with pytest.raises(ConfigError, match="unknown option of prior ot 'thta': did you mean theta"):
        build_prior({"name": "ot", "thta": 1})
    with pytest.raises(ConfigError, match="expected a name, or keys and values with a name"):
        build_prior({"theta": 1})
    wrong: list[dict[str, Any]] = [
        {"name": "ot", "theta": 0.0},
        {"name": "ot", "reach": 0.0},
        {"name": "ot", "tol": 0.0},
        {"name": "kde", "width": 0.0},
        {"name": "mixture", "components": 0},
        {"name": "flow", "steps": 0},
        {"name": "wgan", "lr": 0.0},
    ]
    for bad in wrong:
        with pytest.raises(ConfigError, match=r"expected|must be positive"):
            build_prior(bad)


@pytest.mark.parametrize(("name", "package", "extra"), [("flow", "zuko", "flows"), ("mixture", "sklearn", "mixtures")])
def test_a_missing_extra_is_named(name: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = builtins.__import__

    def without(module: str, *rest: Any, **options: Any) -> Any:
        if module.split(".")[0] == package:
            raise ImportError(module)
        return plain(module, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=rf"pip install 'sparsegen\[{extra}\]'"):
        prior(name).fit(codes(), seeded())


def test_directions_without_variance_are_left_out_and_come_back() -> None:
    flat = (
        torch.cat([codes(200), torch.full((200, 1), 5.0)], 1)
        @ torch.linalg.qr(torch.randn(3, 3, generator=seeded()))[0]
    )
    whitening = Whitening()
    coordinates = whitening.fit(flat)
    assert coordinates.shape == (200, 2)
    torch.testing.assert_close(whitening.inverse(coordinates), flat, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(coordinates.square().mean(), torch.tensor(1.0))
    law = CodeLaw("ot")
    assert law.fit(flat, None, (), seeded())["rank"] == 2
    off_plane = (law.sample(50, None, seeded(1)) - flat.mean(0)) @ torch.linalg.svd(flat - flat.mean(0))[2][-1]
    assert float(off_plane.abs().max()) < 1e-4
    with pytest.raises(DataError, match="all 5 codes are equal: the encoder has collapsed"):
        Whitening().fit(torch.ones(5, 3))
    with pytest.raises(DataError, match="the code of training event 1 is not finite"):
        Whitening().fit(torch.tensor([[0.0], [torch.nan]]))


def by_class(name: str = "normal") -> tuple[CodeLaw, Tensor, Tensor]:
    label = (torch.arange(600) % 3).float()[:, None]
    shifted = codes() + 20 * label
    law = CodeLaw(short(name))
    law.fit(shifted, label, ("class",), seeded())
    return law, shifted, label


@pytest.mark.parametrize("name", list(PRIORS))
def test_each_class_has_a_law_of_its_own(name: str) -> None:
    law, _, label = by_class(name)
    assert len(law.laws) == 3
    drawn = law.sample(300, label[:300], seeded(1))
    torch.testing.assert_close((drawn / 20).round().mean(1), label[:300, 0], rtol=0, atol=0.4)
    other = CodeLaw(law.prior)
    other.load(law.state())
    assert torch.equal(other.sample(300, label[:300], seeded(1)), drawn)


def test_an_unseen_or_missing_condition_is_refused_with_what_was_seen() -> None:
    law, _, _ = by_class()
    with pytest.raises(DataError, match=r"condition class=7 was not seen in training; seen are class 0, 1, 2"):
        law.sample(2, torch.tensor([[0.0], [7.0]]), seeded())
    with pytest.raises(DataError, match=r"fitted under class; pass condition= of shape \(4, 1\), not none"):
        law.sample(4, None, seeded())
    energy = torch.rand(600, 1, generator=seeded()) * 90 + 10
    continuous = CodeLaw("normal")
    continuous.fit(codes(), energy, ("energy",), seeded())
    with pytest.raises(DataError, match=r"condition energy=200 was not seen in training; seen are energy from 1\d"):
        continuous.sample(1, torch.tensor([[200.0]]), seeded())


def test_a_condition_a_little_beyond_those_seen_is_of_the_outermost_bin() -> None:
    energy = 10 ** (3 * torch.rand(900, 1, generator=seeded()))
    cells = ConditionCells(energy, bins=4)
    ends = torch.cat([energy.amin(0) * 0.99, energy.amax(0) * 1.005])[:, None]
    assert cells.assign(ends).tolist() == [0, 3]
    for beyond in (0.9 * energy.amin(), 1.2 * energy.amax()):
        with pytest.raises(DataError, match="was not seen in training"):
            cells.assign(beyond.view(1, 1))
    tested = 10 ** (3 * torch.rand(20, 900, 1, generator=seeded(1)))
    cells.assign(tested.flatten(0, 1))


def test_a_continuous_condition_is_binned_by_numbers_of_events() -> None:
    energy = torch.rand(1000, 1, generator=seeded()).exp()
    cells = ConditionCells(energy, bins=4)
    assert [len(rows) for rows in cells.rows] == [250] * 4
    order = energy[:, 0].argsort()
    assert bool((cells.assign(energy[order]).diff() >= 0).all())
    assert len(ConditionCells(energy[:350], bins=8)) == 3, "a bin holds 100 events at least"
    assert len(ConditionCells(energy[:50], bins=8)) == 1
    law = CodeLaw("normal", bins=4)
    law.fit(codes(1000) + 10 * energy, energy, ("energy",), seeded())
    middle = law.sample(200, torch.full((200, 1), float(energy.median())), seeded(1))
    assert abs(float(middle.mean()) / 10 - float(energy.median())) < 0.3


def test_codes_follow_the_condition_within_its_bin() -> None:
    energy = 10 ** (2 * torch.rand(1000, 1, generator=seeded()))
    noise = 0.1 * torch.randn(1000, 3, generator=seeded(1))
    moved = energy.log() * torch.tensor([[1.0, -2.0, 0.0]]) + noise
    law = CodeLaw("ot", bins=2)
    law.fit(moved, energy, ("energy",), seeded())
    asked = torch.linspace(0.5, 4, 400).exp()[:, None]
    drawn = law.sample(400, asked, seeded(2))
    rest = drawn - asked.log() * torch.tensor([[1.0, -2.0, 0.0]])
    assert float(rest.abs().max()) < 0.6
    torch.testing.assert_close(rest.mean(0), torch.zeros(3), rtol=0, atol=0.03)
    restored = CodeLaw("ot", bins=2)
    restored.load(law.state())
    assert torch.equal(restored.sample(400, asked, seeded(2)), drawn)


def test_a_drift_is_that_of_least_squares_and_of_nothing_else() -> None:
    generator = seeded()
    condition = torch.stack([10 + 90 * torch.rand(300, generator=generator), torch.full((300,), 2.0)], 1)
    flat = torch.randn(300, 2, generator=generator)
    moved = flat + condition[:, :1].log() * torch.tensor([[3.0, 0.0]])
    drift = Drift()
    rest = drift.fit(moved, condition)
    torch.testing.assert_close(drift.slope[0], torch.tensor([3.0, 0.0], dtype=torch.float64), rtol=0, atol=0.3)
    assert bool((drift.slope[1] == 0).all()), "a class moves nothing within its own cell"
    seen = condition[:, 0].double().log()
    correlation = (rest.double() * (seen - seen.mean())[:, None]).mean(0)
    torch.testing.assert_close(correlation, torch.zeros_like(correlation), rtol=0, atol=1e-6)
    torch.testing.assert_close(rest + drift(condition).to(rest), moved)
    above = torch.tensor([[100.0, 2.0], [1000.0, 2.0]])
    torch.testing.assert_close(*drift(above).unbind(0), rtol=0.01, atol=0)
    few = Drift()
    assert torch.equal(few.fit(moved[:15], condition[:15]), moved[:15])
    assert torch.equal(moved + Drift()(condition), moved.double())


def test_class_and_energy_together_make_a_cell_for_each_pair_that_occurs() -> None:
    generator = seeded()
    label = (torch.arange(800) % 2).float()
    energy = torch.rand(800, generator=generator) + 5 * label
    condition = torch.stack([label, energy], 1)
    cells = ConditionCells(condition, bins=4)
    assert len(cells) == 8 and all(len(rows) == 100 for rows in cells.rows)
    index = cells.assign(condition)
    assert all(bool((index[rows] == cell).all()) for cell, rows in enumerate(cells.rows))
    restored = ConditionCells.restored(cells.state())
    assert torch.equal(restored.assign(condition), index)


def test_a_fitted_law_is_not_mistaken_for_another(fits: Any) -> None:
    law = CodeLaw("normal")
    law.fit(codes(), None, (), seeded())
    with pytest.raises(ConfigError, match="a fitted prior 'normal' for a model with prior 'kde'; fit it again"):
        CodeLaw("kde").load(law.state())
    CodeLaw("kde").load(CodeLaw("normal").state())
    with pytest.raises(ConfigError, match="bins=0; expected at least 1"):
        CodeLaw("normal", bins=0)


def test_a_class_whose_codes_are_all_equal_is_named() -> None:
    label = (torch.arange(40) % 2).float()[:, None]
    with pytest.raises(DataError, match="class=1: all 20 codes are equal"):
        CodeLaw("normal").fit(codes(40) * (1 - label), label, ("class",), seeded())
