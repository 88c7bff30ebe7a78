"""Where events come from: files that stream, or a batch in memory, behind one interface."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparsegen.data.files import file_hash
from sparsegen.data.order import Rows, Window, batch_bounds, runs_of, windows
from sparsegen.data.reader import Reader
from sparsegen.data.views import View
from sparsegen.errors import ConfigError, DataError, unknown_name
from sparsegen.events import Column, Events
from sparsegen.grid import Grid

__all__ = ["EventSource", "EventsSource", "FileSource"]

_WINDOW_BYTES = 16 * 2**20
_CACHE_BYTES = 32 * 2**20


class EventSource(ABC):
    """A data set: events by position, and batches whose order is a pure function of (seed, epoch).

    Attributes:
        name: What the user called it.
        axes: Names of the coordinates.
        columns: The features of a hit.
        grid: The lattice of the cells, or the default lattice beside points.
        conditions: Names of the conditions on the events.
        classes: Names of the classes.
    """

    name: str
    axes: tuple[str, ...]
    columns: tuple[Column, ...]
    grid: Grid | None
    conditions: tuple[str, ...]
    classes: tuple[str, ...]

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 of what is read: the file's bytes, or the events in memory."""

    @property
    @abstractmethod
    def labels(self) -> Tensor | None:
        """Class index of each event ``(len,)`` int64, or None."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int | slice | Sequence[int] | NDArray[Any] | Tensor) -> Events:
        """Events by position: one (as a batch of one), a slice, or a selection by indices or a boolean mask."""

    @abstractmethod
    def _windows(self, shuffle: bool, seed: int, epoch: int, skip: int) -> Iterator[tuple[int, Events]]:
        """Windows of an epoch with the position of their first event."""

    def batches(
        self,
        size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        epoch: int = 0,
        rank: int = 0,
        world: int = 1,
        drop_last: bool = False,
        start: int = 0,
    ) -> Iterator[Events]:
        """One epoch in batches.

        Args:
            size: Events a batch and rank.
            shuffle: Whether to shuffle.
            seed: Together with ``epoch`` decides the order, and nothing else does.
            epoch: The epoch.
            rank: Which of ``world`` processes asks. Two ranks of batch ``b`` see what one rank of batch ``2 b`` sees.
            world: How many processes share the epoch.
            drop_last: Whether a short last batch is left out.
            start: Batches to skip, unread where possible: where a resumed run goes on.

        Yields:
            Batches of events.
        """
        if size < 1 or not 0 <= rank < world or start < 0:
            raise ConfigError(
                f"{self.name}: batches of {size} for rank {rank} of {world} from {start}; "
                "expected size >= 1, 0 <= rank < world and start >= 0"
            )
        source = self._windows(shuffle, seed, epoch, start * size * world)
        held: list[tuple[int, Events]] = []
        for first, last in batch_bounds(len(self), size, rank, world, drop_last, start):
            held = [(at, events) for at, events in held if at + len(events) > first]
            while not held or held[-1][0] + len(held[-1][1]) < last:
                # Copies of the few events that are left let go of the window before the next one is read
                held = [(max(first, at), _copy(events, first - at)) for at, events in held]
                held.append(next(source))
            parts = [events[max(first - at, 0) : last - at] for at, events in held if at < last]
            yield parts[0] if len(parts) == 1 else Events.cat(parts)


class FileSource(EventSource):
    """Events that stream from a file, in constant memory; small sets are kept after the first look.

    Args:
        reader: The open file.
        name: What the user called it.
        rows: Which rows; all by default.
        view: How events are looked at.
        condition: Names of the file's conditions to carry.
    """

    def __init__(
        self, reader: Reader, name: str, rows: NDArray[np.int64] | None, view: View, condition: Sequence[str]
    ) -> None:
        for asked in condition:
            if asked not in reader.conditions:
                raise ConfigError(f"{name}: {unknown_name('condition', asked, reader.conditions)}")
        self.reader = reader
        self.name = name
        self.axes = reader.axes
        self.conditions = tuple(condition)
        self.classes = reader.classes
        self.view = view
        self.columns = view.columns
        self.grid = view.grid
        self._rows = Rows(reader.rows, rows)
        if not len(self._rows):
            raise DataError(f"{name}: the selection is empty; choose another split or other classes")
        self._cached: Events | None = None

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the file's bytes."""
        return file_hash(self.reader.path)

    @property
    def labels(self) -> Tensor | None:
        """Class index of each event ``(len,)`` int64, where the file has labels."""
        values = self.reader.labels()
        return None if values is None else torch.from_numpy(values[self._rows.all()])

    @property
    def rows(self) -> NDArray[np.int64]:
        """The file's row of each event ``(len,)``."""
        return self._rows.all()

    @property
    def dropped(self) -> Tensor:
        """Hits of each event that lie outside the view's grid ``(len,)``, counted in a pass over the set."""
        parts = [self.view.dropped(self.reader.read(w.runs, w.take)) for _, w in self._plan(False, 0, 0, 0)]
        return torch.cat(parts)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name}: {len(self)} events, {self.view})"

    def __getitem__(self, index: int | slice | Sequence[int] | NDArray[Any] | Tensor) -> Events:
        positions = _positions(index, len(self))
        if self._small:
            return self._all[torch.from_numpy(positions)]
        runs, take = runs_of(self._rows.select(positions), self.reader.block)
        return self._look(Window(runs, take, len(positions)))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cached": None}

    @property
    def _small(self) -> bool:
        return len(self) * self.reader.event_bytes <= _CACHE_BYTES

    @property
    def _all(self) -> Events:
        if self._cached is None:
            self._cached = Events.cat([self._look(window) for _, window in self._plan(False, 0, 0, 0)])
        return self._cached

    def _plan(self, shuffle: bool, seed: int, epoch: int, skip: int) -> Iterator[tuple[int, Window]]:
        window = max(1, _WINDOW_BYTES // self.reader.event_bytes)
        return windows(self._rows, self.reader.block, window, shuffle=shuffle, seed=seed, epoch=epoch, skip=skip)

    def _look(self, window: Window) -> Events:
        events = self.reader.read(window.runs, window.take)
        if self.conditions != events.conditions:
            if not self.conditions:
                events = events.with_condition(None, ())
            else:
                assert events.condition is not None
                chosen = [events.conditions.index(name) for name in self.conditions]
                events = events.with_condition(events.condition[:, chosen], self.conditions)
        return self.view(events)

    def _windows(self, shuffle: bool, seed: int, epoch: int, skip: int) -> Iterator[tuple[int, Events]]:
        for position, window in self._plan(shuffle, seed, epoch, skip):
            if not self._small:
                yield position, self._look(window)
                continue
            runs = np.concatenate([np.arange(start, stop) for start, stop in window.runs])
            rows = runs if window.take is None else runs[window.take]
            chosen = self._rows.chosen
            places = rows - self._rows.start if chosen is None else np.searchsorted(chosen, rows)
            yield position, self._all[torch.from_numpy(places)]


class EventsSource(EventSource):
    """A data set from events in memory.

    Args:
        events: The events.
        name: What to call them.
        labels: Class index of each event.
        classes: Names of the classes.

    Example:
        >>> hits = Events(torch.rand(3, 2), torch.rand(3, 1), torch.tensor([0, 1, 3]), axes="xy", columns=["energy"])
        >>> [len(batch) for batch in EventsSource(hits).batches(1)]
        [1, 1]
    """

    def __init__(
        self, events: Events, name: str = "events", labels: Tensor | None = None, classes: Sequence[str] = ()
    ) -> None:
        if not len(events):
            raise DataError(f"{name}: no events; a data set needs at least one")
        self.events = events
        self.name = name
        self.axes = events.axes
        self.columns = events.columns
        self.grid = events.grid
        self.conditions = events.conditions
        self.classes = tuple(classes)
        self._labels = labels

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the events."""
        digest = hashlib.sha256(repr((self.axes, self.columns, self.conditions, self.grid)).encode())
        for part in (self.events.coords, self.events.features, self.events.offsets, self.events.condition):
            if part is not None:
                digest.update(part.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def labels(self) -> Tensor | None:
        """Class index of each event ``(len,)`` int64, or None."""
        return self._labels

    def __len__(self) -> int:
        return len(self.events)

    def __getitem__(self, index: int | slice | Sequence[int] | NDArray[Any] | Tensor) -> Events:
        return self.events[torch.from_numpy(_positions(index, len(self)))]

    def _windows(self, shuffle: bool, seed: int, epoch: int, skip: int) -> Iterator[tuple[int, Events]]:
        if not shuffle:
            yield 0, self.events
            return
        order = np.random.default_rng([seed, epoch]).permutation(len(self))
        yield 0, self.events[torch.from_numpy(order)]


def _copy(events: Events, start: int) -> Events:
    """A copy of the events from ``start`` on, which shares no memory with the rest."""
    return events[torch.arange(max(start, 0), len(events))]


def _positions(index: int | slice | Sequence[int] | NDArray[Any] | Tensor, n: int) -> NDArray[np.int64]:
    """Positions ``0 .. n - 1`` that an index means."""
    if isinstance(index, int):
        index = [index]
    if isinstance(index, slice):
        return np.arange(*index.indices(n), dtype=np.int64)
    positions = np.atleast_1d(np.asarray(index))
    if positions.size and positions.dtype.kind not in "iub":
        raise IndexError(f"index {index!r}; expected integers, a slice or a mask")
    if positions.dtype == bool:
        if len(positions) != n:
            raise IndexError(f"a mask of {len(positions)} for {n} events")
        return np.flatnonzero(positions)
    positions = positions.astype(np.int64)
    outside = (positions < -n) | (positions >= n)
    if outside.any():
        raise IndexError(f"event {positions[outside][0]} of {n}")
    return np.where(positions < 0, positions + n, positions)
