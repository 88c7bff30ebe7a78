"""Normalisation over active sites: no statistic sees an empty cell."""

from __future__ import annotations

import torch
from torch import nn

from sparsegen.sparse.tensor import SparseTensor

__all__ = ["BatchNorm", "InstanceNorm", "LayerNorm"]


class BatchNorm(nn.BatchNorm1d):
    """Each channel over the active sites of the whole batch."""

    def forward(self, x: SparseTensor) -> SparseTensor:  # type: ignore[override]
        """Normalised features on the same sites."""
        # Statistics of fewer than two sites do not exist.
        if self.training and len(x) < 2:
            return x
        return x.replace(super().forward(x.features))


class LayerNorm(nn.LayerNorm):
    """The channels of each site."""

    def forward(self, x: SparseTensor) -> SparseTensor:  # type: ignore[override]
        """Normalised features on the same sites."""
        return x.replace(super().forward(x.features))


class InstanceNorm(nn.Module):
    """Each channel over the active sites of its own event.

    Args:
        channels: Number of channels.
        eps: Added to the variance.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Normalised features on the same sites."""
        batch, f = x.sites.batch, x.features
        counts = torch.bincount(batch, minlength=x.batch_size).clamp(min=1)[:, None].to(f.dtype)
        zero = f.new_zeros(x.batch_size, f.shape[1])
        centred = f - (zero.index_add(0, batch, f) / counts)[batch]
        variance = zero.index_add(0, batch, centred.square()) / counts
        return x.replace(centred * (variance + self.eps).rsqrt()[batch] * self.weight + self.bias)
