"""What a run says when a step goes wrong."""

from __future__ import annotations

from typing import Any

import torch

from sparsegen.events import Events
from sparsegen.models.base import Model, Optimizers

__all__ = ["divergence", "is_out_of_memory", "memory_message"]


def divergence(model: Model, optimizers: Optimizers, events: Events) -> dict[str, Any]:
    """What is known of a step whose loss or gradient was not finite, ready for JSON."""
    finite = torch.cat([events.features, events.positions], 1).isfinite().all(1)
    bad = torch.zeros(len(events), device=events.device).index_add(0, events.batch, (~finite).float()) > 0
    return {
        "losses": {name: repr(value) for name, value in optimizers.losses.items()},
        "gradient_norms": {name: repr(value) for name, value in optimizers.norms.items()},
        "events": events.ids.tolist(),
        "hits": events.counts.tolist(),
        "events_not_finite": events.ids[bad].tolist(),
        "parameters_not_finite": [n for n, p in model.named_parameters() if not bool(p.isfinite().all())],
    }


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on any device."""
    phrases = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, MemoryError) or any(phrase in str(error) for phrase in phrases)


def memory_message(step: int, events: Events) -> str:
    """Names the batch, its largest event and what to change."""
    largest = int(events.counts.argmax())
    return (
        f"out of memory on {events.device} at step {step}: a batch of {len(events)} events with {len(events.coords)} "
        f"hits, the largest being event {int(events.ids[largest])} with {int(events.counts[largest])} hits; lower "
        "training.batch or network.parameters, use training.precision=bf16-mixed, or leave out events that large"
    )
