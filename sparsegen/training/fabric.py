"""Lightning Fabric set up the way generative models need it: the only file that imports it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import DoublePrecision, Precision
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, nn

from sparsegen.errors import ConfigError, SparsegenError
from sparsegen.training.config import TrainingConfig

__all__ = ["average_gradients", "broadcast_module", "gather", "make_fabric", "mean_over_ranks", "on_rank_zero"]

T = TypeVar("T")


class _BFloat16(Precision):
    """Autocast to bfloat16 around a network's forward pass.

    Fabric's own plugin casts the inputs, which would round positions, and forbids ``autograd.grad``, which gradient
    penalties need; bfloat16 has float32's range and so needs neither scaler nor a backward of its own.
    """

    precision = "bf16-mixed"

    def __init__(self, device: str) -> None:
        self._device = device

    def forward_context(self) -> AbstractContextManager:
        return torch.autocast(self._device, dtype=torch.bfloat16)

    def convert_output(self, data: Any) -> Any:
        return data.float() if isinstance(data, Tensor) and data.dtype == torch.bfloat16 else data


class _Averaging(DDPStrategy):
    """Processes, devices and rendezvous as in DDP, without its wrapper around the networks.

    The wrapper counts on one forward and one backward pass a step, sees no tensors inside :class:`Events`, and
    reduces gradients of networks that a step only passes through. :func:`average_gradients` has none of these limits.
    """

    def setup_module(self, module: nn.Module) -> nn.Module:  # type: ignore[override]
        return module


def make_fabric(config: TrainingConfig) -> Fabric:
    """A Fabric with the config's devices and precision, launched.

    Raises:
        ConfigError: The devices do not exist.
    """
    cuda = config.accelerator == "cuda" or (config.accelerator == "auto" and torch.cuda.is_available())
    if cuda and torch.cuda.device_count() < config.devices:
        raise ConfigError(
            f"training.devices: {config.devices} CUDA devices where {torch.cuda.device_count()} are there"
        )
    precision: Precision = Precision()
    if config.precision == "64-true":
        precision = DoublePrecision()
    elif config.precision == "bf16-mixed":
        precision = _BFloat16("cuda" if cuda else "cpu")
    many = config.devices * config.num_nodes > 1
    fabric = Fabric(
        accelerator="cuda" if cuda else "cpu",
        devices=config.devices,
        num_nodes=config.num_nodes,
        strategy=_Averaging() if many else "auto",
        plugins=[precision],
    )
    fabric.launch()
    return fabric


def average_gradients(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Leaves in each gradient its mean over all ranks, in one reduction, and returns the mean of the loss.

    A parameter that no rank reached keeps no gradient; one that some ranks reached counts as zero on the others. A
    non-finite loss on one rank is non-finite on all, so that they stop together.
    """
    with torch.no_grad():
        reached = [0.0 if p.grad is None else 1.0 for p in parameters]
        parts = [torch.zeros_like(p).view(-1) if p.grad is None else p.grad.reshape(-1) for p in parameters]
        tail = torch.tensor([*reached, 0.0], dtype=loss.dtype, device=loss.device)
        tail[-1] = loss
        flat = torch.cat([*parts, tail.to(parts[0].dtype if parts else loss.dtype)])
        dist.all_reduce(flat)
        sizes = [p.numel() for p in parameters]
        *gradients, tail = flat.split([*sizes, len(tail)])
        world = dist.get_world_size()
        for p, gradient, count in zip(parameters, gradients, tail[:-1].tolist(), strict=True):
            if count > 0:
                p.grad = (gradient / world).view_as(p)
        return tail[-1] / world


def mean_over_ranks(values: dict[str, float], device: torch.device) -> dict[str, float]:
    """The mean of each value over all ranks; every rank must give the same names."""
    names = sorted(values)
    flat = torch.tensor([values[name] for name in names], dtype=torch.float64, device=device)
    dist.all_reduce(flat)
    return dict(zip(names, (flat / dist.get_world_size()).tolist(), strict=True))


def broadcast_module(fabric: Fabric, module: nn.Module) -> None:
    """Gives every rank the state of rank 0, whatever its shapes."""
    if fabric.world_size > 1:
        module.load_state_dict(fabric.broadcast({k: _on_cpu(v) for k, v in module.state_dict().items()}))


def _on_cpu(value: Any) -> Any:
    return value.cpu() if isinstance(value, Tensor) else value


def gather(fabric: Fabric, value: T) -> list[T]:
    """What each rank holds, in order, on every rank."""
    if fabric.world_size == 1:
        return [value]
    values: list[Any] = [None] * fabric.world_size
    dist.all_gather_object(values, value)
    return values


def on_rank_zero(fabric: Fabric, work: Callable[[], T]) -> T:
    """What ``work`` returns on rank 0, on every rank; its error is raised on every rank."""
    if fabric.world_size == 1:
        return work()
    outcome: tuple[Any, SparsegenError | None] = (None, None)
    if fabric.global_rank == 0:
        try:
            outcome = (work(), None)
        except SparsegenError as error:
            outcome = (None, error)
    value, failure = fabric.broadcast(outcome)
    if failure is not None:
        raise failure
    return value
