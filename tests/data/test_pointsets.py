"""Point sets, meshes, images and jets in the layouts they are published in, made without our own writers."""

from __future__ import annotations

import gc
import math
import pickle
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import sparsegen.data as data
from sparsegen.errors import DataError, MissingExtraError


def _refused(path: Path, *words: str) -> None:
    with pytest.raises(DataError) as caught:
        data.open(path)
    message = str(caught.value)
    del caught
    gc.collect()
    assert "\n" not in message
    for word in words:
        assert word in message, message


class TestModelNet:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        with h5py.File(tmp_path / "ply_data_train0.h5", "w") as file:
            points = np.arange(5 * 4 * 3, dtype=np.float32).reshape(5, 4, 3) / 64
            file.create_dataset("data", data=points, compression="gzip")
            file.create_dataset("label", data=np.array([[2], [0], [1], [2], [0]], dtype=np.uint8))
            file.create_dataset("faceId", data=np.zeros((5, 4), dtype=np.int32))
        return tmp_path / "ply_data_train0.h5"

    def test_points_and_classes(self, path: Path) -> None:
        path.with_name("shape_names.txt").write_text("airplane\nbathtub\nbed\n")
        source = data.open(path, classes=["bed"])
        assert source[:].counts.tolist() == [4, 4]
        assert source[:].ids.tolist() == [0, 3]
        # 0 + 1 + ... + 11 and 36 + ... + 47
        assert (64 * source[:].coords.reshape(2, -1).sum(1)).tolist() == [66, 498]
        assert source.columns == ()

    def test_points_without_features_are_counted_in_cells(self, path: Path) -> None:
        cells = data.open(path, view="cells")
        assert [column.name for column in cells.columns] == ["count"]
        assert cells[:].columns == cells.columns
        assert cells[:].total("count").tolist() == [4] * 5

    def test_normals_are_columns(self, path: Path) -> None:
        with h5py.File(path, "r+") as file:
            file["normal"] = np.tile(np.array([0, 0, 1], dtype=np.float32), (5, 4, 1))
        events = data.open(path)[:]
        assert [column.name for column in events.columns] == ["normal_x", "normal_y", "normal_z"]
        assert events.features.sum(0).tolist() == [0, 0, 20]

    def test_faults_are_named(self, path: Path, alter: Callable[..., None]) -> None:
        alter(path, "data", (3, 1, 2), np.nan)
        _refused(path, str(path), "z of row 3", "not finite", "repair")
        alter(path, "data", (3, 1, 2), 0)
        path.with_name("shape_names.txt").write_text("airplane\nbathtub\n")
        _refused(path, "label of row 0 is 2, but there are 2 classes")
        with h5py.File(path, "r+") as file:
            del file["label"]
            file["label"] = np.zeros((4, 1), dtype=np.uint8)
        _refused(path, "'label' has shape (4, 1); expected (5, 1)")
        with h5py.File(path, "r+") as file:
            del file["label"]
        _refused(path, "with the keys data, faceId", "no known format")


class TestTrees:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for synset in ("02691156", "03001627"):
            for split, count in [("train", 3), ("val", 1), ("test", 2)]:
                for i in range(count):
                    file = tmp_path / synset / split / f"{i}.npy"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    np.save(file, np.full((6, 3), i + 0.25, dtype=np.float32))
        return tmp_path

    def test_folders_name_classes_and_splits(self, folder: Path) -> None:
        source = data.open(folder)
        assert len(source) == 12
        assert source.classes == ("02691156", "03001627")
        train = data.open(f"{folder}:train", classes=["03001627"])
        assert train[:].counts.tolist() == [6, 6, 6]
        assert train[:].coords[:, 0].reshape(3, 6).mean(1).tolist() == [0.25, 1.25, 2.25]
        assert len(data.open(f"{folder}:valid")) == 2

    def test_the_fingerprint_follows_the_files(self, folder: Path) -> None:
        before = data.open(folder).fingerprint
        assert data.open(folder).fingerprint == before
        np.save(folder / "02691156" / "train" / "9.npy", np.zeros((6, 3), dtype=np.float32))
        assert data.open(folder).fingerprint != before

    def test_faults_are_named(self, folder: Path) -> None:
        file = folder / "02691156" / "train" / "1.npy"
        whole = file.read_bytes()
        np.save(file, np.zeros((6, 2), dtype=np.float32))
        _refused(folder, str(file), "shape (6, 2)", "expected floats (P, 3)")
        np.save(file, np.zeros((6, 3), dtype=np.int64))
        _refused(folder, str(file), "int64")
        file.write_bytes(whole[:-20])
        _refused(folder, str(file), "not a readable NumPy file", "copy or make it again")
        np.save(file, np.array([[0, 0, np.inf]]))
        _refused(folder, "z of row 3 is inf")


class TestPLY:
    VERTICES = ((0.5, 0.25, -1.0), (1.0, 2.0, 4.0))

    @pytest.mark.parametrize("layout", ["ascii", "binary_little_endian", "binary_big_endian"])
    def test_vertices_are_read_from_every_layout(self, tmp_path: Path, layout: str) -> None:
        head = (
            f"ply\nformat {layout} 1.0\ncomment made by hand\nelement vertex 2\nproperty float x\nproperty uchar red\n"
            "property float y\nproperty double z\nelement face 1\nproperty list uchar int vertex_indices\nend_header\n"
        )
        if layout == "ascii":
            body = b"".join(f"{x} 7 {y} {z}\n".encode() for x, y, z in self.VERTICES) + b"3 0 1 0\n"
        else:
            order = "<" if "little" in layout else ">"
            body = b"".join(struct.pack(f"{order}fBfd", x, 7, y, z) for x, y, z in self.VERTICES) + b"\3"
        (tmp_path / "a.ply").write_bytes(head.encode() + body)
        assert data.open(tmp_path / "a.ply")[0].coords.tolist() == [list(v) for v in self.VERTICES]

    def test_faults_are_named(self, tmp_path: Path) -> None:
        path = tmp_path / "a.ply"
        properties = "".join(f"property float {axis}\n" for axis in "xyz")
        head = f"ply\nformat ascii 1.0\nelement vertex 2\n{properties}end_header\n"
        path.write_text(head + "1 2 3\n")
        _refused(path, str(path), "cut short, 2 vertices promised")
        path.write_text(head.replace("property float z\n", "") + "1 2\n1 2\n")
        _refused(path, "expected numbers with x, y and z")
        path.write_text(head.replace("element vertex 2", "element face 1"))
        _refused(path, "expected vertices first")
        path.write_text("solid")
        _refused(path, "not a PLY file")


class TestMeshes:
    OFF = "OFF\n4 2 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n3 0 1 2\n3 0 2 3\n"

    def test_points_cover_the_area_evenly_and_never_change(self, tmp_path: Path) -> None:
        pytest.importorskip("trimesh")
        for name in ("chair", "lamp"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "a.off").write_text(self.OFF)
        source = data.open(tmp_path)
        events = source[:]
        assert source.classes == ("chair", "lamp")
        assert events.counts.tolist() == [2048, 2048]
        assert torch.equal(events.coords, data.open(tmp_path)[:].coords)
        assert bool((events.coords[:, 2] == 0).all())
        quarters = (events.coords[:, :2] > 0.5).long() @ torch.tensor([1, 2])
        assert quarters.bincount().div(4096).tolist() == pytest.approx([0.25] * 4, abs=0.03)

    def test_vrml_faces_are_read_without_the_extra(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "trimesh", None)
        square = "Shape { geometry IndexedFaceSet { coordIndex [0,1,2,3,-1] coord Coordinate { point [%s] } } }"
        low = square % "0 0 0, 1 0 0, 1 1 0, 0 1 0"
        high = square.replace(",-1", "") % "0 0 4\n1 0 4\n1 3 4\n0 3 4"
        (tmp_path / "DIP.3dshapes").mkdir()
        (tmp_path / "DIP.3dshapes" / "a.wrl").write_text(f"#VRML V2.0 utf8\n{low}\n{high}\n")
        source = data.open(tmp_path)
        points = source[0].coords
        assert source.classes == ("DIP.3dshapes",)
        # Areas 1 and 3
        assert float((points[:, 2] == 4).double().mean()) == pytest.approx(0.75, abs=0.03)
        assert float(points[:, 1][points[:, 2] == 4].mean()) == pytest.approx(1.5, abs=0.08)
        (tmp_path / "DIP.3dshapes" / "a.wrl").write_text(low.replace("0,1,2,3", "0,1,2,7"))
        _refused(tmp_path, "a.wrl", "a face names vertex 7 of 4")
        (tmp_path / "DIP.3dshapes" / "a.wrl").write_text("#VRML V2.0 utf8\n")
        _refused(tmp_path, "a.wrl", "no triangles")

    def test_without_the_extra_the_error_says_what_to_install(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "a.off").write_text(self.OFF)
        monkeypatch.setitem(sys.modules, "trimesh", None)
        with pytest.raises(MissingExtraError, match=r"sparsegen\[meshes\]"):
            data.open(tmp_path / "a.off")

    def test_a_damaged_mesh_is_named(self, tmp_path: Path) -> None:
        pytest.importorskip("trimesh")
        (tmp_path / "a.off").write_text("OFF\n4 2 0\n0 0 0\n")
        _refused(tmp_path / "a.off", "a.off", "not a readable mesh")


class TestArrays:
    def test_a_stack_of_images(self, tmp_path: Path) -> None:
        images = np.zeros((4, 5, 6))
        images[2, 4, 1] = 3
        np.save(tmp_path / "a.npy", images)
        np.savez(tmp_path / "a.npz", images=images, labels=np.array([1, 1, 0, 1]))
        for name in ("a.npy", "a.npz"):
            source = data.open(tmp_path / name)
            assert source[:].total("intensity").tolist() == [0, 0, 3, 0]
            assert source[2].coords.tolist() == [[4, 1]]
        assert len(data.open(tmp_path / "a.npz", classes=["0"])) == 1

    @pytest.mark.parametrize("key", ["points", "x"])
    def test_a_stack_of_points(self, tmp_path: Path, key: str) -> None:
        points = np.arange(24.0).reshape(2, 4, 3)
        np.savez(tmp_path / "a.npz", **{key: points, "y": np.array([0, 3])})
        np.save(tmp_path / "a.npy", points)
        for name in ("a.npy", "a.npz"):
            source = data.open(tmp_path / name)
            assert source.axes == ("x", "y", "z")
            assert source[1].coords.sum(1).tolist() == [39, 48, 57, 66]
            copy = pickle.loads(pickle.dumps(source))
            assert torch.equal(copy[:].coords, source[:].coords)

    def test_faults_are_named(self, tmp_path: Path) -> None:
        path = tmp_path / "a.npz"
        np.savez(path, images=np.zeros((3, 4, 4)), labels=np.zeros(2))
        _refused(path, str(path), "labels has 2 rows, images has 3")
        np.savez(path, images=np.full((3, 4, 4), -1.0))
        _refused(path, "intensity of row 0", "negative amount")
        np.savez(path, images=np.zeros((3, 4)))
        _refused(path, "shape (3, 4)", "expected numbers (N, H, W)")
        np.savez(path, other=np.zeros(3))
        _refused(path, "no known format")
        np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
        _refused(tmp_path / "a.npy", "a.npy", "not a readable NumPy file")


class TestQuarkGluon:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """Two jets: one particle of 500 GeV; two of 300 and 200 GeV, back to back in neither."""
        jets = np.zeros((2, 5, 4))
        jets[0, 0] = (500, 0.5, 6.2, 211)
        jets[1, 0] = (300, 0.1, 0.1, 22)
        jets[1, 1] = (200, 0.1, 2 * math.pi - 0.1, -211)
        np.savez(tmp_path / "QG_jets.npz", X=jets, y=np.array([1.0, 0.0]))
        return tmp_path / "QG_jets.npz"

    def test_particles_are_relative_to_their_jet(self, path: Path) -> None:
        source = data.open(path, condition="all")
        events = source[:]
        assert source.classes == ("gluon", "quark")
        assert source.labels is not None
        assert source.labels.tolist() == [1, 0]
        assert events.counts.tolist() == [1, 2]
        assert events[0].coords[0].tolist() == pytest.approx([0, 0], abs=1e-6)
        assert events.column("pdgid").tolist() == [211, 22, -211]
        assert events.condition is not None
        pt = math.hypot(500 * math.cos(0.1), 100 * math.sin(0.1))
        assert events.condition[1, 0].item() == pytest.approx(pt)
        assert events[1].total("ptrel").item() == pytest.approx(500 / pt)
        phi = math.atan2(100 * math.sin(0.1), 500 * math.cos(0.1))
        assert events[1].coords[:, 1].tolist() == pytest.approx([0.1 - phi, -0.1 - phi], abs=1e-6)
        # 2 p1 p2 (1 - cos of the opening angle), both at the same rapidity
        assert events.condition[1, 3].item() == pytest.approx(math.sqrt(2 * 300 * 200 * (1 - math.cos(0.2))), rel=1e-3)

    def test_faults_are_named(self, path: Path) -> None:
        with np.load(path) as file:
            jets = file["X"]
        np.savez(path, X=jets, y=np.array([1, 3]))
        _refused(path, "y of row 1 is 3, expected 0 or 1")
        np.savez(path, X=jets)
        _refused(path, "y is missing")
        np.savez(path, X=jets, y=np.zeros(3))
        _refused(path, "y has 3 rows, X has 2")
        jets[1, 1, 0] = np.nan
        np.savez(path, X=jets, y=np.zeros(2))
        _refused(path, "ptrel of row 1", "not finite")
        path.write_bytes(path.read_bytes()[:200])
        _refused(path, str(path))


class TestTopTagging:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        kind = np.dtype([("index", "<i8"), ("values_block_0", "<f4", (804,)), ("values_block_1", "<i8", (2,))])
        table = np.zeros(3, dtype=kind)
        table["values_block_0"][0, :4] = (math.cosh(1), 1, 0, math.sinh(1))
        table["values_block_0"][1, :8] = (5, 3, 4, 0, 13, 0, 12, 5)
        table["values_block_0"][:, 800:] = 7
        table["values_block_1"] = [[0, 1], [0, 0], [0, 0]]
        with h5py.File(tmp_path / "train.h5", "w") as file:
            file.create_dataset("table/table", data=table)
        return tmp_path / "train.h5"

    def test_the_fixed_form_of_the_frame_is_the_same_jets(self, path: Path, tmp_path: Path) -> None:
        with h5py.File(path) as file, h5py.File(tmp_path / "fixed.h5", "w") as fixed:
            table = file["table/table"][:]
            fixed["table/axis1"] = np.arange(3)
            fixed["table/block0_values"] = table["values_block_0"]
            fixed["table/block1_values"] = table["values_block_1"]
        one, other = data.open(path, condition="all"), data.open(tmp_path / "fixed.h5", condition="all")
        for field in ("coords", "features", "offsets", "condition"):
            assert torch.equal(getattr(one[:], field), getattr(other[:], field))
        assert one.labels is not None
        assert other.labels is not None
        assert torch.equal(one.labels, other.labels)

    def test_a_filter_that_is_missing_here_is_named(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with h5py.File(path, "r+") as file:
            table = file["table/table"][:]
            del file["table/table"]
            plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plan.set_chunk((2,))
            plan.set_filter(32001, h5py.h5z.FLAG_OPTIONAL)
            space, kind = h5py.h5s.create_simple((3,)), h5py.h5t.py_create(table.dtype)
            h5py.h5d.create(file["table"].id, b"table", kind, space, plan)
        monkeypatch.setitem(sys.modules, "hdf5plugin", None)
        with pytest.raises(MissingExtraError, match=r"'table/table' is stored with .*32001.*sparsegen\[filters\]"):
            data.open(path)

    def test_jets_are_their_particles(self, path: Path) -> None:
        source = data.open(path, condition="all")
        events = source[:]
        assert events.counts.tolist() == [1, 2, 0]
        assert source.labels is not None
        assert source.labels.tolist() == [1, 0, 0]
        assert events.condition is not None
        assert events.condition[0].tolist() == pytest.approx([1, 1, 0, 0], abs=1e-3)
        # px 3, py 16, pz 5, E 18
        assert events.condition[1].tolist() == pytest.approx(
            [math.sqrt(265), math.asinh(5 / math.sqrt(265)), math.atan2(16, 3), math.sqrt(324 - 290)], rel=1e-5
        )
        assert events.total("energy").tolist() == pytest.approx([math.cosh(1), 18, 0])
        assert events[1].column("ptrel").tolist() == pytest.approx([5 / math.sqrt(265), 12 / math.sqrt(265)])

    def test_faults_are_named(self, path: Path) -> None:
        with h5py.File(path, "r+") as file:
            table = file["table/table"][:]
            del file["table/table"]
            file["table/table"] = table[["index", "values_block_0"]]
        _refused(path, str(path), "expected values_block_0 and values_block_1")
        with h5py.File(path, "r+") as file:
            del file["table/table"]
            file["table/other"] = [1]
        _refused(path, "key 'table/table' is missing")
        table["values_block_0"][2, 5] = np.inf
        with h5py.File(path, "r+") as file:
            file["table/table"] = table
        _refused(path, "of row 2", "not finite")
        path.write_bytes(path.read_bytes()[:100])
        _refused(path, "not a readable HDF5 file")


class TestJetClass:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        uproot = pytest.importorskip("uproot")
        awkward = pytest.importorskip("awkward")
        counts = [2, 0, 3]
        flat = np.arange(1.0, 6.0, dtype=np.float32)

        def jagged(values: np.ndarray) -> object:
            return awkward.unflatten(values.astype(np.float32), counts)

        with uproot.recreate(tmp_path / "JetClass.root") as file:
            file.mktree(
                "tree",
                {
                    **{f"part_{name}": "var * float32" for name in ("px", "py", "deta", "dphi", "energy", "charge")},
                    **{f"jet_{name}": "float32" for name in ("pt", "eta", "sdmass")},
                    "label_QCD": "float32",
                    "label_Tbqq": "int32",
                },
            )
            file["tree"].extend(
                {
                    "part_px": jagged(3 * flat),
                    "part_py": jagged(4 * flat),
                    "part_deta": jagged(flat / 16),
                    "part_dphi": jagged(-flat / 16),
                    "part_energy": jagged(6 * flat),
                    "part_charge": jagged(np.array([1, -1, 0, 1, 1])),
                    "jet_pt": np.array([16, 1, 64], dtype=np.float32),
                    "jet_eta": np.zeros(3, dtype=np.float32),
                    "jet_sdmass": np.array([80, 90, 170], dtype=np.float32),
                    "label_QCD": np.array([1, 1, 0], dtype=np.float32),
                    "label_Tbqq": np.array([0, 0, 1], dtype=np.int32),
                }
            )
        return tmp_path / "JetClass.root"

    def test_branches_become_columns(self, path: Path) -> None:
        source = data.open(path, condition=["jet_sdmass"])
        events = source[:]
        assert events.counts.tolist() == [2, 0, 3]
        assert [column.name for column in events.columns] == ["ptrel", "energy", "charge"]
        # 5 (1 + 2) / 16 and 5 (3 + 4 + 5) / 64
        assert events.total("ptrel").tolist() == [0.9375, 0, 0.9375]
        assert events.total("energy").tolist() == [18, 0, 72]
        assert events[2].coords.tolist() == [[3 / 16, -3 / 16], [4 / 16, -4 / 16], [5 / 16, -5 / 16]]
        assert source.classes == ("QCD", "Tbqq")
        assert source.labels is not None
        assert source.labels.tolist() == [0, 0, 1]
        assert torch.equal(pickle.loads(pickle.dumps(source))[[2, 0]].features, events[[2, 0]].features)

    def test_faults_are_named(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        uproot = pytest.importorskip("uproot")
        with uproot.recreate(path.with_name("other.root")) as file:
            file.mktree("tree", {"part_px": "float32"})
        _refused(path.with_name("other.root"), "branches part_py, part_deta, part_dphi, jet_pt are missing")
        with uproot.recreate(path.with_name("none.root")) as file:
            file["text"] = "nothing"
        _refused(path.with_name("none.root"), "has the trees none; expected one")
        short = path.with_name("short.root")
        short.write_bytes(path.read_bytes()[:120])
        _refused(short, "short.root", "not a readable ROOT file")
        monkeypatch.setitem(sys.modules, "uproot", None)
        with pytest.raises(MissingExtraError, match=r"sparsegen\[root\]"):
            data.open(path)
