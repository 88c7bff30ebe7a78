"""``check``: what is wrong with a file, row by row."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sparsegen.data as data
from data_tools.chunks import progress
from data_tools.verb import Verb, split_of_rows
from sparsegen.data import EMBEDDED, Finding, Reader
from sparsegen.data.check import event_findings
from sparsegen.data.formats import recognise
from sparsegen.errors import ConfigError, DataError
from sparsegen.events import Events

__all__ = ["CHECK", "examine", "open_reader", "readable"]

_SCALE = (1e-2, 10.0)
Seen = dict[bytes, tuple[str, int]]


def open_reader(name: str, format: str = "auto") -> Reader:
    """The reader of a file or an embedded set, its events unchecked."""
    path = EMBEDDED.get(name, Path(name))
    whole, colon, _ = name.rpartition(":")
    if colon and not path.exists() and (whole in EMBEDDED or Path(whole).exists()):
        raise ConfigError(f"{name}: is one split; check reads whole files, and compares their splits: give {whole}")
    return (recognise(path) if format == "auto" else data.formats[format]).reader(path)


def examine(name: str, format: str = "auto", seen: Seen | None = None) -> Iterator[Finding]:
    """Everything that is wrong with a file, and remarks on what looks odd.

    Schema, types, checksums, values that are not finite, negative amounts, masks against padding; then duplicates
    inside and across splits, events without hits, and the scale of the energy. Never changes the file.

    Args:
        name: The file, or an embedded set.
        format: Its format; recognised by default.
        seen: Events of files examined before, to find those that are in several; this file's are added.

    Yields:
        Findings; ``error`` tells faults from remarks.
    """
    try:
        reader = open_reader(name, format)
    except DataError as error:
        message, _, remedy = str(error).removeprefix(f"{name}: ").rpartition("; ")
        yield Finding(name, "file", -1, message or remedy, remedy if message else "copy or make the file again")
        return
    file = str(reader.path)
    if not reader.rows:
        yield Finding(file, "file", -1, "holds no events", "a data set needs at least one")
        return
    try:
        yield from reader.findings()
    except DataError as error:
        yield Finding(file, "file", -1, str(error).removeprefix(f"{file}: "), "copy or make the file again")
    yield from _examine_events(reader, file, {} if seen is None else seen)


def _examine_events(reader: Reader, file: str, seen: Seen) -> Iterator[Finding]:
    split = split_of_rows(reader)
    if split is not None:
        for row in np.flatnonzero(split < 0):
            yield Finding(file, "split", int(row), "belongs to no split", "split the file again", error=False)
    empty: list[int] = []
    ratios: list[torch.Tensor] = []
    steps = range(0, reader.rows, reader.block)
    blocks = progress(steps, "checking", len(steps))
    for start, _, events in (run for first in blocks for run in readable(reader, file, first)):
        if isinstance(events, Finding):
            yield events
            continue
        yield from event_findings(file, events, start)
        yield from _duplicates(file, events, start, split, seen)
        empty += (start + (events.counts == 0).nonzero()[:, 0]).tolist()
        if "incident_energy" in events.conditions and events.condition is not None:
            incident = events.condition[:, events.conditions.index("incident_energy")]
            ratios.append(events.total("energy")[incident > 0] / incident[incident > 0])
    if empty:
        remedy = f"{len(empty)} of {reader.rows} are; leave them out where a model needs hits"
        yield Finding(file, "hits", empty[0], "has no hits", remedy, error=len(empty) == reader.rows)
    if ratios:
        ratio = float(torch.cat(ratios).median())
        if not _SCALE[0] <= ratio <= _SCALE[1]:
            message = f"deposits are {ratio:.3g} of the incident energy in the median"
            yield Finding(file, "energy", -1, message, "see whether one is in GeV and the other in MeV", error=False)


def readable(reader: Reader, file: str, start: int) -> Iterator[tuple[int, int, Events | Finding]]:
    """Runs of rows ``(first, stop)`` of the block from ``start`` on that can be read, and what is wrong with others."""
    unread: list[int] = []
    for first, events in _halve(reader, start, min(start + reader.block, reader.rows)):
        if events is None:
            unread.append(first)
        else:
            yield first, first + len(events), events
    for run in np.split(unread, np.flatnonzero(np.diff(unread) > 1) + 1) if unread else ():
        first, stop = int(run[0]), int(run[-1]) + 1
        try:
            reader.read([(first, stop)])
        except DataError as error:
            single = stop - first == 1
            message = str(error).removeprefix(f"{file}: ")
            message = message if single else f"rows {first} to {stop}: {message}"
            remedy = "repair keeps the rows around"
            yield first, stop, Finding(file, "file", first if single else -1, message, remedy)


def _halve(reader: Reader, start: int, stop: int) -> Iterator[tuple[int, Events | None]]:
    """Runs of rows that can be read, found by halving, and single rows that cannot as None."""
    try:
        events: Events | None = reader.read([(start, stop)])
    except DataError:
        if stop - start > 1:
            middle = (start + stop) // 2
            yield from _halve(reader, start, middle)
            yield from _halve(reader, middle, stop)
            return
        events = None
    yield start, events


def _duplicates(
    file: str, events: Events, start: int, split: np.ndarray[Any, Any] | None, seen: Seen
) -> Iterator[Finding]:
    coords, features = events.coords.numpy(), events.features.numpy()
    offsets = events.offsets.tolist()
    for event in range(len(events)):
        hits = slice(offsets[event], offsets[event + 1])
        if hits.start == hits.stop:
            continue
        digest = hashlib.blake2b(coords[hits].tobytes() + features[hits].tobytes(), digest_size=16).digest()
        row = start + event
        where, other = seen.setdefault(digest, (file, row))
        if where != file:
            remedy = "repair either file with --drop-duplicates-of the other"
            yield Finding(file, "event", row, f"repeats row {other} of {where}", remedy)
        elif other != row:
            across = split is not None and split[other] != split[row]
            place = "" if split is None else " of another split" if across else " of the same split"
            remedy = "repair leaves it out" if across else "repair --drop-duplicates leaves it out"
            yield Finding(file, "event", row, f"repeats row {other}{place}", remedy, error=across)


def _check_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", help="files or embedded sets; events that several hold are faults")
    parser.add_argument("--format", default="auto", help="of the inputs; recognised by their content by default")
    parser.add_argument(
        "--json", action="store_true", help="one JSON object a finding and line; none where all is well"
    )


def _check(options: argparse.Namespace) -> int:
    total = 0
    seen: Seen = {}
    for name in options.inputs:
        faults = remarks = 0
        for finding in examine(name, options.format, seen):
            faults += finding.error
            remarks += not finding.error
            if options.json:
                print(json.dumps(dataclasses.asdict(finding)))
            else:
                print(f"{'error' if finding.error else 'remark'}: {finding}")
        if not options.json:
            print(f"{name}: {faults} faults, {remarks} remarks")
        total += faults
    return 1 if total else 0


CHECK = Verb("everything that is wrong with a file; exit code 1 where something is", _check_arguments, _check)
