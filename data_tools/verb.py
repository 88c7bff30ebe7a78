"""What a verb of the command line is, and what verbs share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import sparsegen.data as data
from data_tools.chunks import progress
from sparsegen.data import FileSource, Reader
from sparsegen.data.files import file_hash
from sparsegen.errors import unknown_name
from sparsegen.events import Events

__all__ = [
    "Verb",
    "one_of",
    "open_all",
    "origin",
    "output_arguments",
    "overwrite_argument",
    "pieces",
    "processes_argument",
    "source_arguments",
    "split_of_rows",
]

_PIECE = 4096


@dataclass(frozen=True)
class Verb:
    """One verb.

    Args:
        summary: One line for ``--help``.
        add_arguments: Adds its options to a parser.
        run: Does it; returns the exit code.
    """

    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def source_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that name a data set to read."""
    parser.add_argument("input", help="a file, FILE:SPLIT, or an embedded set such as pythia-jets:test")
    parser.add_argument("--format", default="auto", help="of the input; recognised by its content by default")


def output_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that name a file to write."""
    parser.add_argument("output", type=Path, help="the file to write")
    overwrite_argument(parser)


def overwrite_argument(parser: argparse.ArgumentParser) -> None:
    """The option that allows to replace a file."""
    parser.add_argument("--overwrite", "--force", action="store_true", help="replace an existing file")


def processes_argument(parser: argparse.ArgumentParser) -> None:
    """The option that sets how much is made at once."""
    parser.add_argument("--processes", type=int, default=1, help="how many processes work at once (%(default)s)")


def one_of(kind: str, known: Iterable[str], aliases: Mapping[str, str] | None = None) -> Callable[[str], str]:
    """A type of argument that takes one of some names, and says which are near to what was given."""
    names = tuple(known)

    def parse(text: str) -> str:
        name = (aliases or {}).get(text, text)
        if name not in names:
            raise argparse.ArgumentTypeError(unknown_name(kind, text, names))
        return name

    return parse


def pieces(source: FileSource) -> Iterator[tuple[NDArray[np.int64], Events]]:
    """Events of a source piece by piece, with their positions and a progress bar."""
    steps = range(0, len(source), _PIECE)
    for start in progress(steps, "reading", len(steps)):
        some = np.arange(start, min(start + _PIECE, len(source)))
        yield some, source[some]


def split_of_rows(reader: Reader) -> NDArray[np.int64] | None:
    """Index of each row's split among the file's splits, or None where it records none."""
    if not reader.splits:
        return None
    index = np.full(reader.rows, -1)
    for k, name in enumerate(reader.splits):
        index[reader.split_rows(name)] = k
    return index


def origin(source: FileSource, verb: str, **options: Any) -> dict[str, Any]:
    """Provenance of what is made from a source."""
    made: dict[str, Any] = {"program": f"data_tools {verb}", "options": options, "from": source.name}
    made["sha256"] = file_hash(source.reader.path)
    inherited = getattr(source.reader, "provenance", None)
    return made | ({"origin": inherited} if inherited else {})


def open_all(name: str, format: str = "auto", *, view: str | None = None, check: bool = True) -> FileSource:
    """A source that carries every condition of its file."""
    return data.open(name, format, view=view, condition="all", check=check)
