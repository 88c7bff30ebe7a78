r"""Fréchet distances between feature distributions: plain, and extrapolated to an infinite sample.

.. math:: d^2 = |\mu_1 - \mu_2|^2 + \mathrm{Tr}\left(\Sigma_1 + \Sigma_2 - 2 (\Sigma_1 \Sigma_2)^{1/2}\right)

References:
    GANs trained by a two time-scale update rule converge to a local Nash equilibrium, Heusel et al., 2017,
    https://arxiv.org/abs/1706.08500
    Evaluating generative models in high energy physics, Kansal et al., 2023, https://arxiv.org/abs/2211.10295
"""

from __future__ import annotations

import math
from typing import Any

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
from sparsegen.metrics.resampling import between, shrunk, split_halves
from sparsegen.result import Result

__all__ = ["efp_features", "fpd", "frechet", "frechet_distance", "frechet_infinity"]

Array = NDArray[np.float64]

SHRINKAGE = 1.5
"""Standard deviations of noise taken off the moments' differences: squares need more than magnitudes, or their error
would follow their value."""
ROWS = 4096
"""Rows that are centred at a time."""
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
    overlap = np.linalg.svd(_factor(s1).T @ _factor(s2), compute_uv=False).sum()
    step = m1 - m2
    return float(step @ step + np.trace(s1) + np.trace(s2) - 2 * overlap)


def _factor(covariance: Array) -> Array:
    """``L`` with ``L L^T`` the covariance, whose rounding below zero is cut."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0))


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


def _error(x: Array, y: Array, resamples: int, rng: np.random.Generator) -> float:
    """Standard deviation of the Fréchet distance, from bootstraps around moments apart, drawn together and equal."""
    if min(len(x), len(y)) < 4:
        return math.nan
    ours, theirs = (_weighted(z, np.ones(len(z))) for z in (x, y))
    draws = [[_weighted(z, _draws(rng, len(z), len(z))) for z in (x, y)] for _ in range(resamples)]
    spreads = [np.std([mine[i] - other[i] for mine, other in draws], axis=0, ddof=1) for i in range(2)]

    def around(deviations: float | None) -> Array:
        # Where the generated moments would be without the part of their difference that noise explains, or without any.
        apart = [ours[i] - theirs[i] for i in range(2)]
        kept = [0.0 if deviations is None else shrunk(a, deviations * s) for a, s in zip(apart, spreads, strict=True)]
        moved = [k - a for k, a in zip(kept, apart, strict=True)]
        return np.array([frechet_distance(mine[0] + moved[0], mine[1] + moved[1], *other) for mine, other in draws])

    near, far = (float(np.std(around(deviations), ddof=1)) for deviations in (SHRINKAGE, 0.0))
    floor = float(np.mean(around(None)))
    return between(near, far, frechet_distance(*ours, *theirs) - floor)


def _floor(x: Array, y: Array, setting: Protocol, seed: int, statistic: Any) -> tuple[float, str]:
    """The distance between samples of one law, and how it was measured."""
    half = len(y) // 2
    if half < 2:
        return math.nan, f"not measured: {len(y)} reference events are too few to split"
    halves = split_halves(len(y), setting.pairs, np.random.default_rng([seed, 1]))
    # The mean of a squared distance between samples of one law falls as 1 / n.
    scale = (1 / len(x) + 1 / len(y)) / (2 / half)
    note = f"mean of {setting.pairs} splits of the reference into halves of {half}, scaled to the sizes compared"
    return float(np.mean([statistic(y[a], y[b]) for a, b in halves]) * scale), note


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
    x, y = _scaled(pair, "spread")
    error = _error(x, y, setting.resamples, np.random.default_rng([seed, 2]))
    floor, how = _floor(x, y, setting, seed, _distance)
    note: dict[str, Any] = {
        "name": "whole",
        "events": [len(x), len(y)],
        "features": list(pair[0].names) or x.shape[1],
        "scaling": "standard deviation over the reference",
        "reference_invalid": pair[1].invalid,
        "seed": seed,
        "error": f"{setting.resamples} bootstrap resamples around moments as they are and shrunk",
        "floor": how,
    }
    warn_small("frechet", min(len(x), len(y)), 10 * x.shape[1], note)
    return Result("frechet", _distance(x, y), error, len(x), note, floor, pair[0].invalid)


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
    the smaller sample and the error is that of sampling.

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

    def statistic(a: Array, b: Array) -> float:
        return frechet_infinity(a, b, smallest=smallest, largest=largest, batches=batches, seed=seed)[0]

    value, fit_error = frechet_infinity(x, y, smallest=smallest, largest=largest, batches=batches, seed=seed)
    error = fit_error if published else _error(x, y, setting.resamples, np.random.default_rng([seed, 2]))
    floor, how = _floor(x, y, Protocol(pairs=2) if published else setting, seed, statistic)
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
        "error": "of the fit"
        if published
        else f"{setting.resamples} bootstrap resamples around moments as they are and shrunk",
        "floor": how,
    }
    warn_small("fpd", min(len(x), len(y)), 50_000 if published else 1000, note)
    return Result("fpd", value, error, len(x), note, floor, pair[0].invalid)
