"""``convert``, ``voxelize``, ``image``: the same events in another format, or on a lattice."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

import sparsegen.data as data
from data_tools.transfer import Look, Part, Result, transfer
from data_tools.verb import (
    Verb,
    one_of,
    open_all,
    origin,
    output_arguments,
    processes_argument,
    source_arguments,
    split_of_rows,
)
from sparsegen.data import FileSource
from sparsegen.errors import ConfigError
from sparsegen.grid import Grid

__all__ = ["CONVERT", "IMAGE", "VOXELIZE"]

_WRITABLE = [name for name in data.formats if data.formats[name].write is not None]


def _kept_split(source: FileSource) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    """Split of each event and the splits' names, where the source holds more than one split of its file."""
    split = split_of_rows(source.reader)
    if split is None:
        return None, ()
    split = split[source.rows]
    # One split of a file, or a file with rows that belong to none, has no split to record
    kept = bool((split >= 0).all()) and len(np.unique(split)) > 1
    return (split, source.reader.splits) if kept else (None, ())


def _transfer(source: FileSource, look: Look, options: argparse.Namespace, to: str, verb: str, **facts: Any) -> Result:
    split, splits = _kept_split(source)
    result = transfer(
        options.output,
        [Part(look, split=split)],
        {"verb": verb, **facts},
        to=to,
        splits=splits,
        provenance=origin(source, verb, **facts),
        overwrite=options.overwrite,
        processes=options.processes,
    )
    if result.lost:
        print(f"{options.output}: {to} has no place for {', '.join(result.lost)}; they are not kept", file=sys.stderr)
    return result


def _writable(text: str) -> str:
    """A format that can be written, of which others are told apart from those that do not exist."""
    if text in data.formats and text not in _WRITABLE:
        raise argparse.ArgumentTypeError(f"format {text!r} is read only; choose one of {', '.join(_WRITABLE)}")
    return one_of("format to write", _WRITABLE)(text)


def _convert_arguments(parser: argparse.ArgumentParser) -> None:
    source_arguments(parser)
    output_arguments(parser)
    processes_argument(parser)
    parser.add_argument(
        "--to",
        default="ragged",
        type=_writable,
        metavar="FORMAT",
        help=f"format to write (%(default)s): {', '.join(_WRITABLE)}",
    )
    parser.add_argument(
        "--view",
        type=one_of("view", data.VIEWS),
        metavar="VIEW",
        help=f"look at the events so: {', '.join(data.VIEWS)}",
    )


def _convert(options: argparse.Namespace) -> int:
    source = open_all(options.input, options.format, view=options.view)
    look = Look(options.input, options.format, options.view)
    result = _transfer(source, look, options, options.to, "convert", view=options.view)
    print(f"{options.output}: {result.events:,} events as {options.to}")
    return 0


def _grid_arguments(parser: argparse.ArgumentParser) -> None:
    source_arguments(parser)
    output_arguments(parser)
    processes_argument(parser)
    parser.add_argument("--shape", type=int, nargs="+", help="cells along each axis; the file's lattice by default")
    parser.add_argument("--low", type=float, nargs="+", help="lowest edge of each axis; the file's lattice by default")
    parser.add_argument("--high", type=float, nargs="+", help="highest edge of each axis")
    parser.add_argument("--periodic", nargs="*", default=[], metavar="AXIS", help="axes that wrap")
    parser.add_argument(
        "--outside",
        choices=("error", "drop", "clip"),
        default="error",
        help="hits beyond the lattice: an error, left out and counted, or moved to the nearest cell (%(default)s)",
    )


def _grid(source: FileSource, options: argparse.Namespace) -> Grid:
    known = source.reader.grid
    if (options.low is None) != (options.high is None):
        raise ConfigError("--low and --high go together; give both or neither")
    if options.low is None and known is None:
        raise ConfigError(f"{source.name}: has no lattice to take the range from; give --low and --high")
    if options.shape is None:
        if options.low is not None or known is None:
            raise ConfigError(f"{source.name}: a lattice of another range needs --shape")
        return known
    low = known.low if options.low is None and known is not None else options.low
    high = known.high if options.high is None and known is not None else options.high
    units = known.units if known is not None else None
    periodic = options.periodic or (known.periodic if known is not None and options.low is None else ())
    if not len(options.shape) == len(low) == len(high) == len(source.axes):
        raise ConfigError(f"{source.name}: has the axes {', '.join(source.axes)}; give one number an axis")
    return Grid.regular(options.shape, low, high, source.axes, units, periodic)


def _on_lattice(options: argparse.Namespace, to: str, verb: str) -> int:
    source = open_all(options.input, options.format, view="points")
    grid = _grid(source, options)
    look = Look(options.input, options.format, "points").on(grid, options.outside)
    result = _transfer(source, look, options, to, verb, grid=grid.to_dict(), outside=options.outside)
    lost = f"; {result.dropped:,} hits outside were left out" if result.dropped else ""
    print(f"{options.output}: {result.events:,} events on {grid}{lost}")
    return 0


def _voxelize(options: argparse.Namespace) -> int:
    return _on_lattice(options, "ragged", "voxelize")


def _image(options: argparse.Namespace) -> int:
    return _on_lattice(options, "dense", "image")


CONVERT = Verb("the same events in another format", _convert_arguments, _convert)
VOXELIZE = Verb("points to sparse cells of a lattice", _grid_arguments, _voxelize)
IMAGE = Verb("events to dense images", _grid_arguments, _image)
