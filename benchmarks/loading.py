"""Streaming shuffled batches against reading the same file's raw chunks, and against a per-item Dataset.

    python benchmarks/loading.py [--jets 1000000] [--showers 2000] [--repeats 3]

Makes a JetNet file by tiling the embedded jets, then prints ratios of rates, measured alternately in one process, and
the memory that an epoch takes above the process after its imports, beside that of ten epochs of a tenth of the jets: as
many windows come and go, so that only what grows with the file differs. Then
the same for showers of 40,500 cells, 5 % active, which are converted to sparse events: stored in whole rows, and in the
small chunks that h5py chooses by itself. Ends with the bars and whether each is met.
"""

from __future__ import annotations

import argparse
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
from figures import Figures

import sparsegen.data as data
from sparsegen.kernels import active_cells

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


def streamed(path: Path, epochs: int = 1) -> int:
    """Jets in shuffled batches."""
    source = data.open(path, check=False, condition=("jet_pt",))
    batches = (source.batches(BATCH, shuffle=True, seed=1, epoch=epoch) for epoch in range(epochs))
    return sum(len(batch) for epoch in batches for batch in epoch)


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


def make_showers(path: Path, showers: int, whole_rows: bool = True) -> None:
    """A file of CaloChallenge data set 3 with 5 % of its cells active."""
    generator = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        options = {"compression": "gzip", "compression_opts": 4}
        chunks = (SHOWER_CHUNK, 40500) if whole_rows else True
        values = file.create_dataset("showers", (showers, 40500), "f4", chunks=chunks, **options)
        for start in range(0, showers, SHOWER_CHUNK):
            size = min(SHOWER_CHUNK, showers - start)
            active = generator.random((size, 40500), dtype=np.float32) < 0.05
            values[start : start + size] = active * generator.exponential(1.0, (size, 40500)).astype(np.float32)
        file["incident_energies"] = np.full((showers, 1), 1e3, dtype=np.float32)


def raw_showers(path: Path) -> int:
    """Every chunk of the showers in order, with h5py alone."""
    with h5py.File(path) as file:
        showers, energies = file["showers"], file["incident_energies"]
        rows = showers.chunks[0]
        for start in range(0, len(showers), rows):
            showers[start : start + rows], energies[start : start + rows]
        return len(showers)


def sparse_showers(path: Path, epochs: int = 1) -> int:
    """Every shower as sparse cells, in order."""
    source = data.open(path, check=False)
    return sum(len(batch) for _ in range(epochs) for batch in source.batches(SHOWER_CHUNK))


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


FIGURES = Figures()


def memory(path: Path, events: int, what: str, kind: str, epochs: int = 1) -> float:
    """Megabytes that epochs in a fresh process take above its imports."""
    command = [sys.executable, __file__, f"--memory-of-{kind}", str(path), "--epochs", str(epochs)]
    grown = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    times = "an epoch" if epochs == 1 else f"{epochs} epochs"
    FIGURES.results[f"memory above the imports, {times} of {events:,} {what} [MB]"] = round(grown)
    print(f"memory above the imports, {times} of {events:,} {what}: {grown:.0f} MB", flush=True)
    return grown


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jets", type=int, default=1_000_000)
    parser.add_argument("--showers", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, help="also write the results as JSON")
    parser.add_argument("--memory-of-jets", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--memory-of-showers", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--epochs", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for measured, run in ((options.memory_of_jets, streamed), (options.memory_of_showers, sparse_showers)):
        if measured:
            before = peak_megabytes()
            run(measured, options.epochs)
            print(peak_megabytes() - before)
            return
    with tempfile.TemporaryDirectory() as folder:
        jets(Path(folder), options.jets, options.repeats)
        showers(Path(folder), options.showers, options.repeats)
    FIGURES.finish(options.output)


def jets(folder: Path, count: int, repeats: int) -> None:
    """Shuffled batches of jets."""
    small, large = folder / "small.hdf5", folder / "large.hdf5"
    make_file(small, count // 10)
    make_file(large, count)
    raw_chunks(large)
    ours, items = [], []
    for _ in range(repeats):
        base = rate(raw_chunks, large)
        mine = rate(streamed, large)
        ours.append(mine / base)
        items.append(mine / rate(per_item, large))
        print(f"raw {base:,.0f} jets/s, streamed {mine:,.0f} jets/s")
    FIGURES.bar("streamed / raw chunks", FIGURES.report("streamed / raw chunks", ours), least=0.6)
    name = "streamed / per-item DataLoader"
    FIGURES.bar(name, FIGURES.report(name, items), least=3)
    few, many = memory(small, count // 10, "jets", "jets", epochs=10), memory(large, count, "jets", "jets")
    FIGURES.bar(f"memory of {count:,} jets [MB]", many, most=150)
    # One window: what the allocator keeps of them varies by as much from run to run
    FIGURES.bar(f"memory of {count:,} jets less that of {count // 10:,} as often [MB]", many - few, most=16)


def showers(folder: Path, count: int, repeats: int) -> None:
    """Dense showers as sparse cells."""
    for whole_rows, layout in ((True, "whole rows"), (False, "chunks of h5py's choice")):
        path = folder / f"showers_{whole_rows:d}.hdf5"
        make_showers(path, count, whole_rows)
        raw_showers(path)
        ratios, conversions = [], []
        for _ in range(repeats):
            base = rate(raw_showers, path)
            ratios.append(rate(sparse_showers, path) / base)
            conversions.append(conversion_ratio(path))
        middle = FIGURES.report(f"sparse showers / raw chunks, {layout}", ratios)
        used = memory(path, count, f"showers, {layout}", "showers")
        if whole_rows:
            FIGURES.bar("sparse showers / raw chunks", middle, least=0.85)
            FIGURES.bar(
                "shaped nonzero / conversion", FIGURES.report("shaped nonzero / conversion", conversions), least=4
            )
            # One dense chunk, its sparse cells twice (read and batched), and the file's own buffers
            FIGURES.bar("memory of an epoch of showers, in chunks of 16.2 MB", used / 16.2, most=4)


if __name__ == "__main__":
    main()
