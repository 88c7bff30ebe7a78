"""Permutation-invariant pooling over ragged events, differentiable twice; empty events pool to zero."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["pool_max", "pool_mean", "pool_sum"]


def pool_sum(x: Tensor, batch: Tensor, size: int) -> Tensor:
    """Sum of rows ``(N, H)`` over each of ``size`` events ``(B, H)``."""
    return x.new_zeros(size, x.shape[1]).index_add(0, batch, x)


def pool_mean(x: Tensor, batch: Tensor, size: int) -> Tensor:
    """Mean of rows ``(N, H)`` over each event ``(B, H)``."""
    counts = torch.zeros(size, dtype=torch.int64, device=x.device).index_add(0, batch, torch.ones_like(batch))
    return pool_sum(x, batch, size) / counts.clamp(min=1)[:, None].to(x.dtype)


def pool_max(x: Tensor, batch: Tensor, size: int) -> Tensor:
    """Largest entry of rows ``(N, H)`` over each event ``(B, H)``."""
    index = batch[:, None].expand_as(x)
    return x.new_zeros(size, x.shape[1]).scatter_reduce(0, index, x, "amax", include_self=False)
