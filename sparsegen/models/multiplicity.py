"""The law of the number of hits, modelled apart from what the hits are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from sparsegen.errors import DataError
from sparsegen.events import Events

__all__ = ["EmpiricalMultiplicity"]


class EmpiricalMultiplicity(nn.Module):
    """``p(N | condition)`` as the training set has it: the count of a nearby training event, drawn at random.

    Learning how many hits there are inside a GAN is known to fail (Kansal et al. 2021,
    https://arxiv.org/abs/2106.11535), so the number is drawn apart and passed to the decoder.

    Args:
        neighbours: Training events nearest in the standardised condition among which one is drawn.
    """

    def __init__(self, neighbours: int = 20) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.counts = torch.zeros(0, dtype=torch.int64)
        self.condition: Tensor | None = None

    def get_extra_state(self) -> dict[str, Any]:
        return {"counts": self.counts, "condition": self.condition}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.counts, self.condition = state["counts"], state["condition"]

    def fit(self, batches: Callable[[], Iterable[Events]], generator: torch.Generator) -> dict[str, Any]:
        """Keeps the counts and conditions of the training events."""
        counts, conditions = [], []
        for events in batches():
            counts.append(events.counts.cpu())
            if events.condition is not None:
                conditions.append(events.condition.detach().cpu())
        self.counts = torch.cat(counts)
        self.condition = torch.cat(conditions) if conditions else None
        return {"events": len(self.counts), "mean": float(self.counts.double().mean())}

    def sample(self, n: int, condition: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Counts ``(n,)`` for ``n`` events, under their conditions ``(n, K)`` where there are any.

        Raises:
            DataError: Not fitted yet, or fitted with conditions and asked without.
        """
        if len(self.counts) == 0:
            raise DataError("EmpiricalMultiplicity: not fitted; train the model first or pass counts=")
        if self.condition is None:
            index = torch.randint(len(self.counts), (n,), generator=generator)
            return self.counts[index]
        if condition is None:
            raise DataError("EmpiricalMultiplicity: fitted under conditions; pass condition=")
        scale = self.condition.std(0).clamp(min=1e-12)
        k = min(self.neighbours, len(self.counts))
        chosen = []
        for rows in condition.detach().cpu().split(1024):
            distance = torch.cdist(rows / scale, self.condition / scale)
            nearest = distance.topk(k, largest=False).indices
            pick = torch.randint(k, (len(rows), 1), generator=generator)
            chosen.append(nearest.gather(1, pick)[:, 0])
        return self.counts[torch.cat(chosen)]
