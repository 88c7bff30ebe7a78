"""Generative models of sparse events: dense, sparse and point networks on the same data, loss, budget and metrics.

Submodules and the four public names load on first use, so that ``import sparsegen`` itself costs next to nothing.

Example:
    >>> import sparsegen
    >>> sparsegen.Column("energy", "GeV").unit
    'GeV'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparsegen.events import Column, Events
    from sparsegen.grid import Grid
    from sparsegen.result import Result

__version__ = "0.1.0"

__all__ = ["Column", "Events", "Grid", "Result", "__version__"]

_NAMES = {"Column": "events", "Events": "events", "Grid": "grid", "Result": "result"}
_SUBMODULES = frozenset(
    {
        "cli",
        "data",
        "errors",
        "events",
        "grid",
        "kernels",
        "losses",
        "measure",
        "metrics",
        "models",
        "nets",
        "points",
        "registry",
        "result",
        "sparse",
        "study",
        "training",
        "transport",
    }
)


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"sparsegen.{name}")
    if name in _NAMES:
        value = getattr(importlib.import_module(f"sparsegen.{_NAMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'sparsegen' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_NAMES, *_SUBMODULES])
