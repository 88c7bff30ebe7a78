r"""The kernel physics distance: an unbiased maximum mean discrepancy with a quartic kernel.

References:
    Evaluating generative models in high energy physics, Kansal et al., 2023, https://arxiv.org/abs/2211.10295
    A kernel two-sample test, Gretton et al., 2012, https://jmlr.org/papers/v13/gretton12a.html
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsegen.errors import DataError
from sparsegen.metrics.features import EventsOrFeatures, Features, collect_pair
from sparsegen.metrics.frechet import ERROR, efp_features
from sparsegen.metrics.gaussians import Linear
from sparsegen.metrics.inputs import warn_small
from sparsegen.metrics.metric import TooFewError, metric
from sparsegen.metrics.protocol import Protocol, resolve
from sparsegen.metrics.resampling import scale_variance, split_halves, squared_error
from sparsegen.result import Result

__all__ = ["kpd", "linear_mmd", "polynomial_mmd", "published_kpd"]

Array = NDArray[np.float64]
PUBLISHED = {"jetnet0.2": 5_000, "calochallenge": 10_000}
"""The batch of the published protocols."""
LARGEST = 5_000
"""Events a side whose pairs are all compared; larger samples are cut into disjoint blocks of it."""
ROWS = 512
"""Rows of the kernel matrix held at a time."""


def polynomial_mmd(x: ArrayLike, y: ArrayLike, degree: int = 4) -> float:
    r"""Unbiased squared MMD with the kernel :math:`(x \cdot y / F + 1)^{degree}`; negative values are noise.

    Args:
        x: ``(n, F)``.
        y: ``(m, F)``.
        degree: Moments up to this order are compared.

    Raises:
        DataError: A side has fewer than two rows, or the sides have different features.
    """
    a, b = (np.asarray(v, dtype=np.float64) for v in (x, y))
    n, m = len(a), len(b)
    if min(n, m) < 2 or a.shape[1] != b.shape[1]:
        raise DataError(f"polynomial_mmd: samples {a.shape} and {b.shape}; expected 2 or more rows of equal features")
    scale = 1.0 / a.shape[1]

    def kernel(u: Array, v: Array) -> Array:
        power = (u @ v.T) * scale + 1.0
        return power**degree

    def within(u: Array) -> float:
        own = ((u * u).sum(1) * scale + 1.0) ** degree
        return float((kernel(u, u).sum() - own.sum()) / (len(u) * (len(u) - 1)))

    return within(a) + within(b) - 2 * float(kernel(a, b).mean())


def published_kpd(x: Array, y: Array, batches: int, size: int, seed: int) -> tuple[float, float]:
    """Median and half the 16.275 to 83.725 percentile range over batches with replacement, reference first."""
    values = []
    for i in range(batches):
        rng = np.random.default_rng(seed + i * 1000)
        drawn = y[rng.choice(len(y), size=size)]
        values.append(polynomial_mmd(drawn, x[rng.choice(len(x), size=size)]))
    low, high = np.percentile(values, (16.275, 83.725))
    return float(np.median(values)), float(high - low) / 2


def linear_mmd(x: Array, y: Array, *, scale: bool = False) -> Linear:
    r"""Unbiased squared MMD with the quartic kernel, and its variance from each event's influence.

    The estimate is a U-statistic: an event x moves it by :math:`2 (\bar k(x, X) - \bar k(x, Y)) / n` less the mean of
    that (Hájek's projection), an event y likewise.

    Args:
        x: ``(n, F)``.
        y: ``(m, F)``.
        scale: Whether the derivative by the features' scales is wanted, at about the same cost again; zeros without.

    References:
        A class of statistics with asymptotically normal distribution, Hoeffding, 1948,
        https://doi.org/10.1214/aoms/1177730196
        Unbiased estimators for the variance of MMD estimators, Sutherland, Deka, 2019,
        https://arxiv.org/abs/1906.02104
    """
    by_scale = np.zeros(x.shape[1])
    within, across = [], []
    for a, b in ((x, y), (y, x)):
        n, m = len(a), len(b)
        own, other = np.empty(n), np.empty(n)
        for start in range(0, n, ROWS):
            rows = slice(start, start + ROWS)
            for sums, to in ((own, a), (other, b)):
                # Both sides meet both ways: as cheap as keeping sums of columns, and simpler.
                power = a[rows] @ to.T / x.shape[1] + 1.0
                cube = power * power * power
                if to is a:
                    cube[np.arange(len(cube)), start + np.arange(len(cube))] = 0.0
                sums[rows] = np.einsum("ij,ij->i", cube, power)
                if scale:
                    share = 1 / (n * (n - 1)) if to is a else -1 / (n * m)
                    by_scale -= share * 8 / x.shape[1] * (a[rows] * (cube @ to)).sum(0)
        within.append(own / (n - 1))
        across.append(other / m)
    value = within[0].mean() + within[1].mean() - 2 * across[0].mean()
    variance = sum(4 * (w - c).var(ddof=1) / len(w) for w, c in zip(within, across, strict=True))
    return Linear(float(value), float(variance), by_scale)


def _blocks(x: Array, y: Array, rng: np.random.Generator, *, scale: bool = False) -> Linear:
    """The mean over disjoint blocks of either side."""
    least = min(len(x), len(y))
    size = min(least, LARGEST)
    a, b = rng.permutation(len(x)), rng.permutation(len(y))
    cuts = [slice(i * size, (i + 1) * size) for i in range(least // size)]
    found = [linear_mmd(x[a[c]], y[b[c]], scale=scale) for c in cuts]
    value, variance = (float(np.mean([f[i] for f in found])) for i in range(2))
    return Linear(value, variance / len(found), np.mean([f.by_scale for f in found], axis=0))


@metric("kpd", needs=("jets",))
def kpd(
    generated: EventsOrFeatures,
    reference: EventsOrFeatures,
    *,
    features: Features = efp_features,
    protocol: Protocol | str | None = None,
    seed: int = 42,
) -> Result:
    """Kernel physics distance: unbiased quartic-kernel MMD of energy-flow polynomials.

    Features are divided by their largest magnitude in the reference. All pairs of the smaller sample's size enter, in
    disjoint blocks of at most 5,000 events a side; the error is that of the delta method. It takes the scale as given,
    which all samples share that are held against one reference; the protocol's ``scale_error`` is what another
    reference would add. Under ``jetnet0.2``
    (``calochallenge``) value and error are median and half the central range over 10 batches of 5,000 (10,000), drawn
    with replacement.

    Args:
        generated: Generated jets.
        reference: Real jets.
        features: Events -> ``(B, F)``; the 36 polynomials of at most four edges by default.
        protocol: A :class:`Protocol` or its name.
        seed: Of the batches.
    """
    setting = resolve(protocol)
    pair = collect_pair(generated, reference, features, invalid=setting.invalid)
    scale = np.abs(pair[1].values).max(0)
    scale[scale == 0] = 1.0
    x, y = (s.values / scale for s in pair)
    least = min(len(x), len(y))
    published = setting.name in PUBLISHED
    if least < 4:
        raise TooFewError(f"kpd: {len(x)} generated and {len(y)} reference events; use 4 or more, and 1,000 to be sure")
    rng = np.random.default_rng([seed, 1])
    halves = [(y[a], y[b]) for a, b in split_halves(len(y), 1 if published else setting.pairs, rng)]
    by_reference: dict[str, float] = {}
    if published:
        blocks, size = 10, PUBLISHED[setting.name]
        value, error = published_kpd(x, y, blocks, size, seed)
        floors = [published_kpd(a, b, blocks, size, seed)[0] for a, b in halves]
    else:
        found = _blocks(x, y, rng, scale=True)
        real = [_blocks(a, b, rng) for a, b in halves] if len(y) >= 8 else []
        floors = [r.value for r in real] or [math.nan]
        value, size = found.value, min(least, LARGEST)
        blocks = least // size
        # Between samples of one law the variance falls as one over the pairs that are compared.
        half = len(y) // 2
        pairs = min(half, LARGEST) ** 2 * (half // min(half, LARGEST)) / (size**2 * blocks)
        null = float(np.mean([r.variance for r in real])) * pairs if real else math.nan
        error = squared_error(found.variance, null)
        by_reference = {"scale_error": math.sqrt(scale_variance(pair[1].values, found.by_scale, rng))}
    note: dict[str, Any] = {
        "name": setting.name,
        "events": size,
        "available": [len(x), len(y)],
        "batches": blocks,
        "replacement": published,
        "features": "36 energy-flow polynomials" if features is efp_features else x.shape[1],
        "scaling": "largest magnitude in the reference",
        "reference_invalid": pair[1].invalid,
        "seed": seed,
        "error": "half the central range over batches" if published else ERROR,
        "floor": f"{len(floors)} splits of the reference into halves; the estimator is unbiased, so that it is near 0",
        **by_reference,
    }
    warn_small("kpd", least, 50_000 if published else 1000, note)
    return Result("kpd", value, error, len(x), note, float(np.mean(floors)), pair[0].invalid)
