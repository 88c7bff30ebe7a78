"""Training that is shared: a run whose fits alone differ from another's goes on from where that one was trained."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from sparsegen.errors import ConfigError, DataError
from sparsegen.models import MODELS
from sparsegen.training.checkpoint import read_checkpoint
from sparsegen.training.config import RunConfig, diff
from sparsegen.training.folder import RunFolder

__all__ = ["adopt", "trunk"]

# Beside the checkpoint: the rows of the metrics up to it, and what training took of memory.
_KEPT = ("metrics.jsonl", "metrics.csv", "memory.json")


def trunk(config: RunConfig) -> dict[str, Any]:
    """What decides a run up to its last gradient step, in plain types.

    Example:
        >>> sections = {"data": "pythia-jets", "network": "points"}
        >>> laws = ({"name": "autoencoder", "prior": "flow"}, {"name": "aeot", "theta": 0.4})
        >>> one, two = (trunk(RunConfig.from_dict({"model": law} | sections)) for law in laws)
        >>> one == two
        True
    """
    values = config.identity
    kind = MODELS[config.model.name]
    values["model"] = {k: v for k, v in values["model"].items() if k not in kind.late}
    values["model"]["name"] = kind.trained_as or config.model.name
    return values


def adopt(run_dir: str | Path, other: str | Path, config: RunConfig) -> None:
    """Makes ``run_dir`` the run ``config``, trained by ``other`` up to the fits after its last gradient step.

    The run that is trained on from there equals, bit for bit, the one that was trained alone.

    Args:
        run_dir: A folder without a run.
        other: A run that is through its last gradient step.
        config: Equal to the other's but for options that only those fits read (``Model.late``).

    Raises:
        ConfigError: The configs differ in more than that, or the folder holds a run.
        DataError: The other run has no whole checkpoint from between its training and its fits.
    """
    source, target = RunFolder(other), RunFolder(run_dir)
    if not (source.path / "config.yaml").exists():
        raise ConfigError(f"{source.path}: no config.yaml; expected the folder of a run")
    if (target.path / "config.yaml").exists():
        raise ConfigError(f"{target.path} holds a run; choose another folder")
    if trunk(source.config) != trunk(config):
        late = sorted(MODELS[config.model.name].late)
        changes = [c for c in diff(source.config, config, identity=True) if c.split(":")[0][6:] not in late]
        raise ConfigError(
            f"{source.path} cannot be fitted again with {'; '.join(changes)}: that needs training; without it the "
            f"options {', '.join(late) or '(none)'} of model {config.model.name} can be changed"
        )
    state, manifest = _trained(source)
    target.claim(config)
    try:
        for name in _KEPT:
            if (source.path / name).exists():
                shutil.copyfile(source.path / name, target.path / name)
        target.checkpoints.write(state, manifest | {"config_hash": config.hash})
    finally:
        target.release()


def _trained(folder: RunFolder) -> tuple[dict[str, Any], dict[str, Any]]:
    """The newest whole checkpoint with no step left to take and no law fitted yet."""
    for path in folder.checkpoints.paths():
        try:
            state, manifest = read_checkpoint(path)
        except DataError:
            continue
        if manifest.get("trained"):
            return state, manifest
    raise DataError(f"{folder.path}: no checkpoint from between its training and its fits; train it to the end first")
