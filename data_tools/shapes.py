"""``shapes``: point clouds sampled by area, from parametric solids with known modes or from folders of meshes."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import sparsegen.data as data
from data_tools.chunks import Chunk, in_chunks, refuse_existing
from data_tools.mesh_sources import COLLECTIONS, find_package, list_meshes, prepare_meshes
from data_tools.pieces import Piece, load_piece, save_piece, write_pieces
from data_tools.verb import Verb, one_of, output_arguments, processes_argument
from sparsegen.data.arrays import unit_box
from sparsegen.data.files import file_hash
from sparsegen.data.formats import recognise
from sparsegen.data.meshes import read_mesh, sample_surface
from sparsegen.errors import ConfigError, DataError, unknown_name
from sparsegen.events import Events

__all__ = ["SHAPES", "SOLIDS", "make_solids", "to_unit_box"]

_POINTS = 2048
_PIECE = 256
_MESHES = 32
Solid = Callable[[NDArray[np.float64], int, np.random.Generator], NDArray[np.float64]]


def _circle(shape: tuple[int, int], generator: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    angle = generator.uniform(0, 2 * np.pi, shape)
    return np.cos(angle), np.sin(angle)


def _ellipsoid(size: NDArray[np.float64], points: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """A sphere of radius 1 whose third axis is ``size``."""
    squeeze = np.repeat(size, points)
    normal = np.empty((len(squeeze), 3))
    missing = np.arange(len(squeeze))
    while len(missing):
        drawn = generator.normal(size=(len(missing), 3))
        normal[missing] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
        # The area element grows with |(n_x, n_y, n_z / size)|, at most 1 / size
        x, y, z = normal[missing].T
        area = np.sqrt(x**2 + y**2 + (z / squeeze[missing]) ** 2)
        missing = missing[generator.random(len(missing)) > area * squeeze[missing]]
    normal[:, 2] *= squeeze
    return normal.reshape(len(size), points, 3)


def _box(size: NDArray[np.float64], points: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """A square prism of height ``size``."""
    half = np.stack([np.ones(len(size)), np.ones(len(size)), size], axis=1)
    areas = np.prod(half, axis=1, keepdims=True) / half
    shares = (areas / areas.sum(1, keepdims=True)).cumsum(1)
    axis = (generator.random((len(size), points, 1)) > shares[:, None, :2]).sum(-1)
    cloud = generator.uniform(-1, 1, (len(size), points, 3))
    np.put_along_axis(cloud, axis[..., None], np.sign(generator.uniform(-1, 1, axis.shape))[..., None], axis=2)
    return cloud * half[:, None]


def _cylinder(size: NDArray[np.float64], points: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """A closed cylinder of radius 1 and half height ``size``."""
    shape = (len(size), points)
    wall = generator.random(shape) < (2 * size / (2 * size + 1))[:, None]
    x, y = _circle(shape, generator)
    radius = np.where(wall, 1.0, np.sqrt(generator.random(shape)))
    height = np.where(wall, generator.uniform(-1, 1, shape), np.sign(generator.uniform(-1, 1, shape)))
    return np.stack([radius * x, radius * y, height * size[:, None]], axis=-1)


def _cone(size: NDArray[np.float64], points: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """A closed cone of radius 1 and height ``2 size``."""
    shape = (len(size), points)
    slant = np.sqrt(1 + (2 * size) ** 2)
    wall = generator.random(shape) < (slant / (slant + 1))[:, None]
    x, y = _circle(shape, generator)
    radius = np.sqrt(generator.random(shape))
    height = np.where(wall, 1 - 2 * radius, -1.0)
    return np.stack([radius * x, radius * y, height * size[:, None]], axis=-1)


def _torus(size: NDArray[np.float64], points: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """A torus of radius 1 whose tube has radius ``size / 2``."""
    shape = (len(size), points)
    tube = (size / 2)[:, None]
    # The area grows with the distance from the axis: an angle is kept with probability (1 + tube cos) / 2, else opposed
    chosen = generator.uniform(0, 2 * np.pi, shape)
    chosen += np.pi * (generator.random(shape) > (1 + tube * np.cos(chosen)) / 2)
    x, y = _circle(shape, generator)
    radius = 1 + tube * np.cos(chosen)
    return np.stack([radius * x, radius * y, tube * np.sin(chosen)], axis=-1)


SOLIDS: dict[str, Solid] = {
    "ellipsoid": _ellipsoid,
    "box": _box,
    "cylinder": _cylinder,
    "cone": _cone,
    "torus": _torus,
}


def to_unit_box(cloud: NDArray[np.float64]) -> NDArray[np.float64]:
    """Clouds ``(B, P, 3)`` centred on their bounding boxes, their longest half side one."""
    low, high = cloud.min(1, keepdims=True), cloud.max(1, keepdims=True)
    return (cloud - (low + high) / 2) / np.maximum((high - low).max(-1, keepdims=True) / 2, 1e-12)


def make_solids(kind: str, clouds: int, points: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Clouds of one solid, each with an aspect ratio between 1/2 and 1 and turned about the vertical.

    Args:
        kind: A key of ``SOLIDS``.
        clouds: How many.
        points: Points of each, by area.
        generator: Source of randomness.

    Returns:
        ``(clouds, points, 3)`` in ``[-1, 1]^3``.

    Example:
        >>> make_solids("torus", 2, 100, np.random.default_rng(0)).shape
        (2, 100, 3)
    """
    if kind not in SOLIDS:
        raise ConfigError(unknown_name("solid", kind, SOLIDS))
    cloud = SOLIDS[kind](generator.uniform(0.5, 1, clouds), points, generator)
    angle = generator.uniform(0, 2 * np.pi, (clouds, 1))
    x, y = cloud[..., 0].copy(), cloud[..., 1].copy()
    cloud[..., 0], cloud[..., 1] = np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y
    return to_unit_box(cloud)


def _events(cloud: NDArray[np.float64], start: int) -> Events:
    count, points, _ = cloud.shape
    coords = torch.from_numpy(cloud.reshape(-1, 3).astype(np.float32))
    return Events(
        coords,
        coords.new_zeros(len(coords), 0),
        torch.arange(count + 1) * points,
        axes=("x", "y", "z"),
        columns=(),
        grid=unit_box(3),
        ids=torch.arange(start, start + count),
    )


def _save_solids(path: Path, kind: str, label: int, start: int, size: int, points: int, seed: int, first: int) -> None:
    cloud = make_solids(kind, size, points, np.random.default_rng([seed, label, start]))
    save_piece(path, Piece(_events(cloud, first), np.full(size, label)))


def _save_meshes(
    path: Path, files: Sequence[Path], labels: NDArray[np.int64] | None, first: int, points: int, seed: int, skip: bool
) -> None:
    clouds, kept, notes = [], [], []
    for row, file in enumerate(files):
        try:
            surface = read_mesh(file)
        except DataError as error:
            if not skip:
                raise DataError(f"{error}, or pass --skip-unreadable") from None
            notes.append(str(error))
            continue
        clouds.append(to_unit_box(sample_surface(*surface, points, np.random.default_rng([seed, first + row]))[None]))
        kept.append(row)
    events = _events(np.concatenate([np.empty((0, points, 3)), *clouds]), first)
    events = events.replace(ids=first + torch.tensor(kept, dtype=torch.int64))
    save_piece(path, Piece(events, None if labels is None else labels[kept], notes=tuple(notes)))


def _save_sets(path: Path, source: str, positions: NDArray[np.int64], points: int | None, seed: int) -> None:
    """Point sets as they are, but for their scale, or some points of each."""
    opened = data.open(source, check=False)
    events = opened[positions]
    boxed = [to_unit_box(events[k].coords.double().numpy()[None])[0] for k in range(len(events))]
    labels = opened.labels
    events = events.replace(coords=torch.from_numpy(np.concatenate(boxed).astype(np.float32)), grid=unit_box(3))
    if points is not None:
        keep = torch.zeros(len(events.coords), dtype=torch.bool)
        for row, start, size in zip(positions.tolist(), events.offsets.tolist(), events.counts.tolist(), strict=False):
            if size < points:
                raise DataError(f"{source}: set {row} has {size} points, {points} asked for; give fewer --points")
            keep[start + np.random.default_rng([seed, row]).choice(size, points, replace=False)] = True
        events = events.select_hits(keep)
    save_piece(path, Piece(events, None if labels is None else labels[positions].numpy()))


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        help="solids (parametric, known modes); kicad, furniture or pybullet, where their packages are installed or "
        "their .deb or .whl lies in this folder; such an archive itself; or a folder of OFF, OBJ, STL, VRML, PLY or "
        ".npy files, a folder a class",
    )
    output_arguments(parser)
    processes_argument(parser)
    parser.add_argument(
        "--points",
        type=int,
        help=f"points of each cloud, by area ({_POINTS}); of point sets: so many of each, at random, all by default",
    )
    parser.add_argument("--seed", type=int, default=1, help="decides everything random (%(default)s)")
    solids = parser.add_argument_group("solids only")
    solids.add_argument(
        "--kinds",
        nargs="+",
        default=list(SOLIDS),
        type=one_of("solid", SOLIDS),
        metavar="SOLID",
        help=f"which: {', '.join(SOLIDS)} (all)",
    )
    solids.add_argument("--clouds", type=int, default=1000, help="of each solid (%(default)s)")
    meshes = parser.add_argument_group("meshes and point sets")
    meshes.add_argument(
        "--classes",
        nargs="+",
        default=[],
        metavar="CLASS",
        help="only these are unpacked or taken, or the word all; by default all, but of kicad nine with about a "
        f"hundred models or more each: {', '.join(COLLECTIONS['kicad'].default)}",
    )
    meshes.add_argument(
        "--skip-unreadable", action="store_true", help="leave out meshes that cannot be read, and list them"
    )


def _solids(options: argparse.Namespace) -> tuple[list[Chunk], tuple[str, ...]]:
    chunks: list[Chunk] = []
    for label, kind in enumerate(options.kinds):
        for start in range(0, options.clouds, _PIECE):
            size = min(_PIECE, options.clouds - start)
            first = label * options.clouds + start
            arguments = (kind, label, start, size, options.points or _POINTS, options.seed, first)
            chunks.append(Chunk(f"{len(chunks):06d}.npz", _save_solids, arguments))
    return chunks, tuple(options.kinds)


def _mesh_chunks(options: argparse.Namespace, source: Path, classes: list[str]) -> tuple[list[Chunk], tuple[str, ...]]:
    files, labels, names = list_meshes(source, classes)
    chunks = []
    for start in range(0, len(files), _MESHES):
        some = slice(start, start + _MESHES)
        known = None if labels is None else labels[some]
        arguments = (files[some], known, start, options.points or _POINTS, options.seed, options.skip_unreadable)
        chunks.append(Chunk(f"{start // _MESHES:06d}.npz", _save_meshes, arguments))
    return chunks, names


def _set_chunks(options: argparse.Namespace, source: str, classes: list[str]) -> tuple[list[Chunk], tuple[str, ...]]:
    opened = data.open(source, classes=classes)
    if opened.axes != ("x", "y", "z"):
        raise DataError(f"{source}: has the axes {', '.join(opened.axes)}; expected point sets or meshes in x, y, z")
    chunks = []
    for k, start in enumerate(range(0, len(opened), _PIECE)):
        arguments = (source, opened.rows[start : start + _PIECE], options.points, options.seed)
        chunks.append(Chunk(f"{k:06d}.npz", _save_sets, arguments))
    return chunks, opened.classes


def _run(options: argparse.Namespace) -> int:
    if (options.points is not None and options.points < 1) or options.clouds < 1:
        raise ConfigError(f"{options.clouds} clouds of {options.points or 0} points; expected at least one of each")
    refuse_existing(options.output, options.overwrite)
    facts = {"source": options.source, "points": options.points, "seed": options.seed}
    unpacked = options.output.with_name(options.output.name + ".meshes")
    if options.source == "solids":
        facts |= {"kinds": options.kinds, "clouds": options.clouds, "points": options.points or _POINTS}
        chunks, classes = _solids(options)
    else:
        named = COLLECTIONS.get(options.source)
        source = find_package(options.source) if named is not None else Path(options.source)
        if not source.exists():
            raise DataError(f"{unknown_name('source', options.source, ['solids', *COLLECTIONS])}; and no such file")
        wanted = options.classes or list(named.default if named is not None else ())
        wanted = [] if "all" in wanted else wanted
        facts |= {"from": str(source), "sha256": file_hash(source), "classes": wanted}
        folder = prepare_meshes(source, wanted, unpacked)
        sets = folder == source and recognise(folder).name != "mesh"
        if sets:
            chunks, classes = _set_chunks(options, str(folder), wanted)
        else:
            facts["points"] = options.points or _POINTS
            chunks, classes = _mesh_chunks(options, folder, wanted)
    made = {"program": "data_tools shapes", **facts}

    def assemble(paths: list[Path]) -> int:
        notes = [note for path in paths for note in load_piece(path).notes]
        for note in notes:
            print(f"left out: {note}", file=sys.stderr)
        provenance = made | ({"left_out": notes} if notes else {})
        return write_pieces(options.output, paths, overwrite=options.overwrite, classes=classes, provenance=provenance)[
            0
        ]

    clouds = in_chunks(
        options.output,
        {"verb": "shapes", **facts},
        chunks,
        assemble,
        what="chunks of clouds",
        processes=options.processes,
        overwrite=options.overwrite,
    )
    shutil.rmtree(unpacked, ignore_errors=True)
    kinds = f" of {len(classes)} classes" if classes else ""
    print(f"{options.output}: {clouds:,} clouds{kinds}")
    return 0


SHAPES = Verb("point clouds by area, of solids with known modes or of folders of meshes", _arguments, _run)
