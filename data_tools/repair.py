"""``repair``: a new file without the faults of another, and a log of every change."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_tools.check import Seen, examine, open_reader, readable
from data_tools.chunks import Chunk, in_chunks, refuse_existing
from data_tools.pieces import Piece, load_piece, save_piece, write_pieces
from data_tools.verb import Verb, open_all, output_arguments, source_arguments, split_of_rows
from sparsegen.data import FileSource
from sparsegen.data.files import file_hash, whole_file
from sparsegen.errors import ConfigError, DataError
from sparsegen.events import Events

__all__ = ["REPAIR"]

_PIECE = 4096
_FAULTS = "000000.json"
_SPARED = ("checksum", "damaged")
"""Words of faults of a whole file that leave its sound rows readable."""


def _arguments(parser: argparse.ArgumentParser) -> None:
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


def _save_faults(path: Path, name: str, format: str, others: Sequence[str], duplicates: bool) -> None:
    """Rows with a fault: the key that holds the first of each, and what it is."""
    bad: dict[int, tuple[str, str]] = {}
    seen: Seen = {}
    for other in others:
        for _ in examine(other, seen=seen):
            pass
    for finding in examine(name, format, seen):
        if finding.row < 0 and finding.error and not any(word in finding.message for word in _SPARED):
            raise DataError(f"{finding}: this cannot be repaired")
        if finding.row >= 0 and (finding.error or (duplicates and finding.key == "event")):
            bad.setdefault(finding.row, (finding.key, str(finding)))
    path.write_text(json.dumps(list(bad.items())))


def _save_sound(path: Path, name: str, format: str, starts: Sequence[int], keep_events: bool) -> None:
    """The sound events of some blocks of rows, with the log of what was left out as notes."""
    source = open_all(name, format, check=False)
    bad: dict[int, tuple[str, str]] = dict(json.loads(path.with_name(_FAULTS).read_text()))
    labels, split = source.labels, _whole_split(source)
    hit_faults = {*source.axes, *(column.name for column in source.columns)}
    parts, rows = [_no_events(source)], np.zeros(0, dtype=np.int64)
    log: list[dict[str, Any]] = []
    for first, stop, events in (run for start in starts for run in readable(source.reader, source.name, start)):
        if not isinstance(events, Events):
            log.append({"rows": [first, stop - 1], "change": "left out", "reason": str(events)})
            continue
        if keep_events:
            events, changes = _without_bad_hits(events, first)
            log += changes
        lost = [r for r in range(first, stop) if r in bad and not (keep_events and bad[r][0] in hit_faults)]
        log += [{"row": row, "change": "left out", "reason": bad[row][1]} for row in lost]
        kept = np.setdiff1d(np.arange(first, stop), lost)
        parts.append(events[torch.from_numpy(kept - first)])
        rows = np.concatenate([rows, kept])
    kept_labels = None if labels is None else labels.numpy()[rows]
    kept_split = None if split is None else split[rows]
    save_piece(path, Piece(Events.cat(parts), kept_labels, kept_split, notes=tuple(map(json.dumps, log))))


def _no_events(source: FileSource) -> Events:
    """An empty batch of a source's kind, where not even one can be read."""
    return Events(
        torch.zeros(0, len(source.axes), dtype=torch.int64 if source.reader.is_cells else torch.float32),
        torch.zeros(0, len(source.columns)),
        torch.zeros(1, dtype=torch.int64),
        axes=source.axes,
        columns=source.columns,
        condition=torch.zeros(0, len(source.conditions)) if source.conditions else None,
        conditions=source.conditions,
        grid=source.reader.grid,
    )


def _whole_split(source: FileSource) -> np.ndarray[Any, Any] | None:
    """Index of each row's split, where every row belongs to one."""
    split = split_of_rows(source.reader)
    return None if split is None or (split < 0).any() else split


def _run(options: argparse.Namespace) -> int:
    output: Path = options.output
    others = options.drop_duplicates_of
    refuse_existing(output, options.overwrite)
    try:
        path = open_reader(options.input, options.format).path
        if output.exists() and output.samefile(path):
            raise ConfigError(f"{output}: is the input, which repair leaves as it is; choose another name")
        source = open_all(options.input, options.format, check=False)
    except DataError as error:
        raise DataError(f"{error}: this cannot be repaired") from None
    looked = (options.input, options.format)
    blocks = range(0, source.reader.rows, source.reader.block)
    each = max(1, _PIECE // source.reader.block)
    chunks = [Chunk(_FAULTS, _save_faults, (*looked, others, options.drop_duplicates))]
    for k, start in enumerate(range(0, len(blocks), each), 1):
        arguments = (*looked, blocks[start : start + each], options.keep_events)
        chunks.append(Chunk(f"{k:06d}.npz", _save_sound, arguments))
    file = file_hash(path)
    note = Path(f"{output}.log.json")

    def assemble(paths: list[Path]) -> tuple[int, int]:
        changes = [json.loads(change) for path in paths[1:] for change in load_piece(path).notes]
        with whole_file(note, overwrite=True) as part:
            part.write_text(json.dumps(changes, indent=1))
        kept, _ = write_pieces(
            output,
            paths[1:],
            overwrite=options.overwrite,
            classes=source.classes,
            splits=source.reader.splits if _whole_split(source) is not None else (),
            provenance={"program": "data_tools repair", "from": source.name, "sha256": file},
        )
        return kept, len(changes)

    call = {"verb": "repair", "format": options.format, "file": file, "keep_events": options.keep_events}
    call |= {"drop_duplicates": options.drop_duplicates}
    call |= {"others": [file_hash(open_reader(other).path) for other in others]}
    kept, changes = in_chunks(output, call, chunks, assemble, what="pieces", overwrite=options.overwrite)
    print(f"{output}: {kept:,} of {source.reader.rows:,} events, {changes} changes listed in {note}")
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


REPAIR = Verb("a new file without the faults, and a log of every change", _arguments, _run)
