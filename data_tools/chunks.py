"""Long work in chunks that survive being stopped.

Finished chunks wait as files in ``OUTPUT.chunks/``. The same call again makes only those that are missing, so that its
result does not depend on how often it was stopped, nor on the number of processes.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track

import sparsegen
from sparsegen.data.files import sync
from sparsegen.errors import ConfigError, DataError

__all__ = ["Chunk", "finish_chunks", "in_chunks", "progress", "refuse_existing"]

T = TypeVar("T")
_LINE_EVERY = 30.0


@dataclass(frozen=True)
class Chunk:
    """One piece of the work.

    Args:
        name: Of its file, ending included.
        make: Writes the file it is given first; a function of a module's top level, so that other processes can be
            given it.
        arguments: What it is called with after the file.
    """

    name: str
    make: Callable[..., None]
    arguments: tuple[Any, ...]


def in_chunks(
    output: Path,
    call: Mapping[str, Any],
    chunks: Sequence[Chunk],
    assemble: Callable[[list[Path]], T],
    *,
    what: str,
    processes: int = 1,
    overwrite: bool = False,
) -> T:
    """Make a file from chunks, going on where the same call was stopped.

    Args:
        output: The file to make; chunks wait in the folder of its name with ``.chunks``.
        call: What is being made, as plain types. The chunks of another call are not touched.
        chunks: The work, in order.
        assemble: Makes the output from the chunks' files.
        what: A word for the progress bar.
        processes: How many chunks are made at once.
        overwrite: Whether an existing output may be replaced.

    Raises:
        ConfigError: The folder holds the chunks of another call, or a process died.
        DataError: The output exists, or its folder does not.
    """
    output = Path(output)
    refuse_existing(output, overwrite)
    if processes < 1:
        raise ConfigError(f"{processes} processes asked for; expected at least 1")
    folder = output.with_name(output.name + ".chunks")
    result = assemble(finish_chunks(folder, call, chunks, processes, what))
    shutil.rmtree(folder)
    return result


def refuse_existing(output: Path, overwrite: bool) -> None:
    """Raises where a file to make exists already, or its folder does not or is read only."""
    if output.is_dir():
        raise DataError(f"{output}: is a folder; choose another name")
    if output.exists() and not overwrite:
        raise DataError(f"{output}: exists already; choose another name or pass --overwrite")
    if not output.parent.is_dir():
        raise DataError(f"{output}: the folder {output.parent} does not exist; create it first")
    if not os.access(output.parent, os.W_OK):
        raise DataError(f"{output}: the folder {output.parent} may not be written to; choose another")


def finish_chunks(
    folder: Path, call: Mapping[str, Any], chunks: Sequence[Chunk], processes: int, what: str
) -> list[Path]:
    """Make every chunk that is not in the folder yet; their files, in order.

    Raises:
        ConfigError: The folder holds the chunks of another call, or a process died.
    """
    _claim(folder, {**call, "sparsegen": sparsegen.__version__})
    paths = [folder / chunk.name for chunk in chunks]
    tasks = [(path, chunk) for path, chunk in zip(paths, chunks, strict=True) if not path.exists()]
    if len(tasks) < len(chunks):
        print(f"{folder}: going on after {len(chunks) - len(tasks)} of {len(chunks)} chunks", file=sys.stderr)
    try:
        for _ in progress(_finished(tasks, processes), what, len(tasks)):
            pass
    finally:
        if chunks and not any(path.exists() for path in paths):
            shutil.rmtree(folder)
    return paths


def _finished(tasks: Sequence[tuple[Path, Chunk]], processes: int) -> Iterator[None]:
    if processes == 1 or len(tasks) < 2:
        for task in tasks:
            save_chunk(task)
            yield
        return
    # Pythia keeps global state: each worker is a fresh interpreter
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(tasks)), context) as pool:
        futures = [pool.submit(save_chunk, task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool:
            raise ConfigError(
                "a process died, as when memory runs out; finished chunks are kept: run again with fewer --processes"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def save_chunk(task: tuple[Path, Chunk]) -> None:
    """Make one chunk; its file appears whole or not at all."""
    path, chunk = task
    # Of this process alone: a second one on the same output cannot write into it
    temporary = path.with_name(f"unfinished-{os.getpid()}-{path.name}")
    chunk.make(temporary, *chunk.arguments)
    sync(temporary)
    temporary.replace(path)


def progress(steps: Iterable[T], what: str, total: int) -> Iterator[T]:
    """The steps, with a bar on a terminal, else with a line on standard error every half minute."""
    console = Console(file=sys.stderr)
    if console.is_terminal:
        yield from track(steps, what, total=total, console=console)
        return
    start = said = time.monotonic()
    for done, step in enumerate(steps, 1):
        yield step
        now = time.monotonic()
        if now - said > _LINE_EVERY and done < total:
            said = now
            left = (now - start) / done * (total - done)
            print(f"{what}: {done} of {total} done, about {left:,.0f} s left", file=sys.stderr, flush=True)


def _claim(folder: Path, call: Mapping[str, Any]) -> None:
    note = folder / "call.json"
    # As JSON gives it back: tuples become lists
    call = json.loads(json.dumps(call))
    if note.exists():
        before = json.loads(note.read_text())
        changed = sorted(key for key in {*call, *before} if call.get(key) != before.get(key))
        if changed:
            raise ConfigError(
                f"{folder}: holds unfinished work of another call, with other {', '.join(changed)}; "
                "finish that, remove the folder, or choose another output"
            )
        return
    folder.mkdir(exist_ok=True)
    temporary = folder / "call.tmp"
    temporary.write_text(json.dumps(call))
    temporary.replace(note)
