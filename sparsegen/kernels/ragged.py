"""Ragged batches as the kernels take them, and the torch forms of the same arithmetic."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sparsegen.errors import DataError

__all__ = ["chunks", "flat_points", "pad", "pair_squares", "shared_dtype", "squares_between"]

_PAIRS = 1 << 21
"""Distances held at a time by the torch engine."""


def shared_dtype(a: Tensor, b: Tensor) -> torch.dtype:
    """float64 if either is, else float32: half precision is computed in float32."""
    return torch.float64 if torch.float64 in (a.dtype, b.dtype) else torch.float32


def flat_points(points: Tensor, offsets: Tensor, dtype: torch.dtype, what: str) -> tuple[Tensor, Tensor]:
    """Points ``(N, D)`` contiguous and without gradient, offsets ``(B + 1,)`` int64 on the same device.

    Raises:
        DataError: Shapes do not fit or offsets do not end at N.
    """
    if points.ndim != 2 or offsets.ndim != 1 or offsets.shape[0] == 0:
        raise DataError(
            f"{what}: expected points (N, D) and offsets (B + 1,), got {tuple(points.shape)} and {tuple(offsets.shape)}"
        )
    points = points.detach().to(dtype).contiguous()
    offsets = offsets.to(points.device, torch.int64).contiguous()
    if offsets.device.type == "cpu":
        ends = offsets.numpy()
        if ends[0] != 0 or ends[-1] != points.shape[0] or (ends[1:] < ends[:-1]).any():
            raise DataError(f"{what}: offsets must rise from 0 to {points.shape[0]}, got {ends[:3]} ... {ends[-1]}")
    return points, offsets


def pad(points: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Padded points ``(B, n, D)`` and the mask of real ones ``(B, n)``."""
    counts = offsets.diff()
    longest = int(counts.max()) if counts.numel() else 0
    slots = torch.arange(longest, device=points.device)
    real = slots < counts[:, None]
    padded = points.new_zeros(counts.numel(), longest, points.shape[1])
    padded[real] = points
    return padded, real


def chunks(count: int, pairs: int) -> Iterator[slice]:
    """Slices of ``count`` items of ``pairs`` distances each that fit the memory the torch engine allows itself."""
    step = max(1, _PAIRS // max(pairs, 1))
    for begin in range(0, count, step):
        yield slice(begin, begin + step)


def pair_squares(x: Tensor, y: Tensor, period: Tensor | None) -> Tensor:
    """Squared distances along the last axis, in the native kernels' order of operations: equal to the last bit."""
    total = torch.zeros_like(x[..., 0] - y[..., 0])
    for d in range(x.shape[-1]):
        difference = y[..., d] - x[..., d]
        if period is not None and period[d] > 0:
            difference = difference - torch.round(difference * (1 / period[d])) * period[d]
        total = total + difference * difference
    return total


def squares_between(x: Tensor, y: Tensor, real_y: Tensor, period: Tensor | None) -> Tensor:
    """Squared distances ``(B, n, m)`` of padded points ``(B, n, D)``, ``(B, m, D)``; inf where y is padding or NaN."""
    squares = pair_squares(x[:, :, None], y[:, None], period)
    return torch.where((squares < torch.inf) & real_y[:, None], squares, torch.inf)
