"""Streaming shuffled batches against reading the same file's raw chunks, and against a per-item Dataset.

    python benchmarks/loading.py [--jets 1000000] [--showers 2000] [--repeats 3]

Makes a JetNet file by tiling the embedded jets, then prints ratios of rates, measured alternately in one process, and
the memory that an epoch takes above the process after its imports, for a tenth of the jets and for all of them. Then
the same for showers of 40,500 cells, 5 % active, which are converted to sparse events.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch

import sparsegen.data as data
from sparsegen.data.voxels import active_cells

BATCH = 256
CHUNK = 1024
SHOWER_CHUNK = 100


def make_file(path: Path, jets: int) -> None:
    """A JetNet file of 30 particles, real jets tiled."""
    source = data.open("pythia-jets", condition=("jet_pt", "jet_eta", "jet_mass"))[:]
    ranks = torch.arange(len(source.coords)) - source.offsets[:-1][source.batch]
    coords, features, mask = source.select_hits(ranks < 30).to_padded(30)
    particles = torch.cat([coords, features, mask[..., None].float()], -1).numpy()
    assert source.condition is not None
    features_of_jets = torch.cat([source.condition, mask.sum(1, keepdim=True)], 1).numpy().astype(np.float32)
    with h5py.File(path, "w") as file:
        options = {"compression": "gzip", "compression_opts": 4}
        p = file.create_dataset("particle_features", (jets, 30, 4), "f4", chunks=(CHUNK, 30, 4), **options)
        j = file.create_dataset("jet_features", (jets, 4), "f4", chunks=(CHUNK, 4), **options)
        for start in range(0, jets, len(particles)):
            stop = min(start + len(particles), jets)
            p[start:stop], j[start:stop] = particles[: stop - start], features_of_jets[: stop - start]


def raw_chunks(path: Path) -> int:
    """Every chunk of the file in order, with h5py alone."""
    rows = 0
    with h5py.File(path) as file:
        particles, jets = file["particle_features"], file["jet_features"]
        for start in range(0, len(particles), CHUNK):
            rows += len(particles[start : start + CHUNK])
            jets[start : start + CHUNK]
    return rows


def streamed(path: Path) -> int:
    """One epoch in shuffled batches."""
    source = data.open(path, check=False, condition=("jet_pt",))
    return sum(len(batch) for batch in source.batches(BATCH, shuffle=True, seed=1))


class PerItem(torch.utils.data.Dataset[torch.Tensor]):
    """What loaders usually do: one jet an access."""

    def __init__(self, path: Path) -> None:
        self.file = h5py.File(path)

    def __len__(self) -> int:
        return len(self.file["particle_features"])

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self.file["particle_features"][index])


def per_item(path: Path, jets: int = 20 * BATCH) -> int:
    """Some batches of a shuffled DataLoader."""
    rows = 0
    for batch in torch.utils.data.DataLoader(PerItem(path), batch_size=BATCH, shuffle=True):
        rows += len(batch)
        if rows >= jets:
            break
    return rows


def make_showers(path: Path, showers: int) -> None:
    """A file of CaloChallenge data set 3 with 5 % of its cells active."""
    generator = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        options = {"compression": "gzip", "compression_opts": 4}
        values = file.create_dataset("showers", (showers, 40500), "f4", chunks=(SHOWER_CHUNK, 40500), **options)
        for start in range(0, showers, SHOWER_CHUNK):
            size = min(SHOWER_CHUNK, showers - start)
            active = generator.random((size, 40500), dtype=np.float32) < 0.05
            values[start : start + size] = active * generator.exponential(1.0, (size, 40500)).astype(np.float32)
        file["incident_energies"] = np.full((showers, 1), 1e3, dtype=np.float32)


def raw_showers(path: Path) -> int:
    """Every chunk of the showers in order, with h5py alone."""
    with h5py.File(path) as file:
        showers, energies = file["showers"], file["incident_energies"]
        for start in range(0, len(showers), SHOWER_CHUNK):
            showers[start : start + SHOWER_CHUNK], energies[start : start + SHOWER_CHUNK]
        return len(showers)


def sparse_showers(path: Path) -> int:
    """Every shower as sparse cells, in order."""
    return sum(len(batch) for batch in data.open(path, check=False).batches(SHOWER_CHUNK))


def conversion_ratio(path: Path) -> float:
    """Time of ``nonzero`` on a shaped batch over that of the reader's conversion."""
    with h5py.File(path) as file:
        block = file["showers"][:SHOWER_CHUNK]
    table = data.open(path, check=False).reader.table

    def shaped() -> object:
        cells = np.nonzero(block.reshape(-1, 45, 50, 18))
        return np.stack(cells, 1), block.reshape(-1, 45, 50, 18)[cells]

    def ours() -> object:
        return active_cells(block, table)

    seconds = {}
    for run in (shaped, ours):
        times = []
        for _ in range(7):
            start = time.process_time()
            run()
            times.append(time.process_time() - start)
        seconds[run] = statistics.median(times)
    return seconds[shaped] / seconds[ours]


def rate(run: Callable[[Path], int], path: Path) -> float:
    """Events a second of processor time: files lie in the page cache, and other load does not count."""
    start = time.process_time()
    return run(path) / (time.process_time() - start)


def peak_megabytes() -> float:
    """The process' largest resident size so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no VmHWM; this measurement needs Linux")


RESULTS: dict[str, float | dict[str, float]] = {}


def report(name: str, ratios: list[float]) -> None:
    """Print a ratio with its spread, and keep it."""
    middle, low, high = statistics.median(ratios), min(ratios), max(ratios)
    RESULTS[name] = {"median": round(middle, 3), "low": round(low, 3), "high": round(high, 3)}
    print(f"{name}: {middle:.3g} ({low:.3g} to {high:.3g})", flush=True)


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jets", type=int, default=1_000_000)
    parser.add_argument("--showers", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, help="also write the results as JSON")
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory_of:
        before = peak_megabytes()
        streamed(options.memory_of)
        print(peak_megabytes() - before)
        return
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder, "small.hdf5"), Path(folder, "large.hdf5")
        make_file(small, options.jets // 10)
        make_file(large, options.jets)
        raw_chunks(large)
        ours, items = [], []
        for _ in range(options.repeats):
            base = rate(raw_chunks, large)
            mine = rate(streamed, large)
            ours.append(mine / base)
            items.append(mine / rate(per_item, large))
            print(f"raw {base:,.0f} jets/s, streamed {mine:,.0f} jets/s")
        report("streamed / raw chunks", ours)
        report("streamed / per-item DataLoader", items)
        for path, jets in [(small, options.jets // 10), (large, options.jets)]:
            command = [sys.executable, __file__, "--memory-of", str(path)]
            grown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            RESULTS[f"memory above the imports, an epoch of {jets:,} jets [MB]"] = round(float(grown))
            print(f"memory above the imports, an epoch of {jets:,} jets: {float(grown):.0f} MB")
        showers = Path(folder, "showers.hdf5")
        make_showers(showers, options.showers)
        raw_showers(showers)
        ratios, conversions = [], []
        for _ in range(options.repeats):
            base = rate(raw_showers, showers)
            ratios.append(rate(sparse_showers, showers) / base)
            conversions.append(conversion_ratio(showers))
        report("sparse showers / raw chunks", ratios)
        report("shaped nonzero / conversion", conversions)
    if options.output:
        options.output.write_text(json.dumps(RESULTS, indent=1) + "\n")


if __name__ == "__main__":
    main()
