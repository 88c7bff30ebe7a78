"""The contract of generative models in one call."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from sparsegen.events import Events
from sparsegen.models.base import FitStage, GradientStage, Model, Optimizers

__all__ = ["assert_model"]

MakeEvents = Callable[[list[int]], Events]


def assert_model(model: Model, make_events: MakeEvents) -> None:
    """Checks a model: its stages train it, it samples what is asked for, and its state restores it.

    Every stage is run once, a gradient stage with one step of Adam; the model is trained a little by this.

    Args:
        model: A model that has not been trained.
        make_events: Hit counts to random events of the model's data: ``make_events([3, 1, 5])`` gives a batch of three.

    Raises:
        AssertionError: Says which promise is broken.

    Example:
        >>> from sparsegen.models import IndependentHits
        >>> from sparsegen.nets import Schema
        >>> def make_events(counts):
        ...     n, offsets = sum(counts), torch.tensor([0, *counts]).cumsum(0)
        ...     return Events(torch.rand(n, 2), torch.rand(n, 1), offsets, axes="xy", columns=["energy"])
        >>> assert_model(IndependentHits(Schema.fit(make_events([5]))), make_events)
    """
    fresh = copy.deepcopy(model)
    batches = [make_events([3, 5, 4, 6, 2, 4]), make_events([5, 3, 7, 1, 4, 4])]
    _assert_stages(model, batches)
    _assert_samples(model, batches[0])
    _assert_codes(model, batches[0])

    fresh.load_state_dict(model.state_dict())
    condition = batches[0].condition
    again, made = (m.sample(6, condition, generator=_seeded(7)) for m in (fresh, model))
    assert _same(again, made), "a model restored from state_dict samples other events"


def _assert_stages(model: Model, batches: list[Events]) -> None:
    moved = tuple(f"{child}." for children in model.optimized.values() for child in children)
    idle = [name for name, p in model.named_parameters() if p.requires_grad and not name.startswith(moved)]
    assert not idle, f"no optimiser moves {', '.join(idle)}"
    optimizers = Optimizers(
        {
            name: torch.optim.Adam([p for child in children for p in model.get_submodule(child).parameters()], lr=1e-3)
            for name, children in model.optimized.items()
        }
    )
    generator = _seeded(1)
    for stage in model.stages:
        if isinstance(stage, FitStage):
            _assert_scalars(stage.name, stage.fit(lambda: iter(batches), generator))
            continue
        assert isinstance(stage, GradientStage), f"stage {stage!r} is neither a GradientStage nor a FitStage"
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        _assert_scalars(stage.name, stage.step(batches[0], optimizers, generator))
        after = dict(model.named_parameters())
        stuck = [name for name, value in before.items() if torch.equal(value, after[name])]
        # A parameter may have a zero gradient in one step; a network that does not move at all is not trained.
        for child in {child for children in model.optimized.values() for child in children}:
            mine = [name for name in before if name.startswith(child + ".")]
            assert not mine or set(mine) - set(stuck), f"one step of stage {stage.name} leaves {child} as it was"


def _assert_scalars(stage: str, log: dict[str, Any]) -> None:
    for name, value in log.items():
        if isinstance(value, Tensor):
            assert value.ndim == 0 and not value.requires_grad, f"{stage}: {name} is not a detached scalar"
        assert math.isfinite(float(value)), f"{stage}: {name} is {float(value)}"


def _assert_samples(model: Model, like: Events) -> None:
    n, condition = len(like), like.condition
    made = model.sample(n, condition, generator=_seeded(2))
    assert len(made) == n, f"asked for {n} events, got {len(made)}"
    assert made.axes == like.axes, f"axes are {made.axes}; expected {like.axes}"
    assert made.columns == like.columns, f"columns are {made.columns}; expected {like.columns}"
    assert not made.features.requires_grad, "what is sampled carries a graph"
    assert bool(made.features.isfinite().all()) and bool(made.coords.isfinite().all()), "a sampled hit is not finite"
    if condition is not None:
        assert made.condition is not None and torch.equal(made.condition, condition), "the condition is not stamped"
        assert made.conditions == like.conditions, f"conditions are {made.conditions}; expected {like.conditions}"
    assert _same(model.sample(n, condition, generator=_seeded(2)), made), "the same seed gives other events"
    assert not _same(model.sample(n, condition, generator=_seeded(3)), made), "another seed gives the same events"

    counts = torch.tensor([2, 1, 4, 3, 5, 1])
    asked = model.sample(n, condition, counts=counts, generator=_seeded(4)).counts
    # A model without a decoder may draw one cell twice; the two are then one hit.
    exact = "decoder" in model.roles or not made.is_cells
    respected = bool((asked == counts).all()) if exact else bool((asked <= counts).all())
    assert respected, f"asked for {counts.tolist()} hits, got {asked.tolist()}"


def _assert_codes(model: Any, events: Events) -> None:
    """Checks encoding, reconstruction and interpolation, each where the model has it."""
    if hasattr(model, "encode"):
        codes = model.encode(events)
        assert codes.ndim == 2 and len(codes) == len(events), f"codes of {len(events)} events are {codes.shape}"
        assert torch.equal(model.encode(events), codes), "encoding an event twice gives two codes"
    if hasattr(model, "reconstruct"):
        back = model.reconstruct(events, generator=_seeded(5))
        assert len(back) == len(events) and back.columns == events.columns, "a reconstruction is of another kind"
        assert _same(model.reconstruct(events, generator=_seeded(5)), back), "the same seed reconstructs otherwise"
    if hasattr(model, "interpolate") and hasattr(model, "prior"):
        n = len(events)
        a, b = (model.prior(n, events.condition, _seeded(seed)) for seed in (1, 2))
        options = {"condition": events.condition, "counts": events.counts}
        path = model.interpolate(a, b, 3, generator=_seeded(6), **options)
        back = model.interpolate(b, a, 3, generator=_seeded(6), **options)
        assert [len(step) for step in path] == [n] * 3, f"three steps between {n} events are {path}"
        assert all(_same(x, y) for x, y in zip(path[::2], back[::-2], strict=True)), "the way back has other ends"


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _same(a: Events, b: Events) -> bool:
    fields: Iterator[tuple[Tensor, Tensor]] = (
        (getattr(a, f), getattr(b, f)) for f in ("offsets", "coords", "features")
    )
    return all(torch.equal(x, y) for x, y in fields)
