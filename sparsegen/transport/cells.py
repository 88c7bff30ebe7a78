"""The best few cells of every point, never with all scores in memory; `sparsegen.kernels.CellSearch` finds the best."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["best_cells"]

ROWS, COLUMNS = 512, 8192
"""A tile of scores on the CPU."""
ELEMENTS_ON_DEVICE = 1 << 28


def best_cells(x: Tensor, targets: Tensor, heights: Tensor, k: int) -> tuple[Tensor, Tensor]:
    r"""The k cells of highest :math:`\langle x, y_i \rangle + h_i`, best first.

    Args:
        x: ``(m, d)``.
        targets: ``(n, d)``.
        heights: ``(n,)``.
        k: At most n.

    Returns:
        Scores ``(m, k)`` and indices ``(m, k)``.
    """
    rows, columns = ROWS, COLUMNS
    if x.device.type != "cpu":
        columns = len(targets)
        rows = max(1, ELEMENTS_ON_DEVICE // columns)
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
