"""Events from files into a new file, piece by piece: what ``convert``, ``voxelize``, ``split`` and their like share."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

import sparsegen.data as data
from data_tools.chunks import Chunk, in_chunks
from data_tools.pieces import Piece, join_rows, save_piece, write_pieces
from data_tools.verb import open_all
from sparsegen.data import FileSource, formats
from sparsegen.data.files import file_hash, whole_file
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
    """

    name: str
    format: str = "auto"
    view: str | None = None
    grid: str | None = None
    outside: str = "error"

    def on(self, grid: Grid, outside: str) -> Look:
        """The same source on a lattice."""
        return Look(self.name, self.format, self.view, json.dumps(grid.to_dict()), outside)


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
    data.write(piece.events, path, to)
    if h5py.is_hdf5(path):
        with h5py.File(path, "r+") as file:
            file.attrs[_DROPPED] = piece.dropped


def transfer(
    output: Path,
    parts: Sequence[Part],
    call: Mapping[str, Any],
    *,
    to: str = "ragged",
    splits: Sequence[str] = (),
    provenance: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    processes: int = 1,
) -> Result:
    """Write events of some sources to a new file, resumable, in constant memory.

    Args:
        output: The file to make.
        parts: What it holds, in order; classes are those of the first.
        call: What identifies this call, beyond the sources' contents.
        to: The format to write.
        splits: Names of the splits that the parts' split indices count.
        provenance: Recorded in sparsegen's own files.
        overwrite: Whether an existing file may be replaced.
        processes: How many pieces are made at once.

    Returns:
        How many events were written and hits dropped, and what the format could not hold.
    """
    sources = [_open(part.look) for part in parts]
    first, _ = sources[0]
    suffix = ".npz" if to == "ragged" else formats[to].suffixes[0]
    rows = suffix in (".h5", ".hdf5")
    chunks: list[Chunk] = []
    labels: list[NDArray[np.int64]] = []
    total = 0
    for part, (source, known) in zip(parts, sources, strict=True):
        positions = np.arange(len(source)) if part.positions is None else part.positions
        total += len(positions)
        if known is not None:
            labels.append(known[positions])
        # A power of two, so that chunks of the output fall on chunks of the pieces; other files are made in one piece
        fits = max(1, _PIECE_BYTES // source.reader.event_bytes)
        size = min(_PIECE, 1 << (fits.bit_length() - 1)) if rows or to == "ragged" else len(positions)
        for start in range(0, len(positions), size):
            some = slice(start, start + size)
            ids = None if part.first_id is None else part.first_id + start
            split = None if part.split is None else part.split[some]
            name = f"{len(chunks):06d}{suffix}"
            if to == "ragged":
                chunks.append(Chunk(name, _save_ragged, (part.look, positions[some], split, ids)))
            else:
                chunks.append(Chunk(name, _save_rows, (part.look, positions[some], ids, to)))

    def assemble(paths: list[Path]) -> Result:
        if to == "ragged":
            facts = {"classes": first.classes, "splits": splits, "provenance": dict(provenance or {})}
            return Result(*write_pieces(output, paths, overwrite=overwrite, **facts))
        if not rows:
            with whole_file(output, overwrite) as unfinished:
                shutil.copyfile(paths[0], unfinished)
            return Result(total, 0)
        dropped = 0
        for path in paths:
            with h5py.File(path, "r") as file:
                dropped += int(file.attrs[_DROPPED])
        attributes = {_DROPPED: dropped, "provenance": json.dumps(provenance or {})}
        arrays = {}
        if to == "dense" and labels:
            arrays["labels"] = np.concatenate(labels)
            attributes["classes"] = json.dumps(list(first.classes))
        events = join_rows(output, paths, overwrite=overwrite, attributes=attributes, arrays=arrays)
        return Result(events, dropped, _lost(first, output))

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


def _digest(part: Part) -> str:
    """Which positions a part holds."""
    digest = hashlib.sha256(str(part.first_id).encode())
    for values in (part.positions, part.split):
        digest.update(b"all" if values is None else values.astype("<i8").tobytes())
    return digest.hexdigest()


def _lost(source: FileSource, output: Path) -> list[str]:
    """What a source tells about its events and a file made from it does not."""
    made = data.open(output, check=False).reader
    lost = [name for name in ("classes", "splits") if getattr(source.reader, name) and not getattr(made, name)]
    return lost + [name for name in source.conditions if name not in made.conditions]
