r"""How far a semi-discrete map is from optimal, measured on samples that the solver never saw.

A cell that should hold the mass :math:`\nu_i` holds :math:`w_i`. Counts of M samples estimate
:math:`\sum_i w_i^2 / \nu_i - 1`, the mean square of the relative errors :math:`w_i / \nu_i - 1`, without bias by
:math:`\sum_i c_i (c_i - 1) / (M (M - 1) \nu_i) - 1`: what multinomial noise adds (n / M) is not in it. Samples may come
in blocks, the mirror images of one point; then only pairs from different blocks count, and blocks are what is
independent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.special import betaincinv

__all__ = ["AIM", "Certificate", "certify_counts", "certify_measures", "samples_needed"]

Array = NDArray[np.float64]
Integers = NDArray[np.int64]
NORMAL_975 = 1.959963984540054
AIM = 0.85
"""Share of the tolerance to solve for: nearer to 1 takes more samples to certify, nearer to 0 more to solve."""
PAIRED = 512
"""Blocks whose pairs are looked at one by one."""


@dataclass(frozen=True)
class Certificate:
    r"""What is known about a fitted map; every interval and bound at 95 % confidence.

    Args:
        rms: Root of the mean square of :math:`w_i / \nu_i - 1`, freed of sampling noise (0 if below it).
        rms_ci: Its interval.
        tv_bound: Upper bound of the total variation between the mapped source and the targets' weights, rms / 2.
        empty_bound: Upper bound of the number of empty cells: those that no sample hit.
        max_bound: Upper bound of the largest :math:`w_i / \nu_i - 1`.
        dual: The dual value, a lower bound of the squared 2-Wasserstein distance and equal to it at the optimum.
        dual_ci: Its interval.
        samples: Source samples behind these numbers, mirror images counted; 0: computed exactly.
        seconds: Wall time of the fit, certificate included.
        converged: Whether the upper end of ``rms_ci`` is within the tolerance asked for.
    """

    rms: float
    rms_ci: tuple[float, float]
    tv_bound: float
    empty_bound: int
    max_bound: float
    dual: float
    dual_ci: tuple[float, float]
    samples: int
    seconds: float
    converged: bool

    def __str__(self) -> str:
        state = "converged" if self.converged else "not converged"
        return (
            f"{state}: rms {self.rms:.3g} in [{self.rms_ci[0]:.3g}, {self.rms_ci[1]:.3g}], "
            f"TV <= {self.tv_bound:.3g}, empty cells <= {self.empty_bound}, {self.samples} samples, "
            f"{self.seconds:.1f} s"
        )


def samples_needed(n: int, tolerance: float) -> int:
    """Samples after which an rms of AIM tolerances is told from the tolerance itself, nine times in ten.

    At least so many, too, that no cell of fair size is missed: 2 n log n.
    """
    # 1.96 + 1.28 standard deviations of the square, sqrt(linear / M + constant / M^2), fit between AIM^2 and 1
    room = ((1 - AIM**2) * tolerance**2 / 3.24) ** 2
    linear, constant = 4 * (AIM * tolerance) ** 2, 2.0 * n
    told = (linear + math.sqrt(linear**2 + 4 * room * constant)) / (2 * room)
    return math.ceil(max(1000, 2 * n * math.log(n), told))


def certify_counts(
    counts: Integers,
    weights: Array,
    dual: float,
    dual_error: float,
    tolerance: float,
    seconds: float,
    repeats: Integers | None = None,
    blocks: Integers | None = None,
) -> Certificate:
    """The certificate that sample counts support.

    Args:
        counts: Samples in each cell ``(n,)``.
        weights: The masses that the cells should have ``(n,)``.
        dual: The mean dual value of the samples.
        dual_error: Its standard error.
        tolerance: What was asked for.
        seconds: Since the fit began.
        repeats: Ordered pairs of samples of one block in each cell ``(n,)``; None: all samples are independent.
        blocks: The cells of some of the blocks ``(b, images)``.
    """
    m = int(counts.sum())
    c = counts.astype(np.float64)
    images = 1 if blocks is None else blocks.shape[1]
    twice = np.zeros_like(c) if repeats is None else repeats.astype(np.float64)
    square = float(((c * (c - 1) - twice) / weights).sum() / (m * float(m - images))) - 1
    if blocks is None or images == 1:
        variance = _variance(c, weights, m)
    else:
        variance = _block_variance(c, weights, blocks, m // images, square + 1)
    low, high = _interval(square, *variance)
    # samples of a block that share a cell count as one
    crowd = 1 + np.maximum(twice / np.maximum(c, 1), twice.sum() / m)
    # Clopper-Pearson for every cell at once: the level is shared among them (Bonferroni)
    largest = betaincinv(c / crowd + 1, np.maximum((m - c) / crowd, 1e-9), 1 - 0.05 / len(c)) / weights - 1
    return Certificate(
        rms=math.sqrt(max(square, 0.0)),
        rms_ci=(low, high),
        tv_bound=high / 2,
        empty_bound=int((counts == 0).sum()),
        max_bound=float(largest.max()),
        dual=dual,
        dual_ci=(dual - NORMAL_975 * dual_error, dual + NORMAL_975 * dual_error),
        samples=m,
        seconds=seconds,
        converged=high <= tolerance,
    )


def certify_measures(measures: Array, weights: Array, dual: float, tolerance: float, seconds: float) -> Certificate:
    """The certificate of cell measures that are known exactly.

    Args:
        measures: Mass of each cell ``(n,)``.
        weights: The masses that the cells should have ``(n,)``.
        dual: The exact dual value.
        tolerance: What was asked for.
        seconds: Since the fit began.
    """
    relative = measures / weights - 1
    rms = math.sqrt(float((weights * relative**2).sum()))
    return Certificate(
        rms=rms,
        rms_ci=(rms, rms),
        tv_bound=rms / 2,
        empty_bound=int((measures <= 0).sum()),
        max_bound=float(relative.max()),
        dual=dual,
        dual_ci=(dual, dual),
        samples=0,
        seconds=seconds,
        converged=rms <= tolerance,
    )


def _interval(square: float, linear: float, constant: float) -> tuple[float, float]:
    """Roots of the squares that lie within 1.96 of their own standard deviations of the estimate (Wilson 1927).

    The variance grows with the square itself: one taken at the estimate would be too small where that is low.
    """
    slope = linear / square if square > 0 else 0.0
    centre = square + NORMAL_975**2 * slope / 2
    reach = NORMAL_975 * math.sqrt(slope * max(square, 0.0) + constant + (NORMAL_975 * slope) ** 2 / 4)
    return math.sqrt(max(centre - reach, 0.0)), math.sqrt(max(centre + reach, 0.0))


def _variance(c: Array, weights: Array, m: int) -> tuple[float, float]:
    """Variance of the unbiased square, from unbiased moments: the part that the square brings, and the rest.

    The square is a U-statistic of pairs with the kernel [same cell] / weight (Hoeffding 1948).
    """
    pairs, triples = m * (m - 1.0), m * (m - 1.0) * (m - 2.0)
    mean = (c * (c - 1) / weights).sum() / pairs
    first = (c * (c - 1) * (c - 2) / weights**2).sum() / triples - mean**2
    second = (c * (c - 1) / weights**2).sum() / pairs - mean**2
    return float(4 * (m - 2) * max(first, 0.0) / pairs), float(2 * max(second, 0.0) / pairs)


def _block_variance(c: Array, weights: Array, blocks: Integers, count: int, mean: float) -> tuple[float, float]:
    """`_variance` where blocks are independent, not samples: the kernel is the mean over pairs of one from each.

    What the square brings comes from how much the blocks given differ, the rest from the pairs of the first few.
    """
    few, images = blocks[:PAIRED], blocks.shape[1]
    rows = np.repeat(np.arange(len(few)), images)
    seen = csr_matrix((1 / (images * np.sqrt(weights[few.ravel()])), (rows, few.ravel())), (len(few), len(c)))
    kernel = (seen @ seen.T).toarray()
    squares = (kernel**2).sum() - (kernel.diagonal() ** 2).sum()
    second = squares / (len(few) * (len(few) - 1.0)) - mean**2
    # the sum of the kernel over a block's pairs with all other blocks
    own = (blocks[:, :, None] == blocks[:, None]).sum(2)
    total = ((c[blocks] - own) / weights[blocks]).sum(1) / images**2
    first = (total.var(ddof=1) / (count - 1) - second) / max(count - 2, 1)
    pairs = count * (count - 1.0)
    return 4 * (count - 2) * max(float(first), 0.0) / pairs, 2 * max(float(second), 0.0) / pairs
