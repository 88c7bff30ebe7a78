"""What metrics of one report share is computed once: keyed by the events' content, never by their identity."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from sparsegen.events import Events

__all__ = ["Recent", "digest"]

T = TypeVar("T")


def digest(events: Events) -> str:
    """A fingerprint of the hits and of the events they belong to."""
    found = hashlib.sha256()
    for tensor in (events.positions, events.features, events.offsets):
        found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()


class Recent(Generic[T]):
    """The last few results of an expensive function.

    Args:
        size: How many are kept.

    Example:
        >>> squares = Recent[int](2)
        >>> squares.get(("3",), lambda: 9), squares.get(("3",), lambda: 10)
        (9, 9)
    """

    def __init__(self, size: int = 2) -> None:
        self.size = size
        self._kept: OrderedDict[tuple[str, ...], T] = OrderedDict()

    def get(self, key: tuple[str, ...], make: Callable[[], T]) -> T:
        """The result kept under the key, or a new one."""
        if key not in self._kept:
            self._kept[key] = make()
            while len(self._kept) > self.size:
                self._kept.popitem(last=False)
        return self._kept[key]
