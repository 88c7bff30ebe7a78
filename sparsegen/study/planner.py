"""What a study runs: a grid of data x model x network x seed, each run identified by the hash of its config.

The file of a study is that of a run in which ``data``, ``model`` and ``network`` may be lists, or have a list of names,
and ``training.seed`` may be a list:

.. code-block:: yaml

    data: pythia-jets                           # each family sees it in its own view
    model: {name: [vae, gan], latent: 16}
    network: {name: [sparse, dense, points], parameters: 200000}
    training: {epochs: 20, seed: [1, 2, 3]}
    baseline: independent                       # models without a network
    overrides:
      - where: {model: gan, network: points}
        set: {training: {lr: 3.0e-4}}
    evaluation: {reference: "pythia-jets:test", events: 1800}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from sparsegen.errors import ConfigError, unknown_name
from sparsegen.models import MODELS
from sparsegen.study.runs import NO_NETWORK, default_view
from sparsegen.training import RunConfig

__all__ = ["EvaluationConfig", "PlannedRun", "Study", "read_study"]

_KEYS = ("title", "data", "model", "network", "baseline", "training", "overrides", "evaluation")
_WHERE = ("data", "model", "network", "seed")
_SET = ("data", "model", "network", "training")


@dataclass(frozen=True)
class EvaluationConfig:
    """How every run of a study is judged.

    Args:
        reference: Real events that the generated ones are held against.
        events: Generated events of each run; as many as the reference has by default.
        lattice: Cells along each axis of the lattice on which generated and real events alike are compared; that of
            the reference's image by default.
        metrics: ``fast``, ``full`` or names.
        seed: Of sampling and of the metrics.
    """

    reference: str
    events: int | None = None
    lattice: tuple[int, ...] | None = None
    metrics: str | tuple[str, ...] = "fast"
    seed: int = 0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EvaluationConfig:
        """From plain types."""
        known = tuple(cls.__dataclass_fields__)
        for key in values:
            if key not in known:
                raise ConfigError(unknown_name("key of evaluation", str(key), known))
        if "reference" not in values:
            raise ConfigError("evaluation.reference is missing; name the real events, such as pythia-jets:test")
        if values.get("events") is not None and not (isinstance(values["events"], int) and values["events"] > 1):
            raise ConfigError(f"evaluation.events: {values['events']!r}; expected a whole number above 1")
        kept: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**kept)

    def to_dict(self) -> dict[str, Any]:
        """Plain types; :meth:`from_dict` is its inverse."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


@dataclass(frozen=True)
class PlannedRun:
    """One cell of the grid.

    Args:
        data: Label of its data.
        model: Label of its model.
        network: Label of its network.
        seed: Its seed.
        config: All of it.
    """

    data: str
    model: str
    network: str
    seed: int
    config: RunConfig = field(hash=False)

    @property
    def name(self) -> str:
        """What tables call the run."""
        parts = (self.data, self.model, self.network, f"s{self.seed}")
        return "-".join(part for part in parts if part not in ("", NO_NETWORK))

    @property
    def folder(self) -> str:
        """Where the run lives: its name, made safe, and its identity, so that another config never meets it."""
        safe = "".join(c if c.isalnum() or c in "-_.=" else "_" for c in self.name)
        return f"{safe}-{self.config.hash[:8]}"


@dataclass(frozen=True)
class Study:
    """A grid of runs and how they are judged.

    Args:
        title: Heading of the report.
        runs: The runs, in the order in which tables show them.
        evaluation: How they are judged.
        source: The study as it was written.
    """

    title: str
    runs: tuple[PlannedRun, ...]
    evaluation: EvaluationConfig
    source: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, rising."""
        return tuple(sorted({run.seed for run in self.runs}))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> Study:
        """A study from plain types.

        Args:
            values: As in the study's file.
            settings: ``section.key`` -> value: laid over every run, after all overrides.

        Raises:
            ConfigError: An unknown key or name, an override that fits no run, or no run at all.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"a study is keys and values, got {values!r}")
        for key in values:
            if key not in _KEYS:
                raise ConfigError(unknown_name("key of a study", str(key), _KEYS))
        for key in ("data", "model", "network"):
            if key not in values:
                raise ConfigError(f"{key} is missing; a study has data, model, network, training and evaluation")
        overrides = [_Override(i, item) for i, item in enumerate(_as_list(values.get("overrides")))]
        runs = tuple(_plan(values, overrides, dict(settings or {})))
        for override in overrides:
            if not override.used:
                raise ConfigError(f"overrides[{override.position}]: where {override.where} fits no run of the grid")
        evaluation = dict(values.get("evaluation") or {})
        if "reference" not in evaluation:
            evaluation["reference"] = f"{runs[0].config.data.name}:test"
        source = dict(values) | ({"settings": dict(settings)} if settings else {})
        return cls(str(values.get("title", "Comparison")), runs, EvaluationConfig.from_dict(evaluation), source)


def read_study(path: str | Path, settings: Mapping[str, Any] | None = None) -> Study:
    """A study from its YAML file; ``settings`` as in :meth:`Study.from_dict`."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}; expected the YAML file of a study") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    try:
        return Study.from_dict(values, settings)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


class _Override:
    """Settings for the runs that match."""

    def __init__(self, position: int, item: Any) -> None:
        self.position = position
        self.used = False
        if not isinstance(item, Mapping) or set(item) != {"where", "set"}:
            raise ConfigError(f"overrides[{position}]: expected the keys where and set, got {item!r}")
        self.where: Mapping[str, Any] = item["where"] or {}
        self.settings: Mapping[str, Any] = item["set"] or {}
        for key in self.where:
            if key not in _WHERE:
                raise ConfigError(f"overrides[{position}].where: {unknown_name('key', str(key), _WHERE)}")
        for section, keys in self.settings.items():
            if section not in _SET:
                raise ConfigError(f"overrides[{position}].set: {unknown_name('section', str(section), _SET)}")
            if not isinstance(keys, Mapping):
                raise ConfigError(f"overrides[{position}].set.{section}: expected keys and values, got {keys!r}")

    def matches(self, cell: Mapping[str, Any]) -> bool:
        """Whether it is meant for a run, given as names and a seed."""
        fits = all(cell[key] in _as_list(wanted) for key, wanted in self.where.items())
        self.used |= fits
        return fits


def _plan(values: Mapping[str, Any], overrides: Sequence[_Override], settings: dict[str, Any]) -> Iterator[PlannedRun]:
    training = dict(values.get("training") or {})
    seeds = [int(seed) for seed in _as_list(training.pop("seed", 1))]
    sections = {key: _alternatives(key, values.get(key)) for key in ("data", "model", "network", "baseline")}
    labels = {key: _labels(items) for key, items in sections.items()}
    cells = [
        (("data", d), ("model", m), ("network", n))
        for d, m, n in product(*(range(len(sections[key])) for key in ("data", "model", "network")))
    ] + [
        (("data", d), ("baseline", b), None)
        for d, b in product(range(len(sections["data"])), range(len(sections["baseline"])))
    ]
    many = len(sections["data"]) > 1
    folders: set[str] = set()
    for (_, d), (kind, m), net in cells:
        data, model = sections["data"][d], sections[kind][m]
        network = {"name": NO_NETWORK} if net is None else sections["network"][net[1]]
        if bool(MODELS[model["name"]].roles) != (net is not None):
            raise ConfigError(
                f"{kind}: {model['name']} {'needs networks' if net is None else 'has no networks'}; "
                f"name it under {'model' if net is None else 'baseline'}"
            )
        for seed in seeds:
            cell = {"data": data["name"], "model": model["name"], "network": network["name"], "seed": seed}
            merged = {
                "data": dict(data),
                "model": dict(model),
                "network": dict(network),
                "training": {**training, "seed": seed},
            }
            for override in overrides:
                if override.matches(cell):
                    for section, keys in override.settings.items():
                        merged[section].update(keys)
            for key, value in settings.items():
                section, _, name = key.partition(".")
                if section not in merged or not name:
                    raise ConfigError(f"--{key}: {unknown_name('section of the config', section, merged)}")
                if not (net is None and section in ("model", "network")):
                    merged[section][name] = value
            merged["data"].setdefault("view", default_view(str(network["name"])))
            run = PlannedRun(
                labels["data"][d] if many else "",
                labels[kind][m],
                NO_NETWORK if net is None else labels["network"][net[1]],
                seed,
                RunConfig.from_dict(merged),
            )
            if run.folder in folders:
                raise ConfigError(f"the grid names the run {run.name} twice")
            folders.add(run.folder)
            yield run


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _alternatives(key: str, value: Any) -> list[dict[str, Any]]:
    """The sections that a key of the grid stands for."""
    found: list[dict[str, Any]] = []
    for item in _as_list(value):
        section = {"name": item} if isinstance(item, str) else item
        if not isinstance(section, Mapping) or "name" not in section:
            raise ConfigError(f"{key}: expected a name, or keys and values with a name, got {item!r}")
        found += [dict(section) | {"name": name} for name in _as_list(section["name"])]
    if not found and key != "baseline":
        raise ConfigError(f"{key}: names nothing")
    return found


def _labels(sections: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names, with the settings that tell sections of one name apart."""
    labels = []
    for section in sections:
        same = [other for other in sections if other["name"] == section["name"]]
        telling = [k for k in section if any(other.get(k) != section[k] for other in same)]
        labels.append("-".join([str(section["name"]), *(f"{k}={_short(section[k])}" for k in telling)]))
    return labels


def _short(value: Any) -> str:
    """A setting as a label shows it: a section within a section by its name and what else it says."""
    if isinstance(value, Mapping):
        return ",".join(str(v) if k == "name" else f"{k}={v}" for k, v in value.items())
    return str(value)


def evaluation_key(run: PlannedRun, evaluation: EvaluationConfig, fingerprints: Sequence[str]) -> str:
    """What the evaluation of a run depends on, as 16 hexadecimal digits."""
    text = json.dumps([run.config.hash, evaluation.to_dict(), list(fingerprints)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
