"""Errors and floors that hold for statistics that are not smooth near zero."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "between",
    "counted",
    "cut",
    "floor_at",
    "quadratic_error",
    "shrunk",
    "shrunk_error",
    "split_halves",
    "subsampled_error",
]

Array = NDArray[np.float64]
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


def shrunk(difference: Array, spread: Array) -> Array:
    """A difference drawn towards zero by the spread of its noise, entry by entry.

    Noise alone makes a difference as large as its spread. A bootstrap around the difference itself would overstate the
    error of a statistic that has a kink or a minimum at zero, such as a magnitude or a square; around the shrunk one it
    is right for samples of one law, and for samples that are far apart.

    References:
        Inference on directionally differentiable functions, Fang, Santos, 2019, https://arxiv.org/abs/1404.3763
    """
    return np.sign(difference) * np.maximum(np.abs(difference) - spread, 0.0)


def between(near: float, far: float, excess: float) -> float:
    """The error of a statistic that is not smooth at zero, from those that hold near its floor and far from it.

    The one of the shrunk difference is right for samples of one law and too small beyond, the bootstrap's own is right
    beyond and too large for one law. The larger counts, but no further than half the excess over the floor: a value
    that two of the smaller errors tell from its floor shall not seem to agree with it.

    Args:
        near: Standard deviation around the shrunk difference.
        far: Standard deviation around the difference itself.
        excess: The value less its mean over samples of one law.
    """
    return max(near, min(far, excess / 2))


def shrunk_error(difference: Array, resampled: Array, widths: Array, deviations: float = 1.0) -> float:
    r"""Standard deviation of a sum of magnitudes :math:`\sum_g w_g |D_g|`, from bootstrap resamples of D.

    Args:
        difference: D ``(G,)``; it is :func:`shrunk` first, see :func:`between`.
        resampled: D in the resamples ``(B, G)``.
        widths: w ``(G,)``.
        deviations: Standard deviations of noise that D is shrunk by: more where few entries are summed, or the error
            would follow the value.
    """
    noise = resampled - difference
    centre = shrunk(difference, deviations * noise.std(0, ddof=1))
    near, far = (float((np.abs(place + noise) @ widths).std(ddof=1)) for place in (centre, difference))
    excess = float(np.abs(difference) @ widths - (np.abs(noise) @ widths).mean())
    return between(near, far, excess)


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
