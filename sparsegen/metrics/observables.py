"""One number, or a few, for every event or hit: what one-dimensional comparisons compare."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparsegen.events import Events
from sparsegen.grid import Grid
from sparsegen.metrics.inputs import JetView, additive_column, jet_lattice, jet_view

__all__ = ["jet_mass", "moments", "occupied_cells", "summary_features"]

Array = NDArray[np.float64]


def jet_mass(events: Events, view: JetView | None = None) -> Tensor:
    r"""Mass of each event's summed massless four-vectors ``(B,)``, float64.

    .. math:: m^2 = \sum p_T e^{\eta} \sum p_T e^{-\eta} - (\sum p_T \cos\phi)^2 - (\sum p_T \sin\phi)^2

    which is :math:`E^2 - |p|^2` with the longitudinal part factored, so that nothing large cancels. With momenta
    relative to the jet's this is the relative mass :math:`m / p_T`.

    Example:
        >>> two = Events(
        ...     torch.tensor([[0.0, 0.0], [0.0, 0.6]]),
        ...     torch.full((2, 1), 0.5),
        ...     torch.tensor([0, 2]),
        ...     axes=("etarel", "phirel"),
        ...     columns=("ptrel",),
        ... )
        >>> round(float(jet_mass(two)), 6) == round(float(torch.sin(torch.tensor(0.3))), 6)
        True
    """
    eta, phi, pt = (view or jet_view(events)).read(events)
    parts = torch.stack([pt * eta.exp(), pt * (-eta).exp(), pt * phi.cos(), pt * phi.sin()], 1)
    plus, minus, x, y = events.sum_hits(parts).unbind(1)
    # Rounding may leave a tiny negative square for a single massless particle.
    return (plus * minus - x.square() - y.square()).clamp_min(0).sqrt()


def occupied_cells(events: Events, grid: Grid | None = None) -> tuple[Tensor, Tensor]:
    """Cells with positive energy in each event.

    Args:
        events: Cells, counted as they are, or points, which are put on the lattice first.
        grid: The lattice; the events' own, or 25 x 25 over ``[-0.8, 0.8]^2``.

    Returns:
        Counts ``(B,)`` float64, and hits that fell outside the lattice ``(B,)`` int64.
    """
    lattice = jet_lattice(events, grid)
    dropped = torch.zeros(len(events), dtype=torch.int64)
    if not events.is_cells:
        events, dropped = events.voxelize(lattice, outside="drop")
    elif events.grid != lattice:
        events, dropped = events.devoxelize("centre").voxelize(lattice, outside="drop")
    energy = events.column(additive_column(events))
    return events.sum_hits((energy > 0).double()), dropped


def moments(events: Events, order: int = 3) -> tuple[Tensor, tuple[str, ...]]:
    """Energy-weighted central moments of the coordinates of each event, up to ``order``.

    Returns:
        ``(B, M)`` float64, each the signed ``k``-th root of a moment of order ``k`` so that all have the axes' unit,
        and their names; the first order is the mean itself.
    """
    x = events.positions.double()
    weight = events.column(additive_column(events)).double()
    total = events.sum_hits(weight).clamp_min(torch.finfo(torch.float64).tiny)
    mean = events.sum_hits(weight[:, None] * x) / total[:, None]
    centred = x - mean[events.batch]
    columns, names = [mean], [f"mean {axis}" for axis in events.axes]
    powers = [(weight, 0, "", 0)]
    for degree in range(1, order + 1):
        grown = []
        for value, first, name, _ in powers:
            for axis in range(first, x.shape[1]):
                grown.append((value * centred[:, axis], axis, f"{name} {events.axes[axis]}".strip(), degree))
        powers = grown
        if degree > 1:
            value = events.sum_hits(torch.stack([p[0] for p in powers], 1)) / total[:, None]
            columns.append(value.sign() * value.abs().pow(1.0 / degree))
            names += [f"moment {p[2]}" for p in powers]
    return torch.cat(columns, 1), tuple(names)


def summary_features(events: Events, leading: int = 5) -> tuple[Array, tuple[str, ...]]:
    """A fixed description of each event that does not depend on the order of its hits.

    The logarithm of one plus the number of hits, the logarithm of the energy, energy-weighted moments of the
    coordinates up to order three, the share of the ``leading`` hardest hits, and the means of the other columns. It
    serves where events must be points of one space: nearest neighbours, precision and recall, Fréchet distances.

    Returns:
        ``(B, F)`` float64 and the names of the features.
    """
    name = additive_column(events)
    energy = events.column(name).double()
    total = events.sum_hits(energy)
    shape, names = moments(events)
    hardest = leading_values(events, energy, leading) / total.clamp_min(torch.finfo(torch.float64).tiny)[:, None]
    others = [i for i, column in enumerate(events.columns) if column.name != name]
    means = events.sum_hits(events.features[:, others].double()) / events.counts.clamp_min(1)[:, None]
    floor = torch.finfo(torch.float32).tiny
    parts = [events.counts.double().log1p()[:, None], total.clamp_min(floor).log()[:, None], shape, hardest, means]
    labels = ("log hits", f"log {name}", *names, *(f"share {i + 1}" for i in range(leading)))
    return torch.cat(parts, 1).numpy(), (*labels, *(f"mean {events.columns[i].name}" for i in others))


def leading_values(events: Events, values: Tensor, k: int) -> Tensor:
    """The ``k`` largest of the per-hit ``values`` of each event, falling, zero where there are fewer ``(B, k)``."""
    order = values.argsort(descending=True, stable=True)
    order = order[events.batch[order].argsort(stable=True)]
    rank = torch.arange(len(order)) - events.offsets[:-1][events.batch]
    keep = rank < k
    out = values.new_zeros(len(events), k)
    out[events.batch[keep], rank[keep]] = values[order][keep]
    return out
