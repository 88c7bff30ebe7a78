r"""Precision, recall, density and coverage: fidelity and diversity apart, from nearest neighbours.

With :math:`r_i` the distance of real event :math:`i` to its k-th real neighbour, and :math:`g_j` of generated ones
alike:

.. math::
    \mathrm{precision} = \mathrm{mean}_j\, 1[\exists i: d_{ij} \le r_i] \qquad
    \mathrm{recall} = \mathrm{mean}_i\, 1[\exists j: d_{ij} \le g_j]

    \mathrm{density} = \tfrac{1}{k}\, \mathrm{mean}_j \sum_i 1[d_{ij} \le r_i] \qquad
    \mathrm{coverage} = \mathrm{mean}_i\, 1[\min_j d_{ij} \le r_i]

References:
    Improved precision and recall metric for assessing generative models, Kynkäänniemi et al., 2019,
    https://arxiv.org/abs/1904.06991
    Reliable fidelity and diversity metrics for generative models, Naeem et al., 2020, https://arxiv.org/abs/2002.09797
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist

from sparsegen.errors import ConfigError
from sparsegen.metrics.features import EventsOrFeatures, Features, collect_pair
from sparsegen.metrics.inputs import warn_small
from sparsegen.metrics.metric import TooFewError, metric
from sparsegen.metrics.observables import summary_features
from sparsegen.metrics.protocol import Protocol, resolve
from sparsegen.metrics.resampling import cut, floor_at, subsampled_error
from sparsegen.result import Result

__all__ = ["coverage", "density", "prdc", "precision", "recall"]

Array = NDArray[np.float64]
LARGEST = 4000
"""Events a side, at most: all pairs of them are compared."""


def _radius(within: Array, k: int) -> Array:
    """Distance of each row to its k-th neighbour, itself not counted."""
    return np.partition(within, k, axis=1)[:, k]


def _prdc(between: Array, real: Array, fake: Array, k: int) -> dict[str, float]:
    """The four numbers from distances real-generated ``(m, n)``, real-real and generated-generated."""
    inside_real = between <= _radius(real, k)[:, None]
    inside_fake = between <= _radius(fake, k)[None, :]
    return {
        "precision": float(inside_real.any(0).mean()),
        "recall": float(inside_fake.any(1).mean()),
        "density": float(inside_real.sum(0).mean() / k),
        "coverage": float(inside_real.any(1).mean()),
    }


def prdc(generated: ArrayLike, reference: ArrayLike, k: int = 5) -> dict[str, float]:
    """Precision, recall, density and coverage of feature vectors.

    Args:
        generated: ``(n, F)``.
        reference: ``(m, F)``.
        k: Which neighbour sets the radius.

    Raises:
        ConfigError: ``k`` is not below the number of events on either side.
    """
    x, y = (np.asarray(v, dtype=np.float64) for v in (generated, reference))
    if not 1 <= k < min(len(x), len(y)):
        raise ConfigError(f"prdc: k={k} for {len(x)} generated and {len(y)} reference events; expected 1 <= k < both")
    return _prdc(cdist(y, x), cdist(y, y), cdist(x, x), k)


def _evaluate(
    name: str,
    generated: EventsOrFeatures,
    reference: EventsOrFeatures,
    features: Features,
    k: int,
    protocol: Protocol | str | None,
    seed: int,
) -> Result:
    setting = resolve(protocol)
    pair = collect_pair(generated, reference, features, invalid=setting.invalid)
    scale = pair[1].values.std(0)
    scale[scale == 0] = 1.0
    x, y = (s.values / scale for s in pair)
    # The numbers depend on the sizes: as many generated events as real ones, and a floor of that size.
    available = [len(x), len(y)]
    size = min(*available, setting.events or LARGEST)
    if size <= k:
        raise TooFewError(f"{name}: {len(x)} generated and {len(y)} reference events; the {k}-th neighbour needs more")
    x, y = x[cut(len(x), size, seed)], y[cut(len(y), 2 * size, seed)]
    whole, fake = cdist(y, y), cdist(x, x)
    between, real = cdist(y[:size], x), whole[:size, :size]

    def statistic(i: NDArray[np.int64], j: NDArray[np.int64]) -> float:
        return _prdc(between[np.ix_(j, i)], real[np.ix_(j, j)], fake[np.ix_(i, i)], k)[name]

    def of_real(i: NDArray[np.int64], j: NDArray[np.int64]) -> float:
        return _prdc(whole[np.ix_(j, i)], whole[np.ix_(j, j)], whole[np.ix_(i, i)], k)[name]

    rng = np.random.default_rng([seed, 0])
    error = subsampled_error(statistic, (size, size), setting.resamples, rng) if size >= 10 * k else math.nan
    floor, how = floor_at(size, len(y), of_real, setting.pairs, rng) if len(y) > 4 * k + 4 else (math.nan, "too few")
    note: dict[str, Any] = {
        "name": setting.name,
        "events": [size, size],
        "available": available,
        "neighbour": k,
        "features": list(pair[0].names) or x.shape[1],
        "scaling": "standard deviation over the reference",
        "reference_invalid": pair[1].invalid,
        "seed": seed,
        "error": f"{setting.resamples} subsamples of a fifth of the events",
        "floor": how,
    }
    warn_small(name, size, 200, note)
    value = _prdc(between, real, fake, k)[name]
    return Result(name, value, error, size, note, floor, pair[0].invalid, higher_is_better=True)


@metric("precision")
def precision(
    generated: EventsOrFeatures,
    reference: EventsOrFeatures,
    *,
    features: Features = summary_features,
    k: int = 5,
    protocol: Protocol | str | None = None,
    seed: int = 0,
) -> Result:
    """Share of generated events that lie among real ones."""
    return _evaluate("precision", generated, reference, features, k, protocol, seed)


@metric("recall")
def recall(
    generated: EventsOrFeatures,
    reference: EventsOrFeatures,
    *,
    features: Features = summary_features,
    k: int = 5,
    protocol: Protocol | str | None = None,
    seed: int = 0,
) -> Result:
    """Share of real events that lie among generated ones."""
    return _evaluate("recall", generated, reference, features, k, protocol, seed)


@metric("density")
def density(
    generated: EventsOrFeatures,
    reference: EventsOrFeatures,
    *,
    features: Features = summary_features,
    k: int = 5,
    protocol: Protocol | str | None = None,
    seed: int = 0,
) -> Result:
    """Real neighbourhoods that hold a generated event, relative to what real events find; robust to outliers."""
    return _evaluate("density", generated, reference, features, k, protocol, seed)


@metric("coverage", fast=True)
def coverage(
    generated: EventsOrFeatures,
    reference: EventsOrFeatures,
    *,
    features: Features = summary_features,
    k: int = 5,
    protocol: Protocol | str | None = None,
    seed: int = 0,
) -> Result:
    """Share of real events with a generated one in their neighbourhood; robust to outliers."""
    return _evaluate("coverage", generated, reference, features, k, protocol, seed)
