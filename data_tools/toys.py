"""``toys``: small sets whose truth is known."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from data_tools.verb import Verb, output_arguments
from sparsegen.data import RaggedWriter
from sparsegen.errors import ConfigError
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
    if name != "bernoulli" or not 0 < occupancy <= 1:
        raise ConfigError(f"toy {name!r} with occupancy {occupancy}; expected one of {', '.join(TOY_SETS)} and (0, 1]")
    grid = Grid.regular((size, size), (0, 0), (size, size), ("y", "x"))
    active = torch.from_numpy(generator.random((events, 1, size, size)) < occupancy)
    amount = torch.from_numpy(generator.exponential(1.0, (events, 1, size, size)))
    images = torch.where(active, amount, 0.0).float()
    return Events.from_dense(images, grid, (Column("intensity"),)), np.zeros(events, dtype=np.int64)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", choices=TOY_SETS)
    output_arguments(parser)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--occupancy", type=float, default=0.05, help="of Bernoulli images (%(default)s)")
    parser.add_argument("--size", type=int, default=32, help="cells an axis of Bernoulli images (%(default)s)")


def _run(options: argparse.Namespace) -> int:
    events, labels = make_toy(options.name, options.events, options.seed, options.occupancy, options.size)
    made = {"program": "data_tools toys", "options": {k: v for k, v in vars(options).items() if k != "output"}}
    classes = [f"mode {k}" for k in range(int(labels.max()) + 1)]
    with RaggedWriter(options.output, overwrite=options.overwrite, classes=classes, provenance=made) as writer:
        writer.append(events, labels)
    print(f"{options.output}: {len(events):,} events of {options.name}")
    return 0


TOYS = Verb("Gaussian rings and grids, a Swiss roll, lines, sparse Bernoulli images", _arguments, _run)
