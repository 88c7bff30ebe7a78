"""Plain padded arrays of jets and of point clouds, as events."""

from __future__ import annotations

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from sparsegen.errors import DataError
from sparsegen.events import Column, Events

__all__ = ["clouds_from_arrays", "jets_from_arrays"]


def _tensor(values: ArrayLike | Tensor) -> Tensor:
    """A copy on the CPU: the caller's array is never touched."""
    found = values.detach().cpu() if isinstance(values, Tensor) else torch.as_tensor(values)
    return found.clone()


def jets_from_arrays(jets: ArrayLike | Tensor, mask: ArrayLike | Tensor | None = None) -> Events:
    """Jets from a padded array in the field's usual order: eta, phi, pt and perhaps a mask.

    Args:
        jets: ``(B, N, 3)``, or ``(B, N, 4)`` with the mask last; an array or a tensor.
        mask: ``(B, N)`` or ``(B, N, 1)``: non-zero (above 0 for masks stored as -0.5 and 0.5) where a particle is real.
            Without any mask, particles whose features are all zero are padding.

    Raises:
        DataError: Shapes that do not fit, or two masks.

    Example:
        >>> jets_from_arrays([[[0.1, 0.2, 0.7], [0.0, 0.0, 0.0]]])
        Events(1 events, 1 points, axes etarel phirel, columns ptrel)
    """
    x = _tensor(jets)
    if x.ndim != 3 or x.shape[2] not in (3, 4) or not x.is_floating_point():
        raise DataError(
            f"jets of shape {tuple(x.shape)} and type {x.dtype}; expected floats (B, N, 3): eta, phi, pt, or (B, N, 4)"
        )
    if x.shape[2] == 4:
        if mask is not None:
            raise DataError("jets have a fourth feature, their mask, and another mask is given; pass one of them")
        mask, x = x[..., 3], x[..., :3]
    if mask is None:
        real = (x != 0).any(2)
    else:
        held = _tensor(mask)
        held = held[..., 0] if held.ndim == 3 else held
        if held.shape != x.shape[:2]:
            raise DataError(f"a mask of shape {tuple(held.shape)} for jets of shape {tuple(x.shape)}")
        real = held > 0
    return Events.from_padded(x[..., :2], x[..., 2:], real, axes=("etarel", "phirel"), columns=(Column("ptrel"),))


def clouds_from_arrays(clouds: ArrayLike | Tensor) -> Events:
    """Point clouds from an array ``(B, N, D)``; every point has weight one.

    Raises:
        DataError: Another shape, or no floats.

    Example:
        >>> clouds_from_arrays([[[0.0, 0.5, 1.0], [1.0, 1.0, 1.0]]])
        Events(1 events, 2 points, axes x y z, columns weight)
    """
    x = _tensor(clouds)
    if x.ndim != 3 or not x.is_floating_point() or x.shape[2] < 1:
        raise DataError(f"clouds of shape {tuple(x.shape)} and type {x.dtype}; expected floats (B, N, D)")
    size, points, dim = x.shape
    axes = ("x", "y", "z")[:dim] if dim <= 3 else tuple(f"x{i}" for i in range(dim))
    flat = x.reshape(-1, dim)
    return Events(flat, torch.ones_like(flat[:, :1]), torch.arange(size + 1) * points, axes=axes, columns=("weight",))
