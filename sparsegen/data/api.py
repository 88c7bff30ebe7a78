"""``open`` and ``write``: every format through one door."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from sparsegen.data.check import DataWarning, check_reader
from sparsegen.data.formats import formats, must_be_there, recognise
from sparsegen.data.labels import class_names
from sparsegen.data.reader import Reader
from sparsegen.data.source import EventSource, EventsSource, FileSource
from sparsegen.data.views import make_view
from sparsegen.errors import ConfigError, DataError, unknown_name
from sparsegen.events import Events

__all__ = ["EMBEDDED", "not_kept", "open", "write"]

EMBEDDED: dict[str, Path] = {"pythia-jets": Path(__file__).with_name("pythia-jets.h5")}
"""Data sets that the package carries, by name; without a split their name means ``train``."""


def open(
    path: str | Path,
    format: str = "auto",
    *,
    view: str | None = None,
    shape: Sequence[int] | None = None,
    condition: Sequence[str] | str = (),
    classes: Sequence[str] | str = (),
    check: bool | Literal["format"] = True,
) -> FileSource:
    """Open a data set for streaming.

    Args:
        path: A file, a file and one of its splits (``jets.h5:test``), or an embedded set (``pythia-jets:test``).
        format: A registered format, or ``auto`` to recognise it by content.
        view: ``points``, ``cells`` or ``image``; what the file holds by default. Hits outside the lattice are dropped
            and counted (``source.dropped``).
        shape: Cells along each axis, over the range of the file's lattice.
        condition: Names, or the one name, of the file's conditions that events carry; ``all`` for all of them.
        classes: Names, or the one name, of the classes to keep; all by default.
        check: Whether to read the whole file once and check it; the result is remembered for the process. ``format``
            checks what the format promises alone, and lets bad events through to who counts them.

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
        must_be_there(file)
    reader = chosen.reader(file)
    if not reader.rows:
        raise DataError(f"{file}: holds no events; a data set needs at least one")
    if check:
        check_reader(reader, values=check != "format")
    names = reader.conditions if condition == "all" else (condition,) if isinstance(condition, str) else condition
    classes = (classes,) if isinstance(classes, str) else classes
    return FileSource(reader, name, _rows(reader, split, classes), make_view(reader, view, shape, name), names)


def write(
    events: Events | EventSource,
    path: str | Path,
    format: str = "auto",
    *,
    labels: ArrayLike | None = None,
    classes: Sequence[str] = (),
    overwrite: bool = False,
) -> None:
    """Write events with their conditions and labels to a file, whole or not at all.

    They pass through memory; ``sparsegen data convert`` streams. What the format has no place for, and the events do
    not have for its sake, is named in a :class:`DataWarning`.

    Args:
        events: What to write; a source brings its labels, and of its file's conditions those that it was opened with.
        path: Where to; the folder must exist.
        format: A registered format that can be written; ``auto`` means sparsegen's own, which holds any events.
        labels: Class index of each event ``(B,)``.
        classes: Names of the classes that ``labels`` count; their numbers by default.
        overwrite: Whether an existing file may be replaced.

    Raises:
        ConfigError: A format that is unknown or read only.
        DataError: The file exists, or the format cannot hold these events or any labels.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "shapes.h5"
        >>> points = Events(torch.rand(6, 3), torch.rand(6, 0), torch.tensor([0, 3, 6]), axes="xyz", columns=[])
        >>> write(points, path, "modelnet", labels=[1, 0], classes=["chair", "lamp"])
        >>> open(path).labels.tolist(), open(path).classes
        ([1, 0], ('chair', 'lamp'))
    """
    path = Path(path)
    chosen = formats["ragged" if format == "auto" else format]
    if chosen.write is None:
        writable = ", ".join(name for name in formats if formats[name].write is not None)
        raise ConfigError(f"{path}: format {chosen.name!r} is read only; choose one of {writable}")
    if not len(events):
        raise DataError(f"{path}: no events to write; an empty data set is not kept")
    source = _in_memory(events, path, labels, classes)
    if source.labels is not None and not chosen.labels:
        labelled = ", ".join(name for name in formats if formats[name].labels)
        raise DataError(
            f"{path}: format {chosen.name!r} has no place for labels; leave them out, or choose one of {labelled}"
        )
    chosen.write(source, path, overwrite)
    lost = not_kept(source, chosen.reader(path))
    if lost:
        message = f"{path}: format {chosen.name!r} has no place for {', '.join(lost)}; they are not kept"
        warnings.warn(message, DataWarning, stacklevel=2)


def not_kept(source: EventSource, made: Reader) -> list[str]:
    """What a data set tells of its events and a file made from it does not: conditions, classes, the latter's names."""
    lost = [f"condition {name}" for name in source.conditions if name not in made.conditions]
    if source.labels is not None:
        present = {source.classes[label] for label in source.labels.unique().tolist()}
        only_numbered = source.classes == tuple(map(str, range(len(source.classes))))
        if not made.classes:
            lost.insert(0, "classes")
        elif not only_numbered and not present <= set(made.classes):
            lost.insert(0, "names of classes")
    return lost


def _in_memory(
    events: Events | EventSource, path: Path, labels: ArrayLike | None, classes: Sequence[str]
) -> EventsSource:
    """Events with their labels, which fit them, and with the names of all classes."""
    if isinstance(events, EventSource):
        if labels is not None or classes:
            raise ConfigError(f"{path}: {events.name} brings its own labels; pass its events to give them others")
        return EventsSource(events[:], events.name, events.labels, events.classes)
    if labels is None:
        if classes:
            raise ConfigError(f"{path}: classes {tuple(classes)} without labels; pass labels= with them")
        return EventsSource(events, str(path))
    values = np.asarray(labels)
    if values.shape != (len(events),) or values.dtype.kind not in "iub":
        raise DataError(
            f"{path}: labels of shape {values.shape} and type {values.dtype} for {len(events)} events; "
            "expected one integer an event"
        )
    names = tuple(classes) or class_names(values)
    if values.min() < 0 or values.max() >= len(names):
        raise DataError(
            f"{path}: labels run from {values.min()} to {values.max()} for the classes {names}; name them all"
        )
    return EventsSource(events, str(path), torch.from_numpy(values.astype(np.int64)), names)


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
