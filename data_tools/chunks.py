"""Long work in chunks that survive being stopped."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from sparsegen.data.files import sync
from sparsegen.errors import ConfigError

__all__ = ["Chunk", "finish_chunks", "load_chunks"]

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Chunk:
    """One piece of the work.

    Args:
        name: Of its file; results are read in the order of the chunks.
        make: A function of the module's top level, so that other processes can be given it.
        arguments: What it is called with.
    """

    name: str
    make: Callable[..., Arrays]
    arguments: tuple[Any, ...]


def finish_chunks(folder: Path, call: Mapping[str, Any], chunks: Sequence[Chunk], processes: int, what: str) -> None:
    """Make every chunk that is not in the folder yet.

    Args:
        folder: Where finished chunks wait.
        call: What is being made; the chunks of another call are not touched.
        chunks: The work.
        processes: How many chunks are made at once.
        what: A word for the progress bar.

    Raises:
        ConfigError: The folder holds the chunks of another call.
    """
    _claim(folder, json.dumps(call, sort_keys=True))
    tasks = [(folder / f"{chunk.name}.npz", chunk) for chunk in chunks if not (folder / f"{chunk.name}.npz").exists()]
    if processes > 1:
        # Pythia keeps global state: each worker is a fresh interpreter
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            for _ in track(pool.imap_unordered(save_chunk, tasks), what, total=len(tasks)):
                pass
    else:
        for task in track(tasks, what):
            save_chunk(task)


def save_chunk(task: tuple[Path, Chunk]) -> None:
    """Make one chunk; its file appears whole or not at all."""
    path, chunk = task
    temporary = path.with_suffix(".tmp.npz")
    np.savez(temporary, **chunk.make(*chunk.arguments))  # type: ignore[arg-type]
    sync(temporary)
    temporary.replace(path)


def load_chunks(folder: Path, chunks: Sequence[Chunk]) -> Arrays:
    """The finished chunks joined, array by array."""
    parts: list[Arrays] = []
    for chunk in chunks:
        with np.load(folder / f"{chunk.name}.npz") as stored:
            parts.append({name: stored[name] for name in stored.files})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _claim(folder: Path, call: str) -> None:
    note = folder / "call.json"
    if not note.exists():
        folder.mkdir(exist_ok=True)
        note.write_text(call)
    elif json.loads(note.read_text()) != json.loads(call):
        raise ConfigError(f"{folder}: holds the chunks of another call ({note.read_text()}); finish that or remove it")
