"""What a run is: four dataclasses, read from YAML, whose hash is the run's identity."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import types
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml

from sparsegen.errors import ConfigError, unknown_name

__all__ = ["DataConfig", "ModelConfig", "NetworkConfig", "RunConfig", "TrainingConfig", "diff", "section_dict"]

PRECISIONS = ("32-true", "bf16-mixed", "64-true")
_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
NONFINITE = ("raise", "skip", "rollback")

# Settings of `training` that change what is written or where a run computes, never its result.
COSMETIC = frozenset({"accelerator", "checkpoint_every", "keep", "log_every", "monitor", "tensorboard"})


@dataclass(frozen=True)
class DataConfig:
    """Which events, and how they are looked at.

    Args:
        name: A registered data set or a path.
        view: ``points``, ``cells`` or ``image``, from the same file.
        shape: Bins of the lattice along each axis, where the data's own are not wanted.
        classes: Only these classes; all by default.
        condition: Names of the conditions that the model is given.
        events: Only the first so many training events; all by default.
    """

    name: str
    view: str = "points"
    shape: tuple[int, ...] | None = None
    classes: tuple[str, ...] | None = None
    condition: tuple[str, ...] = ()
    events: int | None = None

    def __post_init__(self) -> None:
        _one_of("data.view", self.view, ("points", "cells", "image"))
        if self.events is not None:
            _at_least("data.events", self.events, 1)


@dataclass(frozen=True)
class ModelConfig:
    """A registered model and the options of its constructor; in YAML they stand side by side."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NetworkConfig:
    """A family of networks at a parameter budget.

    Args:
        name: The family.
        parameters: Budget that the widths are scaled to; None leaves ``width`` as it is.
        width: Width where there is no budget.
        options: Further options of the family.
    """

    name: str
    parameters: int | None = None
    width: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingConfig:
    """How long, how fast, how exact, and how often something is written.

    Args:
        epochs: Passes over the data, all gradient stages together.
        batch: Events a batch on each device; a model that takes several batches a step is given them as one.
        lr: Adam's learning rate.
        precision: ``32-true``, ``bf16-mixed`` or ``64-true``.
        seed: Of the data order and of all noise.
        max_steps: Steps (whole alternations of all networks) instead of ``epochs``.
        clip: Largest gradient norm.
        ema: Decay of the exponential moving average of the sampled networks' weights; None samples the raw weights.
        on_nonfinite: At a non-finite loss or gradient: ``raise`` stops the run, ``skip`` leaves the step out,
            ``rollback`` goes back to the last checkpoint with other noise and order, three times at most.
        devices: Processes on each node.
        num_nodes: Nodes.
        accelerator: ``auto``, ``cpu`` or ``cuda``.
        deterministic: Deterministic algorithms only: bitwise resume on CUDA.
        checkpoint_every: Steps (``500``) or seconds (``"120s"``) between checkpoints.
        keep: Checkpoints that are kept, at least two.
        log_every: Steps between rows of the metrics.
        monitor: Events that the collapse monitor samples at each row; 0 turns it off.
        tensorboard: Whether to write TensorBoard files beside the metrics.
    """

    epochs: int = 20
    batch: int = 128
    lr: float = 1e-3
    precision: str = "32-true"
    seed: int = 1
    max_steps: int | None = None
    clip: float | None = None
    ema: float | None = None
    on_nonfinite: str = "raise"
    devices: int = 1
    num_nodes: int = 1
    accelerator: str = "auto"
    deterministic: bool = False
    checkpoint_every: int | str = "120s"
    keep: int = 2
    log_every: int = 50
    monitor: int = 128
    tensorboard: bool = False

    def __post_init__(self) -> None:
        _one_of("training.precision", self.precision, PRECISIONS)
        _one_of("training.on_nonfinite", self.on_nonfinite, NONFINITE)
        _one_of("training.accelerator", self.accelerator, ("auto", "cpu", "cuda"))
        least = {
            "epochs": 1,
            "batch": 1,
            "seed": 0,
            "devices": 1,
            "num_nodes": 1,
            "keep": 2,
            "log_every": 1,
            "monitor": 0,
        }
        for name, bound in least.items():
            _at_least(f"training.{name}", getattr(self, name), bound)
        if self.max_steps is not None:
            _at_least("training.max_steps", self.max_steps, 1)
        for name in ("lr", "clip"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ConfigError(f"training.{name}: {value}; expected a positive number")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ConfigError(f"training.ema: {self.ema}; expected a decay between 0 and 1, such as 0.999")
        self.checkpoint_interval  # noqa: B018 - raises on what is neither steps nor seconds

    @property
    def checkpoint_interval(self) -> tuple[int | None, float | None]:
        """Steps between checkpoints, or seconds; the other one is None."""
        value = self.checkpoint_every
        if isinstance(value, int) and value > 0:
            return value, None
        if isinstance(value, str) and value.endswith("s"):
            try:
                return None, float(value[:-1])
            except ValueError:
                pass
        raise ConfigError(f"training.checkpoint_every: {value!r}; expected steps such as 500 or seconds such as 120s")


@dataclass(frozen=True)
class RunConfig:
    """One run: data, model, network, training.

    Example:
        >>> config = RunConfig.from_dict(
        ...     {"data": "pythia-jets", "model": {"name": "vae", "beta": 0.01}, "network": "points"}
        ... )
        >>> config.model.options, config.training.batch
        ({'beta': 0.01}, 128)
        >>> diff(config, config.updated({"training.lr": 3e-4, "model.beta": 1.0}))
        ['model.beta: 0.01 -> 1.0', 'training.lr: 0.001 -> 0.0003']
    """

    data: DataConfig
    model: ModelConfig
    network: NetworkConfig
    training: TrainingConfig = field(default_factory=TrainingConfig)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunConfig:
        """A config from plain types; a section given as a bare word is its name.

        Raises:
            ConfigError: An unknown or missing key, or a value of the wrong type: names the key and the nearest ones.
        """
        return _section(cls, values, "")

    @classmethod
    def from_yaml(cls, path: str | Path) -> RunConfig:
        """A config from a YAML file."""
        try:
            with open(path, encoding="utf-8") as file:
                values = yaml.safe_load(file)
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror or error}") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
        try:
            return cls.from_dict(values)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """Plain types with every default written out; :meth:`from_dict` is its inverse."""
        return {f.name: section_dict(getattr(self, f.name)) for f in fields(self)}

    def to_yaml(self, path: str | Path | None = None) -> str:
        """The resolved config as YAML, also written to ``path`` where one is given."""
        text = yaml.safe_dump(self.to_dict(), sort_keys=False)
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def updated(self, values: Mapping[str, Any]) -> RunConfig:
        """The same config with some keys exchanged, each named ``section.key``, or ``section.key.option``.

        Example:
            >>> config = RunConfig.from_dict(
            ...     {"data": "a", "model": {"name": "autoencoder", "prior": "flow"}, "network": "b"}
            ... )
            >>> config.updated({"model.prior.steps": 50}).model.options["prior"]
            {'name': 'flow', 'steps': 50}
        """
        result = self.to_dict()
        for key, value in values.items():
            section, _, name = key.partition(".")
            if section not in result:
                raise ConfigError(unknown_name("section of the config", section, result))
            place, steps = result, [section, *name.split(".")] if name else [section]
            for step in steps[:-1]:
                inner = place.get(step)
                # what has its name alone so far gets options
                place[step] = {"name": inner} if isinstance(inner, str) else dict(inner or {})
                place = place[step]
            place[steps[-1]] = value
        return type(self).from_dict(result)

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the run's result: :meth:`to_dict` without the cosmetic settings."""
        values = self.to_dict()
        values["training"] = {k: v for k, v in values["training"].items() if k not in COSMETIC}
        return values

    @property
    def hash(self) -> str:
        """The run's identity as 16 hexadecimal digits."""
        text = json.dumps(self.identity, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def section_dict(section: Any) -> dict[str, Any]:
    """One section of a config in plain types, its options beside its own keys."""
    values = {f.name: getattr(section, f.name) for f in fields(section) if f.name != "options"}
    values |= getattr(section, "options", {})
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def diff(a: RunConfig, b: RunConfig, identity: bool = False) -> list[str]:
    """The settings in which two configs differ, as ``section.key: a -> b``.

    Args:
        a: One config.
        b: Another.
        identity: Only settings that decide the result.
    """
    one, two = (_flat(c.identity if identity else c.to_dict()) for c in (a, b))
    missing = "(absent)"
    keys = sorted(one.keys() | two.keys())
    return [
        f"{k}: {one.get(k, missing)} -> {two.get(k, missing)}"
        for k in keys
        if one.get(k, missing) != two.get(k, missing)
    ]


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{section}.{key}": value for section, keys in values.items() for key, value in keys.items()}


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _section(cls: Any, values: Any, where: str) -> Any:
    """A dataclass from a mapping of plain types, every key and value checked."""
    if isinstance(values, str) and where:
        values = {"name": values}
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where or 'config'}: expected keys and values, got {values!r}")
    names = [f.name for f in fields(cls)]
    required = [f.name for f in fields(cls) if f.name in _required(cls)]
    prefix = f"{where}." if where else ""
    kept: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for key, value in values.items():
        if key in names and key != "options":
            kept[key] = _convert(_hints(cls)[key], value, prefix + key)
        elif "options" in names:
            options[str(key)] = _option(value)
        else:
            raise ConfigError(unknown_name(f"key of {where or 'the config'}", str(key), names))
    for name in required:
        if name not in kept:
            raise ConfigError(f"{prefix}{name} is missing; a config has {', '.join(prefix + n for n in required)}")
    return cls(**kept, **({"options": options} if "options" in names else {}))


def _option(value: Any) -> Any:
    """An option as it was meant: YAML reads ``1e-3``, without a point, as a word."""
    if isinstance(value, Mapping):
        return {name: _option(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_option(inner) for inner in value]
    return float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value


@cache
def _required(cls: type) -> frozenset[str]:
    parameters = inspect.signature(cls).parameters.values()
    return frozenset(p.name for p in parameters if p.default is p.empty)


def _convert(kind: Any, value: Any, where: str) -> Any:
    """A value as its declared type, or an error that names the key.

    Numbers may come as text: YAML reads ``1e-3``, without a point, as a word.
    """
    if hasattr(kind, "__dataclass_fields__"):
        return value if isinstance(value, kind) else _section(kind, value, where)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        for argument in arguments:
            try:
                return _convert(argument, value, where)
            except ConfigError:
                continue
    elif origin is tuple:
        if isinstance(value, (list, tuple)):
            return tuple(_convert(arguments[0], item, where) for item in value)
    elif kind is bool:
        if isinstance(value, bool):
            return value
    elif kind is str:
        if isinstance(value, str):
            return value
    elif kind in (int, float) and not isinstance(value, bool):
        try:
            number = float(value)
            if kind is float:
                return number
            if number == int(number):
                return int(value) if isinstance(value, int) else int(number)
        except (TypeError, ValueError, OverflowError):
            pass
    names = getattr(kind, "__name__", None) or str(kind)
    raise ConfigError(f"{where}: expected {names}, got {value!r}")


def _one_of(where: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise ConfigError(unknown_name(where, value, known))


def _at_least(where: str, value: int, bound: int) -> None:
    if value < bound:
        raise ConfigError(f"{where}: {value}; expected at least {bound}")
