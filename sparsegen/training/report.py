"""What a run tells while it goes: rows of metrics, a progress bar, TensorBoard."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from sparsegen.errors import MissingExtraError
from sparsegen.training.config import TrainingConfig
from sparsegen.training.folder import RunFolder

__all__ = ["Reporter"]


class Reporter:
    """Collects scalars of steps without waiting for the device, and writes their means each interval.

    Args:
        folder: Where rows are written; None on ranks that write nothing.
        training: Settings.
        total: Steps of the run.
    """

    def __init__(self, folder: RunFolder | None, training: TrainingConfig, total: int) -> None:
        self.folder = folder
        self.training = training
        self.total = total
        self.pending: dict[str, list[float | Tensor]] = {}
        self._events = 0
        self._since = time.monotonic()
        self._progress: Progress | None = None
        self._task: Any = None
        self._board: Any = None

    @contextmanager
    def opened(self, sizes: Mapping[str, int] | None) -> Iterator[None]:
        """Files and bar open; ``sizes`` as in :meth:`RunFolder.open_metrics`."""
        if self.folder is None:
            yield
            return
        self.folder.open_metrics(sizes)
        self._board = _board(self.folder) if self.training.tensorboard else None
        shown = sys.stderr.isatty() and not os.environ.get("CI")
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._since = time.monotonic()
        try:
            if shown:
                with Progress(*columns, console=Console(stderr=True)) as self._progress:
                    self._task = self._progress.add_task(str(self.folder.path), total=self.total)
                    yield
            else:
                yield
        finally:
            self._progress = None
            if self._board is not None:
                self._board.close()

    @contextmanager
    def untimed(self) -> Iterator[None]:
        """What is done inside does not count as training time."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._since += time.monotonic() - start

    def collect(
        self, scalars: Mapping[str, Tensor | float], norms: Mapping[str, float], events: int, step: int
    ) -> None:
        """Notes the scalars of one step."""
        pending = self.pending
        for name, value in scalars.items():
            if isinstance(value, Tensor):
                value = value.detach()
            pending.setdefault(name, []).append(value)
        for name, value in norms.items():
            pending.setdefault(f"grad_norm/{name}", []).append(value)
        self._events += events
        if self._progress is not None:
            self._progress.update(self._task, completed=step)

    def reduced(self) -> dict[str, list[float]]:
        """What is collected since the last row, as plain numbers."""
        self.pending = {name: list(_numbers(values)) for name, values in self.pending.items()}
        return {name: [float(v) for v in values] for name, values in self.pending.items()}

    def means(self) -> dict[str, float]:
        """Means since the last row, and events per second; starts the next interval."""
        means = {name: sum(values) / len(values) for name, values in self.reduced().items()}
        now = time.monotonic()
        means["events_per_second"] = self._events / max(now - self._since, 1e-9)
        self.pending, self._events, self._since = {}, 0, now
        return means

    def row(self, step: int, epoch: float, stage: str, values: Mapping[str, float], seconds: float) -> None:
        """Writes one row."""
        if self.folder is None:
            return
        self.folder.log(step, epoch, stage, values, seconds)
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
        if self._progress is not None:
            shown = [
                f"{k} {v:.4g}"
                for k, v in values.items()
                if "/" not in k and k != "events_per_second" and math.isfinite(v)
            ]
            self._progress.update(self._task, description=f"{stage} {' '.join(shown[:3])}")


def _numbers(values: list[float | Tensor]) -> list[float]:
    """Plain numbers, read from the device at once."""
    tensors = [v for v in values if isinstance(v, Tensor)]
    read = iter(torch.stack(tensors).tolist() if tensors else [])
    return [next(read) if isinstance(v, Tensor) else float(v) for v in values]


def _board(folder: RunFolder) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingExtraError("tensorboard", "tensorboard", "training.tensorboard=true") from None
    return SummaryWriter(str(folder.path / "tensorboard"))
