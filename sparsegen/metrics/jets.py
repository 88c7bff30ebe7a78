"""Jet metrics under their published names, definitions and protocols.

``w1m``, ``w1p`` and ``w1efp`` draw five batches of 50,000 jets with replacement unless another protocol is named; on
whole samples, with errors of sampling, the first two are ``w1_mass`` and ``w1_hits``.

References:
    Particle cloud generation with message passing generative adversarial networks, Kansal et al., 2021,
    https://arxiv.org/abs/2106.11535
"""

from __future__ import annotations

from dataclasses import replace

from sparsegen.metrics.efp import EFPS_N4_D4_PRIME, efps
from sparsegen.metrics.inputs import EventsLike, jet_view
from sparsegen.metrics.metric import metric
from sparsegen.metrics.protocol import Protocol
from sparsegen.metrics.wasserstein import Observable, Reading, compare_observable, w1_hits, w1_mass
from sparsegen.result import Result

__all__ = ["w1efp", "w1m", "w1p"]


@metric("w1m", needs=("jets",))
def w1m(
    generated: EventsLike, reference: EventsLike, *, protocol: Protocol | str | None = "jetnet0.2", seed: int = 0
) -> Result:
    """W1 of the relative jet mass under a published protocol."""
    return replace(w1_mass(generated, reference, protocol=protocol or "jetnet0.2", seed=seed), name="w1m")


@metric("w1p", needs=("jets",))
def w1p(
    generated: EventsLike, reference: EventsLike, *, protocol: Protocol | str | None = "jetnet0.2", seed: int = 0
) -> Result:
    """W1 of the particles' features, averaged, under a published protocol."""
    return replace(w1_hits(generated, reference, protocol=protocol or "jetnet0.2", seed=seed), name="w1p")


@metric("w1efp", needs=("jets",))
def w1efp(
    generated: EventsLike, reference: EventsLike, *, protocol: Protocol | str | None = "jetnet0.2", seed: int = 0
) -> Result:
    """W1 of the five connected energy-flow polynomials of four vertices and four edges, averaged."""
    view = jet_view(reference[0:1])
    observable = Observable(
        tuple("".join(f"({a}{b})" for a, b in graph) for graph in EFPS_N4_D4_PRIME),
        lambda events: Reading(efps(events, EFPS_N4_D4_PRIME, view=view).numpy()),
        note={"features": "energy-flow polynomials, n = 4, d = 4, connected", "read_as": view.as_text()},
    )
    return compare_observable("w1efp", generated, reference, observable, protocol=protocol or "jetnet0.2", seed=seed)
