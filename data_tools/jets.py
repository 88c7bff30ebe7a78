"""``jets``: gluon, light-quark, top, W and Z jets from Pythia 8 and FastJet, resumable chunk by chunk."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from data_tools.chunks import Chunk, finish_chunks, load_chunks
from data_tools.jet_images import ImageSettings, make_images
from data_tools.pythia import KINDS, JetSettings, chunk_seed, make_chunk
from data_tools.select import stratified_split
from data_tools.verb import Verb
from sparsegen.data.files import whole_file
from sparsegen.data.jetnet import jet_grid
from sparsegen.data.ragged import RaggedWriter
from sparsegen.errors import ConfigError, DataError
from sparsegen.events import Column, Events

__all__ = ["JETS", "SPLITS", "make_jet_images", "make_jets"]

SPLITS = {"train": 0.70, "valid": 0.15, "test": 0.15}
_CHUNK = 1000
_IMAGE_CHUNK = 100
_COORDINATE_STEP = 2.0**-16
_MANTISSA_BITS = 15


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
    call = {"kinds": list(kinds), "jets": jets, "seed": seed, "settings": asdict(settings)}
    chunks = [
        Chunk(
            f"{kind}-{chunk:05d}",
            make_chunk,
            (settings, kind, min(_CHUNK, jets - start), chunk_seed(seed, kind, chunk)),
        )
        for kind in kinds
        for chunk, start in enumerate(range(0, jets, _CHUNK))
    ]
    finish_chunks(folder, call, chunks, processes, "jets, in thousands")
    _assemble(path, load_chunks(folder, chunks), kinds, jets, seed, settings, overwrite)
    shutil.rmtree(folder)


def _assemble(
    path: Path,
    made: dict[str, NDArray[Any]],
    kinds: Sequence[str],
    jets: int,
    seed: int,
    settings: JetSettings,
    overwrite: bool,
) -> None:
    counts, particles, features = made["counts"], made["particles"], made["jets"]
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
        conditions=(
            "jet_pt",
            "jet_eta",
            "jet_mass",
            *(("tau_1", "tau_2", "tau_3") if settings.subjettiness else ()),
            "type",
        ),
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


def make_jet_images(
    path: str | Path, jets: int = 4000, seed: int = 1, processes: int = 1, overwrite: bool = False
) -> None:
    """Make a file of jet images in the LAGAN layout, half of them W and half QCD, resumable as :func:`make_jets`.

    Args:
        path: The file to make.
        jets: How many of each kind.
        seed: Decides everything random.
        processes: How many Pythias run at once.
        overwrite: Whether an existing file may be replaced.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise DataError(f"{path}: exists already; choose another name or remove it")
    settings = ImageSettings()
    folder = path.with_name(path.name + ".chunks")
    chunks = [
        Chunk(
            f"{kind}-{chunk:05d}",
            make_images,
            (settings, kind, min(_IMAGE_CHUNK, jets - start), chunk_seed(seed, kind, chunk)),
        )
        for kind in ("w", "qcd")
        for chunk, start in enumerate(range(0, jets, _IMAGE_CHUNK))
    ]
    call = {"preset": "lagan", "jets": jets, "seed": seed, "settings": asdict(settings)}
    finish_chunks(folder, call, chunks, processes, "images, in hundreds")
    made = load_chunks(folder, chunks)
    signal = np.repeat([1.0, 0.0], jets)
    order = np.random.default_rng(seed).permutation(2 * jets)
    with whole_file(path, overwrite) as part, h5py.File(part, "w") as file:
        file.create_dataset("signal", data=signal[order])
        for name, values in made.items():
            file.create_dataset(name, data=values[order].astype(np.float32), compression="gzip", fletcher32=True)
        lines = {kind: list(settings.pythia_lines(kind, 0)[:-1]) for kind in ("w", "qcd")}
        made_by = {"program": "python -m data_tools jets --preset lagan", "seed": seed, "pythia": lines}
        file.attrs["provenance"] = json.dumps(made_by | {"settings": asdict(settings)})
    shutil.rmtree(folder)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    defaults = JetSettings()
    parser.add_argument("output", type=Path, help="the file to make")
    parser.add_argument(
        "--preset",
        choices=("jetnet", "lagan"),
        default="jetnet",
        help="jetnet: particles of 1 TeV jets (%(default)s); lagan: images of 250 GeV jets, W and QCD, where only "
        "--jets, --seed and --processes count",
    )
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
    parser.add_argument("--nsubjettiness", action="store_true", help="also tau_1, tau_2 and tau_3 of each jet")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")


def _run(options: argparse.Namespace) -> int:
    if options.preset == "lagan":
        make_jet_images(options.output, options.jets, options.seed, options.processes, options.overwrite)
        return 0
    settings = JetSettings(
        pt_hat=tuple(options.pt_hat),
        jet_pt=tuple(options.jet_pt),
        radius=options.radius,
        particle_pt=options.particle_pt,
        max_constituents=options.max_constituents,
        extra=tuple(options.pythia),
        subjettiness=options.nsubjettiness,
    )
    make_jets(options.output, options.kinds, options.jets, options.seed, settings, options.processes, options.overwrite)
    return 0


JETS = Verb("gluon, light-quark, top, W and Z jets from Pythia 8 and FastJet", _add_arguments, _run)
