"""sparsegen's own file: ragged events in HDF5, checksummed, chunked, and known to be complete or not.

Layout: datasets ``coords (N, D)``, ``features (N, C)``, ``offsets (B + 1,)``, ``ids (B,)`` and, where they exist,
``condition (B, K)``, ``labels (B,)`` and ``split (B,)``. The root's attributes say what they mean: ``axes``, ``units``,
``columns``, ``conditions``, ``classes``, ``splits``, ``grid`` and ``provenance`` as JSON, ``rows`` and ``hits`` as
counts, ``checksums`` (SHA-256 of each dataset's bytes) and ``complete``.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from sparsegen.data.files import whole_file
from sparsegen.data.formats import Format, formats
from sparsegen.data.reader import Finding, HDF5Reader, label_findings, require
from sparsegen.data.source import EventsSource
from sparsegen.errors import ConfigError, DataError, unknown_name
from sparsegen.events import Column, Events
from sparsegen.grid import Grid

__all__ = ["RaggedReader", "RaggedWriter", "write_ragged"]

_FORMAT = "sparsegen-ragged"
_VERSION = 1
_CHUNK_HITS = 16384
_CHUNK_ROWS = 4096
_BLOCK_HITS = 65536


class RaggedWriter:
    """Writes events batch by batch; the file appears under its name when it is complete.

    Args:
        path: The file to make.
        overwrite: Whether an existing file may be replaced.
        append: Go on with an existing file, in a copy that takes its place when complete; its classes, splits, grid
            and provenance stay.
        classes: Names of the classes that ``labels`` count.
        splits: Names of the splits that ``split`` counts.
        grid: Overrides the events' own grid.
        provenance: Where the events come from; plain types.

    Raises:
        DataError: The file exists, is damaged where it is appended to, or batches differ in what they hold.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "events.h5"
        >>> hits = Events(torch.rand(3, 2), torch.rand(3, 1), torch.tensor([0, 1, 3]), axes="xy", columns=["energy"])
        >>> with RaggedWriter(path) as writer:
        ...     writer.append(hits)
        ...     writer.append(hits)
        >>> with RaggedWriter(path, append=True) as writer:
        ...     writer.append(hits)
        >>> RaggedReader(path).rows
        6
    """

    def __init__(
        self,
        path: str | Path,
        *,
        overwrite: bool = False,
        append: bool = False,
        classes: Sequence[str] = (),
        splits: Sequence[str] = (),
        grid: Grid | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        self._overwrite = overwrite or append
        self._append = append
        self._classes = tuple(classes)
        self._splits = tuple(splits)
        self._grid = grid
        self._provenance = dict(provenance or {})
        self._stack = ExitStack()
        self._hashes: dict[str, Any] = {}
        self._like: Events | None = None
        self._hits = 0

    def __enter__(self) -> RaggedWriter:
        part = self._stack.enter_context(whole_file(self.path, self._overwrite))
        try:
            if self._append:
                self._go_on(part)
            else:
                self._file = self._stack.enter_context(h5py.File(part, "w"))
            self._file.attrs.update({"format": _FORMAT, "version": _VERSION, "complete": False})
        except BaseException:
            self._stack.__exit__(*sys.exc_info())
            raise
        return self

    def _go_on(self, part: Path) -> None:
        """Starts from a copy of the file as it is, its bytes checked."""
        old = RaggedReader(self.path)
        self._hashes = {key: old.digest(key) for key in old.checksums}
        for key, digest in self._hashes.items():
            if digest.hexdigest() != old.checksums[key]:
                raise DataError(f"{self.path}: {key} does not match its checksum; copy or make the file again")
        shutil.copyfile(self.path, part)
        self._file = self._stack.enter_context(h5py.File(part, "r+"))
        self._classes, self._splits, self._grid = old.classes, old.splits, old.grid
        self._like, self._hits = old.read([(0, 0)]), old.hits
        old.file.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if error is None:
                self._finish()
            else:
                self._stack.__exit__(kind, error, trace)

    def append(
        self, events: Events, labels: NDArray[np.int64] | None = None, split: NDArray[np.int64] | None = None
    ) -> None:
        """Add events, with class indices ``labels (B,)`` and split indices ``split (B,)`` where the file has them."""
        events = events.detach().to("cpu")
        if events.is_cells:
            events = events.coalesce()
        if self._like is None:
            self._start(events)
        self._compare(events)
        given = {"labels": (labels, self._classes), "split": (split, self._splits)}
        for key, (values, names) in given.items():
            if (values is None) == bool(names) or (values is not None and len(values) != len(events)):
                raise DataError(
                    f"{self.path}: {key} for {0 if values is None else len(values)} of {len(events)} events"
                    f" and the names {names}; give both or neither"
                )
        cells = events.is_cells
        self._write("coords", events.coords.numpy().astype(np.int32 if cells else np.float32))
        self._write("features", events.features.numpy().astype(np.float32))
        self._write("offsets", events.offsets[1:].numpy() + self._hits)
        self._write("ids", events.ids.numpy())
        if events.condition is not None:
            self._write("condition", events.condition.numpy().astype(np.float32))
        if labels is not None:
            self._write("labels", np.asarray(labels, dtype=np.int64))
        if split is not None:
            self._write("split", np.asarray(split, dtype=np.uint8))
        self._hits += len(events.coords)

    def note(self, **facts: Any) -> None:
        """Adds to the provenance what is known once the events are made; plain types."""
        self._provenance |= facts
        if self._like is not None:
            self._file.attrs["provenance"] = json.dumps(self._provenance)

    def _start(self, events: Events) -> None:
        self._like = events[:0]
        grid = self._grid or events.grid
        units = grid.units if grid is not None else ("",) * len(events.axes)
        columns = [{"name": c.name, "unit": c.unit, "additive": c.additive} for c in events.columns]
        facts = {
            "axes": list(events.axes),
            "units": list(units),
            "columns": columns,
            "conditions": list(events.conditions),
            "classes": list(self._classes),
            "splits": list(self._splits),
            "grid": None if grid is None else grid.to_dict(),
            "provenance": self._provenance,
        }
        self._file.attrs.update({name: json.dumps(value) for name, value in facts.items()})
        self._write("offsets", np.zeros(1, dtype=np.int64))

    def _compare(self, events: Events) -> None:
        assert self._like is not None
        cells = ("grid",) if events.is_cells else ()
        for name in ("axes", "columns", "conditions", "is_cells", *cells):
            first, other = getattr(self._like, name), getattr(events, name)
            if first != other:
                raise DataError(f"{self.path}: {name} differ between batches: {first} and {other}")

    def _write(self, key: str, values: NDArray[Any]) -> None:
        if key not in self._file:
            rows = _CHUNK_HITS if key in ("coords", "features") else _CHUNK_ROWS
            self._file.create_dataset(
                key,
                shape=(0, *values.shape[1:]),
                maxshape=(None, *(n or None for n in values.shape[1:])),
                dtype=values.dtype.newbyteorder("<"),
                chunks=(rows, *(n or 1 for n in values.shape[1:])),
                compression="gzip",
                compression_opts=4,
                shuffle=True,
                fletcher32=True,
            )
            self._hashes[key] = hashlib.sha256()
        data = self._file[key]
        data.resize(len(data) + len(values), axis=0)
        if len(values):
            data[-len(values) :] = values
        self._hashes[key].update(np.ascontiguousarray(values).tobytes())

    def _finish(self) -> None:
        if self._like is None:
            raise DataError(f"{self.path}: no events were written; an empty data set is not kept")
        self._file.attrs["rows"] = len(self._file["ids"])
        self._file.attrs["hits"] = self._hits
        self._file.attrs["checksums"] = json.dumps({key: value.hexdigest() for key, value in self._hashes.items()})
        self._file.attrs["complete"] = True


class RaggedReader(HDF5Reader):
    """Reads sparsegen's own files.

    Raises:
        DataError: The file is incomplete, damaged or disagrees with itself.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        attributes = self.file.attrs
        if attributes.get("format") != _FORMAT:
            raise DataError(
                f"{path}: none of sparsegen's own files; it has {', '.join(sorted(self.file)) or 'no keys'}"
            )
        if not attributes.get("complete", False):
            raise DataError(f"{path}: incomplete, its writer did not finish; make the file again")
        if int(attributes["version"]) > _VERSION:
            raise DataError(f"{path}: version {attributes['version']} of the format; this sparsegen reads {_VERSION}")
        try:
            facts = {name: json.loads(attributes[name]) for name in ("axes", "columns", "conditions", "classes")}
            facts |= {name: json.loads(attributes[name]) for name in ("splits", "grid", "provenance", "checksums")}
            self.rows, self.hits = int(attributes["rows"]), int(attributes["hits"])
        except (KeyError, ValueError) as error:
            raise DataError(f"{path}: attribute damaged or missing ({error}); make the file again") from None
        self.axes = tuple(facts["axes"])
        self.columns = tuple(Column(**column) for column in facts["columns"])
        self.conditions = tuple(facts["conditions"])
        self.classes = tuple(facts["classes"])
        self.splits = tuple(facts["splits"])
        self.grid = None if facts["grid"] is None else Grid.from_dict(facts["grid"])
        self.provenance: dict[str, Any] = facts["provenance"]
        self.checksums: dict[str, str] = facts["checksums"]
        self.is_cells = self.dataset("coords").dtype.kind == "i"
        self._check_schema()
        mean = self.hits / max(1, self.rows)
        self.block = int(np.clip(_BLOCK_HITS / max(1.0, mean), 1, _CHUNK_ROWS))
        width = 8 if self.is_cells else 4
        self.event_bytes = 64 + int(mean * (width * len(self.axes) + 4 * len(self.columns)))

    def _check_schema(self) -> None:
        shapes: dict[str, tuple[tuple[int, ...], str]] = {
            "coords": ((self.hits, len(self.axes)), "n"),
            "features": ((self.hits, len(self.columns)), "f"),
            "offsets": ((self.rows + 1,), "i"),
            "ids": ((self.rows,), "i"),
        }
        if self.conditions:
            shapes["condition"] = ((self.rows, len(self.conditions)), "f")
        if self.classes:
            shapes["labels"] = ((self.rows,), "i")
        if self.splits:
            shapes["split"] = ((self.rows,), "i")
        for key, (shape, kind) in shapes.items():
            require(self.path, key, self.dataset(key), shape, kind)

    def labels(self) -> NDArray[np.int64] | None:
        """Class index of every event, where the file names classes."""
        return self.array("labels").astype(np.int64) if self.classes else None

    def split_rows(self, name: str) -> NDArray[np.int64]:
        """Rows of one of the splits that the file records."""
        if not self.splits:
            return super().split_rows(name)
        if name not in self.splits:
            raise ConfigError(f"{self.path}: {unknown_name('split', name, self.splits)}")
        return np.flatnonzero(self.array("split") == self.splits.index(name))

    def read(self, runs: Sequence[tuple[int, int]], take: NDArray[np.int64] | None = None) -> Events:
        """Events of some rows, with the ids that the file gives them."""
        parts = [self._run(start, stop) for start, stop in runs]
        events = parts[0] if len(parts) == 1 else Events.cat(parts)
        return events if take is None else events[torch.from_numpy(take)]

    def _run(self, start: int, stop: int) -> Events:
        offsets = self.array("offsets", start, stop + 1).astype(np.int64, copy=False)
        first, last = int(offsets[0]), int(offsets[-1])
        bad = (offsets[1:] < offsets[:-1]) | (offsets[:-1] < 0) | (offsets[1:] > self.hits)
        if bad.any():
            row = int(bad.argmax())
            raise DataError(
                f"{self.path}: offsets of row {start + row} fall from {offsets[row]} to {offsets[row + 1]}, or leave "
                f"the {self.hits} hits; make the file again"
            )
        coords = self.array("coords", first, last)
        condition = self.array("condition", start, stop) if self.conditions else None
        cells = torch.from_numpy(coords.astype(np.int64)) if self.is_cells else None
        if cells is not None:
            self._check_cells(cells, offsets - first, start)
        return Events(
            torch.from_numpy(coords) if cells is None else cells,
            torch.from_numpy(self.array("features", first, last)),
            torch.from_numpy(offsets - first),
            axes=self.axes,
            columns=self.columns,
            condition=None if condition is None else torch.from_numpy(condition),
            conditions=self.conditions,
            grid=self.grid,
            ids=torch.from_numpy(self.array("ids", start, stop).astype(np.int64, copy=False)),
        )

    def _check_cells(self, cells: torch.Tensor, offsets: NDArray[np.int64], start: int) -> None:
        if self.grid is None:
            raise DataError(f"{self.path}: coords are cells but the attribute grid is empty; make the file again")
        inside = ((cells >= 0) & (cells < torch.tensor(self.grid.shape))).all(1)
        inside[inside.clone()] = self.grid.is_valid(cells[inside])
        if not bool(inside.all()):
            hit = int((~inside).nonzero()[0, 0])
            row = start + int(np.searchsorted(offsets, hit, side="right")) - 1
            raise DataError(
                f"{self.path}: coords of row {row} hold the cell {tuple(cells[hit].tolist())}, outside the grid's "
                f"{self.grid.shape} or not valid in it; drop or mend the row with `sparsegen data repair`"
            )

    def digest(self, key: str) -> Any:
        """The running SHA-256 of a data set's bytes."""
        digest = hashlib.sha256()
        for start in range(0, len(self.dataset(key)), 16 * _CHUNK_HITS):
            digest.update(np.ascontiguousarray(self.array(key, start, start + 16 * _CHUNK_HITS)).tobytes())
        return digest

    def findings(self) -> Iterator[Finding]:
        """Data sets that do not match their checksum, and labels without a class."""
        yield from label_findings(self.path, "labels", self.labels(), self.classes)
        for key, expected in self.checksums.items():
            if self.digest(key).hexdigest() != expected:
                yield Finding(str(self.path), key, -1, "does not match its checksum", "copy or make the file again")


def write_ragged(source: EventsSource, path: Path, overwrite: bool = False) -> None:
    """Write events as one of sparsegen's own files."""
    labels = None if source.labels is None else source.labels.numpy()
    with RaggedWriter(path, overwrite=overwrite, classes=source.classes) as writer:
        writer.append(source.events, labels)


def _matches(path: Path) -> bool:
    if not path.is_file() or not h5py.is_hdf5(path):
        return False
    with h5py.File(path, "r") as file:
        return bool(file.attrs.get("format") == _FORMAT)


formats.register("ragged")(
    Format("ragged", "sparsegen's own ragged HDF5", (".h5", ".hdf5"), _matches, RaggedReader, write_ragged, labels=True)
)
