r"""Fréchet distances between feature distributions: plain, and extrapolated to an infinite sample.

.. math:: d^2 = |\mu_1 - \mu_2|^2 + \mathrm{Tr}\left(\Sigma_1 + \Sigma_2 - 2 (\Sigma_1 \Sigma_2)^{1/2}\right)

References:
    GANs trained by a two time-scale update rule converge to a local Nash equilibrium, Heusel et al., 2017,
    https://arxiv.org/abs/1706.08500
    Evaluating generative models in high energy physics, Kansal et al., 2023, https://arxiv.org/abs/2211.10295
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls

from sparsegen.errors import DataError
from sparsegen.events import Events
from sparsegen.metrics.efp import efps
from sparsegen.metrics.features import Features, FeatureSample, collect_pair
from sparsegen.metrics.inputs import EventsLike, warn_small
from sparsegen.metrics.metric import TooFewError, metric
from sparsegen.metrics.observables import summary_features
from sparsegen.metrics.protocol import Protocol, resolve
from sparsegen.metrics.resampling import scale_variance, split_halves, squared_error
from sparsegen.result import Result

__all__ = [
    "ERROR",
    "Linear",
    "efp_features",
    "fpd",
    "frechet",
    "frechet_distance",
    "frechet_infinity",
    "linear_frechet",
]

Array = NDArray[np.float64]

ROWS = 4096
"""Rows that are centred at a time."""
RANK = 1e-6
"""Standard deviations, over the largest, below which a direction counts as constant."""
ERROR = "delta method, and a part of its mean between real samples"
PUBLISHED = {"jetnet0.2": 20_000, "calochallenge": 10_000}
"""The smallest batch of the published protocols."""


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


def _weighted(x: Array, weights: Array) -> tuple[Array, Array]:
    """Mean and unbiased covariance of rows that count ``weights`` times each."""
    n = weights.sum()
    mean = weights @ x / n
    scatter = np.zeros((x.shape[1], x.shape[1]))
    # In blocks, so that no copy of the sample is made.
    for start in range(0, len(x), ROWS):
        rows = slice(start, start + ROWS)
        centred = (x[rows] - mean) * np.sqrt(weights[rows])[:, None]
        scatter += centred.T @ centred
    return mean, scatter / (n - 1)


def _distance(x: Array, y: Array, u: Array | None = None, v: Array | None = None) -> float:
    u, v = (np.ones(len(z)) if w is None else w for z, w in ((x, u), (y, v)))
    return frechet_distance(*_weighted(x, u), *_weighted(y, v))


def _draws(rng: np.random.Generator, n: int, size: int) -> Array:
    return np.bincount(rng.choice(n, size=size), minlength=n).astype(np.float64)


def frechet_infinity(
    generated: Array,
    reference: Array,
    *,
    smallest: int = 20_000,
    largest: int = 50_000,
    points: int = 10,
    batches: int = 20,
    seed: int = 42,
) -> tuple[float, float]:
    """The Fréchet distance extrapolated to infinite batches, linearly in one over the batch size.

    Batches are drawn with replacement; intercept and slope are not negative. The defaults, the order of the draws and
    the error (that of the fitted intercept) are those of the published definition, so that equal features and seeds
    give equal numbers.

    Args:
        generated: ``(n, F)`` features.
        reference: ``(m, F)`` features.
        smallest: Smallest batch.
        largest: Largest batch.
        points: Batch sizes between them, equally spaced in their inverse.
        batches: Batches of each size.
        seed: Of the draws.

    Returns:
        The intercept and its error.
    """
    rng = np.random.default_rng(seed)
    sizes = (1 / np.linspace(1.0 / smallest, 1.0 / largest, points)).astype(np.int32)
    means = []
    for size in sizes:
        batch = []
        for _ in range(batches):
            v, u = _draws(rng, len(reference), size), _draws(rng, len(generated), size)
            batch.append(_distance(generated, reference, u, v))
        means.append(np.mean(batch))
    return _intercept(1.0 / sizes, np.array(means))


def _intercept(x: Array, y: Array) -> tuple[float, float]:
    """Intercept of the line through points with neither intercept nor slope below zero, and its error."""
    design = np.stack([np.ones_like(x), x], 1)
    # nnls wants columns of like size.
    scale = np.array([1.0, x.max()])
    (intercept, _), residual = nnls(design / scale, y)
    variance = residual**2 / max(len(x) - 2, 1) * np.linalg.inv(design.T @ design)[0, 0]
    return float(intercept), math.sqrt(max(variance, 0.0))


def efp_features(events: Events) -> Array:
    """The 36 energy-flow polynomials of at most four edges ``(B, 36)``."""
    return efps(events).numpy()


def _scaled(pair: tuple[FeatureSample, FeatureSample], by: str) -> tuple[Array, Array]:
    """Features over the largest magnitude, or the standard deviation, of the reference."""
    generated, reference = (s.values for s in pair)
    scale = np.abs(reference).max(0) if by == "maximum" else reference.std(0)
    scale = np.where(scale == 0, 1.0, scale)
    return generated / scale, reference / scale


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
    (m1, s1), (m2, s2) = (_weighted(z, np.ones(len(z))) for z in (x, y))
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


def _variance(centred: Array, linear: Array, square: Array, n: int) -> float:
    """Variance of the mean over rows of a quadratic form of theirs."""
    return float((centred @ linear + ((centred @ square) * centred).sum(1)).var(ddof=1)) / n


def _between_reals(
    x: Array, y: Array, setting: Protocol, seed: int, statistic: Callable[[Array, Array], tuple[float, float]]
) -> tuple[float, float, str]:
    """Distance and its variance, as the delta method has it, for samples of one law; and how they were measured."""
    half = len(y) // 2
    if half < 2:
        return math.nan, math.nan, f"not measured: {len(y)} reference events are too few to split"
    halves = split_halves(len(y), setting.pairs, np.random.default_rng([seed, 1]))
    # The mean of a squared distance between samples of one law falls as 1 / n.
    scale = (1 / len(x) + 1 / len(y)) / (2 / half)
    note = f"mean of {setting.pairs} splits of the reference into halves of {half}, scaled to the sizes compared"
    floor, variance = np.mean([statistic(y[a], y[b]) for a, b in halves], axis=0)
    return float(floor * scale), float(variance * scale**2), note


@metric("frechet", fast=True)
def frechet(
    generated: EventsLike,
    reference: EventsLike,
    *,
    features: Features = summary_features,
    protocol: Protocol | str | None = None,
    seed: int = 0,
) -> Result:
    """Squared Fréchet distance of event features, each in units of its spread over the reference.

    Args:
        generated: Generated events.
        reference: Real events.
        features: Events -> ``(B, F)``: your own, or the fixed description of :func:`summary_features`.
        protocol: A :class:`Protocol` or its name; its resamples, pairs and treatment of invalid events matter.
        seed: Of resamples and splits.
    """
    setting = resolve(protocol)
    pair = collect_pair(generated, reference, features, invalid=setting.invalid)
    if min(map(len, pair)) < 2:
        raise TooFewError(f"frechet: {len(pair[0])} generated and {len(pair[1])} reference events; use 2 or more")
    x, y = _scaled(pair, "spread")
    found = linear_frechet(x, y, own_scale=True)
    floor, null, how = _between_reals(x, y, setting, seed, lambda a, b: linear_frechet(a, b, own_scale=True)[:2])
    note: dict[str, Any] = {
        "name": "whole",
        "events": [len(x), len(y)],
        "features": list(pair[0].names) or x.shape[1],
        "scaling": "standard deviation over the reference",
        "reference_invalid": pair[1].invalid,
        "seed": seed,
        "error": ERROR,
        "floor": how,
    }
    warn_small("frechet", min(len(x), len(y)), 10 * x.shape[1], note)
    error = squared_error(found.variance, null)
    return Result("frechet", found.value, error, len(x), note, floor, pair[0].invalid)


@metric("fpd", needs=("jets",))
def fpd(
    generated: EventsLike,
    reference: EventsLike,
    *,
    features: Features = efp_features,
    protocol: Protocol | str | None = None,
    seed: int = 42,
) -> Result:
    """Fréchet physics distance: of energy-flow polynomials, extrapolated to infinite samples.

    Features are divided by their largest magnitude in the reference. Under the protocol ``jetnet0.2`` batches have
    20,000 to 50,000 events, drawn with replacement, and the error is that of the fit; otherwise the largest batch is
    the smaller sample and the error is that of sampling. It takes the scale as given, which all samples share that are
    held against one reference; the protocol's ``scale_error`` is what another reference would add.

    Args:
        generated: Generated jets.
        reference: Real jets.
        features: Events -> ``(B, F)``; the 36 polynomials of at most four edges by default.
        protocol: A :class:`Protocol` or its name.
        seed: Of the batches.
    """
    setting = resolve(protocol)
    pair = collect_pair(generated, reference, features, invalid=setting.invalid)
    x, y = _scaled(pair, "maximum")
    published = setting.name in PUBLISHED
    largest = 50_000 if published else min(len(x), len(y), 50_000)
    smallest = PUBLISHED.get(setting.name, largest * 2 // 5)
    batches = 20 if published else 5
    if smallest < 2:
        raise TooFewError(f"fpd: {len(x)} generated and {len(y)} reference jets are too few; use 10,000 or more")

    def statistic(a: Array, b: Array) -> tuple[float, float]:
        value, _ = frechet_infinity(a, b, smallest=smallest, largest=largest, batches=batches, seed=seed)
        return value, 0.0 if published else linear_frechet(a, b).variance

    value, error = frechet_infinity(x, y, smallest=smallest, largest=largest, batches=batches, seed=seed)
    floor, null, how = _between_reals(x, y, Protocol(pairs=2) if published else setting, seed, statistic)
    note: dict[str, Any] = {
        "name": setting.name,
        "events": [smallest, largest],
        "available": [len(x), len(y)],
        "batches": batches,
        "replacement": True,
        "features": "36 energy-flow polynomials" if features is efp_features else x.shape[1],
        "scaling": "largest magnitude in the reference",
        "reference_invalid": pair[1].invalid,
        "seed": seed,
        "error": "of the fit" if published else ERROR,
        "floor": how,
    }
    if not published:
        found = linear_frechet(x, y)
        error = squared_error(found.variance, null)
        note["scale_error"] = math.sqrt(scale_variance(y, found.by_scale, np.random.default_rng([seed, 2])))
    warn_small("fpd", min(len(x), len(y)), 50_000 if published else 1000, note)
    return Result("fpd", value, error, len(x), note, floor, pair[0].invalid)
