"""The sparse family: the dense family's networks with convolutions that visit active cells only."""

from __future__ import annotations

import itertools
import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsegen.events import Events
from sparsegen.nets.base import (
    MLP,
    Critic,
    Decoded,
    Decoder,
    Encoder,
    Level,
    as_cells,
    bounded_log_std,
    keep_cells,
    lattice_of,
    straight_through,
    totals_head,
)
from sparsegen.nets.dense import channels
from sparsegen.nets.pyramid import Pyramid
from sparsegen.nets.schema import Schema
from sparsegen.sparse import GenerativeConvTranspose, SparseConv, SparseTensor, SubmanifoldConv, prune

__all__ = ["SparseCritic", "SparseDecoder", "SparseEncoder"]


def _rectified(x: SparseTensor) -> SparseTensor:
    return x.replace(F.leaky_relu(x.features, 0.1))


def _ravel(coords: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Row-major keys of sites ``(N, 1 + D)``, batch first."""
    key = coords[:, 0]
    for axis, size in enumerate(shape):
        key = key * size + coords[:, 1 + axis]
    return key


class _Trunk(nn.Module):
    """Submanifold convolutions and halvings down to the coarsest lattice, read out cell by cell.

    With the same weights it equals the dense trunk where every cell is active. The convolutions have no bias, so that a
    cell whose features fade to zero and an empty cell are one and the same to it: gradients through soft gates then
    tell a generator what a cell's presence is worth.
    """

    def __init__(self, schema: Schema, width: float, out: int) -> None:
        super().__init__()
        pyramid = Pyramid.of(lattice_of(schema))
        dim, wide = len(pyramid.periodic), [channels(width, level) for level in range(pyramid.depth + 1)]
        self.pyramid = pyramid
        self.mix = nn.ModuleList()
        self.down = nn.ModuleList()
        c = len(schema.columns)
        for level, stride in enumerate(pyramid.strides):
            self.mix.append(SubmanifoldConv(dim, c, wide[level], 3, bias=False))
            self.down.append(SparseConv(dim, wide[level], wide[level + 1], stride, stride=stride, bias=False))
            c = wide[level + 1]
        self.last = SubmanifoldConv(dim, c, wide[-1], 3, bias=False)
        self.narrow = nn.Linear(wide[-1], channels(width / 2, 0), bias=False)
        cells = math.prod(pyramid.shapes[-1])
        self.read = MLP((channels(width / 2, 0) * cells + len(schema.conditions), channels(width, 2), out))

    def forward(self, net: Encoder | Critic, events: Events, condition: Tensor) -> Tensor:
        cells = as_cells(events, net._grid())
        coords = torch.cat([cells.batch[:, None], cells.coords], 1)
        features = net.scaler.compand(cells.features)
        x = SparseTensor(features, coords, self.pyramid.shapes[0], len(cells), periodic=self.pyramid.periodic)
        for mix, down in zip(self.mix, self.down, strict=True):
            x = _rectified(down(_rectified(mix(x))))
        x = _rectified(self.last(x))
        x = _rectified(x.replace(self.narrow(x.features)))
        read = x.to_dense().flatten(1)
        return cast(Tensor, self.read(torch.cat([read, condition.to(read.dtype)], 1)))


class SparseEncoder(Encoder):
    """Submanifold convolutions and exact halvings of the active cells, then two linear layers.

    References:
        3D Semantic Segmentation with Submanifold Sparse Convolutional Networks (Graham et al., 2018),
        https://arxiv.org/abs/1711.10275

    Args:
        schema: Axes, columns and scales of the data.
        latent: Width of the code.
        width: Channels at the finest level.
    """

    def __init__(self, schema: Schema, latent: int, width: float) -> None:
        super().__init__(schema, _Trunk(schema, width, latent))


class SparseCritic(Critic):
    """The same trunk as :class:`SparseEncoder`, read out as one score an event."""

    def __init__(self, schema: Schema, width: float) -> None:
        super().__init__(schema, _Trunk(schema, width, 1))

    def support(self, events: Events) -> Events:
        """The events on the critic's own cells, which have no gradient in position."""
        return as_cells(events, self._grid())


class SparseDecoder(Decoder):
    """A code to active cells: at every level children are made, judged, and pruned before they are convolved.

    The coarsest lattice is small and starts fully active. Each level's occupancy is a Bernoulli law given its parents,
    so the levels together are a law over supports: it is sampled as it is trained, and training takes the target's
    own support at each level. Gates are straight-through and multiply the features, so that a critic's gradient
    reaches the occupancy of every level.

    References:
        Generative Sparse Detection Networks (Gwak, Choy, Savarese, 2020), https://arxiv.org/abs/2006.12356

    Args:
        schema: Axes, columns and scales of the data.
        latent: Width of the code.
        width: Channels at the finest level.
    """

    def __init__(self, schema: Schema, latent: int, width: float) -> None:
        super().__init__(schema, latent)
        grid, c = self._grid(), len(schema.columns)
        self.pyramid = Pyramid.of(grid)
        dim, wide = grid.dim, [channels(width, level) for level in range(self.pyramid.depth + 1)]
        coarsest = self.pyramid.shapes[-1]
        cells = math.prod(coarsest)
        self.thin, k = channels(width / 2, 0), self.condition_dim
        self.spread = MLP((latent + k, channels(width, 2), self.thin * cells), last=True)
        self.widen = SubmanifoldConv(dim, self.thin, wide[-1], 3)
        self.occupancy = nn.ModuleList(nn.Linear(wide[level], 1) for level in reversed(range(self.pyramid.depth + 1)))
        self.up, self.mix = nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(self.pyramid.depth)):
            stride = self.pyramid.strides[level]
            self.up.append(GenerativeConvTranspose(dim, wide[level + 1], wide[level], stride, stride=stride))
            self.mix.append(SubmanifoldConv(dim, wide[level], wide[level], 3))
        self.head = nn.Linear(wide[0], 2 * c)
        self.sum = totals_head(latent + k, c)
        lattice = list(itertools.product(*(range(n) for n in coarsest)))
        self.register_buffer("coarsest", torch.tensor(lattice, dtype=torch.int64), persistent=False)
        for level, mask in enumerate(self.pyramid.possible(grid)):
            self.register_buffer(f"possible_{level}", mask, persistent=False)

    coarsest: Tensor

    def forward(
        self,
        z: Tensor,
        condition: Tensor | None = None,
        *,
        counts: Tensor | None = None,
        target: Events | None = None,
        generator: torch.Generator | None = None,
    ) -> Decoded:
        """See :class:`sparsegen.nets.base.Decoder`; with ``target`` each level keeps the target's own cells."""
        size, depth, c = len(z), self.pyramid.depth, len(self.schema.columns)
        z = torch.cat([z, self._condition(condition, size).to(z.dtype)], 1)
        keys = self._target_keys(target) if target is not None else [None] * (depth + 1)
        start = self.spread(z).view(size * len(self.coarsest), self.thin)
        batch = torch.arange(size, device=z.device).repeat_interleave(len(self.coarsest))
        coords = torch.cat([batch[:, None], self.coarsest.repeat(size, 1)], 1)
        x = SparseTensor(start, coords, self.pyramid.shapes[-1], size, periodic=self.pyramid.periodic)
        x = _rectified(self.widen(x))
        levels: list[Level] = []
        x, gate = self._prune(x, depth, levels, keys[depth], counts if depth == 0 else None, generator)
        for i, (up, mix) in enumerate(zip(self.up, self.mix, strict=True)):
            level = depth - 1 - i
            x = _rectified(up(x.replace(x.features * gate[:, None].to(x.features.dtype))))
            x, gate = self._prune(x, level, levels, keys[level], counts if level == 0 else None, generator)
            x = _rectified(mix(x))
        raw = self.head(x.features)
        raw = raw if raw.dtype == torch.float64 else raw.float()
        mean, log_std = raw[:, :c], bounded_log_std(raw[:, c:])
        features = self._features(mean, log_std, gate, generator)
        summed = self.sum(z)
        total = (summed[:, :c].to(mean.dtype), bounded_log_std(summed[:, c:]).to(mean.dtype))
        events = self._events(x.coords[:, 1:], features, x.coords[:, 0], size, condition, self._grid())
        return Decoded(self._share(events, total, generator), levels, mean, log_std, total)

    def _prune(
        self,
        x: SparseTensor,
        level: int,
        levels: list[Level],
        wanted: Tensor | None,
        counts: Tensor | None,
        generator: torch.Generator | None,
    ) -> tuple[SparseTensor, Tensor]:
        """Judges the sites of one level and keeps some; returns them with their gates ``(M,)``."""
        batch, lattice = x.coords[:, 0], self.get_buffer(f"possible_{level}").flatten()
        possible = lattice.index_select(0, x.sites.keys.remainder(len(lattice)))
        logits = self.occupancy[self.pyramid.depth - level](x.features)[:, 0]
        logits = logits if logits.dtype == torch.float64 else logits.float()
        logits = torch.where(possible, logits, -torch.inf)
        if wanted is None:
            keep = keep_cells(logits, batch, x.batch_size, counts, generator)
            levels.append(Level(logits, batch))
        else:
            key = x.sites.keys
            slot = torch.searchsorted(wanted, key).clamp(max=max(len(wanted) - 1, 0))
            keep = wanted[slot] == key if len(wanted) else torch.zeros_like(possible)
            levels.append(Level(logits, batch, keep))
        kept = logits[keep]
        return prune(x, keep), straight_through(torch.ones_like(kept), kept.sigmoid())

    def _target_keys(self, target: Events) -> list[Tensor | None]:
        """Sorted keys of the cells that the target occupies at each level, finest first."""
        cells = as_cells(target, self._grid())
        coords = torch.cat([cells.batch[:, None], cells.coords], 1)
        keys: list[Tensor | None] = [_ravel(coords, self.pyramid.shapes[0])]
        for shape, stride in zip(self.pyramid.shapes[1:], self.pyramid.strides, strict=True):
            coords = coords // torch.tensor((1, *stride), device=coords.device)
            keys.append(_ravel(coords, shape).unique())
        return keys

    def reconstruction(self, decoded: Decoded, target: Events) -> dict[str, Tensor]:
        """Cross-entropy of occupancy at every level, likelihood of features in the target's cells and of the totals."""
        target = as_cells(target, self._grid())
        occupancy = [self._occupancy_loss(level, len(target)) for level in decoded.levels]
        return {
            "occupancy": torch.stack(occupancy).sum(0),
            "features": self._feature_loss(decoded, target),
            "total": self._total_loss(decoded, target),
        }
