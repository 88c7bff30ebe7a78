"""Set networks: PointNet and EPiC encoders and critics, MLP and EPiC generators of a given multiplicity."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsegen.errors import DataError
from sparsegen.events import Events
from sparsegen.nets.base import MLP, Critic, Decoded, Decoder, Encoder, bounded_log_std, noise_like
from sparsegen.nets.schema import Schema
from sparsegen.points import EPiC, TNet, pool_max, pool_mean, pool_sum, shared_first
from sparsegen.transport import chamfer, sliced

__all__ = ["EPiCTrunk", "PointCritic", "PointDecoder", "PointEncoder", "PointNetTrunk"]


def _size(width: float, factor: float = 1.0) -> int:
    return max(1, round(width * factor))


def _inputs(schema: Schema) -> int:
    """Width of the rows that :func:`_rows` makes."""
    return len(schema.axes) + sum(math.isfinite(p) for p in schema.periods) + len(schema.columns)


def _rows(net: Encoder | Critic, events: Events) -> Tensor:
    """Positions and features of hits as rows of order one ``(N, R)``."""
    return torch.cat([net.scaler.embed(events.positions), net.scaler.compand(events.features)], 1)


class EPiCTrunk(nn.Module):
    """EPiC layers over the hits of an event, pooled by mean, maximum and sum.

    Args:
        schema: Axes, columns and scales of the data.
        width: Width of a hit's vector.
        out: Width of the result.
        layers: EPiC layers.
    """

    def __init__(self, schema: Schema, width: float, out: int, layers: int = 2) -> None:
        super().__init__()
        hidden = _size(width)
        self.hits = schema.hits
        self.embed = MLP((_inputs(schema), hidden, hidden), last=True)
        self.start = MLP((3 * hidden + len(schema.conditions), hidden), last=True)
        self.layers = nn.ModuleList(EPiC(hidden, hidden, schema.hits) for _ in range(layers))
        self.read = MLP((4 * hidden, _size(width, 2), out))

    def forward(self, net: Encoder | Critic, events: Events, condition: Tensor) -> Tensor:
        batch, size = events.batch, len(events)
        x = self.embed(_rows(net, events))
        g = self.start(torch.cat([self._pool(x, batch, size), condition.to(x.dtype)], 1))
        for layer in self.layers:
            x, g = layer(x, g, batch)
        return cast(Tensor, self.read(torch.cat([self._pool(x, batch, size), g], 1)))

    def _pool(self, x: Tensor, batch: Tensor, size: int) -> Tensor:
        pooled = [pool_mean(x, batch, size), pool_max(x, batch, size), pool_sum(x, batch, size) / self.hits]
        return torch.cat(pooled, 1)


class PointNetTrunk(nn.Module):
    """PointNet's shared layers, pooled by maximum and mean (PointNet-Mix), with optional alignment of its inputs.

    References:
        PointNet (Qi et al., 2017), https://arxiv.org/abs/1612.00593; PointNet-Mix: Wang et al. (2020),
        https://arxiv.org/abs/2006.10335

    Args:
        schema: Axes, columns and scales of the data.
        width: Width of the first layer; the next ones are two and four times as wide.
        out: Width of the result.
        tnet: Whether a :class:`sparsegen.points.TNet` aligns the rows first.
    """

    def __init__(self, schema: Schema, width: float, out: int, tnet: bool = False) -> None:
        super().__init__()
        self.align = TNet(_inputs(schema), _size(width)) if tnet else None
        self.shared = MLP((_inputs(schema), _size(width), _size(width, 2), _size(width, 4)), last=True)
        self.read = MLP((2 * _size(width, 4) + len(schema.conditions), _size(width, 2), out))

    def forward(self, net: Encoder | Critic, events: Events, condition: Tensor) -> Tensor:
        batch, size = events.batch, len(events)
        rows = _rows(net, events)
        if self.align is not None:
            rows, _ = self.align(rows, batch, size)
        x = self.shared(rows)
        pooled = torch.cat([pool_max(x, batch, size), pool_mean(x, batch, size), condition.to(x.dtype)], 1)
        return cast(Tensor, self.read(pooled))


def _trunk(kind: str, schema: Schema, width: float, out: int, tnet: bool) -> EPiCTrunk | PointNetTrunk:
    return PointNetTrunk(schema, width, out, tnet) if kind == "pointnet" else EPiCTrunk(schema, width, out)


class PointEncoder(Encoder):
    """A set of hits to a code, invariant to their order.

    Args:
        schema: Axes, columns and scales of the data.
        latent: Width of the code.
        width: Width of a hit's vector.
        kind: ``"epic"`` or ``"pointnet"``.
        tnet: Whether PointNet aligns its inputs first.
    """

    def __init__(self, schema: Schema, latent: int, width: float, kind: str = "epic", tnet: bool = False) -> None:
        super().__init__(schema)
        self.trunk = _trunk(kind, schema, width, latent, tnet)

    def forward(self, events: Events) -> Tensor:
        """Codes ``(B, latent)``."""
        return cast(Tensor, self.trunk(self, events, self._condition(events.condition, len(events))))


class PointCritic(Critic):
    """A set of hits to a score; arguments as for :class:`PointEncoder`."""

    def __init__(self, schema: Schema, width: float, kind: str = "epic", tnet: bool = False) -> None:
        super().__init__(schema)
        self.trunk = _trunk(kind, schema, width, 1, tnet)

    def forward(self, events: Events) -> Tensor:
        """Scores ``(B,)``."""
        return cast(Tensor, self.trunk(self, events, self._condition(events.condition, len(events)))[:, 0])


class PointDecoder(Decoder):
    """A code to as many hits as it is told.

    Args:
        schema: Axes, columns and scales of the data.
        latent: Width of the code.
        width: Width of a hit's vector.
        kind: ``"epic"``: each hit starts as noise and sees the event through EPiC layers. ``"mlp"``: one network
            writes out all hits of the largest event seen, and the first ``counts`` of them are kept.
        layers: EPiC layers.
    """

    needs_counts = True

    def __init__(self, schema: Schema, latent: int, width: float, kind: str = "epic", layers: int = 4) -> None:
        super().__init__(schema, latent)
        hidden, self.rows = _size(width), len(schema.axes) + len(schema.columns)
        self.kind = kind
        given = latent + self.condition_dim + 1
        self.sum = nn.Linear(given, 2 * len(schema.columns))
        if kind == "mlp":
            self.write = MLP((given, _size(width, 2), _size(width, 4), schema.max_hits * self.rows))
            return
        self.noise = 4
        self.start = MLP((given, _size(width, 2), hidden), last=True)
        self.embed = nn.Linear(self.noise + hidden, hidden)
        self.layers = nn.ModuleList(EPiC(hidden, hidden, schema.hits) for _ in range(layers))
        self.head = nn.Linear(2 * hidden, self.rows)

    def forward(
        self,
        z: Tensor,
        condition: Tensor | None = None,
        *,
        counts: Tensor | None = None,
        target: Events | None = None,
        generator: torch.Generator | None = None,
    ) -> Decoded:
        """See :class:`sparsegen.nets.base.Decoder`; ``counts`` are the target's where only a target is given.

        Raises:
            DataError: Neither ``counts`` nor ``target`` is given, or more hits are asked for than an MLP can write.
        """
        if counts is None:
            if target is None:
                raise DataError("PointDecoder: how many hits? pass counts= (a multiplicity model draws them) or target=")
            counts = target.counts
        size, dim = len(z), len(self.schema.axes)
        batch = torch.repeat_interleave(torch.arange(size, device=z.device), counts)
        multiplicity = (counts.to(z.dtype) / self.schema.hits).log1p()[:, None]
        given = torch.cat([z, self._condition(condition, size).to(z.dtype), multiplicity], 1)
        rows = self._rows(given, batch, counts, generator)
        rows = rows if rows.dtype == torch.float64 else rows.float()
        place, y = rows[:, :dim], rows[:, dim:]
        positions = self.scaler.displace(place)
        features = self.scaler.restore(y)
        summed = self.sum(given)
        c = len(self.schema.columns)
        total = (summed[:, :c].to(rows.dtype), bounded_log_std(summed[:, c:]).to(rows.dtype))
        events = self._events(self._wrap(positions), features, batch, size, condition, self.schema.grid)
        return Decoded(self._share(events, total, generator), mean=y, total=total)

    def _rows(self, given: Tensor, batch: Tensor, counts: Tensor, generator: torch.Generator | None) -> Tensor:
        if self.kind == "mlp":
            longest = int(counts.max()) if len(counts) else 0
            if longest > self.schema.max_hits:
                raise DataError(f"PointDecoder: {longest} hits asked for; the MLP writes at most {self.schema.max_hits}")
            slot = torch.arange(len(batch), device=batch.device) - (counts.cumsum(0) - counts)[batch]
            written: Tensor = self.write(given).view(len(given), self.schema.max_hits, self.rows)
            return written[batch, slot]
        g = self.start(given)
        noise = noise_like(given.new_empty(len(batch), self.noise), generator).to(g.dtype)
        x = F.leaky_relu(shared_first(self.embed, noise, g, batch), 0.1)
        for layer in self.layers:
            x, g = layer(x, g, batch)
        return shared_first(self.head, x, g, batch)

    def _wrap(self, positions: Tensor) -> Tensor:
        """Positions with periodic axes wrapped into the lattice's range."""
        if not any(math.isfinite(p) for p in self.schema.periods) or self.schema.grid is None:
            return positions
        columns = [
            low + torch.remainder(x - low, period) if math.isfinite(period) else x
            for x, low, period in zip(positions.unbind(1), self.schema.grid.low, self.schema.periods, strict=True)
        ]
        return torch.stack(columns, 1)

    def reconstruction(self, decoded: Decoded, target: Events) -> dict[str, Tensor]:
        """Chamfer and sliced Wasserstein distance of hits in standardised units, and the likelihood of the totals.

        The Chamfer distance alone is blind to how many points crowd at one place (Achlioptas et al. 2018,
        https://arxiv.org/abs/1707.02392); the sliced distance between sets of one size is not.
        """
        made, truth = self._cloud(decoded.events), self._cloud(target)
        return {
            "chamfer": chamfer(made, truth),
            "sliced": sliced(made, truth),
            "total": self._total_loss(decoded, target),
        }

    def _cloud(self, events: Events) -> Events:
        """Hits as points of the standardised space of positions and features."""
        rows = torch.cat([self.scaler.embed(events.positions), self.scaler.standardise(events.features)], 1)
        return events._like(coords=rows, grid=None, axes=tuple(f"row_{i}" for i in range(rows.shape[1])))
