"""Everything of a run that a checkpoint holds, and the way there and back."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from sparsegen import __version__
from sparsegen.errors import ConfigError, DataError
from sparsegen.events import Events
from sparsegen.models.base import GradientStage, Model, Optimizers, Stage
from sparsegen.training.average import WeightAverage
from sparsegen.training.checkpoint import random_state, set_random_state
from sparsegen.training.config import RunConfig
from sparsegen.training.fabric import average_gradients, broadcast_module, gather, on_rank_zero
from sparsegen.training.folder import RunFolder
from sparsegen.training.report import Reporter

if TYPE_CHECKING:
    from sparsegen.data import EventSource

__all__ = ["RunState", "derived_seed", "last_fits", "load_weights"]


def derived_seed(*keys: int | str) -> int:
    """A seed for one purpose, independent of those for others."""
    return int.from_bytes(sha256(repr(keys).encode()).digest()[:8], "big") >> 1


class RunState:
    """Model, optimisers, averages, random states and position of one run.

    Args:
        fabric: Devices, precision and processes.
        folder: Where the run lives.
        config: The run.
        model: Moved to the run's device and precision.
        source: The training events.
    """

    optimizers: Optimizers

    def __init__(self, fabric: Fabric, folder: RunFolder, config: RunConfig, model: Model, source: EventSource) -> None:
        self.fabric, self.folder, self.config, self.model, self.source = fabric, folder, config, model, source
        self.training = config.training
        self.device: torch.device = fabric.device
        self.dtype = torch.float64 if self.training.precision == "64-true" else torch.float32
        self.rank, self.world = fabric.global_rank, fabric.world_size
        self.fingerprint = source.fingerprint
        self.batch = min(self.training.batch * model.batches_per_step, len(source) // self.world)
        if self.batch == 0:
            raise DataError(f"{source.name}: {len(source)} events for {self.world} processes; each needs one at least")
        self.per_epoch = len(source) // (self.batch * self.world)
        self.total = self.training.max_steps or self.training.epochs * self.per_epoch
        self.step = self.stage = self.skipped = self.rollbacks = 0
        self.generator = torch.Generator(self.device)
        self.reporter = Reporter(folder if self.rank == 0 else None, self.training, self.total)
        self.saved_at: float | None = None
        self._seconds_before, self._started = 0.0, time.monotonic()
        self._place()

    # Model, networks, optimisers

    def _place(self) -> None:
        model = self.model.to(self.device)
        if self.dtype == torch.float64:
            model.double()
        children = dict(model.named_children())
        for name in (name for names in model.optimized.values() for name in names):
            if name not in children:
                raise ConfigError(f"{type(model).__name__}.optimized names {name!r}, which is no child module")
        self._networks = {name: children[name] for names in model.optimized.values() for name in names}
        self._wrapped: dict[str, nn.Module] = {}
        self._adams = {
            name: torch.optim.Adam(
                [p for child in names for p in children[child].parameters()],
                lr=self.training.lr * model.lr_factors.get(name, 1.0),
                betas=model.betas,
            )
            for name, names in model.optimized.items()
        }
        self.average: WeightAverage | None = None
        if self.training.ema is not None:
            sampled = nn.ModuleDict({name: children[name] for name in model.sampled})
            self.average = WeightAverage(sampled, self.training.ema)

    @contextmanager
    def set_up(self) -> Iterator[None]:
        """Inside, the model's networks are wrapped one by one by Fabric; outside, they are plain."""
        self._wrapped = {name: self.fabric.setup_module(network) for name, network in self._networks.items()}
        self._exchange(self._wrapped)
        try:
            yield
        finally:
            self._exchange(self._networks)

    def _exchange(self, networks: Mapping[str, nn.Module]) -> None:
        for name, network in networks.items():
            setattr(self.model, name, network)

    @contextmanager
    def plain(self) -> Iterator[None]:
        """Inside, the networks are plain, and the model's state has its own names."""
        self._exchange(self._networks)
        try:
            yield
        finally:
            self._exchange(self._wrapped)

    def _ready(self) -> None:
        # Fabric's wrapper copies what an optimiser holds, so it comes after the optimiser's state.
        wrapped: dict[str, Any] = {name: self.fabric.setup_optimizers(adam) for name, adam in self._adams.items()}
        self.optimizers = Optimizers(
            wrapped,
            backward=self.fabric.backward,
            clip=self.training.clip,
            on_nonfinite="skip" if self.training.on_nonfinite == "skip" else "raise",
            average=average_gradients if self.world > 1 else None,
        )
        self.optimizers.skipped = self.skipped

    @contextmanager
    def sampling_weights(self) -> Iterator[None]:
        """Inside, the model has the weights that sampling uses and is in evaluation mode."""
        self.model.eval()
        if self.average is not None:
            self.average.swap()
        try:
            yield
        finally:
            if self.average is not None:
                self.average.swap()
            self.model.train()

    def finish(self) -> None:
        """Leaves the model with the weights that sampling uses, in evaluation mode."""
        if self.average is not None:
            self.average.swap()
        self.model.eval()

    # Batches

    def batches(self, **options: Any) -> Iterator[Events]:
        """Batches of the data on this run's device and in its precision."""
        for events in self.source.batches(self.batch, **options):
            yield self.here(events)

    def shard(self, epoch: int, start: int) -> Iterator[Events]:
        """Batches of an epoch that are this rank's, from batch ``start`` on."""
        order = derived_seed(self.training.seed, "order", self.rollbacks) % 2**32
        share: dict[str, Any] = {"rank": self.rank, "world": self.world, "drop_last": True, "start": start}
        return self.batches(shuffle=True, seed=order, epoch=epoch, **share)

    def here(self, events: Events) -> Events:
        """Events on this run's device and in its precision."""
        if events.device != self.device:
            events = events.to(self.device)
        return events if events.features.dtype == self.dtype else events.to(self.dtype)

    # Checkpoints

    @property
    def seconds(self) -> float:
        """Time spent on the run, earlier starts included."""
        return self._seconds_before + time.monotonic() - self._started

    def seed(self) -> None:
        """Sets every random state of this rank for the start of a run, or for the way on after a rollback."""
        seed = derived_seed(self.training.seed, "noise", self.rank, self.rollbacks)
        self.generator.manual_seed(seed)
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - models may draw from the global state

    def restore(self) -> dict[str, int] | None:
        """Takes the state of the newest whole checkpoint, or that of a fresh run.

        Returns:
            Sizes of the metrics files at the checkpoint; None for a fresh run.
        """
        found = on_rank_zero(self.fabric, lambda: self.folder.checkpoints.read(on_damage=_set_aside))
        if found is None:
            self.seed()
            with self.plain():
                broadcast_module(self.fabric, self.model)
            self._ready()
            return None
        state, manifest = found
        self._check(state)
        with self.plain():
            load_weights(self.model, state["model"], self.folder.path)
        for name, adam in self._adams.items():
            adam.load_state_dict(state["optimizers"][name])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.step, self.stage = manifest["step"], manifest["stage"]
        self.skipped, self.rollbacks = state["skipped"], state["rollbacks"]
        self._seconds_before, self._started = state["seconds"], time.monotonic()
        self.reporter.pending = {name: list(values) for name, values in state["pending"].items()}
        set_random_state(state["random"][self.rank], self.generator)
        self._ready()
        self.saved_at = time.monotonic()
        sizes: dict[str, int] = state["metrics"]
        return sizes

    def _check(self, state: Mapping[str, Any]) -> None:
        name, fingerprint = state["data"]
        if fingerprint != self.fingerprint:
            raise ConfigError(
                f"{self.folder.path} was trained on {name} ({fingerprint[:12]}), this is {self.source.name} "
                f"({self.fingerprint[:12]}); choose another folder"
            )

    def save(self) -> None:
        """Writes a checkpoint: every rank gives its random state, rank 0 writes."""
        with self.reporter.untimed():
            self._save()

    def _save(self) -> None:
        states = gather(self.fabric, random_state(self.generator))
        self.saved_at = time.monotonic()
        if self.rank != 0:
            return
        with self.plain():
            weights = self.model.state_dict()
        state = {
            "model": weights,
            "optimizers": {name: adam.state_dict() for name, adam in self._adams.items()},
            "average": None if self.average is None else self.average.state_dict(),
            "random": states,
            "skipped": self.skipped,
            "rollbacks": self.rollbacks,
            "seconds": self.seconds,
            "pending": self.reporter.reduced(),
            "metrics": self.folder.metrics_sizes(),
            "schema": _schema(self.model),
            "data": [self.source.name, self.fingerprint],
        }
        versions = {"sparsegen": __version__, "torch": torch.__version__, "python": sys.version.split()[0]}
        manifest = {
            "step": self.step,
            "stage": self.stage,
            "trained": self.stage == last_fits(self.model.stages),
            "config_hash": self.config.hash,
            "versions": versions,
        }
        self.folder.checkpoints.write(state, manifest)


def last_fits(stages: Sequence[Stage]) -> int:
    """Position of the first of the fits that follow the last gradient stage.

    Example:
        >>> from sparsegen.models import FitStage
        >>> fit, train = FitStage(lambda batches, generator: {}), GradientStage(lambda *batch: {})
        >>> last_fits([fit, train, fit]), last_fits([fit, train])
        (2, 2)
    """
    return max((i + 1 for i, stage in enumerate(stages) if isinstance(stage, GradientStage)), default=0)


def load_weights(model: Model, weights: Mapping[str, Any], where: Path) -> None:
    """Puts weights into a model.

    Raises:
        ConfigError: They are those of another model.
    """
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{where}: the checkpoint does not fit the model: {reason[:300]}") from error


def _schema(model: Model) -> dict[str, Any] | None:
    """What the networks were built for, from the first module that knows it."""
    for module in model.modules():
        schema: Any = getattr(module, "schema", None)
        if hasattr(schema, "to_dict"):
            values: dict[str, Any] = schema.to_dict()
            return values
    return None


def _set_aside(path: Path) -> None:
    """Renames a damaged checkpoint, so that it does not count among the newest."""
    path.replace(path.with_name(path.name + ".damaged"))
