"""``split``, ``merge``, ``subset``: which events a file holds."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data_tools.verb import Verb, open_all, origin, output_arguments, pieces, source_arguments
from sparsegen.data import FileSource, RaggedWriter
from sparsegen.errors import ConfigError, DataError

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


def _labels(source: FileSource) -> NDArray[np.int64] | None:
    labels = source.labels
    return None if labels is None else labels.numpy()


def _write(
    source: FileSource,
    rows: NDArray[np.int64],
    options: argparse.Namespace,
    provenance: dict[str, Any],
    splits: tuple[str, ...] = (),
    split: NDArray[np.int64] | None = None,
) -> None:
    """Some positions of a source as a ragged file, in this order; ``split`` counts by position."""
    labels = _labels(source)
    with RaggedWriter(
        options.output, overwrite=options.overwrite, classes=source.classes, splits=splits, provenance=provenance
    ) as writer:
        for positions, events in pieces(source, "events, in 4,096s", rows):
            writer.append(
                events,
                None if labels is None else labels[positions],
                None if split is None else split[positions],
            )


def _split_arguments(parser: argparse.ArgumentParser) -> None:
    source_arguments(parser)
    output_arguments(parser)
    parser.add_argument(
        "--fractions",
        nargs="+",
        default=["train=0.7", "valid=0.15", "test=0.15"],
        metavar="NAME=SHARE",
        help="the splits (%(default)s)",
    )
    parser.add_argument("--seed", type=int, default=1)


def _split(options: argparse.Namespace) -> int:
    try:
        fractions = {name: float(share) for name, share in (item.split("=") for item in options.fractions)}
    except ValueError:
        raise ConfigError(f"--fractions {' '.join(options.fractions)}: expected NAME=SHARE, as in train=0.7") from None
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
    made = origin(source, "split", fractions=fractions, seed=options.seed, rows_sha256=digests)
    order = np.lexsort((np.random.default_rng([options.seed, 1]).random(len(split)), split))
    _write(source, order, options, made, tuple(fractions), split)
    for k, name in enumerate(fractions):
        print(f"{options.output}:{name}: {int((split == k).sum()):,} events")
    return 0


def _subset_arguments(parser: argparse.ArgumentParser) -> None:
    source_arguments(parser)
    output_arguments(parser)
    parser.add_argument("--events", type=int, help="how many, drawn at random; all by default")
    parser.add_argument("--classes", nargs="+", default=[], help="only these")
    parser.add_argument("--seed", type=int, default=1)


def _subset(options: argparse.Namespace) -> int:
    source = open_all(options.input, options.format)
    rows = np.arange(len(source))
    labels = _labels(source)
    if options.classes:
        unknown = [name for name in options.classes if name not in source.classes]
        if unknown or labels is None:
            raise ConfigError(
                f"{source.name}: no class {', '.join(unknown)}; it has {', '.join(source.classes) or 'none'}"
            )
        rows = rows[np.isin(labels, [source.classes.index(name) for name in options.classes])]
    if options.events is not None:
        if not 0 < options.events <= len(rows):
            raise ConfigError(
                f"{source.name}: {options.events} events asked for; between 1 and {len(rows)} can be drawn"
            )
        rows = np.sort(np.random.default_rng(options.seed).choice(rows, options.events, replace=False))
    _write(
        source,
        rows,
        options,
        origin(source, "subset", events=options.events, classes=options.classes, seed=options.seed),
    )
    print(f"{options.output}: {len(rows):,} events")
    return 0


def _merge_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", help="files or embedded sets to join, in this order")
    parser.add_argument("-o", "--output", required=True, help="the file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.add_argument("--format", default="auto", help="of the inputs; recognised by their content by default")


def _merge(options: argparse.Namespace) -> int:
    sources = [open_all(name, options.format) for name in options.inputs]
    first = sources[0]
    for other in sources[1:]:
        for fact in ("axes", "columns", "conditions", "classes"):
            if getattr(other, fact) != getattr(first, fact):
                raise DataError(
                    f"{other.name}: its {fact} {getattr(other, fact)} are not {first.name}'s {getattr(first, fact)}; "
                    "convert one first"
                )
    total = 0
    made = {"program": "data_tools merge", "from": [origin(source, "merge") for source in sources]}
    with RaggedWriter(options.output, overwrite=options.overwrite, classes=first.classes, provenance=made) as writer:
        for source in sources:
            labels = _labels(source)
            for positions, events in pieces(source, source.name):
                # Ids of different files may clash: they count anew
                events = events.replace(ids=torch.arange(total, total + len(events)))
                writer.append(events, None if labels is None else labels[positions])
                total += len(events)
    print(f"{options.output}: {total:,} events")
    return 0


SPLIT = Verb("seeded, stratified, disjoint splits, recorded in the file", _split_arguments, _split)
SUBSET = Verb("some classes, some events", _subset_arguments, _subset)
MERGE = Verb("several files in one", _merge_arguments, _merge)
