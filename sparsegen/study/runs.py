"""One run from its config: its data, its model, its training, its samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from sparsegen import data, models
from sparsegen.data import EventSource, EventsSource
from sparsegen.errors import ConfigError, unknown_name
from sparsegen.events import Events
from sparsegen.models import Model
from sparsegen.nets import FAMILIES, Schema
from sparsegen.training import DataConfig, RunConfig, RunResult, Trainer, adopt
from sparsegen.training.config import section_dict

__all__ = ["NO_NETWORK", "build_model", "conditions_for", "default_view", "draw", "open_source", "train"]

NO_NETWORK = "none"
"""The network of a model that has none."""

_SCALE_EVENTS = 4096


def default_view(network: str) -> str:
    """How a family of networks sees its data best; points where there is no network."""
    return "points" if network == NO_NETWORK else FAMILIES[network].view


def open_source(config: DataConfig) -> EventSource:
    """The training events of a run.

    Raises:
        ConfigError: More events are asked for than there are.
        DataError: The data set is missing, damaged or empty.
    """
    source = data.open(
        config.name,
        view=config.view,
        shape=config.shape,
        condition=config.condition,
        classes=config.classes or (),
    )
    if config.events is None or config.events == len(source):
        return source
    if config.events > len(source):
        raise ConfigError(f"data.events: {config.events} of {config.name}, which has {len(source)}")
    labels = None if source.labels is None else source.labels[: config.events]
    return EventsSource(source[: config.events], f"{config.name}[:{config.events}]", labels, source.classes)


def build_model(config: RunConfig, source: EventSource) -> Model:
    """The run's model with freshly drawn weights, scaled to its data; the same config gives the same weights.

    Raises:
        ConfigError: An unknown model, network or option.
    """
    sample = source[torch.linspace(0, len(source) - 1, min(len(source), _SCALE_EVENTS)).long()]
    schema = Schema.fit(sample, source.grid)
    with torch.random.fork_rng():
        torch.manual_seed(config.training.seed)
        return models.build(section_dict(config.model), section_dict(config.network), schema)


def train(run_dir: str | Path, config: RunConfig, like: str | Path | None = None) -> tuple[RunResult, Model]:
    """Trains a run in its folder, or goes on where it was stopped.

    Args:
        run_dir: Its folder.
        config: The run.
        like: A trained run that differs in options of its last fits alone; a fresh run starts behind its training.

    Returns:
        How it ended, and the model ready to sample.
    """
    if like is not None and not (Path(run_dir) / "config.yaml").exists():
        adopt(run_dir, like, config)
    source = open_source(config.data)
    model = build_model(config, source)
    return Trainer(run_dir, config).fit(model, source), model


def conditions_for(
    config: DataConfig, n: int | None, asked: Mapping[str, float] | None = None, like: str | None = None
) -> Tensor | None:
    """The conditions of ``n`` events to be drawn ``(n, K)``, as asked for; None: those of training events, at random.

    Args:
        config: The data that the model was trained on.
        n: How many events; with ``like``, None means as many as there are.
        asked: One value for each condition.
        like: A data set whose conditions are taken in turn, again from the first where there are fewer than ``n``.

    Raises:
        ConfigError: Conditions for a model without, some of them only, unknown ones, or both ways at once.
    """
    if asked is None and like is None:
        return None
    names = config.condition
    if not names:
        raise ConfigError(f"the run was trained on {config.name} without conditions; it samples without them too")
    if like is not None:
        if asked is not None:
            raise ConfigError("sample: conditions by --condition or --like, not both")
        # Of labelled events those of the run's classes; what was generated has no labels.
        labelled = bool(data.open(like, condition=names).classes)
        events = data.open(like, condition=names, classes=(config.classes or ()) if labelled else ())[:]
        assert events.condition is not None
        return events.condition[torch.arange(len(events) if n is None else n) % len(events)]
    assert asked is not None and n is not None
    for name in asked:
        if name not in names:
            raise ConfigError(unknown_name("condition of the run", name, names))
    missing = [name for name in names if name not in asked]
    if missing:
        raise ConfigError(f"sample: no value for {', '.join(missing)}; the run has the conditions {', '.join(names)}")
    return torch.tensor([[asked[name] for name in names]]).expand(n, -1)


def draw(
    model: Model,
    n: int,
    *,
    batch: int = 500,
    seed: int = 0,
    source: EventSource | None = None,
    condition: Tensor | None = None,
) -> Iterator[Events]:
    """Draws ``n`` events in batches, numbered from 0.

    Args:
        model: What samples.
        n: How many events.
        batch: Events at a time.
        seed: Of all randomness.
        source: Where conditions are drawn from, for a model that needs them.
        condition: The conditions themselves ``(n, K)``.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    generator = torch.Generator(device).manual_seed(seed)
    chooser = torch.Generator().manual_seed(seed)
    for start in range(0, n, batch):
        size = min(batch, n - start)
        given = None if condition is None else condition[start : start + size]
        if given is None and source is not None and source.conditions:
            rows = torch.randint(len(source), (size,), generator=chooser)
            given = source[rows].condition
        with torch.no_grad():
            given = None if given is None else given.to(device)
            events = model.sample(size, given, generator=generator).detach().to("cpu")
        yield events.replace(ids=torch.arange(start, start + size))
