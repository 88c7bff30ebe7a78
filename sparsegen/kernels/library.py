"""The package's torch operators, ``torch.ops.sparsegen``: what ``torch.compile`` and the profiler see of kernels."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["operator"]

# What looks at each frame of Python before it runs, or None; torch before 2.6 does not tell.
_frames: Callable[[], Any] | None = getattr(torch._C._dynamo.eval_frame, "get_eval_frame_callback", None)

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


def _watched() -> bool:
    """Whether a profiler, a mode of torch or a tracer of frames would miss a call past the dispatcher."""
    return (
        torch.autograd._profiler_enabled()
        or torch._C._len_torch_dispatch_stack() > 0
        or ("torch._dynamo" in sys.modules and (_frames is None or _frames() is not None))
    )


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
        The callable: dispatched where a compiler, a profiler or a mode of torch looks, or a gradient may be asked for;
        the kernel itself elsewhere, since a dispatch into Python costs as much as a small convolution.
    """
    name = schema.partition("(")[0]
    _LIBRARY.define(schema)
    _LIBRARY.impl(name, _opaque(kernel), "CompositeExplicitAutograd")
    if autograd is not None:
        _LIBRARY.impl(name, autograd, "Autograd")
    torch.library.register_fake(f"sparsegen::{name}", fake, lib=_LIBRARY)
    dispatched = getattr(torch.ops.sparsegen, name).default

    def run(*arguments: Any) -> Any:
        if torch.compiler.is_compiling() or _watched() or (autograd is not None and torch.is_grad_enabled()):
            return dispatched(*arguments)
        return kernel(*arguments)

    return run
