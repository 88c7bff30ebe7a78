"""The top-tagging reference set: a pandas table of up to 200 four-momenta a jet.

The table ``table/table`` has ``values_block_0 (804,)``: E, px, py, pz of 200 particles, zero where there is none, then
of the true top; and ``values_block_1 (2,)``, whose last is 1 for top jets. All in GeV. Where pandas stored the frame in
its fixed form, the same blocks are the arrays ``table/block0_values`` and ``table/block1_values``; so it is written
here, for ``pandas.read_hdf`` to read as a frame with the published columns.

References:
    The Machine Learning Landscape of Top Taggers, Kasieczka et al., 2019, https://arxiv.org/abs/1902.09914
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from sparsegen.data.files import whole_file
from sparsegen.data.formats import Format, formats
from sparsegen.data.jetnet import jet_grid
from sparsegen.data.jets import JET_CONDITIONS, check_sums, jet_events, momenta, padded
from sparsegen.data.labels import labels_in
from sparsegen.data.reader import Finding, HDF5Reader, hdf5_keys, require, rows_of
from sparsegen.data.source import EventsSource
from sparsegen.errors import DataError
from sparsegen.events import Column, Events

__all__ = ["TopTaggingReader", "write_top_tagging"]

_TABLE = "table/table"
_FIXED = ("table/block0_values", "table/block1_values")
_WIDTH = 804
_PARTICLES = 200
_CLASSES = ("qcd", "top")


class TopTaggingReader(HDF5Reader):
    """Reads top-tagging files; classes are ``qcd`` and ``top``."""

    axes = ("etarel", "phirel")
    columns = (Column("ptrel"), Column("energy", "GeV"))
    conditions = JET_CONDITIONS
    classes = _CLASSES

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._fixed = _FIXED[0] in self.file and _TABLE not in self.file
        table = self.dataset(_FIXED[0] if self._fixed else _TABLE)
        if self._fixed:
            require(path, _FIXED[0], table, (None, _WIDTH), "f")
            require(path, _FIXED[1], self.dataset(_FIXED[1]), (len(table), 2), "n")
        else:
            _require_fields(path, table.dtype)
        self.rows = len(table)
        self.grid = jet_grid()
        self.event_bytes = 4 * _WIDTH
        rows = table.chunks[0] if table.chunks else 1024
        self.block = max(rows, 1024 // rows * rows)

    def read(self, runs: Sequence[tuple[int, int]], take: NDArray[np.int64] | None = None) -> Events:
        """Jets of some rows, padding left out."""
        block = self.joined(_FIXED[0], runs, take) if self._fixed else self.joined(_TABLE, runs, take)["values_block_0"]
        particles = block[:, : 4 * _PARTICLES].reshape(len(block), _PARTICLES, 4).astype(np.float64)
        mask = (particles != 0).any(-1)
        energy, px, py, pz = particles[mask].T
        pt = np.hypot(px, py)
        with np.errstate(divide="ignore", invalid="ignore"):
            eta = np.arcsinh(pz / pt)
        extra = {self.columns[1]: energy}
        counts = mask.sum(1)
        return jet_events(
            pt, eta, np.arctan2(py, px), energy, counts, extra, axes=self.axes, grid=jet_grid(), ids=rows_of(runs, take)
        )

    def labels(self) -> NDArray[np.int64]:
        """0 for QCD, 1 for top."""
        if self._fixed:
            return self.array(_FIXED[1])[:, -1].astype(np.int64)
        # A row of the table holds 200 particles beside its label
        starts = range(0, self.rows, self.block)
        blocks = [self.array(_TABLE, start, start + self.block)["values_block_1"][:, -1] for start in starts]
        return np.concatenate(blocks or [np.empty(0)]).astype(np.int64)

    def findings(self) -> Iterator[Finding]:
        """Labels that are neither 0 nor 1."""
        labels = self.labels()
        for row in np.flatnonzero((labels != 0) & (labels != 1)):
            yield Finding(str(self.path), "is_signal_new", int(row), f"is {labels[row]}, expected 0 or 1")


def _require_fields(path: Path, kind: np.dtype[Any]) -> None:
    names = kind.names or ()
    if "values_block_0" not in names or "values_block_1" not in names:
        raise DataError(
            f"{path}: key {_TABLE!r} has the fields {names}; expected values_block_0 and values_block_1: "
            "copy or make it again"
        )
    block = kind["values_block_0"]
    if block.shape != (_WIDTH,) or block.base.kind != "f":
        raise DataError(
            f"{path}: values_block_0 has shape {block.shape} and type {block.base}; expected ({_WIDTH},): "
            "copy or make it again"
        )


def write_top_tagging(source: EventsSource, path: Path, overwrite: bool = False) -> None:
    """Write jets as the top-tagging sets' frame, in its fixed form; the true top, which events do not carry, is zero.

    Raises:
        DataError: They are not labelled points in etarel, phirel with ptrel and energy [GeV], each the sum of its at
            most 200 particles.
    """
    events = source.events.detach().to("cpu")
    if events.is_cells or events.axes != TopTaggingReader.axes or events.columns != TopTaggingReader.columns:
        raise DataError(
            f"{path}: top-tagging files hold points in etarel, phirel with ptrel and energy [GeV]; given {events}"
        )
    labels = labels_in(source, _CLASSES, path, "a top-tagging file")
    if int(events.counts.max()) > _PARTICLES:
        event = int(events.counts.argmax())
        raise DataError(
            f"{path}: event {event} has {int(events.counts[event])} particles and a top-tagging file holds "
            f"{_PARTICLES}; cut it first"
        )
    pt, eta, phi = momenta(events, path, "a top-tagging file")
    check_sums(events, pt, eta, phi, path, "a top-tagging file")
    energy = events.column("energy").double().numpy()
    particles = np.stack([energy, pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)], axis=1).astype(np.float32)
    names = [f"{name}_{i}" for i in range(_PARTICLES) for name in ("E", "PX", "PY", "PZ")]
    names += ["truthE", "truthPX", "truthPY", "truthPZ"]
    flags = ["ttv", "is_signal_new"]
    rows = 1024
    with whole_file(path, overwrite) as part, h5py.File(part, "w") as file:
        table = file.create_group("table")
        options: dict[str, Any] = {"compression": "gzip", "shuffle": True, "fletcher32": True}
        block = table.create_dataset(
            "block0_values", (len(events), _WIDTH), "f4", chunks=(min(len(events), 256), _WIDTH), **options
        )
        for start in range(0, len(events), rows):
            some = events[start : start + rows]
            hits = particles[int(events.offsets[start]) :][: len(some.coords)]
            block[start : start + len(some), : 4 * _PARTICLES] = padded(hits, some, _PARTICLES).reshape(len(some), -1)
        table["block1_values"] = np.stack([np.zeros_like(labels), labels], axis=1)
        table["axis1"] = np.arange(len(events))
        for key, items in {"axis0": names + flags, "block0_items": names, "block1_items": flags}.items():
            table[key] = np.array(items, dtype="S")
        _describe(file)


def _describe(file: h5py.File) -> None:
    """Say what pandas and PyTables need to know of the frame's arrays."""

    def note(node: Any, **facts: Any) -> None:
        for name, value in facts.items():
            # PyTables takes text of fixed length for text only where it is marked as UTF-8
            kind = h5py.string_dtype("utf-8", len(value)) if isinstance(value, str) else None
            node.attrs.create(name, value, dtype=kind)

    nothing = h5py.Empty("S1")
    note(file, CLASS="GROUP", TITLE=nothing, VERSION="1.0", PYTABLES_FORMAT_VERSION="2.1")
    table = file["table"]
    note(table, CLASS="GROUP", TITLE=nothing, VERSION="1.0", encoding="UTF-8", errors="strict", pandas_type="frame")
    note(table, nblocks=2, ndim=2)
    for key, data in table.items():
        kind, layout = ("CARRAY", "1.1") if data.chunks else ("ARRAY", "2.4")
        note(data, CLASS=kind, FLAVOR="numpy", TITLE=nothing, VERSION=layout, transposed=np.uint8(1))
        if data.ndim == 1:
            note(table, **{f"{key}_variety": "regular"})
            # N. is None, pickled: the axis has no name
            note(data, kind="integer" if data.dtype.kind == "i" else "string", name="N.", nan_rep=nothing)


def _matches(path: Path) -> bool:
    return "table" in hdf5_keys(path)


formats.register("toptagging")(
    Format(
        "toptagging",
        "top-tagging reference HDF5 (pandas table)",
        (".h5",),
        _matches,
        TopTaggingReader,
        write_top_tagging,
        labels=True,
    )
)
