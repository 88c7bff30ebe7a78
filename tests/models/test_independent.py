"""The trivial generator: every hit and every multiplicity is the data's, nothing else is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from sparsegen import models
from sparsegen.errors import ConfigError, DataError
from sparsegen.events import Events
from sparsegen.grid import Grid
from sparsegen.models import IndependentHits
from sparsegen.nets import Schema


@pytest.fixture
def events() -> Events:
    generator = torch.Generator().manual_seed(0)
    counts = torch.tensor([2, 0, 3, 5])
    return Events(
        torch.rand(10, 2, generator=generator),
        torch.rand(10, 1, generator=generator),
        torch.nn.functional.pad(counts.cumsum(0), (1, 0)),
        axes=("x", "y"),
        columns=("energy",),
        condition=torch.arange(4.0)[:, None],
        conditions=("k",),
    )


def fitted(events: Events) -> IndependentHits:
    model = models.build({"name": "independent"}, {"name": "none"}, Schema.fit(events))
    assert isinstance(model, IndependentHits)

    def batches() -> Iterator[Events]:
        yield events[:2]
        yield events[2:]

    facts = model.fit(batches, torch.Generator())
    assert facts["hits"] == 10
    return model


def test_each_hit_is_a_training_hit_and_each_count_a_training_count(events: Events) -> None:
    plain = events.with_condition(None, ())
    drawn = fitted(plain).sample(500, generator=torch.Generator().manual_seed(1))
    pool = torch.cat([plain.coords, plain.features], 1)
    rows = torch.cat([drawn.coords, drawn.features], 1)
    assert bool((rows[:, None] == pool).all(2).any(1).all())
    assert set(drawn.counts.tolist()) == {0, 2, 3, 5}


def test_condition_chooses_the_multiplicity_and_travels_with_the_events(events: Events) -> None:
    model = fitted(events)
    model.multiplicity.neighbours = 1
    drawn = model.sample(3, torch.tensor([[3.0], [0.0], [2.0]]))
    assert drawn.counts.tolist() == [5, 2, 3]
    assert drawn.conditions == ("k",)


def test_cells_stay_cells_and_merge(events: Events) -> None:
    grid = Grid.regular((2, 2), (0, 0), (1, 1), ("x", "y"))
    cells, _ = events.with_condition(None, ()).voxelize(grid)
    drawn = fitted_cells(cells).sample(50, counts=torch.full((50,), 6), generator=torch.Generator().manual_seed(0))
    assert drawn.is_cells
    assert int(drawn.counts.max()) <= 4


def fitted_cells(cells: Events) -> IndependentHits:
    model = IndependentHits(Schema.fit(cells))
    model.fit(lambda: [cells], torch.Generator())
    return model


def test_state_survives_saving(events: Events) -> None:
    model = fitted(events)
    other = IndependentHits(Schema.fit(events))
    other.load_state_dict(model.state_dict())
    a = model.sample(5, torch.zeros(5, 1), generator=torch.Generator().manual_seed(3))
    b = other.sample(5, torch.zeros(5, 1), generator=torch.Generator().manual_seed(3))
    assert torch.equal(a.coords, b.coords)
    assert torch.equal(a.offsets, b.offsets)


def test_unfitted_empty_and_mistaken_use_say_so(events: Events) -> None:
    schema = Schema.fit(events)
    with pytest.raises(DataError, match="not fitted"):
        IndependentHits(schema).sample(1)
    with pytest.raises(DataError, match="have no hits"):
        IndependentHits(schema).fit(lambda: [events[1:2]], torch.Generator())
    with pytest.raises(ConfigError, match="unknown option of model independent 'beta'"):
        models.build({"name": "independent", "beta": 1.0}, {"name": "none"}, schema)
