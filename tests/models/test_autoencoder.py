"""Options of the autoencoder: each is what its equation says, and with all at zero it is the plain one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sparsegen import models, nets
from sparsegen.errors import ConfigError, DataError
from sparsegen.events import Events
from sparsegen.grid import Grid
from sparsegen.losses import bernoulli_kl
from sparsegen.models import AEOT, PRIORS, Autoencoder, Optimizers, assert_model

GRID = Grid.regular((8, 8), (-1.0, -1.0), (1.0, 1.0), ("x", "y"))
SHORT = {"flow": {"steps": 10}, "gan": {"steps": 10}, "wgan": {"steps": 5}}


def events(size: int = 12, cells: bool = False, conditions: int = 0, seed: int = 0) -> Events:
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(2, 7, (size,), generator=generator)
    keys = torch.cat([torch.randperm(GRID.cells, generator=generator)[: int(n)].sort().values for n in counts])
    made = Events(
        GRID.unravel(keys),
        torch.rand(len(keys), 1, generator=generator) + 0.1,
        torch.nn.functional.pad(counts.cumsum(0), (1, 0)),
        axes=GRID.names,
        columns=("energy",),
        condition=(torch.arange(size) % 2).float()[:, None] if conditions else None,
        conditions=("class",) if conditions else (),
        grid=GRID,
    )
    return made if cells else made.devoxelize("uniform", generator)


def autoencoder(data: Events, family: str = "points", name: str = "autoencoder", **options: Any) -> Autoencoder:
    torch.manual_seed(0)
    schema = nets.Schema.fit(data, GRID)
    model = models.build({"name": name, "latent": 3} | options, {"name": family, "width": 6}, schema)
    assert isinstance(model, Autoencoder)
    return model


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Recorded(Optimizers):
    """Takes no step and keeps the loss with its graph."""

    def __init__(self) -> None:
        super().__init__({})
        self.loss = torch.zeros(())

    def minimise(self, name: str, loss: Tensor) -> float:
        self.loss = loss
        return 0.0


def loss_of(model: Autoencoder, data: Events) -> tuple[Tensor, dict[str, Tensor]]:
    optimizers = Recorded()
    log = model.step(data, optimizers, seeded(1))
    return optimizers.loss, log


def test_without_options_it_is_the_plain_deterministic_autoencoder() -> None:
    data = events()
    model = autoencoder(data, noise=0.0)
    loss, log = loss_of(model, data)
    decoded = model.decoder(model.encoder(data), target=data, generator=seeded(1))
    terms = model.decoder.reconstruction(decoded, data)
    torch.testing.assert_close(loss, sum(t.mean() for t in terms.values()))  # type: ignore[arg-type]
    assert set(log) == {"loss", "spread", *terms}
    other = loss_of(autoencoder(data, noise=0.0, denoise=0.0, contraction=0.0, sparsity=0.0, activation=0.3), data)[0]
    assert torch.equal(loss, other)


def test_a_denoising_encoder_sees_noise_and_the_loss_the_clean_event() -> None:
    data = events()
    model = autoencoder(data, noise=0.0, denoise=0.5)
    seen: list[Events] = []
    model.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    loss, _ = loss_of(model, data)
    scaler = model.encoder.scaler
    moved = (scaler.place(seen[0].coords) - scaler.place(data.coords)).std()
    assert float(moved) == pytest.approx(0.5, rel=0.2)
    assert torch.equal(seen[0].counts, data.counts) and not torch.equal(seen[0].features, data.features)
    generator = seeded(1)
    z = model.encoder(model._corrupted(data, generator))
    terms = model.decoder.reconstruction(model.decoder(z, target=data, generator=generator), data)
    torch.testing.assert_close(loss, sum(t.mean() for t in terms.values()))  # type: ignore[arg-type]
    assert torch.equal(model.encode(data), model.encode(data)), "codes of a trained model carry no noise"
    cells = events(cells=True)
    sparse = autoencoder(cells, "sparse", denoise=0.5)
    noisy = sparse._corrupted(cells, seeded(1))
    assert torch.equal(noisy.coords, cells.coords) and not torch.equal(noisy.features, cells.features)


@pytest.mark.parametrize(("family", "cells"), [("points", False), ("sparse", True), ("dense", True)])
def test_the_contraction_estimates_the_jacobian_without_bias(family: str, cells: bool) -> None:
    data = events(4, cells)
    model = autoencoder(data, family).double()
    data = data.to(torch.float64)
    seen, leaves = model.encoder.leaves(data)
    codes = model.encoder(seen)
    exact = torch.zeros(len(data), dtype=torch.float64)
    for column in codes.unbind(1):
        gradients = torch.autograd.grad(column.sum(), leaves, retain_graph=True)
        exact += data.sum_hits(sum(g.square().sum(1) for g in gradients))
    generator = seeded(3)
    draws = torch.stack([model.squared_jacobian(data, generator).detach() for _ in range(300)])
    error = draws.std(0) / 300**0.5
    assert bool(((draws.mean(0) - exact).abs() < 4.5 * error + 1e-9).all())


def test_the_contraction_has_the_gradient_of_finite_differences() -> None:
    data = events(3).to(torch.float64)
    model = autoencoder(data).double()
    weight = next(model.encoder.parameters())
    penalty = lambda: model.squared_jacobian(data, seeded(5)).mean()
    (gradient,) = torch.autograd.grad(penalty(), weight)
    step = torch.zeros_like(weight)
    step[0, 0] = 1e-5
    values = []
    for sign in (1, -2):
        with torch.no_grad():
            weight += sign * step
        values.append(float(penalty().detach()))
    above, below = values
    assert (above - below) / 2e-5 == pytest.approx(float(gradient[0, 0]), rel=1e-4, abs=1e-8)


def test_contraction_makes_codes_stiffer() -> None:
    data = events(32)
    slopes = {}
    for weight in (0.0, 1.0):
        model = autoencoder(data, noise=0.0, contraction=weight)
        optimizers = Optimizers({"model": torch.optim.Adam(model.parameters(), lr=5e-3)})
        generator = seeded(2)
        for _ in range(40):
            model.step(data, optimizers, generator)
        slopes[weight] = float(model.squared_jacobian(data, seeded(3)).mean().detach())
    assert slopes[1.0] < 0.5 * slopes[0.0]


def test_the_sparsity_penalty_has_the_closed_gradient_of_mean_activations() -> None:
    rho, mean = 0.05, torch.tensor([0.02, 0.05, 0.4], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(bernoulli_kl(rho, mean).sum(), mean)
    torch.testing.assert_close(gradient, -rho / mean + (1 - rho) / (1 - mean))
    law = torch.distributions.Bernoulli
    expected = torch.distributions.kl_divergence(law(torch.tensor(rho, dtype=torch.float64)), law(mean))
    torch.testing.assert_close(bernoulli_kl(rho, mean), expected)


def test_mean_activations_come_near_the_wanted_one() -> None:
    data = events(64)
    model = autoencoder(data, sparsity=30.0, activation=0.2)
    optimizers = Optimizers({"model": torch.optim.Adam(model.parameters(), lr=1e-2)})
    generator = seeded(2)
    for _ in range(120):
        model.step(data, optimizers, generator)
    activation = model.encode(data).sigmoid().mean(0)
    assert bool(((activation - 0.2).abs() < 0.04).all()), activation.tolist()


@pytest.mark.parametrize("options", [{"denoise": 0.1}, {"contraction": 0.1}, {"sparsity": 0.1}], ids=str)
@pytest.mark.parametrize("family", list(nets.FAMILIES))
def test_every_option_keeps_the_contract_with_every_family(family: str, options: dict[str, float]) -> None:
    cells = nets.FAMILIES[family].view == "image"

    def make(counts: list[int]) -> Events:
        whole = events(60, cells)
        rows = [int((whole.counts - n).abs().argmin()) for n in counts]
        return whole[torch.tensor(rows)]

    assert_model(autoencoder(events(60, cells), family, **options), make)


@pytest.mark.parametrize("prior", list(PRIORS))
def test_every_law_samples_events_of_every_condition_and_comes_back_from_the_state(prior: str) -> None:
    data = events(40, conditions=1)
    model = autoencoder(data, prior={"name": prior} | SHORT.get(prior, {}))
    model.multiplicity.fit(lambda: [data], seeded())
    log = model.fit_prior(lambda: [data[:20], data[20:]], seeded())
    assert log["laws"] == 2
    fresh = autoencoder(data, prior={"name": prior} | SHORT.get(prior, {}))
    fresh.load_state_dict(model.state_dict())
    drawn, again = (m.sample(8, data.condition[:8], generator=seeded(1)) for m in (model, fresh))  # type: ignore[index]
    assert torch.equal(drawn.features, again.features) and torch.equal(drawn.coords, again.coords)
    with pytest.raises(DataError, match="class=5 was not seen in training; seen are class 0, 1"):
        model.sample(1, torch.tensor([[5.0]]), generator=seeded())


def test_the_law_is_fitted_again_without_touching_the_networks() -> None:
    data = events(40)
    model = autoencoder(data, name="aeot", theta=0.4)
    assert isinstance(model, AEOT)
    weights = {k: v.clone() for k, v in model.state_dict().items() if torch.is_tensor(v)}
    first = model.fit_prior(lambda: [data], seeded())
    again = model.fit_prior(lambda: [data], seeded())
    assert {k: v for k, v in first.items() if k != "seconds"} == {k: v for k, v in again.items() if k != "seconds"}
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in weights.items())
    model.prior(100, None, seeded(1))
    report = model.sampling_report()
    assert report["theta"] == 0.4 and 0 < report["acceptance"] <= 1 and report["certificate"]["samples"] >= 0


def test_wrong_options_are_refused() -> None:
    data = events()
    for option in ("noise", "denoise", "contraction", "sparsity"):
        with pytest.raises(ConfigError, match=f"Autoencoder: {option}=-1; expected 0 or more"):
            autoencoder(data, **{option: -1})
    with pytest.raises(ConfigError, match="activation=1; expected a number between 0 and 1"):
        autoencoder(data, activation=1)
    with pytest.raises(ConfigError, match="theta=-1; expected a positive angle"):
        autoencoder(data, name="aeot", theta=-1)
    with pytest.raises(ConfigError, match=r"option theta of model aeot: 'wide'; expected float \| None"):
        autoencoder(data, name="aeot", theta="wide")
    with pytest.raises(ConfigError, match="option noise of model autoencoder: True; expected float"):
        autoencoder(data, noise=True)
    with pytest.raises(ConfigError, match=r"option steps of prior flow: 1\.5; expected int"):
        autoencoder(data, prior={"name": "flow", "steps": 1.5})
    with pytest.raises(ConfigError, match="option latent of model autoencoder: 'two'; expected a whole number"):
        autoencoder(data, latent="two")
    with pytest.raises(ConfigError, match="unknown option of model aeot 'prior'"):
        autoencoder(data, name="aeot", prior="normal")
