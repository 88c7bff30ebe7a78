r"""Point-set metrics: minimum matching distance, coverage, nearest-neighbour accuracy, Jensen-Shannon divergence.

With :math:`D_{sr}` the Chamfer distance or the exact earth mover's distance of generated set s and real set r:

.. math::
    \mathrm{MMD} = \mathrm{mean}_r \min_s D_{sr} \qquad
    \mathrm{COV} = |\{\arg\min_r D_{sr} : s\}| / |R|

and 1-NNA is the leave-one-out accuracy of a nearest-neighbour classifier on the union of both samples: 0.5 is ideal,
above it the samples are apart, below it one copies the other. Sets are taken as they are: normalise both samples alike
before, under one scale; values under different normalisations do not compare.

References:
    Learning representations and generative models for 3D point clouds, Achlioptas et al., 2018,
    https://arxiv.org/abs/1707.02392
    PointFlow: 3D point cloud generation with continuous normalizing flows, Yang et al., 2019,
    https://arxiv.org/abs/1906.12320
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from sparsegen import kernels
from sparsegen.errors import ConfigError, DataError, unknown_name
from sparsegen.events import Events
from sparsegen.metrics.inputs import EventsLike, check_comparable, valid_sample, warn_small
from sparsegen.metrics.metric import TooFewError, metric
from sparsegen.metrics.protocol import Protocol, resolve
from sparsegen.metrics.recent import Recent, digest
from sparsegen.metrics.resampling import cut, floor_at, subsampled_error
from sparsegen.result import Result

__all__ = [
    "cov_cd",
    "cov_emd",
    "coverage_of_matches",
    "minimum_matching_distance",
    "mmd_cd",
    "mmd_emd",
    "nearest_neighbour_accuracy",
    "nna_cd",
    "nna_emd",
    "pairwise_distances",
]

Array = NDArray[np.float64]
Index = NDArray[np.int64]
LARGEST = {"cd": 1000, "emd": 200}
"""Sets a side, at most: all pairs of them are compared."""


def minimum_matching_distance(distance: ArrayLike) -> float:
    """Mean over real sets of the distance to the nearest generated one; ``distance`` is ``(generated, real)``."""
    return float(np.asarray(distance, dtype=np.float64).min(0).mean())


def coverage_of_matches(distance: ArrayLike) -> float:
    """Share of real sets that are the nearest of some generated set; ``distance`` is ``(generated, real)``."""
    d = np.asarray(distance, dtype=np.float64)
    return len(np.unique(d.argmin(1))) / d.shape[1]


def nearest_neighbour_accuracy(generated: ArrayLike, between: ArrayLike, real: ArrayLike) -> tuple[float, float, float]:
    """Leave-one-out accuracy on the union, and on the generated and the real sets alone.

    Args:
        generated: Distances of generated to generated sets ``(S, S)``.
        between: Of generated to real ``(S, R)``.
        real: Of real to real ``(R, R)``.

    Example:
        >>> import numpy as np
        >>> twins = np.array([[0.0, 5.0], [5.0, 0.0]])
        >>> nearest_neighbour_accuracy(twins, twins, twins)
        (0.0, 0.0, 0.0)
    """
    ss, sr, rr = (np.asarray(d, dtype=np.float64) for d in (generated, between, real))
    if sr.shape != (len(ss), len(rr)):
        raise DataError(
            f"1-NNA: distances of shape {ss.shape}, {sr.shape} and {rr.shape}; expected (S, S), (S, R), (R, R)"
        )
    whole = np.block([[ss, sr], [sr.T, rr]])
    np.fill_diagonal(whole, math.inf)
    is_real = np.arange(len(whole)) >= len(ss)
    right = is_real[whole.argmin(1)] == is_real
    return float(right.mean()), float(right[: len(ss)].mean()), float(right[len(ss) :].mean())


def pairwise_distances(a: Events, b: Events | None, kind: str) -> Array:
    """Distance of every set of ``a`` to every set of ``b``, or to every other of ``a``, ``(A, B)`` float64.

    Args:
        a: Point sets, or cells, which stand for their centres.
        b: The same, or None for ``a`` with itself.
        kind: ``cd``: squared Chamfer distance, both directions added. ``emd``: exact earth mover's distance with unit
            mass a set.

    Raises:
        ConfigError: Another kind.
    """
    if kind == "cd":
        # Distances come from differences, so that clouds far from the origin lose nothing.
        other = (None, None) if b is None else (b.positions, b.offsets)
        forward, backward = kernels.pairwise_chamfer(a.positions, a.offsets, *other, period=_period(a))
        return (forward + backward).numpy()
    if kind != "emd":
        raise ConfigError(unknown_name("distance of point sets", kind, ("cd", "emd")))
    other = (None, None) if b is None else (b.positions, b.offsets)
    return kernels.pairwise_emd(a.positions, a.offsets, *other, period=_period(a)).numpy()


def _period(events: Events) -> tuple[float, ...] | None:
    """Periods of the axes, or None where none wraps."""
    if events.grid is None or not any(events.grid.periodic):
        return None
    return events.grid.period


@dataclass(frozen=True)
class _Distances:
    """All distances that a point-set metric of one pair of samples needs.

    Args:
        between: Of the generated sets to the first real ones ``(S, S)``.
        generated: ``(S, S)``.
        real: Of all real sets that are at hand, for the floor.
    """

    between: Array
    generated: Array
    real: Array


_recent = Recent[_Distances]()


def _distances(generated: Events, real: Events, kind: str) -> _Distances:
    """The matrices, shared by the metrics of one report."""
    return _recent.get(
        (kind, digest(generated), digest(real)),
        lambda: _Distances(
            pairwise_distances(generated, real[: len(generated)], kind),
            pairwise_distances(generated, None, kind),
            pairwise_distances(real, None, kind),
        ),
    )


Statistic = Callable[[Array, Array, Array], float]


def _evaluate(
    name: str,
    statistic: Statistic,
    generated: EventsLike,
    reference: EventsLike,
    kind: str,
    protocol: Protocol | str | None,
    seed: int,
    higher_is_better: bool = False,
) -> Result:
    setting = resolve(protocol)
    if len(generated) == 0 or len(reference) == 0:
        raise DataError(f"{name}: {len(generated)} generated and {len(reference)} reference sets; both must be above 0")
    check_comparable(generated[0:1], reference[0:1])
    (ours, invalid), (theirs, reference_invalid) = (
        valid_sample(events, role=role, invalid=setting.invalid)
        for events, role in ((generated, "generated"), (reference, "reference"))
    )
    # All these numbers depend on the sizes: as many generated sets as real ones, and a floor of that size.
    size = min(len(ours), len(theirs), setting.events or LARGEST[kind])
    if size < 2:
        raise TooFewError(f"{name}: {len(ours)} generated and {len(theirs)} reference sets; use 2 or more")
    available = [len(ours), len(theirs)]
    ours = ours[torch.from_numpy(cut(len(ours), size, seed))]
    theirs = theirs[torch.from_numpy(cut(len(theirs), 2 * size, seed))]
    d = _distances(ours, theirs, kind)
    real = d.real[:size, :size]

    def of_part(i: Index, j: Index) -> float:
        return statistic(d.between[np.ix_(i, j)], d.generated[np.ix_(i, i)], real[np.ix_(j, j)])

    def of_real(i: Index, j: Index) -> float:
        return statistic(d.real[np.ix_(i, j)], d.real[np.ix_(i, i)], d.real[np.ix_(j, j)])

    rng = np.random.default_rng([seed, 0])
    floor, how = floor_at(size, len(theirs), of_real, setting.pairs, rng)
    # A mean over all sets needs larger parts than a share of them.
    part = 3 if name.startswith("mmd") else 5
    note: dict[str, Any] = {
        "name": setting.name,
        "events": [size, size],
        "available": available,
        "distance": "Chamfer, squared, both directions added" if kind == "cd" else "earth mover's, exact, unit mass",
        "normalisation": "as given",
        "points": [int(theirs.counts.min()), int(theirs.counts.max())],
        "reference_invalid": reference_invalid,
        "seed": seed,
        "error": f"{setting.resamples} subsamples of one in {part} sets",
        "floor": how,
    }
    if name.startswith("nna"):
        note["one_sided"] = nearest_neighbour_accuracy(d.generated, d.between, real)[1:]
    warn_small(name, size, 50, note)
    return Result(
        name,
        statistic(d.between, d.generated, real),
        subsampled_error(of_part, (size, size), setting.resamples, rng, part) if size >= 20 else math.nan,
        size,
        note,
        floor,
        invalid,
        higher_is_better,
    )


def _mmd(between: Array, generated: Array, real: Array) -> float:
    return minimum_matching_distance(between)


def _cov(between: Array, generated: Array, real: Array) -> float:
    return coverage_of_matches(between)


def _nna(between: Array, generated: Array, real: Array) -> float:
    return nearest_neighbour_accuracy(generated, between, real)[0]


@metric("mmd_cd")
def mmd_cd(
    generated: EventsLike, reference: EventsLike, *, protocol: Protocol | str | None = None, seed: int = 0
) -> Result:
    """Minimum matching distance under the Chamfer distance."""
    return _evaluate("mmd_cd", _mmd, generated, reference, "cd", protocol, seed)


@metric("mmd_emd")
def mmd_emd(
    generated: EventsLike, reference: EventsLike, *, protocol: Protocol | str | None = None, seed: int = 0
) -> Result:
    """Minimum matching distance under the exact earth mover's distance."""
    return _evaluate("mmd_emd", _mmd, generated, reference, "emd", protocol, seed)


@metric("cov_cd")
def cov_cd(
    generated: EventsLike, reference: EventsLike, *, protocol: Protocol | str | None = None, seed: int = 0
) -> Result:
    """Share of real sets matched by a generated one under the Chamfer distance."""
    return _evaluate("cov_cd", _cov, generated, reference, "cd", protocol, seed, higher_is_better=True)


@metric("cov_emd")
def cov_emd(
    generated: EventsLike, reference: EventsLike, *, protocol: Protocol | str | None = None, seed: int = 0
) -> Result:
    """Share of real sets matched by a generated one under the exact earth mover's distance."""
    return _evaluate("cov_emd", _cov, generated, reference, "emd", protocol, seed, higher_is_better=True)


@metric("nna_cd")
def nna_cd(
    generated: EventsLike, reference: EventsLike, *, protocol: Protocol | str | None = None, seed: int = 0
) -> Result:
    """Accuracy of a nearest-neighbour classifier under the Chamfer distance; 0.5 is ideal."""
    return _evaluate("nna_cd", _nna, generated, reference, "cd", protocol, seed)


@metric("nna_emd")
def nna_emd(
    generated: EventsLike, reference: EventsLike, *, protocol: Protocol | str | None = None, seed: int = 0
) -> Result:
    """Accuracy of a nearest-neighbour classifier under the exact earth mover's distance; 0.5 is ideal."""
    return _evaluate("nna_emd", _nna, generated, reference, "emd", protocol, seed)
