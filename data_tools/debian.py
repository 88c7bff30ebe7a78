"""Files inside a Debian package, read without installing it."""

from __future__ import annotations

import lzma
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

from sparsegen.errors import DataError

__all__ = ["debian_files"]

_HEADER = 60


def debian_files(source: Path) -> Iterator[tuple[Path, Callable[[], bytes]]]:
    """Path and content of every file of a package, in the order in which they lie there.

    A content is to be opened before the next file is asked for.

    Raises:
        DataError: The package is damaged.
    """
    with source.open("rb") as file, _readable(source):
        _to_data(file, source)
        with tarfile.open(fileobj=file, mode="r|*") as archive:
            for member in archive:
                if member.isfile():
                    yield Path(member.name), partial(_content, archive, member, source)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, source: Path) -> bytes:
    with _readable(source):
        content = archive.extractfile(member)
        assert content is not None
        return content.read()


@contextmanager
def _readable(source: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise DataError(f"{source}: not readable as a Debian package ({error}); copy it again") from None


def _to_data(file: IO[bytes], source: Path) -> None:
    """Move to the tar archive with the files: a member of an ar archive, after headers of 60 bytes."""
    if file.read(8) == b"!<arch>\n":
        while len(header := file.read(_HEADER)) == _HEADER and header.endswith(b"`\n"):
            if header.startswith(b"data.tar"):
                return
            size = int(header[48:58])
            file.seek(size + size % 2, 1)
    raise DataError(f"{source}: not a Debian package; copy it again")
