"""Triangles of meshes, and points on them by area.

OFF, OBJ and STL are parsed by trimesh (extra ``meshes``); VRML, as KiCad's libraries of parts come, here: every
``IndexedFaceSet`` of the file, its faces fanned into triangles.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsegen.errors import DataError, MissingExtraError

__all__ = ["read_mesh", "sample_surface"]

_ARRAYS = re.compile(r"\b(point|coordIndex)\s*\[([^\]]*)\]")


def read_mesh(path: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Vertices ``(V, 3)`` and triangles ``(T, 3)`` of a mesh.

    Raises:
        DataError: The file has no triangles, or cannot be parsed.
        MissingExtraError: trimesh is needed and not installed.
    """
    vertices, triangles = _vrml(path) if path.suffix.lower() == ".wrl" else _trimesh(path)
    if not len(triangles) or not np.isfinite(vertices).all():
        raise DataError(f"{path}: not a readable mesh (no triangles, or vertices that are not finite); leave it out")
    if triangles.min() < 0 or triangles.max() >= len(vertices):
        raise DataError(f"{path}: a face names vertex {triangles.max()} of {len(vertices)}; leave it out or mend it")
    return vertices, triangles


def sample_surface(
    vertices: NDArray[np.float64], triangles: NDArray[np.int64], points: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Points on a surface ``(points, 3)``, even in area.

    Example:
        >>> corners = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
        >>> cloud = sample_surface(corners, np.array([[0, 1, 2]]), 100, np.random.default_rng(0))
        >>> bool((cloud.sum(1) <= 1).all())
        True
    """
    a, b, c = vertices[triangles].swapaxes(0, 1)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    chosen = np.searchsorted(np.cumsum(area), generator.random(points) * area.sum(), side="right")
    chosen = np.minimum(chosen, len(area) - 1)
    u, v = generator.random((2, points, 1))
    folded = u + v > 1
    u, v = np.where(folded, 1 - u, u), np.where(folded, 1 - v, v)
    return a[chosen] + u * (b - a)[chosen] + v * (c - a)[chosen]


def _trimesh(path: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    try:
        import trimesh
    except ImportError:
        raise MissingExtraError("trimesh", "meshes", f"reading {path}") from None
    try:
        mesh: Any = trimesh.load(path, force="mesh")
        return np.asarray(mesh.vertices, dtype=np.float64), np.asarray(mesh.faces, dtype=np.int64)
    except (ValueError, IndexError, KeyError, AttributeError, TypeError, NotImplementedError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: not a readable mesh ({reason}); leave it out or mend it") from None


def _vrml(path: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    text = path.read_text(errors="replace")
    vertices: list[NDArray[np.float64]] = []
    triangles: list[tuple[int, int, int]] = []
    total = 0
    for block in re.split(r"\bIndexedFaceSet\b", text)[1:]:
        arrays = dict(_ARRAYS.findall(block))
        if set(arrays) != {"point", "coordIndex"}:
            raise DataError(f"{path}: not a readable mesh (a face set without points or indices); leave it out")
        try:
            points = np.array(arrays["point"].replace(",", " ").split(), dtype=np.float64).reshape(-1, 3)
            index = [int(word) for word in arrays["coordIndex"].replace(",", " ").split()]
        except ValueError as error:
            raise DataError(f"{path}: not a readable mesh ({error}); leave it out or mend it") from None
        face: list[int] = []
        for corner in [*index, -1]:
            if corner >= 0:
                face.append(total + corner)
                continue
            triangles += [(face[0], face[k], face[k + 1]) for k in range(1, len(face) - 1)]
            face = []
        vertices.append(points)
        total += len(points)
    joined = np.concatenate(vertices) if vertices else np.empty((0, 3))
    return joined, np.array(triangles, dtype=np.int64).reshape(-1, 3)
