"""Packs keep every hit, tell their members apart, and a pack of one is the plain game."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from sparsegen import models, nets
from sparsegen.errors import ConfigError, DataError
from sparsegen.events import Column, Events
from sparsegen.grid import Grid
from sparsegen.models import GAN, Optimizers, assert_model
from sparsegen.models.packing import pack, pack_schema

GRID = Grid.regular((8, 8), (-1.0, -1.0), (1.0, 1.0), ("x", "y"))


def events(counts: list[int], cells: bool, columns: int = 1, conditions: int = 0, seed: int = 0) -> Events:
    generator = torch.Generator().manual_seed(seed)
    keys = torch.cat([torch.randperm(GRID.cells, generator=generator)[:n].sort().values for n in counts])
    made = Events(
        GRID.unravel(keys),
        torch.rand(sum(counts), columns, generator=generator) + 0.1,
        torch.tensor([0, *counts]).cumsum(0),
        axes=GRID.names,
        columns=tuple(Column(f"c{i}", additive=i == 0) for i in range(columns)),
        condition=torch.rand(len(counts), conditions, generator=generator) if conditions else None,
        conditions=tuple(f"k{i}" for i in range(conditions)),
        grid=GRID,
    )
    return made if cells else made.devoxelize("uniform", generator)


def test_joined_cells_are_images_with_joined_channels() -> None:
    plain = events([4, 6, 3, 5, 1, 7], cells=True, columns=2, conditions=1)
    packed = pack(plain, 3)
    assert len(packed) == 2 and len(packed.columns) == 6
    assert torch.equal(packed.to_dense(), plain.to_dense().reshape(2, 6, 8, 8))
    assert packed.condition is not None and plain.condition is not None
    assert torch.equal(packed.condition, plain.condition.reshape(2, 3))
    assert packed.conditions == ("k0 of 1", "k0 of 2", "k0 of 3")
    assert packed.is_cells and bool((packed.features > 0).any(1).all())


def test_joined_points_keep_place_and_features_in_the_columns_of_their_member() -> None:
    plain = events([4, 0, 3, 5], cells=False, columns=2)
    packed = pack(plain, 2)
    assert packed.counts.tolist() == [4, 8]
    assert torch.equal(packed.coords, plain.coords)
    blocks = packed.features.view(-1, 2, 2)
    own = blocks[torch.arange(12), plain.batch % 2]
    assert torch.equal(own, plain.features)
    assert float(packed.features.sum()) == pytest.approx(float(plain.features.sum()))


def test_bare_points_are_told_apart_too() -> None:
    plain = events([2, 3], cells=False, columns=0)
    packed = pack(plain, 2)
    assert torch.equal(packed.features, torch.tensor([[1.0, 0.0]] * 2 + [[0.0, 1.0]] * 3))
    assert [c.name for c in packed.columns] == ["count of 1", "count of 2"]


def test_gradients_flow_into_every_member() -> None:
    plain = events([3, 2, 4, 1], cells=True)
    features = plain.features.clone().requires_grad_()
    packed = pack(plain.with_features(features), 2)
    weights = torch.arange(1.0, 1 + packed.features.numel()).view_as(packed.features)
    (gradient,) = torch.autograd.grad((packed.features * weights).sum(), features)
    assert bool((gradient > 0).all())


def test_a_pack_of_one_is_the_plain_game_bitwise() -> None:
    data = events([4, 6, 3, 5], cells=False)
    schema = nets.Schema.fit(data)
    assert pack(data, 1) is data and pack_schema(schema, 1) is schema

    def trained(**options: object) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model = models.build({"name": "gan", "latent": 3} | options, {"name": "points", "width": 6}, schema)
        adams = {n: torch.optim.Adam(model.get_submodule(c).parameters()) for n, (c,) in model.optimized.items()}
        generator = torch.Generator().manual_seed(1)
        for _ in range(3):
            model.step(data, Optimizers(adams), generator)
        return {k: v for k, v in model.state_dict().items() if torch.is_tensor(v)}

    one, other = trained(), trained(pack=1)
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("penalty", ["gp", "r1"])
@pytest.mark.parametrize("family", list(nets.FAMILIES))
def test_a_packed_gan_keeps_its_contract_with_every_family(family: str, penalty: str) -> None:
    cells = nets.FAMILIES[family].view == "image"
    make: Callable[[list[int]], Events] = lambda counts: events(counts, cells, conditions=1)
    torch.manual_seed(0)
    schema = nets.Schema.fit(make([5, 8, 6, 4]), GRID)
    options = {"name": "gan", "latent": 3, "pack": 2, "penalty": penalty}
    assert_model(models.build(options, {"name": family, "width": 5}, schema), make)


def test_a_packed_critic_sees_what_a_plain_one_cannot() -> None:
    """Collapsed events look like real ones one by one; two at a time they are always alike."""
    base = events([1] * 64, cells=False)
    signs = torch.rand(64, generator=torch.Generator().manual_seed(0)).round() * 2 - 1
    real = base.replace(coords=torch.stack([signs, torch.zeros(64)], 1))
    same = signs[::2].repeat_interleave(2)
    collapsed = base.replace(coords=torch.stack([same, torch.zeros(64)], 1))
    schema = nets.Schema.fit(real)
    gaps = {}
    for members in (1, 2):
        torch.manual_seed(0)
        model = models.build({"name": "gan", "latent": 2, "pack": members}, {"name": "pointnet", "width": 16}, schema)
        assert isinstance(model, GAN)
        adam = torch.optim.Adam(model.critic.parameters(), lr=1e-2)
        for _ in range(150):
            loss = model.loss.critic(model.critic(pack(real, members)), model.critic(pack(collapsed, members)))
            adam.zero_grad()
            loss.backward()
            adam.step()
        gaps[members] = float(loss.detach())
    # 2 log 2 is what a critic pays that cannot tell them apart; half of the real pairs are unlike.
    assert gaps[1] > 1.35 and gaps[2] < 1.1, gaps


def test_packs_that_do_not_fit_are_refused() -> None:
    data = events([4, 6, 3], cells=False)
    with pytest.raises(DataError, match="3 events in packs of 2; expected a multiple"):
        pack(data, 2)
    build = lambda **options: models.build(
        {"name": "gan", "latent": 3} | options, {"name": "points", "width": 6}, nets.Schema.fit(data)
    )
    with pytest.raises(ConfigError, match="pack=0; expected at least 1"):
        build(pack=0)
    with pytest.raises(ConfigError, match=r"3 events for packs of 4; take a larger training\.batch"):
        build(pack=4).step(data, Optimizers({}), torch.Generator())
    plain = build()
    with pytest.raises(ConfigError, match="needs a critic of"):
        GAN(plain.decoder, plain.critic, pack=2)  # type: ignore[arg-type]
