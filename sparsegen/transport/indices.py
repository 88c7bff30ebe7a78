"""Who is nearest to whom and who is matched with whom: integers, found without gradient by the fastest engine."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree
from torch import Tensor

from sparsegen.transport.clouds import Clouds

__all__ = ["match_points", "nearest_points"]

Array = NDArray[np.float64]


def nearest_points(a: Clouds, b: Clouds) -> tuple[Tensor, Tensor]:
    """The nearest point of the other side, event by event.

    Args:
        a: B sets of N points in all.
        b: B sets of M points in all.

    Returns:
        Rows of ``b.points`` ``(N,)`` and rows of ``a.points`` ``(M,)``, int64; -1 where the other set is empty.
    """
    x, y = _wrapped(a), _wrapped(b)
    rows, columns = a.offsets.tolist(), b.offsets.tolist()
    to_b, to_a = np.full(len(x), -1, np.int64), np.full(len(y), -1, np.int64)
    box = _box(a)
    for i in range(len(a)):
        low, high, left, right = rows[i], rows[i + 1], columns[i], columns[i + 1]
        if low == high or left == right:
            continue
        to_b[low:high] = cKDTree(y[left:right], boxsize=box).query(x[low:high])[1] + left
        to_a[left:right] = cKDTree(x[low:high], boxsize=box).query(y[left:right])[1] + low
    device = a.points.device
    return torch.from_numpy(to_b).to(device), torch.from_numpy(to_a).to(device)


def match_points(a: Clouds, b: Clouds) -> Tensor:
    """The one-to-one matching of least total distance, event by event.

    Args:
        a: B sets of N points in all.
        b: B sets with as many points each.

    Returns:
        The row of ``b.points`` that each point of ``a`` is matched with ``(N,)``, int64.
    """
    rows = a.offsets.tolist()
    partner = torch.empty(a.points.shape[0], dtype=torch.int64)
    x, y = a.points.detach().double().cpu(), b.points.detach().double().cpu()
    for low, high in pairwise(rows):
        cost = a.difference(x[low:high, None], y[None, low:high]).norm(dim=2)
        partner[low:high] = torch.from_numpy(linear_sum_assignment(cost.numpy())[1]) + low
    return partner.to(a.points.device)


def _box(clouds: Clouds) -> Array | None:
    """The period of each axis for the tree, 0 for an axis that does not wrap."""
    return np.where(np.isfinite(clouds.period), clouds.period, 0.0) if clouds.periodic else None


def _wrapped(clouds: Clouds) -> Array:
    """Positions with the axes that wrap taken into [0, period)."""
    points: Array = clouds.points.detach().double().cpu().numpy()
    if not clouds.periodic:
        return points
    period = np.asarray(clouds.period)
    wraps = np.isfinite(period)
    points = points.copy()
    turned = np.mod(points[:, wraps], period[wraps])
    # the remainder of a tiny negative number rounds up to the period itself
    points[:, wraps] = np.where(turned >= period[wraps], 0.0, turned)
    return points
