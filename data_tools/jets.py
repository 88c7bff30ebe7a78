"""``jets``: gluon, light-quark, top, W and Z jets from Pythia 8 and FastJet, resumable chunk by chunk."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from data_tools.pythia import KINDS, JetSettings, chunk_seed, make_chunk
from data_tools.select import stratified_split
from data_tools.verb import Verb
from sparsegen.data.files import sync
from sparsegen.data.jetnet import jet_grid
from sparsegen.data.ragged import RaggedWriter
from sparsegen.errors import ConfigError, DataError
from sparsegen.events import Column, Events

__all__ = ["JETS", "SPLITS", "make_jets"]

SPLITS = {"train": 0.70, "valid": 0.15, "test": 0.15}
_CHUNK = 1000
_COORDINATE_STEP = 2.0**-16
_MANTISSA_BITS = 15

_Task = tuple[Path, JetSettings, str, int, int]


def make_jets(
    path: str | Path,
    kinds: Sequence[str] = ("gluon", "quark", "top"),
    jets: int = 4000,
    seed: int = 1,
    settings: JetSettings | None = None,
    processes: int = 1,
    overwrite: bool = False,
) -> None:
    """Make a file of jets, with seeded splits that are stratified by kind.

    Finished chunks of 1,000 jets wait in ``PATH.chunks/``: the same call again goes on from there, and its result does
    not depend on how often it was stopped or on the number of processes.

    Args:
        path: The file to make, sparsegen's own ragged HDF5.
        kinds: Keys of ``KINDS``; a jet's label is its kind's place here.
        jets: How many of each kind.
        seed: Decides everything random.
        settings: Physics and cuts.
        processes: How many Pythias run at once.
        overwrite: Whether an existing file may be replaced.

    Raises:
        ConfigError: Another call's chunks lie in the folder.
        DataError: The file exists already.
        MissingExtraError: The extra ``pythia`` is not installed.
    """
    path = Path(path)
    settings = settings or JetSettings()
    if path.exists() and not overwrite:
        raise DataError(f"{path}: exists already; choose another name or remove it")
    if jets < 1:
        raise ConfigError(f"{jets} jets of each kind asked for; expected at least 1")
    folder = path.with_name(path.name + ".chunks")
    _claim(folder, {"kinds": list(kinds), "jets": jets, "seed": seed, "settings": asdict(settings)})

    tasks: list[_Task] = []
    for kind in kinds:
        for chunk, start in enumerate(range(0, jets, _CHUNK)):
            part = folder / f"{kind}-{chunk:05d}.npz"
            if not part.exists():
                tasks.append((part, settings, kind, min(_CHUNK, jets - start), chunk_seed(seed, kind, chunk)))
    if processes > 1:
        # Pythia keeps global state: each worker is a fresh interpreter
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            for _ in track(pool.imap_unordered(_save_chunk, tasks), "jets, in thousands", total=len(tasks)):
                pass
    else:
        for task in track(tasks, "jets, in thousands"):
            _save_chunk(task)

    _assemble(path, folder, kinds, jets, seed, settings, overwrite)
    shutil.rmtree(folder)


def _claim(folder: Path, call: dict[str, Any]) -> None:
    """Make the folder for this call's chunks, or find that it is this call's own."""
    text = json.dumps(call, sort_keys=True)
    note = folder / "call.json"
    if not note.exists():
        folder.mkdir(exist_ok=True)
        note.write_text(text)
    elif json.loads(note.read_text()) != json.loads(text):
        raise ConfigError(f"{folder}: holds the chunks of another call ({note.read_text()}); finish that or remove it")


def _save_chunk(task: _Task) -> None:
    path, settings, kind, jets, seed = task
    chunk = make_chunk(settings, kind, jets, seed)
    temporary = path.with_suffix(".tmp.npz")
    np.savez(temporary, **chunk)  # type: ignore[arg-type]
    sync(temporary)
    temporary.replace(path)


def _assemble(
    path: Path, folder: Path, kinds: Sequence[str], jets: int, seed: int, settings: JetSettings, overwrite: bool
) -> None:
    chunks: list[dict[str, NDArray[Any]]] = []
    for kind in kinds:
        for part in sorted(folder.glob(f"{kind}-?????.npz")):
            with np.load(part) as stored:
                chunks.append({name: stored[name] for name in stored.files})
    counts, particles, features = (
        np.concatenate([chunk[name] for chunk in chunks]) for name in ("counts", "particles", "jets")
    )
    labels = np.repeat(np.arange(len(kinds)), jets)
    split = stratified_split(labels, SPLITS, seed)

    coords = np.round(particles[:, :2] / _COORDINATE_STEP) * _COORDINATE_STEP
    condition = np.concatenate([features, labels[:, None]], axis=1)
    events = Events(
        torch.from_numpy(coords.astype(np.float32)),
        torch.from_numpy(_round_mantissa(particles[:, 2:].astype(np.float32))),
        torch.from_numpy(np.concatenate([[0], np.cumsum(counts)])),
        axes=("etarel", "phirel"),
        columns=(Column("ptrel"),),
        condition=torch.from_numpy(condition.astype(np.float32)),
        conditions=("jet_pt", "jet_eta", "jet_mass", "type"),
        grid=jet_grid(radius=settings.radius),
    )
    # Splits lie one after the other, kinds mixed inside each: a split is one run of rows
    order = np.lexsort((np.random.default_rng([seed, 1]).random(len(split)), split))
    with RaggedWriter(
        path,
        overwrite=overwrite,
        classes=tuple(kinds),
        splits=tuple(SPLITS),
        provenance=_provenance(kinds, jets, seed, settings),
    ) as writer:
        writer.append(events[torch.from_numpy(order)], labels[order], split[order])


def _round_mantissa(values: NDArray[np.float32]) -> NDArray[np.float32]:
    mantissa, exponent = np.frexp(values)
    scale = 2.0**_MANTISSA_BITS
    return np.ldexp(np.round(mantissa * scale) / scale, exponent).astype(np.float32)


def _provenance(kinds: Sequence[str], jets: int, seed: int, settings: JetSettings) -> dict[str, Any]:
    chunks = range(-(-jets // _CHUNK))
    return {
        "description": "Jets simulated with Pythia 8 and clustered with FastJet, without detector; not JetNet",
        "program": "python -m data_tools jets",
        "versions": {name: version(name) for name in ("pythia8mc", "fastjet", "numpy")},
        "seed": seed,
        "jets_of_each_kind": jets,
        "settings": asdict(settings),
        "pythia": {
            kind: {
                "settings": list(settings.pythia_lines(kind, 0)[:-1]),
                "seeds": [chunk_seed(seed, kind, chunk) for chunk in chunks],
            }
            for kind in kinds
        },
        "jets": f"anti-kT R={settings.radius:g}, visible particles without neutrinos, jet features of the whole jet",
        "matching": "top, W and Z jets lie within the radius of the last copy of the resonance",
        "constituents": f"pt > {settings.particle_pt:g} GeV, hardest {settings.max_constituents}, by falling pt",
        "rounding": {"coordinates_step": _COORDINATE_STEP, "ptrel_mantissa_bits": _MANTISSA_BITS},
        "splits": SPLITS,
    }


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    defaults = JetSettings()
    parser.add_argument("output", type=Path, help="the file to make")
    parser.add_argument("--kinds", nargs="+", choices=sorted(KINDS), default=["gluon", "quark", "top"])
    parser.add_argument("--jets", type=int, default=4000, help="jets of each kind (%(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1, help="how many Pythias run at once (%(default)s)")
    parser.add_argument("--pt-hat", type=float, nargs=2, default=defaults.pt_hat, metavar=("LOW", "HIGH"), help="GeV")
    parser.add_argument("--jet-pt", type=float, nargs=2, default=defaults.jet_pt, metavar=("LOW", "HIGH"), help="GeV")
    parser.add_argument("--radius", type=float, default=defaults.radius, help="of the anti-kT jets (%(default)s)")
    parser.add_argument("--particle-pt", type=float, default=defaults.particle_pt, help="GeV (%(default)s)")
    parser.add_argument("--max-constituents", type=int, default=defaults.max_constituents)
    parser.add_argument("--pythia", action="append", default=[], metavar="KEY=VALUE", help="a further Pythia setting")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")


def _run(options: argparse.Namespace) -> int:
    settings = JetSettings(
        pt_hat=tuple(options.pt_hat),
        jet_pt=tuple(options.jet_pt),
        radius=options.radius,
        particle_pt=options.particle_pt,
        max_constituents=options.max_constituents,
        extra=tuple(options.pythia),
    )
    make_jets(options.output, options.kinds, options.jets, options.seed, settings, options.processes, options.overwrite)
    return 0


JETS = Verb("gluon, light-quark, top, W and Z jets from Pythia 8 and FastJet", _add_arguments, _run)
