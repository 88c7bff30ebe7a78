"""Every registered model with every family of networks is held to its contract."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from sparsegen import models, nets
from sparsegen.errors import ConfigError
from sparsegen.events import Column, Events
from sparsegen.grid import Grid
from sparsegen.models import Model, assert_model

GRID = Grid.regular((8, 10), (-1.0, -1.0), (1.0, 1.0), ("eta", "phi"), ("", "rad"))


def sample(cells: bool, conditions: int = 0, bare: bool = False) -> Callable[[list[int]], Events]:
    generator = torch.Generator().manual_seed(0)

    def make(counts: list[int]) -> Events:
        keys = [torch.randperm(GRID.cells, generator=generator)[:n].sort().values for n in counts]
        events = Events(
            GRID.unravel(torch.cat(keys)),
            torch.rand(sum(counts), 1, generator=generator) + 0.05,
            torch.tensor([0, *counts]).cumsum(0),
            axes=GRID.names,
            columns=(Column("energy", "GeV"),),
            condition=torch.rand(len(counts), conditions, generator=generator) if conditions else None,
            conditions=tuple(f"c{i}" for i in range(conditions)),
            grid=GRID,
        )
        if bare:
            events = events.replace(features=events.features[:, :0], columns=())
        return events.counted() if cells else events.devoxelize("uniform", generator)

    return make


def build(name: str, family: str, make: Callable[[list[int]], Events], **options: object) -> Model:
    torch.manual_seed(0)
    schema = nets.Schema.fit(make([5, 8, 6, 4, 5]), GRID)
    model: dict[str, object] = {"name": name} | options
    if models.MODELS[name].roles:
        model["latent"] = 3
    return models.build(model, {"name": family, "width": 5}, schema)


@pytest.mark.parametrize("conditions", [0, 2], ids=["free", "conditioned"])
@pytest.mark.parametrize("family", list(nets.FAMILIES))
@pytest.mark.parametrize("name", list(models.MODELS))
def test_every_model_keeps_its_contract_with_every_family(name: str, family: str, conditions: int) -> None:
    make = sample(nets.FAMILIES[family].view == "image", conditions)
    assert_model(build(name, family, make), make)


@pytest.mark.parametrize("family", list(nets.FAMILIES))
@pytest.mark.parametrize("name", list(models.MODELS))
def test_every_model_keeps_its_contract_on_bare_point_sets(name: str, family: str) -> None:
    make = sample(nets.FAMILIES[family].view == "image", bare=True)
    assert_model(build(name, family, make), make)


@pytest.mark.parametrize("penalty", ["gp", "r1"])
@pytest.mark.parametrize("family", ["points", "pointnet"])
def test_penalties_move_bare_points_and_nothing_else(family: str, penalty: str) -> None:
    make = sample(False, bare=True)
    model = build("gan", family, make, penalty=penalty)
    assert_model(model, make)
    real, leaves = model.critic.leaves(make([3, 0, 2]))
    assert [leaf.shape for leaf in leaves] == [(5, 2)]
    torch.testing.assert_close(real.features, torch.ones(5, 1))


@pytest.mark.parametrize("conditions", [0, 2], ids=["free", "conditioned"])
@pytest.mark.parametrize("family", ["sparse", "points"])
@pytest.mark.parametrize("prior", list(models.PRIORS))
def test_an_autoencoder_keeps_its_contract_with_every_law_of_codes(prior: str, family: str, conditions: int) -> None:
    make = sample(nets.FAMILIES[family].view == "image", conditions)
    law = {"name": prior} | ({"steps": 5} if prior in ("flow", "gan", "wgan") else {})
    assert_model(build("autoencoder", family, make, prior=law), make)


@pytest.mark.parametrize("penalty", ["none", "gp", "r1"])
@pytest.mark.parametrize("family", list(nets.FAMILIES))
def test_a_gan_with_every_penalty_also_on_the_other_view(family: str, penalty: str) -> None:
    make = sample(nets.FAMILIES[family].view != "image")
    assert_model(build("gan", family, make, penalty=penalty, n_critic=2), make)


def test_the_checker_finds_what_is_broken() -> None:
    make = sample(True)

    class Frozen(models.VAE):
        def step(self, *arguments: object) -> dict[str, torch.Tensor]:
            return {"loss": torch.zeros(())}

    class Idle(models.VAE):
        optimized = {"model": ("encoder",)}  # type: ignore[assignment]  # noqa: RUF012

    class Unseeded(models.VAE):
        def sample(self, n: int, condition: object = None, **options: object) -> Events:  # type: ignore[override]
            return super().sample(n, counts=options.get("counts"))  # type: ignore[arg-type]

    class Forgetful(models.VAE):
        def state_dict(self, *arguments: object, **options: object) -> dict[str, torch.Tensor]:  # type: ignore[override]
            return {k: torch.zeros_like(v) if torch.is_tensor(v) else v for k, v in super().state_dict().items()}

    def with_networks(kind: type[models.VAE]) -> models.VAE:
        whole = build("vae", "sparse", make)
        return kind(whole.encoder, whole.decoder)  # type: ignore[arg-type]

    with pytest.raises(AssertionError, match=r"leaves (encoder|decoder) as it was"):
        assert_model(with_networks(Frozen), make)
    with pytest.raises(AssertionError, match=r"no optimiser moves decoder\."):
        assert_model(with_networks(Idle), make)
    with pytest.raises(AssertionError, match="the same seed gives other events"):
        assert_model(with_networks(Unseeded), make)
    with pytest.raises(AssertionError, match="restored from state_dict"):
        assert_model(with_networks(Forgetful), make)


@pytest.mark.parametrize("name", ["vae", "gan"])
@pytest.mark.parametrize("family", list(nets.FAMILIES))
def test_the_budget_of_all_networks_together_is_met_within_five_per_cent(name: str, family: str) -> None:
    schema = nets.Schema.fit(sample(True)([5, 8, 6]), GRID)
    model = models.build({"name": name, "latent": 4}, {"name": family, "parameters": 100_000}, schema)
    assert abs(nets.count_parameters(model) - 100_000) <= 5_000


def test_unknown_names_and_options_name_the_nearest() -> None:
    schema = nets.Schema.fit(sample(True)([5, 8, 6]), GRID)
    wide = {"name": "sparse", "width": 4}
    with pytest.raises(ConfigError, match="unknown model 'vea': did you mean vae"):
        models.build({"name": "vea"}, wide, schema)
    with pytest.raises(ConfigError, match="unknown option of model vae 'bta': did you mean beta"):
        models.build({"name": "vae", "bta": 1.0}, wide, schema)
    with pytest.raises(ConfigError, match="unknown option of model gan 'n_critics': did you mean n_critic"):
        models.build({"name": "gan", "n_critics": 5}, wide, schema)
    with pytest.raises(ConfigError, match="unknown option of network points 'tnets': did you mean tnet"):
        models.build({"name": "vae"}, {"name": "points", "width": 4, "tnets": True}, schema)
    with pytest.raises(ConfigError, match="unknown option of model vae 'encoder'"):
        models.build({"name": "vae", "encoder": None}, wide, schema)
