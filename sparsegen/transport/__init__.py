"""Distances between point sets and optimal transport."""

from sparsegen.transport.chamfer import chamfer, density_aware_chamfer
from sparsegen.transport.emd import emd, exact_plan
from sparsegen.transport.sliced import directions, sliced

__all__ = ["chamfer", "density_aware_chamfer", "directions", "emd", "exact_plan", "sliced"]
