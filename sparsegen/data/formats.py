"""The registry of file formats: one file of this folder registers each."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import h5py

from sparsegen.data.reader import Reader, unreadable_hdf5
from sparsegen.data.source import EventsSource
from sparsegen.errors import ConfigError, DataError
from sparsegen.registry import Registry

__all__ = ["Format", "Write", "formats", "must_be_there", "recognise"]


class Write(Protocol):
    """Writes a data set in memory whole, or not at all."""

    def __call__(self, source: EventsSource, path: Path, overwrite: bool = False) -> None:
        """Write events, and their labels where the format has a place for them, to ``path``.

        ``path`` may exist only with ``overwrite``.
        """


@dataclass(frozen=True)
class Format:
    """One file format.

    Args:
        name: Its name in the registry.
        description: One line for ``sparsegen list data``.
        suffixes: File endings that it is written under, the first preferred.
        matches: Whether a path's content is of this format; never raises on foreign content.
        reader: Opens a path.
        write: Writes events, where the format can be written.
        labels: Whether what is written has a place for labels.
    """

    name: str
    description: str
    suffixes: tuple[str, ...]
    matches: Callable[[Path], bool]
    reader: Callable[[Path], Reader]
    write: Write | None = None
    labels: bool = False


formats = Registry[Format]("data format")


def must_be_there(path: Path) -> None:
    """Raises where a path does not exist, may not be read, or is an empty file."""
    if not path.exists():
        raise DataError(f"{path}: no such file; check the path (run in {Path.cwd()})")
    if not os.access(path, os.R_OK):
        raise DataError(f"{path}: may not be read; ask its owner for access, or copy it")
    if path.is_file() and path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty; copy or make it again")


def recognise(path: Path) -> Format:
    """The one format that a path's content fits.

    Raises:
        DataError: The path does not exist, is damaged, or fits no format, or several.
    """
    must_be_there(path)
    if path.suffix in (".h5", ".hdf5"):
        try:
            with h5py.File(path, "r") as file:
                keys = ", ".join(sorted(file))
        except OSError as error:
            raise unreadable_hdf5(path, error) from None
    else:
        keys = ""
        if path.suffix == ".npz" and path.is_file() and not zipfile.is_zipfile(path):
            raise DataError(
                f"{path}: not a readable NumPy archive (no zip directory at its end); copy or make it again"
            )
    found = [formats[name] for name in formats if formats[name].matches(path)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(formats)
    if not found:
        holds = f" with the keys {keys}" if keys else ""
        raise DataError(f"{path}{holds}: content of no known format; pass format= one of {known}, or convert it")
    names = ", ".join(f.name for f in found)
    raise ConfigError(f"{path}: fits several formats ({names}); pass format= to choose")
