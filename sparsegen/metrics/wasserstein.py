r"""Wasserstein-1 distances in one dimension, exact.

.. math:: W_1(P, Q) = \int |F_P(x) - F_Q(x)|\,dx

The values of both samples are sorted once; a resample or a split is then only another set of weights on the sorted
values.
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsegen.errors import DataError

__all__ = ["Pair", "w1"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]


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

    @cached_property
    def variance(self) -> float:
        r"""Variance of the mean of :attr:`whole` over samples of these sizes, by the delta method.

        A row x moves W1 by :math:`\int \mathrm{sign}(F_P - F_Q)\,(1_{x \le t} - F_P(t))\,dt` over the rows of its side;
        an event by what its rows do. NaN where a side has one event.
        """
        if min(self.split, len(self.counts) - self.split) < 2:
            return math.nan
        sides = (slice(None, self.split), slice(self.split, None))
        weights = self._normalised(*self._ones())
        influence = np.zeros(len(self.counts))
        for gap in self.gaps:
            signed = np.sign(gap.height(weights)) * np.diff(gap.places)
            # The integral from x to the right end, but for a constant that the centring takes away.
            reach = np.concatenate([[0.0], np.cumsum(signed)])
            influence += np.bincount(gap.event, weights=reach, minlength=len(influence)) / len(self.gaps)
        total = 0.0
        for side in sides:
            counts, own = self.counts[side], influence[side]
            own = (own - counts * (own.sum() / counts.sum())) / counts.mean()
            total += float(own.var(ddof=1)) / len(own)
        return total
