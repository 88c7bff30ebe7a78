"""Pieces of a data set as files, and whole files made from them in constant memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from data_tools.chunks import progress
from sparsegen.data import RaggedWriter
from sparsegen.data.files import whole_file
from sparsegen.events import Column, Events
from sparsegen.grid import Grid

__all__ = ["Arrays", "Piece", "join_rows", "load_arrays", "load_piece", "save_arrays", "save_piece", "write_pieces"]

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Piece:
    """Events on their way into a file.

    Args:
        events: The events.
        labels: Class index of each ``(B,)``, where the file has classes.
        split: Split index of each ``(B,)``, where the file has splits.
        dropped: Hits that were left out on the way.
        notes: What else happened on the way.
    """

    events: Events
    labels: NDArray[np.int64] | None = None
    split: NDArray[np.int64] | None = None
    dropped: int = 0
    notes: tuple[str, ...] = ()


def save_piece(path: Path, piece: Piece) -> None:
    """Write a piece, uncompressed.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.npz"
        >>> hits = Events(torch.rand(3, 2), torch.rand(3, 1), torch.tensor([0, 1, 3]), axes="xy", columns=["energy"])
        >>> save_piece(path, Piece(hits, labels=np.array([1, 0])))
        >>> load_piece(path).labels.tolist()
        [1, 0]
    """
    events = piece.events.detach().to("cpu")
    facts = {
        "axes": events.axes,
        "columns": [[c.name, c.unit, c.additive] for c in events.columns],
        "conditions": events.conditions,
        "grid": None if events.grid is None else events.grid.to_dict(),
        "dropped": piece.dropped,
        "notes": piece.notes,
    }
    arrays: Arrays = {name: getattr(events, name).numpy() for name in ("coords", "features", "offsets", "ids")}
    optional = {
        "condition": None if events.condition is None else events.condition.numpy(),
        "labels": piece.labels,
        "split": piece.split,
    }
    arrays |= {name: values for name, values in optional.items() if values is not None}
    save_arrays(path, {"facts": np.array([json.dumps(facts)]), **arrays})


def load_piece(path: Path) -> Piece:
    """Read a piece."""
    arrays = load_arrays([path])
    facts = json.loads(str(arrays["facts"][0]))
    events = Events(
        *(torch.from_numpy(arrays[name]) for name in ("coords", "features", "offsets")),
        axes=facts["axes"],
        columns=[Column(*column) for column in facts["columns"]],
        condition=torch.from_numpy(arrays["condition"]) if "condition" in arrays else None,
        conditions=facts["conditions"],
        grid=None if facts["grid"] is None else Grid.from_dict(facts["grid"]),
        ids=torch.from_numpy(arrays["ids"]),
    )
    return Piece(events, arrays.get("labels"), arrays.get("split"), facts["dropped"], tuple(facts["notes"]))


def save_arrays(path: Path, arrays: Arrays) -> None:
    """Write named arrays."""
    np.savez(path, **arrays)  # type: ignore[arg-type]


def load_arrays(paths: Iterable[Path]) -> Arrays:
    """Named arrays of several files, end to end."""
    parts: list[Arrays] = []
    for path in paths:
        with np.load(path) as stored:
            parts.append({name: stored[name] for name in stored.files})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def write_pieces(output: Path, paths: Sequence[Path], *, overwrite: bool = False, **facts: Any) -> tuple[int, int]:
    """A ragged file of pieces.

    Args:
        output: The file to make.
        paths: The pieces, in order.
        overwrite: Whether an existing file may be replaced.
        **facts: Classes, splits and provenance, as :class:`sparsegen.data.RaggedWriter` takes them.

    Returns:
        How many events were written, and how many hits had been left out on the way.
    """
    events = dropped = 0
    with RaggedWriter(output, overwrite=overwrite, **facts) as writer:
        for path in progress(paths, "writing", len(paths)):
            piece = load_piece(path)
            if not len(piece.events):
                continue
            writer.append(piece.events, piece.labels, piece.split)
            events += len(piece.events)
            dropped += piece.dropped
    return events, dropped


def join_rows(
    output: Path,
    paths: Sequence[Path],
    *,
    overwrite: bool = False,
    attributes: dict[str, Any] | None = None,
) -> int:
    """One HDF5 file from files with one row an event: every data set end to end, attributes of the first.

    Chunks that fall on chunks are copied as they are, compressed. Where rows differ in length, as padded jets do, the
    shorter ones are filled with zeros.

    Args:
        output: The file to make.
        paths: The files, in order.
        overwrite: Whether an existing file may be replaced.
        attributes: Further attributes.

    Returns:
        How many rows the first data set has.
    """
    with whole_file(output, overwrite) as part, h5py.File(part, "w") as joined:
        shapes = _shapes(paths)
        with h5py.File(paths[0], "r") as first:
            joined.attrs.update({**first.attrs, **(attributes or {})})
            for key, shape in shapes.items():
                like = first[key]
                chunks = like.chunks and (like.chunks[0], *shape[1:])
                if chunks is not None and shape[1:] == like.shape[1:]:
                    chunks = like.chunks
                names = ("compression", "compression_opts", "shuffle", "fletcher32")
                options = {name: getattr(like, name) for name in names} if chunks else {}
                options |= {"maxshape": (None, *shape[1:])} if chunks else {}
                joined.create_dataset(key, shape, like.dtype, chunks=chunks, **options)
        start = dict.fromkeys(shapes, 0)
        for path in progress(paths, "writing", len(paths)):
            with h5py.File(path, "r") as file:
                for key in shapes:
                    _copy(file[key], joined[key], start[key])
                    start[key] += len(file[key])
    return next(iter(shapes.values()))[0]


def _shapes(paths: Iterable[Path]) -> dict[str, tuple[int, ...]]:
    """Shape of each data set when all are joined."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in paths:
        with h5py.File(path, "r") as file:
            for key, data in file.items():
                known = shapes.get(key, (0, *data.shape[1:]))
                shapes[key] = (known[0] + len(data), *map(max, known[1:], data.shape[1:]))
    return shapes


def _copy(source: h5py.Dataset, target: h5py.Dataset, start: int) -> None:
    if source.chunks and source.chunks == target.chunks and start % source.chunks[0] == 0:
        for index in range(source.id.get_num_chunks()):
            offset = source.id.get_chunk_info(index).chunk_offset
            mask, raw = source.id.read_direct_chunk(offset)
            target.id.write_direct_chunk((start + offset[0], *offset[1:]), raw, mask)
        return
    values = source[()]
    inner = tuple(slice(0, n) for n in values.shape[1:])
    target[(slice(start, start + len(values)), *inner)] = values
