"""The trivial generator: what any model that learns correlations must beat."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from sparsegen.errors import DataError
from sparsegen.events import Events
from sparsegen.models.base import FitStage, Model, Stage
from sparsegen.models.multiplicity import EmpiricalMultiplicity, on_cpu
from sparsegen.nets import Schema

__all__ = ["IndependentHits"]


class IndependentHits(Model):
    r"""Draws the number of hits from the data and each hit, independently, from the pooled training hits.

    .. math:: p(x_1, \dots, x_N) = p(N) \prod_{i=1}^N p(x_i)

    Every per-hit distribution and the multiplicity are exact; whatever binds hits to each other (the mass of a jet, its
    axis, its momentum) is absent. It has no networks and no gradient stage.

    Args:
        schema: Names of the data's axes, columns and conditions, and its lattice.

    Example:
        >>> hits = Events(torch.rand(9, 2), torch.rand(9, 1), torch.tensor([0, 4, 9]), axes="xy", columns=["energy"])
        >>> model = IndependentHits(Schema.fit(hits))
        >>> _ = model.fit(lambda: [hits], torch.Generator())
        >>> model.sample(3, counts=torch.tensor([1, 0, 2])).counts
        tensor([1, 0, 2])
    """

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        self.schema = schema
        self.multiplicity = EmpiricalMultiplicity()
        self.coords = torch.zeros(0, len(schema.axes))
        self.features = torch.zeros(0, len(schema.columns))

    @property
    def stages(self) -> tuple[Stage, ...]:
        """One fit: the pool of hits and the multiplicities."""
        return (FitStage(self.fit, "pool"),)

    @property
    def optimized(self) -> Mapping[str, tuple[str, ...]]:
        """Nothing: it has no parameters."""
        return {}

    def get_extra_state(self) -> dict[str, Tensor]:
        """The pooled hits, for checkpoints."""
        return {"coords": self.coords, "features": self.features}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Takes back what :meth:`get_extra_state` gave."""
        self.coords, self.features = state["coords"], state["features"]

    def fit(self, batches: Callable[[], Iterable[Events]], generator: torch.Generator) -> dict[str, Any]:
        """Keeps every training hit and every training multiplicity."""
        kept = [events.detach().to("cpu") for events in batches()]
        self.coords = torch.cat([events.coords for events in kept])
        self.features = torch.cat([events.features for events in kept])
        if len(self.coords) == 0:
            raise DataError("IndependentHits.fit: the training events have no hits")
        return {"hits": len(self.coords), **self.multiplicity.fit(lambda: kept, generator)}

    @torch.no_grad()
    def sample(
        self,
        n: int,
        condition: Tensor | None = None,
        *,
        counts: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Events:
        """Draws ``n`` events; see :meth:`sparsegen.models.base.Model.sample`. Draws that share a cell are merged."""
        if len(self.coords) == 0:
            raise DataError("IndependentHits: not fitted; train the model first")
        generator = on_cpu(generator)
        if counts is None:
            counts = self.multiplicity.sample(n, condition, generator)
        counts = counts.cpu()
        chosen = torch.randint(len(self.coords), (int(counts.sum()),), generator=generator)
        events = Events(
            self.coords[chosen],
            self.features[chosen],
            pad(counts.cumsum(0), (1, 0)),
            axes=self.schema.axes,
            columns=self.schema.columns,
            condition=condition,
            conditions=self.schema.conditions if condition is not None else (),
            grid=self.schema.grid,
        )
        return events.coalesce() if events.is_cells else events
