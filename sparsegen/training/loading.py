"""A trained model from its run folder."""

from __future__ import annotations

from pathlib import Path

import torch

from sparsegen import models
from sparsegen.errors import ConfigError, DataError
from sparsegen.models.base import Model
from sparsegen.nets.schema import Schema
from sparsegen.training.config import section_dict
from sparsegen.training.folder import RunFolder
from sparsegen.training.state import load_weights

__all__ = ["load"]


def load(run_dir: str | Path, device: torch.device | str = "cpu") -> Model:
    """The model of a run, as its newest whole checkpoint has it, ready to sample.

    Args:
        run_dir: The folder that :class:`Trainer` wrote.
        device: Where to put it.

    Returns:
        The model in evaluation mode, with averaged weights where the run averages them.

    Raises:
        ConfigError: The folder holds no run.
        DataError: It has no checkpoint yet, or every one is damaged.
    """
    folder = RunFolder(run_dir)
    if not (folder.path / "config.yaml").exists():
        raise ConfigError(f"{folder.path}: no config.yaml; expected the folder of a run")
    config = folder.config
    found = folder.checkpoints.read()
    if found is None:
        raise DataError(f"{folder.path}: no checkpoint yet; train first")
    state, _ = found
    if state["schema"] is None:
        raise DataError(f"{folder.path}: its networks carry no schema, so they cannot be built again from the config")
    model = models.build(section_dict(config.model), section_dict(config.network), Schema.from_dict(state["schema"]))
    if config.training.precision == "64-true":
        model.double()
    load_weights(model, state["model"] | (state["average"] or {}), folder.path)
    return model.to(device).eval()
