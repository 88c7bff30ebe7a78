"""Options by name, held against the function that takes them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from sparsegen.errors import ConfigError, unknown_name

__all__ = ["check_options", "parameters"]

_PLAIN: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
    "None": (type(None),),
}


def parameters(function: Callable[..., Any]) -> set[str]:
    """Names of the parameters of a function or a class."""
    return set(inspect.signature(function).parameters) - {"self"}


def check_options(
    what: str, options: Mapping[str, Any], function: Callable[..., Any], apart: Collection[str] = ()
) -> None:
    """Checks that a function takes options by these names, and numbers, words and switches where it asks for them.

    Args:
        what: What the options are of, as an error calls it ("model vae").
        options: Names and values.
        function: The function or class; its annotations are written out as text.
        apart: Parameters that are not options.

    Raises:
        ConfigError: An unknown name, with the nearest, or a value of another type.

    Example:
        >>> def law(steps: int = 10, width: float | None = None): ...
        >>> check_options("prior law", {"steps": 5, "width": 1}, law)
        >>> check_options("prior law", {"width": "wide"}, law)
        Traceback (most recent call last):
        sparsegen.errors.ConfigError: option width of prior law: 'wide'; expected float | None
    """
    found = inspect.signature(function).parameters
    for name, value in options.items():
        if name not in found or name in apart:
            raise ConfigError(unknown_name(f"option of {what}", str(name), set(found) - {"self", *apart}))
        kinds = [part.strip() for part in str(found[name].annotation).split("|")]
        plain = all(kind in _PLAIN for kind in kinds)
        if plain and not any(_is(value, kind) for kind in kinds):
            raise ConfigError(f"option {name} of {what}: {value!r}; expected {found[name].annotation}")


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, _PLAIN[kind]) and (kind == "bool" or not isinstance(value, bool))
