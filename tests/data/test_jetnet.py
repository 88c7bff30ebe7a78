"""The JetNet layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import sparsegen.data as data
from sparsegen.errors import DataError
from sparsegen.events import Events

File = Callable[..., Path]


@pytest.mark.parametrize("masked", [True, False], ids=["masked", "older"])
def test_both_forms_are_read_by_name(jetnet_file: File, masked: bool) -> None:
    source = data.open(jetnet_file(masked=masked), condition=["jet_pt", "jet_mass"])
    events = source[:]
    assert source.axes == ("etarel", "phirel")
    assert source.columns[0].name == "ptrel"
    counts = np.arange(70) % 31
    assert events.counts.tolist() == counts.tolist()
    # ptrel of jet i is 1 + 2 + ... + n in units of 1/1024
    assert events.total("ptrel").mul(1024).tolist() == (counts * (counts + 1) // 2).tolist()
    assert float(events.total("ptrel").sum()) == 10004 / 1024
    assert events[33].coords[:, 1].tolist() == [np.float32(0.033)] * 2
    assert events.condition is not None
    assert events.condition[5].tolist() == [1005, 100]


@pytest.mark.parametrize(
    "take",
    [None, [3, 1, 2], [0, 0, 4, 4, 1], list(range(44, -1, -1)), []],
    ids=["all", "some", "some twice", "all backwards", "none"],
)
def test_rows_of_several_runs_come_in_the_order_asked_for(jetnet_file: File, take: list[int] | None) -> None:
    reader = data.open(jetnet_file()).reader
    runs = [(10, 33), (0, 5), (50, 67)]
    rows = np.concatenate([np.arange(start, stop) for start, stop in runs])
    events = reader.read(runs, None if take is None else np.array(take, dtype=np.int64))
    expected = reader.read([(0, 70)])[torch.from_numpy(rows if take is None else rows[take])]
    assert torch.equal(events.ids, expected.ids)
    assert torch.equal(events.counts, expected.counts)
    assert torch.equal(events.coords, expected.coords)
    assert torch.equal(events.condition, expected.condition)


def test_jets_written_are_jets_read(tmp_path: Path, make_points: Callable[..., Events]) -> None:
    events = make_points(40)
    data.write(events, tmp_path / "a.hdf5", format="jetnet")
    with h5py.File(tmp_path / "a.hdf5") as file:
        assert file["particle_features"].shape == (40, 30, 4)
        assert file["particle_features"][:, :, 3].sum() == len(events.coords)
        assert (file["jet_features"][:, 3] == events.counts.numpy()).all()
    again = data.open(tmp_path / "a.hdf5", condition=events.conditions)[:]
    assert torch.equal(again.coords, events.coords)
    assert torch.equal(again.features, events.features)
    assert again.condition is not None
    assert events.condition is not None
    assert torch.equal(again.condition, events.condition)


def test_more_than_thirty_particles_take_the_long_form(tmp_path: Path) -> None:
    jets = data.open("pythia-jets:test", condition=["jet_pt", "jet_eta", "jet_mass"])[:]
    data.write(jets, tmp_path / "a.hdf5", format="jetnet")
    again = data.open(tmp_path / "a.hdf5")
    assert again.reader.event_bytes == 150 * 16
    assert torch.equal(again[:].features, jets.features)
    assert torch.equal(again[:].counts, jets.counts)


def test_events_that_are_no_jets_are_refused(tmp_path: Path, make_points: Callable[..., Events]) -> None:
    events = make_points(5)
    with pytest.raises(DataError, match="JetNet holds points in etarel, phirel with ptrel"):
        data.write(events.with_condition(None, ()), tmp_path / "a.hdf5", format="jetnet")
    big = Events(
        torch.rand(201, 2),
        torch.rand(201, 1),
        torch.tensor([0, 1, 201]),
        axes=events.axes,
        columns=events.columns,
        condition=torch.rand(2, 3),
        conditions=events.conditions,
    )
    with pytest.raises(DataError, match="event 1 has 200 particles and JetNet holds 150"):
        data.write(big, tmp_path / "a.hdf5", format="jetnet")


def _mask_over_padding(file: h5py.File) -> None:
    file["particle_features"][5, 20, 2] = 0.5


def _odd_mask(file: h5py.File) -> None:
    file["particle_features"][6, 0, 3] = 0.7


def _other_count(file: h5py.File) -> None:
    file["jet_features"][7, 3] = 3


def _nan(file: h5py.File) -> None:
    file["particle_features"][8, 1, 0] = np.nan


def _negative(file: h5py.File) -> None:
    file["particle_features"][9, 1, 2] = -1


def _no_jets(file: h5py.File) -> None:
    del file["jet_features"]


def _fewer_jets(file: h5py.File) -> None:
    values = file["jet_features"][:-1]
    del file["jet_features"]
    file["jet_features"] = values


def _integers(file: h5py.File) -> None:
    values = file["particle_features"][:].astype(np.int64)
    del file["particle_features"]
    file["particle_features"] = values


def _no_rows(file: h5py.File) -> None:
    for key in ("particle_features", "jet_features"):
        values = file[key][:0]
        del file[key]
        file[key] = values


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (_mask_over_padding, ("particle_features of row 5", "mask calls padding", "repair")),
        (_odd_mask, ("particle_features of row 6", "neither 0 nor 1", "repair")),
        (_other_count, ("of row 7", "another number of particles", "repair")),
        (_nan, ("etarel of row 8", "is nan, not finite", "repair")),
        (_negative, ("ptrel of row 9", "is -1, a negative amount", "repair")),
        (_no_jets, ("key 'jet_features' is missing", "particle_features")),
        (_fewer_jets, ("70 rows and jet_features 69", "copy or make it again")),
        (_integers, ("particle_features", "int64", "floating")),
        (_no_rows, ("holds no events",)),
    ],
)
def test_a_fault_is_named_with_file_row_and_remedy(
    jetnet_file: File, fault: Callable[[h5py.File], None], words: tuple[str, ...]
) -> None:
    path = jetnet_file()
    with h5py.File(path, "r+") as file:
        fault(file)
    with pytest.raises(DataError) as caught:
        data.open(path)
    assert "\n" not in str(caught.value)
    for word in (str(path), *words):
        assert word in str(caught.value)
