"""The folder of a run: its config, status, metrics and lock."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import math
import os
import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from sparsegen.errors import ConfigError, DataError, SparsegenError
from sparsegen.training.checkpoint import Checkpoints, replace_file
from sparsegen.training.config import RunConfig, diff

__all__ = ["RunFolder"]

_CSV_HEADER = ("step", "epoch", "stage", "name", "value")


class RunFolder:
    """Paths and files of one run.

    Args:
        path: The folder: ``config.yaml``, ``status.json``, ``metrics.jsonl``, ``metrics.csv``, ``checkpoints/``.
        keep: Checkpoints that are kept.
    """

    def __init__(self, path: str | Path, keep: int = 2) -> None:
        self.path = Path(path)
        self.checkpoints = Checkpoints(self.path / "checkpoints", keep)
        self._lock: TextIO | None = None
        self._metrics: tuple[TextIO, TextIO] | None = None

    # One process, one config

    def claim(self, config: RunConfig) -> None:
        """Makes the folder this process's own and writes the config, or refuses.

        Raises:
            ConfigError: Another process trains there, another config lives there, or it cannot be written.
        """
        with ExitStack() as undo:
            undo.callback(self.release)
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                self._acquire()
                self._check_config(config)
            except OSError as error:
                reason = error.strerror or error
                raise ConfigError(f"{self.path}: {reason}; choose a folder that can be written") from error
            undo.pop_all()

    def _acquire(self) -> None:
        # The kernel drops a flock with its process, so a lock that a killed run left behind is free.
        lock = open(self.path / "lock", "a+", encoding="utf-8")  # noqa: SIM115 - held until release
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            lock.close()
            raise ConfigError(
                f"{self.path} is being trained by {holder}; wait for it or choose another folder"
            ) from None
        lock.seek(0)
        lock.truncate()
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        self._lock = lock

    def _check_config(self, config: RunConfig) -> None:
        path = self.path / "config.yaml"
        if path.exists():
            changes = diff(RunConfig.from_yaml(path), config, identity=True)
            if changes:
                raise ConfigError(
                    f"{self.path} holds a run with another config ({'; '.join(changes)}); choose another folder"
                )
        else:
            for name in ("checkpoints", "metrics.jsonl", "metrics.csv", "status.json"):
                if (self.path / name).exists():
                    raise ConfigError(f"{self.path} holds {name} but no config.yaml; choose another folder")
        replace_file(path, [config.to_yaml().encode()])

    def release(self) -> None:
        """Gives the lock back and closes the metrics."""
        self._close_metrics()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def config(self) -> RunConfig:
        """The config that the run was made with."""
        return RunConfig.from_yaml(self.path / "config.yaml")

    # Status

    def write_status(self, status: str, **fields: Any) -> None:
        """Replaces ``status.json``: what tells whether a run is done, never an exit code."""
        values = {"status": status, **fields, "updated": time.time(), "pid": os.getpid(), "host": socket.gethostname()}
        replace_file(self.path / "status.json", [(json.dumps(values, indent=1) + "\n").encode()])

    def read_status(self) -> dict[str, Any]:
        """What ``status.json`` says; empty where there is none."""
        try:
            values: dict[str, Any] = json.loads((self.path / "status.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except json.JSONDecodeError:
            raise DataError(f"{self.path / 'status.json'}: not JSON; remove it and run again") from None
        return values

    def write_dump(self, name: str, values: Mapping[str, Any]) -> None:
        """Writes a JSON file beside the others: what is known of a step that went wrong."""
        self.path.mkdir(parents=True, exist_ok=True)  # another node need not have it
        replace_file(self.path / name, [(json.dumps(values, indent=1) + "\n").encode()])

    # Metrics

    def open_metrics(self, sizes: Mapping[str, int] | None) -> None:
        """Opens the metrics for appending, cut back to what they held at the checkpoint that a run goes on from.

        Args:
            sizes: Bytes of each file then; None starts afresh.
        """
        self._close_metrics()
        opened = []
        for name in ("metrics.jsonl", "metrics.csv"):
            path = self.path / name
            file = open(path, "a", encoding="utf-8", newline="")  # noqa: SIM115 - held until release
            held = path.stat().st_size
            size = min(held, sizes.get(name, 0)) if sizes else 0
            file.truncate(size)
            opened.append(file)
        self._metrics = (opened[0], opened[1])
        if not os.fstat(opened[1].fileno()).st_size:
            opened[1].write(",".join(_CSV_HEADER) + "\n")
            opened[1].flush()

    def _close_metrics(self) -> None:
        for file in self._metrics or ():
            file.close()
        self._metrics = None

    def log(self, step: int, epoch: float, stage: str, values: Mapping[str, float], seconds: float) -> None:
        """Appends one row to ``metrics.jsonl`` and one line a value to ``metrics.csv``; what is not finite is null."""
        assert self._metrics is not None
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        row = {"step": step, "epoch": epoch, "stage": stage, "seconds": seconds, **finite}
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows((step, epoch, stage, name, value) for name, value in values.items())
        try:
            for file, lines in zip(self._metrics, (json.dumps(row) + "\n", text.getvalue()), strict=True):
                file.write(lines)
                file.flush()
        except OSError as error:
            raise SparsegenError(
                f"cannot write the metrics in {self.path}: {error.strerror or error}; make room, then run the same "
                "command again: it goes on from the last checkpoint"
            ) from error

    def metrics_sizes(self) -> dict[str, int]:
        """Bytes of each metrics file, made durable first."""
        assert self._metrics is not None
        for file in self._metrics:
            file.flush()
            os.fsync(file.fileno())
        return {Path(file.name).name: os.fstat(file.fileno()).st_size for file in self._metrics}
