"""Distances between point sets and optimal transport.

- between events one by one, differentiable, ragged, weighted, periodic: `chamfer`, `density_aware_chamfer`, the exact
  `emd`, `sliced`, `sinkhorn_divergence`; between all and all: `pairwise`;
- of samples: `mmd`, `energy_distance`;
- of matrices: `sinkhorn`, `exact_plan`;
- of a continuous law to points, with a certificate: `SemiDiscreteOT`.
"""

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
