"""Several events seen as one, so that a critic judges how they vary."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsegen.errors import DataError
from sparsegen.events import Column, Events
from sparsegen.nets.schema import FeatureScale, Schema

__all__ = ["pack", "pack_schema"]


def pack(events: Events, members: int) -> Events:
    """Joins each ``members`` consecutive events into one.

    Every member has feature columns of its own, zero at the hits of the others: cells are the union of the members'
    cells with ``members * C`` channels, an image with joined channels; points are the union of the members' points.
    Without features a hit carries a one in the column of its member. Conditions stand side by side.

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
    own = events.features if events.columns else torch.ones_like(events.coords[:, :1], dtype=_floating(events))
    member = F.one_hot(events.batch % members, members).to(own.dtype)
    joined = events.replace(
        features=(member[:, :, None] * own[:, None, :]).flatten(1),
        columns=_packed_columns(events.columns, members),
        offsets=events.offsets[::members],
        condition=None if events.condition is None else events.condition.reshape(size, -1),
        conditions=_numbered(events.conditions, members),
        ids=events.ids[::members],
    )
    return joined.coalesce() if joined.is_cells else joined


def _floating(events: Events) -> torch.dtype:
    return events.features.dtype


def _numbered(names: tuple[str, ...], members: int) -> tuple[str, ...]:
    return tuple(f"{name} of {k + 1}" for k in range(members) for name in names)


def _packed_columns(columns: tuple[Column, ...], members: int) -> tuple[Column, ...]:
    # All are additive: in a cell that a member does not occupy it counts as zero, not as missing.
    own = columns or (Column("member"),)
    return tuple(Column(f"{c.name} of {k + 1}", c.unit) for k in range(members) for c in own)


def pack_schema(schema: Schema, members: int) -> Schema:
    """What a network must know of packed events."""
    if members == 1:
        return schema
    scales = schema.features if schema.columns else (FeatureScale(),)
    return replace(
        schema,
        columns=_packed_columns(schema.columns, members),
        conditions=_numbered(schema.conditions, members),
        features=scales * members,
        condition_mean=schema.condition_mean * members,
        condition_std=schema.condition_std * members,
        hits=schema.hits * members,
        max_hits=schema.max_hits * members,
        total=(schema.total if schema.columns else ((0.0, 1.0),)) * members,
    )
