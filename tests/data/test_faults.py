"""What is wrong with a file is said in one line: the file, the key, the row where there is one, and what to do.

Every line of ``FAULTS`` is one fault in one format: how a good file is spoilt, and the words that must be in the
message. The good files are made in the published layouts, with h5py, NumPy and struct alone.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import socket
import struct
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import sparsegen.data as data
from sparsegen.data import DataWarning
from sparsegen.errors import DataError
from sparsegen.events import Column, Events
from sparsegen.grid import Grid

GZIP: dict[str, Any] = {"compression": "gzip", "fletcher32": True}
MEND = "`sparsegen data repair`"
AGAIN = "make it again"
RNG = partial(np.random.default_rng, 0)
Spoil = Callable[[Path], object]


# Good files


def save(path: Path, chunk: int = 8, **arrays: Any) -> Path:
    with h5py.File(path, "w") as file:
        for key, values in arrays.items():
            values = np.asarray(values)
            chunks = (min(chunk, len(values)), *values.shape[1:]) if len(values) else None
            file.create_dataset(key, data=values, chunks=chunks, **(GZIP if chunks else {}))
    return path


def jetnet(folder: Path, jets: int = 20) -> Path:
    counts = np.arange(jets) % 30 + 1
    real = np.arange(30) < counts[:, None]
    particles = np.concatenate([RNG().uniform(0.01, 0.5, (jets, 30, 3)), real[..., None]], -1) * real[..., None]
    jet = np.stack([np.full(jets, 1000.0), np.zeros(jets), np.full(jets, 100.0), counts], 1)
    return save(folder / "g.hdf5", particle_features=particles.astype("f4"), jet_features=jet.astype("f4"))


def lagan(folder: Path, images: int = 20) -> Path:
    return save(
        folder / "jets.hdf5",
        image=RNG().uniform(0.1, 1, (images, 25, 25)).astype("f4"),
        signal=(np.arange(images) % 2).astype("f4"),
        jet_pt=np.full(images, 270, "f4"),
        tau_21=np.full(images, 0.4, "f4"),
    )


def calogan(folder: Path, showers: int = 20) -> Path:
    layers = {
        f"layer_{i}": RNG().uniform(1, 9, (showers, *shape)).astype("f4")
        for i, shape in enumerate([(3, 96), (12, 12), (12, 6)])
    }
    overflow = np.zeros((showers, 3), "f4")
    return save(folder / "gamma.hdf5", energy=np.full((showers, 1), 50, "f4"), overflow=overflow, **layers)


def calochallenge(folder: Path, showers: int = 20) -> Path:
    values = np.zeros((showers, 6480))
    values[:, ::40] = 2.0
    return save(folder / "dataset_2.hdf5", showers=values, incident_energies=np.full((showers, 1), 5e3))


def caloclouds(folder: Path, showers: int = 20) -> Path:
    values = np.zeros((showers, 4, 12), "f4")
    for i in range(showers):
        values[i, :, 12 - i % 12 :] = 0.5
    return save(folder / "photons.hdf5", events=values, energy=np.full((showers, 1), 50, "f4"))


def toptagging(folder: Path, jets: int = 20) -> Path:
    kind = np.dtype([("index", "i8"), ("values_block_0", "f4", (804,)), ("values_block_1", "i8", (2,))])
    table = np.zeros(jets, kind)
    table["index"] = np.arange(jets)
    for i in range(jets):
        momenta = RNG().uniform(1, 9, (i + 1, 3))
        rows = np.concatenate([np.linalg.norm(momenta, axis=1)[:, None], momenta], 1)
        table["values_block_0"][i, : 4 * (i + 1)] = rows.reshape(-1)
    table["values_block_1"][:, 1] = np.arange(jets) % 2
    with h5py.File(folder / "test.h5", "w") as file:
        file.create_group("table").create_dataset("table", data=table, chunks=(4,), **GZIP)
    return folder / "test.h5"


def modelnet(folder: Path, shapes: int = 20) -> Path:
    points = RNG().uniform(-1, 1, (shapes, 64, 3)).astype("f4")
    return save(folder / "ply_data_test0.h5", data=points, label=(np.arange(shapes) % 4)[:, None].astype("u1"))


def dense(folder: Path, images: int = 20) -> Path:
    pixels = RNG().uniform(0.1, 1, (images, 6, 7)).astype("f4")
    return save(folder / "images.h5", images=pixels, labels=np.arange(images) % 3)


def quarkgluon(folder: Path, jets: int = 20, **changed: Any) -> Path:
    x = np.zeros((jets, 10, 4))
    for i in range(jets):
        x[i, : i % 10 + 1] = np.stack(
            [RNG().uniform(1, 9, i % 10 + 1), *[np.full(i % 10 + 1, 0.3)] * 2, [22.0] * (i % 10 + 1)], 1
        )
    arrays = {"X": x, "y": np.arange(jets) % 2.0} | changed
    np.savez(folder / "QG_jets.npz", **{key: values for key, values in arrays.items() if values is not None})
    return folder / "QG_jets.npz"


def points(folder: Path, **changed: Any) -> Path:
    arrays = {"points": RNG().uniform(-1, 1, (20, 9, 3)).astype("f4"), "labels": np.arange(20) % 2} | changed
    np.savez(folder / "shapes.npz", **{key: values for key, values in arrays.items() if values is not None})
    return folder / "shapes.npz"


def idx(folder: Path, images: int = 20, labels: int = 20) -> Path:
    pixels = RNG().integers(0, 256, (images, 5, 6), dtype=np.uint8)
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, images, 5, 6) + pixels.tobytes()))
    digits = struct.pack(">4BI", 0, 0, 8, 1, labels) + bytes(range(labels))
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(digits))
    return path


def ply(folder: Path) -> Path:
    head = "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
    (folder / "a.ply").write_text(head + "0 0 0\n1 0 0\n0 1 0.5\n")
    return folder / "a.ply"


def ragged(folder: Path, cells: bool = False) -> Path:
    counts = torch.arange(20) % 7 + 1
    grid = Grid.regular((6, 8), (-1, -1), (1, 1), ("x", "y"))
    hits = int(counts.sum())
    generator = torch.Generator().manual_seed(0)
    events = Events(
        torch.rand(hits, 2, generator=generator) * 1.9 - 0.95,
        torch.rand(hits, 1, generator=generator) + 0.1,
        torch.nn.functional.pad(counts.cumsum(0), (1, 0)),
        axes=("x", "y"),
        columns=(Column("energy", "GeV"),),
        condition=torch.rand(20, 1, generator=generator),
        conditions=("incident_energy",),
        grid=grid,
    )
    data.write(events.voxelize(grid)[0] if cells else events, folder / "own.h5")
    return folder / "own.h5"


GOOD: dict[str, Callable[[Path], Path]] = {
    "jetnet": jetnet, "lagan": lagan, "calogan": calogan, "calochallenge": calochallenge, "caloclouds": caloclouds,
    "toptagging": toptagging, "modelnet": modelnet, "dense": dense, "quarkgluon": quarkgluon, "points": points,
    "idx": idx, "ply": ply, "ragged": ragged,
}  # fmt: skip


# Ways to spoil them


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: -(path.stat().st_size // 3)])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def flip(key: str) -> Spoil:
    """One byte inside the second chunk of a dataset, under its checksum."""

    def spoil(path: Path) -> None:
        with h5py.File(path) as file:
            chunk = file[key].id.get_chunk_info(1 if file[key].id.get_num_chunks() > 1 else 0)
        raw = bytearray(path.read_bytes())
        raw[chunk.byte_offset + chunk.size // 2] ^= 4
        path.write_bytes(raw)

    return spoil


def drop(key: str) -> Spoil:
    def spoil(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            del file[key]

    return spoil


def swap(key: str, change: Callable[[Any], Any]) -> Spoil:
    """A dataset exchanged for what ``change`` makes of it."""

    def spoil(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            values = file[key][:]
            del file[key]
            file[key] = change(values)

    return spoil


def text_attribute(name: str, value: str) -> Spoil:
    def spoil(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            file.attrs[name] = value

    return spoil


def put(key: str, index: Any, value: Any, field: str | None = None) -> Spoil:
    """One value exchanged in place; checksums of sparsegen's own files follow, so that the value alone is wrong."""

    def spoil(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            values = file[key][:]
            (values if field is None else values[field])[index] = value
            file[key][:] = values
            if "checksums" in file.attrs:
                sums = json.loads(file.attrs["checksums"])
                file.attrs["checksums"] = json.dumps(sums | {key: hashlib.sha256(values.tobytes()).hexdigest()})

    return spoil


def fewer(key: str) -> Spoil:
    return swap(key, lambda values: values[:-1])


def integers(key: str) -> Spoil:
    return swap(key, lambda values: values.astype(np.int64))


def none_left(path: Path) -> None:
    """Every dataset with as many rows as before, none of them."""
    with h5py.File(path, "r+") as file:
        for key in list(file):
            values = file[key][:0]
            del file[key]
            file[key] = values


def remade(make: Callable[..., Path], **changed: Any) -> Spoil:
    return lambda path: make(path.parent, **changed)


def text(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


def binning(content: str) -> Spoil:
    return lambda path: (path.parent / "binning_dataset_2.xml").write_text(content)


def attribute(name: str, change: Callable[[Any], Any]) -> Spoil:
    def spoil(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            file.attrs[name] = json.dumps(change(json.loads(file.attrs[name])))

    return spoil


def unfinished(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["complete"] = False


def no_top_rows(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        kind = file["table/table"].dtype
        del file["table/table"]
        file["table/table"] = np.zeros(0, kind)


def pixel_flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 16
    path.write_bytes(raw)


BINS = '<Bins><Bin pid="11"><Layer id="0" r_edges="{}" n_bin_alpha="{}"/></Bin></Bins>'


@dataclass(frozen=True)
class Fault:
    format: str
    what: str
    spoil: Spoil
    words: tuple[str, ...]


def fault(format: str, what: str, spoil: Spoil, *words: str) -> Fault:
    return Fault(format, what, spoil, words)


HDF5_CUT = ("not a readable HDF5 file", "copy or " + AGAIN)
COPY = "copy or make the file again"
FAULTS = [
    fault("jetnet", "truncated", cut, *HDF5_CUT),
    fault("jetnet", "flipped bits", flip("particle_features"), "particle_features rows", "damaged", COPY),
    fault("jetnet", "missing key", drop("jet_features"), "key 'jet_features' is missing", "it has particle_features"),
    fault("jetnet", "wrong dtype", integers("jet_features"), "'jet_features' has type int64", "convert the column"),
    fault("jetnet", "rows disagree", fewer("jet_features"), "particle_features has 20 rows", "19", AGAIN),
    fault("jetnet", "NaN", put("particle_features", (5, 2, 0), np.nan), "etarel of row 5", "is nan", MEND),
    fault("jetnet", "negative", put("particle_features", (9, 3, 2), -0.5), "ptrel of row 9", "is -0.5", MEND),
    fault("jetnet", "mask contradicts padding", put("particle_features", (4, 1, 3), 0), "particle_features of row 4",
          "particles that its mask calls padding", MEND),
    fault("jetnet", "mask is no mask", put("particle_features", (3, 0, 3), 0.7), "particle_features of row 3",
          "neither 0 nor 1", MEND),
    fault("jetnet", "count contradicts mask", put("jet_features", (7, 3), 2), "particle_features of row 7",
          "another number of particles", MEND),
    fault("jetnet", "zero events", none_left, "holds no events", "at least one"),
    fault("lagan", "truncated", cut, *HDF5_CUT),
    fault("lagan", "flipped bits", flip("image"), "image rows", "damaged", COPY),
    fault("lagan", "missing key", drop("signal"), "key 'signal' is missing", "it has image"),
    fault("lagan", "wrong dtype", integers("jet_pt"), "'jet_pt' has type int64", "convert the column"),
    fault("lagan", "rows disagree", fewer("tau_21"), "'tau_21' has shape (19,); expected (20)", AGAIN),
    fault("lagan", "NaN", put("image", (5, 2, 3), np.nan), "pt of row 5", "is nan", MEND),
    fault("lagan", "negative", put("image", (6, 2, 3), -3), "pt of row 6", "is -3", MEND),
    fault("lagan", "NaN condition", put("jet_pt", 8, np.inf), "jet_pt of row 8", "is inf", MEND),
    fault("lagan", "label of no class", put("signal", 2, 3), "signal of row 2", "is 3", "expected 0 or 1", MEND),
    fault("calogan", "truncated", cut, *HDF5_CUT),
    fault("calogan", "flipped bits", flip("layer_1"), "layer_1 rows", "damaged", COPY),
    fault("calogan", "missing key", drop("overflow"), "key 'overflow' is missing", "it has energy"),
    fault("calogan", "wrong dtype", integers("layer_0"), "'layer_0' has type int64", "convert the column"),
    fault("calogan", "rows disagree", fewer("layer_2"), "'layer_2' has shape (19, 12, 6)", "(20, 12, 6)", AGAIN),
    fault("calogan", "NaN", put("layer_2", (5, 2, 3), np.nan), "energy of row 5", "is nan", MEND),
    fault("calogan", "negative", put("layer_0", (6, 2, 3), -3), "energy of row 6", "is -3", MEND),
    fault("calogan", "zero events", none_left, "holds no events", "at least one"),
    fault("calochallenge", "truncated", cut, *HDF5_CUT),
    fault("calochallenge", "flipped bits", flip("showers"), "showers rows", "damaged", COPY),
    fault("calochallenge", "missing key", drop("incident_energies"), "'incident_energies' is missing", "showers"),
    fault("calochallenge", "wrong dtype", integers("showers"), "'showers' has type int64", "convert the column"),
    fault("calochallenge", "rows disagree", fewer("incident_energies"), "'incident_energies' has shape (19, 1)",
          "(20, 1)", AGAIN),
    fault("calochallenge", "NaN", put("showers", (5, 77), np.nan), "energy of row 5", "is nan", MEND),
    fault("calochallenge", "negative", put("showers", (6, 2), -3), "energy of row 6", "is -3", MEND),
    fault("calochallenge", "xml that does not fit", lambda path: (swap("showers", lambda x: x[:, :27])(path), binning(
        BINS.format("0,1,2", 4))(path)), "27 voxels", "binning_dataset_2.xml (8)", "put the right binning*.xml"),
    fault("calochallenge", "xml cut short", binning("<Bins><Bin>"), "binning_dataset_2.xml", "not a binning file",
          "copy it again"),
    fault("calochallenge", "xml without edges", binning(BINS.replace("r_edges", "edges").format("0,1", 1)),
          "binning_dataset_2.xml", "r_edges", "copy it again"),
    fault("calochallenge", "xml whose edges fall", binning(BINS.format("0,2,1", 1)), "binning_dataset_2.xml",
          "layer 0", "do not rise", "copy it again"),
    fault("calochallenge", "zero events", none_left, "holds no events", "at least one"),
    fault("caloclouds", "truncated", cut, *HDF5_CUT),
    fault("caloclouds", "flipped bits", flip("events"), "events rows", "damaged", COPY),
    fault("caloclouds", "missing key", drop("energy"), "key 'energy' is missing", "it has events"),
    fault("caloclouds", "wrong dtype", integers("energy"), "'energy' has type int64", "convert the column"),
    fault("caloclouds", "rows disagree", fewer("energy"), "'energy' has shape (19, 1); expected (20, 1)", AGAIN),
    fault("caloclouds", "channel last", swap("events", lambda x: x.swapaxes(1, 2)), "'events' has shape (20, 12, 4)",
          "(any, 4, any)", AGAIN),
    fault("caloclouds", "NaN", put("events", (5, 0, 11), np.nan), "x of row 5", "is nan", MEND),
    fault("caloclouds", "negative", put("events", (6, 3, 11), -3), "energy of row 6", "is -3", MEND),
    fault("caloclouds", "padding after a hit", put("events", (7, 3, 11), 0), "events of row 7", "after a hit", MEND),
    fault("caloclouds", "padding that holds a position", put("events", (2, 1, 0), 4), "events of row 2",
          "places without energy that have a position", MEND),
    fault("toptagging", "truncated", cut, *HDF5_CUT),
    fault("toptagging", "flipped bits", flip("table/table"), "table/table rows", "damaged", COPY),
    fault("toptagging", "missing table", drop("table/table"), "key 'table/table' is missing", "it has table"),
    fault("toptagging", "wrong columns", swap("table/table", lambda t: t[["index", "values_block_1"]]),
          "'table/table' has the fields", "expected values_block_0 and values_block_1", AGAIN),
    fault("toptagging", "NaN", put("table/table", (5, 2), np.nan, "values_block_0"), "of row 5", "is nan", MEND),
    fault("toptagging", "negative", put("table/table", (6, 0), -3, "values_block_0"), "energy of row 6", "is -3", MEND),
    fault("toptagging", "label of no class", put("table/table", (4, 1), 7, "values_block_1"), "is_signal_new of row 4",
          "is 7", "expected 0 or 1", MEND),
    fault("toptagging", "zero events", no_top_rows, "holds no events", "at least one"),
    fault("modelnet", "truncated", cut, *HDF5_CUT),
    fault("modelnet", "flipped bits", flip("data"), "data rows", "damaged", COPY),
    fault("modelnet", "wrong dtype", swap("label", lambda x: x.astype("f4")), "'label' has type float32",
          "convert the column"),
    fault("modelnet", "rows disagree", fewer("label"), "'label' has shape (19, 1); expected (20, 1)", AGAIN),
    fault("modelnet", "NaN", put("data", (5, 2, 0), np.nan), "x of row 5", "is nan", MEND),
    fault("modelnet", "label of no class", lambda path: (path.parent / "shape_names.txt").write_text("bed\nsofa\n"),
          "label of row 2", "is 2", "2 classes", MEND),
    fault("modelnet", "names cut short", text_attribute("shape_names", "{oops"), "attribute shape_names is damaged",
          "make the file again"),
    fault("modelnet", "zero events", none_left, "holds no events", "at least one"),
    fault("dense", "truncated", cut, *HDF5_CUT),
    fault("dense", "flipped bits", flip("images"), "images rows", "damaged", COPY),
    fault("dense", "wrong dtype", swap("images", lambda x: np.full(len(x), b"x")), "'images' has shape (20,)",
          "expected numbers", AGAIN),
    fault("dense", "rows disagree", fewer("labels"), "'labels' has shape (19,); expected (20)", AGAIN),
    fault("dense", "NaN", put("images", (5, 2, 3), np.nan), "intensity of row 5", "is nan", MEND),
    fault("dense", "negative", put("images", (6, 2, 3), -3), "intensity of row 6", "is -3", MEND),
    fault("dense", "label of no class", put("labels", 3, -1), "labels of row 3", "is -1", "3 classes", MEND),
    fault("dense", "zero events", none_left, "holds no events", "at least one"),
    fault("quarkgluon", "truncated", cut, "not a readable NumPy archive", "copy or " + AGAIN),
    fault("quarkgluon", "missing key", remade(quarkgluon, y=None), "y is missing", COPY),
    fault("quarkgluon", "wrong dtype", remade(quarkgluon, X=np.ones((20, 10, 4), int)), "'X' has shape (20, 10, 4)",
          "int64", "expected floats (N, M, 4)"),
    fault("quarkgluon", "rows disagree", remade(quarkgluon, y=np.zeros(19)), "y has 19 rows", "X has 20",
          "make the file again"),
    fault("quarkgluon", "NaN", remade(quarkgluon, X=np.full((20, 10, 4), np.nan)), "of row 0", "is nan", MEND),
    fault("quarkgluon", "negative", remade(quarkgluon, X=np.full((20, 10, 4), -1.0)), "of row 0", "is -", MEND),
    fault("quarkgluon", "label of no class", remade(quarkgluon, y=np.arange(20.0)), "y of row 2", "is 2",
          "expected 0 or 1", MEND),
    fault("quarkgluon", "zero events", remade(quarkgluon, X=np.zeros((0, 10, 4)), y=np.zeros(0)), "holds no events",
          "at least one"),
    fault("points", "truncated", cut, "not a readable NumPy archive", "copy or " + AGAIN),
    fault("points", "wrong dtype", remade(points, points=np.ones((20, 9, 3), int)), "has shape (20, 9, 3)", "int64",
          "expected floats (N, P, 2 or 3)"),
    fault("points", "rows disagree", remade(points, labels=np.zeros(19, int)), "labels has 19 rows", "points has 20"),
    fault("points", "label of no class", remade(points, labels=-np.arange(20)), "labels of row 1", "is -1", MEND),
    fault("points", "labels are no numbers", remade(points, labels=np.full(20, "a")), "labels holds <U1 values",
          "expected class indices"),
    fault("points", "names are too few", remade(points, classes=np.array(["chair"])), "classes names 1",
          "labels counts 2", "name them all"),
    fault("points", "NaN", remade(points, points=np.full((20, 9, 3), np.nan)), "x of row 0", "is nan", MEND),
    fault("points", "zero events", remade(points, points=np.zeros((0, 9, 3)), labels=np.zeros(0, int)),
          "holds no events", "at least one"),
    fault("idx", "truncated", cut, "cut short or damaged", "copy it again"),
    fault("idx", "flipped bits", pixel_flip, "cut short or damaged", "copy it again"),
    fault("idx", "rows disagree", remade(idx, labels=19), "19 labels for 20 images", "copy both again"),
    fault("idx", "zero events", remade(idx, images=0, labels=0), "holds no events", "at least one"),
    fault("ply", "truncated", partial(text, old="0 1 0.5\n", new=""), "cut short", "3 vertices promised", AGAIN),
    fault("ply", "missing key", partial(text, old="property float z\n", new=""), "expected numbers with x, y and z",
          "export again"),
    fault("ply", "wrong dtype", partial(text, old="0 1 0.5", new="0 one 0.5"), "vertex 2", "'one'", "export again"),
    fault("ply", "NaN", partial(text, old="0 1 0.5", new="0 nan 0.5"), "y of row 0", "is nan", MEND),
    fault("ply", "no header", partial(text, old="ply\n", new="pyl\n"), "not a PLY file", "copy or " + AGAIN),
    fault("ragged", "truncated", cut, *HDF5_CUT),
    fault("ragged", "emptied", emptied, "the file is empty", "copy or " + AGAIN),
    fault("ragged", "flipped bits", flip("features"), "features rows", "damaged", COPY),
    fault("ragged", "changed under a checksum", swap("ids", lambda x: x + 1), "ids does not match its checksum", COPY),
    fault("ragged", "missing key", drop("offsets"), "key 'offsets' is missing", "it has condition"),
    fault("ragged", "wrong dtype", integers("features"), "'features' has type int64", "convert the column"),
    fault("ragged", "rows disagree", fewer("condition"), "'condition' has shape (19, 1); expected (20, 1)", AGAIN),
    fault("ragged", "offsets fall", put("offsets", 5, 0), "offsets of row 4", "fall", "make the file again"),
    fault("ragged", "NaN", put("features", (0, 0), np.nan), "energy of row 0", "is nan", MEND),
    fault("ragged", "negative", put("features", (1, 0), -2), "energy of row 1", "is -2", MEND),
    fault("ragged", "cell out of range", lambda path: (path.unlink(), ragged(path.parent, cells=True), put(
        "coords", (1, 0), 6)(path)), "coords of row 1", "(6, ", "outside the grid's (6, 8)", MEND),
    fault("ragged", "grid of other cells", lambda path: (path.unlink(), ragged(path.parent, cells=True), attribute(
        "grid", lambda grid: grid | {"edges": [grid["edges"][0][:3], grid["edges"][1]]})(path)), "coords of row",
        "outside the grid's (2, 8)", MEND),
    fault("ragged", "unfinished", unfinished, "incomplete", "make the file again"),
]  # fmt: skip


def refused(path: Path) -> str:
    """The one line that opening a file ends in."""
    with pytest.raises(DataError) as caught:
        data.open(path)
    return str(caught.value)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks the network fails."""

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a reader asked the network")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("format", GOOD)
def test_good_files_are_known_by_their_content_and_read_without_the_network(tmp_path: Path, format: str) -> None:
    path = GOOD[format](tmp_path)
    if format != "idx":  # whose labels are found by name
        path = path.rename(tmp_path / "renamed.dat")
    source = data.open(path)
    assert len(source) == (1 if format == "ply" else 20)
    assert [name for name in data.formats if data.formats[name].matches(path)] == [format]
    assert sum(len(batch) for batch in source.batches(7, shuffle=True)) == len(source)


@pytest.mark.usefixtures("offline")
def test_the_embedded_jets_are_read_without_the_network() -> None:
    assert len(data.open("pythia-jets:test")[:5]) == 5


@pytest.mark.parametrize("given", FAULTS, ids=lambda given: f"{given.format}: {given.what}")
def test_every_fault_ends_in_one_line_that_says_what_to_do(tmp_path: Path, given: Fault) -> None:
    path = GOOD[given.format](tmp_path)
    given.spoil(path)
    message = refused(path)
    assert "\n" not in message
    assert str(tmp_path) in message.split(": ")[0], message
    for word in given.words:
        assert word in message, message


def test_at_least_four_faults_in_each_of_eight_formats_and_more() -> None:
    count = Counter(given.format for given in FAULTS)
    assert set(count) == set(GOOD)
    assert min(count.values()) >= 4
    assert len(count) >= 12


@pytest.mark.parametrize("cells", [False, True], ids=["points", "cells"])
def test_an_event_of_100_000_hits_is_named_and_read_whole(tmp_path: Path, cells: bool) -> None:
    counts = torch.tensor([5, 100_000, *[7] * 20])
    grid = Grid.regular((400, 400), (0, 0), (1, 1), ("x", "y"))
    each = [torch.randperm(grid.cells)[:n].sort().values for n in counts.tolist()]
    events = Events(
        grid.unravel(torch.cat(each)),
        torch.rand(int(counts.sum()), 1),
        torch.nn.functional.pad(counts.cumsum(0), (1, 0)),
        axes=("x", "y"),
        columns=("energy",),
        grid=grid,
    )
    data.write(events if cells else events.devoxelize(), tmp_path / "giant.h5")
    with pytest.warns(DataWarning) as caught:
        source = data.open(tmp_path / "giant.h5")
    (message,) = (str(warning.message) for warning in caught)
    for word in ("giant.h5: hits of row 1", "100,000", "14,286 times the typical 7", "`sparsegen data subset`"):
        assert word in message
    assert "\n" not in message
    assert source[1].counts.tolist() == [100_000]
    assert torch.equal(source[1].features, events[1].features)


def test_events_that_are_all_large_are_no_remark(tmp_path: Path) -> None:
    np.save(tmp_path / "clouds.npy", RNG().random((2, 70_000, 3)).astype("f4"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert data.open(tmp_path / "clouds.npy")[:].counts.tolist() == [70_000, 70_000]


@pytest.mark.parametrize("what", ["an archive", "a table", "a folder", "an empty file"])
def test_what_is_opened_as_another_format_ends_in_one_line(tmp_path: Path, what: str) -> None:
    pytest.importorskip("trimesh")
    pytest.importorskip("uproot")
    path = tmp_path / "a"
    if what == "an archive":
        path = quarkgluon(tmp_path)
    elif what == "a table":
        path = jetnet(tmp_path)
    elif what == "a folder":
        path.mkdir()
    else:
        path.touch()
    own = {"an archive": "quarkgluon", "a table": "jetnet"}.get(what)
    for format in data.formats:
        if format == own:
            continue
        with pytest.raises(DataError) as caught:
            data.open(path, format)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


def test_one_name_is_as_good_as_a_list_of_one(tmp_path: Path) -> None:
    path = lagan(tmp_path)
    assert data.open(path, condition="jet_pt").conditions == ("jet_pt",)
    assert data.open(path, classes="qcd")[:].ids.tolist() == list(range(0, 20, 2))
