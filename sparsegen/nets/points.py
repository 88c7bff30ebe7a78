"""Set networks: PointNet and EPiC encoders and critics, MLP and EPiC generators of a given multiplicity."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsegen.errors import ConfigError, DataError
from sparsegen.events import Events
from sparsegen.nets.base import MLP, Critic, Decoded, Decoder, Encoder, bounded_log_std, noise_like, totals_head
from sparsegen.nets.schema import Schema
from sparsegen.points import EPiC, TNet, pool_max, pool_mean, pool_sum, shared_first

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
    if kind == "pointnet":
        return PointNetTrunk(schema, width, out, tnet)
    if tnet:
        raise ConfigError("tnet=True aligns PointNet's inputs; EPiC layers have none (use the network pointnet)")
    return EPiCTrunk(schema, width, out)


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
        super().__init__(schema, _trunk(kind, schema, width, latent, tnet))


class PointCritic(Critic):
    """A set of hits to a score; arguments as for :class:`PointEncoder`."""

    def __init__(self, schema: Schema, width: float, kind: str = "epic", tnet: bool = False) -> None:
        super().__init__(schema, _trunk(kind, schema, width, 1, tnet))


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
        self.sum = totals_head(given, len(schema.columns)) if schema.columns else None
        if kind == "mlp":
            self.write = MLP((given, _size(width, 2), _size(width, 4), schema.max_hits * 2 * self.rows))
            return
        self.noise = 4
        self.start = MLP((given, _size(width, 2), hidden), last=True)
        self.embed = nn.Linear(self.noise + hidden, hidden)
        self.layers = nn.ModuleList(EPiC(hidden, hidden, schema.hits) for _ in range(layers))
        self.head = nn.Linear(2 * hidden, 2 * self.rows)

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
                raise DataError(
                    "PointDecoder: how many hits? pass counts= (a multiplicity model draws them) or target="
                )
            counts = target.counts
        size, dim = len(z), len(self.schema.axes)
        batch = torch.repeat_interleave(torch.arange(size, device=z.device), counts)
        multiplicity = (counts.to(z.dtype) / self.schema.hits).log1p()[:, None]
        given = torch.cat([z, self._condition(condition, size).to(z.dtype), multiplicity], 1)
        raw = self._rows(given, batch, counts, generator)
        mean, log_std = (raw if raw.dtype == torch.float64 else raw.float()).chunk(2, dim=1)
        log_std = bounded_log_std(log_std)
        rows = mean + log_std.exp() * noise_like(mean, generator)
        positions = self.scaler.displace(rows[:, :dim])
        features = self.scaler.restore(rows[:, dim:])
        events = self._events(self._wrap(positions), features, batch, size, condition, self.schema.grid)
        if self.sum is None:
            return Decoded(events, mean=mean, log_std=log_std)
        summed = self.sum(given)
        c = len(self.schema.columns)
        total = (summed[:, :c].to(rows.dtype), bounded_log_std(summed[:, c:]).to(rows.dtype))
        return Decoded(self._share(events, total, generator), mean=mean, log_std=log_std, total=total)

    def _rows(self, given: Tensor, batch: Tensor, counts: Tensor, generator: torch.Generator | None) -> Tensor:
        if self.kind == "mlp":
            longest = int(counts.max()) if len(counts) else 0
            if longest > self.schema.max_hits:
                raise DataError(
                    f"PointDecoder: {longest} hits asked for; the MLP writes at most {self.schema.max_hits}"
                )
            slot = torch.arange(len(batch), device=batch.device) - (counts.cumsum(0) - counts)[batch]
            written: Tensor = self.write(given).view(len(given), self.schema.max_hits, 2 * self.rows)
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
        r"""Likelihood of the target's hits under the mixture of the decoded hits' normal laws, and of any totals.

        .. math:: -\frac1h \sum_j \log \frac1N \sum_i \mathcal N(x_j; \mu_i, \sigma_i)

        This is a soft Chamfer distance in standardised units: as :math:`\sigma \to 0` each hit of the target pulls at
        its nearest decoded hit alone. Unlike the hard distance it learns how far hits scatter, so that what is
        sampled is not narrower than the data.
        """
        assert decoded.mean is not None and decoded.log_std is not None
        made = decoded.events
        dim = len(self.schema.axes)
        law = made._like(coords=self.scaler.displace(decoded.mean[:, :dim]))
        centres = torch.cat([self.scaler.embed(law.coords), decoded.mean[:, dim:]], 1)
        circles = [2 if math.isfinite(p) else 1 for p in self.schema.periods] + [1] * len(self.schema.columns)
        precision = (-2 * decoded.log_std).exp().repeat_interleave(torch.tensor(circles, device=centres.device), dim=1)
        truth = torch.cat([self.scaler.embed(target.positions), self.scaler.standardise(target.features)], 1)
        x = _padded(truth, target)
        weighted, quadratic = _padded(precision, made), _padded(centres * precision, made)
        constant = 0.5 * (centres.square() * precision).sum(1) + decoded.log_std.sum(1)
        shift = _padded(constant[:, None], made, torch.inf)[:, :, 0]
        energy = 0.5 * x.square() @ weighted.mT - x @ quadratic.mT + shift[:, None, :]
        log_density = torch.logsumexp(-energy, 2) - made.counts.clamp(min=1).to(x.dtype).log()[:, None]
        real = torch.arange(x.shape[1], device=x.device) < target.counts[:, None]
        hits = -torch.where(real & (made.counts > 0)[:, None], log_density, torch.zeros_like(log_density)).sum(1)
        terms = {"hits": hits / self.schema.hits}
        return terms if self.sum is None else terms | {"total": self._total_loss(decoded, target)}


def _padded(rows: Tensor, events: Events, fill: float = 0.0) -> Tensor:
    """Rows ``(N, R)`` of ragged events as ``(B, L, R)``."""
    length = int(events.counts.max()) if len(events) else 0
    slot = events.batch * length + torch.arange(len(rows), device=rows.device) - events.offsets[:-1][events.batch]
    padded = rows.new_full((len(events) * length, rows.shape[1]), fill).index_copy_(0, slot, rows)
    return padded.view(len(events), length, rows.shape[1])
