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
from sparsegen.metrics.features import Features, collect_pair
from sparsegen.metrics.frechet import efp_features
from sparsegen.metrics.inputs import EventsLike, warn_small
from sparsegen.metrics.metric import TooFewError, metric
from sparsegen.metrics.protocol import Protocol, resolve
from sparsegen.metrics.resampling import split_halves
from sparsegen.result import Result

__all__ = ["kpd", "polynomial_mmd", "published_kpd"]

Array = NDArray[np.float64]
PUBLISHED = {"jetnet0.2": 5_000, "calochallenge": 10_000}
"""The batch of the published protocols."""
BLOCKS = 20
"""Disjoint blocks whose mean and spread are value and error of whole samples."""
STUDENT = 2.093 / 1.960
"""What an error known from 20 blocks only must be larger by, for two of them to be a 95 % interval."""


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


def _blocks(x: Array, y: Array, blocks: int, size: int, rng: np.random.Generator) -> Array:
    """The MMD of disjoint blocks of either side."""
    a, b = rng.permutation(len(x)), rng.permutation(len(y))
    cut = [slice(i * size, (i + 1) * size) for i in range(blocks)]
    return np.array([polynomial_mmd(x[a[c]], y[b[c]]) for c in cut])


@metric("kpd", needs=("jets",))
def kpd(
    generated: EventsLike,
    reference: EventsLike,
    *,
    features: Features = efp_features,
    protocol: Protocol | str | None = None,
    seed: int = 42,
) -> Result:
    """Kernel physics distance: unbiased quartic-kernel MMD of energy-flow polynomials.

    Features are divided by their largest magnitude in the reference. Value and error are mean and standard error over
    20 disjoint blocks; under ``jetnet0.2`` (``calochallenge``) median and half the central range over 10 batches of
    5,000 (10,000), drawn with replacement.

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
    blocks = 10 if published else BLOCKS
    size = PUBLISHED[setting.name] if published else min(least // blocks, 5000)
    if size < 2:
        raise TooFewError(f"kpd: {len(x)} generated and {len(y)} reference jets do not fill {blocks} blocks of two")
    rng = np.random.default_rng([seed, 1])
    halves = [(y[a], y[b]) for a, b in split_halves(len(y), 1 if published else setting.pairs, rng)]
    if published:
        value, error = published_kpd(x, y, blocks, size, seed)
        floors = [published_kpd(a, b, blocks, size, seed)[0] for a, b in halves]
    else:
        values = _blocks(x, y, blocks, size, rng)
        value, error = float(values.mean()), float(values.std(ddof=1) / math.sqrt(blocks)) * STUDENT
        part = min(size, len(halves[0][0]) // blocks)
        floors = [_blocks(a, b, blocks, part, rng).mean() for a, b in halves] if part > 1 else [math.nan]
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
        "error": "half the central range over batches" if published else "standard error over disjoint blocks",
        "floor": f"{len(floors)} splits of the reference into halves; the estimator is unbiased, so that it is near 0",
    }
    warn_small("kpd", least, 50_000 if published else 1000, note)
    return Result("kpd", value, error, len(x), note, float(np.mean(floors)), pair[0].invalid)
