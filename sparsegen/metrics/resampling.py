"""Errors and floors that hold for statistics that are not smooth near zero."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["quadratic_error", "split_halves", "subsampled_error"]

Index = NDArray[np.int64]


def subsampled_error(
    statistic: Callable[[Index, Index], float],
    sizes: tuple[int, int],
    resamples: int,
    rng: np.random.Generator,
    part: int = 5,
) -> float:
    r"""Standard deviation of a statistic of two samples, from subsamples of a part of each.

    For statistics whose spread falls as :math:`n^{-1/2}`, also where a bootstrap fails because they are not smooth at
    zero or look at nearest neighbours, which duplicates would change.

    Args:
        statistic: Takes the indices of the events of either side.
        sizes: Events on either side.
        resamples: Subsamples drawn.
        rng: Where they are drawn from.
        part: A subsample has one in ``part`` of the events.
    """
    if min(sizes) < 4:
        return math.nan
    taken = [max(2, n // part) for n in sizes]
    values = [statistic(*(rng.permutation(n)[:k] for n, k in zip(sizes, taken, strict=True))) for _ in range(resamples)]
    # Each side adds 1 / n to the variance, a subsample of k of its n events 1 / k - 1 / n.
    own = sum(1 / n for n in sizes)
    drawn = sum(1 / k - 1 / n for n, k in zip(sizes, taken, strict=True))
    return float(np.std(values, ddof=1) * math.sqrt(own / drawn))


def quadratic_error(bootstrap: NDArray[np.float64], null: NDArray[np.float64]) -> float:
    """Standard deviation of a statistic that is quadratic near zero, such as a squared distance of means.

    Away from zero the bootstrap's variance is right; at zero it is three times too large, and more for heavy tails. So
    four null variances are taken off it, and one is added: the null alone is the error at zero.

    Args:
        bootstrap: The statistic in bootstrap resamples.
        null: The statistic between real samples, scaled to the same sizes.
    """
    null_variance = float(np.var(null, ddof=1)) if len(null) > 1 else 0.0
    return math.sqrt(null_variance + max(float(np.var(bootstrap, ddof=1)) - 4 * null_variance, 0.0))


def split_halves(n: int, pairs: int, rng: np.random.Generator) -> list[tuple[Index, Index]]:
    """Random splits of ``n`` events into two disjoint halves."""
    half = n // 2
    orders = [rng.permutation(n) for _ in range(pairs)]
    return [(order[:half], order[half : 2 * half]) for order in orders]
