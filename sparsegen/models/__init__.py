"""Generative models, one file each, that do not know which family of networks they are given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from sparsegen import nets
from sparsegen.errors import ConfigError, unknown_name
from sparsegen.models.aeot import AEOT
from sparsegen.models.autoencoder import Autoencoder
from sparsegen.models.base import FitStage, GradientStage, Model, Optimizers, Role, Stage
from sparsegen.models.check import assert_model
from sparsegen.models.gan import GAN
from sparsegen.models.independent import IndependentHits
from sparsegen.models.multiplicity import EmpiricalMultiplicity
from sparsegen.models.priors import PRIORS
from sparsegen.models.vae import VAE
from sparsegen.options import check_options, parameters
from sparsegen.registry import Registry

__all__ = [
    "AEOT",
    "GAN",
    "MODELS",
    "PRIORS",
    "VAE",
    "Autoencoder",
    "EmpiricalMultiplicity",
    "FitStage",
    "GradientStage",
    "IndependentHits",
    "Model",
    "Optimizers",
    "Role",
    "Stage",
    "assert_model",
    "build",
]

MODELS: Registry[type[Model]] = Registry("model")
MODELS.register("vae")(VAE)
MODELS.register("gan")(GAN)
MODELS.register("aeot")(AEOT)
MODELS.register("autoencoder")(Autoencoder)
MODELS.register("independent")(IndependentHits)

_NETWORK = ("name", "parameters", "width", "spectral_norm")


def build(model: Mapping[str, Any], network: Mapping[str, Any], schema: nets.Schema) -> Model:
    """A model with its networks, at a matched parameter budget.

    Args:
        model: ``name``, ``latent`` (16 by default) and the model's own options.
        network: ``name`` of the family; ``parameters``, the budget of all networks together, or ``width``;
            ``spectral_norm`` of the critic; options of the family, given to each network that takes them.
        schema: Names and scales of the data.

    Raises:
        ConfigError: An unknown name or option, an option of another type, or a budget that no width meets within 5 %.
    """
    options, family = dict(model), dict(network)
    kind = MODELS[options.pop("name")]
    if not kind.roles:
        check_options(f"model {model['name']}", options, kind, ("schema",))
        return kind(**{"schema": schema}, **options)
    latent = options.pop("latent", 16)
    if not isinstance(latent, int) or latent < 1:
        raise ConfigError(f"option latent of model {model['name']}: {latent!r}; expected a whole number from 1")
    check_options(f"model {model['name']}", options, kind, kind.roles)
    chosen = nets.FAMILIES[family["name"]]
    extra = {k: v for k, v in family.items() if k not in _NETWORK and v is not None}
    takes = {role.kind: parameters(getattr(chosen, role.kind)) for role in kind.roles.values()}
    known = set().union(*takes.values()) - {"schema", "latent"} | set(_NETWORK)
    for name in extra:
        if name not in known:
            raise ConfigError(unknown_name(f"option of network {family['name']}", name, known))

    def make(width: float, spectral_norm: str | None = None) -> Model:
        networks: dict[str, nn.Module] = {}
        for name, role in kind.roles.items():
            networks[name] = nets.build(
                family["name"],
                role.kind,
                schema=kind.network_schema(name, schema, options),
                latent=latent * role.codes,
                width=width,
                spectral_norm=spectral_norm if role.kind == "critic" else None,
                **{k: v for k, v in extra.items() if k in takes[role.kind]},
            )
        return kind(**networks, **options)

    width = family.get("width")
    if width is None:
        budget = family.get("parameters") or 200_000
        width = nets.match_budget(make, int(budget))
    return make(float(width), family.get("spectral_norm"))
