"""Encoders, decoders and critics in three families that speak one batch type.

A family is one file and one line of :data:`FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from sparsegen.errors import ConfigError, unknown_name
from sparsegen.events import Column
from sparsegen.grid import Grid
from sparsegen.nets.base import Critic, Decoded, Decoder, Encoder, Level
from sparsegen.nets.budget import count_parameters, match_budget
from sparsegen.nets.check import assert_critic, assert_decoder, assert_encoder
from sparsegen.nets.dense import DenseCritic, DenseDecoder, DenseEncoder
from sparsegen.nets.points import PointCritic, PointDecoder, PointEncoder
from sparsegen.nets.schema import FeatureScale, Scaler, Schema
from sparsegen.nets.sparse import SparseCritic, SparseDecoder, SparseEncoder
from sparsegen.registry import Registry
from sparsegen.sparse import spectral_normalise

__all__ = [
    "FAMILIES",
    "Critic",
    "Decoded",
    "Decoder",
    "Encoder",
    "Family",
    "FeatureScale",
    "Level",
    "Scaler",
    "Schema",
    "assert_critic",
    "assert_decoder",
    "assert_encoder",
    "build",
    "count_parameters",
    "match_budget",
]


@dataclass(frozen=True)
class Family:
    """The three roles of one kind of network.

    Args:
        encoder: ``(schema, latent, width) -> Encoder``.
        decoder: ``(schema, latent, width) -> Decoder``.
        critic: ``(schema, width) -> Critic``.
        view: How the family sees its data best: ``"points"``, or ``"image"`` for cells, which its decoder makes.
        summary: One line for ``sparsegen list networks``.
    """

    encoder: Callable[..., Encoder]
    decoder: Callable[..., Decoder]
    critic: Callable[..., Critic]
    view: str
    summary: str


FAMILIES: Registry[Family] = Registry("network")
FAMILIES.register("dense")(
    Family(DenseEncoder, DenseDecoder, DenseCritic, "image", "strided convolutions over the whole lattice (baseline)")
)
FAMILIES.register("sparse")(
    Family(SparseEncoder, SparseDecoder, SparseCritic, "image", "submanifold and generative sparse convolutions")
)
FAMILIES.register("points")(
    Family(PointEncoder, PointDecoder, PointCritic, "points", "EPiC set layers on the hits themselves")
)
FAMILIES.register("pointnet")(
    Family(
        partial(PointEncoder, kind="pointnet"),
        partial(PointDecoder, kind="mlp"),
        partial(PointCritic, kind="pointnet"),
        "points",
        "PointNet-Mix encoder and critic, an MLP that writes all hits",
    )
)


def build(
    family: str,
    role: str = "encoder",
    *,
    grid: Grid | None = None,
    axes: Sequence[str] = (),
    columns: Sequence[Column | str] = (),
    latent: int = 16,
    condition_dim: int = 0,
    width: float = 16.0,
    schema: Schema | None = None,
    spectral_norm: str | None = None,
    **options: Any,
) -> nn.Module:
    """A network of a family in a role.

    Args:
        family: ``"dense"``, ``"sparse"``, ``"points"``, ``"pointnet"``.
        role: ``"encoder"``, ``"decoder"`` or ``"critic"``.
        grid: The lattice of the data; dense and sparse networks need it.
        axes: Names of the coordinates; the grid's by default.
        columns: Features of a hit; without any, encoders, critics and decoders of cells see the column ``count``.
        latent: Width of the code (encoder, decoder).
        condition_dim: Number of condition columns.
        width: Channels of the first layer; the others follow from it. See :func:`match_budget`.
        schema: Names and scales measured on data; with it the five arguments above are not needed.
        spectral_norm: ``"reshape"`` (Miyato et al. 2018) or ``"operator"``: normalises every layer.
        options: Passed to the family's class (``tnet=True`` for points).

    Raises:
        ConfigError: An unknown family, role or option, or a family that needs a grid has none.
    """
    chosen = FAMILIES[family]
    if role not in ("encoder", "decoder", "critic"):
        raise ConfigError(unknown_name("role", role, ("encoder", "decoder", "critic")))
    if schema is None:
        schema = Schema.default(axes or (grid.names if grid else ()), columns, grid, condition_dim)
    if not schema.axes:
        raise ConfigError(f"nets.build({family!r}): pass axes= and columns=, or a schema=")
    if role != "decoder" or chosen.view != "points":
        schema = schema.counted()
    try:
        if role == "encoder":
            net: nn.Module = chosen.encoder(schema, latent, width, **options)
        elif role == "decoder":
            net = chosen.decoder(schema, latent, width, **options)
        else:
            net = chosen.critic(schema, width, **options)
    except TypeError as error:
        raise ConfigError(
            f"network {family!r} as {role} does not take the options {sorted(options)}: {error}"
        ) from error
    return spectral_normalise(net, spectral_norm) if spectral_norm else net
