"""``convert``, ``voxelize``, ``image``: the same events in another format, or on a lattice."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch

import sparsegen.data as data
from data_tools.verb import Verb, open_all, origin, output_arguments, pieces, source_arguments, split_of_rows
from sparsegen.data import FileSource, RaggedWriter
from sparsegen.errors import ConfigError
from sparsegen.events import Events
from sparsegen.grid import Grid

__all__ = ["CONVERT", "IMAGE", "VOXELIZE", "save", "transfer"]


def save(events: Events, options: argparse.Namespace, format: str) -> None:
    """Write events in a format that is not our own."""
    data.write(events, options.output, format, overwrite=options.overwrite)


def transfer(
    source: FileSource, options: argparse.Namespace, provenance: dict[str, Any], grid: Grid | None = None
) -> int:
    """Write a source as a ragged file, piece by piece, labels and splits included.

    Args:
        source: What to read; one split of it, or all rows.
        options: Holds ``output``, ``overwrite`` and, with a grid, ``outside``.
        provenance: Recorded in the file.
        grid: The lattice to voxelize on; as it is by default.

    Returns:
        How many hits fell outside the grid.
    """
    labels = source.labels
    split = split_of_rows(source.reader)
    if split is not None:
        split = split[source.rows]
        # One split of a file, or a file with rows that belong to none, has no split to record
        split = split if (split >= 0).all() and len(np.unique(split)) > 1 else None
    dropped = 0
    with RaggedWriter(
        options.output,
        overwrite=options.overwrite,
        classes=source.classes,
        splits=source.reader.splits if split is not None else (),
        provenance=provenance,
    ) as writer:
        for positions, events in pieces(source, "events, in 4,096s"):
            if grid is not None:
                events, outside = events.voxelize(grid, outside=options.outside)
                dropped += int(outside.sum())
            writer.append(
                events,
                None if labels is None else labels[torch.from_numpy(positions)].numpy(),
                None if split is None else split[positions],
            )
    return dropped


def _convert_arguments(parser: argparse.ArgumentParser) -> None:
    source_arguments(parser)
    output_arguments(parser)
    writable = [name for name in data.formats if data.formats[name].write is not None]
    parser.add_argument("--to", default="ragged", choices=writable, help="format to write (%(default)s)")
    parser.add_argument("--view", choices=data.VIEWS, help="look at the events so first")


def _convert(options: argparse.Namespace) -> int:
    source = open_all(options.input, options.format, view=options.view)
    if options.to == "ragged":
        transfer(source, options, origin(source, "convert", view=options.view))
    else:
        save(source[:], options, options.to)
    print(f"{options.output}: {len(source):,} events as {options.to}")
    return 0


def _grid_arguments(parser: argparse.ArgumentParser) -> None:
    source_arguments(parser)
    output_arguments(parser)
    parser.add_argument("--shape", type=int, nargs="+", required=True, help="cells along each axis")
    parser.add_argument("--low", type=float, nargs="+", help="lowest edge of each axis; the file's lattice by default")
    parser.add_argument("--high", type=float, nargs="+", help="highest edge of each axis")
    parser.add_argument("--periodic", nargs="*", default=[], metavar="AXIS", help="axes that wrap")
    parser.add_argument(
        "--outside", choices=("error", "drop", "clip"), default="error", help="hits beyond the lattice (%(default)s)"
    )


def _grid(source: FileSource, options: argparse.Namespace) -> Grid:
    known = source.reader.grid
    if (options.low is None) != (options.high is None):
        raise ConfigError("--low and --high go together; give both or neither")
    if options.low is None and known is None:
        raise ConfigError(f"{source.name}: has no lattice to take the range from; give --low and --high")
    low = known.low if options.low is None and known is not None else options.low
    high = known.high if options.high is None and known is not None else options.high
    units = known.units if known is not None else None
    periodic = options.periodic or (known.periodic if known is not None and options.low is None else ())
    if not len(options.shape) == len(low) == len(high) == len(source.axes):
        raise ConfigError(f"{source.name}: has the axes {', '.join(source.axes)}; give one number an axis")
    return Grid.regular(options.shape, low, high, source.axes, units, periodic)


def _report(options: argparse.Namespace, events: int, grid: Grid, dropped: int) -> None:
    lost = f"; {dropped:,} hits outside were left out" if dropped else ""
    print(f"{options.output}: {events:,} events on {grid}{lost}")


def _voxelize(options: argparse.Namespace) -> int:
    source = open_all(options.input, options.format, view="points")
    grid = _grid(source, options)
    made = origin(source, "voxelize", shape=options.shape, low=grid.low, high=grid.high, outside=options.outside)
    _report(options, len(source), grid, transfer(source, options, made, grid))
    return 0


def _image(options: argparse.Namespace) -> int:
    source = open_all(options.input, options.format, view="points")
    grid = _grid(source, options)
    cells, dropped = source[:].voxelize(grid, outside=options.outside)
    save(cells, options, "dense")
    _report(options, len(source), grid, int(dropped.sum()))
    return 0


CONVERT = Verb("the same events in another format", _convert_arguments, _convert)
VOXELIZE = Verb("points to sparse cells of a lattice", _grid_arguments, _voxelize)
IMAGE = Verb("events to dense images", _grid_arguments, _image)
