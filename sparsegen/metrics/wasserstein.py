r"""Wasserstein-1 distances of one-dimensional observables, exact, with error and floor.

In one dimension :math:`W_1(P, Q) = \int |F_P(x) - F_Q(x)|\,dx`. The samples are sorted once; a bootstrap resample or a
real-real split is then only another set of weights on the sorted values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from sparsegen.errors import ConfigError, DataError
from sparsegen.events import Events
from sparsegen.grid import Grid
from sparsegen.metrics.inputs import (
    EventsLike,
    additive_column,
    check_comparable,
    jet_lattice,
    jet_view,
    portions,
    valid_events,
    warn_small,
)
from sparsegen.metrics.metric import metric
from sparsegen.metrics.observables import jet_mass, occupied_cells
from sparsegen.metrics.protocol import Protocol, resolve
from sparsegen.metrics.resampling import subsampled_error
from sparsegen.result import Result

__all__ = [
    "Observable",
    "Observations",
    "Reading",
    "compare_observable",
    "compare_w1",
    "w1",
    "w1_energy",
    "w1_hits",
    "w1_mass",
    "w1_multiplicity",
    "w1_occupied",
    "w1_pt",
]

Array = NDArray[np.float64]
_DOUBLE = torch.float64
LEAST = 30
"""Events below which a W1 says next to nothing."""


def w1(a: ArrayLike, b: ArrayLike, a_weights: ArrayLike | None = None, b_weights: ArrayLike | None = None) -> float:
    r"""Exact :math:`W_1` between two one-dimensional samples, of equal size or not.

    Args:
        a: ``(n,)`` values.
        b: ``(m,)`` values.
        a_weights: ``(n,)`` non-negative weights; equal by default.
        b_weights: ``(m,)`` the same for ``b``.

    Raises:
        DataError: A sample is empty or not finite.

    Example:
        >>> w1([0.0, 1.0], [2.0, 3.0])
        2.0
    """
    x, y = (np.asarray(v, dtype=np.float64).ravel() for v in (a, b))
    if not x.size or not y.size:
        raise DataError(f"w1: samples of {x.size} and {y.size} values; neither may be empty")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise DataError("w1: a sample holds values that are not finite; leave them out and count them")
    u, v = (
        np.full(n, 1.0) if w is None else np.asarray(w, dtype=np.float64).ravel()
        for w, n in ((a_weights, x.size), (b_weights, y.size))
    )
    weights = np.concatenate([u / u.sum(), -v / v.sum()])
    return _Gap(np.concatenate([x, y]), None)(weights)


class _Gap:
    """The area between two step functions whose steps, on fixed places, have any signed weights."""

    def __init__(self, values: Array, event: NDArray[np.int64] | None) -> None:
        order = np.argsort(values, kind="stable")
        self.dx = np.diff(values[order])
        self.event = order if event is None else event[order]

    def __call__(self, weights: Array) -> float:
        steps = weights[self.event]
        # Each side is summed alone, so that equal samples cancel exactly.
        height = np.cumsum(np.maximum(steps, 0)) + np.cumsum(np.minimum(steps, 0))
        return float(np.abs(height[:-1]) @ self.dx)


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
        note: What the protocol says of it.
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
        for portion in portions(events):
            kept, left_out = valid_events(portion, role=self.role, invalid=self.treatment)
            values, counts, dropped = self.observable.read(kept)
            if counts is None:
                # A finite event may still overflow an observable: it cannot be evaluated either.
                finite = np.isfinite(values).all(1)
                left_out += int((~finite).sum())
                values = values[finite]
                counts = np.ones(len(values), dtype=np.int64)
            self.invalid += left_out
            self.dropped += dropped
            self._values.append(values)
            self._counts.append(counts)
        return self

    def merge(self, other: Observations) -> Observations:
        """Adds what another accumulator of the same observable has seen."""
        if other.observable.names != self.observable.names:
            raise ConfigError(f"cannot merge observations of {other.observable.names} into {self.observable.names}")
        self.invalid += other.invalid
        self.dropped += other.dropped
        self._values += other._values
        self._counts += other._counts
        return self

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


class _Pair:
    """Two sets of observations, sorted once, compared under any weights of their events."""

    def __init__(self, a: tuple[Array, NDArray[np.int64]], b: tuple[Array, NDArray[np.int64]]) -> None:
        self.counts = np.concatenate([a[1], b[1]])
        self.split = len(a[1])
        values = np.concatenate([a[0], b[0]])
        event = np.repeat(np.arange(len(self.counts)), self.counts)
        self.gaps = [_Gap(values[:, i], event) for i in range(values.shape[1])]

    def __call__(self, left: Array, right: Array) -> Array:
        """W1 of every value ``(F,)``, events weighted by ``left`` on the first side, ``right`` on the second."""
        weights = np.concatenate([left, -right])
        for side in (slice(None, self.split), slice(self.split, None)):
            weights[side] /= np.abs(weights[side] @ self.counts[side])
        return np.array([gap(weights) for gap in self.gaps])

    @cached_property
    def whole(self) -> Array:
        return self(np.ones(self.split), np.ones(len(self.counts) - self.split))


def _draw(n: int, size: int, replace: bool, rng: np.random.Generator) -> Array:
    """How often each of ``n`` events is drawn when ``size`` are."""
    return _counted(rng.integers(n, size=size) if replace else rng.permutation(n)[:size], n)


def _counted(chosen: NDArray[np.int64], n: int) -> Array:
    """How often each of ``n`` events is among the chosen."""
    return np.bincount(chosen, minlength=n).astype(np.float64)


def _batched(pair: _Pair, sizes: tuple[int, int], protocol: Protocol, rng: np.random.Generator) -> Array:
    """W1 of every value in every batch of a protocol ``(batches, F)``."""
    draws = []
    for _ in range(protocol.batches):
        a, b = (_draw(n, protocol.events or n, protocol.replace, rng) for n in sizes)
        draws.append(pair(a, b))
    return np.array(draws)


def compare_w1(
    name: str,
    generated: Observations,
    reference: Observations,
    *,
    protocol: Protocol | str | None = None,
    seed: int = 0,
) -> Result:
    r"""W1 of an observable, averaged over its values.

    The error comes from subsamples of a fifth of the events of each side (hits of one event stay together), scaled by
    the rate :math:`n^{-1/2}`; a bootstrap would overstate it near zero, where W1 is not smooth. Under a protocol with
    batches it is the standard deviation over them. The floor is the mean over random splits of the reference into two
    disjoint halves of ``h`` events, times :math:`\sqrt{(1/n + 1/m) / (2/h)}`: W1 between samples of one law falls with
    exactly this rate, so that the floor is that of the sizes compared. Under a protocol with batches it is that
    protocol run on the two halves.

    Args:
        name: Name of the result.
        generated: Observations of the generated sample.
        reference: Of the reference.
        protocol: A :class:`Protocol` or its name.
        seed: Of resamples and splits.

    Raises:
        DataError: A side has no event that can be evaluated.
    """
    setting = resolve(protocol)
    n, m = len(generated), len(reference)
    if n < 1 or m < 1:
        raise DataError(
            f"{name}: {n} generated and {m} reference events can be evaluated "
            f"({generated.invalid} and {reference.invalid} were left out); both must be above 0"
        )
    if setting.events is not None and not setting.replace and setting.events > min(n, m):
        raise ConfigError(f"{name}: protocol {setting.name!r} draws {setting.events} events of {n} and {m}")
    rng = np.random.default_rng([seed, 0])
    gen, ref = (generated.values, generated.counts), (reference.values, reference.counts)
    pair = _Pair(gen, ref)
    note: dict[str, Any] = {
        "name": setting.name,
        "events": [setting.events or n, setting.events or m],
        "available": [n, m],
        "batches": setting.batches,
        "replacement": setting.replace,
        "seed": seed,
        "reference_invalid": reference.invalid,
        **generated.observable.note,
    }
    if setting.events is None:
        per_value = pair.whole
        error = subsampled_error(
            lambda i, j: float(pair(_counted(i, n), _counted(j, m)).mean()), (n, m), setting.resamples, rng
        )
        note["error"] = f"{setting.resamples} subsamples of a fifth of the events"
    else:
        batches = _batched(pair, (n, m), setting, rng)
        per_value = batches.mean(0)
        error = float(batches.mean(1).std())
        note["error"] = "standard deviation over batches"
    if len(per_value) > 1:
        note["per_feature"] = dict(zip(generated.observable.names, per_value.tolist(), strict=True))
    if generated.dropped or reference.dropped:
        note["hits_outside"] = [generated.dropped, reference.dropped]
    floor, note["floor"] = _floor(ref, (n, m), setting, seed)
    warn_small(name, min(n, m), LEAST, note)
    return Result(name, float(per_value.mean()), error, n=n, protocol=note, floor=floor, invalid=generated.invalid)


def _floor(
    reference: tuple[Array, NDArray[np.int64]], sizes: tuple[int, int], protocol: Protocol, seed: int
) -> tuple[float, str]:
    """The floor and how it was measured."""
    values, counts = reference
    half = len(counts) // 2
    if half < 2:
        return math.nan, f"not measured: {len(counts)} reference events are too few to split"
    rng = np.random.default_rng([seed, 1])
    starts = np.concatenate([[0], np.cumsum(counts)])
    floors = []
    for _ in range(protocol.pairs if protocol.events is None else 1):
        order = rng.permutation(len(counts))
        halves = []
        for chosen in (order[:half], order[half : 2 * half]):
            rows = np.repeat(starts[chosen], counts[chosen]) + _within(counts[chosen])
            halves.append((values[rows], counts[chosen]))
        pair = _Pair(*halves)
        if protocol.events is None:
            floors.append(pair.whole.mean())
        elif protocol.replace:
            floors.append(_batched(pair, (half, half), protocol, rng).mean())
        else:
            return math.nan, "not measured: batches without replacement need twice the reference"
    if protocol.events is not None:
        return float(np.mean(floors)), f"two disjoint halves of the reference, {half} each, same batches"
    n, m = sizes
    scale = math.sqrt((1 / n + 1 / m) / (2 / half))
    text = f"mean of {protocol.pairs} splits of the reference into halves of {half}, scaled to {n} and {m} events"
    return float(np.mean(floors)) * scale, text


def _within(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, 2, ... within every event."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)


def _first(events: EventsLike) -> Events:
    """A portion to read names from."""
    if len(events) == 0:
        raise DataError("no events to compare; both samples must hold at least one")
    return events[0:1].counted()


def compare_observable(
    name: str,
    generated: EventsLike,
    reference: EventsLike,
    observable: Observable,
    *,
    protocol: Protocol | str | None = None,
    seed: int = 0,
) -> Result:
    """W1 of an observable between two samples of events; see :func:`compare_w1`."""
    check_comparable(_first(generated), _first(reference))
    invalid = resolve(protocol).invalid
    return compare_w1(
        name,
        Observations(observable, "generated", invalid).update(generated),
        Observations(observable, "reference", invalid).update(reference),
        protocol=protocol,
        seed=seed,
    )


@metric("w1_mass", needs=("jets",), fast=True)
def w1_mass(
    generated: EventsLike, reference: EventsLike, *, protocol: Protocol | str | None = None, seed: int = 0
) -> Result:
    """W1 of the jet mass, relative to the jet's momentum where the constituents' momenta are."""
    view = jet_view(_first(reference))
    read = lambda events: Reading(jet_mass(events, view).numpy()[:, None])
    observable = Observable(("mass",), read, note={"features": "jet mass", "read_as": view.as_text()})
    return compare_observable("w1_mass", generated, reference, observable, protocol=protocol, seed=seed)


@metric("w1_pt", needs=("jets",), fast=True)
def w1_pt(
    generated: EventsLike, reference: EventsLike, *, protocol: Protocol | str | None = None, seed: int = 0
) -> Result:
    """W1 of the scalar sum of the constituents' transverse momenta."""
    view = jet_view(_first(reference))
    read = lambda events: Reading(events.to(_DOUBLE).total(view.pt).numpy()[:, None])
    observable = Observable(("pt",), read, note={"features": f"sum of {view.pt}", "read_as": view.as_text()})
    return compare_observable("w1_pt", generated, reference, observable, protocol=protocol, seed=seed)


@metric("w1_energy", needs=("energy",), fast=True)
def w1_energy(
    generated: EventsLike, reference: EventsLike, *, protocol: Protocol | str | None = None, seed: int = 0
) -> Result:
    """W1 of the energy per event: the sum of the column ``energy``, else of the first additive one."""
    column = additive_column(_first(reference), ("energy",))
    read = lambda events: Reading(events.to(_DOUBLE).total(column).numpy()[:, None])
    observable = Observable(("energy",), read, note={"features": f"sum of {column}"})
    return compare_observable("w1_energy", generated, reference, observable, protocol=protocol, seed=seed)


@metric("w1_multiplicity", unit="hits", fast=True)
def w1_multiplicity(
    generated: EventsLike, reference: EventsLike, *, protocol: Protocol | str | None = None, seed: int = 0
) -> Result:
    """W1 of the number of hits per event."""
    read = lambda events: Reading(events.counts.double().numpy()[:, None])
    observable = Observable(("hits",), read, note={"features": "hits per event"})
    _same_view("w1_multiplicity", generated, reference)
    return compare_observable("w1_multiplicity", generated, reference, observable, protocol=protocol, seed=seed)


@metric("w1_hits", fast=True)
def w1_hits(
    generated: EventsLike, reference: EventsLike, *, protocol: Protocol | str | None = None, seed: int = 0
) -> Result:
    """W1 of each coordinate and feature over all hits, averaged over them."""
    first = _first(reference)
    _same_view("w1_hits", generated, reference)
    names = (*first.axes, *(c.name for c in first.columns))

    def read(events: Events) -> Reading:
        values = torch.cat([events.positions.double(), events.features.double()], 1)
        return Reading(values.numpy(), events.counts.numpy())

    observable = Observable(names, read, note={"features": f"hits: {', '.join(names)}"})
    return compare_observable("w1_hits", generated, reference, observable, protocol=protocol, seed=seed)


@metric("w1_occupied", unit="cells", needs=("lattice",), fast=True)
def w1_occupied(
    generated: EventsLike,
    reference: EventsLike,
    *,
    grid: Grid | None = None,
    protocol: Protocol | str | None = None,
    seed: int = 0,
) -> Result:
    """W1 of the number of occupied cells per event.

    Args:
        generated: Cells are counted as they are, points are put on the lattice; hits outside it are counted apart.
        reference: The same.
        grid: The lattice; that of the cells, of the reference, or 25 x 25 over ``[-0.8, 0.8]^2``.
        protocol: A :class:`Protocol` or its name.
        seed: Of resamples and splits.
    """
    ours, theirs = _first(generated), _first(reference)
    lattice = jet_lattice(ours if ours.is_cells and not theirs.is_cells else theirs, grid)

    def read(events: Events) -> Reading:
        cells, dropped = occupied_cells(events, lattice)
        return Reading(cells.numpy()[:, None], dropped=int(dropped.sum()))

    observable = Observable(("cells",), read, note={"features": "occupied cells", "grid": repr(lattice)})
    return compare_observable("w1_occupied", generated, reference, observable, protocol=protocol, seed=seed)


def _same_view(name: str, generated: EventsLike, reference: EventsLike) -> None:
    ours, theirs = _first(generated), _first(reference)
    if ours.is_cells != theirs.is_cells:
        a, b = ("cells" if e.is_cells else "points" for e in (ours, theirs))
        raise DataError(f"{name}: generated events are {a}, the reference {b}; voxelize one or devoxelize the other")
