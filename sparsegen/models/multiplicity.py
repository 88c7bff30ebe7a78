"""The law of the number of hits, modelled apart from what the hits are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from sparsegen.errors import DataError
from sparsegen.events import Events

__all__ = ["EmpiricalMultiplicity", "on_cpu"]


class EmpiricalMultiplicity(nn.Module):
    """``p(N | condition)`` as the training set has it: the count of a nearby training event, drawn at random.

    Learning how many hits there are inside a GAN is known to fail (Kansal et al. 2021,
    https://arxiv.org/abs/2106.11535), so the number is drawn apart and passed to the decoder.

    Args:
        neighbours: Training events nearest in the standardised condition among which one is drawn, with all that are
            as near as the last of them.
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

        Draws on the CPU, whatever device the generator is of.

        Raises:
            DataError: Not fitted yet, or fitted with conditions and asked without, or with too few.
        """
        generator = on_cpu(generator)
        if len(self.counts) == 0:
            raise DataError("EmpiricalMultiplicity: not fitted; train the model first or pass counts=")
        if self.condition is None:
            index = torch.randint(len(self.counts), (n,), generator=generator)
            return self.counts[index]
        if condition is None or len(condition) != n:
            given = "none" if condition is None else f"{len(condition)}"
            raise DataError(f"EmpiricalMultiplicity: fitted under conditions; pass {n} rows of condition=, not {given}")
        known = self.condition.double()
        scale = known.std(0, correction=0)
        # A condition that never varied tells nothing of the count.
        weight = torch.where(scale > 0, 1 / scale, torch.zeros_like(scale))
        k = min(self.neighbours, len(self.counts))
        chosen = []
        for rows in condition.detach().cpu().double().split(256):
            away = torch.cdist(rows * weight, known * weight, compute_mode="donot_use_mm_for_euclid_dist")
            furthest = away.kthvalue(k, dim=1, keepdim=True).values
            # All that are equally near take part: under a class label that is the whole class.
            chosen.append(torch.multinomial((away <= furthest).float(), 1, generator=generator)[:, 0])
        return self.counts[torch.cat(chosen)]


def on_cpu(generator: torch.Generator | None) -> torch.Generator | None:
    """The generator itself, or one of the CPU that is seeded by it where it is of another device."""
    if generator is None or generator.device.type == "cpu":
        return generator
    seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
    return torch.Generator().manual_seed(seed)
