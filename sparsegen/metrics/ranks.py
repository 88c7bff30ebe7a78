"""What several processes have each seen of a sample."""

from __future__ import annotations

from typing import TypeVar

import torch.distributed

__all__ = ["gathered"]

T = TypeVar("T")


def gathered(own: T) -> list[T]:
    """What every rank holds, in the order of the ranks: the same list on each, so that sums over it agree bit for bit.

    Without a process group there is one rank.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [own]
    held: list[T | None] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(held, own)
    return [part for part in held if part is not None]
