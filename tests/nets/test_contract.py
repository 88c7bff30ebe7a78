"""Every registered network is held to its contract, on lattices and data of several kinds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from sparsegen import nets
from sparsegen.errors import ConfigError, DataError
from sparsegen.events import Column, Events
from sparsegen.grid import Grid

JETS = Grid.regular((12, 10), (-1.0, -1.0), (1.0, 1.0), ("eta", "phi"), ("", "rad"))
CYLINDER = Grid.regular((5, 16, 6), (0.0, 0.0, 0.0), (5.0, 6.28, 6.0), ("z", "alpha", "r"), periodic=("alpha",))
LAYERS = Grid([[0, 1, 2, 3], [[0, 1, 2, 4], [0, 3, 5, float("nan")], [0, 1, 2, 4]]], names=("layer", "r"))
UNEQUAL = Grid(
    [[0, 1, 2, 3], [[-2, 2, *[float("nan")] * 7], *[[i / 2 - 2 for i in range(9)]] * 2], [0, 1, 2, 3, 4]],
    names=("z", "alpha", "r"),
    periodic=("alpha",),
)
CASES = {
    "jets": (JETS, (Column("ptrel"),), 0),
    "conditioned": (JETS, (Column("energy", "GeV"), Column("time", "ns", additive=False)), 2),
    "cylinder": (CYLINDER, (Column("energy", "MeV"),), 1),
    "invalid cells": (LAYERS, (Column("energy", "MeV"),), 0),
    "unequal cylinder": (UNEQUAL, (Column("energy", "MeV"),), 1),
    "bare": (JETS, (), 0),
    "bare, conditioned, periodic": (CYLINDER, (), 1),
}


def sample(case: str, cells: bool) -> Callable[[list[int]], Events]:
    grid, columns, k = CASES[case]

    def make(counts: list[int]) -> Events:
        n = sum(counts)
        free = torch.ones(grid.shape, dtype=torch.bool) if grid.valid is None else grid.valid
        valid = free.flatten().nonzero()[:, 0]
        chosen = [valid[torch.randperm(len(valid))[:c]].sort().values for c in counts]
        events = Events(
            grid.unravel(torch.cat(chosen)),
            torch.rand(n, len(columns)) + 0.05,
            torch.tensor([0, *torch.tensor(counts).cumsum(0).tolist()]),
            axes=grid.names,
            columns=columns,
            condition=torch.rand(len(counts), k) if k else None,
            conditions=tuple(f"c{i}" for i in range(k)),
            grid=grid,
        )
        return events.counted() if cells else events.devoxelize("uniform")

    return make


def build(family: str, role: str, case: str, **options: object) -> torch.nn.Module:
    grid, _, k = CASES[case]
    torch.manual_seed(0)
    events = sample(case, cells=False)([5, 3, 6, 4, 5])
    return nets.build(family, role, schema=nets.Schema.fit(events, grid), latent=6, condition_dim=k, width=8, **options)


@pytest.mark.parametrize("cells", [True, False], ids=["cells", "points"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", list(nets.FAMILIES))
def test_every_family_keeps_its_contract(family: str, case: str, cells: bool) -> None:
    make = sample(case, cells)
    nets.assert_encoder(build(family, "encoder", case), make)
    nets.assert_critic(build(family, "critic", case), make)
    if cells == (nets.FAMILIES[family].view == "image"):
        nets.assert_decoder(build(family, "decoder", case), make)  # type: ignore[arg-type]


@pytest.mark.parametrize("norm", ["reshape", "operator"])
@pytest.mark.parametrize("family", list(nets.FAMILIES))
def test_spectral_normalisation_in_every_family(family: str, norm: str) -> None:
    net = build(family, "critic", "jets", spectral_norm=norm)
    nets.assert_critic(net, sample("jets", nets.FAMILIES[family].view == "image"))


@pytest.mark.parametrize("decoder", list(nets.FAMILIES))
@pytest.mark.parametrize("critic", list(nets.FAMILIES))
def test_any_decoder_into_any_critic_with_gradients(decoder: str, critic: str) -> None:
    generator, judge = build(decoder, "decoder", "jets"), build(critic, "critic", "jets")
    z = torch.randn(3, 6)
    made = generator(z, counts=torch.tensor([4, 5, 6]), generator=torch.Generator().manual_seed(1)).events
    judge(made).sum().backward()
    reached = [name for name, p in generator.named_parameters() if p.grad is not None and bool(p.grad.abs().sum() > 0)]
    assert len(reached) > 4, f"only {reached} of the {decoder} decoder are moved by the {critic} critic"


def test_the_sparse_trunk_equals_the_dense_one_where_every_cell_is_active() -> None:
    grid = Grid.regular((8, 16), (0.0, 0.0), (1.0, 1.0), ("x", "y"), periodic=("y",))
    options = {"grid": grid, "columns": ("energy",), "latent": 5, "width": 6.0}
    sparse = nets.build("sparse", "encoder", **options).double()  # type: ignore[arg-type]
    dense = nets.build("dense", "encoder", **options).double()  # type: ignore[arg-type]
    a: Any = sparse.trunk
    b: Any = dense.trunk
    pairs = [*zip(a.mix, (m.conv for m in b.mix), strict=True), *zip(a.down, b.down, strict=True)]
    pairs.append((a.last, b.last.conv))
    with torch.no_grad():
        for one, other in pairs:
            other.weight.copy_(one.dense_weight())
            other.bias.zero_()
        b.narrow.conv.weight.copy_(a.narrow.weight[:, :, None, None])
        b.narrow.conv.bias.zero_()
    b.read.load_state_dict(a.read.state_dict())
    events = Events.from_dense(torch.rand(3, 1, 8, 16, dtype=torch.float64) + 0.1, grid, ("energy",))
    torch.testing.assert_close(sparse(events), dense(events), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("family", list(nets.FAMILIES))
@pytest.mark.parametrize("parameters", [20_000, 200_000])
def test_budgets_are_met_within_five_per_cent(family: str, parameters: int) -> None:
    def make(width: float) -> torch.nn.Module:
        return nets.build(family, "critic", grid=JETS, columns=("e",), width=width)

    width = nets.match_budget(make, parameters)
    assert abs(nets.count_parameters(make(width)) - parameters) <= 0.05 * parameters


def test_a_budget_out_of_reach_says_what_is_near() -> None:
    with pytest.raises(ConfigError, match=r"the nearest to 10 parameters is [\d,]+ at width"):
        nets.match_budget(lambda w: nets.build("dense", "critic", grid=JETS, columns=("e",), width=w), 10)


def test_what_cannot_be_built_is_said() -> None:
    with pytest.raises(ConfigError, match="unknown network 'spase': did you mean sparse"):
        nets.build("spase", grid=JETS, columns=("e",))
    with pytest.raises(ConfigError, match="unknown role"):
        nets.build("sparse", "generator", grid=JETS, columns=("e",))
    with pytest.raises(ConfigError, match="need the lattice of their data"):
        nets.build("sparse", axes=("x", "y"), columns=("e",))
    with pytest.raises(ConfigError, match="does not take the options"):
        nets.build("sparse", grid=JETS, columns=("e",), tnet=True)
    with pytest.raises(ConfigError, match="use the network pointnet"):
        nets.build("points", grid=JETS, columns=("e",), tnet=True)
    four = Grid.regular((8,) * 4, (0.0,) * 4, (1.0,) * 4)
    with pytest.raises(ConfigError, match="no convolution in 4 dimensions"):
        nets.build("dense", grid=four, columns=("e",))
    net = build("points", "decoder", "jets")
    with pytest.raises(DataError, match="how many hits"):
        net(torch.randn(2, 6))
    with pytest.raises(DataError, match=r"condition of shape None; expected \(2, 2\)"):
        build("dense", "decoder", "conditioned")(torch.randn(2, 6))


def test_pointnet_with_aligned_inputs_keeps_its_contract() -> None:
    make = sample("jets", cells=False)
    nets.assert_encoder(build("pointnet", "encoder", "jets", tnet=True), make)
    nets.assert_critic(build("pointnet", "critic", "jets", tnet=True), make)


def test_a_sparse_network_in_four_dimensions() -> None:
    four = Grid.regular((8,) * 4, (0.0,) * 4, (1.0,) * 4)
    net = nets.build("sparse", "decoder", grid=four, columns=("e",), latent=4, width=4)
    made = net(torch.randn(2, 4), counts=torch.tensor([3, 5])).events
    assert made.counts.tolist() == [3, 5] and made.coords.shape[1] == 4
    assert nets.build("sparse", "encoder", grid=four, columns=("e",), latent=4, width=4)(made).shape == (2, 4)


def test_schema_round_trip_and_scales() -> None:
    events = sample("conditioned", cells=False)([50, 70])
    schema = nets.Schema.fit(events, JETS)
    assert nets.Schema.from_dict(schema.to_dict()) == schema
    scaler = nets.Scaler(schema)
    torch.testing.assert_close(scaler.expand(scaler.compand(events.features)), events.features)
    y = scaler.standardise(events.features)
    torch.testing.assert_close(y.mean(0), torch.zeros(2), atol=0.02, rtol=0)
    torch.testing.assert_close(scaler.displace(scaler.place(events.coords)), events.coords)
    with pytest.raises(DataError, match="none of the 1 events has a hit"):
        nets.Schema.fit(sample("jets", cells=False)([0]))
