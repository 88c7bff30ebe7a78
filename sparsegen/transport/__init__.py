"""Distances between point sets and optimal transport."""

from sparsegen.transport.chamfer import chamfer, density_aware_chamfer

__all__ = ["chamfer", "density_aware_chamfer"]
