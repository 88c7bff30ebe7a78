"""The one batch type: a ragged batch of events, looked at as points, as active cells or as a dense image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sparsegen.errors import ConfigError, DataError, MissingExtraError, unknown_name
from sparsegen.grid import Grid

__all__ = ["COUNT", "Column", "Events"]


@dataclass(frozen=True)
class Column:
    """A named feature of a hit.

    Args:
        name: The field's own word: ``energy``, ``ptrel``, ``time``.
        unit: ``GeV``, ``rad``, or empty.
        additive: Whether hits that fall into one cell add up (energy) or average (time).
    """

    name: str
    unit: str = ""
    additive: bool = True


COUNT = Column("count")
"""How many hits: the column of cells whose hits have no features."""


class Events:
    r"""A ragged batch of ``B`` events with ``N`` hits in all.

    Hits are stored flat, event after event, never padded. Integer coordinates are cells of a lattice, floating ones
    are positions; both carry the same features. No method changes an instance.

    Args:
        coords: ``(N, D)``: int64 cells of ``grid``, or floating positions.
        features: ``(N, C)`` floating.
        offsets: ``(B + 1,)`` int64: event ``i`` owns the rows ``offsets[i]:offsets[i + 1]``.
        axes: Names of the ``D`` coordinates.
        columns: The ``C`` features, as :class:`Column` or as names.
        condition: ``(B, K)``: what the event was asked to be (incident energy, class), or None.
        conditions: Names of its ``K`` columns.
        grid: The lattice; required for cells, optional beside positions.
        ids: ``(B,)`` int64 identities; ``0 .. B - 1`` by default.

    Raises:
        DataError: Shapes disagree, offsets do not rise from 0 to ``N``, or a cell lies outside the grid.

    Example:
        >>> hits = torch.tensor([[0.1, 0.2], [0.6, 0.9], [0.7, 0.9]])
        >>> energy = torch.tensor([[1.0], [2.0], [4.0]])
        >>> events = Events(hits, energy, torch.tensor([0, 1, 3]), axes=("x", "y"), columns=("energy",))
        >>> events.total("energy")
        tensor([1., 6.])
        >>> cells, dropped = events.voxelize(Grid.regular((2, 2), (0, 0), (1, 1), ("x", "y")))
        >>> cells
        Events(2 events, 2 cells, axes x y, columns energy)
        >>> cells.to_dense().shape
        torch.Size([2, 1, 2, 2])
    """

    coords: Tensor
    features: Tensor
    offsets: Tensor
    axes: tuple[str, ...]
    columns: tuple[Column, ...]
    condition: Tensor | None
    conditions: tuple[str, ...]
    grid: Grid | None
    ids: Tensor

    def __init__(
        self,
        coords: Tensor,
        features: Tensor,
        offsets: Tensor,
        *,
        axes: Sequence[str],
        columns: Sequence[Column | str],
        condition: Tensor | None = None,
        conditions: Sequence[str] = (),
        grid: Grid | None = None,
        ids: Tensor | None = None,
    ) -> None:
        batch = len(offsets) - 1
        self._set(
            coords=coords,
            features=features,
            offsets=offsets,
            axes=tuple(axes),
            columns=tuple(Column(c) if isinstance(c, str) else c for c in columns),
            condition=condition,
            conditions=tuple(conditions),
            grid=grid,
            ids=torch.arange(batch, device=offsets.device) if ids is None else ids,
        )
        self._check()

    def _set(self, **fields: Any) -> None:
        self.__dict__.update(fields)

    @classmethod
    def _trusted(cls, coalesced: bool = False, **fields: Any) -> Events:
        """An instance from fields that hold by construction, unchecked."""
        events = object.__new__(cls)
        events._set(**fields)
        if coalesced:
            events.__dict__["_coalesced"] = True
        return events

    def _check(self) -> None:
        n, batch = len(self.coords), len(self.offsets) - 1
        if self.coords.ndim != 2 or self.coords.shape[1] != len(self.axes):
            raise DataError(
                f"Events: coords of shape {tuple(self.coords.shape)} for the axes {self.axes}; expected (N, D)"
            )
        if self.features.ndim != 2 or self.features.shape != (n, len(self.columns)):
            names = tuple(c.name for c in self.columns)
            raise DataError(
                f"Events: features of shape {tuple(self.features.shape)} for {n} hits and the columns {names}"
            )
        if not self.features.is_floating_point():
            raise DataError(f"Events: features are {self.features.dtype}; expected a floating type")
        if self.offsets.ndim != 1 or self.offsets.dtype != torch.int64 or batch < 0:
            raise DataError(
                f"Events: offsets of shape {tuple(self.offsets.shape)} and type {self.offsets.dtype}; "
                "expected (B + 1,) int64"
            )
        rises = int(self.offsets[0]) == 0 and int(self.offsets[-1]) == n and not bool((self.offsets.diff() < 0).any())
        if not rises:
            raise DataError(
                f"Events: offsets must rise from 0 to the {n} hits; they run from {int(self.offsets[0])} "
                f"to {int(self.offsets[-1])}"
            )
        if self.ids.shape != (batch,):
            raise DataError(f"Events: ids of shape {tuple(self.ids.shape)} for {batch} events")
        if self.condition is None:
            if self.conditions:
                raise DataError(f"Events: conditions {self.conditions} are named but no condition is given")
        elif self.condition.shape != (batch, len(self.conditions)):
            raise DataError(
                f"Events: condition of shape {tuple(self.condition.shape)} for {batch} events "
                f"and the names {self.conditions}"
            )
        if self.grid is not None and self.grid.dim != len(self.axes):
            raise DataError(f"Events: a grid of {self.grid.dim} axes for the axes {self.axes}")
        if self.coords.is_floating_point():
            return
        if self.coords.dtype != torch.int64:
            raise DataError(f"Events: coords are {self.coords.dtype}; expected int64 cells or floating positions")
        if self.grid is None:
            raise DataError("Events: cells need their grid; pass grid=")
        size = torch.tensor(self.grid.shape, device=self.coords.device)
        outside = ((self.coords < 0) | (self.coords >= size)).any(1)
        if bool(outside.any()):
            hit = int(outside.nonzero()[0, 0])
            raise DataError(
                f"Events: cell {tuple(self.coords[hit].tolist())} of hit {hit} "
                f"lies outside the grid's {self.grid.shape}"
            )
        invalid = ~self.grid.is_valid(self.coords)
        if bool(invalid.any()):
            hit = int(invalid.nonzero()[0, 0])
            raise DataError(
                f"Events: cell {tuple(self.coords[hit].tolist())} of hit {hit} is not a valid cell of the grid"
            )

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"Events are immutable; use replace({name}=...)")

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    # Looking

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def is_cells(self) -> bool:
        """Whether coordinates are cells of the grid rather than positions."""
        return not self.coords.is_floating_point()

    @property
    def device(self) -> torch.device:
        return self.coords.device

    @cached_property
    def counts(self) -> Tensor:
        """Hits per event ``(B,)``."""
        return self.offsets.diff()

    @cached_property
    def batch(self) -> Tensor:
        """The event of each hit ``(N,)``."""
        return torch.repeat_interleave(
            torch.arange(len(self), device=self.device), self.counts, output_size=len(self.coords)
        )

    def index_of(self, name: str) -> int:
        """Position of a feature among the columns."""
        for i, column in enumerate(self.columns):
            if column.name == name:
                return i
        raise ConfigError(unknown_name("column", name, (c.name for c in self.columns)))

    def column(self, name: str) -> Tensor:
        """One feature of every hit ``(N,)``."""
        return self.features[:, self.index_of(name)]

    def total(self, name: str) -> Tensor:
        """Sum of one feature over each event ``(B,)``."""
        return self.sum_hits(self.column(name))

    def sum_hits(self, values: Tensor) -> Tensor:
        """Sum of per-hit values ``(N, ...)`` over each event ``(B, ...)``."""
        return values.new_zeros(len(self), *values.shape[1:]).index_add(0, self.batch, values)

    @property
    def positions(self) -> Tensor:
        """Positions ``(N, D)`` in the axes' units: the coordinates themselves, or the centres of the cells."""
        if not self.is_cells:
            return self.coords
        assert self.grid is not None
        return self.grid.centres(self.coords).to(self.features.dtype)

    def __repr__(self) -> str:
        what = "cells" if self.is_cells else "points"
        condition = f", condition {' '.join(self.conditions)}" if self.conditions else ""
        names = " ".join(c.name for c in self.columns)
        size = f"{len(self)} events, {len(self.coords)} {what}"
        return f"Events({size}, axes {' '.join(self.axes)}, columns {names}{condition})"

    # Taking apart and putting together

    def replace(self, **fields: Any) -> Events:
        """The same events with some fields exchanged; the result is checked."""
        known = ("coords", "features", "offsets", "axes", "columns", "condition", "conditions", "grid", "ids")
        for name in fields:
            if name not in known:
                raise ConfigError(unknown_name("field of Events", name, known))
        return Events(**{name: getattr(self, name) for name in known} | fields)

    def _like(self, coalesced: bool = False, **fields: Any) -> Events:
        """The same events with some fields exchanged, unchecked."""
        names = ("coords", "features", "offsets", "axes", "columns", "condition", "conditions", "grid", "ids")
        return Events._trusted(coalesced, **{name: getattr(self, name) for name in names} | fields)

    def with_features(self, features: Tensor, columns: Sequence[Column] | None = None) -> Events:
        """The same hits with other features ``(N, C)``."""
        return self._like(self._is_coalesced, features=features, columns=tuple(columns or self.columns))

    def counted(self) -> Events:
        """The same hits; where they have no features, with the column ``count``: one each."""
        if self.columns:
            return self
        return self.with_features(self.features.new_ones(len(self.coords), 1), (COUNT,))

    def with_condition(self, condition: Tensor | None, conditions: Sequence[str]) -> Events:
        """The same hits under another condition ``(B, K)``."""
        return self._like(
            self._is_coalesced, condition=condition, conditions=tuple(conditions) if condition is not None else ()
        )

    def detach(self) -> Events:
        """The same events, cut off from autograd."""
        coords = self.coords.detach()
        return self._like(self._is_coalesced, coords=coords, features=self.features.detach())

    def to(self, target: torch.device | str | torch.dtype) -> Events:
        """On another device, or with floating tensors of another type."""

        def move(x: Tensor | None) -> Tensor | None:
            if x is None or (isinstance(target, torch.dtype) and not x.is_floating_point()):
                return x
            return x.to(target)

        moved = {name: move(getattr(self, name)) for name in ("coords", "features", "offsets", "condition", "ids")}
        return self._like(self._is_coalesced, **moved)

    def __getitem__(self, index: int | slice | Tensor | Sequence[int]) -> Events:
        """Some of the events: one (as a batch of one), a slice, or a selection by indices or by a boolean mask."""
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(f"event {index} of {len(self)}")
            index = slice(index % len(self), index % len(self) + 1)
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                stop = max(start, stop)
                return self._take(slice(start, stop), slice(int(self.offsets[start]), int(self.offsets[stop])))
            index = torch.arange(start, stop, step, device=self.device)
        chosen = torch.as_tensor(index, device=self.device)
        if chosen.dtype == torch.bool:
            chosen = chosen.nonzero()[:, 0]
        counts = self.counts[chosen]
        ends = counts.cumsum(0)
        shift = self.offsets[:-1][chosen] - (ends - counts)
        rows = torch.repeat_interleave(shift, counts) + torch.arange(int(counts.sum()), device=self.device)
        return self._take(chosen, rows)

    def _take(self, events: slice | Tensor, rows: slice | Tensor) -> Events:
        counts = self.counts[events]
        return self._like(
            self._is_coalesced,
            coords=self.coords[rows],
            features=self.features[rows],
            offsets=_offsets(counts),
            condition=None if self.condition is None else self.condition[events],
            ids=self.ids[events],
        )

    def select_hits(self, keep: Tensor) -> Events:
        """The same events with only the hits where ``keep (N,)`` is True."""
        kept = keep.new_zeros(len(self), dtype=torch.int64).index_add(0, self.batch, keep.long())
        return self._like(
            self._is_coalesced, coords=self.coords[keep], features=self.features[keep], offsets=_offsets(kept)
        )

    @staticmethod
    def cat(events: Sequence[Events]) -> Events:
        """One batch from several that share axes, columns, conditions and grid.

        Raises:
            DataError: There are none, or they differ in what they hold.
        """
        if not events:
            raise DataError("Events.cat: nothing to join")
        first = events[0]
        for other in events[1:]:
            for name in ("axes", "columns", "conditions", "grid", "is_cells"):
                if getattr(first, name) != getattr(other, name):
                    raise DataError(f"Events.cat: {name} differ: {getattr(first, name)} and {getattr(other, name)}")
        condition = (
            None if first.condition is None else torch.cat([e.condition for e in events if e.condition is not None])
        )
        return first._like(
            all(e._is_coalesced for e in events),
            coords=torch.cat([e.coords for e in events]),
            features=torch.cat([e.features for e in events]),
            offsets=_offsets(torch.cat([e.counts for e in events])),
            condition=condition,
            ids=torch.cat([e.ids for e in events]),
        )

    # Cells

    @property
    def _is_coalesced(self) -> bool:
        return bool(self.__dict__.get("_coalesced", False))

    def coalesce(self) -> Events:
        """Cells sorted by event and row-major index, duplicates merged: additive features add, others average."""
        if self._is_coalesced:
            return self
        if not self.is_cells:
            raise DataError("Events.coalesce: positions have no cells; voxelize first")
        return self._merge(self.coords, self.batch, self.features, [c.additive for c in self.columns])

    def _merge(
        self, cells: Tensor, batch: Tensor, features: Tensor, additive: list[bool], grid: Grid | None = None
    ) -> Events:
        grid = grid or self.grid
        assert grid is not None
        key = batch * grid.cells + grid.ravel(cells)
        if len(key) > 1 and bool((key.diff() <= 0).any()):
            key, order = key.sort(stable=True)
            features = features[order]
            first = torch.ones_like(key, dtype=torch.bool)
            first[1:] = key[1:] != key[:-1]
            if not bool(first.all()):
                slot = first.cumsum(0) - 1
                key = key[first]
                features = _reduce(features, slot, len(key), additive)
        event = torch.div(key, grid.cells, rounding_mode="floor")
        counts = torch.zeros(len(self), dtype=torch.int64, device=key.device).index_add(
            0, event, torch.ones_like(event)
        )
        cells = grid.unravel(key - event * grid.cells)
        return self._like(True, coords=cells, features=features, offsets=_offsets(counts), grid=grid)

    def voxelize(self, grid: Grid, reduce: str = "sum", outside: str = "error") -> tuple[Events, Tensor]:
        """Positions to cells of a lattice; gradients flow through features.

        Args:
            grid: The lattice.
            reduce: ``"sum"``: additive columns add up, others average. ``"mean"``: all columns average. ``"count"``:
                the one column of the result is the number of hits.
            outside: What to do with hits outside the grid or in invalid cells: ``"error"``; ``"drop"`` leaves them out;
                ``"clip"`` moves them to the nearest cell of the lattice, and drops them where that cell is invalid.

        Returns:
            The cells, and how many hits of each event were left out ``(B,)``.

        Raises:
            DataError: A hit lies outside and ``outside`` is ``"error"``.
        """
        if reduce not in ("sum", "mean", "count"):
            raise ConfigError(unknown_name("reduction", reduce, ("sum", "mean", "count")))
        if outside not in ("error", "drop", "clip"):
            raise ConfigError(unknown_name("policy for hits outside", outside, ("error", "drop", "clip")))
        if grid.dim != len(self.axes):
            raise DataError(f"Events.voxelize: a grid of {grid.dim} axes for the axes {self.axes}")
        positions = self.grid.centres(self.coords) if self.is_cells and self.grid is not None else self.coords
        cells, inside = grid.cell_of(positions.detach())
        if outside == "clip":
            finite = positions.isfinite().all(1)
            inside = grid.is_valid(cells) & finite
        elif outside == "error" and not bool(inside.all()):
            raise DataError(self._outside_message(grid, positions, cells, inside))
        batch, features = self.batch, self.features
        dropped = self.counts
        if bool(inside.all()):
            dropped = torch.zeros_like(dropped)
        else:
            cells, batch, features = cells[inside], batch[inside], features[inside]
            dropped = dropped - torch.zeros_like(dropped).index_add(0, batch, torch.ones_like(batch))
        additive = [c.additive and reduce == "sum" for c in self.columns]
        columns = self.columns
        if reduce == "count":
            columns, additive = (COUNT,), [True]
            features = features.new_ones(len(cells), 1)
        merged = self._merge(cells, batch, features, additive, grid)
        return merged._like(True, columns=columns), dropped

    def _outside_message(self, grid: Grid, positions: Tensor, cells: Tensor, inside: Tensor) -> str:
        hit = int((~inside).nonzero()[0, 0])
        event = int(self.batch[hit])
        for axis, name in enumerate(self.axes):
            value = float(positions[hit, axis])
            low, high = grid.low[axis], grid.high[axis]
            if not grid.periodic[axis] and not low <= value <= high:
                return (
                    f"Events.voxelize: {name}={value:g} of hit {hit} (event {event}) lies outside the grid's "
                    f'[{low:g}, {high:g}]; pass outside="drop" or widen the grid'
                )
        where = ", ".join(f"{name}={float(v):g}" for name, v in zip(self.axes, positions[hit], strict=True))
        return f'Events.voxelize: hit {hit} (event {event}) at {where} falls into no valid cell; pass outside="drop"'

    def devoxelize(self, placement: str = "centre", generator: torch.Generator | None = None) -> Events:
        """Cells to positions; the grid stays attached.

        Args:
            placement: ``"centre"`` of the cell, or ``"uniform"`` inside it: :meth:`voxelize` gives the same cells back.
            generator: Source of randomness for ``"uniform"``.
        """
        if placement not in ("centre", "uniform"):
            raise ConfigError(unknown_name("placement", placement, ("centre", "uniform")))
        if not self.is_cells or self.grid is None:
            raise DataError("Events.devoxelize: these are positions already")
        low, high = self.grid.bounds(self.coords)
        dtype = self.features.dtype
        if placement == "centre":
            return self._like(coords=((low + high) / 2).to(dtype))
        device = generator.device if generator is not None else self.device
        u = torch.rand(low.shape, generator=generator, dtype=torch.float64, device=device).to(self.device)
        position = (low + u * (high - low)).to(dtype)
        # Rounding to the features' type must not carry a hit over an edge of its cell.
        first, last = low.to(dtype), high.to(dtype)
        first = torch.where(first.double() < low, first.nextafter(torch.full_like(first, torch.inf)), first)
        last = torch.where(last.double() >= high, last.nextafter(torch.full_like(last, -torch.inf)), last)
        return self._like(coords=torch.maximum(torch.minimum(position, last), first))

    # Dense images

    def to_dense(self) -> Tensor:
        """Dense images ``(B, C, *shape)``; hits of one cell add up (additive columns) or average."""
        events = self.coalesce()
        grid = events.grid
        assert grid is not None
        index = events.batch * grid.cells + grid.ravel(events.coords)
        flat = events.features.new_zeros(len(self) * grid.cells, len(self.columns))
        flat.index_copy_(0, index, events.features)
        return flat.view(len(self), *grid.shape, len(self.columns)).movedim(-1, 1)

    @classmethod
    def from_dense(
        cls,
        x: Tensor,
        grid: Grid,
        columns: Sequence[Column | str],
        threshold: float = 0.0,
        *,
        condition: Tensor | None = None,
        conditions: Sequence[str] = (),
        ids: Tensor | None = None,
    ) -> Events:
        """Active cells of dense images: those where some channel exceeds ``threshold`` in magnitude, or is NaN.

        Args:
            x: ``(B, C, *grid.shape)``.
            grid: The lattice.
            columns: What the channels are.
            threshold: In the channels' unit.

        Raises:
            DataError: The shape does not fit, or an invalid cell of the grid is active.
        """
        columns = tuple(Column(c) if isinstance(c, str) else c for c in columns)
        if tuple(x.shape[1:]) != (len(columns), *grid.shape):
            raise DataError(
                f"Events.from_dense: images of shape {tuple(x.shape)}; "
                f"expected (B, {len(columns)}, {', '.join(map(str, grid.shape))})"
            )
        flat = x.movedim(1, -1).reshape(-1, len(columns))
        active = (~(flat.detach().abs() <= threshold)).any(1).nonzero()[:, 0]
        event = torch.div(active, grid.cells, rounding_mode="floor")
        cells = grid.unravel(active - event * grid.cells)
        if grid.valid is not None and not bool(grid.is_valid(cells).all()):
            bad = int((~grid.is_valid(cells)).nonzero()[0, 0])
            raise DataError(
                f"Events.from_dense: event {int(event[bad])} is active in {tuple(cells[bad].tolist())}, "
                "not a valid cell of the grid"
            )
        counts = torch.zeros(len(x), dtype=torch.int64, device=x.device).index_add(0, event, torch.ones_like(event))
        return cls._trusted(
            True,
            coords=cells,
            features=flat[active],
            offsets=_offsets(counts),
            axes=grid.names,
            columns=columns,
            condition=condition,
            conditions=tuple(conditions),
            grid=grid,
            ids=torch.arange(len(x), device=x.device) if ids is None else ids,
        )

    # Padded arrays

    def to_padded(self, length: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Padded arrays.

        Args:
            length: Rows per event; the largest count by default.

        Returns:
            ``coords (B, L, D)``, ``features (B, L, C)`` and ``mask (B, L)``, True where a hit is real; padding is zero.

        Raises:
            DataError: An event has more than ``length`` hits.
        """
        longest = int(self.counts.max()) if len(self) else 0
        length = longest if length is None else length
        if longest > length:
            event = int(self.counts.argmax())
            raise DataError(f"Events.to_padded: event {event} has {longest} hits, more than length={length}")
        row = self.batch * length + torch.arange(len(self.coords), device=self.device) - self.offsets[:-1][self.batch]
        shape = (len(self), length)

        def spread(x: Tensor) -> Tensor:
            return x.new_zeros(len(self) * length, x.shape[1]).index_copy_(0, row, x).view(*shape, x.shape[1])

        mask = torch.zeros(len(self) * length, dtype=torch.bool, device=self.device)
        mask[row] = True
        return spread(self.coords), spread(self.features), mask.view(shape)

    @classmethod
    def from_padded(
        cls,
        coords: Tensor,
        features: Tensor,
        mask: Tensor,
        *,
        axes: Sequence[str],
        columns: Sequence[Column | str],
        condition: Tensor | None = None,
        conditions: Sequence[str] = (),
        grid: Grid | None = None,
        ids: Tensor | None = None,
    ) -> Events:
        """Events from padded arrays: ``coords (B, L, D)``, ``features (B, L, C)``, ``mask (B, L)`` True where real."""
        if coords.shape[:2] != mask.shape or features.shape[:2] != mask.shape:
            raise DataError(
                f"Events.from_padded: coords {tuple(coords.shape)}, features {tuple(features.shape)} and mask "
                f"{tuple(mask.shape)} disagree in their first two lengths"
            )
        mask = mask.bool()
        return cls(
            coords[mask],
            features[mask],
            _offsets(mask.sum(1)),
            axes=axes,
            columns=columns,
            condition=condition,
            conditions=conditions,
            grid=grid,
            ids=ids,
        )

    # torch-geometric

    def to_pyg(self) -> Any:
        """A ``torch_geometric.data.Batch`` with ``pos``, ``x``, ``batch``, ``ptr`` and, where given, ``condition``."""
        try:
            from torch_geometric.data import Batch
        except ImportError as error:  # pragma: no cover
            raise MissingExtraError("torch-geometric", "points", "Events.to_pyg") from error
        each = torch.arange(len(self) + 1, device=self.device)
        batch = Batch(pos=self.positions, x=self.features, batch=self.batch, ptr=self.offsets, event_id=self.ids)
        slices = {"pos": self.offsets, "x": self.offsets, "event_id": each}
        if self.condition is not None:
            batch.condition = self.condition
            slices["condition"] = each
        batch._num_graphs = len(self)
        batch._slice_dict = slices
        batch._inc_dict = {name: torch.zeros(len(self), dtype=torch.int64, device=self.device) for name in slices}
        return batch

    @classmethod
    def from_pyg(
        cls, batch: Any, *, axes: Sequence[str], columns: Sequence[Column | str], conditions: Sequence[str] = ()
    ) -> Events:
        """Events from a ``torch_geometric.data.Batch`` that has ``pos`` and ``x``."""
        condition = getattr(batch, "condition", None)
        return cls(
            batch.pos,
            batch.x,
            batch.ptr,
            axes=axes,
            columns=columns,
            condition=condition,
            conditions=conditions,
            ids=getattr(batch, "event_id", None),
        )


def _offsets(counts: Tensor) -> Tensor:
    """Row offsets ``(B + 1,)`` of events with these counts ``(B,)``."""
    return torch.nn.functional.pad(counts.cumsum(0), (1, 0))


def _reduce(features: Tensor, slot: Tensor, size: int, additive: list[bool]) -> Tensor:
    """Rows that share a slot, added up or averaged column by column."""
    merged = features.new_zeros(size, features.shape[1]).index_add(0, slot, features)
    if all(additive):
        return merged
    hits = features.new_zeros(size).index_add(0, slot, features.new_ones(len(slot)))
    divisor = torch.where(torch.tensor(additive, device=hits.device), torch.ones_like(hits)[:, None], hits[:, None])
    return merged / divisor
