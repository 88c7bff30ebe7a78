"""Loads the native extension and settles which engine a call uses.

Two environment variables are read once, at the first kernel call:

- ``SPARSEGEN_NATIVE=0`` leaves the extension out, as if it had not been built.
- ``SPARSEGEN_SIMD=portable|avx2|avx512`` forces an instruction set; unset, the best of the machine is used.

Results do not depend on either: the kernels round alike on every instruction set.
"""

from __future__ import annotations

import functools
import os
import warnings
from types import ModuleType

import torch
from torch import Tensor

from sparsegen.errors import BackendError, ConfigError, unknown_name

__all__ = ["extension", "instruction_set", "period_argument", "resolve", "threads", "usable"]

_SETS = ("portable", "avx2", "avx512")


@functools.cache
def extension() -> ModuleType | None:
    """The native extension, or None where it was not built or is switched off.

    Raises:
        ConfigError: ``SPARSEGEN_SIMD`` or ``SPARSEGEN_NATIVE`` holds an unknown word.
        BackendError: ``SPARSEGEN_SIMD`` names an instruction set that this machine lacks.
    """
    switch = os.environ.get("SPARSEGEN_NATIVE", "1")
    if switch not in ("0", "1"):
        raise ConfigError(f"SPARSEGEN_NATIVE={switch}: expected 0 (off) or 1 (on)")
    if switch == "0":
        return None
    try:
        from sparsegen.kernels import _native
    except ImportError:
        return None
    wanted = os.environ.get("SPARSEGEN_SIMD", "")
    if wanted:
        if wanted not in _SETS:
            raise ConfigError(f"SPARSEGEN_SIMD: {unknown_name('instruction set', wanted, _SETS)}")
        if wanted not in _native.levels():
            raise BackendError(
                f"SPARSEGEN_SIMD={wanted}: this machine has {', '.join(_native.levels())}; "
                "unset it to use the best of these"
            )
        _native.select(wanted)
    return _native


def instruction_set() -> str:
    """The instruction set in use: ``portable``, ``avx2``, ``avx512``, or ``none`` without the extension."""
    native = extension()
    return "none" if native is None else native.selected()


@functools.cache
def _say_once() -> None:
    if os.environ.get("SPARSEGEN_NATIVE") != "0":
        warnings.warn(
            "sparsegen's native extension is not built: torch and scipy do its work, more slowly; "
            "install a C++ compiler and reinstall sparsegen, or set SPARSEGEN_NATIVE=0 to silence this",
            RuntimeWarning,
            stacklevel=4,
        )


def usable(*tensors: Tensor) -> bool:
    """Whether the native kernels can take these tensors: they are on the CPU and the extension is there.

    Says once, by a warning, that the extension is missing.
    """
    if any(t.device.type != "cpu" for t in tensors):
        return False
    if extension() is None:
        _say_once()
        return False
    return True


def resolve(engine: str, known: tuple[str, ...], tensors: tuple[Tensor, ...], fallback: str) -> str:
    """The engine that a call uses: ``auto`` becomes ``native`` where possible, else ``fallback``.

    Args:
        engine: What the caller asked for.
        known: Engines of this function, ``auto`` aside.
        tensors: The inputs, whose device decides.
        fallback: What ``auto`` means without the extension or away from the CPU.

    Raises:
        ConfigError: Unknown engine.
        BackendError: ``native`` was asked for and cannot be used.
    """
    if engine == "auto":
        return "native" if usable(*tensors) else fallback
    if engine not in known:
        raise ConfigError(unknown_name("engine", engine, ("auto", *known)))
    if engine == "native":
        if extension() is None:
            raise BackendError("engine='native': the extension is not built or SPARSEGEN_NATIVE=0; pass engine='auto'")
        if any(t.device.type != "cpu" for t in tensors):
            raise BackendError("engine='native' works on the CPU only; pass engine='auto' or move the tensors")
    return engine


def threads() -> int:
    """Threads a kernel may start: torch's own number."""
    return torch.get_num_threads()


def period_argument(period: tuple[float, ...] | None, dim: int, dtype: torch.dtype) -> Tensor | None:
    """The period of every axis as the kernels want it: 0 where an axis does not wrap, None if none does.

    Args:
        period: Length of each axis that wraps, ``inf`` for one that does not; or None.
        dim: Number of axes.
        dtype: Of the coordinates.

    Raises:
        ConfigError: Not ``dim`` positive numbers.
    """
    if period is None:
        return None
    if len(period) != dim or not all(p > 0 for p in period):
        raise ConfigError(
            f"period {tuple(period)}: expected {dim} positive lengths, inf for an axis that does not wrap"
        )
    values = torch.tensor(period, dtype=dtype)
    return torch.where(values.isfinite(), values, 0.0) if values.isfinite().any() else None
