r"""Jet metrics under their published names, definitions and protocols.

``w1m``, ``w1p`` and ``w1efp`` draw five batches of 50,000 jets with replacement unless another protocol is named; on
whole samples, with errors of sampling, the first two are ``w1_mass`` and ``w1_hits``.

``cov_mmd`` compares jets by the energy mover's distance

.. math:: \min_{f \ge 0} \sum_{ij} f_{ij} \frac{\theta_{ij}}{R} + \Big| \sum_i p_{T,i} - \sum_j p_{T,j} \Big|

with :math:`R = 1`, ten times between 100 generated and 100 real jets, drawn with replacement.

References:
    Particle cloud generation with message passing generative adversarial networks, Kansal et al., 2021,
    https://arxiv.org/abs/2106.11535
    Metric space of collider events, Komiske, Metodiev, Thaler, 2019, https://arxiv.org/abs/1902.02346
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sparsegen import kernels
from sparsegen.events import Events
from sparsegen.metrics.comparison import compare_observable
from sparsegen.metrics.efp import EFPS_N4_D4_PRIME, efps
from sparsegen.metrics.inputs import EventsLike, check_comparable, jet_view, valid_sample, warn_small
from sparsegen.metrics.marginals import w1_hits, w1_mass
from sparsegen.metrics.metric import TooFewError, metric
from sparsegen.metrics.observations import Observable, Reading
from sparsegen.metrics.pointsets import coverage_of_matches, minimum_matching_distance
from sparsegen.metrics.protocol import Protocol, resolve
from sparsegen.metrics.recent import Recent, digest
from sparsegen.result import Result

__all__ = ["cov_jets", "cov_mmd", "energy_movers_distance", "mmd_jets", "w1efp", "w1m", "w1p"]

JETS, BATCHES = 100, 10
"""Jets a side and batches of the published coverage and minimum matching distance."""


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


def energy_movers_distance(a: Events, b: Events) -> NDArray[np.float64]:
    """Energy mover's distance of every jet of ``a`` to every jet of ``b`` ``(A, B)``, in the momentum's unit, R = 1."""
    sides = []
    for jets in (a, b):
        eta, phi, pt = jet_view(jets).read(jets)
        sides.append((torch.stack([eta, phi], 1), jets.offsets, pt))
    (x, x_offsets, x_pt), (y, y_offsets, y_pt) = sides
    return kernels.pairwise_emd(x, x_offsets, y, y_offsets, a_masses=x_pt, b_masses=y_pt, unmatched=1.0).numpy()


_recent = Recent[tuple[NDArray[np.float64], NDArray[np.float64]]]()


def cov_mmd(
    generated: EventsLike, reference: EventsLike, *, protocol: Protocol | str | None = None, seed: int = 0
) -> tuple[Result, Result]:
    """Coverage and minimum matching distance of jets under the energy mover's distance, by the published definition.

    The errors are those of the mean over batches; the floors are the same between two halves of the reference.

    Args:
        generated: Generated jets.
        reference: Real jets.
        protocol: A :class:`Protocol` or its name; only its treatment of invalid events matters.
        seed: Of the batches.

    Returns:
        Results named ``cov_jets`` and ``mmd_jets``.
    """
    setting = resolve(protocol)
    check_comparable(generated[0:1], reference[0:1])
    ours, invalid = valid_sample(generated, role="generated", invalid=setting.invalid)
    theirs, reference_invalid = valid_sample(reference, role="reference", invalid=setting.invalid)
    if len(ours) < 2 or len(theirs) < 4:
        raise TooFewError(f"cov_mmd: {len(ours)} generated and {len(theirs)} reference jets; use 2 and 4 or more")
    order = torch.from_numpy(np.random.default_rng([seed, 1]).permutation(len(theirs)))
    half = len(theirs) // 2
    values, floors = _recent.get(
        (str(seed), digest(ours), digest(theirs)),
        lambda: (
            _batches(ours, theirs, np.random.default_rng([seed, 0])),
            _batches(theirs[order[:half]], theirs[order[half:]], np.random.default_rng([seed, 2])),
        ),
    )
    note: dict[str, Any] = {
        "name": "jetnet0.2",
        "events": [JETS, JETS],
        "available": [len(ours), len(theirs)],
        "batches": BATCHES,
        "replacement": True,
        "distance": "energy mover's, exact, R = 1",
        "reference_invalid": reference_invalid,
        "seed": seed,
        "error": "standard error over batches",
        "floor": f"two disjoint halves of the reference, {half} each, same batches",
    }
    # Batches from few jets repeat them, and the halves behind the floor repeat them more.
    warn_small("cov_mmd", min(len(ours), len(theirs)), 10 * JETS, note)
    means, errors, floors = values.mean(0), values.std(0, ddof=1) / math.sqrt(BATCHES), floors.mean(0)
    names = ("cov_jets", "mmd_jets")
    cov, mmd = (
        Result(name, float(m), float(e), len(ours), note, float(f), invalid, higher_is_better=name == "cov_jets")
        for name, m, e, f in zip(names, means, errors, floors, strict=True)
    )
    return cov, mmd


def _batches(ours: Events, theirs: Events, rng: np.random.Generator) -> NDArray[np.float64]:
    """Coverage and minimum matching distance of each batch ``(batches, 2)``."""
    rows = []
    for _ in range(BATCHES):
        a, b = (jets[torch.from_numpy(rng.integers(len(jets), size=JETS))] for jets in (ours, theirs))
        distance = energy_movers_distance(a, b)
        rows.append((coverage_of_matches(distance), minimum_matching_distance(distance)))
    return np.array(rows)


@metric("cov_jets", needs=("jets",))
def cov_jets(
    generated: EventsLike, reference: EventsLike, *, protocol: Protocol | str | None = None, seed: int = 0
) -> Result:
    """Share of real jets that are nearest to a generated one under the energy mover's distance."""
    return cov_mmd(generated, reference, protocol=protocol, seed=seed)[0]


@metric("mmd_jets", needs=("jets",))
def mmd_jets(
    generated: EventsLike, reference: EventsLike, *, protocol: Protocol | str | None = None, seed: int = 0
) -> Result:
    """Minimum matching distance of real jets to generated ones under the energy mover's distance."""
    return cov_mmd(generated, reference, protocol=protocol, seed=seed)[1]
