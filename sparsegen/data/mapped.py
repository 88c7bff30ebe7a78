"""Arrays of files that are read where they lie, not loaded.

A plain array is mapped in place. A compressed one is inflated once, in a stream, into a temporary file without a name,
which is mapped instead and goes when its last user does; a small one is held in memory. Readers of one process share
it. A process that is given a pickled array maps the temporary file of the process that inflated it, for as long as that
one lives.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sparsegen.data.files import stamp
from sparsegen.errors import DataError

__all__ = ["Loaded", "MappedArray", "inflated", "mapped", "values_of"]

_log = logging.getLogger(__name__)
_IN_MEMORY = 32 * 2**20
_PIECE = 4 * 2**20
Loaded = tuple[NDArray[Any], IO[bytes] | None]


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


class MappedArray:
    """An array of a file, for reading.

    Args:
        load: Gives the array, and the temporary file that it lies in if there is one; a function of a module's top
            level, so that other processes can be given it.
        path: What ``load`` is called with first: the file.
        arguments: And what else.
    """

    values: NDArray[Any]
    _file: IO[bytes] | None

    def __init__(self, load: Callable[..., Loaded], path: Path, *arguments: Any) -> None:
        self._how = load, (path, *arguments)
        key = (load, stamp(path), *arguments)
        self._owner = _living.get(key)
        if self._owner is None:
            self._take(load(path, *arguments))
            _living[key] = self
        else:
            # Which closes the temporary file, and lives as long as this does
            self.values, self._file = self._owner.values, self._owner._file

    def _take(self, loaded: Loaded) -> None:
        self.values, self._file = loaded
        if self._file is not None:
            weakref.finalize(self, self._file.close)

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start:stop``, aligned and in the machine's byte order."""
        part = np.require(self.values[start:stop], requirements="A")
        return np.asarray(part).astype(part.dtype.newbyteorder("="), copy=False)

    def __getstate__(self) -> dict[str, Any]:
        if self._file is None:
            return {"_how": self._how}
        inside = os.fstat(self._file.fileno())
        place = f"/proc/{os.getpid()}/fd/{self._file.fileno()}", inside.st_dev, inside.st_ino
        order = "F" if self.values.flags.f_contiguous and not self.values.flags.c_contiguous else "C"
        return {"_how": self._how, "_place": (*place, self.values.dtype, self.values.shape, order)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._how = state["_how"]
        load, arguments = self._how
        found = _elsewhere(*state["_place"]) if "_place" in state else None
        self._take(found or load(*arguments))


_living: weakref.WeakValueDictionary[tuple[Any, ...], MappedArray] = weakref.WeakValueDictionary()


def values_of(loaded: Loaded) -> NDArray[Any]:
    """The array alone, for use in this process."""
    values, file = loaded
    if file is not None:
        file.close()
    return values


def _elsewhere(place: str, device: int, inode: int, dtype: np.dtype[Any], shape: Any, order: Any) -> Loaded | None:
    """The temporary file of another process, where it is still that file."""
    try:
        file = open(place, "rb")  # noqa: SIM115
    except OSError:
        return None
    inside = os.fstat(file.fileno())
    if (inside.st_dev, inside.st_ino) != (device, inode):
        file.close()
        return None
    return np.memmap(file, dtype, "r", shape=shape, order=order), file


def mapped(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int, order: Any = "C") -> Loaded:
    """The array that begins at byte ``offset`` of a file."""
    if not math.prod(shape):
        return np.empty(shape, dtype), None
    return np.memmap(path, dtype, "r", offset, shape, order), None


def inflated(stream: _Stream, dtype: np.dtype[Any], shape: tuple[int, ...], name: str, order: Any = "C") -> Loaded:
    """The array that a stream of inflated bytes holds, up to its end.

    Args:
        stream: Where from.
        dtype: Type of the values.
        shape: Shape of the array.
        name: What it is, for messages.
        order: ``C`` or ``F``.

    Raises:
        DataError: The temporary folder has no room for it.
        EOFError: The stream is shorter or longer than the array.
    """
    size = math.prod(shape) * dtype.itemsize
    if size <= _IN_MEMORY:
        raw = stream.read(size + 1)
        _check_size(len(raw), size)
        return np.frombuffer(raw, dtype).reshape(shape, order=order), None
    folder = tempfile.gettempdir()
    if shutil.disk_usage(folder).free < size:
        raise _no_room(name, size, folder)
    _log.warning(
        "%s: is compressed; inflated into %s once (%.1f MB), to be read in bounded memory", name, folder, size / 1e6
    )
    file = tempfile.TemporaryFile(prefix="sparsegen-")  # noqa: SIM115
    try:
        written = 0
        while piece := stream.read(_PIECE):
            written += len(piece)
            if written > size:
                break
            file.write(piece)
        _check_size(written, size)
        file.flush()
    except OSError as error:
        file.close()
        if error.errno == errno.ENOSPC:
            raise _no_room(name, size, folder) from None
        raise
    except BaseException:
        file.close()
        raise
    return np.memmap(file, dtype, "r", shape=shape, order=order), file


def _check_size(found: int, size: int) -> None:
    if found != size:
        raise EOFError(f"holds {'more' if found > size else found} bytes, expected {size}")


def _no_room(name: str, size: int, folder: str) -> DataError:
    free = shutil.disk_usage(folder).free
    return DataError(
        f"{name}: is compressed and takes {size / 1e6:,.1f} MB inflated; the temporary folder {folder} has "
        f"{free / 1e6:,.1f} MB free: set TMPDIR to a folder with room, or store it uncompressed"
    )
