r"""Wasserstein-1 distances in one dimension, exact.

.. math:: W_1(P, Q) = \int |F_P(x) - F_Q(x)|\,dx

The values of both samples are sorted once; a resample or a split is then only another set of weights on the sorted
values.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsegen.errors import DataError

__all__ = ["Pair", "w1"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]
PLACES = 4096
"""Places on which the spread of two distribution functions is followed, at most."""


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

    def __init__(self, values: Array, event: Index | None) -> None:
        order = np.argsort(values, kind="stable")
        self.places = values[order]
        self.event = order if event is None else event[order]

    def height(self, weights: Array) -> Array:
        """Difference of the two functions from each place to the next."""
        steps = weights[self.event]
        # Each side is summed alone, so that equal samples cancel exactly.
        return (np.cumsum(np.maximum(steps, 0)) + np.cumsum(np.minimum(steps, 0)))[:-1]

    def __call__(self, weights: Array) -> float:
        return float(np.abs(self.height(weights)) @ np.diff(self.places))


class Pair:
    """Two samples of events, sorted once, compared under any weights of the events.

    Args:
        a: Values ``(rows, F)``, event after event, and the rows that each event owns ``(events,)``.
        b: The same of the other side.
    """

    def __init__(self, a: tuple[Array, Index], b: tuple[Array, Index]) -> None:
        self.counts = np.concatenate([a[1], b[1]])
        self.split = len(a[1])
        values = np.concatenate([a[0], b[0]])
        event = np.repeat(np.arange(len(self.counts)), self.counts)
        self.gaps = [_Gap(values[:, i], event) for i in range(values.shape[1])]

    def _normalised(self, left: Array, right: Array) -> Array:
        weights = np.concatenate([left, -right])
        for side in (slice(None, self.split), slice(self.split, None)):
            weights[side] /= np.abs(weights[side] @ self.counts[side])
        return weights

    def __call__(self, left: Array, right: Array) -> Array:
        """W1 of every value ``(F,)``, events weighted by ``left`` on the first side, ``right`` on the second."""
        weights = self._normalised(left, right)
        return np.array([gap(weights) for gap in self.gaps])

    @cached_property
    def whole(self) -> Array:
        """W1 of every value ``(F,)``, every event once."""
        return self(*self._ones())

    def _ones(self) -> tuple[Array, Array]:
        return np.ones(self.split), np.ones(len(self.counts) - self.split)

    def steps(self, left: Array, right: Array) -> Array:
        """The difference of the distribution functions of every value, one after another, on some of the places."""
        weights = self._normalised(left, right)
        return np.concatenate([gap.height(weights)[kept] for gap, kept in zip(self.gaps, self._kept, strict=True)])

    @cached_property
    def widths(self) -> Array:
        """What each of :meth:`steps` adds to the mean over the values."""
        ends = [gap.places[np.append(kept, -1)] for gap, kept in zip(self.gaps, self._kept, strict=True)]
        return np.concatenate([np.diff(places) for places in ends]) / len(self.gaps)

    @cached_property
    def _kept(self) -> list[Index]:
        last = [len(gap.places) - 1 for gap in self.gaps]
        return [np.unique(np.linspace(0, n - 1, min(n, PLACES)).astype(np.int64)) for n in last]

    @property
    def difference(self) -> Array:
        """:meth:`steps` with every event once."""
        return self.steps(*self._ones())
