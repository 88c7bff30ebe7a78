"""``jets``: particle jets and jet images from Pythia 8 and FastJet, resumable chunk by chunk."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

import sparsegen.data as data
from data_tools.chunks import Chunk, in_chunks
from data_tools.jet_images import IMAGE_KINDS, ImageSettings, make_images
from data_tools.pieces import Arrays, load_arrays, save_arrays
from data_tools.pythia import KINDS, JetSettings, check_settings, chunk_seed, make_chunk
from data_tools.select import stratified_split
from data_tools.verb import Verb, one_of, output_arguments, processes_argument
from sparsegen.data.files import whole_file
from sparsegen.data.jetnet import jet_grid
from sparsegen.data.ragged import RaggedWriter
from sparsegen.errors import ConfigError
from sparsegen.events import Column, Events

__all__ = ["JETS", "SPLITS", "make_jet_images", "make_jets"]

SPLITS = {"train": 0.70, "valid": 0.15, "test": 0.15}
_CHUNK = 1000
_IMAGE_CHUNK = 100
_COORDINATE_STEP = 2.0**-16
_MANTISSA_BITS = 15
_SHORT = {"g": "gluon", "q": "quark", "t": "top", "W": "w", "Z": "z"}
_DEFAULT_KINDS = {"jetnet": ("gluon", "quark", "top"), "lagan": ("w", "qcd")}


def make_jets(
    path: str | Path,
    kinds: Sequence[str] = ("gluon", "quark", "top"),
    jets: int = 4000,
    seed: int = 1,
    settings: JetSettings | None = None,
    processes: int = 1,
    overwrite: bool = False,
    to: str = "ragged",
) -> None:
    """Make a file of jets.

    Finished chunks of 1,000 jets wait in ``PATH.chunks/``: the same call again goes on from there, and its result does
    not depend on how often it was stopped or on the number of processes.

    Args:
        path: The file to make.
        kinds: Keys of ``KINDS``; a jet's label is its kind's place here.
        jets: How many of each kind.
        seed: Decides everything random.
        settings: Physics and cuts.
        processes: How many Pythias run at once.
        overwrite: Whether an existing file may be replaced.
        to: ``ragged``: sparsegen's own HDF5, with seeded splits that are stratified by kind; ``jetnet``: padded, one
            kind, without labels and splits.

    Raises:
        ConfigError: Another call's chunks lie in the folder, or the format cannot hold what was asked for.
        DataError: The file exists already.
        MissingExtraError: The extra ``pythia`` is not installed.
    """
    path = Path(path)
    settings = settings or JetSettings()
    _check(kinds, jets, settings)
    if to == "jetnet" and (len(kinds) != 1 or settings.subjettiness or settings.max_constituents > 150):
        raise ConfigError(
            f"{path}: JetNet holds one kind a file, at most 150 particles and no N-subjettiness; given "
            f"{', '.join(kinds)} with {settings.max_constituents}{' and tau' if settings.subjettiness else ''}"
        )
    chunks = [
        Chunk(
            f"{kind}-{chunk:05d}.npz",
            _save_jets,
            (settings, kind, min(_CHUNK, jets - start), chunk_seed(seed, kind, chunk)),
        )
        for kind in kinds
        for chunk, start in enumerate(range(0, jets, _CHUNK))
    ]
    in_chunks(
        path,
        {"kinds": list(kinds), "jets": jets, "seed": seed, "settings": asdict(settings), "to": to},
        chunks,
        partial(_assemble, path, kinds=kinds, jets=jets, seed=seed, settings=settings, overwrite=overwrite, to=to),
        what="chunks of jets",
        processes=processes,
        overwrite=overwrite,
    )


def _check(kinds: Sequence[str], jets: int, settings: JetSettings | ImageSettings) -> None:
    if jets < 1:
        raise ConfigError(f"{jets} jets of each kind asked for; expected at least 1")
    if not kinds or len(set(kinds)) < len(kinds):
        raise ConfigError(f"kinds {' '.join(kinds)}: expected each once")
    for kind in kinds:
        check_settings(settings.pythia_lines(kind, 1))


def _save_jets(path: Path, settings: JetSettings, kind: str, jets: int, seed: int) -> None:
    save_arrays(path, make_chunk(settings, kind, jets, seed))


def _save_images(path: Path, settings: ImageSettings, kind: str, jets: int, seed: int) -> None:
    save_arrays(path, make_images(settings, kind, jets, seed))


def _assemble(
    path: Path,
    parts: Sequence[Path],
    kinds: Sequence[str],
    jets: int,
    seed: int,
    settings: JetSettings,
    overwrite: bool,
    to: str,
) -> None:
    made = load_arrays(parts)
    events = _events(made, np.repeat(np.arange(len(kinds)), jets), settings)
    provenance = _provenance(kinds, jets, seed, settings)
    if to == "jetnet":
        with whole_file(path, overwrite) as part:
            # The layout has no place for what else is known of a jet
            assert events.condition is not None
            data.write(
                events.with_condition(events.condition[:, :3], events.conditions[:3]), part, "jetnet", overwrite=True
            )
            with h5py.File(part, "r+") as file:
                file.attrs["provenance"] = json.dumps(provenance)
        return
    labels = np.repeat(np.arange(len(kinds)), jets)
    split = stratified_split(labels, SPLITS, seed)
    # Splits lie one after the other, kinds mixed inside each: a split is one run of rows
    order = np.lexsort((np.random.default_rng([seed, 1]).random(len(split)), split))
    with RaggedWriter(
        path, overwrite=overwrite, classes=tuple(kinds), splits=tuple(SPLITS), provenance=provenance
    ) as writer:
        writer.append(events[torch.from_numpy(order)], labels[order], split[order])


def _events(made: Arrays, labels: NDArray[np.int64], settings: JetSettings) -> Events:
    particles = made["particles"]
    coords = np.round(particles[:, :2] / _COORDINATE_STEP) * _COORDINATE_STEP
    condition = np.concatenate([made["jets"], labels[:, None]], axis=1)
    tau = ("tau_1", "tau_2", "tau_3") if settings.subjettiness else ()
    return Events(
        torch.from_numpy(coords.astype(np.float32)),
        torch.from_numpy(_round_mantissa(particles[:, 2:].astype(np.float32))),
        torch.from_numpy(np.concatenate([[0], np.cumsum(made["counts"])])),
        axes=("etarel", "phirel"),
        columns=(Column("ptrel"),),
        condition=torch.from_numpy(condition.astype(np.float32)),
        conditions=("jet_pt", "jet_eta", "jet_mass", *tau, "type"),
        grid=jet_grid(radius=settings.radius),
    )


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
    path: str | Path,
    kinds: Sequence[str] = ("w", "qcd"),
    jets: int = 4000,
    seed: int = 1,
    settings: ImageSettings | None = None,
    processes: int = 1,
    overwrite: bool = False,
) -> None:
    """Make a file of jet images in the LAGAN layout, kinds mixed, resumable as :func:`make_jets`.

    Args:
        path: The file to make.
        kinds: ``w`` and ``qcd``, or one of them.
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
    settings = settings or ImageSettings()
    _check(kinds, jets, settings)
    chunks = [
        Chunk(
            f"{kind}-{chunk:05d}.npz",
            _save_images,
            (settings, kind, min(_IMAGE_CHUNK, jets - start), chunk_seed(seed, kind, chunk)),
        )
        for kind in kinds
        for chunk, start in enumerate(range(0, jets, _IMAGE_CHUNK))
    ]

    def assemble(parts: list[Path]) -> None:
        made = load_arrays(parts)
        signal = np.repeat([float(kind == "w") for kind in kinds], jets)
        order = np.random.default_rng(seed).permutation(len(signal))
        with whole_file(path, overwrite) as part, h5py.File(part, "w") as file:
            file.create_dataset("signal", data=signal[order])
            for name, values in made.items():
                file.create_dataset(name, data=values[order].astype(np.float32), compression="gzip", fletcher32=True)
            lines = {kind: list(settings.pythia_lines(kind, 0)[:-1]) for kind in kinds}
            made_by = {"program": "python -m data_tools jets --preset lagan", "seed": seed, "pythia": lines}
            made_by["versions"] = {name: version(name) for name in ("pythia8mc", "fastjet", "numpy")}
            file.attrs["provenance"] = json.dumps(made_by | {"settings": asdict(settings)})

    in_chunks(
        path,
        {"preset": "lagan", "kinds": list(kinds), "jets": jets, "seed": seed, "settings": asdict(settings)},
        chunks,
        assemble,
        what="chunks of images",
        processes=processes,
        overwrite=overwrite,
    )


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    output_arguments(parser)
    kinds = tuple({**KINDS, **IMAGE_KINDS})
    parser.add_argument(
        "--preset",
        type=one_of("preset", _DEFAULT_KINDS),
        default="jetnet",
        metavar="PRESET",
        help="jetnet: particles of 1 TeV jets, R = 0.8 (the default); lagan: images of trimmed 250 to 300 GeV jets, "
        "R = 1.0, with their LAGAN records",
    )
    parser.add_argument(
        "--kinds",
        nargs="+",
        type=one_of("kind of jet", kinds, _SHORT),
        metavar="KIND",
        help=f"jetnet: {', '.join(KINDS)} (or g q t W Z), by default gluon quark top; lagan: w qcd, by default both",
    )
    parser.add_argument("--jets", type=int, default=4000, help="jets of each kind (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="decides everything random (%(default)s)")
    processes_argument(parser)
    parser.add_argument(
        "--to",
        type=one_of("layout", ("ragged", "jetnet", "lagan")),
        metavar="LAYOUT",
        help="ragged (jetnet's default): sparsegen's own file, with splits; jetnet: padded to 30 or 150; lagan: images",
    )
    window: dict[str, Any] = {"type": float, "nargs": 2, "metavar": ("LOW", "HIGH")}
    parser.add_argument("--ecm", type=float, help="centre-of-mass energy [GeV]")
    parser.add_argument("--pt-hat", **window, help="window of the hard process' transverse momentum [GeV]")
    parser.add_argument("--jet-pt", **window, help="window of the jets' transverse momentum [GeV]")
    parser.add_argument("--jet-eta", type=float, help="largest absolute pseudorapidity of a jet")
    parser.add_argument("--radius", type=float, help="of the anti-kT jets")
    parser.add_argument(
        "--pythia", action="append", metavar="KEY=VALUE", help="a further Pythia setting; repeat for more"
    )
    particles = parser.add_argument_group("jetnet only")
    particles.add_argument("--particle-pt", type=float, help="least transverse momentum of a constituent [GeV] (1)")
    particles.add_argument("--max-constituents", type=int, help="how many are kept, hardest first (100)")
    particles.add_argument(
        "--nsubjettiness", action="store_true", default=None, help="also tau_1, tau_2 and tau_3 (lagan has them always)"
    )
    images = parser.add_argument_group("lagan only")
    images.add_argument("--jet-mass", **window, help="window of the trimmed jet's mass [GeV] (60 100)")
    images.add_argument(
        "--trim", type=float, nargs=2, metavar=("RADIUS", "SHARE"), help="of the subjets kept (0.3 0.05)"
    )
    images.add_argument("--resonance", type=float, help="mass of the W' that decays to the W [GeV] (600)")
    images.add_argument("--pixels", type=int, help="along each side (25)")


def _settings(options: argparse.Namespace, defaults: Any) -> Any:
    """The preset with what the command line changes."""
    names = {"pythia": "extra", "nsubjettiness": "subjettiness"}
    own = ("verb", "output", "overwrite", "preset", "kinds", "jets", "seed", "processes", "to")
    given = {names.get(k, k): v for k, v in vars(options).items() if k not in own and v is not None}
    known = {field.name for field in dataclasses.fields(defaults)}
    for name in given:
        if name not in known:
            flag = {new: old for old, new in names.items()}.get(name, name).replace("_", "-")
            raise ConfigError(f"--{flag} does not go with --preset {options.preset}; see --help")
    changes = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return dataclasses.replace(defaults, **changes)


def _run(options: argparse.Namespace) -> int:
    kinds = tuple(options.kinds or _DEFAULT_KINDS[options.preset])
    shared = (options.jets, options.seed)
    if options.preset == "lagan":
        if options.to not in (None, "lagan"):
            raise ConfigError(f"--preset lagan makes images, not {options.to}; convert the file afterwards")
        settings = _settings(options, ImageSettings())
        make_jet_images(options.output, kinds, *shared, settings, options.processes, options.overwrite)
    else:
        if options.to == "lagan":
            raise ConfigError("--preset jetnet makes particles; for images of them: image FILE, or --preset lagan")
        settings = _settings(options, JetSettings())
        to = options.to or "ragged"
        make_jets(options.output, kinds, *shared, settings, options.processes, options.overwrite, to)
    print(f"{options.output}: {options.jets * len(kinds):,} jets ({', '.join(kinds)})")
    return 0


JETS = Verb(
    "gluon, light-quark, top, W and Z jets, or W and QCD jet images, from Pythia 8 and FastJet", _add_arguments, _run
)
