"""The dense baselines: strided convolutions over the whole lattice, occupied or not."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsegen.errors import ConfigError
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
from sparsegen.nets.pyramid import Pyramid
from sparsegen.nets.schema import Schema

__all__ = ["Conv", "DenseCritic", "DenseDecoder", "DenseEncoder", "channels"]

_CONV: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSE: dict[int, type[nn.Module]] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def channels(width: float, level: int) -> int:
    """Channels at a level of the pyramid: they double twice, then stay."""
    return max(1, round(width * 2 ** min(level, 2)))


class Conv(nn.Module):
    """A convolution of odd kernel that keeps the shape: zeros beyond open edges, wrapped along periodic axes."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, periodic: tuple[bool, ...]) -> None:
        super().__init__()
        self.pad = [p for wraps in reversed(periodic) for p in (kernel_size // 2 if wraps else 0,) * 2]
        padding = tuple(0 if wraps else kernel_size // 2 for wraps in periodic)
        self.conv = _conv(len(periodic))(in_channels, out_channels, kernel_size, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(B, C, *shape)`` to ``(B, C', *shape)``."""
        if any(self.pad):
            x = F.pad(x, self.pad, mode="circular")
        return cast(Tensor, self.conv(x))


def _conv(dim: int) -> type[nn.Module]:
    if dim not in _CONV:
        raise ConfigError(f"the dense family has no convolution in {dim} dimensions; use sparse or points")
    return _CONV[dim]


class _Trunk(nn.Module):
    """Convolutions and halvings down to the coarsest lattice, read out cell by cell."""

    def __init__(self, schema: Schema, width: float, out: int) -> None:
        super().__init__()
        pyramid = Pyramid.of(lattice_of(schema))
        dim, wide = len(pyramid.periodic), [channels(width, level) for level in range(pyramid.depth + 1)]
        self.shape = pyramid.shapes[0]
        self.mix = nn.ModuleList()
        self.down = nn.ModuleList()
        c = len(schema.columns)
        for level, stride in enumerate(pyramid.strides):
            self.mix.append(Conv(c, wide[level], 3, pyramid.periodic))
            self.down.append(_conv(dim)(wide[level], wide[level + 1], stride, stride=stride))
            c = wide[level + 1]
        self.last = Conv(c, wide[-1], 3, pyramid.periodic)
        self.narrow = Conv(wide[-1], channels(width / 2, 0), 1, pyramid.periodic)
        cells = math.prod(pyramid.shapes[-1])
        hidden = channels(width, 2)
        self.read = MLP((channels(width / 2, 0) * cells + len(schema.conditions), hidden, out))

    def forward(self, net: Encoder | Critic, events: Events, condition: Tensor) -> Tensor:
        cells = as_cells(events, net._grid())
        x = cells.with_features(net.scaler.compand(cells.features)).to_dense()
        padding = [p for n, m in zip(reversed(self.shape), reversed(x.shape[2:]), strict=True) for p in (0, n - m)]
        x = F.pad(x, padding)
        for mix, down in zip(self.mix, self.down, strict=True):
            x = F.leaky_relu(down(F.leaky_relu(mix(x), 0.1)), 0.1)
        x = F.leaky_relu(self.narrow(F.leaky_relu(self.last(x), 0.1)), 0.1)
        return cast(Tensor, self.read(torch.cat([x.flatten(1), condition.to(x.dtype)], 1)))


class DenseEncoder(Encoder):
    """Strided convolutions over the whole lattice, then two linear layers.

    Args:
        schema: Axes, columns and scales of the data.
        latent: Width of the code.
        width: Channels at the finest level.
    """

    def __init__(self, schema: Schema, latent: int, width: float) -> None:
        super().__init__(schema, _Trunk(schema, width, latent))


class DenseCritic(Critic):
    """The same trunk as :class:`DenseEncoder`, read out as one score an event."""

    def __init__(self, schema: Schema, width: float) -> None:
        super().__init__(schema, _Trunk(schema, width, 1))

    def support(self, events: Events) -> Events:
        """Every cell of the lattice: a dense critic has a gradient at empty cells too."""
        cells = as_cells(events, self._grid())
        grid = self._grid()
        every = torch.arange(grid.cells, device=events.device)
        if grid.valid is not None:
            every = every[grid.valid.to(events.device).flatten()]
        size = len(events)
        return cells._like(
            True,
            coords=grid.unravel(every).repeat(size, 1),
            features=cells.to_dense().flatten(2).movedim(1, -1)[:, every].reshape(size * len(every), -1),
            offsets=torch.arange(size + 1, device=events.device) * len(every),
        )


class DenseDecoder(Decoder):
    """A code to a whole lattice: transposed convolutions, and a rectified head that leaves exact zeros.

    Every cell gets an occupancy logit and the law of its features; a cell is occupied or exactly zero.

    Args:
        schema: Axes, columns and scales of the data.
        latent: Width of the code.
        width: Channels at the finest level.
    """

    def __init__(self, schema: Schema, latent: int, width: float) -> None:
        super().__init__(schema, latent)
        grid = self._grid()
        pyramid = Pyramid.of(grid)
        dim, wide = grid.dim, [channels(width, level) for level in range(pyramid.depth + 1)]
        self.bottom = (wide[-1], *pyramid.shapes[-1])
        cells = math.prod(pyramid.shapes[-1])
        narrow, k = channels(width / 2, 0), self.condition_dim
        self.spread = MLP((latent + k, channels(width, 2), narrow * cells), last=True)
        self.narrow = (narrow, *pyramid.shapes[-1])
        self.widen = Conv(narrow, wide[-1], 3, pyramid.periodic)
        self.up, self.mix = nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(pyramid.depth)):
            stride = pyramid.strides[level]
            if dim not in _TRANSPOSE:
                raise ConfigError(f"the dense family has no convolution in {dim} dimensions; use sparse or points")
            self.up.append(_TRANSPOSE[dim](wide[level + 1], wide[level], stride, stride=stride))
            self.mix.append(Conv(wide[level], wide[level], 3, pyramid.periodic))
        self.head = Conv(wide[0], 1 + 2 * len(schema.columns), 1, pyramid.periodic)
        self.sum = totals_head(latent + k, len(schema.columns))
        self.register_buffer(
            "possible", pyramid.possible(grid)[0][tuple(slice(n) for n in grid.shape)], persistent=False
        )

    possible: Tensor

    def forward(
        self,
        z: Tensor,
        condition: Tensor | None = None,
        *,
        counts: Tensor | None = None,
        target: Events | None = None,
        generator: torch.Generator | None = None,
    ) -> Decoded:
        """See :class:`sparsegen.nets.base.Decoder`; with ``target`` the cells kept are the target's own."""
        size, grid, c = len(z), self._grid(), len(self.schema.columns)
        z = torch.cat([z, self._condition(condition, size).to(z.dtype)], 1)
        x = F.leaky_relu(self.widen(self.spread(z).view(size, *self.narrow)), 0.1)
        for up, mix in zip(self.up, self.mix, strict=True):
            x = F.leaky_relu(mix(F.leaky_relu(up(x), 0.1)), 0.1)
        x = self.head(x)[(..., *(slice(n) for n in grid.shape))]
        x = x.float() if x.dtype != torch.float64 else x
        flat = x.movedim(1, -1).reshape(size * grid.cells, 1 + 2 * c)
        logits = torch.where(self.possible.flatten().repeat(size), flat[:, 0], -torch.inf)
        batch = torch.arange(size, device=z.device).repeat_interleave(grid.cells)
        if target is not None:
            target = as_cells(target, grid)
            kept = target.batch * grid.cells + grid.ravel(target.coords)
            occupied = torch.zeros(size * grid.cells, dtype=torch.bool, device=z.device).index_fill(0, kept, True)
        else:
            occupied = None
            kept = keep_cells(logits, batch, size, counts, generator).nonzero()[:, 0]
        mean, log_std = flat[kept, 1 : 1 + c], bounded_log_std(flat[kept, 1 + c :])
        gate = straight_through(torch.ones_like(logits[kept]), logits[kept].sigmoid())
        cells = grid.unravel(kept % grid.cells)
        features = self._features(mean, log_std, gate, generator)
        summed = self.sum(z)
        total = (summed[:, :c].to(mean.dtype), bounded_log_std(summed[:, c:]).to(mean.dtype))
        events = self._share(self._events(cells, features, batch[kept], size, condition, grid), total, generator)
        return Decoded(events, [Level(logits, batch, occupied)], mean, log_std, total)

    def reconstruction(self, decoded: Decoded, target: Events) -> dict[str, Tensor]:
        """Cross-entropy of occupancy, likelihood of features in the target's cells and of the totals."""
        target = as_cells(target, self._grid())
        return {
            "occupancy": self._occupancy_loss(decoded.levels[0], len(target)),
            "features": self._feature_loss(decoded, target),
            "total": self._total_loss(decoded, target),
        }
