"""``open`` and ``write``: every format through one door."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sparsegen.data.check import check_reader
from sparsegen.data.formats import formats, recognise
from sparsegen.data.reader import Reader
from sparsegen.data.source import FileSource
from sparsegen.data.views import make_view
from sparsegen.errors import ConfigError, DataError, unknown_name
from sparsegen.events import Events

__all__ = ["EMBEDDED", "open", "write"]

EMBEDDED: dict[str, Path] = {"pythia-jets": Path(__file__).with_name("pythia-jets.h5")}
"""Data sets that the package carries, by name; without a split their name means ``train``."""


def open(
    path: str | Path,
    format: str = "auto",
    *,
    view: str | None = None,
    shape: Sequence[int] | None = None,
    condition: Sequence[str] | Literal["all"] = (),
    classes: Sequence[str] = (),
    check: bool = True,
) -> FileSource:
    """Open a data set for streaming.

    Args:
        path: A file, a file and one of its splits (``jets.h5:test``), or an embedded set (``pythia-jets:test``).
        format: A registered format, or ``auto`` to recognise it by content.
        view: ``points``, ``cells`` or ``image``; what the file holds by default. Hits outside the lattice are dropped
            and counted (``source.dropped``).
        shape: Cells along each axis, over the range of the file's lattice.
        condition: Names of the file's conditions that events carry; ``all`` for all of them.
        classes: Names of the classes to keep; all by default.
        check: Whether to read the whole file once and check it; the result is remembered for the process.

    Returns:
        The source.

    Raises:
        ConfigError: An unknown format, view, split, class or condition.
        DataError: A missing, damaged or empty file; names the file, the key or row and what to do.

    Example:
        >>> jets = open("pythia-jets:test", view="image", condition=["jet_pt"])
        >>> jets.axes, [column.name for column in jets.columns]
        (('etarel', 'phirel'), ['ptrel'])
        >>> jets[:2].to_dense().shape
        torch.Size([2, 1, 25, 25])
    """
    name = str(path)
    file, split = _locate(name)
    if format == "auto":
        chosen = recognise(file)
    else:
        chosen = formats[format]
        if not file.exists():
            raise DataError(f"{file}: no such file; check the path (run in {Path.cwd()})")
    reader = chosen.reader(file)
    if not reader.rows:
        raise DataError(f"{file}: holds no events; a data set needs at least one")
    if check:
        check_reader(reader)
    names = reader.conditions if condition == "all" else condition
    return FileSource(reader, name, _rows(reader, split, classes), make_view(reader, view, shape, name), names)


def write(events: Events, path: str | Path, format: str = "auto", *, overwrite: bool = False) -> None:
    """Write events to a file, whole or not at all.

    Args:
        events: What to write.
        path: Where to; the folder must exist.
        format: A registered format that can be written; ``auto`` means sparsegen's own, which holds any events.
        overwrite: Whether an existing file may be replaced.

    Raises:
        ConfigError: A format that is unknown or read only.
        DataError: The file exists, or the format cannot hold these events.
    """
    chosen = formats["ragged" if format == "auto" else format]
    if chosen.write is None:
        writable = ", ".join(name for name in formats if formats[name].write is not None)
        raise ConfigError(f"{path}: format {chosen.name!r} is read only; choose one of {writable}")
    if not len(events):
        raise DataError(f"{path}: no events to write; an empty data set is not kept")
    chosen.write(events, Path(path), overwrite)


def _locate(name: str) -> tuple[Path, str | None]:
    """The file and the split that a name means."""
    if Path(name).exists():
        return Path(name), None
    stem, colon, split = name.rpartition(":")
    if not colon:
        stem, split = name, ""
    if stem in EMBEDDED:
        return EMBEDDED[stem], split or "train"
    if colon and split and "/" not in split:
        return Path(stem), split
    if not Path(name).suffix and "/" not in name:
        raise DataError(f"{unknown_name('data set', name, EMBEDDED)}; and no such file in {Path.cwd()}")
    return Path(name), None


def _rows(reader: Reader, split: str | None, classes: Sequence[str]) -> NDArray[np.int64] | None:
    """Rows of a split and of some classes; None for all."""
    rows = None if split is None else reader.split_rows(split)
    if not classes:
        return rows
    labels = reader.labels()
    if labels is None:
        raise ConfigError(f"{reader.path}: classes {tuple(classes)} asked for, but the file has no labels")
    for asked in classes:
        if asked not in reader.classes:
            raise ConfigError(f"{reader.path}: {unknown_name('class', asked, reader.classes)}")
    wanted = np.isin(labels, [reader.classes.index(asked) for asked in classes])
    return np.flatnonzero(wanted) if rows is None else rows[wanted[rows]]
