"""Set layers: equivariant point cloud layers (EPiC) and PointNet's learned alignment."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsegen.points.pool import pool_max, pool_mean, pool_sum

__all__ = ["EPiC", "TNet", "shared_first"]


def shared_first(linear: nn.Linear, local: Tensor, shared: Tensor, batch: Tensor) -> Tensor:
    """``linear([local, shared[batch]])`` without the concatenation: the shared part is multiplied once an event.

    Args:
        linear: A layer over ``H + G`` inputs.
        local: ``(N, H)``.
        shared: ``(B, G)``.
        batch: The event of each row ``(N,)``.
    """
    split = local.shape[1]
    return F.linear(local, linear.weight[:, :split], linear.bias) + F.linear(shared, linear.weight[:, split:])[batch]


class EPiC(nn.Module):
    r"""One equivariant point cloud layer: the event's vector sees pooled points, then each point sees the vector.

    .. math:: g' = g + \phi_g(\mathrm{mean}_i x_i, \mathrm{sum}_i x_i / h, g), \qquad x_i' = x_i + \phi_x(x_i, g')

    References:
        EPiC-GAN: Equivariant Point Cloud Generation for Particle Jets (Buhmann, Kasieczka, Thaler, 2023),
        https://arxiv.org/abs/2301.08128

    Args:
        hidden: Width H of points.
        shared: Width G of the event's vector.
        hits: Typical hits per event, the unit ``h`` of the sum.
    """

    def __init__(self, hidden: int, shared: int, hits: float) -> None:
        super().__init__()
        self.gather = nn.Linear(2 * hidden + shared, hidden)
        self.update = nn.Linear(hidden, shared)
        self.tell = nn.Linear(hidden + shared, hidden)
        self.local = nn.Linear(hidden, hidden)
        self.hits = hits

    def forward(self, x: Tensor, g: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Points ``(N, H)`` and event vectors ``(B, G)`` to new ones."""
        summed = pool_sum(x, batch, len(g))
        pooled = torch.cat([pool_mean(x, batch, len(g)), summed / self.hits, g], 1)
        g = F.leaky_relu(g + self.update(F.leaky_relu(self.gather(pooled), 0.1)), 0.1)
        x = F.leaky_relu(x + self.local(F.leaky_relu(shared_first(self.tell, x, g, batch), 0.1)), 0.1)
        return x, g


class TNet(nn.Module):
    r"""A learned linear map of each event's points, started at the identity.

    References:
        PointNet: Deep Learning on Point Sets for 3D Classification and Segmentation (Qi, Su, Mo, Guibas, 2017),
        https://arxiv.org/abs/1612.00593

    Args:
        dim: Width K of the rows that are mapped.
        width: Width of its own layers.
    """

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.dim = dim
        self.points = nn.Sequential(nn.Linear(dim, width), nn.ReLU(), nn.Linear(width, 2 * width), nn.ReLU())
        self.matrix = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, dim * dim))
        last = self.matrix[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, x: Tensor, batch: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Rows ``(N, K)`` to mapped rows, and the penalty ``||I - A A^T||^2`` of each event ``(B,)``."""
        pooled = pool_max(self.points(x), batch, size)
        eye = torch.eye(self.dim, dtype=pooled.dtype, device=x.device)
        a = self.matrix(pooled).view(size, self.dim, self.dim) + eye
        penalty = (eye - a @ a.transpose(1, 2)).square().sum((1, 2))
        return torch.einsum("nk,nkl->nl", x, a[batch]), penalty
