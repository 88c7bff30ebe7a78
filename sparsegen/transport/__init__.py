"""Distances between point sets and optimal transport."""

from sparsegen.transport.certificate import Certificate
from sparsegen.transport.chamfer import chamfer, density_aware_chamfer
from sparsegen.transport.emd import emd, exact_plan
from sparsegen.transport.mmd import energy_distance, mmd
from sparsegen.transport.pairwise import pairwise
from sparsegen.transport.semidiscrete import SemiDiscreteOT
from sparsegen.transport.sinkhorn import SinkhornResult, sinkhorn, sinkhorn_divergence
from sparsegen.transport.sliced import directions, sliced

__all__ = [
    "Certificate",
    "SemiDiscreteOT",
    "SinkhornResult",
    "chamfer",
    "density_aware_chamfer",
    "directions",
    "emd",
    "energy_distance",
    "exact_plan",
    "mmd",
    "pairwise",
    "sinkhorn",
    "sinkhorn_divergence",
    "sliced",
]
