r"""Jet substructure: N-subjettiness and the energy-correlation ratios C2 and D2, for whole batches.

.. math:: \tau_N = \frac{1}{\sum_i p_{T,i} R_0} \sum_i p_{T,i} \min_k \Delta R_{ik} \qquad
          C_2 = e_3 / e_2^2 \qquad D_2 = e_3 / e_2^3

The N axes are those of exclusive kT clustering, then moved to the nearest minimum of the sum over hits.

References:
    Identifying boosted objects with N-subjettiness, Thaler, Van Tilburg, 2011, https://arxiv.org/abs/1011.2268
    Maximizing boosted top identification by minimizing N-subjettiness, Thaler, Van Tilburg, 2012,
    https://arxiv.org/abs/1108.2701
    Power counting to better jet observables, Larkoski, Moult, Neill, 2014, https://arxiv.org/abs/1409.6298
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sparsegen.errors import ConfigError
from sparsegen.events import Events
from sparsegen.metrics.comparison import compare_observable
from sparsegen.metrics.efp import efps
from sparsegen.metrics.inputs import EventsLike, JetView, jet_view
from sparsegen.metrics.metric import metric
from sparsegen.metrics.observations import Observable, Reading
from sparsegen.metrics.protocol import Protocol
from sparsegen.result import Result

__all__ = ["correlation_ratios", "n_subjettiness", "w1_c2", "w1_d2", "w1_tau21", "w1_tau32"]

CHUNK = 256
"""Jets clustered together."""


def n_subjettiness(
    events: Events, number: int = 3, *, radius: float = 0.8, steps: int = 100, view: JetView | None = None
) -> Tensor:
    r""":math:`\tau_1 \dots \tau_N` of every jet, with :math:`\beta = 1`.

    Args:
        events: The jets.
        number: The largest N.
        radius: :math:`R_0`.
        steps: Most steps that move the axes; they stop when none moves by more than 1e-4.
        view: Which axes and column to read; by name otherwise.

    Returns:
        ``(B, number)`` float64; zero where a jet has no more hits than axes.

    Example:
        >>> three = Events(
        ...     torch.tensor([[0.0, 0.0], [0.0, 0.4], [0.0, 0.5]]),
        ...     torch.tensor([[1.0], [1.0], [1.0]]),
        ...     torch.tensor([0, 3]),
        ...     axes=("eta", "phi"),
        ...     columns=("pt",),
        ... )
        >>> [round(v, 4) for v in n_subjettiness(three, radius=1.0)[0].tolist()]
        [0.1667, 0.0333, 0.0]
    """
    if number < 1 or not radius > 0:
        raise ConfigError(
            f"n_subjettiness: number={number}, radius={radius}; expected at least 1 and a positive radius"
        )
    view = view or jet_view(events)
    out = torch.zeros(len(events), number, dtype=torch.float64)
    order = events.counts.argsort(stable=True)
    for start in range(0, len(order), CHUNK):
        chosen = order[start : start + CHUNK]
        some = events[chosen]
        eta, phi, pt = view.read(some)
        coords, momenta, real = some.replace(
            coords=torch.stack([eta, phi], 1), features=pt[:, None], columns=("pt",), grid=None
        ).to_padded()
        out[chosen] = _tau(coords, momenta[..., 0], real, number, radius, steps)
    return out


def _tau(x: Tensor, pt: Tensor, real: Tensor, number: int, radius: float, steps: int) -> Tensor:
    """N-subjettiness of padded jets ``(B, number)``."""
    axes = _exclusive_axes(x, pt, real, number)
    norm = pt.sum(1) * radius
    taus = []
    for n in range(1, number + 1):
        nearest = _refined(x, pt, axes[n], steps)
        tau = (pt * nearest).sum(1) / norm.clamp_min(torch.finfo(torch.float64).tiny)
        # As many axes as hits: each hit is its own axis.
        taus.append(torch.where(real.sum(1) > n, tau, 0.0))
    return torch.stack(taus, 1)


def _difference(a: Tensor, b: Tensor) -> Tensor:
    """``a - b`` with the azimuth by the short way round."""
    delta = a - b
    turn = 2 * math.pi
    delta[..., 1] -= turn * torch.round(delta[..., 1] / turn)
    return delta


def _exclusive_axes(x: Tensor, pt: Tensor, real: Tensor, number: int) -> dict[int, Tensor]:
    """Directions of the last ``number``, ..., 1 jets of exclusive kT clustering; absent ones are far away."""
    batch, length = pt.shape
    each = torch.arange(batch)
    four = torch.stack([pt * x[..., 0].cosh(), pt * x[..., 1].cos(), pt * x[..., 1].sin(), pt * x[..., 0].sinh()], 2)
    place, momentum, alive = x.clone(), pt.clone(), real.clone()
    delta = _difference(place[:, :, None], place[:, None])
    distance = torch.minimum(momentum[:, :, None], momentum[:, None]).square() * delta.square().sum(3)
    apart = ~(alive[:, :, None] & alive[:, None]) | torch.eye(length, dtype=torch.bool)
    distance.masked_fill_(apart, math.inf)
    # The nearest partner of every cluster is kept, so that a merger looks at few rows again.
    least, partner = distance.min(2)
    found: dict[int, Tensor] = {}
    for left in range(length, 0, -1):
        count = alive.sum(1)
        if left <= number:
            found[left] = _remaining(place, alive & (count <= left)[:, None], left)
        # Jets that have fewer hits wait until the others have come down to as many.
        rows = each[(count >= left) & (count > 1)]
        i = least[rows].argmin(1)
        j = partner[rows, i]
        four[rows, i] += four[rows, j]
        alive[rows, j] = False
        energy, px, py, pz = four[rows, i].unbind(1)
        place[rows, i] = torch.stack([0.5 * torch.log((energy + pz) / (energy - pz)), torch.atan2(py, px)], 1)
        momentum[rows, i] = torch.hypot(px, py)
        near = _difference(place[rows], place[rows, i][:, None]).square().sum(2)
        near *= torch.minimum(momentum[rows], momentum[rows, i][:, None]).square()
        near.masked_fill_(~alive[rows], math.inf)
        near[torch.arange(len(rows)), i] = math.inf
        distance[rows, i] = near
        distance[rows, :, i] = near
        distance[rows, j] = math.inf
        distance[rows, :, j] = math.inf
        closer = near < least[rows]
        least[rows] = torch.where(closer, near, least[rows])
        partner[rows] = torch.where(closer, i[:, None], partner[rows])
        stale = (partner[rows] == i[:, None]) & ~closer | (partner[rows] == j[:, None])
        stale[torch.arange(len(rows)), i] = True
        stale[torch.arange(len(rows)), j] = True
        again, column = stale.nonzero(as_tuple=True)
        again = rows[again]
        least[again, column], partner[again, column] = distance[again, column].min(1)
    for n in range(1, number + 1):
        found.setdefault(n, x.new_full((batch, n, 2), math.inf))
    return found


def _remaining(place: Tensor, alive: Tensor, n: int) -> Tensor:
    """Places of the ``n`` clusters that are left ``(B, n, 2)``, far away where there are fewer."""
    slot = alive.long().cumsum(1) - 1
    out = place.new_full((len(place), n, 2), math.inf)
    rows, columns = alive.nonzero(as_tuple=True)
    out[rows, slot[rows, columns]] = place[rows, columns]
    return out


def _refined(x: Tensor, pt: Tensor, axes: Tensor, steps: int) -> Tensor:
    """Distance of every hit to its nearest axis ``(B, L)``, after the axes have moved to a minimum of the sum."""
    axes = axes.clone()
    moving = torch.arange(len(axes))
    for _ in range(steps):
        hits, place = x[moving], axes[moving]
        delta = _difference(hits[:, :, None], place[:, None])
        nearest, which = _length(delta).min(2)
        # The median in the plane: hits pull with unit force, softened where they sit on the axis.
        weight = torch.where(nearest.isfinite(), pt[moving] / nearest.clamp_min(1e-4), 0.0)
        pull = torch.nn.functional.one_hot(which, axes.shape[1]) * weight[..., None]
        total = pull.sum(1).clamp_min(torch.finfo(torch.float64).tiny)
        step = (pull[..., None] * delta.nan_to_num(0.0, 0.0, 0.0)).sum(1) / total[..., None]
        axes[moving] = place + step
        # Each jet stops by itself: its result must not depend on the others of the batch.
        moving = moving[(step.square().sum(2) >= 1e-8).any(1)]
        if not len(moving):
            break
    return _length(_difference(x[:, :, None], axes[:, None])).amin(2).nan_to_num(posinf=0.0)


def _length(delta: Tensor) -> Tensor:
    """Length in the plane; axes that are absent lie infinitely far away."""
    return torch.hypot(delta[..., 0], delta[..., 1]).nan_to_num(math.inf, posinf=math.inf)


def correlation_ratios(events: Events, *, view: JetView | None = None) -> Tensor:
    """C2 and D2 of every jet ``(B, 2)``, angular exponent 1; NaN where all hits share one place."""
    e2, e3 = efps(events, [((0, 1),), ((0, 1), (0, 2), (1, 2))], normed=True, view=view).unbind(1)
    # Polynomials run over all ordered choices of hits, correlators over each choice once.
    e2, e3 = e2 / 2, e3 / 6
    return torch.stack([e3 / e2**2, e3 / e2**3], 1)


def _ratio(events: Events, view: JetView, n: int) -> Tensor:
    tau = n_subjettiness(events, n, view=view)
    # No hits beyond the axes of the lower order: the ratio has no value and the jet counts as one that has none.
    return torch.where(tau[:, n - 2] > 0, tau[:, n - 1] / tau[:, n - 2].clamp_min(1e-300), 0.0)


def _w1(
    name: str,
    generated: EventsLike,
    reference: EventsLike,
    protocol: Protocol | str | None,
    seed: int,
) -> Result:
    view = jet_view(reference[0:1])
    readers = {
        "w1_tau21": lambda events: _ratio(events, view, 2),
        "w1_tau32": lambda events: _ratio(events, view, 3),
        "w1_c2": lambda events: correlation_ratios(events, view=view)[:, 0].nan_to_num(0.0),
        "w1_d2": lambda events: correlation_ratios(events, view=view)[:, 1].nan_to_num(0.0),
    }
    observable = Observable(
        (name[3:],),
        lambda events: Reading(readers[name](events).numpy()[:, None]),
        note={"features": f"{name[3:]}, angular exponent 1", "read_as": view.as_text()},
    )
    return compare_observable(name, generated, reference, observable, protocol=protocol, seed=seed)


@metric("w1_tau21", needs=("jets",))
def w1_tau21(
    generated: EventsLike, reference: EventsLike, *, protocol: Protocol | str | None = None, seed: int = 0
) -> Result:
    """W1 of the N-subjettiness ratio tau2 / tau1: two prongs against one."""
    return _w1("w1_tau21", generated, reference, protocol, seed)


@metric("w1_tau32", needs=("jets",))
def w1_tau32(
    generated: EventsLike, reference: EventsLike, *, protocol: Protocol | str | None = None, seed: int = 0
) -> Result:
    """W1 of the N-subjettiness ratio tau3 / tau2: three prongs against two."""
    return _w1("w1_tau32", generated, reference, protocol, seed)


@metric("w1_c2", needs=("jets",))
def w1_c2(
    generated: EventsLike, reference: EventsLike, *, protocol: Protocol | str | None = None, seed: int = 0
) -> Result:
    """W1 of the energy-correlation ratio C2."""
    return _w1("w1_c2", generated, reference, protocol, seed)


@metric("w1_d2", needs=("jets",))
def w1_d2(
    generated: EventsLike, reference: EventsLike, *, protocol: Protocol | str | None = None, seed: int = 0
) -> Result:
    """W1 of the energy-correlation ratio D2."""
    return _w1("w1_d2", generated, reference, protocol, seed)
