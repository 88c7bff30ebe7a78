"""The contract of encoders, decoders and critics, and the parts that the families share."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsegen.errors import ConfigError, DataError
from sparsegen.events import COUNT, Events
from sparsegen.grid import Grid
from sparsegen.nets.schema import Scaler, Schema

__all__ = ["MLP", "Critic", "Decoded", "Decoder", "Encoder", "Level", "as_cells", "keep_cells", "straight_through"]


@dataclass
class Level:
    """What a decoder decided at one resolution.

    Args:
        logits: Occupancy logits of the candidate cells ``(M,)``.
        batch: The event of each candidate ``(M,)``.
        target: Whether each candidate is occupied in the target ``(M,)``, where one was given.
    """

    logits: Tensor
    batch: Tensor
    target: Tensor | None = None


class Decoded:
    """What a decoder returns: events, and how it came to them.

    Args:
        events: The generated events; gradients flow through features, positions and soft occupancy.
        levels: Occupancy decisions, coarse to fine; empty where a decoder makes none.
        mean: Means of the standardised features at the hits ``(N, C)``, before noise, where a decoder draws them.
        log_std: Their log standard deviations ``(N, C)``.
        total: Standardised totals of the additive columns ``(B, C)``, before noise, and their log standard deviations.
    """

    def __init__(
        self,
        events: Events,
        levels: Sequence[Level] = (),
        mean: Tensor | None = None,
        log_std: Tensor | None = None,
        total: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.events = events
        self.levels = list(levels)
        self.mean = mean
        self.log_std = log_std
        self.total = total


class MLP(nn.Sequential):
    """Linear layers with leaky rectifiers between them.

    Args:
        sizes: Widths from the input to the output.
        last: Whether a rectifier follows the last layer too.
    """

    def __init__(self, sizes: Sequence[int], last: bool = False) -> None:
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(itertools.pairwise(sizes)):
            layers.append(nn.Linear(a, b))
            if last or i < len(sizes) - 2:
                layers.append(nn.LeakyReLU(0.1))
        super().__init__(*layers)


def as_cells(events: Events, grid: Grid) -> Events:
    """Events on the cells of ``grid``; hits outside it are left out, hits without features counted."""
    events = events.counted()
    if events.is_cells and events.grid == grid:
        return events.coalesce()
    return events.voxelize(grid, outside="drop")[0]


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """``hard`` forwards, the gradient of ``soft`` backwards (Bengio, Leonard, Courville 2013)."""
    return hard.to(soft.dtype) + soft - soft.detach()


def noise_like(x: Tensor, generator: torch.Generator | None, uniform: bool = False) -> Tensor:
    """Standard normal (or uniform) noise of a tensor's shape, from an explicit generator."""
    draw = torch.rand if uniform else torch.randn
    device = generator.device if generator is not None else x.device
    return draw(x.shape, generator=generator, device=device, dtype=x.dtype).to(x.device)


def keep_cells(
    logits: Tensor, batch: Tensor, size: int, counts: Tensor | None, generator: torch.Generator | None
) -> Tensor:
    """Which candidate cells exist: one Bernoulli draw each, or the ``counts`` best of each event under Gumbel noise.

    Args:
        logits: ``(M,)`` occupancy logits; minus infinity forbids a cell.
        batch: Event of each candidate ``(M,)``, rising.
        size: Number of events B.
        counts: Cells wanted per event ``(B,)``; None draws each cell for itself.
        generator: Source of randomness.

    Returns:
        ``(M,)`` bool. Without ``counts`` an event always keeps its likeliest cell, so that none is pruned away.
    """
    logits = logits.detach()
    uniform = noise_like(logits, generator, uniform=True).clamp(1e-7, 1 - 1e-7)
    score = logits + uniform.log() - (-uniform).log1p()
    possible = logits > -torch.inf
    if counts is None:
        best = score.new_full((size,), -torch.inf).scatter_reduce(0, batch, score, "amax")
        return ((score > 0) | (score == best[batch])) & possible
    sizes = torch.bincount(batch, minlength=size)
    there = torch.arange(max(sizes.tolist(), default=0), device=batch.device) < sizes[:, None]
    order = (
        score.new_full(there.shape, -torch.inf)
        .masked_scatter_(there, score)
        .argsort(stable=True, dim=1, descending=True)
    )
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=batch.device).expand_as(order)
    )
    return (rank[there] < counts[batch]) & possible


def lattice_of(schema: Schema) -> Grid:
    """The lattice that a network of cells needs.

    Raises:
        ConfigError: The schema has none.
    """
    if schema.grid is None:
        raise ConfigError("dense and sparse networks need the lattice of their data: pass grid=")
    return schema.grid


class _Network(nn.Module):
    """A network that knows its schema and takes the condition from its input."""

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        self.schema = schema
        self.scaler = Scaler(schema)
        self.condition_dim = len(schema.conditions)

    def _grid(self) -> Grid:
        return lattice_of(self.schema)

    def _condition(self, condition: Tensor | None, size: int) -> Tensor:
        """The standardised condition ``(B, K)``, checked."""
        if self.condition_dim == 0:
            return self.scaler.centre.new_zeros(size, 0)
        if condition is None or condition.shape != (size, self.condition_dim):
            given = None if condition is None else tuple(condition.shape)
            raise DataError(
                f"{type(self).__name__}: condition of shape {given}; expected ({size}, {self.condition_dim}) "
                f"for {', '.join(self.schema.conditions)}"
            )
        standard = self.scaler.condition(condition)
        if not bool(standard.isfinite().all()):
            row, column = (~standard.isfinite()).nonzero()[0].tolist()
            value = f"{self.schema.conditions[column]}={float(condition[row, column]):g}"
            wanted = "a positive number" if self.schema.condition_log[column] else "a finite number"
            raise DataError(f"{type(self).__name__}: condition {value} of event {row}; expected {wanted}")
        return standard


class _Reader(_Network):
    """A network that reads events through a trunk; hits without features count as one each.

    Args:
        schema: Axes, columns and scales of the data.
        trunk: ``(network, events, standardised condition (B, K)) -> (B, out)``.
    """

    def __init__(self, schema: Schema, trunk: nn.Module) -> None:
        super().__init__(schema)
        self.trunk = trunk

    def _read(self, events: Events) -> Tensor:
        events = events.counted()
        return cast(Tensor, self.trunk(self, events, self._condition(events.condition, len(events))))

    def leaves(self, events: Events) -> tuple[Events, tuple[Tensor, ...]]:
        """The same events, rebuilt from leaf tensors in units of order one, for penalties on the network's gradient.

        Returns:
            The events and the leaves: one row a hit.
        """
        events = events.counted()
        u = self.scaler.compand(events.features.detach()).requires_grad_()
        features = self.scaler.expand(u)
        if events.is_cells:
            return events.with_features(features), (u,)
        p = self.scaler.place(events.coords.detach()).requires_grad_()
        moved = events._like(coords=self.scaler.displace(p), features=features)
        # A bare point counts as one wherever it moves: only its position is a direction of the data
        return moved, (p,) if events.columns == (COUNT,) else (u, p)


class Encoder(_Reader):
    """Events to codes ``(B, d)``."""

    def forward(self, events: Events) -> Tensor:
        """Codes ``(B, d)``."""
        return self._read(events)


class Critic(_Reader):
    """Events to scores ``(B,)``; knows how to interpolate between events in its own units."""

    def forward(self, events: Events) -> Tensor:
        """Scores ``(B,)``."""
        return self._read(events)[:, 0]

    def support(self, events: Events) -> Events:
        """The events on the sites where this critic's gradient is taken."""
        return events.counted()


class Decoder(_Network):
    """Codes to events.

    Attributes:
        latent: Width of the codes it takes.
        needs_counts: Whether it must be told how many hits each event has.
    """

    needs_counts = False

    def __init__(self, schema: Schema, latent: int) -> None:
        super().__init__(schema)
        self.latent = latent

    def forward(
        self,
        z: Tensor,
        condition: Tensor | None = None,
        *,
        counts: Tensor | None = None,
        target: Events | None = None,
        generator: torch.Generator | None = None,
    ) -> Decoded:
        raise NotImplementedError

    def reconstruction(self, decoded: Decoded, target: Events) -> dict[str, Tensor]:
        """Terms of the default reconstruction loss ``(B,)`` each; likelihoods in nats per typical hit."""
        raise NotImplementedError

    def _events(
        self, cells: Tensor, features: Tensor, batch: Tensor, size: int, condition: Tensor | None, grid: Grid | None
    ) -> Events:
        """Events from hits sorted by event (and by cell, where they are cells), stamped with their condition."""
        counts = torch.zeros(size, dtype=torch.int64, device=batch.device).index_add(0, batch, torch.ones_like(batch))
        return Events._trusted(
            not cells.is_floating_point(),
            coords=cells,
            features=features,
            offsets=F.pad(counts.cumsum(0), (1, 0)),
            axes=self.schema.axes,
            columns=self.schema.columns,
            condition=condition if self.condition_dim else None,
            conditions=self.schema.conditions,
            grid=grid,
            ids=torch.arange(size, device=batch.device),
        )

    def _features(self, mean: Tensor, log_std: Tensor, gate: Tensor, generator: torch.Generator | None) -> Tensor:
        """Draws features ``(N, C)`` in their units and multiplies them by the gate ``(N,)``."""
        y = mean + log_std.exp() * noise_like(mean, generator)
        return self.scaler.restore(y) * _gate(gate, mean)

    def _share(self, events: Events, total: tuple[Tensor, Tensor], generator: torch.Generator | None) -> Events:
        """Scales additive features so that each event sums to its own drawn total."""
        mean, log_std = total
        wanted = self.scaler.total(mean + log_std.exp() * noise_like(mean, generator))
        features = events.features
        summed = events.sum_hits(features)
        tiny = torch.finfo(features.dtype).tiny
        factor = (wanted / summed.clamp(min=tiny))[events.batch]
        additive = torch.tensor([c.additive for c in events.columns], device=features.device) & ~self.scaler.signed
        return events.with_features(torch.where(additive, features * factor, features))

    def _total_loss(self, decoded: Decoded, target: Events) -> Tensor:
        """Negative log-likelihood of the target's totals ``(B,)``, in nats per typical hit."""
        assert decoded.total is not None
        truth = self.scaler.standardise_total(target.sum_hits(target.features).to(self.scaler.small.dtype))
        nll = gaussian_nll(truth, *decoded.total).sum(1) / self.schema.hits
        return torch.where(target.counts > 0, nll, torch.zeros_like(nll))

    def _feature_loss(self, decoded: Decoded, target: Events) -> Tensor:
        """Negative log-likelihood of the target's features at its own cells ``(B,)``, in nats per typical hit."""
        assert decoded.mean is not None and decoded.log_std is not None
        nll = gaussian_nll(self.scaler.standardise(target.features), decoded.mean, decoded.log_std).sum(1)
        return target.sum_hits(nll) / self.schema.hits

    def _occupancy_loss(self, level: Level, size: int) -> Tensor:
        """Binary cross-entropy of one level's cells ``(B,)``, in nats per typical hit."""
        if level.target is None:
            raise ConfigError(f"{type(self).__name__}.reconstruction: decode with target= first")
        possible = level.logits > -torch.inf
        logits = torch.where(possible, level.logits, torch.zeros_like(level.logits))
        bce = F.binary_cross_entropy_with_logits(logits, level.target.to(logits.dtype), reduction="none")
        bce = bce * possible
        return bce.new_zeros(size).index_add(0, level.batch, bce) / self.schema.hits


def gaussian_nll(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Negative log density of a normal law, up to its constant."""
    return 0.5 * ((x - mean) * (-log_std).exp()).square() + log_std


def totals_head(given: int, columns: int) -> nn.Linear:
    """The layer that says mean and raw log standard deviation of standardised totals from what a decoder is given.

    It starts as the law of the training set whatever it is given. From random weights the first errors drive the
    deviations into their bound, where thousands of steps see hardly a gradient.
    """
    layer = nn.Linear(given, 2 * columns)
    nn.init.zeros_(layer.weight)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([0.0, math.atanh(1.25 / 2.75)]).repeat_interleave(columns))
    return layer


def bounded_log_std(raw: Tensor) -> Tensor:
    """A log standard deviation between -4 and 1.5, so that a likelihood cannot run away."""
    return -1.25 + 2.75 * torch.tanh(raw.float() if raw.dtype != torch.float64 else raw)


def _gate(gate: Tensor, like: Tensor) -> Tensor:
    return gate.to(like.dtype)[:, None]
