r"""Calorimeter showers: layer energies, centres, widths, sparsity, and what compares them.

The first axis that is named as a layer (or the first axis) counts layers; centres and widths are taken along the
others, weighted by energy. On an axis that wraps they are those of the angle's mean direction.

References:
    CaloChallenge 2022: a community challenge for fast calorimeter simulation, Krause et al., 2024,
    https://arxiv.org/abs/2410.21611
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from sparsegen.errors import ConfigError, DataError, unknown_name
from sparsegen.events import Events
from sparsegen.grid import Grid
from sparsegen.metrics.classifier import classifier_auc
from sparsegen.metrics.features import FeatureSample, collect_pair
from sparsegen.metrics.frechet import fpd
from sparsegen.metrics.inputs import EventsLike, additive_column, warn_small
from sparsegen.metrics.kernel_mmd import kpd
from sparsegen.metrics.metric import TooFewError, metric
from sparsegen.metrics.protocol import Protocol, resolve
from sparsegen.metrics.resampling import counted, floor_at, magnitude_error, quadratic_error, split_halves
from sparsegen.result import Result

__all__ = [
    "classifier_auc_showers",
    "energy_resolution",
    "energy_response",
    "fpd_showers",
    "histogram_separation",
    "incident_energy",
    "kpd_showers",
    "layer_axis",
    "on_lattice",
    "separation_power",
    "shower_features",
]

Array = NDArray[np.float64]
LAYER_NAMES = ("layer", "z", "depth")
ENERGY_NAMES = ("energy", "e", "E")
INCIDENT_NAMES = ("incident_energy", "energy", "e_inc", "Einc")


def layer_axis(events: Events) -> int | None:
    """Which axis of a lattice counts layers; None where there is no lattice, no axis of that name or no energy."""
    if events.grid is None or not any(column.name in ENERGY_NAMES for column in events.columns):
        return None
    for name in LAYER_NAMES:
        if name in events.axes:
            return events.axes.index(name)
    return None


def on_lattice(events: Events) -> tuple[Events, Grid, int]:
    """Showers as cells of their lattice, the lattice, and the axis that counts layers.

    Raises:
        DataError: There is no lattice with a layer axis, or hits lie outside it.
    """
    axis = layer_axis(events)
    if axis is None or events.grid is None:
        raise DataError(
            f"shower features need a lattice with an axis named {' or '.join(LAYER_NAMES)}; "
            f"these events have the axes {events.axes}{'' if events.grid else ' and no lattice'}"
        )
    if events.is_cells:
        return events, events.grid, axis
    cells, dropped = events.voxelize(events.grid, outside="drop")
    if int(dropped.sum()) > 0:
        raise DataError(f"{int(dropped.sum())} hits lie outside the lattice; drop or clip them first and count them")
    return cells, events.grid, axis


def shower_features(events: Events, *, threshold: float = 0.0) -> tuple[Array, tuple[str, ...]]:
    """High-level features of showers: per layer the energy, the sparsity, and centre and width along each other axis.

    Args:
        events: Cells of a lattice with a layer axis, or points that lie on it.
        threshold: Cells above it are active, in the energy's unit.

    Returns:
        ``(B, F)`` float64 and their names; the last one is the total energy. Sparsity is the share of the layer's cells
        that are not active; centre and width of a layer without energy are zero.

    Raises:
        DataError: There is no lattice with a layer axis, or hits lie outside it.
    """
    cells, grid, axis = on_lattice(events)
    layers = grid.shape[axis]
    energy = cells.column(additive_column(cells, ENERGY_NAMES)).double()
    slot = cells.batch * layers + cells.coords[:, axis]

    def per_layer(values: Tensor) -> Tensor:
        flat = torch.zeros(len(cells) * layers, dtype=torch.float64).index_add_(0, slot, values)
        return flat.view(len(cells), layers)

    total = per_layer(energy)
    columns, names = [total], [f"energy layer {i}" for i in range(layers)]
    columns.append(1 - per_layer((energy > threshold).double()) / _cells_per_layer(grid, axis))
    names += [f"sparsity layer {i}" for i in range(layers)]
    safe = torch.where(total > 0, total, 1.0)
    place = grid.centres(cells.coords)
    for other, name in enumerate(cells.axes):
        if other == axis:
            continue
        centre, width = _centre_and_width(place[:, other], energy, per_layer, safe, slot, grid.period[other])
        columns += [centre, width]
        names += [f"{what} {name} layer {i}" for what in ("centre", "width") for i in range(layers)]
    columns.append(total.sum(1, keepdim=True))
    return torch.cat(columns, 1).numpy(), (*names, "energy")


def _centre_and_width(
    x: Tensor, energy: Tensor, per_layer: Any, total: Tensor, slot: Tensor, period: float
) -> tuple[Tensor, Tensor]:
    if math.isfinite(period):
        turn = 2 * math.pi / period
        sine, cosine = per_layer(energy * (turn * x).sin()), per_layer(energy * (turn * x).cos())
        centre = torch.atan2(sine, cosine) / turn
        delta = x - centre.flatten()[slot]
        delta = delta - period * torch.round(delta / period)
    else:
        centre = per_layer(energy * x) / total
        delta = x - centre.flatten()[slot]
    return centre, (per_layer(energy * delta.square()) / total).sqrt()


def _cells_per_layer(grid: Grid, axis: int) -> Tensor:
    valid = torch.ones(grid.shape, dtype=torch.bool) if grid.valid is None else grid.valid
    others = [i for i in range(grid.dim) if i != axis]
    return (valid.sum(others) if others else valid).double().clamp_min(1)


def histogram_separation(a: ArrayLike, b: ArrayLike) -> float:
    r"""Separation power of two histograms, each normalised: 0 for equal ones, 1 for disjoint ones.

    .. math:: S = \tfrac12 \sum_i \frac{(a_i - b_i)^2}{a_i + b_i}

    Example:
        >>> histogram_separation([1, 1, 0], [0, 0, 3]), histogram_separation([1, 3], [2, 6])
        (1.0, 0.0)
    """
    p, q = (np.asarray(v, dtype=np.float64).ravel() for v in (a, b))
    if p.shape != q.shape or p.sum() <= 0 or q.sum() <= 0:
        raise DataError(f"histogram_separation: {p.size} and {q.size} bins; expected as many, with a sum above 0")
    p, q = p / p.sum(), q / q.sum()
    some = p + q > 0
    return float(0.5 * ((p - q)[some] ** 2 / (p + q)[some]).sum())


def _bins(reference: Array, bins: int) -> Array:
    """Bin edges per feature over the central range of the reference; the outer bins take what lies beyond."""
    edges = []
    for column in reference.T:
        low, high = np.quantile(column, (0.005, 0.995))
        edges.append(np.linspace(low, high, bins - 1) if high > low else np.array([low, np.nextafter(low, np.inf)]))
    return np.array([np.pad(e, (0, bins - 1 - len(e)), constant_values=np.inf) for e in edges])


def _binned(values: Array, edges: Array) -> NDArray[np.int64]:
    return np.stack([np.searchsorted(e, v, side="right") for e, v in zip(edges, values.T, strict=True)], 1)


def _mean_separation(a: NDArray[np.int64], b: NDArray[np.int64], bins: int, u: Any = None, v: Any = None) -> Array:
    counts = [
        [np.bincount(column, weights, minlength=bins).astype(float) for column in side.T]
        for side, weights in ((a, u), (b, v))
    ]
    return np.array([histogram_separation(p, q) for p, q in zip(*counts, strict=True)])


@metric("separation_power", needs=("layers",), fast=True)
def separation_power(
    generated: EventsLike,
    reference: EventsLike,
    *,
    bins: int = 50,
    protocol: Protocol | str | None = None,
    seed: int = 0,
) -> Result:
    """Separation power of the shower features' histograms, averaged; each feature's is in the protocol.

    Args:
        generated: Generated showers.
        reference: Real ones; the bins span their central 99 %, the outer bins take the rest.
        bins: Bins of each histogram.
        protocol: A :class:`Protocol` or its name.
        seed: Of resamples and splits.
    """
    setting = resolve(protocol)
    if bins < 3:
        raise ConfigError(f"separation_power: bins={bins}; expected 3 or more")
    ours, theirs = collect_pair(generated, reference, shower_features, invalid=setting.invalid)
    n, m = len(ours), len(theirs)
    if min(n, m) < 4:
        raise TooFewError(f"separation_power: {n} generated and {m} reference showers; use 4 or more")
    edges = _bins(theirs.values, bins)
    x, y = _binned(ours.values, edges), _binned(theirs.values, edges)
    each = _mean_separation(x, y, bins)
    rng = np.random.default_rng([seed, 0])
    drawn = lambda k: counted(rng.integers(k, size=(k,)), k)
    boot = [_mean_separation(x, y, bins, drawn(n), drawn(m)).mean() for _ in range(setting.resamples)]
    # Sparse histograms differ by their sizes alone: the floor is that of two samples of the mean size.
    size = round(2 / (1 / n + 1 / m))
    of_real = lambda i, j: float(_mean_separation(y[i], y[j], bins).mean())
    floor, how = floor_at(size, m, of_real, setting.pairs, rng)
    # The spread of the null falls as 1 / n.
    part = min(size, m // 2)
    null = [of_real(i[:part], j[:part]) * part / size for i, j in split_halves(m, setting.pairs, rng)]
    note: dict[str, Any] = {
        "name": setting.name,
        "events": [n, m],
        "bins": bins,
        "per_feature": dict(zip(ours.names, each.tolist(), strict=True)),
        "reference_invalid": theirs.invalid,
        "seed": seed,
        "error": f"bootstrap of {setting.resamples}, less the null's excess",
        "floor": how,
    }
    warn_small("separation_power", min(n, m), 200, note)
    error = quadratic_error(np.array(boot), np.array(null))
    return Result("separation_power", float(each.mean()), error, n, note, floor, ours.invalid)


def incident_energy(events: Events) -> Tensor | None:
    """The condition that holds the incident energy ``(B,)``; None without one."""
    for i, name in enumerate(events.conditions):
        if events.condition is not None and name in INCIDENT_NAMES:
            return events.condition[:, i].double()
    return None


def _ratio(events: Events) -> Array:
    """Deposited over incident energy ``(B, 1)``."""
    incident = incident_energy(events)
    if incident is None:
        raise DataError(unknown_name("condition with the incident energy", INCIDENT_NAMES[0], events.conditions))
    energy = events.to(torch.float64).total(additive_column(events, ENERGY_NAMES))
    return (energy / incident).numpy()[:, None]


def _response(
    name: str,
    generated: EventsLike,
    reference: EventsLike,
    protocol: Protocol | str | None,
    seed: int,
    of: Any,
) -> Result:
    setting = resolve(protocol)
    pair: tuple[FeatureSample, FeatureSample] = collect_pair(generated, reference, _ratio, invalid=setting.invalid)
    x, y = (s.values[:, 0] for s in pair)
    if min(len(x), len(y)) < 4:
        raise TooFewError(f"{name}: {len(x)} generated and {len(y)} reference showers; use 4 or more")
    rng = np.random.default_rng([seed, 0])
    difference = lambda a, b: of(a) / of(b) - 1
    half = len(y) // 2
    scale = math.sqrt((1 / len(x) + 1 / len(y)) / (2 / half))
    floors = [abs(difference(y[a], y[b])) * scale for a, b in split_halves(len(y), setting.pairs, rng)]
    note: dict[str, Any] = {
        "name": setting.name,
        "events": [len(x), len(y)],
        "generated": float(of(x)),
        "reference": float(of(y)),
        "reference_invalid": pair[1].invalid,
        "seed": seed,
        "error": f"{setting.resamples} bootstrap resamples of the showers",
        "floor": f"mean of {setting.pairs} splits of the reference into halves of {half}, scaled to the sizes compared",
    }
    warn_small(name, min(len(x), len(y)), 100, note)
    pick = lambda z: z[rng.integers(len(z), size=len(z))]
    again = np.array([difference(pick(x), pick(y)) for _ in range(setting.resamples)])
    value = difference(x, y)
    error = magnitude_error(value, again)
    return Result(name, abs(float(value)), error, len(x), note, float(np.mean(floors)), pair[0].invalid)


@metric("energy_response", needs=("incident",), fast=True)
def energy_response(
    generated: EventsLike, reference: EventsLike, *, protocol: Protocol | str | None = None, seed: int = 0
) -> Result:
    """Relative difference of the mean response, deposited over incident energy."""
    return _response("energy_response", generated, reference, protocol, seed, np.mean)


@metric("energy_resolution", needs=("incident",), fast=True)
def energy_resolution(
    generated: EventsLike, reference: EventsLike, *, protocol: Protocol | str | None = None, seed: int = 0
) -> Result:
    """Relative difference of the resolution, the response's standard deviation over its mean."""
    return _response("energy_resolution", generated, reference, protocol, seed, lambda x: np.std(x) / np.mean(x))


@metric("fpd_showers", needs=("layers",))
def fpd_showers(
    generated: EventsLike, reference: EventsLike, *, protocol: Protocol | str | None = None, seed: int = 42
) -> Result:
    """Fréchet physics distance of the high-level shower features."""
    result = fpd(generated, reference, features=shower_features, protocol=protocol, seed=seed)
    return replace(result, name="fpd_showers")


@metric("kpd_showers", needs=("layers",))
def kpd_showers(
    generated: EventsLike, reference: EventsLike, *, protocol: Protocol | str | None = None, seed: int = 42
) -> Result:
    """Kernel physics distance of the high-level shower features."""
    result = kpd(generated, reference, features=shower_features, protocol=protocol, seed=seed)
    return replace(result, name="kpd_showers")


@metric("classifier_auc_showers", needs=("layers",))
def classifier_auc_showers(
    generated: EventsLike, reference: EventsLike, *, protocol: Protocol | str | None = None, seed: int = 0
) -> Result:
    """Area under the curve of a classifier on the high-level shower features; 0.5 if it cannot tell them apart."""
    result = classifier_auc(generated, reference, features=shower_features, protocol=protocol, seed=seed)
    return replace(result, name="classifier_auc_showers")
