"""Verbs, through the command line."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import sparsegen.data as data
from data_tools.check import examine
from data_tools.cli import VERBS, main
from sparsegen.data import RaggedReader, RaggedWriter
from sparsegen.events import Events


@pytest.fixture
def jets(tmp_path: Path) -> Path:
    """300 labelled jets without splits."""
    path = tmp_path / "jets.h5"
    source = data.open("pythia-jets:test", condition="all")
    assert source.labels is not None
    with RaggedWriter(path, classes=source.classes, provenance={"made": "here"}) as writer:
        writer.append(source[:300], source.labels[:300].numpy())
    return path


@pytest.fixture
def padded(tmp_path: Path) -> Path:
    """A JetNet file of 29 jets, the ``i``-th of ``i`` particles."""
    counts = torch.arange(29)
    events = data.open("pythia-jets:test", condition=["jet_pt", "jet_eta", "jet_mass"])[:]
    events = events[(events.counts >= 28).nonzero()[:29, 0]]
    ranks = torch.arange(len(events.coords)) - events.offsets[:-1][events.batch]
    data.write(events.select_hits(ranks < counts[events.batch]), tmp_path / "t.hdf5", format="jetnet")
    return tmp_path / "t.hdf5"


def _alter(path: Path, key: str, index: object, value: float) -> None:
    with h5py.File(path, "r+") as file:
        file[key][index] = value


def _same(a: Events, b: Events) -> bool:
    fields = ("coords", "features", "offsets", "condition")
    return all(torch.equal(getattr(a, field), getattr(b, field)) for field in fields)


@pytest.fixture
def guarded() -> Iterator[Path]:
    """A folder that may be read but not written to, with a file that may not be read, by whoever runs the test."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "secret.h5").touch()
        for path, mode in ((folder / "secret.h5", 0), (folder, 0o555)):
            path.chmod(mode)
        root = os.geteuid() == 0
        if root:
            os.setresuid(65534, 65534, 0)
        try:
            yield folder
        finally:
            if root:
                os.setresuid(0, 0, 0)
            folder.chmod(0o755)


class TestConvert:
    @pytest.mark.parametrize("chain", [("ragged",), ("jetnet",), ("jetnet", "ragged"), ("ragged", "jetnet", "ragged")])
    def test_points_survive_every_format_that_holds_them(
        self, tmp_path: Path, jets: Path, chain: tuple[str, ...]
    ) -> None:
        path = jets
        for step, format in enumerate(chain):
            out = tmp_path / f"{step}.hdf5"
            assert main(["convert", str(path), str(out), "--to", format]) == 0
            path = out
        kinematics = ("jet_pt", "jet_eta", "jet_mass")
        assert _same(data.open(path, condition=kinematics)[:], data.open(jets, condition=kinematics)[:])

    @pytest.mark.parametrize("chain", [("ragged",), ("dense",), ("dense", "ragged", "dense")])
    def test_cells_survive_every_format_that_holds_them(
        self, tmp_path: Path, jets: Path, chain: tuple[str, ...]
    ) -> None:
        cells = tmp_path / "cells.h5"
        assert main(["voxelize", str(jets), str(cells), "--shape", "20", "24", "--outside", "drop"]) == 0
        path = cells
        for step, format in enumerate(chain):
            out = tmp_path / f"{step}.h5"
            assert main(["convert", str(path), str(out), "--to", format]) == 0
            path = out
        assert _same(data.open(path, condition="all")[:], data.open(cells, condition="all")[:])

    def test_showers_survive_the_way_there_and_back(self, tmp_path: Path) -> None:
        a, b, c = (str(tmp_path / name) for name in ("a.hdf5", "b.h5", "c.hdf5"))
        assert main(["showers", a, "--events", "20"]) == 0
        assert main(["convert", a, b]) == 0
        assert main(["convert", b, c, "--to", "calochallenge"]) == 0
        with h5py.File(a) as first, h5py.File(c) as last:
            for key in ("showers", "incident_energies"):
                assert (first[key][:] == last[key][:]).all()

    def test_splits_labels_and_origin_are_kept(self, tmp_path: Path) -> None:
        assert main(["convert", "pythia-jets:valid", str(tmp_path / "a.h5")]) == 0
        copy, original = data.open(tmp_path / "a.h5"), data.open("pythia-jets:valid")
        assert copy.labels is not None
        assert original.labels is not None
        assert torch.equal(copy.labels, original.labels)
        provenance = RaggedReader(tmp_path / "a.h5").provenance
        assert provenance["sha256"] == original.fingerprint
        assert provenance["origin"]["seed"] == 1

    @pytest.mark.parametrize(
        ("kind", "chain"),
        [
            ("lagan", ("a.h5 ragged", "b.hdf5 lagan")),
            ("shapes", ("a.h5 modelnet", "b.npz points")),
            ("digits", ("a.npz images", "b-images-idx3-ubyte.gz idx", "c.h5 dense", "d-images-idx3-ubyte idx")),
        ],
    )
    def test_labels_and_conditions_survive_every_format_that_holds_them(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, chain: tuple[str, ...]
    ) -> None:
        generator = np.random.default_rng(0)
        labels = generator.integers(0, 2, 40)
        first = tmp_path / "first"
        if kind == "lagan":
            with h5py.File(first, "w") as file:
                file["image"] = generator.random((40, 25, 25), "f4") * (generator.random((40, 25, 25)) < 0.1) + 0.0
                file["image"][...] = np.where(file["image"][:] > 1e-3, file["image"][:], 0)
                file["signal"], file["jet_pt"] = labels, generator.random(40, "f4")
        elif kind == "shapes":
            np.savez(first, points=generator.random((40, 9, 3), "f4"), labels=labels)
            first = first.with_suffix(".npz")
        else:
            images = generator.integers(1, 256, (40, 5, 6)) * (generator.random((40, 5, 6)) < 0.2) / np.float32(255)
            np.savez(first, images=images.astype("f4"), labels=labels)
            first = first.with_suffix(".npz")
        # Files of several pieces
        monkeypatch.setattr("data_tools.transfer._PIECE", 16)
        before, path = data.open(first, condition="all"), first
        for step in chain:
            name, format = step.split()
            assert main(["convert", str(path), str(tmp_path / name), "--to", format]) == 0
            path = tmp_path / name
            assert not path.with_name(f"{name}.chunks").exists()
        after = data.open(path, condition="all")
        for field in ("coords", "features", "offsets"):
            assert torch.equal(getattr(before[:], field), getattr(after[:], field))
        assert before.conditions == after.conditions
        if before.conditions:
            assert torch.equal(before[:].condition, after[:].condition)  # type: ignore[arg-type]
        assert after.labels is not None
        assert after.labels.tolist() == labels.tolist()

    def test_what_a_format_of_one_piece_cannot_hold_is_refused_before_anything_is_made(
        self, tmp_path: Path, jets: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        np.savez(tmp_path / "in.npz", images=np.zeros((3, 4, 4), "f4"), labels=np.arange(3))
        before = sorted(tmp_path.iterdir())
        out = tmp_path / "a.npy"
        assert main(["convert", str(tmp_path / "in.npz"), str(out), "--to", "images"]) == 2
        assert f"error: {out}: a .npy file has no place for labels; name it .npz" in capsys.readouterr().err
        assert main(["convert", str(jets), str(tmp_path / "a.npz"), "--to", "quarkgluon"]) == 2
        assert f"error: {tmp_path / 'a.npz'}: quark-gluon files hold points in yrel" in capsys.readouterr().err
        assert sorted(tmp_path.iterdir()) == before

    def test_a_format_that_cannot_hold_the_events_is_refused(
        self, tmp_path: Path, jets: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["convert", str(jets), str(tmp_path / "a.h5"), "--to", "calochallenge"]) == 2
        assert "CaloChallenge holds cells of one of its geometries" in capsys.readouterr().err
        assert not (tmp_path / "a.h5").exists()

    def test_events_beyond_the_first_piece_are_named_by_their_place_in_the_input(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        counts = torch.tensor([3] * 20 + [151] + [3] * 9)
        events = Events(
            torch.rand(int(counts.sum()), 2),
            torch.rand(int(counts.sum()), 1),
            torch.nn.functional.pad(counts.cumsum(0), (1, 0)),
            axes=("etarel", "phirel"),
            columns=("ptrel",),
            condition=torch.ones(30, 3),
            conditions=("jet_pt", "jet_eta", "jet_mass"),
        )
        data.write(events, tmp_path / "in.h5")
        monkeypatch.setattr("data_tools.transfer._PIECE", 16)
        assert main(["convert", str(tmp_path / "in.h5"), str(tmp_path / "a.hdf5"), "--to", "jetnet"]) == 2
        message = capsys.readouterr().err
        assert f"error: {tmp_path / 'in.h5'} from event 16 on: event 4 has 151 particles" in message

    def test_a_format_that_is_read_only_is_told_from_one_that_does_not_exist(
        self, jets: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name, words in [("pc15k", "'pc15k' is read only; choose one of calo"), ("jetnt", "did you mean jetnet")]:
            with pytest.raises(SystemExit, match="2"):
                main(["convert", str(jets), "a.h5", "--to", name])
            assert words in capsys.readouterr().err


class TestSelect:
    def test_splits_are_seeded_stratified_disjoint_and_complete(self, tmp_path: Path, jets: Path) -> None:
        fractions = ["--fractions", "train=0.5", "test=0.5"]
        for name, seed in [("a", "1"), ("b", "1"), ("c", "2")]:
            assert main(["split", str(jets), str(tmp_path / f"{name}.h5"), "--seed", seed, *fractions]) == 0
        train, test = (data.open(f"{tmp_path}/a.h5:{split}") for split in ("train", "test"))
        ids = torch.cat([train[:].ids, test[:].ids])
        assert sorted(ids.tolist()) == sorted(data.open(jets)[:].ids.tolist())
        assert train.labels is not None
        assert test.labels is not None
        difference = train.labels.bincount() - test.labels.bincount()
        assert int(difference.abs().max()) <= 1
        assert torch.equal(data.open(f"{tmp_path}/b.h5:test")[:].ids, test[:].ids)
        assert not torch.equal(data.open(f"{tmp_path}/c.h5:test")[:].ids, test[:].ids)
        digests = RaggedReader(tmp_path / "a.h5").provenance["options"]["rows_sha256"]
        assert digests == RaggedReader(tmp_path / "b.h5").provenance["options"]["rows_sha256"]
        assert digests != RaggedReader(tmp_path / "c.h5").provenance["options"]["rows_sha256"]

    def test_fractions_must_add_up(self, tmp_path: Path, jets: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["split", str(jets), str(tmp_path / "a.h5"), "--fractions", "a=0.5", "b=0.6"]) == 2
        assert main(["split", str(jets), str(tmp_path / "a.h5"), "--fractions", "half"]) == 2
        errors = capsys.readouterr().err
        assert "add up to 1, they give 1.1" in errors
        assert "expected NAME=SHARE" in errors

    def test_a_subset_is_of_the_classes_and_size_asked_for(self, tmp_path: Path, jets: Path) -> None:
        out = str(tmp_path / "a.h5")
        assert main(["subset", str(jets), out, "--classes", "top", "gluon", "--events", "50"]) == 0
        source = data.open(out)
        assert len(source) == 50
        assert source.labels is not None
        assert set(source.labels.tolist()) == {0, 2}
        whole = {int(i): k for k, i in enumerate(data.open(jets)[:].ids)}
        positions = [whole[int(i)] for i in source[:].ids]
        assert positions == sorted(positions)
        assert torch.equal(source[:].features, data.open(jets)[positions].features)

    def test_merged_files_follow_each_other(self, tmp_path: Path, jets: Path) -> None:
        out = str(tmp_path / "a.h5")
        assert main(["merge", str(jets), str(jets), "-o", out]) == 0
        events, once = data.open(out)[:], data.open(jets)[:]
        assert events.ids.tolist() == list(range(600))
        assert torch.equal(events[300:].features, once.features)

    def test_a_file_that_was_exchanged_is_read_anew(self, tmp_path: Path) -> None:
        for events in ("10", "20"):
            assert main(["toys", "ring", str(tmp_path / "a.h5"), "--events", events, "--overwrite"]) == 0
            assert main(["subset", str(tmp_path / "a.h5"), str(tmp_path / f"{events}.h5")]) == 0
        assert [len(data.open(tmp_path / name)) for name in ("10.h5", "20.h5")] == [10, 20]

    def test_files_of_other_content_are_not_merged(
        self, tmp_path: Path, jets: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["toys", "ring", str(tmp_path / "ring.h5"), "--events", "10"]) == 0
        assert main(["merge", str(jets), str(tmp_path / "ring.h5"), "-o", str(tmp_path / "a.h5")]) == 2
        assert "its axes ('x', 'y') are not" in capsys.readouterr().err

    def test_files_of_one_class_each_become_one_of_several(
        self, tmp_path: Path, padded: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = str(tmp_path / "a.h5")
        given = [str(padded)] * 3
        assert main(["merge", *given, "-o", out, "--classes", "gluon", "top", "gluon"]) == 0
        source = data.open(out)
        assert source.classes == ("gluon", "top")
        assert source.labels is not None
        assert source.labels.tolist() == [0] * 29 + [1] * 29 + [0] * 29
        assert main(["merge", *given, "-o", f"{out}2", "--classes", "gluon"]) == 2
        assert "one for each of the 3 inputs" in capsys.readouterr().err
        assert main(["merge", out, out, "-o", f"{out}2", "--classes", "a", "b"]) == 2
        assert "expected none of their own" in capsys.readouterr().err

    def test_what_cannot_be_selected_is_refused_and_leaves_nothing(
        self, tmp_path: Path, jets: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        one = str(tmp_path / "one.h5")
        assert main(["subset", str(jets), one, "--classes", "top"]) == 0
        before = sorted(tmp_path.iterdir())
        out = str(tmp_path / "a.h5")
        for arguments, words in [
            (["subset", one, out, "--classes", "gluon"], "has no events of the classes gluon"),
            (["subset", one, out, "--classes", "glu"], "did you mean gluon"),
            (["split", one, out, "--fractions", "a=0.5", "a=0.5"], "names a split twice"),
            (["merge", one, "pythia-jets:test", "-o", one], "exists already"),
        ]:
            assert main(arguments) == 2
            assert words in capsys.readouterr().err
        assert sorted(tmp_path.iterdir()) == before


class TestLattice:
    def test_voxelize_conserves_what_lies_inside(
        self, tmp_path: Path, jets: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = str(tmp_path / "a.h5")
        box = ["--low", "-0.4", "-0.4", "--high", "0.4", "0.4"]
        assert main(["voxelize", str(jets), out, "--shape", "8", "8", *box]) == 2
        assert "lies outside the grid" in capsys.readouterr().err
        assert main(["voxelize", str(jets), out, "--shape", "8", "8", *box, "--outside", "drop"]) == 0
        points = data.open(jets)[:]
        inside = ((points.coords >= -0.4) & (points.coords <= 0.4)).all(1)
        assert f"{int((~inside).sum()):,} hits outside" in capsys.readouterr().out
        torch.testing.assert_close(data.open(out)[:].total("ptrel"), points.select_hits(inside).total("ptrel"))

    def test_images_are_dense(self, tmp_path: Path, jets: Path) -> None:
        out = str(tmp_path / "a.h5")
        assert main(["image", str(jets), out, "--shape", "25", "25", "--outside", "drop"]) == 0
        with h5py.File(out) as file:
            images = file["images"][:]
        expected = data.open(jets, view="image")[:].to_dense().numpy()
        assert np.array_equal(images, expected)

    def test_a_shape_of_other_dimension_is_refused(
        self, tmp_path: Path, jets: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["voxelize", str(jets), str(tmp_path / "a.h5"), "--shape", "8"]) == 2
        assert "has the axes etarel, phirel; give one number an axis" in capsys.readouterr().err


class TestCheck:
    def test_a_sound_file_has_no_faults(self, jets: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["check", str(jets)]) == 0
        assert "0 faults, 0 remarks" in capsys.readouterr().out

    def test_every_fault_is_listed_with_its_row(self, padded: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = padded
        _alter(path, "particle_features", (5, 1, 0), np.nan)
        _alter(path, "particle_features", (7, 1, 2), -1)
        _alter(path, "particle_features", (7, 25, 2), 0.5)
        before = path.read_bytes()
        assert main(["check", str(path), "--json"]) == 1
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        faults = {(f["key"], f["row"], f["message"]) for f in found if f["error"]}
        assert faults == {
            ("etarel", 5, "is nan, not finite"),
            ("ptrel", 7, "is -1, a negative amount"),
            ("particle_features", 7, "has particles that its mask calls padding"),
        }
        assert [f["row"] for f in found if not f["error"]] == [0]
        assert path.read_bytes() == before

    def test_duplicates_across_splits_are_faults_and_inside_are_remarks(self, tmp_path: Path) -> None:
        events = data.open("pythia-jets:test")[[0, 1, 2, 0, 1]]
        with RaggedWriter(tmp_path / "a.h5", splits=("train", "test")) as writer:
            writer.append(events, split=np.array([0, 0, 1, 1, 0]))
        found = [(f.row, f.error) for f in examine(str(tmp_path / "a.h5")) if f.key == "event"]
        assert found == [(3, True), (4, False)]

    def test_mixed_units_are_remarked(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "a.hdf5", "w") as file:
            file["showers"] = np.ones((4, 6480), dtype=np.float32)
            file["incident_energies"] = np.full((4, 1), 6.48, dtype=np.float32)
        (finding,) = [f for f in examine(str(tmp_path / "a.hdf5")) if f.key == "energy"]
        assert "1e+03 of the incident energy" in str(finding)
        assert not finding.error

    def test_a_file_of_empty_events_alone_is_a_fault(self, padded: Path) -> None:
        data.write(data.open(padded, condition="all")[:1], padded.with_name("empty.h5"))
        path = padded.with_name("empty.h5")
        assert [f.message for f in examine(str(path)) if f.error] == ["has no hits"]

    def test_a_split_is_not_checked_alone(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["check", "pythia-jets:test"]) == 2
        assert "check reads whole files, and compares their splits: give pythia-jets" in capsys.readouterr().err

    def test_what_is_the_file_s_own_fault_names_no_key(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "a.h5"
        path.touch()
        assert main(["check", str(path)]) == 1
        assert f"error: {path}: the file is empty; copy or make it again\n" in capsys.readouterr().out
        assert main(["check", str(path), "--json"]) == 1
        (line,) = capsys.readouterr().out.splitlines()
        assert json.loads(line) == {
            "file": str(path), "key": "file", "row": -1, "message": "the file is empty",
            "remedy": "copy or make it again", "error": True,
        }  # fmt: skip

    def test_a_file_that_cannot_be_opened_is_a_fault(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n")
        assert main(["check", str(tmp_path / "a.h5")]) == 1
        assert "not a readable HDF5 file" in capsys.readouterr().out

    def test_damage_is_narrowed_to_its_rows_and_the_others_are_repaired(self, tmp_path: Path) -> None:
        path = tmp_path / "a.hdf5"
        assert main(["showers", str(path), "--events", "600"]) == 0
        with h5py.File(path, "r+") as file:
            chunk = file["showers"].id.get_chunk_info(0)
        raw = bytearray(path.read_bytes())
        raw[chunk.byte_offset + chunk.size // 2] ^= 255
        path.write_bytes(raw)
        with h5py.File(path, "r+") as file:
            file["showers"][599, 0] = -3
        messages = [str(f) for f in examine(str(path)) if f.error]
        assert len(messages) == 2
        assert "rows 0 to 128: showers rows 0 to 128 are damaged" in messages[1]
        assert "energy of row 599 is -3" in messages[0]
        assert main(["repair", str(path), str(tmp_path / "b.h5")]) == 0
        log = json.loads((tmp_path / "b.h5.log.json").read_text())
        assert [entry.get("rows", entry.get("row")) for entry in log] == [599, [0, 127]]
        mended = data.open(tmp_path / "b.h5")
        assert mended[:].ids.tolist() == list(range(128, 599))


class TestRepair:
    @pytest.mark.parametrize("keep", [False, True])
    def test_a_repaired_file_is_sound_and_every_change_is_logged(
        self, tmp_path: Path, padded: Path, keep: bool
    ) -> None:
        path = padded
        _alter(path, "particle_features", (5, 1, 0), np.nan)
        _alter(path, "particle_features", (7, 25, 2), 0.5)
        before = path.read_bytes()
        out = tmp_path / "mended.h5"
        assert main(["repair", str(path), str(out), *(["--keep-events"] if keep else [])]) == 0
        assert path.read_bytes() == before
        assert main(["check", str(out)]) == 0
        log = json.loads((tmp_path / "mended.h5.log.json").read_text())
        if keep:
            assert [(entry["row"], entry["change"]) for entry in log] == [(5, "hit left out"), (7, "left out")]
            assert data.open(out)[5].counts.tolist() == [4]
        else:
            assert [(entry["row"], entry["change"]) for entry in log] == [(5, "left out"), (7, "left out")]
        assert len(data.open(out)) == (28 if keep else 27)

    def test_the_input_and_other_files_are_left_as_they_are(
        self, tmp_path: Path, padded: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = padded.read_bytes()
        assert main(["repair", str(padded), str(padded.parent / "." / padded.name), "--overwrite"]) == 2
        assert "is the input, which repair leaves as it is" in capsys.readouterr().err
        assert main(["repair", str(padded), str(padded)]) == 2
        assert "exists already; choose another name or pass --overwrite" in capsys.readouterr().err
        assert padded.read_bytes() == before

    def test_what_cannot_be_repaired_is_refused(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "a.h5").write_bytes(b"")
        assert main(["repair", str(tmp_path / "a.h5"), str(tmp_path / "b.h5")]) == 2
        assert "cannot be repaired" in capsys.readouterr().err


def test_inspect_shows_the_set_on_one_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "pythia-jets:test", "--plots", str(tmp_path / "plots")]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert len(lines) < 27
    assert max(map(len, lines[:-4])) <= 120
    for word in ("1,800 of 12,000 rows", "102,647 points", "gluon 600", "multiplicity", "jet_mass", "occupancy"):
        assert word in text
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == [
        f"{name}.png" for name in ("events", "histograms", "mean", "profiles")
    ]


def test_every_verb_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in VERBS:
        with pytest.raises(SystemExit, match="0"):
            main([verb, "--help"])
        assert VERBS[verb].summary.split()[0] in capsys.readouterr().out


def test_folders_and_permissions_are_named_in_one_line(guarded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        jets = f"{name}/jets.h5"
        assert main(["toys", "ring", jets, "--events", "5"]) == 0
        Path(name, "folder").mkdir()
        Path(name, "file").touch()
        for arguments, words in [
            (["convert", jets, f"{guarded}/a.h5"], f"the folder {guarded} may not be written to; choose another"),
            (["toys", "ring", f"{guarded}/a.h5"], f"the folder {guarded} may not be written to; choose another"),
            (["inspect", jets, "--plots", f"{guarded}/a"], f"{guarded}/a: Permission denied; choose another folder"),
            (["inspect", jets, "--plots", f"{name}/file"], "is a file; --plots needs a folder"),
            (["inspect", f"{guarded}/secret.h5"], "secret.h5: may not be read; ask its owner"),
            (["convert", jets, f"{name}/folder"], "folder: is a folder; choose another name"),
            (["convert", jets, f"{name}/folder", "--overwrite"], "folder: is a folder; choose another name"),
        ]:
            capsys.readouterr()
            assert main(arguments) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert words in line
        assert sorted(path.name for path in Path(name).iterdir()) == ["file", "folder", "jets.h5"]
        assert [path.name for path in guarded.iterdir()] == ["secret.h5"]
