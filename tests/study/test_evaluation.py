"""One lattice for all: what is judged does not depend on how it was generated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sparsegen.data import EventsSource
from sparsegen.errors import ConfigError, DataError
from sparsegen.events import Events
from sparsegen.models import IndependentHits
from sparsegen.nets import Schema
from sparsegen.study.evaluation import Real, metrics_rows, training_time
from sparsegen.study.planner import EvaluationConfig
from sparsegen.study.runs import draw, open_source
from sparsegen.training import DataConfig


def real(toy_file: Path, **options: object) -> Real:
    evaluation = EvaluationConfig.from_dict(
        {"reference": f"{toy_file}:test", "metrics": ["w1_mass", "w1_occupied", "w1_pt"], **options}
    )
    return Real(evaluation, DataConfig(f"{toy_file}:train"))


def test_points_and_their_cells_are_judged_alike(toy_file: Path, toy_events: Callable[..., Events]) -> None:
    side = real(toy_file, lattice=[8, 8])
    points = toy_events(40, seed=5)
    assert side.reference.grid is not None
    cells, _ = points.voxelize(side.reference.grid)
    finer = points.replace(grid=side.reference.grid)
    for events in (cells, finer, cells.devoxelize("uniform", torch.Generator().manual_seed(0))):
        assert side.judge(events)[0] == side.judge(points)[0]


def test_hits_outside_the_lattice_are_counted(toy_file: Path, toy_events: Callable[..., Events]) -> None:
    side = real(toy_file, lattice=[8, 8])
    events = toy_events(10, seed=5)
    coords = events.coords.clone()
    coords[:3] = 5.0
    moved, dropped = side.on_lattice(events.replace(coords=coords))
    assert dropped == 3 / len(coords)
    assert moved.is_cells
    assert moved.total("ptrel").sum() == pytest.approx(float(events.features[3:].sum()), rel=1e-6)


def test_the_floor_takes_training_events_that_are_kept_apart(toy_file: Path) -> None:
    side = real(toy_file, lattice=[8, 8], events=50, metrics=["w1_mass", "memorisation"])
    results = {result.name: result for result in side.judge_itself()}
    assert results["w1_mass"].n == 50
    # Events that are not in what they are compared with: their nearest neighbours are as far as those of new events.
    assert 0.5 < results["memorisation"].value < 2
    with pytest.raises(DataError, match=r"leave none beside the 179 of the floor; lower evaluation\.events"):
        real(toy_file, events=179).check()


def test_an_unknown_metric_is_found_by_the_check(toy_file: Path) -> None:
    with pytest.raises(ConfigError, match="unknown metric 'w1mass': did you mean w1_mass"):
        real(toy_file, metrics=["w1mass"]).check()


def test_memorisation_is_judged_by_the_events_that_were_seen(toy_file: Path) -> None:
    config = DataConfig(f"{toy_file}:train", events=60)
    evaluation = {"reference": f"{toy_file}:test", "lattice": [8, 8], "metrics": "memorisation"}
    side = Real(EvaluationConfig.from_dict(evaluation), config)
    seen, unseen = (side.judge(side.train[part])[0][0].value for part in (slice(0, 60), slice(60, 120)))
    assert seen == 0
    assert unseen > 0.5


def test_conditions_are_drawn_from_the_training_events(toy_events: Callable[..., Events]) -> None:
    events = toy_events(30)
    events = events.with_condition(events.counts[:, None].float(), ("hits",))
    source = EventsSource(events)
    model = IndependentHits(Schema.fit(events))
    model.fit(lambda: [events], torch.Generator())
    model.multiplicity.neighbours = 1
    first, second = (Events.cat(list(draw(model, 25, batch=10, seed=4, source=source))) for _ in range(2))
    assert first.condition is not None
    assert torch.equal(first.condition[:, 0], first.counts.float())
    assert torch.equal(first.coords, second.coords)
    assert first.ids.tolist() == list(range(25))


def test_lattice_defaults_to_the_image_of_the_reference(toy_file: Path) -> None:
    grid = real(toy_file).reference.grid
    assert grid is not None
    assert grid.shape == (25, 25)


def test_a_data_config_can_take_fewer_events_but_not_more(toy_file: Path) -> None:
    name = f"{toy_file}:train"
    assert len(open_source(DataConfig(name, events=20))) == 20
    assert len(open_source(DataConfig(name))) == 180
    with pytest.raises(ConfigError, match=r"181 of .*, which has 180"):
        open_source(DataConfig(name, events=181))


def test_training_time_is_the_median_over_rows_and_a_torn_line_is_left_out(tmp_path: Path) -> None:
    rows = [
        '{"events_per_second": 100.0}',
        '{"events_per_second": 1000.0}',
        '{"events_per_second": 10.0}',
        '{"events_per',
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(rows))
    assert len(metrics_rows(tmp_path)) == 3
    assert training_time(tmp_path) == 10.0
