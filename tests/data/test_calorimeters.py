"""Calorimeter formats, on files made with h5py in the published layouts."""

from __future__ import annotations

import gc
import gzip
import math
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import sparsegen.data as data
from sparsegen.data.calochallenge import CALOCHALLENGE, cylinder_grid, read_binning
from sparsegen.errors import DataError
from sparsegen.events import Column, Events
from sparsegen.sparse import SparseTensor, SubmanifoldConv

PHOTONS = """<Bins>
   <Bin pid="22" etaMin="0" etaMax="130" name="photon">
      <Layer id="0" r_edges="0,5,10,30" n_bin_alpha="1" />
      <Layer id="1" r_edges="0,2,4" n_bin_alpha="10"/>
      <Layer id="2" r_edges="0" n_bin_alpha="1" />
      <Layer id="12" r_edges="0,100,200,400,1000" n_bin_alpha="1" />
   </Bin>
</Bins>
"""


def _refused(path: Path, *words: str) -> None:
    with pytest.raises(DataError) as caught:
        data.open(path)
    message = str(caught.value)
    # The traceback holds the reader and so its file, which tests change next
    del caught
    gc.collect()
    assert "\n" not in message
    for word in (str(path), *words):
        assert word in message, message


class TestCaloChallenge:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """Data set 2; shower ``i`` has energy ``i + 1`` MeV in voxel ``10 i`` and 0.5 MeV in voxel ``10 i + 7``."""
        showers = np.zeros((40, 6480))
        for i in range(40):
            showers[i, 10 * i] = i + 1
            showers[i, 10 * i + 7] = 0.5
        with h5py.File(tmp_path / "dataset_2_1.hdf5", "w") as file:
            file.create_dataset("showers", data=showers, compression="gzip", chunks=(8, 6480))
            file.create_dataset("incident_energies", data=1000.0 * np.arange(1, 41)[:, None], compression="gzip")
        return tmp_path / "dataset_2_1.hdf5"

    def test_voxels_become_cells_r_fastest(self, path: Path) -> None:
        source = data.open(path, condition=["incident_energy"])
        events = source[:]
        assert source.axes == ("layer", "alpha", "r")
        assert source.columns[0].unit == "MeV"
        assert source.grid is not None
        assert source.grid.shape == (45, 16, 9)
        assert source.grid.periodic == (False, True, False)
        # 1 + 2 + ... + 40 + 40 / 2
        assert float(events.total("energy").sum()) == 840
        # Voxel 150 is 144 + 6: layer 1, alpha 0, r 6; voxel 157 is layer 1, alpha 1, r 4
        assert events[15].coords.tolist() == [[1, 0, 6], [1, 1, 4]]
        assert events[15].features[:, 0].tolist() == [16, 0.5]
        assert events.condition is not None
        assert events.condition[:, 0].tolist() == [1000.0 * i for i in range(1, 41)]

    def test_dense_events_are_the_file_s_showers(self, path: Path) -> None:
        with h5py.File(path) as file:
            expected = file["showers"][:].reshape(40, 1, 45, 16, 9)
        assert np.array_equal(data.open(path)[:].to_dense().numpy(), expected.astype(np.float32))

    @pytest.mark.parametrize("chunks", [None, True, (8, 100), (7, 6480), (1, 6480), (40, 1)])
    def test_events_do_not_depend_on_how_the_file_is_chunked(
        self, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunks: object
    ) -> None:
        expected = data.open(path)[:]
        with h5py.File(path) as one, h5py.File(tmp_path / "other.hdf5", "w") as other:
            options = {} if chunks is None else {"chunks": chunks, "compression": "gzip"}
            other.create_dataset("showers", data=one["showers"][:], **options)
            other["incident_energies"] = one["incident_energies"][:]
        # Pieces of few columns: an event is woven from many
        monkeypatch.setattr("sparsegen.data.chunks._PIECE_BYTES", 2**16)
        source = data.open(tmp_path / "other.hdf5")
        for index in (slice(None), [39, 3, 3, 17], slice(5, 6)):
            assert torch.equal(source[index].coords, expected[index].coords)
            assert torch.equal(source[index].features, expected[index].features)
            assert torch.equal(source[index].offsets, expected[index].offsets)

    def test_a_binning_beside_the_file_gives_the_geometry(self, tmp_path: Path) -> None:
        (tmp_path / "binning_dataset_1_photons.xml").write_text(PHOTONS)
        path = tmp_path / "showers.hdf5"
        with h5py.File(path, "w") as file:
            # 3 + 20 + 4 voxels, voxel v has energy v
            file["showers"] = np.tile(np.arange(27.0), (2, 1))
            file["incident_energies"] = np.full((2, 1), 512.0)
        source = data.open(path)
        assert source.grid is not None
        assert source.grid.shape == (3, 10, 4)
        event = source[0]
        assert float(event.total("energy")) == 351
        cell = {
            int(energy): tuple(c)
            for c, energy in zip(event.coords.tolist(), event.features[:, 0].tolist(), strict=True)
        }
        assert cell[2] == (0, 0, 2)
        assert cell[3 + 2 * 6 + 1] == (1, 6, 1)
        assert cell[26] == (2, 0, 3)
        centre = event.positions[event.features[:, 0] == 16][0]
        assert centre.tolist() == pytest.approx([1, -math.pi + 6.5 * 2 * math.pi / 10, 3])

    @pytest.mark.parametrize(
        ("name", "voxels", "layers"), [("1-photons", 368, 5), ("1-pions", 533, 7), ("2", 6480, 45), ("3", 40500, 45)]
    )
    def test_published_geometries_have_the_published_voxels(self, name: str, voxels: int, layers: int) -> None:
        grid = cylinder_grid(CALOCHALLENGE[name])
        count = grid.cells if grid.valid is None else int(grid.valid.sum())
        assert count == voxels
        assert grid.shape[0] == layers

    @pytest.mark.parametrize("name", list(CALOCHALLENGE))
    def test_every_published_geometry_is_a_cylinder_whose_neighbours_wrap(self, name: str) -> None:
        grid = cylinder_grid(CALOCHALLENGE[name])
        last = grid.shape[1] - 1
        assert grid.periodic == (False, True, False)
        # The first and the last bin of a layer that has them all
        pair = Events(
            torch.tensor([[1, 0, 3], [1, last, 3]]),
            torch.ones(2, 1),
            torch.tensor([0, 2]),
            axes=grid.names,
            columns=("energy",),
            grid=grid,
        )
        summed = SubmanifoldConv(3, 1, 1, 3, bias=False)
        torch.nn.init.ones_(summed.weight)
        assert summed(SparseTensor.from_events(pair)).features.tolist() == [[2], [2]]
        _, inside = grid.cell_of(torch.tensor([[0.0, math.pi + 0.1, 1.0], [1.0, -math.pi - 0.1, 1.0]]))
        assert inside.all()

    @pytest.mark.parametrize("name", list(CALOCHALLENGE))
    def test_showers_written_are_showers_read(self, tmp_path: Path, name: str) -> None:
        grid = cylinder_grid(CALOCHALLENGE[name])
        generator = torch.Generator().manual_seed(0)
        valid = torch.arange(grid.cells) if grid.valid is None else grid.valid.reshape(-1).nonzero()[:, 0]
        pick = torch.stack([valid[torch.randperm(len(valid), generator=generator)[:20]].sort()[0] for _ in range(9)])
        events = Events(
            grid.unravel(pick.reshape(-1)),
            torch.rand(180, 1, generator=generator) + 0.1,
            torch.arange(0, 181, 20),
            axes=grid.names,
            columns=[Column("energy", "MeV")],
            condition=torch.rand(9, 1),
            conditions=("incident_energy",),
            grid=grid,
        )
        data.write(events, tmp_path / "a.hdf5", format="calochallenge")
        again = data.open(tmp_path / "a.hdf5", condition=["incident_energy"])[:]
        for field in ("coords", "features", "offsets", "condition"):
            assert torch.equal(getattr(again, field), getattr(events, field))

    def test_a_binning_that_does_not_fit_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "binning.xml").write_text(PHOTONS)
        with h5py.File(tmp_path / "a.hdf5", "w") as file:
            file["showers"] = np.ones((2, 26))
            file["incident_energies"] = np.ones((2, 1))
        _refused(tmp_path / "a.hdf5", "26 voxels", "binning.xml (27)", "put the right binning")
        (tmp_path / "binning.xml").write_text("<Bins>")
        with pytest.raises(DataError, match=r"binning\.xml: not a binning file .* copy it again"):
            data.open(tmp_path / "a.hdf5")
        (tmp_path / "binning.xml").write_text("<Bins></Bins>")
        with pytest.raises(DataError, match="no layer has voxels"):
            read_binning(tmp_path / "binning.xml")

    @pytest.mark.parametrize(
        ("key", "index", "value", "words"),
        [
            ("showers", (3, 5), np.nan, ("energy of row 3", "is nan, not finite", "repair")),
            ("showers", (4, 5), -2, ("energy of row 4", "is -2, a negative amount", "repair")),
            ("incident_energies", (6, 0), np.inf, ("incident_energy of row 6", "inf, not finite", "repair")),
        ],
    )
    def test_bad_values_are_named(
        self, path: Path, alter: Callable[..., None], key: str, index: object, value: float, words: tuple[str, ...]
    ) -> None:
        alter(path, key, index, value)
        _refused(path, *words)

    def test_broken_layouts_are_named(self, path: Path) -> None:
        with h5py.File(path, "r+") as file:
            energies = file["incident_energies"][:]
            del file["incident_energies"]
        _refused(path, "key 'incident_energies' is missing", "showers")
        with h5py.File(path, "r+") as file:
            file["incident_energies"] = energies[:-1]
        _refused(path, "'incident_energies' has shape (39, 1); expected (40, 1)")
        with h5py.File(path, "r+") as file:
            del file["incident_energies"]
            file["incident_energies"] = energies.astype(int)
        _refused(path, "'incident_energies' has type int64", "floating")
        with h5py.File(path, "r+") as file:
            chunk = file["showers"].id.get_chunk_info(1)
        raw = bytearray(path.read_bytes())
        raw[chunk.byte_offset + chunk.size // 2] ^= 255
        path.write_bytes(raw)
        with h5py.File(path, "r+") as file:
            del file["incident_energies"]
            file["incident_energies"] = energies
        _refused(path, "showers rows 0 to 40 are damaged")
        path.write_bytes(path.read_bytes()[:1000])
        _refused(path, "not a readable HDF5 file")


class TestCaloGAN:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        with h5py.File(tmp_path / "gamma.hdf5", "w") as file:
            for layer, shape in enumerate([(3, 96), (12, 12), (12, 6)]):
                values = np.zeros((5, *shape), dtype=np.float32)
                values[:, 1, 5] = 10.0 ** (layer + 1)
                file[f"layer_{layer}"] = values
            file["energy"] = np.arange(1, 6, dtype=np.float32)[:, None]
            file["overflow"] = np.tile(np.array([1.0, 2.0, 3.0], dtype=np.float32), (5, 1))
        return tmp_path / "gamma.hdf5"

    def test_all_energies_are_in_mev(self, path: Path) -> None:
        source = data.open(path, condition=["incident_energy", "overflow_2"])
        events = source[:]
        assert source.axes == ("layer", "phi", "eta")
        assert events.total("energy").tolist() == [1110] * 5
        assert events[0].coords.tolist() == [[0, 1, 5], [1, 1, 5], [2, 1, 5]]
        assert events.condition is not None
        assert events.condition.tolist() == [[1000.0 * i, 3] for i in range(1, 6)]
        # 96 cells of 5 mm, 12 of 40 mm, 6 of 80 mm
        assert events[0].positions[:, 2].tolist() == [-212.5, -20, 200]

    def test_the_grid_has_the_published_504_cells(self, path: Path) -> None:
        grid = data.open(path).grid
        assert grid is not None
        assert grid.valid is not None
        assert int(grid.valid.sum()) == 504

    def test_faults_are_named(self, path: Path, alter: Callable[..., None]) -> None:
        alter(path, "layer_1", (2, 0, 0), -1)
        _refused(path, "energy of row 2", "negative amount", "repair")
        alter(path, "layer_1", (2, 0, 0), np.nan)
        _refused(path, "energy of row 2", "not finite")
        with h5py.File(path, "r+") as file:
            del file["layer_2"]
        _refused(path, "key 'layer_2' is missing")
        with h5py.File(path, "r+") as file:
            file["layer_2"] = np.zeros((4, 12, 6))
        _refused(path, "'layer_2' has shape (4, 12, 6); expected (5, 12, 6)")


class TestCaloClouds:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """Shower ``i`` has ``i`` points at the end of its 6 places, of energy 2, 4, ... in units of 1/64 GeV."""
        events = np.zeros((7, 4, 6), dtype=np.float32)
        for i in range(7):
            for j in range(i):
                events[i, :, 6 - i + j] = (0.5 * i, j, -j, 2 * (j + 1) / 64)
        with h5py.File(tmp_path / "photons.hdf5", "w") as file:
            file["events"] = events
            file["energy"] = np.linspace(10, 90, 7, dtype=np.float32)[:, None]
        return tmp_path / "photons.hdf5"

    def test_points_are_read_channel_by_channel(self, path: Path) -> None:
        source = data.open(path, condition=["incident_energy"])
        events = source[:]
        assert source.axes == ("x", "layer", "z")
        assert events.counts.tolist() == list(range(7))
        assert (64 * events.total("energy")).tolist() == [i * (i + 1) for i in range(7)]
        assert events[3].coords.tolist() == [[1.5, 0, 0], [1.5, 1, -1], [1.5, 2, -2]]
        assert events.condition is not None
        assert events.condition[6].tolist() == [90]

    def test_faults_are_named(self, path: Path, alter: Callable[..., None]) -> None:
        alter(path, "events", (3, 3, 4), 0)
        _refused(path, "events of row 3", "padding after a hit", "repair")
        alter(path, "events", (3, 3, 4), -1)
        _refused(path, "energy of row 3", "negative amount")
        alter(path, "events", (3, 3, 4), 1)
        alter(path, "events", (5, 0, 5), np.inf)
        _refused(path, "x of row 5", "is inf, not finite")
        with h5py.File(path, "r+") as file:
            del file["energy"]
        _refused(path, "key 'energy' is missing")
        with h5py.File(path, "r+") as file:
            del file["events"]
            file["events"] = np.zeros((7, 3, 6), dtype=np.float32)
            file["energy"] = np.zeros((7, 1), dtype=np.float32)
        _refused(path, "'events' has shape (7, 3, 6); expected (any, 4, any)")


class TestLAGAN:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        images = np.zeros((6, 25, 25), dtype=np.float32)
        for i in range(6):
            images[i, 12, 12] = 100 + i
            images[i, 3, i] = 0.25
            images[i, 20, 20] = 5e-4
            images[i, 20, 21] = -5e-4
        with h5py.File(tmp_path / "jet-images.hdf5", "w") as file:
            file["image"] = images
            file["signal"] = np.array([1, 1, 1, 0, 0, 0], dtype=np.float64)
            file["jet_pt"] = np.full(6, 270.0)
            file["tau_21"] = np.linspace(0, 0.5, 6)
        return tmp_path / "jet-images.hdf5"

    def test_pixels_labels_and_records(self, path: Path) -> None:
        source = data.open(path, condition=["jet_pt", "tau_21"], classes=["w"])
        assert len(source) == 3
        assert source.labels is not None
        assert source.labels.tolist() == [1, 1, 1]
        events = source[:]
        assert events.total("pt").tolist() == [100.25, 101.25, 102.25]
        assert events[1].coords.tolist() == [[3, 1], [12, 12]]
        assert events[1].positions[1].tolist() == pytest.approx([0, 0])
        assert events.condition is not None
        assert events.condition[2].tolist() == pytest.approx([270, 0.2])

    def test_faults_are_named(self, path: Path, alter: Callable[..., None]) -> None:
        alter(path, "signal", 4, 2)
        _refused(path, "signal of row 4 is 2.0, expected 0 or 1")
        alter(path, "signal", 4, 0)
        alter(path, "image", (5, 0, 0), -1)
        _refused(path, "pt of row 5", "negative amount")
        alter(path, "image", (5, 0, 0), np.nan)
        _refused(path, "pt of row 5", "not finite")
        with h5py.File(path, "r+") as file:
            del file["signal"]
        _refused(path, "key 'signal' is missing")


def _write_idx(path: Path, values: np.ndarray) -> None:
    head = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
    path.write_bytes(head + values.astype(np.uint8).tobytes())


class TestIDX:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        images = np.zeros((4, 5, 3), dtype=np.uint8)
        images[:, 4, 1] = [51, 102, 153, 255]
        images[2, 0, 2] = 255
        _write_idx(tmp_path / "train-images-idx3-ubyte", images)
        _write_idx(tmp_path / "train-labels-idx1-ubyte", np.array([7, 0, 3, 7]))
        return tmp_path / "train-images-idx3-ubyte"

    def test_images_and_labels(self, path: Path) -> None:
        source = data.open(path)
        assert source.axes == ("y", "x")
        assert source[:].total("intensity").tolist() == pytest.approx([0.2, 0.4, 1.6, 1])
        assert source[2].coords.tolist() == [[0, 2], [4, 1]]
        assert source.labels is not None
        assert source.labels.tolist() == [7, 0, 3, 7]

    def test_a_gzipped_file_is_the_same(self, path: Path) -> None:
        zipped = path.with_name("other-images-idx3-ubyte.gz")
        zipped.write_bytes(gzip.compress(path.read_bytes()))
        assert torch.equal(data.open(zipped)[:].to_dense(), data.open(path)[:].to_dense())

    def test_faults_are_named(self, path: Path) -> None:
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        _refused(path, "holds 59 bytes, expected 60", "copy it again")
        path.write_bytes(gzip.compress(whole)[:-12])
        _refused(path, "cut short or damaged", "copy it again")
        path.write_bytes(whole[:6])
        _refused(path, "cut short or damaged")
        path.write_bytes(whole)
        _write_idx(path.with_name("train-labels-idx1-ubyte"), np.array([7, 0, 3]))
        with pytest.raises(DataError, match="3 labels for 4 images"):
            data.open(path)


class TestDense:
    def test_cells_written_are_cells_read(self, tmp_path: Path) -> None:
        cells = data.open("pythia-jets:test", view="image", condition=["jet_pt"])[:100]
        data.write(cells, tmp_path / "a.h5", format="dense")
        with h5py.File(tmp_path / "a.h5") as file:
            assert file["images"].shape == (100, 1, 25, 25)
        again = data.open(tmp_path / "a.h5", condition=["jet_pt"])
        assert again.grid == cells.grid
        assert again.columns == cells.columns
        for field in ("coords", "features", "offsets", "condition"):
            assert torch.equal(getattr(again[:], field), getattr(cells, field))

    def test_foreign_images_are_unit_cells(self, tmp_path: Path) -> None:
        images = np.zeros((3, 4, 6))
        images[1, 2, 5] = 7
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["images"] = images
            file["labels"] = np.array([0, 2, 1])
        source = data.open(tmp_path / "a.h5", classes=["2"])
        assert source[:].coords.tolist() == [[2, 5]]
        assert source[:].total("intensity").tolist() == [7]

    def test_several_channels_share_their_cells(self, tmp_path: Path) -> None:
        base = data.open("pythia-jets:test", view="image")[:10]
        both = base.with_features(
            torch.cat([base.features, base.features - base.features.mean()], 1),
            (*base.columns, Column("time", "ns", False)),
        )
        data.write(both, tmp_path / "a.h5", format="dense")
        again = data.open(tmp_path / "a.h5")[:]
        assert again.columns == both.columns
        assert torch.equal(again.features, both.features)
        assert torch.equal(again.coords, both.coords)

    def test_faults_are_named(self, tmp_path: Path, alter: Callable[..., None]) -> None:
        path = tmp_path / "a.h5"
        with pytest.raises(DataError, match="voxelize first"):
            data.write(data.open("pythia-jets:test")[:10], path, format="dense")
        data.write(data.open("pythia-jets:test", view="image")[:10], path, format="dense")
        alter(path, "images", (3, 0, 1, 1), np.nan)
        _refused(path, "ptrel of row 3", "not finite")
        alter(path, "images", (3, 0, 1, 1), -1)
        _refused(path, "ptrel of row 3", "negative amount")
        with h5py.File(path, "r+") as file:
            del file["images"]
            file["images"] = np.zeros((10, 1, 24, 25), dtype=np.float32)
        _refused(path, "'images' has shape (10, 1, 24, 25); expected (10, 1, 25, 25)")
        with h5py.File(path, "r+") as file:
            del file["images"]
            file["images"] = np.array([b"a", b"b"])
        _refused(path, "expected numbers")
