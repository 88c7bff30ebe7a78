"""The jets program: cuts, resuming, refusals."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import data_tools.chunks as chunks
import data_tools.jets as jets
import sparsegen.data as data
from data_tools.cli import main
from data_tools.jet_images import ImageSettings, make_images
from data_tools.pythia import KINDS, JetSettings, chunk_seed, make_chunk
from sparsegen.errors import ConfigError, DataError, MissingExtraError

pythia8mc = pytest.importorskip("pythia8mc")
pytest.importorskip("fastjet")


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jets, "_CHUNK", 15)


def test_a_chunk_obeys_its_cuts_and_is_its_seed_s() -> None:
    settings = JetSettings(max_constituents=30, particle_pt=2.0)
    chunk = make_chunk(settings, "top", 25, seed=7)
    pt, eta, mass = chunk["jets"].T
    assert len(pt) == 25
    assert (pt > 800).all()
    assert (pt < 1600).all()
    assert (np.abs(eta) < 2.5).all()
    assert 150 < np.median(mass) < 220
    assert chunk["counts"].max() == 30
    owner = np.repeat(np.arange(25), chunk["counts"])
    assert (chunk["particles"][:, 2] * pt[owner] > 2).all()
    assert np.abs(chunk["particles"][:, :2]).max() < 1.2
    again = make_chunk(settings, "top", 25, seed=7)
    other = make_chunk(settings, "top", 25, seed=8)
    assert (again["particles"] == chunk["particles"]).all()
    assert not np.array_equal(other["jets"], chunk["jets"])


def test_a_run_that_was_stopped_gives_the_file_of_one_that_was_not(
    tmp_path: Path, small_chunks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    jets.make_jets(tmp_path / "whole.h5", ["quark"], 40, seed=3)
    save = chunks.save_chunk
    done: list[int] = []

    def stop(task: tuple[Path, chunks.Chunk]) -> None:
        if len(done) == 2:
            raise KeyboardInterrupt
        save(task)
        done.append(1)

    monkeypatch.setattr(chunks, "save_chunk", stop)
    with pytest.raises(KeyboardInterrupt):
        jets.make_jets(tmp_path / "stopped.h5", ["quark"], 40, seed=3)
    assert not (tmp_path / "stopped.h5").exists()
    monkeypatch.setattr(chunks, "save_chunk", save)
    with pytest.raises(ConfigError, match="work of another call, with other seed;"):
        jets.make_jets(tmp_path / "stopped.h5", ["quark"], 40, seed=4)
    jets.make_jets(tmp_path / "stopped.h5", ["quark"], 40, seed=3)
    whole, stopped = data.RaggedReader(tmp_path / "whole.h5"), data.RaggedReader(tmp_path / "stopped.h5")
    assert whole.checksums == stopped.checksums
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stopped.h5", "whole.h5"]


def test_tops_have_three_prongs(tmp_path: Path) -> None:
    made = make_chunk(JetSettings(subjettiness=True), "top", 40, seed=7)["jets"]
    assert made.shape == (40, 6)
    tau1, tau2, tau3 = made[:, 3:].T
    assert (tau1 >= tau2).all()
    assert (tau2 >= tau3).all()
    assert 0.4 < np.median(tau3 / tau2) < 0.7


def test_jet_images_are_centred_turned_and_flipped(tmp_path: Path) -> None:
    settings = ImageSettings()
    made = make_images(settings, "w", 60, seed=3)
    image = made["image"].astype(np.float64)
    assert image.shape == (60, 25, 25)
    assert (made["jet_pt"] > 250).all()
    assert (made["jet_pt"] < 300).all()
    assert 74 < np.median(made["jet_mass"]) < 84
    assert np.median(made["tau_21"]) < 0.4
    mean = image.mean(0)
    assert np.unravel_index(mean.argmax(), mean.shape) == (12, 12)
    assert mean[:, :12].sum() > 2 * mean[:, 13:].sum()
    assert mean[13:].sum() > mean[:12].sum()
    # Scalar sum of the towers against the vector sum
    ratio = image.sum((1, 2)) / made["jet_pt"]
    assert (ratio > 0.98).all()
    assert (ratio < 1.2).all()
    assert image[image > 0].min() >= 1e-3


def test_the_lagan_preset_writes_the_lagan_layout(tmp_path: Path) -> None:
    assert main(["jets", str(tmp_path / "a.hdf5"), "--preset", "lagan", "--jets", "3"]) == 0
    source = data.open(tmp_path / "a.hdf5", condition=["jet_mass", "tau_21"])
    assert source.classes == ("qcd", "w")
    assert source.labels is not None
    assert source.labels.bincount().tolist() == [3, 3]
    events = source[:]
    assert events.condition is not None
    assert bool(((events.condition[:, 0] > 60) & (events.condition[:, 0] < 100)).all())


def test_splits_hold_the_same_fractions_of_each_kind(tmp_path: Path) -> None:
    assert main(["jets", str(tmp_path / "a.h5"), "--kinds", "gluon", "top", "--jets", "20"]) == 0
    for split, size in [("train", 14), ("valid", 3), ("test", 3)]:
        labels = data.open(f"{tmp_path}/a.h5:{split}").labels
        assert labels is not None
        assert labels.bincount().tolist() == [size, size]


def test_seeds_of_chunks_differ_and_suit_pythia() -> None:
    seeds = {chunk_seed(1, kind, chunk) for kind in KINDS for chunk in range(100)}
    assert len(seeds) == 100 * len(KINDS)
    assert min(seeds) >= 1
    assert max(seeds) <= 900_000_000


def test_a_setting_that_pythia_lacks_is_refused() -> None:
    with pytest.raises(ConfigError, match="Pythia refuses the setting 'HardQCD:nothing=on'"):
        make_chunk(JetSettings(extra=("HardQCD:nothing=on",)), "gluon", 1, seed=1)
    with pytest.raises(ConfigError, match="did you mean gluon"):
        make_chunk(JetSettings(), "gluons", 1, seed=1)


def test_an_existing_file_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.h5").write_text("mine")
    with pytest.raises(DataError, match="exists already"):
        jets.make_jets(tmp_path / "a.h5", jets=5)
    assert main(["jets", str(tmp_path / "a.h5")]) == 2
    assert "exists already" in capsys.readouterr().err


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pythia8mc", None)
    with pytest.raises(MissingExtraError, match=r"making jets needs pythia8mc: pip install 'sparsegen\[pythia\]'"):
        make_chunk(JetSettings(), "gluon", 1, seed=1)
