"""Events as points of a feature space: collected portion by portion, with sums that merge."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsegen.errors import DataError
from sparsegen.events import Events
from sparsegen.metrics.cache import is_kept, remembered
from sparsegen.metrics.inputs import EventsLike, check_comparable, portions, valid_events
from sparsegen.metrics.observables import summary_features
from sparsegen.metrics.ranks import gathered

__all__ = [
    "EventsOrFeatures",
    "Features",
    "FeatureSample",
    "Moments",
    "Spilled",
    "check_pair",
    "collect",
    "collect_pair",
]

Array = NDArray[np.float64]
BLOCK = 16384
"""Rows of features that are in memory at a time."""

Features = Callable[[Events], "Array | tuple[Array, tuple[str, ...]]"]
"""Events -> ``(B, F)``, with or without names of the features."""


@dataclass(frozen=True)
class FeatureSample:
    """The features of the events of a sample that can be evaluated.

    Metrics of features take it in the place of events, so that features of your own arrays, or collected portion by
    portion and rank by rank, are compared as they are.

    Args:
        values: ``(n, F)`` float64.
        names: The features' names; empty where a caller's function gives none.
        invalid: Events left out.

    Example:
        >>> halves = [FeatureSample(np.array([[1.0], [2.0]])), FeatureSample(np.array([[3.0]]), invalid=1)]
        >>> whole = halves[0].merge(halves[1]).reduce()
        >>> len(whole), whole.invalid
        (3, 1)
    """

    values: Array
    names: tuple[str, ...] = ()
    invalid: int = 0

    def merge(self, other: FeatureSample) -> FeatureSample:
        """Both samples as one.

        Raises:
            DataError: They have other features.
        """
        _check_alike(self, other, "merge")
        return FeatureSample(
            np.concatenate([self.values, other.values]), self.names or other.names, self.invalid + other.invalid
        )

    def reduce(self) -> FeatureSample:
        """What all ranks hold, the same on each: the ranks' rows one after another; ``self`` is unchanged."""
        parts = [FeatureSample(*part) for part in gathered((self.values, self.names, self.invalid))]
        return functools.reduce(FeatureSample.merge, parts)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def width(self) -> int:
        """Features an event."""
        return int(self.values.shape[1])


EventsOrFeatures = EventsLike | FeatureSample
"""What metrics of features take: events, or what was read off them before."""


def _check_alike(one: FeatureSample, other: FeatureSample, what: str) -> None:
    if one.width != other.width or (one.names and other.names and one.names != other.names):
        ours, theirs = (side.names or side.width for side in (one, other))
        raise DataError(f"{what}: features {ours} and {theirs}; expected the same on both sides")


def collect(
    events: EventsOrFeatures, features: Features = summary_features, *, role: str, invalid: str = "leave_out"
) -> FeatureSample:
    """Features of all events, in portions: only the features themselves are held.

    Raises:
        DataError: No event can be evaluated.
    """
    if isinstance(events, FeatureSample):
        values = np.asarray(events.values, dtype=np.float64)
        if values.ndim != 2 or not len(values) or not np.isfinite(values).all():
            raise DataError(
                f"features of the {role} sample have shape {values.shape}: expected (n, F), n above 0, all finite"
            )
        return replace(events, values=values)
    name = f"{getattr(features, '__module__', '')}.{getattr(features, '__qualname__', '')}"
    make = lambda: _collected(events, features, role, invalid)
    # Only a function that can be found again by its name stands for the same features tomorrow.
    named = name.strip(".") and "<" not in name
    held = remembered(events, f"features {name} {invalid}", make) if named else make()
    if not len(held["values"]):
        raise _nothing(role, int(held["invalid"]), len(events))
    return FeatureSample(held["values"], tuple(str(n) for n in held["names"]), int(held["invalid"]))


def _portions(
    events: EventsLike, features: Features, role: str, invalid: str
) -> Iterator[tuple[Array, tuple[str, ...], int]]:
    """Features of each portion, their names, and the events left out."""
    for portion in portions(events):
        kept, bad = valid_events(portion, role=role, invalid=invalid)
        answer = features(kept)
        values, names = answer if isinstance(answer, tuple) else (answer, ())
        values = np.asarray(values, dtype=np.float64)
        finite = np.isfinite(values).all(1)
        yield values[finite], names, bad + int((~finite).sum())


def _collected(events: EventsLike, features: Features, role: str, invalid: str) -> dict[str, NDArray[Any]]:
    found = list(_portions(events, features, role, invalid))
    return {
        "values": np.concatenate([values for values, _, _ in found] or [np.empty((0, 0))]),
        "names": np.array(found[-1][1] if found else (), dtype=str),
        "invalid": np.array(sum(left_out for _, _, left_out in found)),
    }


class Spilled:
    """The features of a sample in a temporary file, read a block at a time: memory does not grow with the sample.

    The file is gone when the ``with`` block ends.

    Args:
        events: The sample.
        features: Events -> ``(B, F)``.
        role: ``generated`` or ``reference``, for messages.
        invalid: What to do with events that cannot be evaluated, see :class:`Protocol`.

    Raises:
        DataError: No event can be evaluated.
    """

    def __init__(self, events: EventsOrFeatures, features: Features, *, role: str, invalid: str = "leave_out") -> None:
        self._rows = 0
        self.invalid = 0
        self.width = 0
        self.largest: Array = np.zeros(0)
        """Largest magnitude of each feature ``(F,)``."""
        with contextlib.ExitStack() as stack:
            self._file = stack.enter_context(tempfile.TemporaryFile())
            for values, left_out in self._parts(events, features, role, invalid):
                self.invalid += left_out
                if len(values):
                    self._file.write(np.ascontiguousarray(values).data.cast("B"))
                    top = np.abs(values).max(0)
                    self.largest = np.maximum(self.largest, top) if self._rows else top
                    self._rows += len(values)
                    self.width = values.shape[1]
            if not self._rows:
                raise _nothing(role, self.invalid, len(events))
            self._stack = stack.pop_all()

    @staticmethod
    def _parts(events: EventsOrFeatures, features: Features, role: str, invalid: str) -> Iterator[tuple[Array, int]]:
        if isinstance(events, FeatureSample) or is_kept(events):
            # Features that were collected before, or are kept on disk and read back from there, are whole arrays.
            sample = collect(events, features, role=role, invalid=invalid)
            yield sample.values, sample.invalid
            return
        for values, _, left_out in _portions(events, features, role, invalid):
            yield values, left_out

    def __enter__(self) -> Spilled:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def __len__(self) -> int:
        return self._rows

    def blocks(self) -> Iterator[Array]:
        """All rows, ``(rows, F)`` at a time."""
        self._file.seek(0)
        for start in range(0, self._rows, BLOCK):
            block = np.empty((min(BLOCK, self._rows - start), self.width))
            self._file.readinto(block.data.cast("B"))
            yield block


def _nothing(role: str, invalid: int, n: int) -> DataError:
    return DataError(f"the {role} sample has no event that can be evaluated: {invalid} of {n} are invalid")


def collect_pair(
    generated: EventsOrFeatures,
    reference: EventsOrFeatures,
    features: Features = summary_features,
    *,
    invalid: str = "leave_out",
) -> tuple[FeatureSample, FeatureSample]:
    """Features of both sides, which must have the same axes, columns and units."""
    check_pair(generated, reference)
    pair = (
        collect(generated, features, role="generated", invalid=invalid),
        collect(reference, features, role="reference", invalid=invalid),
    )
    _check_alike(*pair, "generated and reference")
    return pair


def check_pair(generated: EventsOrFeatures, reference: EventsOrFeatures) -> None:
    """Raises unless both sides hold events of the same axes, columns and units, or both are features."""
    if isinstance(generated, FeatureSample) or isinstance(reference, FeatureSample):
        if type(generated) is not type(reference):
            raise DataError("one side is features, the other events; collect the features of both")
        return
    if len(generated) == 0 or len(reference) == 0:
        raise DataError(f"{len(generated)} generated and {len(reference)} reference events; both must be above 0")
    check_comparable(generated[0:1], reference[0:1])


class Moments:
    """Mean and covariance from sums that stream and merge, in float64.

    Example:
        >>> rows = np.array([[1.0, 2.0], [3.0, 6.0], [5.0, 1.0]])
        >>> whole, parts = Moments().update(rows), Moments().update(rows[:1]).merge(Moments().update(rows[1:]))
        >>> np.allclose(whole.covariance, parts.covariance) and np.allclose(whole.covariance, np.cov(rows.T))
        True
    """

    def __init__(self) -> None:
        self.n = 0
        self.mean: Array = np.zeros(0)
        self.scatter: Array = np.zeros((0, 0))

    def update(self, values: ArrayLike) -> Moments:
        """Takes in rows ``(n, F)``."""
        x = np.asarray(values, dtype=np.float64)
        if not len(x):
            return self
        other = Moments()
        other.n, other.mean = len(x), x.mean(0)
        centred = x - other.mean
        other.scatter = centred.T @ centred
        return self.merge(other)

    def merge(self, other: Moments) -> Moments:
        """Adds what another accumulator has seen (Chan et al., 1979)."""
        if other.n == 0:
            return self
        if self.n == 0:
            self.n, self.mean, self.scatter = other.n, other.mean.copy(), other.scatter.copy()
            return self
        if self.mean.shape != other.mean.shape:
            raise DataError(f"moments of {len(self.mean)} and of {len(other.mean)} features do not merge")
        n = self.n + other.n
        step = other.mean - self.mean
        self.scatter = self.scatter + other.scatter + np.outer(step, step) * (self.n * other.n / n)
        self.mean = self.mean + step * (other.n / n)
        self.n = n
        return self

    def reduce(self) -> Moments:
        """The moments of what all ranks have seen, the same on each; ``self`` is unchanged."""
        whole = Moments()
        for n, mean, scatter in gathered((self.n, self.mean, self.scatter)):
            part = Moments()
            part.n, part.mean, part.scatter = n, mean, scatter
            whole.merge(part)
        return whole

    @property
    def covariance(self) -> Array:
        """The unbiased covariance ``(F, F)``.

        Raises:
            DataError: Fewer than two rows were seen.
        """
        if self.n < 2:
            raise DataError(f"a covariance needs two events or more, got {self.n}")
        return self.scatter / (self.n - 1)
