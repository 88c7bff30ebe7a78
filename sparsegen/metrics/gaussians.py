r"""The Fréchet distance of two Gaussians, and how it answers to the events behind them.

.. math:: d^2 = |\mu_1 - \mu_2|^2 + \mathrm{Tr}\left(\Sigma_1 + \Sigma_2 - 2 (\Sigma_1 \Sigma_2)^{1/2}\right)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsegen.errors import DataError
from sparsegen.metrics.features import Moments

__all__ = ["Linear", "MeanAndCovariance", "frechet_distance", "linear_frechet"]

Array = NDArray[np.float64]
MeanAndCovariance = tuple[Array, Array]
RANK = 1e-6
"""Standard deviations, over the largest, below which a direction counts as constant."""


def frechet_distance(mean_1: ArrayLike, cov_1: ArrayLike, mean_2: ArrayLike, cov_2: ArrayLike) -> float:
    r"""Squared Fréchet distance of two Gaussians.

    With :math:`\Sigma_i = L_i L_i^T` the trace of the root is the sum of the singular values of :math:`L_1^T L_2`: no
    product of covariances is formed, so that singular ones are no special case and equal ones give zero.

    Example:
        >>> frechet_distance([0.0], [[4.0]], [3.0], [[1.0]])
        10.0
    """
    m1, m2 = (np.atleast_1d(np.asarray(m, dtype=np.float64)) for m in (mean_1, mean_2))
    s1, s2 = (np.atleast_2d(np.asarray(s, dtype=np.float64)) for s in (cov_1, cov_2))
    if m1.shape != m2.shape or s1.shape != s2.shape or s1.shape != (len(m1), len(m1)):
        raise DataError(
            f"frechet_distance: means {m1.shape} and {m2.shape}, covariances {s1.shape} and {s2.shape}; "
            "expected (F,) and (F, F) on both sides"
        )
    overlap = np.linalg.svd(_factor(s1)[0].T @ _factor(s2)[0], compute_uv=False).sum()
    step = m1 - m2
    return float(step @ step + np.trace(s1) + np.trace(s2) - 2 * overlap)


def _factor(covariance: Array) -> tuple[Array, Array]:
    """``L`` with ``L L^T`` the covariance, whose rounding below zero is cut, and its pseudo-inverse."""
    values, vectors = np.linalg.eigh(covariance)
    roots = np.sqrt(np.maximum(values, 0))
    seen = roots > RANK * roots.max()
    return vectors * roots, (vectors * np.divide(1.0, roots, out=np.zeros_like(roots), where=seen)).T


class Linear(NamedTuple):
    """A squared distance of two samples and how it answers to them."""

    value: float
    variance: float
    """Of the value, by the delta method."""
    by_scale: Array
    """Derivative by the logarithm of each feature's scale ``(F,)``."""


def linear_frechet(x: Array, y: Array, *, own_scale: bool = False) -> Linear:
    r"""The Fréchet distance and its variance from each event's influence.

    With the transport map :math:`A \Sigma_1 A = \Sigma_2` an event x of the first side moves the distance by
    :math:`(2 (\mu_1 - \mu_2)^T \tilde x + \tilde x^T (1 - A) \tilde x) / n` less its mean, where
    :math:`\tilde x = x - \mu_1`, and one of the second side likewise with the inverse map.

    Args:
        x: ``(n, F)``.
        y: ``(m, F)``.
        own_scale: Features are in units of their spread over y, which then moves with y.
    """
    n, m = len(x), len(y)
    (m1, s1), (m2, s2) = _moments(x), _moments(y)
    (l1, inverse1), (l2, inverse2) = _factor(s1), _factor(s2)
    u, overlap, vt = np.linalg.svd(l1.T @ l2)
    one = np.eye(len(m1))
    there, back = one - l2 @ vt.T @ u.T @ inverse1, one - l1 @ u @ vt @ inverse2
    step = m1 - m2
    value = float(step @ step + np.trace(s1) + np.trace(s2) - 2 * overlap.sum())
    by_scale = -2 * (step**2 + np.diag(there @ s1) + np.diag(back @ s2))
    spread = np.diag(s2)
    by_square = by_scale / np.where(spread > 0, 2 * spread, 1.0) if own_scale else np.zeros_like(spread)
    variance = _variance(x - m1, 2 * step, there, n) + _variance(y - m2, -2 * step, back + np.diag(by_square), m)
    return Linear(value, variance, by_scale)


def _moments(x: Array) -> MeanAndCovariance:
    found = Moments().update(x)
    return found.mean, found.covariance


def _variance(centred: Array, linear: Array, square: Array, n: int) -> float:
    """Variance of the mean over rows of a quadratic form of theirs."""
    return float((centred @ linear + ((centred @ square) * centred).sum(1)).var(ddof=1)) / n
