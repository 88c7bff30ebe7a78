r"""The Brenier potential of semi-discrete transport, :math:`\max_j \langle x, y_j\rangle + h_j`, and who attains it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparsegen.errors import DataError
from sparsegen.kernels.native import extension, resolve, threads

__all__ = ["Best", "CellSearch"]

_ENGINES = ("native", "numpy", "torch")

# A tile of scores: its product is large enough for the matrix unit and small enough for the cache.
_ROWS, _COLUMNS = 512, 8192
_ELEMENTS_ON_DEVICE = 1 << 28


class Best(NamedTuple):
    """The best cell of every point.

    Args:
        cells: ``(m,)`` int64.
        scores: ``(m,)``, the potential.
        seconds: ``(m,)``, the second-best score, ``-inf`` where there is one cell; empty if not asked for.
    """

    cells: Tensor
    scores: Tensor
    seconds: Tensor


class CellSearch:
    r"""Finds the cell :math:`\arg\max_j \langle x, y_j\rangle + h_j` of many points, for heights that change.

    The matrix of scores is never in memory: the native engine folds each register tile of the product into running
    maxima. Scores agree between engines and instruction sets to rounding, so a point within rounding of a wall may
    fall on either side of it. No gradient.

    Args:
        targets: ``(n, d)`` float32 or float64, n > 0; also the type that points and heights are compared in.
        engine: ``native`` (CPU), ``numpy`` (CPU), ``torch`` (any device), or ``auto``.

    Raises:
        DataError: Targets of another shape or type.
        ConfigError: Unknown engine.
        BackendError: The engine cannot be used here.

    Example:
        >>> search = CellSearch(torch.tensor([[-1.0], [0.0], [1.0]]))
        >>> search.best(torch.tensor([[-3.0], [0.1], [2.0]]), torch.tensor([0.0, 0.5, 0.0])).cells
        tensor([0, 1, 2])
    """

    def __init__(self, targets: Tensor, engine: str = "auto") -> None:
        if targets.ndim != 2 or 0 in targets.shape or targets.dtype not in (torch.float32, torch.float64):
            raise DataError(
                f"CellSearch: targets of shape {tuple(targets.shape)}, {targets.dtype}; "
                "expected (n, d) float32 or float64"
            )
        self.engine = resolve(engine, _ENGINES, (targets,), "numpy" if targets.device.type == "cpu" else "torch")
        self.size, self._dim = targets.shape
        targets = targets.detach().contiguous()
        if self.engine == "native":
            pack = getattr(extension(), f"pack_cells_{self._suffix(targets)}")
            self.packed = targets.new_empty(pack(targets.data_ptr(), *targets.shape, 0))
            pack(targets.data_ptr(), *targets.shape, self.packed.data_ptr())
        elif self.engine == "numpy":
            # one more coordinate holds the heights: one product gives the scores
            self.packed = torch.cat([targets.T, targets.new_zeros(1, len(targets))]).contiguous()
        else:
            self.packed = targets

    def best(self, x: Tensor, heights: Tensor, second: bool = False) -> Best:
        """The best cell of every point; ties go to the lowest index.

        Args:
            x: ``(m, d)``; one with a NaN may get any cell.
            heights: ``(n,)``.
            second: Whether to find the second-best score, too.

        Raises:
            DataError: Shapes that do not fit the targets.
        """
        x, heights = self.prepared(x, heights)
        if self.engine == "native":
            return self._native(x, heights, second)
        return self._numpy(x, heights, second) if self.engine == "numpy" else self._torch(x, heights, second)

    def prepared(self, x: Tensor, heights: Tensor) -> tuple[Tensor, Tensor]:
        """Points and heights as the kernels want them: contiguous, in the targets' type and on their device.

        Raises:
            DataError: Shapes that do not fit the targets.
        """
        if x.ndim != 2 or x.shape[1] != self._dim or heights.shape != (self.size,):
            raise DataError(
                f"CellSearch: points {tuple(x.shape)} and heights {tuple(heights.shape)} "
                f"for targets {(self.size, self._dim)}"
            )
        return x.detach().to(self.packed).contiguous(), heights.detach().to(self.packed).contiguous()

    @staticmethod
    def _suffix(tensor: Tensor) -> str:
        return "f64" if tensor.dtype == torch.float64 else "f32"

    def _native(self, x: Tensor, heights: Tensor, second: bool) -> Best:
        found = Best(torch.empty(len(x), dtype=torch.int64), x.new_empty(len(x)), x.new_empty(len(x) if second else 0))
        getattr(extension(), f"best_cells_{self._suffix(x)}")(
            x.data_ptr(),
            self.packed.data_ptr(),
            heights.data_ptr(),
            len(x),
            self.size,
            self._dim,
            found.cells.data_ptr(),
            found.scores.data_ptr(),
            found.seconds.data_ptr() if second else 0,
            threads(),
        )
        return found

    def _numpy(self, x: Tensor, heights: Tensor, second: bool) -> Best:
        self.packed[-1] = heights
        left, right = torch.cat([x, x.new_ones(len(x), 1)], 1).numpy(), self.packed.numpy()
        m, n = len(left), right.shape[1]
        cells = np.zeros(m, np.int64)
        scores = np.full(m, -np.inf, left.dtype)
        seconds = np.full(m if second else 0, -np.inf, left.dtype)
        buffer = np.empty((min(_ROWS, m), min(_COLUMNS, n)), left.dtype)
        for row in range(0, m, _ROWS):
            block, here = left[row : row + _ROWS], slice(row, row + _ROWS)
            lines = np.arange(len(block))
            for column in range(0, n, _COLUMNS):
                part = right[:, column : column + _COLUMNS]
                tile = np.matmul(block, part, out=buffer[: len(block), : part.shape[1]])
                # numpy's vectorised arg-max is several times faster than torch's
                at = tile.argmax(1)
                value = tile[lines, at]
                if second:
                    tile[lines, at] = -np.inf
                    rest = np.maximum(tile.max(1), np.minimum(value, scores[here]))
                    seconds[here] = np.maximum(seconds[here], rest)
                better = value > scores[here]
                cells[here] = np.where(better, at + column, cells[here])
                scores[here] = np.where(better, value, scores[here])
        return Best(torch.from_numpy(cells), torch.from_numpy(scores), torch.from_numpy(seconds))

    def _torch(self, x: Tensor, heights: Tensor, second: bool) -> Best:
        rows = max(1, _ELEMENTS_ON_DEVICE // self.size)
        found = []
        for block in x.split(rows):
            scores = torch.addmm(heights, block, self.packed.T)
            value, cell = scores.max(1)
            rest = value[:0]
            if second:
                rest = scores.scatter_(1, cell[:, None], -torch.inf).amax(1)
            found.append(Best(cell, value, rest))
        if not found:
            return Best(torch.empty(0, dtype=torch.int64, device=x.device), x.new_empty(0), x.new_empty(0))
        return Best(*(torch.cat(part) for part in zip(*found, strict=True)))
