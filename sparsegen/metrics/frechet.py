r"""Fréchet distances between feature distributions: plain, and extrapolated to an infinite sample.

.. math:: d^2 = |\mu_1 - \mu_2|^2 + \mathrm{Tr}\left(\Sigma_1 + \Sigma_2 - 2 (\Sigma_1 \Sigma_2)^{1/2}\right)

References:
    GANs trained by a two time-scale update rule converge to a local Nash equilibrium, Heusel et al., 2017,
    https://arxiv.org/abs/1706.08500
    Evaluating generative models in high energy physics, Kansal et al., 2023, https://arxiv.org/abs/2211.10295
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls

from sparsegen.errors import DataError
from sparsegen.events import Events
from sparsegen.metrics.efp import efps
from sparsegen.metrics.features import (
    BLOCK,
    EventsOrFeatures,
    Features,
    FeatureSample,
    Moments,
    Spilled,
    check_pair,
    collect_pair,
)
from sparsegen.metrics.inputs import warn_small
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
Index = NDArray[np.int64]
MeanAndCovariance = tuple[Array, Array]

ROWS = 2048
"""Rows whose products are formed at a time."""
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


def _moments(x: Array) -> MeanAndCovariance:
    found = Moments().update(x)
    return found.mean, found.covariance


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
    draws = Draws(len(generated), len(reference), smallest, largest, points, batches, seed)
    return draws.extrapolate(
        batch_moments(blocks_of(generated), draws.generated), batch_moments(blocks_of(reference), draws.reference)
    )


@dataclass(frozen=True)
class Draws:
    """The batches behind an extrapolated distance, drawn anew each time that they are asked for: none is kept.

    Args:
        n: Generated rows to draw from.
        m: Reference rows.
        smallest: Smallest batch.
        largest: Largest batch.
        points: Batch sizes.
        batches: Batches of each size.
        seed: Of the draws.
    """

    n: int
    m: int
    smallest: int
    largest: int
    points: int
    batches: int
    seed: int

    @property
    def sizes(self) -> NDArray[np.int32]:
        """The batch sizes."""
        return (1 / np.linspace(1.0 / self.smallest, 1.0 / self.largest, self.points)).astype(np.int32)

    def _pairs(self) -> Iterator[tuple[Index, Index]]:
        rng = np.random.default_rng(self.seed)
        for size in np.repeat(self.sizes, self.batches):
            theirs = rng.choice(self.m, size=size)
            yield rng.choice(self.n, size=size), theirs

    def generated(self) -> Iterator[Index]:
        """Generated rows of each batch."""
        return (ours for ours, _ in self._pairs())

    def reference(self) -> Iterator[Index]:
        """Reference rows of each batch."""
        return (theirs for _, theirs in self._pairs())

    def extrapolate(
        self, generated: list[MeanAndCovariance], reference: list[MeanAndCovariance]
    ) -> tuple[float, float]:
        """The distance of infinite batches and its error, from the moments of each batch."""
        values = [frechet_distance(*ours, *theirs) for ours, theirs in zip(generated, reference, strict=True)]
        return _intercept(1.0 / self.sizes, np.mean(np.reshape(values, (self.points, self.batches)), axis=1))


def blocks_of(rows: Array) -> Iterator[Array]:
    """Rows in blocks."""
    return (rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK))


def batch_moments(blocks: Iterable[Array], drawn: Callable[[], Iterator[Index]]) -> list[MeanAndCovariance]:
    """Mean and unbiased covariance of each of many batches of rows, in one pass over the rows.

    Args:
        blocks: All rows, ``(rows, F)`` at a time.
        drawn: Gives the row numbers of batch after batch, the same each time.
    """
    start, sums, centre = 0, np.zeros(()), np.zeros(())
    for block in blocks:
        if start == 0:
            # Sums of squares about a place near the mean lose nothing.
            centre = block.mean(0)
            first, second = np.triu_indices(len(centre))
        counts = np.stack([_counted(rows, start, len(block)) for rows in drawn()])
        for part in range(0, len(block), ROWS):
            rows = slice(part, part + ROWS)
            shifted = block[rows] - centre
            terms = np.concatenate([np.ones((len(shifted), 1)), shifted, shifted[:, first] * shifted[:, second]], 1)
            sums = sums + counts[:, rows].astype(np.float64) @ terms
        start += len(block)
    found = []
    width = len(centre)
    for row in sums:
        n, step = row[0], row[1 : width + 1] / row[0]
        covariance = np.empty((width, width))
        covariance[first, second] = covariance[second, first] = row[width + 1 :]
        found.append((centre + step, (covariance - n * np.outer(step, step)) / (n - 1)))
    return found


def _counted(rows: Index, start: int, length: int) -> NDArray[np.int32]:
    """How often each row of a block is drawn."""
    here = rows - start
    return np.bincount(here[(here >= 0) & (here < length)], minlength=length).astype(np.int32)


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


def _variance(centred: Array, linear: Array, square: Array, n: int) -> float:
    """Variance of the mean over rows of a quadratic form of theirs."""
    return float((centred @ linear + ((centred @ square) * centred).sum(1)).var(ddof=1)) / n


def _between_reals(
    sizes: tuple[int, int], setting: Protocol, seed: int, statistic: Callable[[Index, Index], tuple[float, float]]
) -> tuple[float, float, str]:
    """Distance and its variance, as the delta method has it, for samples of one law; and how they were measured."""
    n, m = sizes
    half = m // 2
    if half < 2:
        return math.nan, math.nan, f"not measured: {m} reference events are too few to split"
    halves = split_halves(m, setting.pairs, np.random.default_rng([seed, 1]))
    # The mean of a squared distance between samples of one law falls as 1 / n.
    scale = (1 / n + 1 / m) / (2 / half)
    note = f"mean of {setting.pairs} splits of the reference into halves of {half}, scaled to the sizes compared"
    floor, variance = np.mean([statistic(a, b) for a, b in halves], axis=0)
    return float(floor * scale), float(variance * scale**2), note


@metric("frechet", fast=True)
def frechet(
    generated: EventsOrFeatures,
    reference: EventsOrFeatures,
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
        protocol: A :class:`Protocol` or its name; its pairs and treatment of invalid events matter.
        seed: Of splits.
    """
    setting = resolve(protocol)
    pair = collect_pair(generated, reference, features, invalid=setting.invalid)
    if min(map(len, pair)) < 2:
        raise TooFewError(f"frechet: {len(pair[0])} generated and {len(pair[1])} reference events; use 2 or more")
    x, y = _scaled(pair, "spread")
    found = linear_frechet(x, y, own_scale=True)
    floor, null, how = _between_reals(
        (len(x), len(y)), setting, seed, lambda a, b: linear_frechet(y[a], y[b], own_scale=True)[:2]
    )
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
    generated: EventsOrFeatures,
    reference: EventsOrFeatures,
    *,
    features: Features = efp_features,
    protocol: Protocol | str | None = None,
    seed: int = 42,
) -> Result:
    """Fréchet physics distance: of energy-flow polynomials, extrapolated to infinite samples.

    Features are divided by their largest magnitude in the reference. Under the protocol ``jetnet0.2`` batches have
    20,000 to 50,000 events, drawn with replacement, and the error is that of the fit. Features then pass through a
    temporary file: memory does not grow with the sample, but for 16 bytes a reference jet, the splits of the floor.

    Otherwise the largest batch is the smaller sample and the error is that of sampling. It takes the scale as given,
    which all samples share that are held against one reference; the protocol's ``scale_error`` is what another
    reference would add.

    Args:
        generated: Generated jets.
        reference: Real jets.
        features: Events -> ``(B, F)``; the 36 polynomials of at most four edges by default.
        protocol: A :class:`Protocol` or its name.
        seed: Of the batches.
    """
    setting = resolve(protocol)
    if setting.name in PUBLISHED:
        return _published(generated, reference, features, setting, seed)
    pair = collect_pair(generated, reference, features, invalid=setting.invalid)
    x, y = _scaled(pair, "maximum")
    largest = min(len(x), len(y), 50_000)
    smallest = largest * 2 // 5
    if smallest < 2:
        raise TooFewError(f"fpd: {len(x)} generated and {len(y)} reference jets are too few; use 10,000 or more")

    def of_real(a: Index, b: Index) -> tuple[float, float]:
        value, _ = frechet_infinity(y[a], y[b], smallest=smallest, largest=largest, batches=5, seed=seed)
        return value, linear_frechet(y[a], y[b]).variance

    value, _ = frechet_infinity(x, y, smallest=smallest, largest=largest, batches=5, seed=seed)
    floor, null, how = _between_reals((len(x), len(y)), setting, seed, of_real)
    found = linear_frechet(x, y)
    note = _note(setting, features, pair, smallest, largest, 5, seed) | {
        "error": ERROR,
        "scale_error": math.sqrt(scale_variance(y, found.by_scale, np.random.default_rng([seed, 2]))),
        "floor": how,
    }
    warn_small("fpd", min(len(x), len(y)), 1000, note)
    return Result("fpd", value, squared_error(found.variance, null), len(x), note, floor, pair[0].invalid)


def _published(
    generated: EventsOrFeatures, reference: EventsOrFeatures, features: Features, setting: Protocol, seed: int
) -> Result:
    """Under a published protocol only moments of batches are wanted: features stream from a temporary file."""
    check_pair(generated, reference)
    smallest, largest, batches, pairs = PUBLISHED[setting.name], 50_000, 20, 2
    with (
        Spilled(generated, features, role="generated", invalid=setting.invalid) as ours,
        Spilled(reference, features, role="reference", invalid=setting.invalid) as theirs,
    ):
        scale = np.where(theirs.largest == 0, 1.0, theirs.largest)

        def of(sample: Spilled, drawn: Callable[[], Iterator[Index]]) -> list[MeanAndCovariance]:
            found = batch_moments(sample.blocks(), drawn)
            return [(mean / scale, covariance / np.outer(scale, scale)) for mean, covariance in found]

        draws = Draws(len(ours), len(theirs), smallest, largest, 10, batches, seed)
        value, error = draws.extrapolate(of(ours, draws.generated), of(theirs, draws.reference))

        def of_real(a: Index, b: Index) -> tuple[float, float]:
            real = Draws(len(a), len(b), smallest, largest, 10, batches, seed)
            one, two = lambda: map(a.__getitem__, real.generated()), lambda: map(b.__getitem__, real.reference())
            return real.extrapolate(of(theirs, one), of(theirs, two))[0], 0.0

        floor, _, how = _between_reals((len(ours), len(theirs)), replace(setting, pairs=pairs), seed, of_real)
        note = _note(setting, features, (ours, theirs), smallest, largest, batches, seed)
    note |= {"error": "of the fit", "floor": how}
    warn_small("fpd", min(len(ours), len(theirs)), 50_000, note)
    return Result("fpd", value, error, len(ours), note, floor, ours.invalid)


def _note(
    setting: Protocol,
    features: Features,
    pair: tuple[FeatureSample, FeatureSample] | tuple[Spilled, Spilled],
    smallest: int,
    largest: int,
    batches: int,
    seed: int,
) -> dict[str, Any]:
    """What the protocol of an extrapolated distance says."""
    ours, theirs = pair
    return {
        "name": setting.name,
        "events": [smallest, largest],
        "available": [len(ours), len(theirs)],
        "batches": batches,
        "replacement": True,
        "features": "36 energy-flow polynomials" if features is efp_features else ours.width,
        "scaling": "largest magnitude in the reference",
        "reference_invalid": theirs.invalid,
        "seed": seed,
    }
