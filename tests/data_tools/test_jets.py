"""The jets program: cuts, resuming, refusals."""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import data_tools.jets as jets
import sparsegen.data as data
from data_tools.cli import main
from data_tools.jet_images import ImageSettings, make_images
from data_tools.pythia import KINDS, JetSettings, chunk_seed, make_chunk
from sparsegen.errors import ConfigError, DataError, MissingExtraError

pythia8mc = pytest.importorskip("pythia8mc")
pytest.importorskip("fastjet")


def test_a_chunk_obeys_its_cuts_and_is_its_seed_s(monkeypatch: pytest.MonkeyPatch) -> None:
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
    monkeypatch.setattr("data_tools.pythia._FEWEST_EVENTS", 3)
    monkeypatch.setattr("data_tools.pythia._EVENTS_A_CALL", 7)
    again = make_chunk(settings, "top", 25, seed=7)
    other = make_chunk(settings, "top", 25, seed=8)
    assert (again["particles"] == chunk["particles"]).all()
    assert not np.array_equal(other["jets"], chunk["jets"])


@pytest.fixture(scope="module")
def five_kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 jets of each kind, with N-subjettiness."""
    path = tmp_path_factory.mktemp("jets") / "a.h5"
    kinds = ["--kinds", "g", "q", "t", "W", "Z"]
    assert main(["jets", str(path), *kinds, "--jets", "40", "--nsubjettiness"]) == 0
    return path


def test_kinds_of_jets_differ_as_their_physics(five_kinds: Path) -> None:
    source = data.open(five_kinds, condition="all")
    assert source.classes == ("gluon", "quark", "top", "w", "z")
    assert source.labels is not None
    events = source[:]
    assert events.condition is not None
    values = dict(zip(events.conditions, events.condition.T.double().numpy(), strict=True))
    of_kind = {name: (source.labels == k).numpy() for k, name in enumerate(source.classes)}

    def median(what: np.ndarray, kind: str) -> float:
        return float(np.median(what[of_kind[kind]]))

    hits, mass = events.counts.double().numpy(), values["jet_mass"]
    tau21, tau32 = values["tau_2"] / values["tau_1"], values["tau_3"] / values["tau_2"]
    assert median(hits, "quark") < median(hits, "gluon")
    assert 165 < median(mass, "top") < 205
    assert 80 < median(mass, "w") < median(mass, "z") < 120
    # Two prongs, three prongs
    assert max(median(tau21, "w"), median(tau21, "z")) < 0.45 < min(median(tau21, "quark"), median(tau21, "gluon"))
    assert median(tau32, "top") < 0.65 < min(median(tau32, kind) for kind in ("quark", "gluon", "w", "z"))
    for lower, higher in (("tau_2", "tau_1"), ("tau_3", "tau_2")):
        assert (values[lower] <= values[higher]).all()


def test_splits_hold_the_same_fractions_of_each_kind(five_kinds: Path) -> None:
    for split, size in [("train", 28), ("valid", 6), ("test", 6)]:
        labels = data.open(f"{five_kinds}:{split}").labels
        assert labels is not None
        assert labels.bincount().tolist() == [size] * 5


def test_seeds_and_versions_are_on_record(five_kinds: Path) -> None:
    provenance = data.RaggedReader(five_kinds).provenance
    assert provenance["seed"] == 1
    assert provenance["pythia"]["w"]["seeds"] == [chunk_seed(1, "w", 0)]
    assert "WeakDoubleBoson:ffbar2WW=on" in provenance["pythia"]["w"]["settings"]
    assert provenance["versions"]["pythia8mc"].startswith("8.3")


def test_padded_jets_are_the_ragged_ones(tmp_path: Path) -> None:
    argv = ["--kinds", "q", "--jets", "12", "--max-constituents", "30", "--pythia", "PartonLevel:MPI=off"]
    assert main(["jets", str(tmp_path / "a.h5"), *argv]) == 0
    assert main(["jets", str(tmp_path / "a.hdf5"), "--to", "jetnet", *argv]) == 0
    with h5py.File(tmp_path / "a.hdf5") as file:
        assert file["particle_features"].shape == (12, 30, 4)
        assert file["jet_features"].shape == (12, 4)
        assert "PartonLevel:MPI=off" in file.attrs["provenance"]
        pt = np.sort(file["jet_features"][:, 0])
        total = file["particle_features"][..., 2].sum()
    ragged = data.open(tmp_path / "a.h5", condition=["jet_pt"])[:]
    assert ragged.condition is not None
    np.testing.assert_array_equal(np.sort(ragged.condition[:, 0].numpy()), pt)
    assert total == pytest.approx(float(ragged.total("ptrel").sum()), rel=1e-5)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--to", "jetnet"], "JetNet holds one kind a file"),
        (["--preset", "lagan", "--particle-pt", "2"], "--particle-pt does not go with --preset lagan"),
        (["--preset", "lagan", "--nsubjettiness"], "--nsubjettiness does not go with --preset lagan"),
        (["--jet-mass", "60", "100"], "--jet-mass does not go with --preset jetnet"),
        (["--preset", "lagan", "--kinds", "top"], "unknown kind of jet image 'top'"),
        (["--kinds", "qcd"], "unknown kind of jet 'qcd'"),
        (["--pythia", "HardQCD:nothing=on"], "Pythia refuses the setting 'HardQCD:nothing=on'"),
        (["--kinds", "q", "--jets", "1", "--jet-pt", "6000", "6500", "--pt-hat", "20", "30"], "passes the cuts; widen"),
        (["--jets", "0"], "expected at least 1"),
    ],
)
def test_what_cannot_be_made_is_said_in_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    argv: list[str],
    message: str,
) -> None:
    monkeypatch.setattr("data_tools.pythia._FRUITLESS", 40)
    assert main(["jets", str(tmp_path / "a.h5"), *argv]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_unknown_names_are_met_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    for argv, hint in (
        (["jets", "a.h5", "--kinds", "gluons"], "did you mean gluon"),
        (["jets", "a.h5", "--preset", "jetnot"], "did you mean jetnet"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(argv)
        assert hint in capsys.readouterr().err


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
    argv = ["--jets", "3", "--jet-mass", "65", "95", "--pixels", "15", "--pythia", "PartonLevel:MPI=off"]
    assert main(["jets", str(tmp_path / "a.hdf5"), "--preset", "lagan", *argv]) == 0
    source = data.open(tmp_path / "a.hdf5", condition=["jet_mass", "tau_21"])
    assert source.classes == ("qcd", "w")
    assert source.labels is not None
    assert source.labels.bincount().tolist() == [3, 3]
    events = source[:]
    assert events.condition is not None
    assert bool(((events.condition[:, 0] > 65) & (events.condition[:, 0] < 95)).all())
    with h5py.File(tmp_path / "a.hdf5") as file:
        records = {f"jet_{name}" for name in ("pt", "eta", "phi", "mass", "delta_R")}
        assert set(file) == {"image", "signal", *records, "tau_1", "tau_2", "tau_3", "tau_21", "tau_32"}
        assert file["image"].shape == (6, 15, 15)
        assert "PartonLevel:MPI=off" in file.attrs["provenance"]


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
