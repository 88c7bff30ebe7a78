"""Whether a generator copies its training set."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from sparsegen.errors import DataError
from sparsegen.metrics.features import collect, collect_pair
from sparsegen.metrics.inputs import EventsLike, check_comparable, warn_small
from sparsegen.metrics.metric import metric
from sparsegen.metrics.protocol import Protocol, resolve
from sparsegen.result import Result

__all__ = ["memorisation", "nearest_distance"]

Array = NDArray[np.float64]


def nearest_distance(x: Array, to: Array) -> Array:
    """Euclidean distance of every row of ``x`` ``(n, F)`` to the nearest row of ``to`` ``(m, F)``, ``(n,)``."""
    distance, _ = cKDTree(to).query(x, k=1)
    return np.asarray(distance, dtype=np.float64)


@metric("memorisation", needs=("train",), fast=True)
def memorisation(
    generated: EventsLike,
    reference: EventsLike,
    *,
    train: EventsLike,
    protocol: Protocol | str | None = None,
    seed: int = 0,
) -> Result:
    r"""Distance of generated events to the training set over that of held-out events to it.

    .. math:: \frac{\mathrm{mean}_g \min_t |f(g) - f(t)|}{\mathrm{mean}_r \min_t |f(r) - f(t)|}

    with :math:`f` the features of :func:`summary_features`, each divided by its standard deviation over the training
    set. Near 0 the training set is copied; 1 is what unseen data give; above 1 nothing is copied, though the events
    may be far from real ones. The floor is the same ratio for one half of the reference against the other half.

    Args:
        generated: Generated events.
        reference: Events that the generator has not seen.
        train: The events it was trained on.
        protocol: A :class:`Protocol` or its name; only its treatment of invalid events and its resamples matter.
        seed: Of the bootstrap over events.
    """
    setting = resolve(protocol)
    if len(train) == 0:
        raise DataError("memorisation: the training sample is empty")
    check_comparable(train[0:1], reference[0:1])
    sample, other = collect_pair(generated, reference, invalid=setting.invalid)
    ours, held = sample.values, other.values
    seen = collect(train, role="training", invalid=setting.invalid).values
    scale = seen.std(0)
    scale[scale == 0] = 1.0
    ours, held, seen = ours / scale, held / scale, seen / scale
    near, base = nearest_distance(ours, seen), nearest_distance(held, seen)
    if base.mean() == 0:
        raise DataError("memorisation: every reference event is in the training set; pass held-out events as reference")
    rng = np.random.default_rng(seed)
    pick = lambda x: x[rng.integers(len(x), size=len(x))].mean()
    ratios = [pick(near) / pick(base) for _ in range(setting.resamples)]
    order = rng.permutation(len(base))
    half = len(base) // 2
    floor = float(base[order[:half]].mean() / base[order[half : 2 * half]].mean()) if half else math.nan
    note: dict[str, Any] = {
        "name": "nearest-neighbour",
        "events": [len(ours), len(held), len(seen)],
        "features": list(sample.names),
        "reference_invalid": other.invalid,
        "seed": seed,
        "copies": float((near < 1e-6).mean()),
        "error": f"bootstrap over events, {setting.resamples} resamples",
        "floor": "one half of the reference against the other" if half else "not measured: too few reference events",
    }
    warn_small("memorisation", min(len(ours), len(held)), 30, note)
    return Result(
        "memorisation",
        float(near.mean() / base.mean()),
        float(np.std(ratios, ddof=1)),
        n=len(ours),
        protocol=note,
        floor=floor,
        invalid=sample.invalid,
        higher_is_better=True,
    )
