"""``split``, ``merge``, ``subset``: which events a file holds."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools.transfer import Look, Part, transfer
from data_tools.verb import Verb, open_all, origin, output_arguments, overwrite_argument, source_arguments
from sparsegen.data import FileSource
from sparsegen.errors import ConfigError, DataError, unknown_name
from sparsegen.events import Column

__all__ = ["MERGE", "SPLIT", "SUBSET", "stratified_split"]


def stratified_split(labels: NDArray[np.int64], fractions: Mapping[str, float], seed: int) -> NDArray[np.int64]:
    """Split index of every event ``(B,)``: the same fractions of each class, seeded.

    Raises:
        ConfigError: Fractions do not add up to one.

    Example:
        >>> stratified_split(np.array([0, 0, 1, 1]), {"train": 0.5, "test": 0.5}, seed=0).reshape(2, 2).sum(1)
        array([1, 1])
    """
    shares = list(fractions.values())
    if abs(sum(shares) - 1) > 1e-9 or min(shares) <= 0:
        raise ConfigError(
            f"split fractions {dict(fractions)} must be positive and add up to 1, they give {sum(shares):g}"
        )
    generator = np.random.default_rng([seed, 0])
    split = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        bounds = np.round(np.cumsum(shares) * len(rows)).astype(int)
        split[rows] = np.searchsorted(bounds, generator.permutation(len(rows)), side="right")
    return split


def _seed_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=1, help="decides what is drawn (%(default)s)")


def _labels(source: FileSource) -> NDArray[np.int64] | None:
    labels = source.labels
    return None if labels is None else labels.numpy()


def _write(
    source: FileSource,
    options: argparse.Namespace,
    rows: NDArray[np.int64],
    verb: str,
    splits: tuple[str, ...] = (),
    split: NDArray[np.int64] | None = None,
    **facts: Any,
) -> None:
    """Some positions of a source as a ragged file, in this order; ``split`` counts by position."""
    transfer(
        options.output,
        [Part(Look(options.input, options.format), rows, None if split is None else split[rows])],
        {"verb": verb, **facts},
        splits=splits,
        provenance=origin(source, verb, **facts),
        overwrite=options.overwrite,
    )


def _split_arguments(parser: argparse.ArgumentParser) -> None:
    source_arguments(parser)
    output_arguments(parser)
    parser.add_argument(
        "--fractions",
        nargs="+",
        default=["train=0.7", "valid=0.15", "test=0.15"],
        metavar="NAME=SHARE",
        help="the splits (train=0.7 valid=0.15 test=0.15)",
    )
    _seed_argument(parser)


def _split(options: argparse.Namespace) -> int:
    try:
        fractions = {name: float(share) for name, share in (item.split("=") for item in options.fractions)}
    except ValueError:
        raise ConfigError(f"--fractions {' '.join(options.fractions)}: expected NAME=SHARE, as in train=0.7") from None
    if len(fractions) < len(options.fractions):
        raise ConfigError(f"--fractions {' '.join(options.fractions)}: names a split twice; expected each once")
    source = open_all(options.input, options.format)
    labels = _labels(source)
    split = stratified_split(
        np.zeros(len(source), dtype=np.int64) if labels is None else labels, fractions, options.seed
    )
    # Which rows went where, so that a later reader can tell whether two splits are the same
    digests = {
        name: hashlib.sha256(np.flatnonzero(split == k).astype("<i8").tobytes()).hexdigest()
        for k, name in enumerate(fractions)
    }
    order = np.lexsort((np.random.default_rng([options.seed, 1]).random(len(split)), split))
    facts = {"fractions": fractions, "seed": options.seed, "rows_sha256": digests}
    _write(source, options, order, "split", tuple(fractions), split, **facts)
    for k, name in enumerate(fractions):
        print(f"{options.output}:{name}: {int((split == k).sum()):,} events")
    return 0


def _subset_arguments(parser: argparse.ArgumentParser) -> None:
    source_arguments(parser)
    output_arguments(parser)
    parser.add_argument("--events", type=int, help="how many, drawn at random; all by default")
    parser.add_argument(
        "--classes", nargs="+", default=[], metavar="CLASS", help="only events of these; all by default"
    )
    _seed_argument(parser)


def _subset(options: argparse.Namespace) -> int:
    source = open_all(options.input, options.format)
    rows = np.arange(len(source))
    labels = _labels(source)
    if options.classes:
        if labels is None:
            raise ConfigError(f"{source.name}: has no classes to choose from")
        for name in options.classes:
            if name not in source.classes:
                raise ConfigError(f"{source.name}: {unknown_name('class', name, source.classes)}")
        rows = rows[np.isin(labels, [source.classes.index(name) for name in options.classes])]
        if not len(rows):
            raise ConfigError(f"{source.name}: has no events of the classes {', '.join(options.classes)}")
    if options.events is not None:
        if not 0 < options.events <= len(rows):
            raise ConfigError(
                f"{source.name}: {options.events} events asked for; between 1 and {len(rows)} can be drawn"
            )
        rows = np.sort(np.random.default_rng(options.seed).choice(rows, options.events, replace=False))
    facts = {"events": options.events, "classes": options.classes, "seed": options.seed}
    _write(source, options, rows, "subset", **facts)
    print(f"{options.output}: {len(rows):,} events")
    return 0


def _merge_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", help="files or embedded sets to join, in this order")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the file to write")
    overwrite_argument(parser)
    parser.add_argument("--format", default="auto", help="of the inputs; recognised by their content by default")
    parser.add_argument(
        "--classes",
        nargs="+",
        default=[],
        metavar="CLASS",
        help="the class of each input's events, where the files name none, as JetNet's do not",
    )


def _plain(fact: Any) -> Any:
    """Columns as names and units; anything else as it is."""
    if not isinstance(fact, tuple):
        return fact
    return tuple(f"{item.name} [{item.unit}]" if isinstance(item, Column) else item for item in fact)


def _merge(options: argparse.Namespace) -> int:
    sources = [open_all(name, options.format) for name in options.inputs]
    first = sources[0]
    for other in sources[1:]:
        # The lattice beside points is only a default; cells mean nothing without theirs
        for fact in ("axes", "columns", "conditions", "classes", *(("grid",) if first.reader.is_cells else ())):
            if getattr(other, fact) != getattr(first, fact):
                raise DataError(
                    f"{other.name}: its {fact} {_plain(getattr(other, fact))} are not {first.name}'s "
                    f"{_plain(getattr(first, fact))}; convert one first"
                )
    names = tuple(dict.fromkeys(options.classes))
    if names and (len(options.classes) != len(sources) or any(source.classes for source in sources)):
        raise ConfigError(
            f"--classes {' '.join(options.classes)}: one for each of the {len(sources)} inputs, whose own classes are "
            f"{[list(source.classes) for source in sources]}; expected none of their own"
        )
    labels: list[int | None] = [None] * len(sources)
    if names:
        labels = [names.index(name) for name in options.classes]
    # Ids of different files may clash: they count anew
    starts = np.cumsum([0, *map(len, sources)]).tolist()
    result = transfer(
        options.output,
        [
            Part(Look(name, options.format, label=label), first_id=start)
            for name, label, start in zip(options.inputs, labels, starts, strict=False)
        ],
        {"verb": "merge", "classes": options.classes},
        classes=names or None,
        provenance={"program": "data_tools merge", "from": [origin(source, "merge") for source in sources]},
        overwrite=options.overwrite,
    )
    print(f"{options.output}: {result.events:,} events")
    return 0


SPLIT = Verb("seeded, stratified, disjoint splits, recorded in the file", _split_arguments, _split)
SUBSET = Verb("some classes, some events", _subset_arguments, _subset)
MERGE = Verb("several files in one", _merge_arguments, _merge)
