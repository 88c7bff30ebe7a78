"""Between all formats that can hold the same content, nothing is lost on the way, in either direction."""

from __future__ import annotations

import gzip
import itertools
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import sparsegen.data as data
from sparsegen.data import DataWarning, EventSource
from sparsegen.data.arrays import unit_box
from sparsegen.data.calochallenge import CALOCHALLENGE, calochallenge_grid
from sparsegen.data.calogan import calogan_grid
from sparsegen.data.dense import image_grid
from sparsegen.data.formats import recognise
from sparsegen.data.jetnet import jet_grid
from sparsegen.data.jets import jet_events
from sparsegen.data.lagan import lagan_grid
from sparsegen.errors import ConfigError, DataError
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


def quark_gluon_jets() -> Events:
    """Jets that are the sum of their particles."""
    generator = np.random.default_rng(0)
    counts = np.array([3, 40, 1, 17])
    hits = int(counts.sum())
    pt, rapidity = generator.exponential(20, hits) + 1, generator.normal(0.7, 0.1, hits)
    code = {Column("pdgid", additive=False): generator.choice([22, 211, -211, 2112], hits)}
    return jet_events(
        pt, rapidity, generator.normal(-3, 0.1, hits), pt * np.cosh(rapidity), counts, code, axes=("yrel", "phirel"),
        grid=Grid.regular((64, 64), (-0.4, -0.4), (0.4, 0.4), ("yrel", "phirel"), ("", "rad")), ids=torch.arange(4),
    )  # fmt: skip


def digits() -> Events:
    images = cells(image_grid((6, 9)), Column("intensity"))
    return images.with_features((images.features * 250).ceil() / 255)


def top_jets() -> Events:
    generator = np.random.default_rng(1)
    counts = np.array([3, 200, 1, 17])
    hits = int(counts.sum())
    pt, eta = generator.exponential(20, hits) + 1, generator.normal(-0.4, 0.2, hits)
    energy = {Column("energy", "GeV"): np.hypot(pt * np.cosh(eta), 0.14)}
    return jet_events(
        pt, eta, generator.normal(1, 0.2, hits), energy[Column("energy", "GeV")], counts, energy,
        axes=("etarel", "phirel"), grid=jet_grid(), ids=torch.arange(4),
    )  # fmt: skip


def jets_of_many_features() -> Events:
    columns = (Column("ptrel"), Column("energy", "GeV"), Column("charge", additive=False))
    jets = points([3, 0, 60, 8], jet_grid(), jet_grid().names, columns, 3)
    kinematics = torch.tensor(
        [[-0.7, 3, 0.1, 500, 90], [0.9, 0, 3, 600, 80], [0.1, 60, -3, 700, 70], [2, 8, 0, 550, 9]]
    )
    return jets.with_condition(kinematics, ("jet_eta", "jet_nparticles", "jet_phi", "jet_pt", "jet_sdmass"))


@dataclass(frozen=True)
class Content:
    """Events, the formats that hold them beside sparsegen's own, and whether these keep them bit by bit."""

    make: Callable[[], Events]
    formats: tuple[str, ...]
    classes: tuple[str, ...] = ()
    exact: bool = True

    def labels(self, events: Events) -> NDArray[np.int64] | None:
        return np.arange(len(events))[::-1] * 7 % len(self.classes) if self.classes else None


ENERGY = Column("energy", "MeV")
INCIDENT = ("incident_energy",)
CALOGAN = (*INCIDENT, "overflow_0", "overflow_1", "overflow_2")
XYZ = ("x", "y", "z")
NORMALS = tuple(Column(f"normal_{axis}", additive=False) for axis in XYZ)
CONTENTS: dict[str, Content] = {
    "jets of 30": Content(lambda: points([3, 0, 30, 8], jet_grid(), jet_grid().names, (Column("ptrel"),), 3),
                          ("jetnet",)),
    "jets of 150": Content(lambda: points([3, 0, 150, 31], jet_grid(), jet_grid().names, (Column("ptrel"),), 3),
                           ("jetnet",)),
    "quark-gluon jets": Content(quark_gluon_jets, ("quarkgluon",), ("gluon", "quark"), exact=False),
    "top jets": Content(top_jets, ("toptagging",), ("qcd", "top"), exact=False),
    "jets of many features": Content(jets_of_many_features, ("jetclass",), ("Hbb", "QCD"), exact=False),
    "jet images": Content(lambda: cells(lagan_grid(), Column("pt", "GeV"), ("jet_mass", "jet_pt", "tau_21")),
                          ("lagan", "dense"), ("qcd", "w")),
    "shower points": Content(lambda: points([3, 0, 200], None, ("x", "layer", "z"), (Column("energy", "GeV"),), 1),
                             ("caloclouds",)),
    "point sets": Content(lambda: points([9] * 4, unit_box(3), XYZ, (), 0), ("points",)),
    "planar point sets": Content(lambda: points([9] * 4, unit_box(2), XYZ[:2], (), 0), ("points",)),
    "shapes": Content(lambda: points([9] * 4, unit_box(3), XYZ, (), 0), ("points", "modelnet"), ("chair", "bed")),
    "shapes with normals": Content(lambda: points([9] * 4, unit_box(3), XYZ, NORMALS, 0), ("modelnet",), ("b", "a")),
    "images": Content(lambda: cells(image_grid((6, 9)), Column("intensity")), ("images", "dense")),
    "images of classes": Content(lambda: cells(image_grid((6, 9)), Column("intensity")), ("images", "dense"),
                                 ("cat", "dog", "owl")),
    "volumes": Content(lambda: cells(image_grid((4, 5, 6)), Column("intensity")), ("images", "dense")),
    "bytes": Content(digits, ("idx", "images", "dense")),
    "digits": Content(digits, ("idx", "images", "dense"), ("0", "1", "2", "3")),
    "a few digits": Content(digits, ("idx", "images", "dense"), ("7", "3")),
    "three layers": Content(lambda: cells(calogan_grid(), ENERGY, CALOGAN), ("calogan",)),
    **{
        f"data set {name}": Content(lambda name=name: cells(calochallenge_grid(name), ENERGY, INCIDENT),  # type: ignore[misc]
                                    ("calochallenge",) if name.startswith("1") else ("calochallenge", "dense"))
        for name in CALOCHALLENGE
    },
}  # fmt: skip
PAIRS = [
    (name, *pair)
    for name, content in CONTENTS.items()
    for pair in itertools.permutations((*content.formats, "ragged"), 2)
]


def written(
    events: Events | EventSource, folder: Path, format: str, labels: Any = None, classes: Sequence[str] = ()
) -> Path:
    """A new file of its own folder, where nothing of another lies beside it."""
    labelled = labels is not None or (isinstance(events, EventSource) and events.labels is not None)
    archive = labelled and format in ("images", "points")
    folder = folder / str(len(list(folder.iterdir())))
    folder.mkdir()
    path = folder / f"0{'.npz' if archive else data.formats[format].suffixes[0]}"
    data.write(events, path, format, labels=labels, classes=classes)
    return path


def assert_same(one: Events, other: Events, exact: bool = True) -> None:
    for name in ("axes", "columns", "conditions", "grid"):
        assert getattr(one, name) == getattr(other, name), name
    assert torch.equal(one.offsets, other.offsets)
    for name in ("coords", "features"):
        if exact:
            assert torch.equal(getattr(one, name), getattr(other, name)), name
        else:
            torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=1e-6, atol=1e-6)
    if one.condition is not None:
        assert other.condition is not None
        # Masses are differences of large numbers
        close = {"rtol": 1e-7, "atol": 0} if exact else {"rtol": 1e-5, "atol": 5e-3}
        torch.testing.assert_close(one.condition, other.condition, **close)


def named(source: EventSource) -> list[str]:
    """The class of each event, by name."""
    return [] if source.labels is None else [source.classes[label] for label in source.labels.tolist()]


@pytest.mark.parametrize(("name", "first", "second"), PAIRS)
def test_from_one_format_to_another_and_on_nothing_is_lost(tmp_path: Path, name: str, first: str, second: str) -> None:
    content = CONTENTS[name]
    events = content.make()
    labels = content.labels(events)
    there = data.open(written(events, tmp_path, first, labels, content.classes), condition="all")
    assert recognise(there.reader.path).name == first
    assert_same(there[:], events, content.exact)
    back = data.open(written(there, tmp_path, second), condition="all")
    assert_same(back[:], events, content.exact)
    assert named(there) == named(back) == ([] if labels is None else [content.classes[label] for label in labels])
    for column in events.columns:
        torch.testing.assert_close(back[:].total(column.name), events.total(column.name), rtol=1e-6, atol=1e-6)
    assert back[:].counts.tolist() == events.counts.tolist()


def test_every_format_that_can_be_written_is_in_a_round_trip() -> None:
    writable = {name for name in data.formats if data.formats[name].write is not None}
    assert writable == {"ragged", *(name for content in CONTENTS.values() for name in content.formats)}
    labelled = {name for content in CONTENTS.values() if content.classes for name in content.formats}
    assert {"ragged", *labelled} == {name for name in data.formats if data.formats[name].labels}


def test_what_is_written_is_read_by_h5py_and_numpy_alone(tmp_path: Path) -> None:
    clouds = CONTENTS["shower points"].make()
    with h5py.File(written(clouds, tmp_path, "caloclouds")) as file:
        stored = file["events"][:]
        assert stored.shape == (3, 4, 200)
        # The first shower's three hits end the row; x, layer, z, energy
        assert np.array_equal(stored[0, :, 197:], torch.cat([clouds[0].coords, clouds[0].features], 1).T.numpy())
        assert not stored[0, :, :197].any()
        assert np.array_equal(file["energy"][:, 0], clouds.condition[:, 0].numpy())  # type: ignore[index]
    layers = CONTENTS["three layers"].make()
    with h5py.File(written(layers, tmp_path, "calogan")) as file:
        total = sum(float(file[f"layer_{i}"][2].sum(dtype="f8")) for i in range(3))
        assert total == pytest.approx(float(layers[2].total("energy")), rel=1e-6)
        assert [file[f"layer_{i}"].shape[1:] for i in range(3)] == [(3, 96), (12, 12), (12, 6)]
        # GeV, where the cells are in MeV
        assert np.allclose(file["energy"][:, 0] * 1000, layers.condition[:, 0].numpy())  # type: ignore[index]
    images = CONTENTS["images"].make()
    stack = np.load(written(images, tmp_path, "images"))
    assert np.array_equal(stack, images.to_dense()[:, 0].numpy())
    sets = CONTENTS["point sets"].make()
    assert np.array_equal(np.load(written(sets, tmp_path, "points")).reshape(-1, 3), sets.coords.numpy())


def test_jet_images_are_read_by_h5py_alone(tmp_path: Path) -> None:
    images = CONTENTS["jet images"].make()
    with h5py.File(written(images, tmp_path, "lagan", [1, 0, 0, 1, 1], ("w", "qcd"))) as file:
        assert set(file) == {"image", "signal", "jet_mass", "jet_pt", "tau_21"}
        assert {key: (file[key].shape, file[key].dtype) for key in ("image", "signal", "jet_pt")} == {
            "image": ((5, 25, 25), "f4"),
            "signal": ((5,), "f4"),
            "jet_pt": ((5,), "f4"),
        }
        # Names decide, not numbers: in the published files W is 1
        assert file["signal"][:].tolist() == [0, 1, 1, 0, 0]
        assert np.array_equal(file["image"][:], images.to_dense()[:, 0].numpy())
        assert np.array_equal(file["tau_21"][:], images.condition[:, 2].numpy())  # type: ignore[index]


def test_shapes_are_read_by_h5py_alone(tmp_path: Path) -> None:
    shapes = CONTENTS["shapes with normals"].make()
    with h5py.File(written(shapes, tmp_path, "modelnet", [2, 0, 1, 2], ("airplane", "bed", "sofa"))) as file:
        assert set(file) == {"data", "label", "normal"}
        assert (file["label"].shape, file["label"].dtype) == ((4, 1), "u1")
        assert (file["data"].shape, file["data"].dtype, file["normal"].dtype) == ((4, 9, 3), "f4", "f4")
        assert file["label"][:, 0].tolist() == [2, 0, 1, 2]
        assert np.array_equal(file["data"][:].reshape(-1, 3), shapes.coords.numpy())
        assert np.array_equal(file["normal"][:].reshape(-1, 3), shapes.features.numpy())


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx_files_are_read_by_struct_alone(tmp_path: Path, ending: str) -> None:
    images = digits()
    path = tmp_path / f"t10k-images-idx3-ubyte{ending}"
    data.write(images, path, "idx", labels=[1, 0, 0, 1, 1], classes=("7", "3"))
    raw, labels = (
        (gzip.decompress if ending else bytes)(file.read_bytes())
        for file in (path, tmp_path / f"t10k-labels-idx1-ubyte{ending}")
    )
    assert struct.unpack(">4B3I", raw[:16]) == (0, 0, 8, 3, 5, 6, 9)
    pixels = np.frombuffer(raw[16:], np.uint8).reshape(5, 6, 9)
    assert np.array_equal(pixels, np.rint(images.to_dense()[:, 0].numpy() * 255))
    assert labels == struct.pack(">4BI", 0, 0, 8, 1, 5) + bytes([3, 7, 7, 3, 3])


def test_stacks_with_labels_and_quark_gluon_jets_are_read_by_numpy_alone(tmp_path: Path) -> None:
    images = CONTENTS["images"].make()
    with np.load(written(images, tmp_path, "images", [2, 0, 1, 2, 2], ("cat", "dog", "owl"))) as file:
        assert file.files == ["images", "labels", "classes"]
        assert (file["images"].shape, file["images"].dtype, file["labels"].dtype) == ((5, 6, 9), "f4", "i8")
        assert np.array_equal(file["images"], images.to_dense()[:, 0].numpy())
        assert file["labels"].tolist() == [2, 0, 1, 2, 2]
        assert file["classes"].tolist() == ["cat", "dog", "owl"]
    jets = quark_gluon_jets()
    with np.load(written(jets, tmp_path, "quarkgluon", [0, 1, 1, 0])) as file:
        assert {key: (file[key].shape, file[key].dtype) for key in file.files} == {
            "X": ((4, 40, 4), "f8"),
            "y": ((4,), "f8"),
        }
        assert file["y"].tolist() == [0, 1, 1, 0]
        pt, rapidity, phi, code = np.moveaxis(file["X"], -1, 0)
        assert (pt > 0).sum(1).tolist() == [3, 40, 1, 17]
        assert not file["X"][0, 3:].any()
        assert ((phi >= 0) & (phi < 2 * np.pi)).all()
        assert set(np.unique(code)) == {0, 22, 211, -211, 2112}
        summed = np.hypot((pt * np.cos(phi)).sum(1), (pt * np.sin(phi)).sum(1))
        assert jets.condition is not None
        assert summed == pytest.approx(jets.condition[:, 0].tolist(), rel=1e-6)
        assert np.arcsinh((pt * np.sinh(rapidity)).sum(1) / summed) == pytest.approx(
            jets.condition[:, 1].tolist(), rel=1e-6
        )


def test_top_jets_are_read_by_h5py_and_pandas_alone(tmp_path: Path) -> None:
    jets = top_jets()
    path = written(jets, tmp_path, "toptagging", [0, 1, 1, 0])
    with h5py.File(path) as file:
        block, flags = file["table/block0_values"], file["table/block1_values"]
        assert (block.shape, block.dtype, flags.shape, flags.dtype) == ((4, 804), "f4", (4, 2), "i8")
        assert flags[:].tolist() == [[0, 0], [0, 1], [0, 1], [0, 0]]
        assert not block[:, 800:].any()
        energy, px, py, pz = np.moveaxis(block[:, :800].reshape(4, 200, 4), -1, 0)
        assert (energy > 0).sum(1).tolist() == [3, 200, 1, 17]
        assert jets.condition is not None
        assert np.hypot(px.sum(1), py.sum(1)) == pytest.approx(jets.condition[:, 0].tolist(), rel=1e-5)
        assert energy.sum(1) == pytest.approx(jets.total("energy").tolist(), rel=1e-5)
        assert np.all(energy**2 >= 0.999 * (px**2 + py**2 + pz**2))
        first = block[0, :4]
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("tables")
    frame = pandas.read_hdf(path, key="table")
    assert frame.shape == (4, 806)
    assert frame["is_signal_new"].tolist() == [0, 1, 1, 0]
    assert frame.loc[0, ["E_0", "PX_0", "PY_0", "PZ_0"]].tolist() == first.tolist()


def test_jets_of_many_features_are_read_by_uproot_alone(tmp_path: Path) -> None:
    uproot = pytest.importorskip("uproot")
    jets = jets_of_many_features()
    with uproot.open(written(jets, tmp_path, "jetclass", [1, 0, 0, 1], ("Tbqq", "QCD"))) as file:
        tree = file["tree"]
        names = {f"part_{name}" for name in ("px", "py", "pz", "deta", "dphi", "energy", "charge")}
        assert {key for key, kind in tree.typenames().items() if kind == "float[]"} == names
        assert {key for key, kind in tree.typenames().items() if kind == "bool"} == {"label_QCD", "label_Tbqq"}
        assert tree["npart"].array(library="np").tolist() == [3, 0, 60, 8]
        assert tree["label_QCD"].array(library="np").tolist() == [True, False, False, True]
        arrays = tree.arrays(library="np")
    momenta = {
        name: np.concatenate(arrays[f"part_{name}"]).astype("f8") for name in ("px", "py", "pz", "energy", "deta")
    }
    pt = np.hypot(momenta["px"], momenta["py"])
    assert jets.condition is not None
    jet = jets.condition[jets.batch].double().numpy()
    assert pt == pytest.approx(jets.column("ptrel").numpy() * jet[:, 3], rel=1e-5)
    # Deta is counted positive away from the centre: the first jet lies at negative eta
    eta = np.arcsinh(momenta["pz"] / pt)
    assert (eta - jet[:, 0]) * np.sign(jet[:, 0]) == pytest.approx(momenta["deta"], abs=1e-5)
    assert momenta["energy"] == pytest.approx(jets.column("energy").numpy())


@pytest.mark.parametrize(
    ("content", "format", "words"),
    [
        ("shapes", "lagan", "cells of etarel, phirel"),
        ("images", "modelnet", "points in x, y, z"),
        ("jet images", "idx", "intensity on unit cells"),
        ("jets of 30", "quarkgluon", "points in yrel, phirel with ptrel and pdgid"),
        ("jets of 30", "toptagging", "points in etarel, phirel with ptrel and energy"),
        ("jets of 30", "jetclass", "the conditions jet_pt, jet_eta, jet_phi"),
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
        data.write(CONTENTS[content].make(), tmp_path / "a", format)
    assert not list(tmp_path.iterdir())


def test_events_that_a_format_would_bend_are_refused(tmp_path: Path) -> None:
    silent = CONTENTS["shower points"].make()
    features = silent.features.clone()
    features[3] = 0
    with pytest.raises(DataError, match="event 2 has a hit without energy"):
        data.write(silent.with_features(features), tmp_path / "a.hdf5", "caloclouds")
    with pytest.raises(DataError, match="event 0 has 9 points and event 1 8: write format ragged"):
        data.write(points([9, 8], unit_box(3), XYZ, (), 0), tmp_path / "a.npy", "points")


def test_labels_that_do_not_fit_are_refused_and_no_file_appears(tmp_path: Path) -> None:
    images, shapes, jets = (CONTENTS[name].make() for name in ("jet images", "shapes", "jets of 30"))
    given: list[tuple[Events, str, dict[str, Any], type[Exception], str]] = [
        (images, "lagan", {}, DataError, "whether it is qcd or w; pass labels"),
        (images, "lagan", {"labels": [0] * 5, "classes": ["top"]}, DataError, "has the classes qcd, w; given top"),
        (images, "lagan", {"labels": [2] * 5}, DataError, "has the classes qcd, w; given 0, 1, 2"),
        (shapes, "modelnet", {}, DataError, "names the class of every shape; pass labels"),
        (shapes, "modelnet", {"labels": [0, 1]}, DataError, r"shape \(2,\) .* for 4 events"),
        (shapes, "modelnet", {"labels": [0.0] * 4}, DataError, "type float64"),
        (shapes, "modelnet", {"labels": [0, 1, 2, -1], "classes": "abc"}, DataError, "run from -1 to 2"),
        (shapes, "modelnet", {"labels": [0, 1, 2, 3], "classes": "abc"}, DataError, "run from 0 to 3"),
        (shapes, "modelnet", {"classes": "abc"}, ConfigError, "classes .* without labels"),
        (shapes, "points", {"labels": [0] * 4}, DataError, "a .npy file has no place for labels; name it .npz"),
        (jets, "jetnet", {"labels": [0] * 4}, DataError, "'jetnet' has no place for labels; leave them out"),
    ]
    for events, format, options, error, words in given:
        with pytest.raises(error, match=words):
            data.write(events, tmp_path / "a.npy", format, **options)
        assert not list(tmp_path.iterdir())
    source = data.EventsSource(shapes, "shapes", torch.zeros(4, dtype=torch.int64), ["bed"])
    with pytest.raises(ConfigError, match="shapes brings its own labels"):
        data.write(source, tmp_path / "a.h5", labels=[0] * 4)


def test_a_format_that_is_read_only_names_those_that_can_be_written(tmp_path: Path) -> None:
    for name in (name for name in data.formats if data.formats[name].write is None):
        with pytest.raises(ConfigError, match=f"'{name}' is read only; choose one of .*lagan.*modelnet"):
            data.write(CONTENTS["shapes"].make(), tmp_path / "a", name)


def test_what_is_not_kept_is_named(tmp_path: Path) -> None:
    jets = CONTENTS["jets of 30"].make()
    assert jets.condition is not None
    more = jets.with_condition(torch.cat([jets.condition, jets.condition[:, :1]], 1), (*jets.conditions, "tau_1"))
    with pytest.warns(DataWarning, match="'jetnet' has no place for condition tau_1; they are not kept"):
        data.write(more, tmp_path / "a.hdf5", "jetnet")
    with pytest.warns(DataWarning, match="'idx' has no place for names of classes"):
        data.write(digits(), tmp_path / "a-images", "idx", labels=[1, 0, 0, 1, 1], classes=["shirt", "bag"])
    assert data.open(tmp_path / "a-images").labels.tolist() == [1, 0, 0, 1, 1]  # type: ignore[union-attr]


def test_idx_files_are_never_read_with_another_s_labels(tmp_path: Path) -> None:
    data.write(digits(), tmp_path / "a-images", "idx", labels=[1, 0, 0, 1, 1])
    with pytest.raises(DataError, match="would be read with the labels of a-labels"):
        data.write(digits(), tmp_path / "a-images", "idx", overwrite=True)
    with pytest.raises(DataError, match=r"name it \.\.\.-images-idx3-ubyte"):
        data.write(digits(), tmp_path / "b", "idx", labels=[1, 0, 0, 1, 1])
    with pytest.raises(DataError, match="no multiple of 1/255"):
        data.write(CONTENTS["images"].make(), tmp_path / "b", "idx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-images", "a-labels"]


def test_top_jets_of_more_than_200_particles_are_refused(tmp_path: Path) -> None:
    jets = top_jets()
    twice = Events.cat([jets, jets]).replace(
        offsets=torch.tensor([0, *jets.counts.cumsum(0)[:3], 442, 442, 442, 442, 442])
    )
    with pytest.raises(DataError, match="event 3 has 238 particles and a top-tagging file holds 200; cut it first"):
        data.write(twice, tmp_path / "a.h5", "toptagging", labels=[0] * 8)


def test_quark_gluon_jets_that_are_not_the_sum_of_their_particles_are_refused(tmp_path: Path) -> None:
    jets = quark_gluon_jets()
    some = jets.select_hits(torch.arange(len(jets.coords)) != 5)
    with pytest.raises(DataError, match=r"those of event 1 add up to pt .* write format ragged"):
        data.write(some, tmp_path / "a.npz", "quarkgluon", labels=[0, 1, 1, 0])
    assert not list(tmp_path.iterdir())
