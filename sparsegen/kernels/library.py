"""The package's torch operators, ``torch.ops.sparsegen``: what ``torch.compile`` and the profiler see of kernels."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["operator"]

_LIBRARY = torch.library.Library("sparsegen", "DEF")


def _opaque(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """The kernel, not to be traced where a compiled function falls back to running it; its tracer costs seconds."""
    untraced = None

    def run(*arguments: Any) -> Any:
        nonlocal untraced
        if "torch._dynamo" not in sys.modules:
            return kernel(*arguments)
        if untraced is None:
            untraced = torch.compiler.disable(kernel)
        return untraced(*arguments)

    return run


def operator(
    schema: str, kernel: Callable[..., Any], fake: Callable[..., Any], autograd: Callable[..., Any] | None = None
) -> Any:
    """Defines an operator.

    Args:
        schema: Name, arguments and results, in torch's own notation.
        kernel: What it does.
        fake: Its results' shapes and types, from arguments without data.
        autograd: What it does where a gradient may be asked for; None for an operator without one.

    Returns:
        The callable.
    """
    name = schema.partition("(")[0]
    _LIBRARY.define(schema)
    _LIBRARY.impl(name, _opaque(kernel), "CompositeExplicitAutograd")
    if autograd is not None:
        _LIBRARY.impl(name, autograd, "Autograd")
    torch.library.register_fake(f"sparsegen::{name}", fake, lib=_LIBRARY)
    return getattr(torch.ops.sparsegen, name).default
