"""What a network must know of its data: names, geometry and typical scales."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from sparsegen.errors import DataError
from sparsegen.events import COUNT, Column, Events
from sparsegen.grid import Grid

__all__ = ["FeatureScale", "Scaler", "Schema"]


@dataclass(frozen=True)
class FeatureScale:
    """Typical sizes of one feature over hits.

    Args:
        small: Below this a positive feature is treated linearly, above it logarithmically.
        rms: Root mean square of ``log1p(x / small)`` (of ``x`` where it has signs).
        mean: Mean of ``log(x)`` (of ``x``).
        std: Standard deviation of ``log(x)`` (of ``x``).
        signed: Whether the feature takes both signs.
    """

    small: float = 1.0
    rms: float = 1.0
    mean: float = 0.0
    std: float = 1.0
    signed: bool = False


@dataclass(frozen=True)
class Schema:
    """Axes, columns, lattice and scales of one data set, in plain types.

    Args:
        axes: Names of the D coordinates.
        columns: The C features; none where hits are bare positions.
        grid: The lattice on which networks that need cells see the events, or None.
        conditions: Names of the K condition columns.
        features: One scale a column.
        centre: Mean position ``(D,)``, in the axes' units.
        spread: Standard deviation of positions ``(D,)``.
        condition_mean: Of each condition, of its logarithm where that is taken ``(K,)``.
        condition_std: ``(K,)``.
        condition_log: Whether the logarithm of a condition is taken: of one that is positive and spans a decade, such
            as an incident energy ``(K,)``.
        hits: Mean hits per event.
        max_hits: Most hits an event may have: the most seen and a quarter more.
        total: Mean and standard deviation of the logarithm of each column's sum over an event (of the sum itself
            where the column has signs) ``(C, 2)``.
    """

    axes: tuple[str, ...]
    columns: tuple[Column, ...]
    grid: Grid | None = None
    conditions: tuple[str, ...] = ()
    features: tuple[FeatureScale, ...] = ()
    centre: tuple[float, ...] = ()
    spread: tuple[float, ...] = ()
    condition_mean: tuple[float, ...] = ()
    condition_std: tuple[float, ...] = ()
    condition_log: tuple[bool, ...] = ()
    hits: float = 32.0
    max_hits: int = 128
    total: tuple[tuple[float, float], ...] = ()

    @classmethod
    def default(
        cls,
        axes: Sequence[str],
        columns: Sequence[Column | str],
        grid: Grid | None = None,
        condition_dim: int = 0,
    ) -> Schema:
        """Unit scales, with positions spread over the grid where there is one."""
        names = tuple(Column(c) if isinstance(c, str) else c for c in columns)
        low = grid.low if grid else (-1.0,) * len(axes)
        high = grid.high if grid else (1.0,) * len(axes)
        return cls(
            axes=tuple(axes),
            columns=names,
            grid=grid,
            conditions=tuple(f"condition_{i}" for i in range(condition_dim)),
            features=(FeatureScale(),) * len(names),
            centre=tuple((a + b) / 2 for a, b in zip(low, high, strict=True)),
            spread=tuple((b - a) / 4 for a, b in zip(low, high, strict=True)),
            condition_mean=(0.0,) * condition_dim,
            condition_std=(1.0,) * condition_dim,
            condition_log=(False,) * condition_dim,
            total=((3.0, 1.0),) * len(names),
        )

    @classmethod
    def fit(cls, events: Events, grid: Grid | None = None) -> Schema:
        """Scales measured on a sample of events.

        Raises:
            DataError: The sample holds no hit, or a feature is not finite.
        """
        if len(events.coords) == 0:
            raise DataError(f"Schema.fit: none of the {len(events)} events has a hit")
        position = events.positions.double()
        base = cls.default(events.axes, events.columns, grid or events.grid, len(events.conditions))
        features, totals = [], []
        for column in events.columns:
            x = events.column(column.name).double()
            if not bool(x.isfinite().all()):
                raise DataError(
                    f"Schema.fit: column {column.name} is not finite in hit {int((~x.isfinite()).nonzero()[0, 0])}"
                )
            total = events.total(column.name).double()
            if bool((x < 0).any()):
                scale = FeatureScale(
                    1.0, _size(x.square().mean().sqrt()), float(x.mean()), _size(x.std(correction=0)), True
                )
            else:
                positive = x[x > 0] if bool((x > 0).any()) else torch.ones(1, dtype=x.dtype)
                small = float(positive.quantile(0.1)) if len(positive) < 10_000_000 else float(positive.median())
                log = positive.log()
                rms = (positive / small).log1p().square().mean().sqrt()
                scale = FeatureScale(small, _size(rms), float(log.mean()), _size(log.std(correction=0)))
                total = total[total > 0].log() if bool((total > 0).any()) else torch.zeros(1)
            features.append(scale)
            totals.append((float(total.mean()), _size(total.std(correction=0), 0.01)))
        condition = events.condition.double() if events.condition is not None else torch.zeros(1, 0).double()
        decades = [bool(c.min() > 0) and bool(c.max() >= 10 * c.min()) for c in condition.unbind(1)]
        condition = torch.where(torch.tensor(decades, dtype=torch.bool), condition.log(), condition)
        return replace(
            base,
            conditions=events.conditions,
            features=tuple(features),
            centre=tuple(position.mean(0).tolist()),
            spread=tuple(_size(s) for s in position.std(0, correction=0)),
            condition_mean=tuple(condition.mean(0).tolist()),
            condition_std=tuple(_size(s) for s in (condition - condition.mean(0)).square().mean(0).sqrt()),
            condition_log=tuple(decades),
            hits=max(1.0, float(events.counts.double().mean())),
            max_hits=int(1.25 * int(events.counts.max())) + 1,
            total=tuple(totals),
        )

    def counted(self) -> Schema:
        """The schema of :meth:`sparsegen.events.Events.counted`: hits without features have the column ``count``."""
        if self.columns:
            return self
        scale = FeatureScale(1.0, math.log(2.0), 0.0, 1.0)
        return replace(self, columns=(COUNT,), features=(scale,), total=((math.log(self.hits), 0.5),))

    @property
    def periods(self) -> tuple[float, ...]:
        """The period of each axis, infinity where it does not wrap."""
        return self.grid.period if self.grid else (float("inf"),) * len(self.axes)

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON; :meth:`from_dict` is its inverse."""
        plain = asdict(replace(self, grid=None))
        plain["grid"] = self.grid.to_dict() if self.grid else None
        return plain

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Schema:
        """A schema from :meth:`to_dict`'s plain types."""
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list | tuple) else v for k, v in data.items()}
        fields["columns"] = tuple(Column(**c) for c in data["columns"])
        fields["features"] = tuple(FeatureScale(**f) for f in data["features"])
        fields["total"] = tuple((float(a), float(b)) for a, b in data["total"])
        fields["grid"] = Grid.from_dict(data["grid"]) if data["grid"] else None
        return cls(**fields)


def _size(x: Tensor, smallest: float = 1e-6) -> float:
    """A positive scale: a constant quantity is left in its own unit."""
    return float(x) if float(x) > smallest else 1.0 if smallest < 1e-3 else smallest


class Scaler(nn.Module):
    r"""Maps between features and positions in their units and numbers of order one.

    Encoders and critics see ``u = log1p(x / small) / rms``, which sends an empty cell to 0 and grows like a logarithm
    above ``small``. Decoders draw the standardised logarithm ``y``, ``x = exp(mean + std y)``.
    """

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        scales = schema.features

        def keep(name: str, values: Sequence[float] | Sequence[Sequence[float]]) -> None:
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)

        keep("small", [s.small for s in scales])
        keep("rms", [s.rms for s in scales])
        keep("mean", [s.mean for s in scales])
        keep("std", [s.std for s in scales])
        self.register_buffer("signed", torch.tensor([s.signed for s in scales], dtype=torch.bool), persistent=False)
        keep("centre", schema.centre)
        keep("spread", schema.spread)
        keep("condition_mean", schema.condition_mean)
        keep("condition_std", schema.condition_std)
        taken = schema.condition_log or (False,) * len(schema.conditions)
        self.register_buffer("condition_log", torch.tensor(taken, dtype=torch.bool), persistent=False)
        keep("total_mean", [t[0] for t in schema.total])
        keep("total_std", [t[1] for t in schema.total])
        self.periods = schema.periods
        self.any_signed = any(s.signed for s in scales)

    small: Tensor
    rms: Tensor
    mean: Tensor
    std: Tensor
    signed: Tensor
    centre: Tensor
    spread: Tensor
    condition_mean: Tensor
    condition_std: Tensor
    condition_log: Tensor
    total_mean: Tensor
    total_std: Tensor

    def _choose(self, positive: Tensor, signed: Tensor) -> Tensor:
        return torch.where(self.signed, signed, positive) if self.any_signed else positive

    def compand(self, x: Tensor) -> Tensor:
        """Features ``(N, C)`` in their units to ``u``."""
        x = x.to(self.small.dtype)
        return self._choose((x.clamp(min=0) / self.small).log1p() / self.rms, x / self.rms)

    def expand(self, u: Tensor) -> Tensor:
        """Inverse of :meth:`compand`."""
        return self._choose(self.small * (self.rms * u).expm1(), self.rms * u)

    def standardise(self, x: Tensor) -> Tensor:
        """Features ``(N, C)`` in their units to ``y``; zeros count as a thousandth of the smallest typical value."""
        x = x.to(self.small.dtype)
        return self._choose((x.clamp(min=0) + 1e-3 * self.small).log() - self.mean, x - self.mean) / self.std

    def restore(self, y: Tensor) -> Tensor:
        """Inverse of :meth:`standardise` within five standard deviations; nothing goes beyond six."""
        value = self.mean + self.std * _bounded(y)
        return self._choose(value.exp(), value)

    def total(self, y: Tensor) -> Tensor:
        """Inverse of :meth:`standardise_total` within five standard deviations; nothing goes beyond six."""
        value = self.total_mean + self.total_std * _bounded(y)
        return self._choose(value.exp(), value)

    def standardise_total(self, total: Tensor) -> Tensor:
        """Totals ``(B, C)`` in their units to numbers of order one."""
        tiny = torch.finfo(total.dtype).tiny
        return (self._choose(total.clamp(min=tiny).log(), total) - self.total_mean) / self.total_std

    def place(self, positions: Tensor) -> Tensor:
        """Positions ``(N, D)`` in the axes' units to numbers of order one."""
        return (positions.to(self.centre.dtype) - self.centre) / self.spread

    def embed(self, positions: Tensor) -> Tensor:
        """Positions to rows of order one in which neighbours are near: a periodic axis becomes a circle."""
        placed = self.place(positions)
        columns = []
        for axis, period in enumerate(self.periods):
            if math.isfinite(period):
                angle = 2 * math.pi / period * positions[:, axis].to(placed.dtype)
                radius = period / (2 * math.pi) / self.spread[axis]
                columns += [radius * angle.cos(), radius * angle.sin()]
            else:
                columns.append(placed[:, axis])
        return torch.stack(columns, 1)

    def displace(self, p: Tensor) -> Tensor:
        """Inverse of :meth:`place`."""
        return self.centre + self.spread * _wide(p)

    def condition(self, condition: Tensor) -> Tensor:
        """Condition ``(B, K)`` to numbers of order one."""
        c = condition.to(self.condition_mean.dtype)
        return (torch.where(self.condition_log, c.log(), c) - self.condition_mean) / self.condition_std


def _wide(x: Tensor) -> Tensor:
    """At least single precision: what leaves a network never stays in half precision."""
    return x if x.dtype == torch.float64 else x.float()


def _bounded(y: Tensor) -> Tensor:
    """``y`` itself up to 5, from there smoothly towards 6, so that no exponential overflows."""
    y = _wide(y)
    inside = y.clamp(-5, 5)
    return inside + torch.tanh(y - inside)
