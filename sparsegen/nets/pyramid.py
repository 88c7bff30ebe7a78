"""The resolutions that a lattice is taken through, shared by the dense and the sparse family."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsegen.grid import Grid

__all__ = ["Pyramid"]


@dataclass(frozen=True)
class Pyramid:
    """Halvings of a lattice down to about four cells an axis.

    Args:
        shapes: Shapes from the finest to the coarsest; the finest covers the lattice and may exceed it.
        strides: One stride an axis between neighbouring shapes; a periodic axis halves only where that is exact.
        periodic: Which axes wrap.

    Example:
        >>> Pyramid.of(Grid.regular((25, 16), (0, 0), (1, 1), periodic=(1,))).shapes
        ((28, 16), (14, 8), (7, 4))
    """

    shapes: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    periodic: tuple[bool, ...]

    @classmethod
    def of(cls, grid: Grid, coarsest: int = 4) -> Pyramid:
        """The halvings of a grid, until no axis has twice ``coarsest`` cells."""
        sizes, strides = list(grid.shape), []
        while True:
            halves = [
                n >= 2 * coarsest and not (wraps and n % 2) for n, wraps in zip(sizes, grid.periodic, strict=True)
            ]
            if not any(halves):
                break
            strides.append(tuple(2 if half else 1 for half in halves))
            sizes = [-(-n // 2) if half else n for n, half in zip(sizes, halves, strict=True)]
        shapes = [tuple(sizes)]
        for stride in reversed(strides):
            shapes.append(tuple(n * s for n, s in zip(shapes[-1], stride, strict=True)))
        return cls(tuple(reversed(shapes)), tuple(strides), grid.periodic)

    @property
    def depth(self) -> int:
        """Number of halvings."""
        return len(self.strides)

    def possible(self, grid: Grid) -> list[Tensor]:
        """Which cells of each shape hold a valid cell of the grid, finest first, as boolean arrays."""
        mask = torch.ones(grid.shape, dtype=torch.bool) if grid.valid is None else grid.valid
        padding = [p for n, m in zip(reversed(self.shapes[0]), reversed(grid.shape), strict=True) for p in (0, n - m)]
        masks = [F.pad(mask, padding)]
        for shape, stride in zip(self.shapes[1:], self.strides, strict=True):
            split = [v for n, s in zip(shape, stride, strict=True) for v in (n, s)]
            masks.append(masks[-1].view(split).amax(dim=tuple(range(1, 2 * len(shape), 2))))
        return masks
