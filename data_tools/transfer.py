"""Events from files into a new file, piece by piece: what ``convert``, ``voxelize``, ``split`` and their like share."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

import sparsegen.data as data
from data_tools.chunks import Chunk, in_chunks
from data_tools.pieces import Piece, join_rows, load_piece, save_piece, write_pieces
from data_tools.verb import open_all
from sparsegen.data import EventsSource, FileSource, formats
from sparsegen.data.api import not_kept
from sparsegen.data.files import file_hash
from sparsegen.errors import DataError
from sparsegen.events import Events
from sparsegen.grid import Grid

__all__ = ["Look", "Part", "Result", "transfer"]

_PIECE = 4096
_PIECE_BYTES = 64 * 2**20
_DROPPED = "dropped_hits"


@dataclass(frozen=True)
class Look:
    """A source, and how its events are looked at.

    Args:
        name: The file, ``FILE:SPLIT`` or an embedded set.
        format: Its format; recognised by default.
        view: ``points``, ``cells`` or ``image``; as it is by default.
        grid: A lattice to voxelize on, as :meth:`sparsegen.grid.Grid.to_dict` gives it.
        outside: What becomes of hits beyond that lattice: ``error``, ``drop`` or ``clip``.
        label: The class of all its events, where the file names none.
    """

    name: str
    format: str = "auto"
    view: str | None = None
    grid: str | None = None
    outside: str = "error"
    label: int | None = None

    def on(self, grid: Grid, outside: str) -> Look:
        """The same source on a lattice."""
        return replace(self, grid=json.dumps(grid.to_dict()), outside=outside)


@dataclass(frozen=True)
class Part:
    """Some positions of a source.

    Args:
        look: The source.
        positions: Which of its events, in this order; all by default.
        split: Split index of each.
        first_id: Ids count from here; those of the source by default.
    """

    look: Look
    positions: NDArray[np.int64] | None = None
    split: NDArray[np.int64] | None = None
    first_id: int | None = None


@dataclass(frozen=True)
class Result:
    """What a transfer did.

    Args:
        events: How many events were written.
        dropped: Hits that fell outside the lattice.
        lost: What the format could not hold, by name.
    """

    events: int
    dropped: int
    lost: list[str] = field(default_factory=list)


@lru_cache(maxsize=4)
def _open(look: Look) -> tuple[FileSource, NDArray[np.int64] | None]:
    """A source of this process and its labels; the file was checked by whoever asked first."""
    source = open_all(look.name, look.format, view=look.view, check=False)
    if look.label is not None:
        return source, np.full(len(source), look.label)
    labels = source.labels
    return source, None if labels is None else labels.numpy()


def _piece(look: Look, positions: NDArray[np.int64], first_id: int | None) -> Piece:
    source, labels = _open(look)
    events: Events = source[positions]
    dropped = 0
    if look.grid is not None:
        # Points without features are counted
        reduce = "sum" if events.columns else "count"
        events, outside = events.voxelize(Grid.from_dict(json.loads(look.grid)), reduce, look.outside)
        dropped = int(outside.sum())
    if first_id is not None:
        events = events.replace(ids=torch.arange(first_id, first_id + len(events)))
    return Piece(events, None if labels is None else labels[positions], None, dropped)


def _save_ragged(
    path: Path, look: Look, positions: NDArray[np.int64], split: NDArray[np.int64] | None, first_id: int | None
) -> None:
    piece = _piece(look, positions, first_id)
    save_piece(path, Piece(piece.events, piece.labels, split, piece.dropped))


def _save_rows(path: Path, look: Look, positions: NDArray[np.int64], first_id: int | None, to: str) -> None:
    piece = _piece(look, positions, first_id)
    try:
        _write(piece.events, piece.labels, _open(look)[0], path, to)
    except DataError as error:
        # Events count from the piece's first
        place = f"{look.name} from event {positions[0]} on"
        raise DataError(str(error).replace(str(path), place)) from None
    with h5py.File(path, "r+") as file:
        file.attrs[_DROPPED] = piece.dropped


def _write(
    events: Events, labels: NDArray[np.int64] | None, like: FileSource, path: Path, to: str, overwrite: bool = False
) -> None:
    """Events in a format, with labels where it has a place for them."""
    write = formats[to].write
    assert write is not None
    if labels is None or not formats[to].labels:
        write(EventsSource(events, like.name), path, overwrite)
    else:
        write(EventsSource(events, like.name, torch.from_numpy(labels), like.classes), path, overwrite)


def transfer(
    output: Path,
    parts: Sequence[Part],
    call: Mapping[str, Any],
    *,
    to: str = "ragged",
    classes: Sequence[str] | None = None,
    splits: Sequence[str] = (),
    provenance: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    processes: int = 1,
) -> Result:
    """Write events of some sources to a new file, resumable; in constant memory, but for formats written in one piece.

    Args:
        output: The file to make.
        parts: What it holds, in order.
        call: What identifies this call, beyond the sources' contents.
        to: The format to write.
        classes: Names of the classes; those of the first part's file by default.
        splits: Names of the splits that the parts' split indices count.
        provenance: Recorded in sparsegen's own files.
        overwrite: Whether an existing file may be replaced.
        processes: How many pieces are made at once.

    Returns:
        How many events were written and hits dropped, and what the format could not hold.
    """
    # A file may have changed since an earlier call of this process
    _open.cache_clear()
    sources = [_open(part.look) for part in parts]
    first, _ = sources[0]
    rows = to != "ragged" and _try(parts[0], output, to)
    suffix = formats[to].suffixes[0] if rows else ".npz"
    chunks: list[Chunk] = []
    for part, (source, _) in zip(parts, sources, strict=True):
        positions = np.arange(len(source)) if part.positions is None else part.positions
        # A power of two, so that chunks of the output fall on chunks of the pieces
        fits = max(1, _PIECE_BYTES // source.reader.event_bytes)
        size = min(_PIECE, 1 << (fits.bit_length() - 1))
        for start in range(0, len(positions), size):
            some = slice(start, start + size)
            ids = None if part.first_id is None else part.first_id + start
            split = None if part.split is None else part.split[some]
            name = f"{len(chunks):06d}{suffix}"
            if rows:
                chunks.append(Chunk(name, _save_rows, (part.look, positions[some], ids, to)))
            else:
                chunks.append(Chunk(name, _save_ragged, (part.look, positions[some], split, ids)))

    def assemble(paths: list[Path]) -> Result:
        if to == "ragged":
            facts = {
                "classes": first.classes if classes is None else classes,
                "splits": splits,
                "provenance": dict(provenance or {}),
            }
            return Result(*write_pieces(output, paths, overwrite=overwrite, **facts))
        if not rows:
            pieces = [load_piece(path) for path in paths]
            events = Events.cat([piece.events for piece in pieces])
            labels = [piece.labels for piece in pieces if piece.labels is not None]
            _write(events, np.concatenate(labels) if labels else None, first, output, to, overwrite)
            return Result(len(events), sum(piece.dropped for piece in pieces), _lost(first, output))
        dropped = 0
        for path in paths:
            with h5py.File(path, "r") as file:
                dropped += int(file.attrs[_DROPPED])
        attributes = {_DROPPED: dropped, "provenance": json.dumps(provenance or {})}
        made = join_rows(output, paths, overwrite=overwrite, attributes=attributes)
        return Result(made, dropped, _lost(first, output))

    files = [file_hash(source.reader.path) for source, _ in sources]
    chosen = [_digest(part) for part in parts]
    return in_chunks(
        output,
        {**call, "to": to, "looks": [asdict(part.look) for part in parts], "files": files, "chosen": chosen},
        chunks,
        assemble,
        what="events",
        processes=processes,
        overwrite=overwrite,
    )


def _try(part: Part, output: Path, to: str) -> bool:
    """Whether a format's file is data sets with one row an event, which can be joined; others are written in one piece.

    Raises:
        DataError: The format cannot hold what events these are; said before anything is made.
    """
    positions = np.zeros(1, dtype=np.int64) if part.positions is None else part.positions[:1]
    piece = _piece(part.look, positions, part.first_id)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / output.name
        try:
            _write(piece.events, piece.labels, _open(part.look)[0], trial, to)
        except DataError as error:
            raise DataError(str(error).replace(str(trial), str(output))) from None
        if not h5py.is_hdf5(trial):
            return False
        with h5py.File(trial, "r") as file:
            return all(isinstance(item, h5py.Dataset) and len(item) == 1 for item in file.values())


def _digest(part: Part) -> str:
    """Which positions a part holds."""
    digest = hashlib.sha256(str(part.first_id).encode())
    for values in (part.positions, part.split):
        digest.update(b"all" if values is None else values.astype("<i8").tobytes())
    return digest.hexdigest()


def _lost(source: FileSource, output: Path) -> list[str]:
    """What a source tells about its events and a file made from it does not."""
    made = data.open(output, check=False).reader
    return [*not_kept(source, made), *(["splits"] if source.reader.splits and not made.splits else [])]
