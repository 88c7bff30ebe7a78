"""Training: a run is a config, a model and a data set; its folder is all that is needed to go on or to sample.

Names load on first use, so that configs can be read without Lightning Fabric.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparsegen.training.config import (
        DataConfig,
        ModelConfig,
        NetworkConfig,
        RunConfig,
        TrainingConfig,
        diff,
    )
    from sparsegen.training.folder import RunFolder
    from sparsegen.training.loading import load
    from sparsegen.training.refit import adopt, trunk
    from sparsegen.training.trainer import RunResult, Trainer

__all__ = [
    "DataConfig",
    "ModelConfig",
    "NetworkConfig",
    "RunConfig",
    "RunFolder",
    "RunResult",
    "Trainer",
    "TrainingConfig",
    "adopt",
    "diff",
    "load",
    "trunk",
]

_HOMES = {
    "RunFolder": "folder",
    "load": "loading",
    "RunResult": "trainer",
    "Trainer": "trainer",
    "adopt": "refit",
    "trunk": "refit",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'sparsegen.training' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"sparsegen.training.{_HOMES.get(name, 'config')}"), name)
    globals()[name] = value
    return value
