"""W1 of observables between two samples, with error and floor."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsegen.errors import ConfigError, DataError
from sparsegen.events import Events
from sparsegen.metrics.inputs import EventsLike, check_comparable, warn_small
from sparsegen.metrics.observations import Observable, Observations
from sparsegen.metrics.protocol import Protocol, resolve
from sparsegen.metrics.resampling import counted
from sparsegen.metrics.wasserstein import Pair
from sparsegen.result import Result

__all__ = ["compare_observable", "compare_w1", "first"]

Array = NDArray[np.float64]
LEAST = 30
"""Events below which a W1 says next to nothing."""


def _draw(n: int, size: int, replace: bool, rng: np.random.Generator) -> Array:
    """How often each of ``n`` events is drawn when ``size`` are."""
    return counted(rng.integers(n, size=size) if replace else rng.permutation(n)[:size], n)


def _batched(pair: Pair, sizes: tuple[int, int], protocol: Protocol, rng: np.random.Generator) -> Array:
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

    The error is that of the delta method, from the influence of each event (hits of one event stay together): see
    :attr:`Pair.variance`. For samples of one law, where W1 is no smooth function of them, it is larger than the spread
    and smaller where the value is: 1.96 errors still hold the mean in about 97 of 100 repetitions. Under a protocol
    with batches the error is the standard deviation over them.

    The floor is the mean over random splits of the reference into two disjoint halves of ``h`` events, times
    :math:`\sqrt{(1/n + 1/m) / (2/h)}`: W1 between samples of one law falls with exactly this rate, so that the floor is
    that of the sizes compared. Under a protocol with batches it is that protocol run on the two halves.

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
    pair = Pair(gen, ref)
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
        error = math.sqrt(pair.variance)
        note["error"] = "delta method, from each event's influence"
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
        pair = Pair(*halves)
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


def first(events: EventsLike) -> Events:
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
    check_comparable(first(generated), first(reference))
    invalid = resolve(protocol).invalid
    return compare_w1(
        name,
        Observations(observable, "generated", invalid).update(generated),
        Observations(observable, "reference", invalid).update(reference),
        protocol=protocol,
        seed=seed,
    )
