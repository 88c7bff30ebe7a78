"""``check`` and ``repair``: what is wrong with a file, row by row, and a new file without it."""

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
from data_tools.chunks import refuse_existing
from data_tools.verb import Verb, open_all, output_arguments, source_arguments, split_of_rows
from sparsegen.data import EMBEDDED, Finding, RaggedWriter, Reader
from sparsegen.data.check import event_findings
from sparsegen.data.files import file_hash, whole_file
from sparsegen.data.formats import recognise
from sparsegen.errors import ConfigError, DataError
from sparsegen.events import Events

__all__ = ["CHECK", "REPAIR", "examine"]

_SCALE = (1e-2, 10.0)
Seen = dict[bytes, tuple[str, int]]


def _reader(name: str, format: str) -> Reader:
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
        reader = _reader(name, format)
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
    for start, _, events in _readable(reader, file):
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


def _readable(reader: Reader, file: str) -> Iterator[tuple[int, int, Events | Finding]]:
    """Every run of rows ``(first, stop)`` that can be read, and what is wrong with those that cannot."""
    for start in range(0, reader.rows, reader.block):
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


def _repair_arguments(parser: argparse.ArgumentParser) -> None:
    source_arguments(parser)
    output_arguments(parser)
    parser.add_argument(
        "--keep-events",
        action="store_true",
        help="leave out only bad hits, where the fault is a hit's; else whole events",
    )
    parser.add_argument("--drop-duplicates", action="store_true", help="also events that repeat one of the same split")
    parser.add_argument(
        "--drop-duplicates-of", nargs="+", default=[], metavar="FILE", help="also events that these files hold"
    )


def _repair(options: argparse.Namespace) -> int:
    refuse_existing(options.output, options.overwrite)
    if options.output.exists() and options.output.samefile(EMBEDDED.get(options.input, Path(options.input))):
        raise ConfigError(f"{options.output}: is the input, which repair leaves as it is; choose another name")
    log: list[dict[str, Any]] = []
    bad: dict[int, Finding] = {}
    fatal = ("checksum", "damaged")
    seen: Seen = {}
    for other in options.drop_duplicates_of:
        for _ in examine(other, seen=seen):
            pass
    for finding in examine(options.input, options.format, seen):
        if finding.row < 0 and finding.error and not any(word in finding.message for word in fatal):
            raise DataError(f"{finding}: this cannot be repaired")
        duplicate = options.drop_duplicates and finding.key == "event"
        if finding.row >= 0 and (finding.error or duplicate):
            bad.setdefault(finding.row, finding)
    source = open_all(options.input, options.format, check=False)
    kept = 0
    labels, split = source.labels, split_of_rows(source.reader)
    if split is not None and (split < 0).any():
        split = None
    hit_faults = {*source.axes, *(column.name for column in source.columns)}
    with RaggedWriter(
        options.output,
        overwrite=options.overwrite,
        classes=source.classes,
        splits=source.reader.splits if split is not None else (),
        provenance={"program": "data_tools repair", "from": source.name, "sha256": file_hash(source.reader.path)},
    ) as writer:
        for start, stop, events in _readable(source.reader, source.name):
            if isinstance(events, Finding):
                log.append({"rows": [start, stop - 1], "change": "left out", "reason": str(events)})
                continue
            rows = list(range(start, stop))
            if options.keep_events:
                events, changes = _without_bad_hits(events, start)
                log += changes
            else:
                changes = []
            keep = [r for r in rows if r not in bad or (options.keep_events and bad[r].key in hit_faults)]
            lost = sorted(set(rows) - set(keep))
            log += [{"row": row, "change": "left out", "reason": str(bad[row])} for row in lost]
            if not keep:
                continue
            chosen = np.array(keep)
            writer.append(
                events[torch.from_numpy(chosen - start)],
                None if labels is None else labels[torch.from_numpy(chosen)].numpy(),
                None if split is None else split[chosen],
            )
            kept += len(keep)
    note = Path(f"{options.output}.log.json")
    with whole_file(note, overwrite=True) as part:
        part.write_text(json.dumps(log, indent=1))
    print(f"{options.output}: {kept:,} of {source.reader.rows:,} events, {len(log)} changes listed in {note}")
    return 0


def _without_bad_hits(events: Events, start: int) -> tuple[Events, list[dict[str, Any]]]:
    good = events.features.isfinite().all(1)
    if events.coords.is_floating_point():
        good &= events.coords.isfinite().all(1)
    for column in events.columns:
        if column.additive:
            good &= ~(events.column(column.name) < 0)
    hits = (~good).nonzero()[:, 0]
    changes = [
        {
            "row": start + int(events.batch[hit]),
            "change": "hit left out",
            "hit": int(hit - events.offsets[events.batch[hit]]),
            "values": [*events.coords[hit].tolist(), *map(str, events.features[hit].tolist())],
        }
        for hit in hits
    ]
    return events.select_hits(good), changes


CHECK = Verb("everything that is wrong with a file; exit code 1 where something is", _check_arguments, _check)
REPAIR = Verb("a new file without the faults, and a log of every change", _repair_arguments, _repair)
