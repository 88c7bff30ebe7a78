"""``toys``: small sets whose truth is known."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from data_tools.verb import Verb, one_of, output_arguments
from sparsegen.data import RaggedWriter
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


_CLOUDS: dict[str, Callable[[int, np.random.Generator], Points]] = {
    "ring": _ring,
    "grid": _grid,
    "swiss-roll": _swiss_roll,
    "lines": _lines,
}
_BLOCK = 2**24
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
    if events < 1:
        raise ConfigError(f"{events} events asked for; expected at least 1")
    generator = np.random.default_rng(seed)
    if name in _CLOUDS:
        points, labels = _CLOUDS[name](events, generator)
        grid = Grid.regular((64, 64), (-1.5, -1.5), (1.5, 1.5), ("x", "y"))
        return (
            Events(
                torch.from_numpy(points).float(),
                torch.ones(events, 1),
                torch.arange(events + 1),
                axes=("x", "y"),
                columns=(Column("weight"),),
                grid=grid,
            ),
            labels,
        )
    if name != "bernoulli":
        raise ConfigError(unknown_name("toy", name, TOY_SETS))
    if not 0 < occupancy <= 1 or size < 1:
        raise ConfigError(
            f"images of {size} x {size} cells, {occupancy:g} active; expected at least one cell, and a share above "
            "0, at most 1"
        )
    grid = Grid.regular((size, size), (0, 0), (size, size), ("y", "x"))
    # Dense only some images at a time
    block = max(1, _BLOCK // size**2)
    parts = []
    for start in range(0, events, block):
        active = generator.random((min(block, events - start), 1, size, size)) < occupancy
        images = np.zeros(active.shape, dtype=np.float32)
        images[active] = generator.exponential(1.0, int(active.sum()))
        parts.append(Events.from_dense(torch.from_numpy(images), grid, (Column("intensity"),)))
    return Events.cat(parts).replace(ids=torch.arange(events)), np.zeros(events, dtype=np.int64)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name",
        type=one_of("toy", TOY_SETS),
        help="ring (8 Gaussians), grid (25), swiss-roll or lines: one point an event, its mode as the class; or "
        "bernoulli: images whose cells are active independently",
    )
    output_arguments(parser)
    parser.add_argument("--events", type=int, default=10_000, help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="decides everything random (%(default)s)")
    parser.add_argument("--occupancy", type=float, default=0.05, help="of Bernoulli images (%(default)s)")
    parser.add_argument("--size", type=int, default=32, help="cells an axis of Bernoulli images (%(default)s)")


def _run(options: argparse.Namespace) -> int:
    events, labels = make_toy(options.name, options.events, options.seed, options.occupancy, options.size)
    made = {
        "program": "data_tools toys",
        "options": {k: v for k, v in vars(options).items() if k not in ("output", "overwrite")},
    }
    classes = [f"mode {k}" for k in range(int(labels.max()) + 1)]
    with RaggedWriter(options.output, overwrite=options.overwrite, classes=classes, provenance=made) as writer:
        writer.append(events, labels)
    print(f"{options.output}: {len(events):,} events of {options.name}")
    return 0


TOYS = Verb("Gaussian rings and grids, a Swiss roll, lines, sparse Bernoulli images", _arguments, _run)
