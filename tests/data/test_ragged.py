"""sparsegen's own files."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import sparsegen.data as data
from sparsegen.data import RaggedReader, RaggedWriter
from sparsegen.errors import DataError
from sparsegen.events import Column, Events
from sparsegen.grid import Grid

Make = Callable[..., Events]


def _assert_same(a: Events, b: Events) -> None:
    for name in ("coords", "features", "offsets", "ids"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert (a.axes, a.columns, a.conditions, a.grid) == (b.axes, b.columns, b.conditions, b.grid)
    if a.condition is not None:
        assert b.condition is not None
        assert torch.equal(a.condition, b.condition)


def test_points_come_back_bit_for_bit(tmp_path: Path, make_points: Make) -> None:
    events = make_points().replace(ids=torch.arange(20) * 7)
    data.write(events, tmp_path / "a.h5")
    source = data.open(tmp_path / "a.h5", condition=events.conditions)
    _assert_same(source[:], events)


def test_cells_come_back_with_their_grid(tmp_path: Path, make_points: Make) -> None:
    valid = np.ones((6, 8), dtype=bool)
    valid[0, 0] = False
    grid = Grid.regular((6, 8), (-0.8, -0.8), (0.8, 0.8), ("etarel", "phirel"), ("", "rad"), periodic=("phirel",))
    grid = Grid(grid.edges, valid, grid.periodic, names=grid.names, units=grid.units)
    cells, _ = make_points().voxelize(grid, outside="drop")
    data.write(cells, tmp_path / "a.h5")
    source = data.open(tmp_path / "a.h5")
    assert source.grid == grid
    assert source[:].is_cells
    _assert_same(source[:], cells.with_condition(None, ()))


def test_a_file_appended_in_pieces_equals_one_written_whole(tmp_path: Path, make_points: Make) -> None:
    events = make_points(50)
    with RaggedWriter(tmp_path / "pieces.h5") as writer:
        for start, stop in [(0, 1), (1, 1), (1, 30), (30, 50)]:
            writer.append(events[start:stop])
    data.write(events, tmp_path / "whole.h5")
    pieces, whole = RaggedReader(tmp_path / "pieces.h5"), RaggedReader(tmp_path / "whole.h5")
    assert pieces.checksums == whole.checksums


def test_events_without_hits_and_one_giant_event_survive(tmp_path: Path) -> None:
    hits = torch.rand(100_000, 2)
    events = Events(hits, torch.rand(100_000, 1), torch.tensor([0, 0, 100_000, 100_000]), axes="xy", columns=["energy"])
    data.write(events, tmp_path / "a.h5")
    source = data.open(tmp_path / "a.h5")
    assert [len(b.coords) for b in source.batches(1)] == [0, 100_000, 0]
    assert torch.equal(source[1].features, events.features)


def test_labels_and_splits_select_rows(tmp_path: Path, make_points: Make) -> None:
    events = make_points(12)
    labels, split = np.arange(12) % 3, np.arange(12) % 2
    with RaggedWriter(tmp_path / "a.h5", classes=("g", "q", "t"), splits=("train", "test")) as writer:
        writer.append(events, labels, split)
    source = data.open(f"{tmp_path}/a.h5:test", classes=["q", "t"])
    rows = [1, 5, 7, 11]
    assert source.labels is not None
    assert source.labels.tolist() == [1, 2, 1, 2]
    assert source[:].ids.tolist() == rows
    assert torch.equal(source[:].coords, events[rows].coords)


def test_nothing_is_left_of_a_writer_that_fails(tmp_path: Path, make_points: Make) -> None:
    def fail() -> None:
        with RaggedWriter(tmp_path / "a.h5") as writer:
            writer.append(make_points())
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_writer_leaves_no_file_under_the_name(tmp_path: Path, make_points: Make) -> None:
    data.write(make_points(), tmp_path / "in.h5")
    program = (
        "import os, sys, sparsegen.data as data\n"
        "events = data.open(sys.argv[1])[:]\n"
        "with data.RaggedWriter(sys.argv[2]) as writer:\n"
        "    writer.append(events)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "in.h5"), str(tmp_path / "out.h5")]
    root = str(Path(data.__file__).parents[2])
    assert subprocess.run(command, env=os.environ | {"PYTHONPATH": root}, check=False).returncode == -9
    assert not (tmp_path / "out.h5").exists()
    with pytest.raises(DataError, match=r"out\.h5\.part: "):
        data.open(tmp_path / "out.h5.part", "ragged")
    data.write(make_points(), tmp_path / "out.h5")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.h5", "out.h5"]


def test_a_file_that_is_appended_to_is_the_file_written_at_once(tmp_path: Path, make_points: Make) -> None:
    first, second = make_points(20), make_points(30, seed=1)
    facts = {"classes": ("a", "b"), "provenance": {"made": "here"}}
    with RaggedWriter(tmp_path / "once.h5", **facts) as writer:  # type: ignore[arg-type]
        writer.append(first, labels=np.arange(20) % 2)
        writer.append(second, labels=np.arange(30) % 2)
    with RaggedWriter(tmp_path / "twice.h5", **facts) as writer:  # type: ignore[arg-type]
        writer.append(first, labels=np.arange(20) % 2)
    with RaggedWriter(tmp_path / "twice.h5", append=True) as writer:
        writer.append(second, labels=np.arange(30) % 2)
    once, twice = (RaggedReader(tmp_path / f"{name}.h5") for name in ("once", "twice"))
    assert twice.checksums == once.checksums
    assert (twice.rows, twice.hits, twice.classes) == (50, once.hits, ("a", "b"))
    assert twice.provenance == {"made": "here"}
    assert not list(data.findings(twice))


def test_an_append_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, make_points: Make, alter: Callable[..., None]
) -> None:
    path = tmp_path / "a.h5"
    data.write(make_points(20), path)
    content = path.read_bytes()

    def killed() -> None:
        with RaggedWriter(path, append=True) as writer:
            writer.append(make_points(5))
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        killed()
    other = make_points(5)
    with pytest.raises(DataError, match="columns differ"), RaggedWriter(path, append=True) as writer:
        writer.append(other.with_features(other.features, [Column("energy")]))
    assert path.read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == ["a.h5"]
    alter(path, "ids", 3, 77)
    with pytest.raises(DataError, match="ids does not match its checksum"), RaggedWriter(path, append=True):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["a.h5"]
    with pytest.raises(DataError, match="not a readable HDF5 file"), RaggedWriter(tmp_path / "none.h5", append=True):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["a.h5"]


def test_cells_of_another_lattice_are_not_appended(tmp_path: Path, make_points: Make) -> None:
    grids = [Grid.regular((n, n), (-0.8, -0.8), (0.8, 0.8), ("etarel", "phirel")) for n in (6, 8)]
    cells = [make_points().voxelize(grid)[0] for grid in grids]
    data.write(cells[0], tmp_path / "a.h5")
    with (
        pytest.raises(DataError, match="grid differ between batches"),
        RaggedWriter(tmp_path / "a.h5", append=True) as writer,
    ):
        writer.append(cells[1])


def test_an_existing_file_is_kept(tmp_path: Path, make_points: Make) -> None:
    data.write(make_points(3), tmp_path / "a.h5")
    with pytest.raises(DataError, match=r"a.h5: exists already"):
        data.write(make_points(4), tmp_path / "a.h5")
    assert len(data.open(tmp_path / "a.h5")) == 3
    data.write(make_points(4), tmp_path / "a.h5", overwrite=True)
    assert len(data.open(tmp_path / "a.h5")) == 4


def test_batches_that_differ_in_what_they_hold_are_refused(tmp_path: Path, make_points: Make) -> None:
    events = make_points()
    with RaggedWriter(tmp_path / "a.h5") as writer:
        writer.append(events)
        with pytest.raises(DataError, match="columns differ between batches"):
            writer.append(events.with_features(events.features, [Column("energy")]))


class TestFaults:
    """Each fault ends in one line that names the file, what is wrong and the remedy."""

    @pytest.fixture
    def path(self, tmp_path: Path, make_points: Make) -> Path:
        data.write(make_points(40), tmp_path / "a.h5")
        return tmp_path / "a.h5"

    def refused(self, path: Path, *words: str) -> None:
        with pytest.raises(DataError) as caught:
            data.open(path)
        message = str(caught.value)
        assert "\n" not in message
        for word in (str(path), *words):
            assert word in message, message

    def test_an_unfinished_file(self, path: Path) -> None:
        with h5py.File(path, "r+") as file:
            file.attrs["complete"] = False
        self.refused(path, "incomplete", "make the file again")

    def test_a_truncated_file(self, path: Path) -> None:
        path.write_bytes(path.read_bytes()[:-500])
        self.refused(path, "not a readable HDF5 file", "copy or make it again")

    def test_an_empty_file(self, path: Path) -> None:
        path.write_bytes(b"")
        self.refused(path, "empty", "copy or make it again")

    def test_a_flipped_bit(self, path: Path) -> None:
        with h5py.File(path, "r") as file:
            chunk = file["features"].id.get_chunk_info(0)
        raw = bytearray(path.read_bytes())
        raw[chunk.byte_offset + chunk.size // 2] ^= 4
        path.write_bytes(raw)
        self.refused(path, "features rows 0 to", "damaged", "copy or make")

    def test_values_changed_by_hand(self, path: Path, alter: Callable[..., None]) -> None:
        alter(path, "features", (3, 0), 0.25)
        self.refused(path, "features does not match its checksum")

    def test_a_missing_key(self, path: Path) -> None:
        with h5py.File(path, "r+") as file:
            del file["ids"]
        self.refused(path, "key 'ids' is missing")

    def test_a_missing_attribute(self, path: Path) -> None:
        with h5py.File(path, "r+") as file:
            del file.attrs["columns"]
        self.refused(path, "attribute damaged or missing", "columns")

    def test_rows_that_disagree(self, path: Path) -> None:
        with h5py.File(path, "r+") as file:
            file["ids"].resize(39, axis=0)
        self.refused(path, "key 'ids' has shape (39,)", "(40)")

    def test_a_wrong_type(self, path: Path) -> None:
        with h5py.File(path, "r+") as file:
            values = file["features"][:].astype(np.int32)
            del file["features"]
            file["features"] = values
        self.refused(path, "key 'features' has type int32", "floating")

    @pytest.mark.parametrize(
        ("value", "word"), [(float("nan"), "is nan, not finite"), (-0.5, "is -0.5, a negative amount")]
    )
    def test_a_bad_value(self, tmp_path: Path, make_points: Make, value: float, word: str) -> None:
        events = make_points(40)
        features = events.features.clone()
        hit = int(events.offsets[events.counts.argmax()])
        features[hit] = value
        data.write(events.with_features(features), tmp_path / "bad.h5")
        self.refused(tmp_path / "bad.h5", f"ptrel of row {int(events.counts.argmax())}", word, "repair")

    def test_an_infinite_coordinate(self, tmp_path: Path, make_points: Make) -> None:
        events = make_points(40)
        coords = events.coords.clone()
        coords[-1, 1] = float("inf")
        row = int(events.batch[-1])
        data.write(events.replace(coords=coords), tmp_path / "bad.h5")
        self.refused(tmp_path / "bad.h5", f"phirel of row {row}", "not finite")

    def test_a_cell_that_comes_twice(self, tmp_path: Path, make_points: Make) -> None:
        grid = Grid.regular((6, 8), (-0.8, -0.8), (0.8, 0.8), ("etarel", "phirel"))
        cells, _ = make_points(40).voxelize(grid)
        data.write(cells, tmp_path / "bad.h5")
        row = int(cells.counts.argmax())
        hit = int(cells.offsets[row])
        with h5py.File(tmp_path / "bad.h5", "r+") as file:
            file["coords"][hit + 1] = file["coords"][hit]
            sums = json.loads(file.attrs["checksums"])
            sums["coords"] = hashlib.sha256(file["coords"][:].tobytes()).hexdigest()
            file.attrs["checksums"] = json.dumps(sums)
        self.refused(tmp_path / "bad.h5", f"coords of row {row}", "twice", "repair")

    def test_a_cell_outside_the_grid(self, tmp_path: Path, make_points: Make) -> None:
        grid = Grid.regular((6, 8), (-0.8, -0.8), (0.8, 0.8), ("etarel", "phirel"))
        cells, _ = make_points(40).voxelize(grid)
        data.write(cells, tmp_path / "bad.h5")
        with h5py.File(tmp_path / "bad.h5", "r+") as file:
            facts = json.loads(file.attrs["grid"])
            facts["edges"][0] = facts["edges"][0][:-2]
            file.attrs["grid"] = json.dumps(facts)
        self.refused(tmp_path / "bad.h5", "coords of row", "outside the grid's (4, 8)", "repair")


def test_a_checked_file_is_read_once_until_it_changes(
    tmp_path: Path, make_points: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    data.write(make_points(), tmp_path / "a.h5")
    calls: list[int] = []
    whole = RaggedReader.findings
    monkeypatch.setattr(RaggedReader, "findings", lambda self: calls.append(1) or whole(self))
    data.open(tmp_path / "a.h5")
    data.open(tmp_path / "a.h5")
    assert len(calls) == 1
    data.write(make_points(seed=1), tmp_path / "a.h5", overwrite=True)
    data.open(tmp_path / "a.h5")
    assert len(calls) == 2
