"""Where meshes of everyday and technical things lie on a machine, and the classes of them that are asked for.

Three distributions carry thousands of real meshes: KiCad's models of electronic parts (Debian ``kicad-packages3d``,
VRML, a class a folder), Sweet Home 3D's furniture (Debian ``sweethome3d-furniture``, OBJ inside ``.sh3f`` archives, a
category each) and pybullet's random objects (PyPI ``pybullet``, OBJ without classes). They are taken from where they
are installed, or out of the package's file without installing it; nothing is downloaded here.
"""

from __future__ import annotations

import importlib.util
import io
import json
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from data_tools.debian import debian_files
from sparsegen.data.files import file_hash
from sparsegen.errors import ConfigError, DataError, unknown_name

__all__ = ["COLLECTIONS", "Collection", "find_package", "list_meshes", "prepare_meshes"]

_CATALOGUE = "PluginFurnitureCatalog.properties"
_ENTRY = re.compile(r"^(category|model|modelRotation)#(\d+)\s*=\s*(.*?)\s*$", re.MULTILINE)
_READY = "ready"
_KICAD_CLASSES = (
    "Capacitor_THT",
    "Connector_Dsub",
    "Connector_JST",
    "Crystal",
    "Inductor_THT",
    "Package_DFN_QFN",
    "Package_DIP",
    "Package_SO",
    "Resistor_THT",
)
_KICAD = ".3dshapes"
_SUFFIXES = (".off", ".obj", ".stl", ".wrl")


@dataclass(frozen=True)
class Collection:
    """A collection of meshes that a package carries.

    Args:
        package: The package's name.
        installed: Where it lies once installed.
        how: How to get it, for the error where it is not there.
        default: Classes that are taken unless others are asked for; empty for all.
    """

    package: str
    installed: Callable[[], Path | None]
    how: str
    default: tuple[str, ...] = ()


def _folder(path: str) -> Path | None:
    return Path(path) if Path(path).is_dir() else None


def _pybullet() -> Path | None:
    found = importlib.util.find_spec("pybullet_data")
    return None if found is None or found.origin is None else Path(found.origin).parent / "random_urdfs"


COLLECTIONS: dict[str, Collection] = {
    "kicad": Collection(
        "kicad-packages3d",
        lambda: _folder("/usr/share/kicad/3dmodels"),
        "apt-get download kicad-packages3d (379 MB), then run again beside the .deb or name it",
        _KICAD_CLASSES,
    ),
    "furniture": Collection(
        "sweethome3d-furniture",
        lambda: _folder("/usr/share/sweethome3d/furniture"),
        "apt-get download sweethome3d-furniture (120 MB), then run again beside the .deb or name it",
    ),
    "pybullet": Collection(
        "pybullet",
        _pybullet,
        "pip install pybullet (or pip download --no-deps pybullet, then run again beside the .whl or name it)",
    ),
}


def find_package(name: str) -> Path:
    """Where a collection lies: installed, or as the package's file in the working folder.

    Raises:
        DataError: It is in neither; says how to get it.
    """
    collection = COLLECTIONS[name]
    installed = collection.installed()
    if installed is not None:
        return installed
    files = sorted([*Path().glob(f"{collection.package}_*.deb"), *Path().glob(f"{collection.package}-*.whl")])
    if files:
        return files[-1]
    raise DataError(f"{name}: {collection.package} is neither installed nor in {Path.cwd()}; {collection.how}")


def prepare_meshes(source: Path, classes: Sequence[str], folder: Path) -> Path:
    """A folder of meshes with a folder a class, from any form that a collection comes in.

    Args:
        source: A ``.deb``, ``.whl``, ``.zip`` or ``.sh3f`` archive, or a folder of meshes or of ``.sh3f`` archives.
        classes: What to take; empty for everything.
        folder: Where to unpack archives to; what an earlier call finished there is taken as it is.

    Returns:
        The folder to read: ``source`` itself where there is nothing to unpack.

    Raises:
        ConfigError: A class that the source does not have.
        DataError: The source is damaged, or holds no meshes.
    """
    if source.suffix.lower() in _SUFFIXES or (source.is_dir() and not any(source.glob("*.sh3f"))):
        return source
    ready = folder / _READY
    what = json.dumps([file_hash(source), sorted(classes)])
    if ready.exists() and ready.read_text() == what:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    seen: set[str] = set()
    written = 0
    try:
        for label, name, content in _meshes(source):
            seen.add(label)
            if not classes or label in classes:
                target = folder / label / name
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(content())
                written += 1
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise DataError(f"{source}: not readable as an archive ({error}); copy it again") from None
    for name in classes:
        if name not in seen:
            raise ConfigError(f"{source}: {unknown_name('class', name, seen)}")
    if not written:
        raise DataError(f"{source}: holds no meshes; expected .wrl, .obj or .sh3f files inside")
    ready.write_text(what)
    return folder


def list_meshes(folder: Path, classes: Sequence[str]) -> tuple[list[Path], NDArray[np.int64] | None, tuple[str, ...]]:
    """Mesh files of a folder, the class of each, and the classes' names.

    Args:
        folder: One mesh, or meshes in a folder a class; there are no classes where some lie in none, or where the
            objects are pybullet's, each in a folder of its own.
        classes: What to take; empty for everything.

    Raises:
        ConfigError: A class that the folder does not have.
    """
    single = folder.is_file()
    files = [folder] if single else sorted(file for file in folder.rglob("*") if file.suffix.lower() in _SUFFIXES)
    parts = [() if single else file.relative_to(folder).parts[:-1] for file in files]
    if not all(parts) or folder.name == "random_urdfs":
        if classes:
            raise ConfigError(f"{folder}: has no classes to choose from")
        return files, None, ()
    of_file = [some[0].removesuffix(_KICAD) for some in parts]
    names = sorted(set(of_file))
    for name in classes:
        if name not in names:
            raise ConfigError(f"{folder}: {unknown_name('class', name, names)}")
    taken = tuple(name for name in names if not classes or name in classes)
    rows = [row for row, name in enumerate(of_file) if name in taken]
    index = [taken.index(of_file[row]) for row in rows]
    return [files[row] for row in rows], np.array(index, dtype=np.int64), taken


Mesh = tuple[str, str, Callable[[], bytes]]


def _meshes(source: Path) -> Iterator[Mesh]:
    """Class, file name and content of every mesh of a source, in the order in which they lie there."""
    if source.is_dir():
        for archive in sorted(source.glob("*.sh3f")):
            yield from _furniture(archive)
    elif source.suffix == ".sh3f":
        yield from _furniture(source)
    elif source.suffix == ".deb":
        yield from _debian(source)
    elif zipfile.is_zipfile(source):
        yield from _wheel(source)
    else:
        raise DataError(f"{source}: neither a folder nor a .deb, .whl, .zip or .sh3f archive")


def _label(path: Path) -> str:
    return path.parent.name.removesuffix(_KICAD)


def _debian(source: Path) -> Iterator[Mesh]:
    for path, content in debian_files(source):
        if path.suffix == ".wrl":
            yield _label(path), path.name, content
        elif path.suffix == ".sh3f":
            # A zip is read from its end, a stream only from its start
            yield from _furniture(io.BytesIO(content()))


def _furniture(archive: Path | IO[bytes]) -> Iterator[Mesh]:
    """Models of a Sweet Home 3D archive by category, turned so that z points up."""
    with zipfile.ZipFile(archive) as models:
        catalogue = models.read(_CATALOGUE).decode("latin-1")
        entries: dict[str, dict[str, str]] = {}
        for key, number, value in _ENTRY.findall(catalogue):
            entries.setdefault(number, {})[key] = value
        for entry in entries.values():
            path = Path(entry["model"].lstrip("/"))
            if path.suffix.lower() == ".obj":
                turn = np.array(entry.get("modelRotation", "1 0 0 0 1 0 0 0 1").split(), dtype=float).reshape(3, 3)
                label = entry["category"].replace("/", "-")
                yield label, "-".join(path.parts[-3:]), partial(_upright, models, path, turn)


def _upright(models: zipfile.ZipFile, path: Path, turn: NDArray[np.float64]) -> bytes:
    """An OBJ file with its vertices turned: y points up in these models."""
    upright = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]) @ turn
    lines = models.read(str(path)).splitlines()
    for k, line in enumerate(lines):
        if line.startswith(b"v "):
            vertex = upright @ np.array(line.split()[1:4], dtype=float)
            lines[k] = b"v %.7g %.7g %.7g" % tuple(vertex)
    return b"\n".join(lines)


def _wheel(source: Path) -> Iterator[Mesh]:
    with zipfile.ZipFile(source) as archive:
        for name in sorted(archive.namelist()):
            path = Path(name)
            if path.suffix == ".obj" and "random_urdfs" in path.parts:
                yield "", path.name, partial(archive.read, name)
            elif path.suffix == ".wrl":
                yield _label(path), path.name, partial(archive.read, name)
