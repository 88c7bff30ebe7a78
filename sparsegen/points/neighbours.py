"""Neighbour lists of ragged events, and the torch-geometric layer that uses them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.nn import EdgeConv as GraphEdgeConv

__all__ = ["EdgeConv", "knn"]


def knn(x: Tensor, offsets: Tensor, k: int) -> Tensor:
    """The ``k`` nearest other points of each point within its event.

    Distances are taken in the padded batch, which suits events of up to a few thousand points.

    Args:
        x: ``(N, D)``.
        offsets: ``(B + 1,)``.
        k: Neighbours; events with fewer other points give as many as they have.

    Returns:
        Edges ``(2, E)`` int64: row 0 the neighbour, row 1 the point.
    """
    counts = offsets.diff()
    size, longest = len(counts), int(counts.max()) if len(counts) else 0
    if longest < 2:
        return torch.zeros(2, 0, dtype=torch.int64, device=x.device)
    batch = torch.repeat_interleave(torch.arange(size, device=x.device), counts)
    slot = torch.arange(len(x), device=x.device) - offsets[:-1][batch]
    padded = x.detach().new_zeros(size, longest, x.shape[1])
    padded[batch, slot] = x.detach()
    real = torch.arange(longest, device=x.device) < counts[:, None]
    distance = torch.cdist(padded, padded, compute_mode="donot_use_mm_for_euclid_dist")
    distance = distance.masked_fill(~real[:, None, :], torch.inf)
    distance.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    nearest, index = distance.topk(min(k, longest - 1), dim=2, largest=False)
    exists = nearest.isfinite() & real[:, :, None]
    start = offsets[:-1][:, None, None]
    centre = (torch.arange(longest, device=x.device)[None, :, None] + start).expand_as(index)
    return torch.stack([(index + start)[exists], centre[exists]])


class EdgeConv(nn.Module):
    """Dynamic edge convolution: the largest of an MLP of ``[x_i, x_j - x_i]`` over nearest neighbours.

    References:
        Dynamic Graph CNN for Learning on Point Clouds (Wang et al., 2019), https://arxiv.org/abs/1801.07829

    Args:
        in_channels: Width of a point.
        out_channels: Width of the result.
        k: Neighbours.
    """

    def __init__(self, in_channels: int, out_channels: int, k: int = 16) -> None:
        super().__init__()
        mlp = nn.Sequential(
            nn.Linear(2 * in_channels, out_channels), nn.LeakyReLU(0.2), nn.Linear(out_channels, out_channels)
        )
        self.k = k
        self.conv = GraphEdgeConv(mlp, aggr="max")

    def forward(self, x: Tensor, offsets: Tensor) -> Tensor:
        """Points ``(N, C)`` to ``(N, C')``; neighbours are found among the rows of ``x``."""
        result: Tensor = self.conv(x, knn(x, offsets, self.k))
        return result
