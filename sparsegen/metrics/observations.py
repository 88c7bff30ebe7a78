"""What is read off events, one number or a few for each, accumulated over portions of a sample and over ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparsegen.errors import ConfigError
from sparsegen.events import Events
from sparsegen.metrics.cache import remembered
from sparsegen.metrics.inputs import EventsLike, portions, valid_events
from sparsegen.metrics.ranks import gathered

__all__ = ["Observable", "Observations", "Reading"]

Array = NDArray[np.float64]


class Reading(NamedTuple):
    """Values read off some events.

    Args:
        values: ``(rows, F)`` float64, event after event.
        counts: Rows that each event owns ``(B,)``; None: one row an event.
        dropped: Hits that had no place in the reading.
    """

    values: Array
    counts: NDArray[np.int64] | None = None
    dropped: int = 0


@dataclass(frozen=True)
class Observable:
    """What is compared: names of the values and the function that reads them off events.

    Args:
        names: One name a value.
        read: Events -> :class:`Reading`.
        note: What the protocol says of it; names and note tell one observable from another where readings are kept.
    """

    names: tuple[str, ...]
    read: Callable[[Events], Reading]
    note: dict[str, Any] = field(default_factory=dict)


class Observations:
    """Accumulates the values of an observable over portions of a sample, in float64.

    Args:
        observable: What to read.
        role: ``generated`` or ``reference``, for messages.
        invalid: What to do with events that cannot be evaluated, see :class:`Protocol`.
    """

    def __init__(self, observable: Observable, role: str = "generated", invalid: str = "leave_out") -> None:
        self.observable = observable
        self.role = role
        self.treatment = invalid
        self.invalid = 0
        self.dropped = 0
        self._values: list[Array] = []
        self._counts: list[NDArray[np.int64]] = []

    def update(self, events: EventsLike) -> Observations:
        """Takes in more events."""
        what = repr((self.observable.names, sorted(self.observable.note.items()), self.treatment))
        make = lambda: self._read(events)
        # A note says what is read; names alone may mean anything.
        held = remembered(events, f"observations {what}", make) if self.observable.note else make()
        self.invalid += int(held["left_out"])
        self.dropped += int(held["dropped"])
        self._values.append(held["values"])
        self._counts.append(held["counts"])
        return self

    def _read(self, events: EventsLike) -> dict[str, NDArray[Any]]:
        bad, outside = 0, 0
        rows, owned = [np.empty((0, len(self.observable.names)))], [np.empty(0, dtype=np.int64)]
        for portion in portions(events):
            kept, left_out = valid_events(portion, role=self.role, invalid=self.treatment)
            values, counts, dropped = self.observable.read(kept)
            if counts is None:
                # A finite event may still overflow an observable: it cannot be evaluated either.
                finite = np.isfinite(values).all(1)
                left_out += int((~finite).sum())
                values = values[finite]
                counts = np.ones(len(values), dtype=np.int64)
            bad += left_out
            outside += dropped
            rows.append(values)
            owned.append(counts)
        return {
            "values": np.concatenate(rows),
            "counts": np.concatenate(owned),
            "left_out": np.array(bad),
            "dropped": np.array(outside),
        }

    def merge(self, other: Observations) -> Observations:
        """Adds what another accumulator of the same observable has seen."""
        if other.observable.names != self.observable.names:
            raise ConfigError(f"cannot merge observations of {other.observable.names} into {self.observable.names}")
        self.invalid += other.invalid
        self.dropped += other.dropped
        self._values += other._values
        self._counts += other._counts
        return self

    def reduce(self) -> Observations:
        """What all ranks have seen, the same on each: the ranks' events one after another.

        Returns:
            New observations; ``self`` is unchanged. Without a process group these are its own.
        """
        whole = Observations(self.observable, self.role, self.treatment)
        for values, counts, invalid, dropped in gathered((self.values, self.counts, self.invalid, self.dropped)):
            whole.invalid += invalid
            whole.dropped += dropped
            whole._values.append(values)
            whole._counts.append(counts)
        return whole

    def __len__(self) -> int:
        return sum(len(c) for c in self._counts)

    @property
    def values(self) -> Array:
        """All values ``(rows, F)``."""
        empty = np.empty((0, len(self.observable.names)))
        return np.concatenate([empty, *self._values])

    @property
    def counts(self) -> NDArray[np.int64]:
        """Rows that each event owns ``(events,)``."""
        return np.concatenate([np.empty(0, dtype=np.int64), *self._counts])
