"""Sources: slices, batches, views."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import sparsegen.data as data
from sparsegen.data import EventsSource, FileSource, source
from sparsegen.errors import ConfigError, DataError
from sparsegen.events import Events

Make = Callable[..., Events]


@pytest.fixture(params=["cached", "streamed"])
def opened(
    request: pytest.FixtureRequest, jetnet_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> FileSource:
    """A source of 500 jets, kept in memory or read in windows of a few blocks."""
    if request.param == "streamed":
        monkeypatch.setattr(source, "_CACHE_BYTES", 0)
        monkeypatch.setattr(source, "_WINDOW_BYTES", 100 * 480)
    made = data.open(jetnet_file(500), condition=["jet_pt"])
    made.reader.block = 32
    return made


def _same(a: Events, b: Events) -> bool:
    return torch.equal(a.ids, b.ids) and torch.equal(a.coords, b.coords) and torch.equal(a.features, b.features)


def test_batches_cover_the_set_in_any_order(opened: FileSource) -> None:
    plain = torch.cat([b.ids for b in opened.batches(64)])
    shuffled = torch.cat([b.ids for b in opened.batches(64, shuffle=True, seed=1)])
    assert plain.tolist() == list(range(500))
    assert shuffled.tolist() != plain.tolist()
    assert sorted(shuffled.tolist()) == plain.tolist()


def test_events_of_a_batch_are_the_file_s_own(opened: FileSource) -> None:
    for batch in opened.batches(64, shuffle=True, seed=1):
        assert _same(batch, opened[batch.ids])
        assert batch.counts.tolist() == (batch.ids % 31).tolist()
        assert batch.condition is not None
        assert batch.condition[:, 0].tolist() == (1000 + batch.ids).tolist()


def test_order_depends_on_seed_and_epoch_alone(opened: FileSource) -> None:
    orders = {}
    for seed, epoch in [(0, 0), (0, 1), (1, 0), (0, 0)]:
        ids = tuple(torch.cat([b.ids for b in opened.batches(64, shuffle=True, seed=seed, epoch=epoch)]).tolist())
        assert orders.setdefault((seed, epoch), ids) == ids
    assert len(set(orders.values())) == 3


def test_two_ranks_see_the_batches_of_one(opened: FileSource) -> None:
    one = list(opened.batches(64, shuffle=True, seed=3))
    left = list(opened.batches(32, shuffle=True, seed=3, rank=0, world=2))
    right = list(opened.batches(32, shuffle=True, seed=3, rank=1, world=2))
    assert len(one) == len(left) == len(right) == 8
    for whole, a, b in zip(one, left, right, strict=True):
        assert _same(whole, Events.cat([a, b]))


@pytest.mark.parametrize("start", [0, 1, 5, 7, 8])
def test_a_resumed_epoch_goes_on_where_it_stopped(opened: FileSource, start: int) -> None:
    whole = list(opened.batches(64, shuffle=True, seed=3))
    rest = list(opened.batches(64, shuffle=True, seed=3, start=start))
    assert len(rest) == len(whole) - start
    assert all(_same(a, b) for a, b in zip(whole[start:], rest, strict=True))


def test_a_batch_may_span_many_windows(opened: FileSource) -> None:
    whole = opened[:]
    for size in (300, 499, 1000):
        batches = list(opened.batches(size))
        assert _same(Events.cat(batches) if len(batches) > 1 else batches[0], whole)


def test_drop_last_leaves_out_the_short_batch(opened: FileSource) -> None:
    assert [len(b) for b in opened.batches(64)] == [64] * 7 + [52]
    assert [len(b) for b in opened.batches(64, drop_last=True)] == [64] * 7


def test_indexing_is_that_of_numpy(opened: FileSource) -> None:
    ids = np.arange(500)
    mask = ids % 7 == 0
    for index in [3, -1, slice(10, 20), slice(None, None, -50), [5, 2, 5], torch.tensor([499, 0]), mask]:
        expected = np.atleast_1d(ids[index if not isinstance(index, torch.Tensor) else index.numpy()])
        assert opened[index].ids.tolist() == expected.tolist()
    assert not len(opened[[]])
    with pytest.raises(IndexError, match="event 500 of 500"):
        opened[500]
    with pytest.raises(IndexError, match=r"index 1\.5; expected integers"):
        opened[1.5]  # type: ignore[index]


def test_a_source_travels_to_another_process(opened: FileSource) -> None:
    opened[:3]
    copy = pickle.loads(pickle.dumps(opened))
    assert _same(copy[5:9], opened[5:9])


def test_a_spawned_worker_reads_for_itself(jetnet_file: Callable[..., Path]) -> None:
    opened = data.open(jetnet_file(50))
    opened[:3]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        read = pool.apply(opened.__getitem__, (slice(5, 9),))
    assert _same(read, opened[5:9])


def test_views_of_one_file_conserve_what_lies_inside() -> None:
    points = data.open("pythia-jets:test")
    for view, shape in [("cells", (64, 64)), ("image", (25, 25))]:
        cells = data.open("pythia-jets:test", view=view)
        assert cells.grid is not None
        assert cells.grid.shape == shape
        inside = (points[:].coords.abs() <= 0.8).all(1)
        kept = points[:].select_hits(inside)
        torch.testing.assert_close(cells[:].total("ptrel"), kept.total("ptrel"))
        assert int(cells.dropped.sum()) == int((~inside).sum()) > 0
        assert torch.equal(cells[:].ids, points[:].ids)


def test_shape_overrides_the_lattice() -> None:
    assert data.open("pythia-jets:test", view="cells", shape=(10, 12))[:2].to_dense().shape == (2, 1, 10, 12)


def test_points_carry_the_default_lattice() -> None:
    jets = data.open("pythia-jets:test")
    assert not jets[:3].is_cells
    assert jets[:3].grid == jets.grid


def test_events_in_memory_are_a_source(make_points: Make) -> None:
    events = make_points(20)
    made = EventsSource(events)
    assert _same(made[:], events)
    assert len(made) == 20
    shuffled = torch.cat([b.ids for b in made.batches(8, shuffle=True, seed=1)])
    assert sorted(shuffled.tolist()) == list(range(20))
    assert shuffled.tolist() != list(range(20))
    assert (
        made.fingerprint
        == EventsSource(make_points(20)).fingerprint
        != EventsSource(make_points(20, seed=1)).fingerprint
    )
    with pytest.raises(DataError, match="at least one"):
        EventsSource(events[:0])


def test_unknown_names_are_answered_with_the_nearest(jetnet_file: Callable[..., Path]) -> None:
    path = jetnet_file()
    for options, words in [
        ({"view": "cell"}, "did you mean cells"),
        ({"condition": ["jet_ma"]}, "jet_mass"),
        ({"format": "jetnt"}, "did you mean jetnet"),
        ({"classes": ["top"]}, "no labels"),
        ({"view": "cells", "shape": (3,)}, "one number an axis"),
    ]:
        with pytest.raises(ConfigError, match=words):
            data.open(path, **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="did you mean test"):
        data.open("pythia-jets:tst")
    with pytest.raises(ConfigError, match="did you mean top"):
        data.open("pythia-jets", classes=["topp"])
    with pytest.raises(DataError, match="did you mean pythia-jets"):
        data.open("pythia-jet")
    with pytest.raises(DataError, match=r"absent.h5: no such file"):
        data.open("absent.h5")
    with pytest.raises(DataError, match="records no splits"):
        data.open(f"{path}:train")


def test_batches_that_cannot_be_are_refused(make_points: Make) -> None:
    for options in [{"size": 0}, {"size": 4, "rank": 2, "world": 2}, {"size": 4, "start": -1}]:
        with pytest.raises(ConfigError, match="expected size >= 1"):
            next(EventsSource(make_points()).batches(**options))
