"""The vertices of a PLY file, text or binary.

References:
    The PLY Polygon File Format, Turk, 1994
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsegen.errors import DataError

__all__ = ["read_ply"]

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
_ORDER = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


def read_ply(path: Path) -> NDArray[Any]:
    """Positions of the vertices ``(P, 3)``.

    Raises:
        DataError: It is no PLY file, its vertices do not come first, or it is cut short.
    """
    raw = path.read_bytes()
    head, mark, body = raw.partition(b"end_header")
    lines = [line.split() for line in head.decode("ascii", "replace").splitlines()]
    if not mark or not lines or lines[0] != ["ply"]:
        raise DataError(f"{path}: not a PLY file; copy or make it again")
    body = body.lstrip(b"\r")[1:]
    layout = next((line[1] for line in lines if line[0] == "format"), "")
    elements = [line for line in lines if line and line[0] == "element"]
    if layout not in _ORDER or not elements or elements[0][1] != "vertex":
        raise DataError(
            f"{path}: format {layout!r}, first element {elements[:1]}; expected vertices first: export again"
        )
    count = int(elements[0][2])
    first = lines.index(elements[0]) + 1
    properties = []
    for line in lines[first:]:
        if line[0] == "element":
            break
        if line[0] == "property":
            properties.append((line[-1], line[1]))
    missing = [axis for axis in "xyz" if axis not in dict(properties)]
    if missing or any(kind not in _TYPES for _, kind in properties):
        raise DataError(f"{path}: vertex properties {properties}; expected numbers with x, y and z: export again")
    if layout == "ascii":
        rows = [line.split() for line in body.decode("ascii", "replace").splitlines()[:count]]
        if len(rows) < count or any(len(row) < len(properties) for row in rows):
            raise DataError(f"{path}: cut short, {count} vertices promised; copy or make it again")
        names = [name for name, _ in properties]
        try:
            return np.array([[float(row[names.index(axis)]) for axis in "xyz"] for row in rows]).reshape(-1, 3)
        except ValueError:
            number = next(i for i, row in enumerate(rows) if not all(map(_is_number, row)))
            raise DataError(f"{path}: vertex {number} is {rows[number]}; expected numbers: export again") from None
    kind = np.dtype([(name, _ORDER[layout] + _TYPES[kind]) for name, kind in properties])
    if len(body) < count * kind.itemsize:
        raise DataError(f"{path}: cut short, {count} vertices promised; copy or make it again")
    vertices = np.frombuffer(body, dtype=kind, count=count)
    return np.stack([vertices[axis].astype(np.float64) for axis in "xyz"], axis=1)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
