"""Metrics that carry their error, protocol and floor.

Each is ``metrics.NAME(generated, reference, *, protocol=None, seed=0) -> Result``; ``METRICS`` is the table of them and
:func:`evaluate` runs a group.
"""

from sparsegen.metrics.evaluate import GROUPS, applicable, evaluate
from sparsegen.metrics.memorisation import memorisation
from sparsegen.metrics.metric import METRICS, Metric, SmallSampleWarning
from sparsegen.metrics.observables import jet_mass, occupied_cells, summary_features
from sparsegen.metrics.protocol import PROTOCOLS, Protocol
from sparsegen.metrics.wasserstein import (
    w1,
    w1_energy,
    w1_hits,
    w1_mass,
    w1_multiplicity,
    w1_occupied,
    w1_pt,
)

__all__ = [
    "GROUPS",
    "METRICS",
    "Metric",
    "PROTOCOLS",
    "Protocol",
    "SmallSampleWarning",
    "applicable",
    "evaluate",
    "jet_mass",
    "memorisation",
    "occupied_cells",
    "summary_features",
    "w1",
    "w1_energy",
    "w1_hits",
    "w1_mass",
    "w1_multiplicity",
    "w1_occupied",
    "w1_pt",
]
