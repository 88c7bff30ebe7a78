"""What enters a metric: events taken in portions, checked, and the ones that cannot be evaluated counted."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from typing import Protocol as Shape

from torch import Tensor

from sparsegen.errors import DataError
from sparsegen.events import Events
from sparsegen.grid import Grid
from sparsegen.metrics.metric import SmallSampleWarning

__all__ = [
    "EventsLike",
    "JetView",
    "additive_column",
    "check_comparable",
    "jet_lattice",
    "jet_view",
    "portions",
    "valid_events",
    "valid_sample",
    "warn_small",
]

PORTION = 8192
"""Events looked at together: memory grows with this, not with the sample."""


class _Source(Shape):
    """Anything with a length whose slices are events: an open file, for one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice, /) -> Events: ...


EventsLike = Events | _Source


def portions(events: EventsLike, size: int = PORTION) -> Iterator[Events]:
    """Consecutive portions of at most ``size`` events, on the CPU, cut off from autograd, bare points counted."""
    for start in range(0, len(events), size):
        yield events[start : start + size].detach().to("cpu").counted()


def valid_events(events: Events, *, role: str, invalid: str = "leave_out") -> tuple[Events, int]:
    """The events that can be evaluated, and how many were left out.

    An event is left out that has no hits, a coordinate or feature that is not finite, or a negative additive feature.

    Args:
        events: The events.
        role: ``generated`` or ``reference``, for the message.
        invalid: ``leave_out``, or ``raise`` at the first one.

    Raises:
        DataError: An event cannot be evaluated and ``invalid`` is ``raise``.
    """
    bad_hit = ~events.features.isfinite().all(1)
    if not events.is_cells:
        bad_hit |= ~events.coords.isfinite().all(1)
    additive = [i for i, column in enumerate(events.columns) if column.additive]
    bad_hit |= (events.features[:, additive] < 0).any(1)
    bad = (events.sum_hits(bad_hit.long()) > 0) | (events.counts == 0)
    left_out = int(bad.sum())
    if left_out and invalid == "raise":
        first = int(bad.nonzero()[0, 0])
        what = "no hits" if int(events.counts[first]) == 0 else "a value that is not finite or a negative energy"
        raise DataError(
            f"{role} event with id {int(events.ids[first])} has {what}; clean it or use invalid='leave_out'"
        )
    return (events[~bad] if left_out else events), left_out


def valid_sample(events: EventsLike, *, role: str, invalid: str = "leave_out") -> tuple[Events, int]:
    """All the events of a sample that can be evaluated, at once, and how many were left out; see valid_events."""
    kept, left_out = [], 0
    for portion in portions(events):
        good, bad = valid_events(portion, role=role, invalid=invalid)
        kept.append(good)
        left_out += bad
    return (Events.cat(kept) if kept else events[:]), left_out


def check_comparable(generated: Events, reference: Events) -> None:
    """Raises unless both sides have the same axes, columns and units.

    Raises:
        DataError: They differ; the message shows both.
    """
    ours = (generated.axes, tuple((c.name, c.unit) for c in generated.columns))
    theirs = (reference.axes, tuple((c.name, c.unit) for c in reference.columns))
    if ours != theirs:
        raise DataError(
            f"generated events have axes and columns {ours}, the reference {theirs}; rename or convert one of them"
        )


def additive_column(events: Events, names: tuple[str, ...] = ()) -> str:
    """The first column of one of the names, else the first additive one.

    Raises:
        DataError: There is none.
    """
    for column in events.columns:
        if column.name in names:
            return column.name
    for column in events.columns:
        if column.additive:
            return column.name
    raise DataError(f"no additive column among {tuple(c.name for c in events.columns)}; mark the energy as additive")


@dataclass(frozen=True)
class JetView:
    """Which axes and column a jet's constituents are read from.

    Args:
        eta: Axis of the pseudorapidity, relative to the jet's or not.
        phi: Axis of the azimuth in rad.
        pt: Column of the transverse momentum; relative to the jet's gives relative masses.
    """

    eta: str
    phi: str
    pt: str

    def read(self, events: Events) -> tuple[Tensor, Tensor, Tensor]:
        """eta, phi and pt of every hit ``(N,)``, float64."""
        positions = events.positions.double()
        eta, phi = (positions[:, events.axes.index(axis)] for axis in (self.eta, self.phi))
        return eta, phi, events.column(self.pt).double()

    def as_text(self) -> str:
        """For the protocol."""
        return f"eta={self.eta}, phi={self.phi}, pt={self.pt}"


def jet_view(events: Events) -> JetView:
    """The axes and the column that a jet observable reads.

    Axes named for eta and phi are taken by name, else two axes are taken in that order; the transverse momentum is the
    first additive column.

    Raises:
        DataError: The events have other axes than two, or no additive column.
    """
    eta = [a for a in events.axes if a in ("etarel", "eta")]
    phi = [a for a in events.axes if a in ("phirel", "phi")]
    pt = additive_column(events, ("ptrel", "pt"))
    if len(eta) == len(phi) == 1:
        return JetView(eta[0], phi[0], pt)
    if len(events.axes) != 2:
        raise DataError(f"a jet has axes eta and phi; these events have {events.axes}: rename two of them")
    return JetView(*events.axes, pt)


def jet_lattice(events: Events, grid: Grid | None = None) -> Grid:
    """The lattice on which occupied cells are counted: the one given, the events' own, or jets' 25 x 25.

    Raises:
        DataError: None is given and the events are not two-dimensional.
    """
    if grid is not None:
        return grid
    if events.grid is not None:
        return events.grid
    if len(events.axes) != 2:
        raise DataError(f"events with the axes {events.axes} have no lattice; pass grid=")
    return Grid.regular((25, 25), (-0.8, -0.8), (0.8, 0.8), events.axes)


def warn_small(name: str, n: int, least: int, note: dict[str, Any]) -> None:
    """Warns, and notes in the protocol, that ``n`` events are fewer than the metric's claim needs."""
    if n < least:
        text = f"{name}: {n} events are few for this metric; use {least} or more"
        note["warning"] = text
        warnings.warn(text, SmallSampleWarning, stacklevel=4)
