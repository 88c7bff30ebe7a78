r"""In which cell a point lies: :math:`\arg\max_i \langle x, y_i \rangle + h_i`, never with all scores in memory.

On the CPU the product and the arg-max run in NumPy, whose vectorised arg-max is several times faster than torch's.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["best_cells", "cell_of", "two_best"]

ROWS, COLUMNS = 512, 8192
"""A tile of scores: its product is large enough for the matrix unit and small enough for the cache."""


def cell_of(x: Tensor, targets: Tensor, heights: Tensor) -> tuple[Tensor, Tensor]:
    """The cell of every point and its score.

    Args:
        x: ``(m, d)``.
        targets: ``(n, d)``.
        heights: ``(n,)``.

    Returns:
        Index ``(m,)`` int64 and the Brenier potential ``(m,)``.
    """
    if x.device.type != "cpu":
        values, cells = best_cells(x, targets, heights, 1)
        return cells[:, 0], values[:, 0]
    left, right = _augmented(x, targets, heights)
    m, n = len(left), right.shape[1]
    index, value = np.zeros(m, np.int64), np.empty(m, left.dtype)
    buffer = np.empty((min(ROWS, m), min(COLUMNS, n)), left.dtype)
    for row in range(0, m, ROWS):
        block = left[row : row + ROWS]
        lines = np.arange(len(block))
        for column in range(0, n, COLUMNS):
            part = right[:, column : column + COLUMNS]
            scores = buffer[: len(block), : part.shape[1]]
            np.matmul(block, part, out=scores)
            best = scores.argmax(1)
            found = scores[lines, best]
            if column == 0:
                index[row : row + ROWS], value[row : row + ROWS] = best, found
            else:
                better = found > value[row : row + ROWS]
                index[row : row + ROWS][better] = best[better] + column
                value[row : row + ROWS][better] = found[better]
    return torch.from_numpy(index), torch.from_numpy(value)


def two_best(x: Tensor, targets: Tensor, heights: Tensor) -> Tensor:
    """How far the second-best cell is behind the best ``(m,)``: the distance to the cell's wall, times |y_i - y_j|."""
    value, _ = best_cells(x, targets, heights, 2)
    return value[:, 0] - value[:, 1]


def best_cells(x: Tensor, targets: Tensor, heights: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best cells of every point, best first.

    Args:
        x: ``(m, d)``.
        targets: ``(n, d)``.
        heights: ``(n,)``.
        k: At most n.

    Returns:
        Scores ``(m, k)`` and indices ``(m, k)``.
    """
    columns = COLUMNS if x.device.type == "cpu" else 1 << 18
    rows = ROWS if x.device.type == "cpu" else max(1, (1 << 30) // (4 * min(columns, len(targets))))
    values, indices = [], []
    for block in x.split(rows):
        value, index = x.new_empty(len(block), 0), torch.empty(len(block), 0, dtype=torch.int64, device=x.device)
        for start in range(0, len(targets), columns):
            stop = start + columns
            scores = torch.addmm(heights[start:stop], block, targets[start:stop].T)
            best, where = scores.topk(min(k, scores.shape[1]), dim=1)
            value, index = torch.cat([value, best], 1), torch.cat([index, where + start], 1)
            value, order = value.topk(min(k, value.shape[1]), dim=1)
            index = index.gather(1, order)
        values.append(value)
        indices.append(index)
    if not values:
        return x.new_empty(0, k), torch.empty(0, k, dtype=torch.int64, device=x.device)
    return torch.cat(values), torch.cat(indices)


def _augmented(x: Tensor, targets: Tensor, heights: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """``[x, 1]`` and ``[y, h]^T``: one product gives the scores."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    left = torch.cat([x.detach().to(dtype), x.new_ones(len(x), 1, dtype=dtype)], 1)
    right = torch.cat([targets.detach().to(dtype), heights.detach().to(dtype)[:, None]], 1).T.contiguous()
    return left.numpy(), right.numpy()
