"""Several events seen as one, so that a critic judges how they vary."""

from __future__ import annotations

from dataclasses import replace

from torch.nn import functional as F

from sparsegen.errors import DataError
from sparsegen.events import Column, Events
from sparsegen.nets.schema import Schema

__all__ = ["pack", "pack_schema"]


def pack(events: Events, members: int) -> Events:
    """Joins each ``members`` consecutive events into one.

    Every member has feature columns of its own, zero at the hits of the others: cells are the union of the members'
    cells with ``members * C`` channels, an image with joined channels; points are the union of the members' points.
    Hits without features count as one each. Conditions stand side by side.

    Args:
        events: ``B`` events, ``B`` a multiple of ``members``.
        members: Events in each; with 1 the events are returned as they are.

    Returns:
        ``B / members`` events.

    Raises:
        DataError: ``B`` is not a multiple of ``members``.
    """
    if members == 1:
        return events
    if len(events) % members:
        raise DataError(f"pack: {len(events)} events in packs of {members}; expected a multiple")
    size = len(events) // members
    events = events.counted()
    member = F.one_hot(events.batch % members, members).to(events.features.dtype)
    joined = events._like(
        features=(member[:, :, None] * events.features[:, None, :]).flatten(1),
        columns=_packed_columns(events.columns, members),
        offsets=events.offsets[::members],
        condition=None if events.condition is None else events.condition.reshape(size, -1),
        conditions=_numbered(events.conditions, members),
        ids=events.ids[::members],
    )
    return joined.coalesce() if joined.is_cells else joined


def _numbered(names: tuple[str, ...], members: int) -> tuple[str, ...]:
    return tuple(f"{name} of {k + 1}" for k in range(members) for name in names)


def _packed_columns(columns: tuple[Column, ...], members: int) -> tuple[Column, ...]:
    # All are additive: in a cell that a member does not occupy it counts as zero, not as missing.
    return tuple(Column(f"{c.name} of {k + 1}", c.unit) for k in range(members) for c in columns)


def pack_schema(schema: Schema, members: int) -> Schema:
    """What a network must know of packed events."""
    if members <= 1:
        return schema
    schema = schema.counted()
    return replace(
        schema,
        columns=_packed_columns(schema.columns, members),
        conditions=_numbered(schema.conditions, members),
        features=schema.features * members,
        condition_mean=schema.condition_mean * members,
        condition_std=schema.condition_std * members,
        condition_log=schema.condition_log * members,
        hits=schema.hits * members,
        max_hits=schema.max_hits * members,
        total=schema.total * members,
    )
