"""Layers for ragged point sets: points flat, event after event, with the event of each row beside them."""

from sparsegen.points.layers import EPiC, TNet, shared_first
from sparsegen.points.neighbours import EdgeConv, knn
from sparsegen.points.pool import pool_max, pool_mean, pool_sum

__all__ = ["EPiC", "EdgeConv", "TNet", "knn", "pool_max", "pool_mean", "pool_sum", "shared_first"]
