"""Checkpoints: one verified file each, complete or absent, with every random state inside."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import random
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sparsegen.errors import DataError, SparsegenError

__all__ = ["Checkpoints", "random_state", "read_checkpoint", "set_random_state", "write_checkpoint"]

# Layout: magic, length of the manifest (8 bytes), SHA-256 of the manifest (32), manifest (JSON), payload (torch.save).
# The manifest holds the payload's SHA-256, so that every byte of the file is under a digest.
MAGIC = b"SPGNCKP1"
_HEAD = len(MAGIC) + 8 + 32


def fsync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_file(path: Path, parts: list[bytes | memoryview]) -> None:
    """Writes a file beside its name, makes it durable and renames it: at any moment the old or the new one is whole."""
    beside = path.with_name(path.name + ".part")
    try:
        with open(beside, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        fsync_folder(path.parent)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise SparsegenError(
            f"cannot write {path}: {error.strerror or error}; what was there before is intact: "
            "make room or give write access, then run the same command again"
        ) from error


def write_checkpoint(path: Path, state: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
    """Writes a checkpoint atomically.

    Args:
        path: The file.
        state: Tensors and plain types only: it must load with ``weights_only=True``.
        manifest: Plain types that describe it; size and SHA-256 are added.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    payload = buffer.getbuffer()
    described = dict(manifest) | {"bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}
    text = json.dumps(described, sort_keys=True).encode()
    head = MAGIC + len(text).to_bytes(8, "big") + hashlib.sha256(text).digest()
    replace_file(path, [head, text, payload])


def _manifest(path: Path, file: io.BufferedReader) -> dict[str, Any]:
    head = file.read(_HEAD)
    if len(head) < _HEAD or head[: len(MAGIC)] != MAGIC:
        raise DataError(f"{path}: not a checkpoint, or truncated at {len(head)} bytes")
    text = file.read(min(int.from_bytes(head[len(MAGIC) : len(MAGIC) + 8], "big"), 2**24))
    if hashlib.sha256(text).digest() != head[-32:]:
        raise DataError(f"{path}: the manifest does not match its SHA-256; the file is damaged")
    manifest: dict[str, Any] = json.loads(text)
    return manifest


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """State and manifest of a checkpoint, every byte verified, tensors on the CPU.

    Raises:
        DataError: The file is truncated, damaged, or not a checkpoint.
    """
    with open(path, "rb") as file:
        manifest = _manifest(path, file)
        payload = file.read()
    if len(payload) != manifest["bytes"]:
        raise DataError(f"{path}: {len(payload)} bytes of state where {manifest['bytes']} were written; truncated")
    if hashlib.sha256(payload).hexdigest() != manifest["sha256"]:
        raise DataError(f"{path}: the state does not match its SHA-256; the file is damaged")
    try:
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise DataError(f"{path}: written by an incompatible version: {str(error).splitlines()[0]}") from error
    return state, manifest


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: Where they are.
        keep: How many of the newest stay.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    def paths(self) -> list[Path]:
        """The files, newest first."""
        return sorted(self.folder.glob("step-*.ckpt"), reverse=True)

    def write(self, state: Mapping[str, Any], manifest: Mapping[str, Any]) -> Path:
        """Adds a checkpoint, named by the manifest's stage and step, and removes the oldest ones beyond ``keep``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step-{manifest['step']:09d}-{manifest['stage']:02d}.ckpt"
        write_checkpoint(path, state, manifest)
        for old in self.paths()[self.keep :]:
            old.unlink(missing_ok=True)
        return path

    def read(self, on_damage: Callable[[Path], object] | None = None) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """State and manifest of the newest checkpoint that is whole; None where there is none at all.

        Args:
            on_damage: Called with each damaged file that was passed over.

        Raises:
            DataError: There are checkpoints and every one is damaged.
        """
        paths = self.paths()
        for path in paths:
            try:
                return read_checkpoint(path)
            except DataError as error:
                warnings.warn(f"{error}; taking the checkpoint before it", RuntimeWarning, stacklevel=2)
                if on_damage is not None:
                    on_damage(path)
        if paths:
            raise DataError(f"{self.folder}: all {len(paths)} checkpoints are damaged; start again in a new folder")
        return None


def random_state(generator: torch.Generator) -> dict[str, Any]:
    """Every random state of this process, in types that load with ``weights_only=True``."""
    numpy: Any = np.random.get_state(legacy=False)  # noqa: NPY002 - models may draw from the global state
    inner = numpy["state"]
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": {
            "key": torch.from_numpy(inner["key"].astype(np.int64)),
            "pos": int(inner["pos"]),
            "has_gauss": int(numpy["has_gauss"]),
            "gauss": float(numpy["gauss"]),
        },
        "python": random.getstate(),
        "generator": generator.get_state(),
    }


def set_random_state(state: Mapping[str, Any], generator: torch.Generator) -> None:
    """Puts back what :func:`random_state` took."""
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    numpy = state["numpy"]
    key = numpy["key"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", key, numpy["pos"], numpy["has_gauss"], numpy["gauss"]))  # noqa: NPY002
    random.setstate(state["python"])
    generator.set_state(state["generator"])
