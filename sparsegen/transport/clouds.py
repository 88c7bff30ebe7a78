"""What every set distance compares: ragged batches of points, from events or from plain tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sparsegen.errors import ConfigError, DataError
from sparsegen.events import Events

__all__ = ["Clouds", "PointSets", "as_clouds", "lengths_of", "one_empty", "pair_clouds", "segment_mean", "segment_sum"]

PointSets = Events | Tensor | tuple[Tensor, Tensor]
"""A batch of point sets: events, a dense tensor ``(B, N, D)``, or ``(points (N, D), offsets (B + 1,))``."""


@dataclass(frozen=True)
class Clouds:
    """B ragged point sets in one flat tensor.

    Args:
        points: ``(N, D)`` floats, event after event.
        offsets: ``(B + 1,)`` int64, where each event begins.
        weights: ``(N,)`` non-negative masses, or None: every point counts alike.
        period: Length of each axis that wraps, ``inf`` for one that does not; D floats.
    """

    points: Tensor
    offsets: Tensor
    weights: Tensor | None
    period: tuple[float, ...]

    def __len__(self) -> int:
        return self.offsets.numel() - 1

    @property
    def counts(self) -> Tensor:
        """Points per event ``(B,)``."""
        return self.offsets.diff()

    @property
    def batch(self) -> Tensor:
        """The event of every point ``(N,)``."""
        index = torch.arange(len(self), device=self.points.device)
        return index.repeat_interleave(self.counts, output_size=self.points.shape[0])

    @property
    def periodic(self) -> bool:
        """Whether any axis wraps."""
        return any(math.isfinite(p) for p in self.period)

    @property
    def wrap(self) -> tuple[float, ...] | None:
        """The period for the kernels: None where no axis wraps."""
        return self.period if self.periodic else None

    @property
    def masses(self) -> Tensor:
        """Masses that sum to one in every event ``(N,)``: the weights normalised, or 1 / count."""
        weights = self.points.new_ones(self.points.shape[0]) if self.weights is None else self.weights
        totals = segment_sum(weights, self.offsets)
        if bool(((totals <= 0) & (self.counts > 0)).any()):
            event = int(((totals <= 0) & (self.counts > 0)).nonzero()[0])
            raise DataError(f"the weights of event {event} sum to 0; give every event with points some mass")
        return weights / totals[self.batch]

    def padded(self) -> tuple[Tensor, Tensor]:
        """Points ``(B, L, D)`` and masses ``(B, L)``; short sets repeat their first point with mass 0."""
        counts, total = self.counts, self.points.shape[0]
        longest = int(counts.max()) if len(self) else 0
        if total == 0:
            empty = self.points.new_zeros(len(self), longest, self.points.shape[1])
            return empty, empty.sum(2)
        slot = torch.arange(longest, device=counts.device)
        real = slot < counts[:, None]
        index = (self.offsets[:-1, None] + torch.where(real, slot, 0)).clamp_max(total - 1)
        return self.points[index], torch.where(real, self.masses[index], 0.0).to(self.points.dtype)

    def difference(self, x: Tensor, y: Tensor) -> Tensor:
        """``x - y`` by the short way round on axes that wrap, ``(..., D)``."""
        delta = x - y
        if not self.periodic:
            return delta
        period = torch.tensor(self.period, dtype=delta.dtype, device=delta.device)
        # inf * 0 is NaN: axes that do not wrap take no turns
        turns = torch.where(period.isfinite(), torch.round(delta.detach() / period), 0.0)
        return delta - turns * torch.where(period.isfinite(), period, 0.0)


def as_clouds(
    sets: PointSets,
    *,
    features: Sequence[str] = (),
    scales: Mapping[str, float] | None = None,
    weights: str | Tensor | None = None,
    period: Sequence[float] | None = None,
) -> Clouds:
    """The points of a batch: coordinates, then the named features, each divided by its scale.

    Cells stand for their centres; the axes that the grid calls periodic wrap.

    Args:
        sets: Events, a tensor ``(B, N, D)``, or ``(points (N, D), offsets (B + 1,))``.
        features: Columns of the events that are appended to the coordinates.
        scales: Axis or column name -> the length that counts as 1.
        weights: A column of the events, or a tensor ``(N,)`` or ``(B, N)`` of non-negative masses.
        period: For plain tensors: length of each axis that wraps, ``inf`` for one that does not.

    Raises:
        DataError: Shapes that do not fit, points or weights that are not finite, negative weights.
        ConfigError: Column names or scales where there are only plain tensors.
    """
    if isinstance(sets, Events):
        if period is not None:
            raise ConfigError("period= is for plain tensors; the periodic axes of events are those of their grid")
        return _from_events(sets, features, scales or {}, weights)
    if features or scales or isinstance(weights, str):
        raise ConfigError("features=, scales= and weights by name need Events; plain tensors have no named columns")
    if isinstance(sets, Tensor):
        if sets.ndim != 3:
            raise DataError(f"expected point sets (B, N, D), got a tensor of shape {tuple(sets.shape)}")
        points = sets.reshape(-1, sets.shape[-1])
        offsets = torch.arange(sets.shape[0] + 1, device=sets.device) * sets.shape[1]
    else:
        points, offsets = sets
        if points.ndim != 2 or offsets.ndim != 1:
            raise DataError(
                f"expected (points (N, D), offsets (B + 1,)), got {tuple(points.shape)} and {tuple(offsets.shape)}"
            )
        if int(offsets[-1]) != points.shape[0] or int(offsets[0]) != 0 or bool((offsets.diff() < 0).any()):
            raise DataError(
                f"offsets must rise from 0 to the number of points {points.shape[0]}, "
                f"got {int(offsets[0])} ... {int(offsets[-1])}"
            )
    if not points.is_floating_point():
        raise DataError(f"points must be floats, got {points.dtype}; convert them, or pass Events for cells")
    lengths = (math.inf,) * points.shape[1] if period is None else tuple(float(p) for p in period)
    if len(lengths) != points.shape[1]:
        raise DataError(f"period has {len(lengths)} axes, the points have {points.shape[1]}")
    mass = None if weights is None else weights.reshape(-1)
    return _checked(Clouds(points, offsets, mass, lengths))


def pair_clouds(
    a: PointSets,
    b: PointSets,
    *,
    features: Sequence[str] = (),
    scales: Mapping[str, float] | None = None,
    weights: str | tuple[Tensor | None, Tensor | None] | None = None,
    period: Sequence[float] | None = None,
    same_length: bool = True,
) -> tuple[Clouds, Clouds]:
    """Both sides of a distance, of one dimension, one period, one type (float32 at least) and, where asked, one size.

    Args:
        a: The first batch of sets.
        b: The second.
        features: See ``as_clouds``.
        scales: See ``as_clouds``.
        weights: A column's name, or one tensor of masses a side.
        period: See ``as_clouds``.
        same_length: Whether event i is compared with event i only.
    """
    left, right = weights if isinstance(weights, tuple) else (weights, weights)
    first = as_clouds(a, features=features, scales=scales, weights=left, period=period)
    second = as_clouds(b, features=features, scales=scales, weights=right, period=period)
    if first.points.shape[1] != second.points.shape[1]:
        raise DataError(f"point sets of {first.points.shape[1]} and {second.points.shape[1]} dimensions do not compare")
    if first.period != second.period:
        raise DataError(f"the two sides wrap differently: periods {first.period} and {second.period}")
    if same_length and len(first) != len(second):
        raise DataError(f"batches of {len(first)} and {len(second)} sets do not pair up; pairwise() compares all pairs")
    # half precision has too few digits for differences of coordinates
    dtype = torch.promote_types(torch.promote_types(first.points.dtype, second.points.dtype), torch.float32)
    return _typed(first, dtype), _typed(second, dtype)


def _typed(clouds: Clouds, dtype: torch.dtype) -> Clouds:
    weights = None if clouds.weights is None else clouds.weights.to(dtype)
    return replace(clouds, points=clouds.points.to(dtype), weights=weights)


def one_empty(a: Clouds, b: Clouds) -> Tensor:
    """Pairs ``(B,)`` of a set without points and one with points: nothing can be carried between them."""
    return (a.counts == 0) != (b.counts == 0)


def lengths_of(difference: Tensor) -> Tensor:
    """Euclidean length over the last axis, with gradient 0 (and not NaN) where the length is 0."""
    square = difference.square().sum(-1)
    zero = square == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, square).sqrt())


def segment_sum(values: Tensor, offsets: Tensor) -> Tensor:
    """Sum over each event's rows ``(N, ...) -> (B, ...)``; 0 for an empty event."""
    index = torch.arange(offsets.numel() - 1, device=values.device)
    index = index.repeat_interleave(offsets.diff(), output_size=values.shape[0])
    return values.new_zeros(offsets.numel() - 1, *values.shape[1:]).index_add(0, index, values)


def segment_mean(values: Tensor, offsets: Tensor, weights: Tensor | None = None) -> Tensor:
    """(Weighted) mean over each event's rows; 0 for an event without points or mass."""
    if weights is None:
        return segment_sum(values, offsets) / offsets.diff().clamp_min(1).to(values.dtype)
    mass = segment_sum(weights, offsets)
    return segment_sum(values * weights, offsets) / torch.where(mass > 0, mass, 1.0)


def _from_events(
    events: Events, features: Sequence[str], scales: Mapping[str, float], weights: str | Tensor | None
) -> Clouds:
    if unknown := set(scales) - set(events.axes) - set(features):
        raise ConfigError(f"scales name {sorted(unknown)}; there are axes {events.axes} and features {tuple(features)}")
    grid = events.grid
    if events.is_cells:
        if grid is None:
            raise DataError("events of cells without a grid have no positions; give them their grid")
        coords = grid.centres(events.coords).to(events.features.dtype)
    else:
        coords = events.coords
    period = [math.inf] * coords.shape[1]
    if grid is not None:
        for axis, wraps in enumerate(grid.periodic):
            if wraps:
                period[axis] = float(grid.edges[axis][-1] - grid.edges[axis][0])
    lengths = [scales.get(axis, 1.0) for axis in events.axes]
    if scales:
        coords = coords / coords.new_tensor(lengths)
        period = [p / length for p, length in zip(period, lengths, strict=True)]
    if features:
        extra = [events.column(name) / scales.get(name, 1.0) for name in features]
        coords = torch.cat([coords, torch.stack(extra, dim=1).to(coords.dtype)], dim=1)
    mass = events.column(weights) if isinstance(weights, str) else weights
    return _checked(
        Clouds(
            coords, events.offsets, None if mass is None else mass.reshape(-1), (*period, *[math.inf] * len(features))
        )
    )


def _checked(clouds: Clouds) -> Clouds:
    if not bool(clouds.points.isfinite().all()):
        row = int((~clouds.points.isfinite().all(dim=1)).nonzero()[0])
        raise DataError(f"point {row} is not finite: {clouds.points[row].tolist()}; clean the set before comparing it")
    if clouds.weights is None:
        return clouds
    if clouds.weights.shape[0] != clouds.points.shape[0]:
        raise DataError(f"{clouds.weights.shape[0]} weights for {clouds.points.shape[0]} points")
    bad = ~(clouds.weights >= 0) | clouds.weights.isinf()
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise DataError(
            f"weight {float(clouds.weights[row])} of point {row} is no mass; weights must be finite and >= 0"
        )
    return clouds
