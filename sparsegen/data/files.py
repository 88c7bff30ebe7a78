"""Files that appear whole or not at all, and their identity."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sparsegen.errors import DataError

__all__ = ["Stamp", "file_hash", "stamp", "whole_file"]

Stamp = tuple[str, int, int, str]
_hashes: dict[Stamp, str] = {}


def stamp(path: Path) -> Stamp:
    """What changes when a file does: path, size and time of modification [ns]; for a folder also a digest of these."""
    status = path.stat()
    contents = ""
    if path.is_dir():
        digest = hashlib.sha256()
        for file in sorted(path.rglob("*")):
            if file.is_file():
                inside = file.stat()
                digest.update(f"{file.relative_to(path)} {inside.st_size} {inside.st_mtime_ns}\n".encode())
        contents = digest.hexdigest()
    return str(path.resolve()), status.st_size, status.st_mtime_ns, contents


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, remembered for as long as its size and time stay the same.

    Of a folder: over the names, sizes and times of its files.
    """
    key = stamp(path)
    if path.is_dir():
        return key[3]
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
        DataError: ``path`` exists or is a folder, or its own folder does not exist or is read only.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "a.txt"
        >>> with whole_file(target) as part:
        ...     _ = part.write_text("whole")
        >>> target.read_text()
        'whole'
    """
    path = Path(path)
    if path.is_dir():
        raise DataError(f"{path}: is a folder; choose another name")
    if path.exists() and not overwrite:
        raise DataError(f"{path}: exists already; choose another name or remove it")
    if not path.parent.is_dir():
        raise DataError(f"{path}: the folder {path.parent} does not exist; create it first")
    if not os.access(path.parent, os.W_OK):
        raise DataError(f"{path}: the folder {path.parent} may not be written to; choose another")
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
