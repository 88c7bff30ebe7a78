"""What a file format offers: facts about the events, and runs of them as ``Events``."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparsegen.data.chunks import CACHE_BYTES, ChunkedData
from sparsegen.errors import DataError, MissingExtraError
from sparsegen.events import Column, Events
from sparsegen.grid import Grid

__all__ = ["Finding", "HDF5Reader", "Reader", "hdf5_keys", "padded_to_events", "require"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a file or with one of its events.

    Args:
        file: The file.
        key: What holds the fault: a column, an axis or a data set; ``file`` where it is the file's own.
        row: The event's row in the file; -1 where the fault is not one row's.
        message: What is wrong.
        remedy: What to do.
        error: Whether the file cannot be used as it is; else a remark.
    """

    file: str
    key: str
    row: int
    message: str
    remedy: str = "drop or mend the row with `sparsegen data repair`"
    error: bool = True

    def __str__(self) -> str:
        where = f"{self.key} of row {self.row} " if self.row >= 0 else "" if self.key == "file" else f"{self.key} "
        return f"{self.file}: {where}{self.message}; {self.remedy}"


class Reader(ABC):
    """One open file of one format.

    Instances are cheap, hold no open handle across processes and can be pickled.

    Attributes:
        path: The file.
        rows: How many events it holds.
        axes: Names of the coordinates.
        columns: The features of a hit.
        grid: The lattice of cells, or the default lattice of points; None where the format implies none.
        conditions: Names of the per-event columns.
        classes: Names of the classes that labels count; empty without labels.
        splits: Names of the splits that the file records.
        is_cells: Whether the file holds cells rather than positions.
        block: Events that are cheapest read together.
        event_bytes: Memory of a typical event, to size read windows.
    """

    path: Path
    rows: int
    axes: tuple[str, ...]
    columns: tuple[Column, ...]
    grid: Grid | None = None
    conditions: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    is_cells: bool = False
    block: int = 1024
    event_bytes: int = 1024

    @abstractmethod
    def read(self, runs: Sequence[tuple[int, int]], take: NDArray[np.int64] | None = None) -> Events:
        """Events of some runs of rows, one after the other.

        Args:
            runs: ``(start, stop)`` rows.
            take: Positions in the joined runs to return, in this order; all of them by default.

        Returns:
            The events with every condition of the file and their row numbers as ids, unless the file has its own.
        """

    def labels(self) -> NDArray[np.int64] | None:
        """Class index of every event ``(rows,)``, or None."""
        return None

    def split_rows(self, name: str) -> NDArray[np.int64]:
        """Rows of one of ``splits``, rising."""
        raise DataError(f"{self.path}: records no splits; make some with `sparsegen data split`")

    def findings(self) -> Iterator[Finding]:
        """What is wrong with the file beyond what its events show."""
        yield from ()


class HDF5Reader(Reader):
    """A reader over HDF5 that opens its file lazily, once a process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: h5py.File | None = None
        self._datasets: dict[str, ChunkedData] = {}
        self._process = 0

    @property
    def file(self) -> h5py.File:
        """The open file of this process."""
        if self._file is None or self._process != os.getpid():
            try:
                self._file, self._datasets = h5py.File(self.path, "r", rdcc_nbytes=CACHE_BYTES), {}
            except OSError as error:
                raise unreadable_hdf5(self.path, error) from None
            self._process = os.getpid()
        return self._file

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None, "_datasets": {}, "_process": 0}

    def fact(self, name: str) -> Any:
        """An attribute of the file, JSON; None where it has none."""
        try:
            return json.loads(self.file.attrs.get(name, "null"))
        except (TypeError, ValueError) as error:
            raise DataError(f"{self.path}: attribute {name} is damaged ({error}); make the file again") from None

    def dataset(self, key: str) -> h5py.Dataset:
        """A dataset that must exist."""
        return self._chunked(key).data

    def _chunked(self, key: str) -> ChunkedData:
        file = self.file
        if key in self._datasets:
            return self._datasets[key]
        found = file.get(key)
        if not isinstance(found, h5py.Dataset):
            raise DataError(f"{self.path}: key {key!r} is missing; it has {', '.join(sorted(self.file)) or 'no keys'}")
        _need_filters(self.path, key, found)
        self._datasets[key] = ChunkedData(found)
        return self._datasets[key]

    def array(self, key: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Rows ``start:stop`` of a dataset; a damaged chunk names its file, key and rows."""
        start, stop, _ = slice(start, stop).indices(len(self.dataset(key)))
        values = self._rows(key, start, stop)
        return values if values.flags.writeable else values.copy()

    def _rows(self, key: str, start: int, stop: int) -> NDArray[Any]:
        """Rows of a dataset, which may not be writable."""
        try:
            return self._chunked(key).block(((start, stop),))
        except OSError as error:
            raise self._damaged(key, start, stop, error) from None

    def pieces_of(self, key: str, start: int, stop: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """Rows ``start:stop`` of a table, some columns at a time; see :meth:`ChunkedData.column_pieces`."""
        try:
            yield from self._chunked(key).column_pieces(start, stop)
        except OSError as error:
            raise self._damaged(key, start, stop, error) from None

    def _damaged(self, key: str, start: int, stop: int, error: OSError) -> DataError:
        reason = " ".join(str(error).split())
        return DataError(
            f"{self.path}: {key} rows {start} to {stop} are damaged ({reason}); copy or make the file again"
        )

    def joined(self, key: str, runs: Sequence[tuple[int, int]], take: NDArray[np.int64] | None) -> NDArray[Any]:
        """Some rows of a dataset with one row an event, as :meth:`Reader.read` means them."""
        data, covered = self.dataset(key), sum(stop - start for start, stop in runs)
        if take is None:
            take = np.arange(covered)
        joined = np.empty((len(take), *data.shape[1:]), dtype=data.dtype)
        # Each run goes to its place at once, so that no second copy of them all is held
        place = np.full(covered, -1)
        place[take] = np.arange(len(take))
        at = 0
        for start, stop in runs:
            values, to = self._rows(key, start, stop), place[at : at + stop - start]
            wanted = slice(None) if (to >= 0).all() else to >= 0
            joined[to[wanted]] = values[wanted]
            at += stop - start
        # Rows that are wanted more than once
        again = np.flatnonzero(place[take] != np.arange(len(take)))
        joined[again] = joined[place[take[again]]]
        return joined


def _need_filters(path: Path, key: str, data: h5py.Dataset) -> None:
    """Raises where a dataset is compressed by a filter (blosc, say) that HDF5 lacks here and no plugin brings."""
    pipeline = data.id.get_create_plist()
    for number in range(pipeline.get_nfilters()):
        code, _, _, name = pipeline.get_filter(number)
        if h5py.h5z.filter_avail(code):
            continue
        try:
            import hdf5plugin  # noqa: F401
        except ImportError:
            what = f"{name.decode(errors='replace') or 'a filter'} ({code})"
            raise MissingExtraError("hdf5plugin", "filters", f"{path}: key {key!r} is stored with {what}; it") from None


def unreadable_hdf5(path: Path, error: OSError) -> DataError:
    """What to say of a path that HDF5 cannot open."""
    if path.is_dir():
        return DataError(f"{path}: is a folder; expected an HDF5 file")
    reason = " ".join(str(error).split())
    return DataError(f"{path}: not a readable HDF5 file ({reason}); copy or make it again")


def label_findings(path: Path, key: str, labels: NDArray[np.int64] | None, classes: Sequence[str]) -> Iterator[Finding]:
    """Labels that count no class."""
    if labels is not None:
        for row in np.flatnonzero((labels < 0) | (labels >= len(classes))):
            yield Finding(str(path), key, int(row), f"is {labels[row]}, but there are {len(classes)} classes")


def hdf5_keys(path: Path) -> set[str]:
    """Keys of an HDF5 file; none where the path is no HDF5 file."""
    if not path.is_file() or not h5py.is_hdf5(path):
        return set()
    with h5py.File(path, "r") as file:
        return set(file)


def require(path: Path, key: str, data: h5py.Dataset, shape: Sequence[int | None], kind: str) -> None:
    """Raises unless a dataset has this shape (None: any length) and type (``f``: floating, ``i``: integer)."""
    fits = len(data.shape) == len(shape) and all(b is None or a == b for a, b in zip(data.shape, shape, strict=True))
    if not fits:
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise DataError(f"{path}: key {key!r} has shape {data.shape}; expected ({wanted}): copy or make it again")
    kinds = {"f": "f", "i": "iub", "n": "fiub"}[kind]
    if data.dtype.kind not in kinds:
        wanted = {"f": "a floating type", "i": "an integer type", "n": "a number"}[kind]
        raise DataError(f"{path}: key {key!r} has type {data.dtype}; expected {wanted}: convert the column")


def rows_of(runs: Sequence[tuple[int, int]], take: NDArray[np.int64] | None) -> Tensor:
    """Row numbers ``(B,)`` of joined runs."""
    rows = np.concatenate([np.arange(start, stop) for start, stop in runs])
    return torch.from_numpy(rows if take is None else rows[take])


def padded_to_events(
    values: NDArray[Any],
    mask: NDArray[np.bool_],
    coords: slice,
    features: slice,
    **fields: Any,
) -> Events:
    """Events from a padded block.

    Args:
        values: ``(B, M, F)``.
        mask: ``(B, M)``, True where a hit is real.
        coords: Which of the F are coordinates.
        features: Which of the F are features.
        **fields: Axes, columns and the like, as ``Events`` takes them.
    """
    counts = mask.sum(1, dtype=np.int64)
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    # Taking rows by index is twice as fast as by a boolean mask
    hits = values.reshape(-1, values.shape[-1]).take(np.flatnonzero(mask), axis=0).astype(np.float32, copy=False)
    return Events(
        torch.from_numpy(np.ascontiguousarray(hits[:, coords])),
        torch.from_numpy(np.ascontiguousarray(hits[:, features])),
        torch.from_numpy(offsets),
        **fields,
    )
