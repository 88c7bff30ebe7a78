"""The collapse monitor: a few generated events held against as many real ones."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsegen.events import Events

__all__ = ["collapse"]


def collapse(generated: Events, real: Events) -> dict[str, float]:
    """Ratios of generated over real: 1 is right, towards 0 is collapse.

    Args:
        generated: Sampled events.
        real: Events of the data, of the same columns.

    Returns:
        ``hits`` and ``hits_spread``: mean and standard deviation of hits per event; ``total_NAME`` and
        ``total_NAME_spread``: the same of each additive column's sum; ``spread_NAME``: standard deviation over hits
        of each column and axis; ``diversity``: that of the event means, averaged over columns and axes. A ratio whose
        real side is zero is left out.

    Example:
        >>> hits = Events(torch.rand(4, 1), torch.rand(4, 1), torch.tensor([0, 2, 4]), axes="x", columns=["energy"])
        >>> set(collapse(hits, hits).values())
        {1.0}
    """
    one, two = _summary(generated), _summary(real)
    return {name: float(one[name] / two[name]) for name in one if name in two and float(two[name]) > 0}


def _summary(events: Events) -> dict[str, Tensor]:
    counts = events.counts.double()
    result = {"hits": counts.mean(), "hits_spread": _std(counts)}
    for column in events.columns:
        if column.additive:
            total = events.total(column.name).double()
            result[f"total_{column.name}"] = total.mean()
            result[f"total_{column.name}_spread"] = _std(total)
    values = torch.cat([events.features, events.positions], 1).double()
    names = [c.name for c in events.columns] + list(events.axes)
    for i, name in enumerate(names):
        result[f"spread_{name}"] = _std(values[:, i])
    filled = counts > 0
    means = events.sum_hits(values)[filled] / counts[filled, None]
    result["diversity"] = means.std(0, correction=0).mean() if len(means) else values.new_zeros(())
    return result


def _std(x: Tensor) -> Tensor:
    return x.std(correction=0) if len(x) else x.new_zeros(())
