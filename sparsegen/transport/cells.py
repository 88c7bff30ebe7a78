r"""In which cells a point lies: :math:`\arg\max_i \langle x, y_i \rangle + h_i`, never with all scores in memory."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsegen.kernels import CellSearch

__all__ = ["best_cells", "cell_of"]

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
    found = CellSearch(targets).best(x, heights)
    return found.cells, found.scores


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
