"""W1 of one number for every event, and of the pooled hits."""

from __future__ import annotations

import torch

from sparsegen.errors import DataError
from sparsegen.events import Events
from sparsegen.grid import Grid
from sparsegen.metrics.comparison import compare_observable, first
from sparsegen.metrics.inputs import EventsLike, additive_column, jet_lattice, jet_view
from sparsegen.metrics.metric import metric
from sparsegen.metrics.observables import jet_mass, occupied_cells
from sparsegen.metrics.observations import Observable, Reading
from sparsegen.metrics.protocol import Protocol
from sparsegen.result import Result

__all__ = ["w1_energy", "w1_hits", "w1_mass", "w1_multiplicity", "w1_occupied", "w1_pt"]

_DOUBLE = torch.float64


@metric("w1_mass", needs=("jets",), fast=True)
def w1_mass(
    generated: EventsLike, reference: EventsLike, *, protocol: Protocol | str | None = None, seed: int = 0
) -> Result:
    """W1 of the jet mass, relative to the jet's momentum where the constituents' momenta are."""
    view = jet_view(first(reference))
    read = lambda events: Reading(jet_mass(events, view).numpy()[:, None])
    observable = Observable(("mass",), read, note={"features": "jet mass", "read_as": view.as_text()})
    return compare_observable("w1_mass", generated, reference, observable, protocol=protocol, seed=seed)


@metric("w1_pt", needs=("jets",), fast=True)
def w1_pt(
    generated: EventsLike, reference: EventsLike, *, protocol: Protocol | str | None = None, seed: int = 0
) -> Result:
    """W1 of the scalar sum of the constituents' transverse momenta."""
    view = jet_view(first(reference))
    read = lambda events: Reading(events.to(_DOUBLE).total(view.pt).numpy()[:, None])
    observable = Observable(("pt",), read, note={"features": f"sum of {view.pt}", "read_as": view.as_text()})
    return compare_observable("w1_pt", generated, reference, observable, protocol=protocol, seed=seed)


@metric("w1_energy", needs=("energy",), fast=True)
def w1_energy(
    generated: EventsLike, reference: EventsLike, *, protocol: Protocol | str | None = None, seed: int = 0
) -> Result:
    """W1 of the energy per event: the sum of the column ``energy``, else of the first additive one."""
    column = additive_column(first(reference), ("energy",))
    read = lambda events: Reading(events.to(_DOUBLE).total(column).numpy()[:, None])
    observable = Observable(("energy",), read, note={"features": f"sum of {column}"})
    return compare_observable("w1_energy", generated, reference, observable, protocol=protocol, seed=seed)


@metric("w1_multiplicity", unit="hits", fast=True)
def w1_multiplicity(
    generated: EventsLike, reference: EventsLike, *, protocol: Protocol | str | None = None, seed: int = 0
) -> Result:
    """W1 of the number of hits per event."""
    read = lambda events: Reading(events.counts.double().numpy()[:, None])
    observable = Observable(("hits",), read, note={"features": "hits per event"})
    _same_view("w1_multiplicity", generated, reference)
    return compare_observable("w1_multiplicity", generated, reference, observable, protocol=protocol, seed=seed)


@metric("w1_hits", fast=True)
def w1_hits(
    generated: EventsLike, reference: EventsLike, *, protocol: Protocol | str | None = None, seed: int = 0
) -> Result:
    """W1 of each coordinate and feature over all hits, averaged over them."""
    probe = first(reference)
    _same_view("w1_hits", generated, reference)
    names = (*probe.axes, *(c.name for c in probe.columns))

    def read(events: Events) -> Reading:
        values = torch.cat([events.positions.double(), events.features.double()], 1)
        return Reading(values.numpy(), events.counts.numpy())

    observable = Observable(names, read, note={"features": f"hits: {', '.join(names)}"})
    return compare_observable("w1_hits", generated, reference, observable, protocol=protocol, seed=seed)


@metric("w1_occupied", unit="cells", needs=("lattice",), fast=True)
def w1_occupied(
    generated: EventsLike,
    reference: EventsLike,
    *,
    grid: Grid | None = None,
    protocol: Protocol | str | None = None,
    seed: int = 0,
) -> Result:
    """W1 of the number of occupied cells per event.

    Args:
        generated: Cells are counted as they are, points are put on the lattice; hits outside it are counted apart.
        reference: The same.
        grid: The lattice; that of the cells, of the reference, or 25 x 25 over ``[-0.8, 0.8]^2``.
        protocol: A :class:`Protocol` or its name.
        seed: Of resamples and splits.
    """
    ours, theirs = first(generated), first(reference)
    lattice = jet_lattice(ours if ours.is_cells and not theirs.is_cells else theirs, grid)

    def read(events: Events) -> Reading:
        cells, dropped = occupied_cells(events, lattice)
        return Reading(cells.numpy()[:, None], dropped=int(dropped.sum()))

    observable = Observable(("cells",), read, note={"features": "occupied cells", "grid": repr(lattice)})
    return compare_observable("w1_occupied", generated, reference, observable, protocol=protocol, seed=seed)


def _same_view(name: str, generated: EventsLike, reference: EventsLike) -> None:
    ours, theirs = first(generated), first(reference)
    if ours.is_cells != theirs.is_cells:
        a, b = ("cells" if e.is_cells else "points" for e in (ours, theirs))
        raise DataError(f"{name}: generated events are {a}, the reference {b}; voxelize one or devoxelize the other")
