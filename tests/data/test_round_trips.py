"""Between all formats that can hold the same content, nothing is lost on the way, in either direction."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import sparsegen.data as data
from sparsegen.data.arrays import unit_box
from sparsegen.data.calochallenge import CALOCHALLENGE, calochallenge_grid
from sparsegen.data.calogan import calogan_grid
from sparsegen.data.dense import image_grid
from sparsegen.data.jetnet import jet_grid
from sparsegen.errors import DataError
from sparsegen.events import Column, Events
from sparsegen.grid import Grid


def points(counts: list[int], grid: Grid | None, axes: tuple[str, ...], columns: tuple[Column, ...], k: int) -> Events:
    generator = torch.Generator().manual_seed(0)
    hits = sum(counts)
    return Events(
        torch.rand(hits, len(axes), generator=generator) * 1.6 - 0.8,
        torch.rand(hits, len(columns), generator=generator) + 0.01,
        torch.tensor([0, *counts]).cumsum(0),
        axes=axes,
        columns=columns,
        condition=torch.rand(len(counts), k, generator=generator) * 100 if k else None,
        conditions=("jet_pt", "jet_eta", "jet_mass")[:k] if k == 3 else ("incident_energy",)[:k],
        grid=grid,
    )


def cells(grid: Grid, column: Column, conditions: tuple[str, ...] = ()) -> Events:
    generator = torch.Generator().manual_seed(0)
    valid = torch.arange(grid.cells) if grid.valid is None else grid.valid.flatten().nonzero()[:, 0]
    counts = [0, 1, len(valid), 7, 12]
    chosen = [valid[torch.randperm(len(valid), generator=generator)[:n].sort().values] for n in counts]
    return Events(
        grid.unravel(torch.cat(chosen)),
        torch.rand(sum(counts), 1, generator=generator) + 0.01,
        torch.tensor([0, *counts]).cumsum(0),
        axes=grid.names,
        columns=(column,),
        condition=torch.rand(len(counts), len(conditions), generator=generator) * 1000 if conditions else None,
        conditions=conditions,
        grid=grid,
    )


ENERGY = Column("energy", "MeV")
INCIDENT = ("incident_energy",)
CALOGAN = (*INCIDENT, "overflow_0", "overflow_1", "overflow_2")
XYZ = ("x", "y", "z")
CONTENTS: dict[str, tuple[Callable[[], Events], tuple[str, ...]]] = {
    "jets of 30": (lambda: points([3, 0, 30, 8], jet_grid(), jet_grid().names, (Column("ptrel"),), 3), ("jetnet",)),
    "jets of 150": (lambda: points([3, 0, 150, 31], jet_grid(), jet_grid().names, (Column("ptrel"),), 3), ("jetnet",)),
    "shower points": (lambda: points([3, 0, 200], None, ("x", "layer", "z"), (Column("energy", "GeV"),), 1),
                      ("caloclouds",)),
    "point sets": (lambda: points([9] * 4, unit_box(3), XYZ, (), 0), ("points",)),
    "planar point sets": (lambda: points([9] * 4, unit_box(2), XYZ[:2], (), 0), ("points",)),
    "images": (lambda: cells(image_grid((6, 9)), Column("intensity")), ("images", "dense")),
    "volumes": (lambda: cells(image_grid((4, 5, 6)), Column("intensity")), ("images", "dense")),
    "three layers": (lambda: cells(calogan_grid(), ENERGY, CALOGAN), ("calogan",)),
    **{
        f"data set {name}": (lambda name=name: cells(calochallenge_grid(name), ENERGY, INCIDENT),  # type: ignore[misc]
                             ("calochallenge",) if name.startswith("1") else ("calochallenge", "dense"))
        for name in CALOCHALLENGE
    },
}  # fmt: skip
PAIRS = [
    (content, *pair)
    for content, (_, formats) in CONTENTS.items()
    for pair in itertools.permutations((*formats, "ragged"), 2)
]


def written(events: Events, folder: Path, format: str, number: int) -> Path:
    path = folder / f"{number}{data.formats[format].suffixes[0]}"
    data.write(events, path, format)
    return path


def assert_same(one: Events, other: Events) -> None:
    for name in ("axes", "columns", "conditions", "grid"):
        assert getattr(one, name) == getattr(other, name), name
    for name in ("coords", "features", "offsets"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    if one.condition is not None:
        assert other.condition is not None
        torch.testing.assert_close(one.condition, other.condition, rtol=1e-7, atol=0)


@pytest.mark.parametrize(("content", "first", "second"), PAIRS)
def test_from_one_format_to_another_and_on_nothing_is_lost(
    tmp_path: Path, content: str, first: str, second: str
) -> None:
    events = CONTENTS[content][0]()
    there = data.open(written(events, tmp_path, first, 1), condition="all")
    assert there.reader.path.suffix == data.formats[first].suffixes[0]
    assert_same(there[:], events)
    back = data.open(written(there[:], tmp_path, second, 2), condition="all")
    assert_same(back[:], events)
    for column in events.columns:
        torch.testing.assert_close(back[:].total(column.name), events.total(column.name), rtol=1e-6, atol=0)
    assert back[:].counts.tolist() == events.counts.tolist()


def test_every_format_that_can_be_written_is_in_a_round_trip() -> None:
    writable = {name for name in data.formats if data.formats[name].write is not None}
    assert writable == {"ragged", *(name for _, formats in CONTENTS.values() for name in formats)}


def test_what_is_written_is_read_by_h5py_and_numpy_alone(tmp_path: Path) -> None:
    clouds = CONTENTS["shower points"][0]()
    with h5py.File(written(clouds, tmp_path, "caloclouds", 1)) as file:
        stored = file["events"][:]
        assert stored.shape == (3, 4, 200)
        # The first shower's three hits end the row; x, layer, z, energy
        assert np.array_equal(stored[0, :, 197:], torch.cat([clouds[0].coords, clouds[0].features], 1).T.numpy())
        assert not stored[0, :, :197].any()
        assert np.array_equal(file["energy"][:, 0], clouds.condition[:, 0].numpy())  # type: ignore[index]
    layers = CONTENTS["three layers"][0]()
    with h5py.File(written(layers, tmp_path, "calogan", 2)) as file:
        total = sum(float(file[f"layer_{i}"][2].sum(dtype="f8")) for i in range(3))
        assert total == pytest.approx(float(layers[2].total("energy")), rel=1e-6)
        assert [file[f"layer_{i}"].shape[1:] for i in range(3)] == [(3, 96), (12, 12), (12, 6)]
        # GeV, where the cells are in MeV
        assert np.allclose(file["energy"][:, 0] * 1000, layers.condition[:, 0].numpy())  # type: ignore[index]
    images = CONTENTS["images"][0]()
    stack = np.load(written(images, tmp_path, "images", 3))
    assert np.array_equal(stack, images.to_dense()[:, 0].numpy())
    sets = CONTENTS["point sets"][0]()
    assert np.array_equal(np.load(written(sets, tmp_path, "points", 4)).reshape(-1, 3), sets.coords.numpy())


@pytest.mark.parametrize(
    ("content", "format", "words"),
    [
        ("images", "points", "bare points in x, y"),
        ("point sets", "images", "the column intensity on unit cells"),
        ("data set 2", "calogan", "cells of its three layers"),
        ("jets of 30", "caloclouds", "points in x, layer, z with energy"),
        ("jets of 30", "calochallenge", "cells of one of its geometries"),
        ("three layers", "dense", "cells of a full lattice"),
        ("images", "jetnet", "points in etarel, phirel"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_and_no_file_appears(
    tmp_path: Path, content: str, format: str, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        data.write(CONTENTS[content][0](), tmp_path / "a", format)
    assert not list(tmp_path.iterdir())


def test_events_that_a_format_would_bend_are_refused(tmp_path: Path) -> None:
    silent = CONTENTS["shower points"][0]()
    features = silent.features.clone()
    features[3] = 0
    with pytest.raises(DataError, match="event 2 has a hit without energy"):
        data.write(silent.with_features(features), tmp_path / "a.hdf5", "caloclouds")
    with pytest.raises(DataError, match="event 0 has 9 points and event 1 8: write format ragged"):
        data.write(points([9, 8], unit_box(3), XYZ, (), 0), tmp_path / "a.npy", "points")
