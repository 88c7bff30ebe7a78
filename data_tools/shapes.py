"""``shapes``: point clouds sampled by area, from parametric solids with known modes or from folders of meshes."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import sparsegen.data as data
from data_tools.verb import Verb, output_arguments, pieces
from sparsegen.data import RaggedWriter
from sparsegen.data.arrays import unit_box
from sparsegen.errors import ConfigError, unknown_name
from sparsegen.events import Events

__all__ = ["SHAPES", "SOLIDS", "make_solids", "to_unit_box"]

_PIECE = 256
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


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        help="solids; pybullet (the objects of its package); or a folder of OFF, OBJ, STL, VRML, PLY or .npy files",
    )
    output_arguments(parser)
    parser.add_argument("--kinds", nargs="+", default=list(SOLIDS), choices=list(SOLIDS), help="of the solids")
    parser.add_argument("--clouds", type=int, default=1000, help="of each solid (%(default)s)")
    parser.add_argument("--points", type=int, default=2048, help="points of each solid (%(default)s)")
    parser.add_argument("--seed", type=int, default=1)


def _folder(source: str) -> str:
    if source != "pybullet":
        return source
    found = importlib.util.find_spec("pybullet_data")
    if found is None or found.origin is None:
        raise ConfigError("pybullet's random objects need its package: pip install --no-deps pybullet")
    return str(Path(found.origin).parent / "random_urdfs")


def _run(options: argparse.Namespace) -> int:
    made = {"program": "data_tools shapes", "source": options.source, "seed": options.seed}
    total = 0
    if options.source == "solids":
        classes = tuple(options.kinds)
        with RaggedWriter(options.output, overwrite=options.overwrite, classes=classes, provenance=made) as writer:
            for label, kind in enumerate(classes):
                for start in range(0, options.clouds, _PIECE):
                    generator = np.random.default_rng([options.seed, label, start])
                    cloud = make_solids(kind, min(_PIECE, options.clouds - start), options.points, generator)
                    writer.append(_events(cloud, total), np.full(len(cloud), label))
                    total += len(cloud)
    else:
        source = data.open(_folder(options.source))
        labels = source.labels
        with RaggedWriter(
            options.output, overwrite=options.overwrite, classes=source.classes, provenance=made
        ) as writer:
            for positions, events in pieces(source, "clouds, in 4,096s"):
                boxed = [to_unit_box(events[k].coords.double().numpy()[None]) for k in range(len(events))]
                coords = torch.from_numpy(np.concatenate(boxed, axis=1)[0].astype(np.float32))
                writer.append(events.replace(coords=coords), None if labels is None else labels[positions].numpy())
                total += len(events)
    print(f"{options.output}: {total:,} clouds")
    return 0


SHAPES = Verb("point clouds by area, of solids with known modes or of folders of meshes", _arguments, _run)
