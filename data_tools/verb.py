"""What a verb of the command line is, and what verbs share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

import sparsegen.data as data
from sparsegen.data import FileSource, Reader
from sparsegen.data.files import file_hash
from sparsegen.events import Events

__all__ = ["Verb", "origin", "output_arguments", "pieces", "source_arguments", "split_of_rows"]

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
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")


def pieces(
    source: FileSource, what: str, rows: NDArray[np.int64] | None = None
) -> Iterator[tuple[NDArray[np.int64], Events]]:
    """Events of a source, or of some positions of it, piece by piece with their positions and a progress bar."""
    positions = np.arange(len(source)) if rows is None else rows
    console = Console(file=sys.stderr)
    steps = range(0, len(positions), _PIECE)
    for start in track(steps, what, console=console, disable=not console.is_terminal):
        some = positions[start : start + _PIECE]
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
