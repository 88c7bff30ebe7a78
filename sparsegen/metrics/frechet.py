r"""Fréchet distances between feature distributions: plain, and extrapolated to an infinite sample.

.. math:: d^2 = |\mu_1 - \mu_2|^2 + \mathrm{Tr}\left(\Sigma_1 + \Sigma_2 - 2 (\Sigma_1 \Sigma_2)^{1/2}\right)

References:
    GANs trained by a two time-scale update rule converge to a local Nash equilibrium, Heusel et al., 2017,
    https://arxiv.org/abs/1706.08500
    Evaluating generative models in high energy physics, Kansal et al., 2023, https://arxiv.org/abs/2211.10295
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsegen.events import Events
from sparsegen.metrics.efp import efps
from sparsegen.metrics.extrapolation import Draws, batch_moments, frechet_infinity
from sparsegen.metrics.features import (
    EventsOrFeatures,
    Features,
    FeatureSample,
    Spilled,
    check_pair,
    collect_pair,
)
from sparsegen.metrics.gaussians import MeanAndCovariance, linear_frechet
from sparsegen.metrics.inputs import warn_small
from sparsegen.metrics.metric import TooFewError, metric
from sparsegen.metrics.observables import summary_features
from sparsegen.metrics.protocol import Protocol, resolve
from sparsegen.metrics.resampling import scale_variance, split_halves, squared_error
from sparsegen.result import Result

__all__ = ["ERROR", "efp_features", "fpd", "frechet"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]

ERROR = "delta method, and a part of its mean between real samples"
PUBLISHED = {"jetnet0.2": 20_000, "calochallenge": 10_000}
"""The smallest batch of the published protocols."""


def efp_features(events: Events) -> Array:
    """The 36 energy-flow polynomials of at most four edges ``(B, 36)``."""
    return efps(events).numpy()


def _scaled(pair: tuple[FeatureSample, FeatureSample], by: str) -> tuple[Array, Array]:
    """Features over the largest magnitude, or the standard deviation, of the reference."""
    generated, reference = (s.values for s in pair)
    scale = np.abs(reference).max(0) if by == "maximum" else reference.std(0)
    scale = np.where(scale == 0, 1.0, scale)
    return generated / scale, reference / scale


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
