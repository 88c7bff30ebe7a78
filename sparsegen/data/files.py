"""Files that appear whole or not at all, and their identity."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sparsegen.errors import DataError

__all__ = ["file_hash", "stamp", "whole_file"]

_hashes: dict[tuple[str, int, int], str] = {}


def stamp(path: Path) -> tuple[str, int, int]:
    """What changes when a file does: resolved path, size and modification time [ns]."""
    status = path.stat()
    return str(path.resolve()), status.st_size, status.st_mtime_ns


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, remembered for as long as its size and time stay the same."""
    key = stamp(path)
    if key not in _hashes:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while piece := file.read(2**20):
                digest.update(piece)
        _hashes[key] = digest.hexdigest()
    return _hashes[key]


@contextmanager
def whole_file(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """A name to write to, which becomes ``path`` when the block ends well and vanishes when it does not.

    Args:
        path: The file to make.
        overwrite: Whether an existing file may be replaced.

    Raises:
        DataError: ``path`` exists, or its folder does not.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "a.txt"
        >>> with whole_file(target) as part:
        ...     _ = part.write_text("whole")
        >>> target.read_text()
        'whole'
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise DataError(f"{path}: exists already; choose another name or remove it")
    if not path.parent.is_dir():
        raise DataError(f"{path}: the folder {path.parent} does not exist; create it first")
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    try:
        yield part
        sync(part)
        os.replace(part, path)
        sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Force a file or a folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
