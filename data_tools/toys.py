"""``toys``: sets whose truth is known."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data_tools.chunks import Chunk, in_chunks
from data_tools.pieces import Piece, save_piece, write_pieces
from data_tools.verb import Verb, one_of, output_arguments, processes_argument
from sparsegen.errors import ConfigError, unknown_name
from sparsegen.events import Column, Events
from sparsegen.grid import Grid

__all__ = ["TOYS", "TOY_SETS", "make_toy"]

Points = tuple[NDArray[np.float64], NDArray[np.int64]]


def _modes(centres: NDArray[np.float64], n: int, width: float, generator: np.random.Generator) -> Points:
    labels = generator.integers(len(centres), size=n)
    return centres[labels] + generator.normal(0, width, (n, 2)), labels


def _ring(n: int, generator: np.random.Generator) -> Points:
    """8 Gaussians of width 0.02 on a circle of radius 1."""
    angle = 2 * np.pi * np.arange(8) / 8
    return _modes(np.stack([np.cos(angle), np.sin(angle)], 1), n, 0.02, generator)


def _grid(n: int, generator: np.random.Generator) -> Points:
    """25 Gaussians of width 0.02 on a square lattice of step 0.5."""
    step = np.linspace(-1, 1, 5)
    return _modes(np.stack(np.meshgrid(step, step), -1).reshape(-1, 2), n, 0.02, generator)


def _swiss_roll(n: int, generator: np.random.Generator) -> Points:
    """A spiral of one and a half turns, normal noise of width 0.02."""
    angle = 1.5 * np.pi * (1 + 2 * generator.random(n))
    spiral = np.stack([angle * np.cos(angle), angle * np.sin(angle)], 1) / (4.5 * np.pi)
    return spiral + generator.normal(0, 0.02, (n, 2)), np.zeros(n, dtype=np.int64)


def _lines(n: int, generator: np.random.Generator) -> Points:
    """Two parallel segments at x = -0.5 and 0.5: a distribution without a density."""
    labels = generator.integers(2, size=n)
    return np.stack([labels - 0.5, generator.uniform(-1, 1, n)], 1), labels


_CLOUDS: dict[str, tuple[int, Callable[[int, np.random.Generator], Points]]] = {
    "ring": (8, _ring),
    "grid": (25, _grid),
    "swiss-roll": (1, _swiss_roll),
    "lines": (2, _lines),
}
"""Modes of each set of points, and what draws them."""

_CHUNK = 2**20
"""Points, or images, made at once at most; each chunk has a seed of its own."""

_CHUNK_CELLS = 2**24
"""Cells of images made at once at most."""

TOY_SETS = (*_CLOUDS, "bernoulli")


def make_toy(
    name: str, events: int, seed: int, occupancy: float = 0.05, size: int = 32
) -> tuple[Events, NDArray[np.int64]]:
    """A toy set and the mode of each event.

    Point toys have one hit an event, in ``[-1.5, 1.5]^2``, without features beyond a unit weight. ``bernoulli`` images
    have cells that are active independently with probability ``occupancy``, with an exponential amount of mean 1.

    Args:
        name: One of ``TOY_SETS``.
        events: How many.
        seed: Of all randomness.
        occupancy: Active fraction of a Bernoulli image.
        size: Its cells along each axis.

    Example:
        >>> events, modes = make_toy("ring", 100, seed=0)
        >>> len(events), bool(events.coords.norm(dim=1).sub(1).abs().max() < 0.1)
        (100, True)
    """
    parts = [_make_chunk(*arguments) for arguments in _chunks(name, events, seed, occupancy, size)]
    return Events.cat([some for some, _ in parts]), np.concatenate([labels for _, labels in parts])


def _chunks(name: str, events: int, seed: int, occupancy: float, size: int) -> list[tuple[Any, ...]]:
    """What each chunk of a set is made from."""
    if events < 1:
        raise ConfigError(f"{events} events asked for; expected at least 1")
    if name not in TOY_SETS:
        raise ConfigError(unknown_name("toy", name, TOY_SETS))
    if not 0 < occupancy <= 1 or size < 1:
        raise ConfigError(f"images of {size} x {size} cells, {occupancy:g} active; expected a share above 0, at most 1")
    each = min(_CHUNK, max(1, _CHUNK_CELLS // size**2)) if name not in _CLOUDS else _CHUNK
    return [(name, start, min(start + each, events), seed, occupancy, size) for start in range(0, events, each)]


def _make_chunk(
    name: str, start: int, stop: int, seed: int, occupancy: float, size: int
) -> tuple[Events, NDArray[np.int64]]:
    count = stop - start
    generator = np.random.default_rng([seed, start] if start else seed)
    ids = torch.arange(start, stop)
    if name in _CLOUDS:
        points, labels = _CLOUDS[name][1](count, generator)
        grid = Grid.regular((64, 64), (-1.5, -1.5), (1.5, 1.5), ("x", "y"))
        events = Events(
            torch.from_numpy(points).float(),
            torch.ones(count, 1),
            torch.arange(count + 1),
            axes=("x", "y"),
            columns=(Column("weight"),),
            grid=grid,
            ids=ids,
        )
        return events, labels
    grid = Grid.regular((size, size), (0, 0), (size, size), ("y", "x"))
    active = generator.random((count, 1, size, size)) < occupancy
    images = np.zeros(active.shape, dtype=np.float32)
    images[active] = generator.exponential(1.0, int(active.sum()))
    events = Events.from_dense(torch.from_numpy(images), grid, (Column("intensity"),))
    return events.replace(ids=ids), np.zeros(count, dtype=np.int64)


def _save_chunk(path: Path, *arguments: Any) -> None:
    save_piece(path, Piece(*_make_chunk(*arguments)))


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name",
        type=one_of("toy", TOY_SETS),
        help="ring (8 Gaussians), grid (25), swiss-roll or lines: one point an event, its mode as the class; or "
        "bernoulli: images whose cells are active independently",
    )
    output_arguments(parser)
    processes_argument(parser)
    parser.add_argument("--events", type=int, default=10_000, help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="decides everything random (%(default)s)")
    parser.add_argument("--occupancy", type=float, default=0.05, help="of Bernoulli images (%(default)s)")
    parser.add_argument("--size", type=int, default=32, help="cells an axis of Bernoulli images (%(default)s)")


def _run(options: argparse.Namespace) -> int:
    facts = {name: getattr(options, name) for name in ("name", "events", "seed", "occupancy", "size")}
    made = {"program": "data_tools toys", "options": facts}
    modes = _CLOUDS[options.name][0] if options.name in _CLOUDS else 1
    in_chunks(
        options.output,
        {"verb": "toys", **facts},
        [Chunk(f"{k:06d}.npz", _save_chunk, arguments) for k, arguments in enumerate(_chunks(**facts))],
        lambda paths: write_pieces(
            options.output,
            paths,
            overwrite=options.overwrite,
            classes=[f"mode {k}" for k in range(modes)],
            provenance=made,
        ),
        what="chunks of toys",
        processes=options.processes,
        overwrite=options.overwrite,
    )
    print(f"{options.output}: {options.events:,} events of {options.name}")
    return 0


TOYS = Verb("Gaussian rings and grids, a Swiss roll, lines, sparse Bernoulli images", _arguments, _run)
