"""Errors that a user can act on.

Each message is one line: what was given, what was expected, what to do. The command line prints it and exits with
code 2; anything else that escapes is a defect and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "BackendError",
    "ConfigError",
    "DataError",
    "DivergedError",
    "MissingExtraError",
    "SparsegenError",
    "unknown_name",
]


class SparsegenError(Exception):
    """Base of every error that names its own remedy."""


class ConfigError(SparsegenError, ValueError):
    """A setting that does not exist, does not fit, or contradicts what a folder already holds."""


class DataError(SparsegenError, ValueError):
    """Data that does not fit its schema: names the file, the row and the remedy."""


class BackendError(SparsegenError, RuntimeError):
    """A back end was asked for what it lacks."""


class DivergedError(SparsegenError, ArithmeticError):
    """A loss or gradient became non-finite."""


class MissingExtraError(SparsegenError, ImportError):
    """An optional dependency is absent.

    Args:
        package: What could not be imported.
        extra: The extra of sparsegen that brings it.
        purpose: What it is needed for.
    """

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {package}: pip install 'sparsegen[{extra}]'")


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that is not registered: the nearest names first."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"unknown {kind} {name!r}: {hint}known are {', '.join(names)}"
