"""What every generative model shares: its optimisers, its stages, its protocol."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sparsegen.errors import DivergedError
from sparsegen.events import Events
from sparsegen.nets.schema import Schema

__all__ = ["FitStage", "GradientStage", "Model", "Optimizers", "Role", "Stage"]


class Optimizers:
    """Named optimisers and the one way in which a model takes a step with them.

    A model never calls ``backward`` itself, so that a trainer can put its own (mixed precision, gradient
    synchronisation) in the place of the plain one.

    Args:
        optimizers: One optimiser a name, each over its own parameters.
        backward: Called with the loss; ``Tensor.backward`` unless a trainer gives its own.
        clip: Largest gradient norm, or None.
        on_nonfinite: ``"raise"`` stops at a non-finite loss or gradient norm; ``"skip"`` leaves the step out and
            counts it in ``skipped``.
        average: Called with the loss and an optimiser's parameters after the backward pass: leaves in their gradients
            the mean over all processes and returns that of the loss.
    """

    def __init__(
        self,
        optimizers: Mapping[str, torch.optim.Optimizer],
        backward: Callable[[Tensor], None] | None = None,
        clip: float | None = None,
        on_nonfinite: str = "raise",
        average: Callable[[Tensor, Sequence[Tensor]], Tensor] | None = None,
    ) -> None:
        self._optimizers = dict(optimizers)
        self._average = average
        self._backward = backward or (lambda loss: loss.backward())
        self.clip = clip
        self.on_nonfinite = on_nonfinite
        self.skipped = 0
        self.norms: dict[str, float] = {}
        self.losses: dict[str, float] = {}

    def __getitem__(self, name: str) -> torch.optim.Optimizer:
        return self._optimizers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._optimizers)

    def items(self) -> Iterable[tuple[str, torch.optim.Optimizer]]:
        return self._optimizers.items()

    def minimise(self, name: str, loss: Tensor) -> float:
        """One step down ``loss`` (scalar) with the optimiser ``name``.

        Returns:
            The gradient norm before clipping.

        Raises:
            DivergedError: The loss or the gradient is not finite and ``on_nonfinite`` is ``"raise"``.
        """
        optimizer = self._optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        self._backward(loss)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        value = loss.detach() if self._average is None else self._average(loss.detach(), parameters)
        parameters = [p for p in parameters if p.grad is not None]
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.clip if self.clip is not None else math.inf))
        self.norms[name] = norm
        self.losses[name] = float(value)
        if not (math.isfinite(norm) and math.isfinite(self.losses[name])):
            if self.on_nonfinite == "skip":
                self.skipped += 1
                return norm
            raise DivergedError(
                f"{name}: loss {self.losses[name]:.4g} with gradient norm {norm:.4g} is not finite; "
                "lower the learning rate, clip gradients (training.clip), or pass training.on_nonfinite=skip"
            )
        optimizer.step()
        return norm


@dataclass(frozen=True)
class GradientStage:
    """Passes over the data, one call of ``step`` a batch.

    Args:
        step: ``step(events, optimizers, generator) -> scalars``: one whole alternation on one batch.
        name: How logs and checkpoints call the stage.
        share: Its part of the run's epochs, relative to the other gradient stages.
    """

    step: Callable[[Events, Optimizers, torch.Generator], dict[str, Tensor]]
    name: str = "train"
    share: float = 1.0


@dataclass(frozen=True)
class FitStage:
    """A fit without gradient steps (a transport map, a multiplicity law, a latent mixture).

    Args:
        fit: ``fit(batches, generator) -> scalars``; ``batches()`` gives a fresh pass over the training data. What is
            fitted lives in the model's state.
        name: How logs and checkpoints call the stage.
    """

    fit: Callable[[Callable[[], Iterable[Events]], torch.Generator], dict[str, Any]]
    name: str = "fit"


Stage = GradientStage | FitStage


@dataclass(frozen=True)
class Role:
    """A network that a model needs.

    Args:
        kind: ``"encoder"``, ``"decoder"`` or ``"critic"``.
        codes: Width of its codes, in units of the model's latent width.
    """

    kind: str
    codes: int = 1


class Model(nn.Module):
    """A generative model: holds networks, computes its losses, samples.

    A subclass sets ``stages`` (ordered) and ``optimized``: which child networks each optimiser moves. It never asks
    which family a network is from.

    Attributes:
        roles: What each network that it takes is for.
        betas: Decay rates of Adam's averages.
        lr_factors: Optimiser name -> its learning rate as a multiple of the run's; 1 where it is not named.
        batches_per_step: How many batches of data one whole alternation consumes.
        late: Options that only the fits after the last gradient step read: they can be changed without training again.
        trained_as: Name of the model whose training, up to those fits, is the same; empty where it is its own.
    """

    late: ClassVar[frozenset[str]] = frozenset()
    trained_as: ClassVar[str] = ""
    roles: ClassVar[Mapping[str, Role]] = {}
    batches_per_step: int = 1
    betas: tuple[float, float] = (0.9, 0.999)
    lr_factors: Mapping[str, float] = MappingProxyType({})

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (GradientStage(self.step),)

    @classmethod
    def network_schema(cls, role: str, schema: Schema, options: Mapping[str, Any]) -> Schema:
        """What the network of a role sees of the data, under the model's options: the data themselves by default."""
        return schema

    @property
    def optimized(self) -> Mapping[str, tuple[str, ...]]:
        """Optimiser name -> names of the child modules whose parameters it moves."""
        return {"model": tuple(name for name, _ in self.named_children())}

    @property
    def sampled(self) -> tuple[str, ...]:
        """Child modules that sampling and encoding use: the ones whose weights a trainer may average over steps."""
        return tuple(dict.fromkeys(name for names in self.optimized.values() for name in names))

    def step(self, events: Events, optimizers: Optimizers, generator: torch.Generator) -> dict[str, Tensor]:
        """One whole alternation on one batch; returns detached scalars for the log."""
        raise NotImplementedError(f"{type(self).__name__} has no gradient step")

    def sample(
        self,
        n: int,
        condition: Tensor | None = None,
        *,
        counts: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Events:
        """Draws ``n`` events.

        Args:
            n: How many.
            condition: ``(n, K)`` or None.
            counts: Hits per event ``(n,)``; drawn from the fitted multiplicity law where it is not given.
            generator: Source of randomness.
        """
        raise NotImplementedError(f"{type(self).__name__} does not sample")

    def sampling_report(self) -> dict[str, Any]:
        """What whoever uses the samples should know of how they came about, in plain types; empty where nothing."""
        return {}
