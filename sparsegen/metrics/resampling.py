"""Errors and floors that hold for statistics that are not smooth near zero."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "counted",
    "cut",
    "floor_at",
    "magnitude_error",
    "quadratic_error",
    "scale_variance",
    "split_halves",
    "squared_error",
    "subsampled_error",
]

Array = NDArray[np.float64]
Index = NDArray[np.int64]
BLOCKS = 10
"""Blocks of a sample whose largest values are compared."""


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


def magnitude_error(difference: float, resampled: Array, deviations: float = 1.5) -> float:
    r"""Standard deviation of a magnitude :math:`|D|`, from bootstrap resamples of D.

    A bootstrap around D itself overstates the error near zero, where the magnitude has a kink; around D drawn towards
    zero by its noise it is right there, and too small beyond. The larger of the two counts, but no further than half
    the excess over the mean of noise alone: a value that two of the smaller errors tell from that shall not seem to
    agree with it.

    Args:
        difference: D.
        resampled: D in the resamples ``(B,)``.
        deviations: Standard deviations of noise that D is drawn by.

    References:
        Inference on directionally differentiable functions, Fang, Santos, 2019, https://arxiv.org/abs/1404.3763
    """
    noise = resampled - difference
    kept = math.copysign(max(abs(difference) - deviations * noise.std(ddof=1), 0.0), difference)
    near, far = (float(np.abs(centre + noise).std(ddof=1)) for centre in (kept, difference))
    return max(near, min(far, (abs(difference) - float(np.abs(noise).mean())) / 2))


def squared_error(variance: float, null: float) -> float:
    r"""Standard deviation of a squared distance from its delta-method variance.

    Far from zero that variance V is right. Between samples of one law the distance is a sum of squares
    :math:`\sum_k \lambda_k z_k^2`, and V = :math:`4 \sum_k \lambda_k^2 z_k^2` has twice the true variance as its mean,
    but vanishes where the value does. A sixteenth of that mean is added: 1.96 errors then hold the mean of one square
    and of two in 95 of 100 draws, of ten in 98.

    Args:
        variance: V of the value.
        null: Mean of V between samples of one law; NaN: not known, and nothing is added.

    References:
        The jackknife estimate of variance, Efron, Stein, 1981, https://doi.org/10.1214/aos/1176345462
    """
    return math.sqrt(variance + (0.0 if math.isnan(null) else null / 16))


def scale_variance(reference: Array, by_scale: Array, rng: np.random.Generator, repeats: int = 4) -> float:
    """Variance of a value because its features are divided by their largest magnitude in the reference.

    The largest of n draws scatters as the largest of a part of them does, but for a factor (Fisher, Tippett, 1928): the
    logarithms of the largest in each of ten blocks of the reference stand for it. A bootstrap cannot: it repeats the
    largest event in 63 of 100 resamples.

    Args:
        reference: ``(n, F)`` features.
        by_scale: Derivative of the value by the logarithm of each scale ``(F,)``.
        rng: Where the blocks are drawn from.
        repeats: Divisions into blocks.

    References:
        Limiting forms of the frequency distribution of the largest or smallest member of a sample, Fisher, Tippett,
        1928, https://doi.org/10.1017/S0305004100015681
    """
    blocks = min(BLOCKS, len(reference) // 2)
    if blocks < 2:
        return math.nan
    size = len(reference) // blocks
    total = 0.0
    for _ in range(repeats):
        order = rng.permutation(len(reference))
        largest = np.stack([np.abs(reference[order[i * size : (i + 1) * size]]).max(0) for i in range(blocks)])
        # A feature that is zero throughout a block has no logarithm there; one that is zero everywhere has no effect.
        least = np.where(largest > 0, largest, np.inf).min(0)
        shift = np.log(np.where(np.isfinite(least), np.maximum(largest, least), 1.0)) @ by_scale
        total += float(shift.var(ddof=1)) / repeats
    return total


def quadratic_error(bootstrap: NDArray[np.float64], null: NDArray[np.float64]) -> float:
    """Standard deviation of a statistic that is quadratic near zero, such as a squared distance of means.

    Away from zero the bootstrap's variance is right, at zero it is three times too large: three null variances are
    taken off it and one is put back, so that at zero the null alone is the error.

    Args:
        bootstrap: The statistic in bootstrap resamples.
        null: The statistic between real samples, scaled to the same sizes.
    """
    null_variance = float(np.var(null, ddof=1)) if len(null) > 1 else 0.0
    return math.sqrt(null_variance + max(float(np.var(bootstrap, ddof=1)) - 3 * null_variance, 0.0))


def split_halves(n: int, pairs: int, rng: np.random.Generator) -> list[tuple[Index, Index]]:
    """Random splits of ``n`` events into two disjoint halves."""
    half = n // 2
    orders = [rng.permutation(n) for _ in range(pairs)]
    return [(order[:half], order[half : 2 * half]) for order in orders]


def counted(chosen: Index, n: int) -> Array:
    """How often each of ``n`` events is among the chosen."""
    return np.bincount(chosen, minlength=n).astype(np.float64)


def cut(n: int, size: int, seed: int) -> Index:
    """Which ``size`` of ``n`` events enter; samples of one length keep the same, so that equal samples stay equal."""
    return np.random.default_rng([seed, n]).permutation(n)[:size]


def floor_at(
    size: int, n: int, statistic: Callable[[Index, Index], float], pairs: int, rng: np.random.Generator
) -> tuple[float, str]:
    """A statistic between disjoint real samples of ``size`` events each, for statistics that depend on the size.

    Where the reference is too small to be split into two such samples, its halves and its quarters are compared, and
    the power law through both is followed to the size.

    Args:
        size: Events a side of the value that the floor belongs to.
        n: Reference events there are.
        statistic: Takes the indices of the events of either side.
        pairs: Splits to average over.
        rng: Where they are drawn from.

    Returns:
        The floor, NaN below eight reference events, and how it was measured.
    """
    half = n // 2
    if half >= size:
        found = float(np.mean([statistic(a[:size], b[:size]) for a, b in split_halves(n, pairs, rng)]))
        return found, f"mean of {pairs} pairs of disjoint reference samples of {size}"
    if half < 4:
        return math.nan, f"not measured: {n} reference events are too few to split"
    halves = float(np.mean([statistic(a, b) for a, b in split_halves(n, pairs, rng)]))
    quarters = float(np.mean([statistic(a[: half // 2], b[: half // 2]) for a, b in split_halves(n, pairs, rng)]))
    text = f"mean of {pairs} splits of the reference into halves of {half}"
    if halves > 0 and quarters > 0:
        power = math.log(size / half) / math.log(half / (half // 2))
        return halves * (halves / quarters) ** power, f"{text}, and into quarters, extrapolated to {size}"
    return halves, text
