"""The trainer: runs a model's stages over a data set, and loses nothing when it is stopped."""

from __future__ import annotations

import math
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from sparsegen import __version__
from sparsegen.errors import ConfigError, DataError, DivergedError, SparsegenError
from sparsegen.events import Events
from sparsegen.models.base import FitStage, GradientStage, Model, Optimizers, Stage
from sparsegen.training.average import WeightAverage
from sparsegen.training.checkpoint import random_state, set_random_state
from sparsegen.training.config import RunConfig
from sparsegen.training.fabric import (
    average_gradients,
    broadcast_module,
    gather,
    make_fabric,
    mean_over_ranks,
    on_rank_zero,
)
from sparsegen.training.folder import RunFolder
from sparsegen.training.monitor import collapse
from sparsegen.training.report import Reporter
from sparsegen.training.signals import StopFlag

if TYPE_CHECKING:
    from sparsegen.data import EventSource

__all__ = ["RunResult", "Trainer"]

ROLLBACKS = 3


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Args:
        status: ``done``, ``interrupted`` (saved; the same command goes on) or ``diverged``.
        step: Steps taken.
        skipped: Steps left out because of a non-finite loss or gradient.
        rollbacks: Returns to a checkpoint for the same reason.
        message: Why it ended, where it was not simply done.
    """

    status: str
    step: int
    skipped: int = 0
    rollbacks: int = 0
    message: str = ""

    @property
    def exit_code(self) -> int:
        """For the command line: 0 done, 3 diverged, 75 interrupted (EX_TEMPFAIL: run the same command again)."""
        return {"done": 0, "diverged": 3, "interrupted": 75}[self.status]


class Trainer:
    """Trains one model into one folder; the same call again resumes.

    Args:
        run_dir: Gets ``config.yaml``, ``status.json``, ``metrics.jsonl``, ``metrics.csv`` and ``checkpoints/``.
        config: The run.
    """

    def __init__(self, run_dir: str | Path, config: RunConfig) -> None:
        self.folder = RunFolder(run_dir, config.training.keep)
        self.config = config

    def fit(self, model: Model, source: EventSource) -> RunResult:
        """Trains until the stages are through, a signal comes, or the loss is no longer finite.

        Args:
            model: Left on the run's device with the weights that sampling uses, in evaluation mode.
            source: The training events.

        Raises:
            ConfigError: The folder holds another config or data set, or another process trains there.
            DataError: The data set is too small, or every checkpoint is damaged.
            SparsegenError: Out of memory: names the batch, its largest event and what to change.
        """
        fabric = make_fabric(self.config.training)
        on_rank_zero(fabric, lambda: self.folder.claim(self.config))
        try:
            with StopFlag() as stop:
                return _Run(fabric, self.folder, self.config, model, source, stop).run()
        finally:
            self.folder.release()


def derived_seed(*keys: int | str) -> int:
    """A seed for one purpose, independent of those for others."""
    return int.from_bytes(sha256(repr(keys).encode()).digest()[:8], "big") >> 1


class _Run:
    """The state of one call of :meth:`Trainer.fit`."""

    def __init__(
        self, fabric: Any, folder: RunFolder, config: RunConfig, model: Model, source: EventSource, stop: StopFlag
    ) -> None:
        self.fabric = fabric
        self.folder = folder
        self.config = config
        self.training = config.training
        self.model = model
        self.source = source
        self.stop = stop
        self.device: torch.device = fabric.device
        self.dtype = torch.float64 if self.training.precision == "64-true" else torch.float32
        self.rank, self.world = fabric.global_rank, fabric.world_size
        self.batch = min(self.training.batch, len(source) // self.world)
        if self.batch == 0:
            raise DataError(f"{source.name}: {len(source)} events for {self.world} processes; each needs one at least")
        self.per_epoch = len(source) // (self.batch * self.world)
        self.total = self.training.max_steps or self.training.epochs * self.per_epoch
        self.stages = model.stages
        self.ends = _stage_ends(self.stages, self.total)
        self.step = 0
        self.stage = 0
        self.skipped = 0
        self.rollbacks = 0
        self.seconds_before = 0.0
        self.generator = torch.Generator(self.device)
        self.reporter = Reporter(folder if self.rank == 0 else None, self.training, self.total)
        self.saved_step, self.saved_at = -1, 0.0

    # Start and end

    def run(self) -> RunResult:
        status = self._on_zero(self.folder.read_status)
        with ExitStack() as stack:
            stack.enter_context(_determinism(self.training.deterministic))
            stack.enter_context(self.fabric.strategy.precision.tensor_init_context())
            self._place()
            stack.enter_context(self._set_up())
            resumed = self._restore()
            if status.get("status") in ("done", "diverged"):
                self._finish_model()
                return self._result(status["status"], status.get("message", ""))
            self.started = time.monotonic()
            stack.enter_context(self.reporter.opened(resumed))
            return self._stages()

    def _stages(self) -> RunResult:
        outcome, message = "failed", "an error ended the run; its text is where the command was started"
        try:
            self._status("running")
            if self.saved_step < 0:
                self._save()
            outcome, message = self._run_stages()
        except DivergedError as error:
            outcome, message = "diverged", str(error)
        except SparsegenError as error:
            message = str(error)
            raise
        finally:
            self._status(outcome, message)
        self._finish_model()
        return self._result(outcome, message)

    def _run_stages(self) -> tuple[str, str]:
        while self.stage < len(self.stages):
            stage = self.stages[self.stage]
            if isinstance(stage, FitStage):
                self._fit(stage)
            else:
                try:
                    stopped = self._gradient(stage, self.ends[self.stage])
                except DivergedError as error:
                    self._roll_back(error)
                    continue
                if stopped:
                    self._save()
                    return "interrupted", f"{stopped}: saved at step {self.step}; the same command goes on"
            self.stage += 1
            self._save()
            if name := self._stopping():
                return "interrupted", f"{name}: saved at step {self.step}; the same command goes on"
        return "done", ""

    def _result(self, status: str, message: str) -> RunResult:
        return RunResult(status, self.step, self.skipped, self.rollbacks, message)

    def _finish_model(self) -> None:
        if self.average is not None:
            self.average.swap()
            self.average = None
        self.model.eval()

    def _on_zero(self, work: Any) -> Any:
        return on_rank_zero(self.fabric, work)

    def _status(self, status: str, message: str = "") -> None:
        if self.rank == 0:
            self.folder.write_status(
                status,
                step=self.step,
                steps=self.total,
                stage=self.stage,
                stages=len(self.stages),
                seconds=self._seconds(),
                skipped=self.skipped,
                rollbacks=self.rollbacks,
                config_hash=self.config.hash,
                message=message,
            )

    def _seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.started

    # Model, networks, optimisers

    def _place(self) -> None:
        self.model.to(self.device)
        if self.dtype == torch.float64:
            self.model.double()
        self.model.train()
        missing = [
            n for names in self.model.optimized.values() for n in names if n not in dict(self.model.named_children())
        ]
        if missing:
            raise ConfigError(f"{type(self.model).__name__}.optimized names {missing[0]!r}, which is no child module")
        self.networks = {n: getattr(self.model, n) for names in self.model.optimized.values() for n in names}
        self.raw_optimizers = {
            name: torch.optim.Adam(
                [p for child in children for p in self.networks[child].parameters()],
                lr=self.training.lr * self.model.lr_factors.get(name, 1.0),
                betas=self.model.betas,
            )
            for name, children in self.model.optimized.items()
        }
        self.average: WeightAverage | None = None
        if self.training.ema is not None:
            sampled = nn.ModuleDict({name: getattr(self.model, name) for name in self.model.sampled})
            self.average = WeightAverage(sampled, self.training.ema)

    @contextmanager
    def _set_up(self) -> Iterator[None]:
        """The networks wrapped one by one by Fabric inside the model, and plain again afterwards."""
        self.wrapped = {name: self.fabric.setup_module(network) for name, network in self.networks.items()}
        try:
            yield
        finally:
            self._swap(self.networks)

    def _swap(self, networks: dict[str, nn.Module]) -> None:
        for name, network in networks.items():
            setattr(self.model, name, network)

    def _ready(self) -> None:
        """Wraps networks and optimisers once their state is in place."""
        self._swap(self.wrapped)
        self.optimizers = Optimizers(
            {name: self.fabric.setup_optimizers(optimizer) for name, optimizer in self.raw_optimizers.items()},
            backward=self.fabric.backward,
            clip=self.training.clip,
            on_nonfinite="skip" if self.training.on_nonfinite == "skip" else "raise",
            average=average_gradients if self.world > 1 else None,
        )
        self.optimizers.skipped = self.skipped

    def _restore(self) -> dict[str, int] | None:
        """State of the newest whole checkpoint, or of a fresh run; returns what the metrics held then."""
        found = self._on_zero(lambda: self.folder.checkpoints.read(on_damage=_set_aside))
        if found is None:
            self._seed()
            broadcast_module(self.fabric, self.model)
            self._ready()
            return None
        state, manifest = found
        if len(state["random"]) != self.world:
            raise ConfigError(
                f"{self.folder.path} was trained by {len(state['random'])} processes; these are {self.world}"
            )
        if state["data"] != [self.source.name, self.source.fingerprint]:
            raise ConfigError(
                f"{self.folder.path} was trained on {state['data'][0]} ({state['data'][1][:12]}), "
                f"this is {self.source.name} ({self.source.fingerprint[:12]}); choose another folder"
            )
        self._swap(self.networks)
        self.model.load_state_dict(state["model"])
        for name, optimizer in self.raw_optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.step, self.stage = manifest["step"], manifest["stage"]
        self.skipped, self.rollbacks = state["skipped"], max(self.rollbacks, state["rollbacks"])
        self.seconds_before = state["seconds"]
        self.reporter.pending = {name: list(values) for name, values in state["pending"].items()}
        set_random_state(state["random"][self.rank], self.generator)
        self._ready()
        self.saved_step, self.saved_at = self.step, time.monotonic()
        sizes: dict[str, int] = state["metrics"]
        return sizes

    def _seed(self) -> None:
        seed = derived_seed(self.training.seed, "noise", self.rank, self.rollbacks)
        self.generator.manual_seed(seed)
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)

    def _save(self) -> None:
        """Writes a checkpoint; every rank takes part, rank 0 writes."""
        states = gather(self.fabric, random_state(self.generator))
        self.saved_step, self.saved_at = self.step, time.monotonic()
        if self.rank != 0:
            return
        self._swap(self.networks)
        state = {
            "model": self.model.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.raw_optimizers.items()},
            "average": None if self.average is None else self.average.state_dict(),
            "random": states,
            "skipped": self.skipped,
            "rollbacks": self.rollbacks,
            "seconds": self._seconds(),
            "pending": self.reporter.reduced(),
            "metrics": self.folder.metrics_sizes(),
            "schema": _schema(self.model),
            "data": [self.source.name, self.source.fingerprint],
        }
        self._swap(self.wrapped)
        versions = {"sparsegen": __version__, "torch": torch.__version__, "python": sys.version.split()[0]}
        manifest = {"step": self.step, "stage": self.stage, "config_hash": self.config.hash, "versions": versions}
        self.folder.checkpoints.write(state, manifest)

    # Stages

    def _batches(self, **options: Any) -> Iterator[Events]:
        for events in self.source.batches(self.batch, **options):
            yield self._here(events)

    def _here(self, events: Events) -> Events:
        if events.device != self.device:
            events = events.to(self.device)
        return events if events.features.dtype == self.dtype else events.to(self.dtype)

    def _fit(self, stage: FitStage) -> None:
        generator = torch.Generator(self.device).manual_seed(derived_seed(self.training.seed, "fit", self.stage))
        self.model.eval()
        with self._sampling_weights():
            values = stage.fit(self._batches, generator)
        self.model.train()
        self._swap(self.networks)
        broadcast_module(self.fabric, self.model)
        self._swap(self.wrapped)
        if self.rank == 0:
            numbers = {name: float(value) for name, value in values.items() if isinstance(value, (int, float, Tensor))}
            self.reporter.row(self.step, self.step / self.per_epoch, stage.name, numbers, self._seconds())

    def _gradient(self, stage: GradientStage, end: int) -> str:
        """Steps until ``end``; returns the name of the signal that stopped them, if one did."""
        order = derived_seed(self.training.seed, "order", self.rollbacks) % 2**32
        while self.step < end:
            epoch, start = divmod(self.step, self.per_epoch)
            before = self.step
            shard = {"rank": self.rank, "world": self.world, "drop_last": True, "start": start}
            for events in self._batches(shuffle=True, seed=order, epoch=epoch, **shard):
                self._one_step(stage, events)
                if self.step % self.training.log_every == 0 or self.step == end:
                    self._log(stage, last=self.step == end)
                if name := self._after_step(end):
                    return name
                if self.step == end:
                    break
            if self.step - before != min(self.per_epoch - start, end - before):
                raise DataError(
                    f"{self.source.name}: epoch {epoch} gave {self.step - before + start} batches, not {self.per_epoch}"
                )
        return ""

    def _one_step(self, stage: GradientStage, events: Events) -> None:
        try:
            scalars = stage.step(events, self.optimizers, self.generator)
        except DivergedError as error:
            self._dump(stage, events, str(error))
            raise
        except (RuntimeError, MemoryError) as error:
            if _is_out_of_memory(error):
                raise SparsegenError(_memory_message(self.step, events, self.device)) from error
            raise
        self.step += 1
        if self.average is not None:
            self.average.update(self.step)
        self.skipped = self.optimizers.skipped
        self.reporter.collect(scalars, self.optimizers.norms, len(events) * self.world, self.step)

    def _after_step(self, end: int) -> str:
        """Saves where it is time to; returns the name of the signal that asks for a stop."""
        steps, seconds = self.training.checkpoint_interval
        due = steps is not None and self.step % steps == 0
        if seconds is not None:
            due = time.monotonic() - self.saved_at >= seconds
        if self.world == 1:
            name = self.stop.name
        else:
            # Ranks must agree: clocks differ, and a signal reaches them between different steps.
            flags = torch.tensor([int(due), self.stop.signal or 0], device=self.device)
            torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
            due = bool(flags[0])
            self.stop.signal = int(flags[1]) or None
            name = self.stop.name
        if self.step == end:
            return ""
        if due and not name:
            self._save()
            self._status("running")
        return name

    def _stopping(self) -> str:
        """The name of a signal that any rank received, asked between stages."""
        if self.world > 1:
            self.stop.signal = max(gather(self.fabric, self.stop.signal or 0)) or None
        return self.stop.name

    # Logs

    def _log(self, stage: GradientStage, last: bool) -> None:
        values = self.reporter.means(self._seconds())
        if self.world > 1:
            values = mean_over_ranks(values, self.device)
        bad = [name for name, value in values.items() if not math.isfinite(value) and not name.startswith("grad_norm/")]
        if self.rank == 0:
            values |= {f"monitor/{name}": value for name, value in self._monitored().items()}
            if self.skipped:
                values["skipped"] = self.skipped
            self.reporter.row(self.step, self.step / self.per_epoch, stage.name, values, self._seconds())
        if bad and self.training.on_nonfinite != "skip":
            raise DivergedError(f"{bad[0]} is not finite in the steps up to {self.step}")

    def _monitored(self) -> dict[str, float]:
        """Generated against real events, once nothing that sampling may need is still to be fitted."""
        n = min(self.training.monitor, len(self.source))
        if n == 0 or any(isinstance(stage, FitStage) for stage in self.stages[self.stage :]):
            return {}
        if not hasattr(self, "_reference"):
            self._reference = self._here(self.source[torch.linspace(0, len(self.source) - 1, n).long()])
        real = self._reference
        generator = torch.Generator(self.device).manual_seed(derived_seed(self.training.seed, "monitor"))
        cuda = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda), torch.no_grad(), self._sampling_weights():
            self.model.eval()
            generated = self.model.sample(n, real.condition, counts=real.counts, generator=generator)
            self.model.train()
        return collapse(generated, real)

    @contextmanager
    def _sampling_weights(self) -> Iterator[None]:
        if self.average is None:
            yield
            return
        self.average.swap()
        try:
            yield
        finally:
            self.average.swap()

    # Trouble

    def _dump(self, stage: GradientStage, events: Events, message: str) -> None:
        """Writes what is known of a step that was not finite."""
        finite = torch.cat([events.features, events.positions], 1).isfinite().all(1)
        bad = torch.zeros(len(events), device=self.device).index_add(0, events.batch, (~finite).float()) > 0
        values = {
            "step": self.step,
            "stage": stage.name,
            "rank": self.rank,
            "message": message,
            "losses": {name: repr(value) for name, value in self.optimizers.losses.items()},
            "gradient_norms": {name: repr(value) for name, value in self.optimizers.norms.items()},
            "events": events.ids.tolist(),
            "hits": events.counts.tolist(),
            "events_not_finite": events.ids[bad].tolist(),
            "parameters_not_finite": [n for n, p in self.model.named_parameters() if not bool(p.isfinite().all())],
        }
        self.folder.write_dump(f"diverged-step-{self.step:09d}-rank-{self.rank}.json", values)

    def _roll_back(self, error: DivergedError) -> None:
        """Back to the last checkpoint under other noise and another order, or on with the error."""
        if self.training.on_nonfinite != "rollback" or self.rollbacks >= ROLLBACKS:
            raise error
        rollbacks = self.rollbacks + 1
        sizes = self._restore()
        self.rollbacks = rollbacks
        self._seed()
        if self.rank == 0:
            self.folder.open_metrics(sizes)
        self._save()


def _stage_ends(stages: Sequence[Stage], total: int) -> list[int]:
    """The step at which each stage ends: gradient stages take their shares of all steps."""
    shares = [stage.share if isinstance(stage, GradientStage) else 0.0 for stage in stages]
    whole, ends, so_far = sum(shares), [], 0.0
    for share in shares:
        so_far += share
        ends.append(round(total * so_far / whole) if whole else 0)
    return ends


def _schema(model: Model) -> dict[str, Any] | None:
    """What the networks were built for, from the first module that knows it."""
    for module in model.modules():
        schema = getattr(module, "schema", None)
        if schema is not None and hasattr(schema, "to_dict"):
            values: dict[str, Any] = schema.to_dict()
            return values
    return None


def _set_aside(path: Path) -> None:
    """Renames a damaged checkpoint, so that it does not count among the newest."""
    path.replace(path.with_name(path.name + ".damaged"))


@contextmanager
def _determinism(wanted: bool) -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _is_out_of_memory(error: BaseException) -> bool:
    text = str(error)
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(
        phrase in text for phrase in ("can't allocate memory", "not enough memory", "out of memory")
    )


def _memory_message(step: int, events: Events, device: torch.device) -> str:
    largest = int(events.counts.argmax())
    return (
        f"out of memory on {device} at step {step}: a batch of {len(events)} events with {len(events.coords)} hits, the "
        f"largest being event {int(events.ids[largest])} with {int(events.counts[largest])} hits; lower training.batch, "
        "lower network.parameters, use training.precision=bf16-mixed, or leave out events that large"
    )
