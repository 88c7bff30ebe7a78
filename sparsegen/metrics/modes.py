r"""Modes found by a generator of a toy whose modes are known.

References:
    VEEGAN: reducing mode collapse in GANs using implicit variational learning, Srivastava et al., 2017,
    https://arxiv.org/abs/1705.07761
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree
from scipy.special import gammainc

from sparsegen.errors import DataError

__all__ = ["ModeReport", "mode_report"]


@dataclass(frozen=True)
class ModeReport:
    """How a sample spreads over known modes.

    Args:
        found: Modes with at least one high-quality point.
        modes: Modes there are.
        high_quality: Share of points within the radius of their nearest mode.
        expected_quality: The same for a perfect sampler of isotropic Gaussian modes.
        divergence: Kullback-Leibler divergence, in nats, of the shares of high-quality points from the modes' weights.
        shares: Share of the high-quality points at each mode.
    """

    found: int
    modes: int
    high_quality: float
    expected_quality: float
    divergence: float
    shares: tuple[float, ...]


def mode_report(
    points: ArrayLike,
    centres: ArrayLike,
    sigma: float,
    *,
    radius: float = 3.0,
    weights: ArrayLike | None = None,
) -> ModeReport:
    """Counts modes and high-quality points.

    Args:
        points: ``(n, D)`` generated points.
        centres: ``(K, D)`` centres of the modes.
        sigma: Standard deviation of a mode along each axis.
        radius: How many standard deviations count as high quality.
        weights: Weight of each mode ``(K,)``; equal by default.

    Raises:
        DataError: Shapes that do not fit, points that are not finite, or a width that is not positive.

    Example:
        >>> report = mode_report([[0.0, 0.0], [0.1, 0.0], [9.0, 9.0]], [[0.0, 0.0], [5.0, 0.0]], sigma=0.1)
        >>> report.found, round(report.high_quality, 3)
        (1, 0.667)
    """
    x, c = (np.asarray(v, dtype=np.float64) for v in (points, centres))
    if x.ndim != 2 or c.ndim != 2 or x.shape[1] != c.shape[1] or not len(x) or not len(c):
        raise DataError(f"mode_report: points {x.shape} and centres {c.shape}; expected (n, D) and (K, D)")
    if not np.isfinite(x).all() or not sigma > 0:
        raise DataError(f"mode_report: sigma={sigma}, {int((~np.isfinite(x)).any(1).sum())} points are not finite")
    prior = np.full(len(c), 1 / len(c)) if weights is None else np.asarray(weights, dtype=np.float64)
    prior = prior / prior.sum()
    distance, nearest = cKDTree(c).query(x)
    good = distance <= radius * sigma
    counts: NDArray[np.int64] = np.bincount(nearest[good], minlength=len(c))
    shares = counts / max(counts.sum(), 1)
    some = shares > 0
    divergence = float((shares[some] * np.log(shares[some] / prior[some])).sum()) if some.any() else math.inf
    return ModeReport(
        found=int(some.sum()),
        modes=len(c),
        high_quality=float(good.mean()),
        # The chi distribution of D degrees of freedom.
        expected_quality=float(gammainc(x.shape[1] / 2, radius**2 / 2)),
        divergence=divergence,
        shares=tuple(shares.tolist()),
    )
