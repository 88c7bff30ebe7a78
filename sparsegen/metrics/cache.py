"""What was read off a reference file once, kept on disk under the file's own hash.

Off unless :func:`kept_in` names a folder. The key holds the file's bytes, the rows and the view that are read, what is
computed, and the version of sparsegen: a file that changes, or another cut of it, is another key.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsegen import __version__

__all__ = ["is_kept", "kept_in", "remembered"]

Arrays = Mapping[str, NDArray[Any]]
_folder: ContextVar[Path | None] = ContextVar("folder", default=None)


@contextmanager
def kept_in(folder: str | Path | None) -> Iterator[None]:
    """Keeps what :func:`remembered` computes in a folder while the block runs; None: nothing is kept."""
    token = _folder.set(None if folder is None else Path(folder))
    try:
        yield
    finally:
        _folder.reset(token)


def is_kept(source: object) -> bool:
    """Whether :func:`remembered` keeps what is computed from a source."""
    return _folder.get() is not None and all(
        getattr(source, name, None) is not None for name in ("fingerprint", "rows", "view")
    )


def remembered(source: object, what: str, make: Callable[[], Arrays]) -> Arrays:
    """Arrays computed from a file, or read back if they were computed before.

    Args:
        source: An open file: an object with a ``fingerprint``, ``rows`` and a ``view``. Anything else is not kept.
        what: Name of the computation with all its settings.
        make: The computation.
    """
    folder = _folder.get()
    if folder is None or not is_kept(source):
        return make()
    fingerprint, rows, view = (getattr(source, name) for name in ("fingerprint", "rows", "view"))
    key = hashlib.sha256(repr((__version__, what, fingerprint, str(view))).encode())
    key.update(np.ascontiguousarray(rows).tobytes())
    path = folder / f"{key.hexdigest()[:32]}.npz"
    if path.exists():
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    made = make()
    folder.mkdir(parents=True, exist_ok=True)
    # Whole or not at all: another process may be looking.
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".part", delete=False) as file:
        np.savez(file, **dict(made))  # type: ignore[arg-type]
    os.replace(file.name, path)
    return made
