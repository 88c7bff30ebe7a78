"""Histograms of what events look like, in the form that plotting libraries of the field take.

A :class:`Spectrum` follows the PlottableHistogram protocol of UHI, so that ``mplhep.histplot(spectrum)`` draws it and
``hist`` reads it.

References:
    Unified histogram interface, the Scikit-HEP project, https://uhi.readthedocs.io
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from sparsegen.events import Events
from sparsegen.metrics.calorimeter import ENERGY_NAMES, incident_energy, layer_axis
from sparsegen.metrics.inputs import EventsLike, additive_column, check_comparable, jet_view, portions, valid_events
from sparsegen.metrics.observables import jet_mass
from sparsegen.metrics.substructure import correlation_ratios, n_subjettiness

__all__ = ["Bins", "Spectrum", "bulk_edges", "spectra"]

Array = NDArray[np.float64]


class _Kind(str, Enum):
    COUNT = "COUNT"


@dataclass(frozen=True)
class _Traits:
    circular: bool = False
    discrete: bool = False


class Bins:
    """An axis of contiguous bins.

    Args:
        edges: ``(n + 1,)``, rising.
        label: What the axis shows, for plots.
    """

    def __init__(self, edges: ArrayLike, label: str = "") -> None:
        self.edges = np.asarray(edges, dtype=np.float64)
        self.label = label
        self.traits = _Traits()

    def __len__(self) -> int:
        return len(self.edges) - 1

    def __getitem__(self, index: int) -> tuple[float, float]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return float(self.edges[index]), float(self.edges[index + 1])

    def __iter__(self) -> Iterator[tuple[float, float]]:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bins) and np.array_equal(self.edges, other.edges)

    __hash__ = None  # type: ignore[assignment]


class Spectrum:
    """Counts in bins, each value of weight one.

    Args:
        values: What is counted ``(n,)``.
        bins: The axis; values outside it are kept in ``outside``.

    Example:
        >>> spectrum = Spectrum([0.2, 0.4, 1.5, 7.0], Bins([0, 1, 2], "x"))
        >>> spectrum.values().tolist(), spectrum.outside
        ([2.0, 1.0], 1)
    """

    def __init__(self, values: ArrayLike, bins: Bins) -> None:
        x = np.asarray(values, dtype=np.float64).ravel()
        self.axes = (bins,)
        self.kind = _Kind.COUNT
        self._counts = np.histogram(x, bins.edges)[0].astype(np.float64)
        self.total = len(x)
        self.outside = len(x) - int(self._counts.sum())

    def values(self) -> Array:
        """Counts ``(bins,)``."""
        return self._counts

    def variances(self) -> Array:
        """Of Poisson counts."""
        return self._counts

    def counts(self) -> Array:
        """Entries ``(bins,)``."""
        return self._counts

    def density(self) -> tuple[Array, Array]:
        """Density and its error ``(bins,)``; what lies outside the bins counts in the normalisation."""
        scale = max(1, self.total) * np.diff(self.axes[0].edges)
        return self._counts / scale, np.sqrt(self._counts) / scale


def _readings(events: Events) -> dict[str, Callable[[Events], Array]]:
    """What there is to draw of events of this kind: label -> one value an event or a hit."""
    name = additive_column(events)
    unit = next(column.unit for column in events.columns if column.name == name)
    with_unit = lambda text: f"{text} [{unit}]" if unit else text
    found: dict[str, Callable[[Events], Array]] = {"hits": lambda e: e.counts.double().numpy()}
    layers = layer_axis(events)
    if layers is None and len(events.axes) == 2:
        view = jet_view(events)
        found["jet mass"] = lambda e: jet_mass(e, view).numpy()
        found[with_unit(f"sum of {name}")] = lambda e: e.to(torch.float64).total(name).numpy()
        found["tau21"] = lambda e: _ratio(n_subjettiness(e, 2, view=view).numpy())
        found["D2"] = lambda e: correlation_ratios(e)[:, 1].numpy()
    else:
        found[with_unit(f"sum of {name}")] = lambda e: e.to(torch.float64).total(name).numpy()
    if incident_energy(events) is not None and name in ENERGY_NAMES:
        found["response"] = lambda e: _response(e, name)
    found[with_unit(f"log10 {name} of a hit")] = lambda e: _log10(e.column(name).double().numpy())
    for i, axis in enumerate(events.axes):
        found[f"{axis} of a hit"] = partial(_coordinate, i)
    return found


def _response(events: Events, name: str) -> Array:
    incident = incident_energy(events)
    assert incident is not None
    return (events.to(torch.float64).total(name) / incident).numpy()


def _coordinate(axis: int, events: Events) -> Array:
    return events.positions[:, axis].double().numpy()


def _ratio(tau: Array) -> Array:
    return tau[tau[:, 0] > 0, 1] / tau[tau[:, 0] > 0, 0]


def _log10(x: Array) -> Array:
    return np.log10(x[x > 0])


def spectra(generated: EventsLike, reference: EventsLike, *, bins: int = 40) -> Mapping[str, tuple[Spectrum, Spectrum]]:
    """Histograms of generated and real events over the same bins.

    Args:
        generated: Generated events; those that cannot be evaluated are left out.
        reference: Real events; the bins span their central 99.8 % and a little more.
        bins: Bins of each, at most.

    Returns:
        Label -> the generated histogram and the real one.
    """
    probe = reference[0:1].counted()
    check_comparable(generated[0:1].counted(), probe)
    readings = _readings(probe)
    sides: list[dict[str, Array]] = []
    for events, role in ((generated, "generated"), (reference, "reference")):
        rows: dict[str, list[Array]] = {label: [] for label in readings}
        for portion in portions(events):
            kept, _ = valid_events(portion, role=role)
            for label, read in readings.items():
                values = read(kept)
                rows[label].append(values[np.isfinite(values)])
        sides.append({label: np.concatenate([np.empty(0), *parts]) for label, parts in rows.items()})
    found = {}
    for label in readings:
        ours, real = sides[0][label], sides[1][label]
        if len(real):
            axis = Bins(bulk_edges(real, bins), label)
            found[label] = (Spectrum(ours, axis), Spectrum(real, axis))
    return found


def bulk_edges(real: Array, bins: int) -> Array:
    """Bins over the bulk of the real values; whole numbers get bins of whole width."""
    low, high = (float(v) for v in np.quantile(real, [0.001, 0.999]))
    if np.array_equal(real, np.round(real)):
        low, high = np.floor(low), np.ceil(high)
        width = max(1.0, float(np.ceil((high - low + 1) / bins)))
        return np.arange(low - 0.5, high + 0.5 + width, width)
    pad = 0.15 * (high - low) or 0.5
    return np.linspace(max(0.0, low - pad) if real.min() >= 0 else low - pad, high + pad, bins + 1)
