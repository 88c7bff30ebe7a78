"""What is wrong with a file, found before anything is trained on it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch
from torch import Tensor

from sparsegen.data.files import Stamp, stamp
from sparsegen.data.reader import Finding, Reader
from sparsegen.errors import DataError
from sparsegen.events import Events

__all__ = ["DataWarning", "check_reader", "event_findings", "findings"]

_GIANT_HITS, _GIANT_TIMES = 65_536, 50
_checked: set[tuple[str, Stamp]] = set()


class DataWarning(UserWarning):
    """Something odd in a file that does not keep it from being used; one line, as of an error."""


def check_reader(reader: Reader, *, values: bool = True) -> None:
    """Raise the first thing that is wrong with a file; a file that has not changed is read only once.

    Remarks are given as :class:`DataWarning`.

    Args:
        reader: Of the file.
        values: Whether events themselves are looked at, too, or only what the format promises.

    Raises:
        DataError: Names the file, the key, the row and what to do.
    """
    key = (f"{type(reader).__name__} {values}", stamp(reader.path))
    if key in _checked:
        return
    for finding in findings(reader) if values else reader.findings():
        if finding.error:
            raise DataError(str(finding))
        warnings.warn(str(finding), DataWarning, stacklevel=3)
    _checked.add(key)


def findings(reader: Reader) -> Iterator[Finding]:
    """Everything that is wrong with a file, block by block: values that are not finite, negative amounts, and what its
    format promises.

    Raises:
        DataError: A block cannot be read at all.
    """
    yield from reader.findings()
    for start in range(0, reader.rows, reader.block):
        events = reader.read([(start, min(start + reader.block, reader.rows))])
        yield from event_findings(str(reader.path), events, start)


def event_findings(file: str, events: Events, start: int = 0) -> Iterator[Finding]:
    """What is wrong with events themselves, the first bad hit of each; their rows count from ``start``."""

    def bad_rows(bad: Tensor) -> list[tuple[int, int]]:
        hits = bad.nonzero()[:, 0]
        owners, counts = torch.unique_consecutive(events.batch[hits], return_counts=True)
        first = hits[counts.cumsum(0) - counts]
        return list(zip(owners.tolist(), first.tolist(), strict=True))

    typical = max(1, int(events.counts.median())) if len(events) else 1
    for event in (events.counts > max(_GIANT_HITS, _GIANT_TIMES * typical)).nonzero()[:, 0].tolist():
        hits = int(events.counts[event])
        message = f"are {hits:,}, {round(hits / typical):,} times the typical {typical:,}: its batch takes their memory"
        yield Finding(file, "hits", start + event, message, "leave it out with `sparsegen data subset`", error=False)
    columns = [(c.name, events.column(c.name), c.additive) for c in events.columns]
    if events.coords.is_floating_point():
        columns += [(name, events.coords[:, axis], False) for axis, name in enumerate(events.axes)]
    for name, values, amount in columns:
        for event, hit in bad_rows(~values.isfinite()):
            yield Finding(file, name, start + event, f"is {float(values[hit])}, not finite")
        if amount:
            for event, hit in bad_rows(values < 0):
                yield Finding(file, name, start + event, f"is {float(values[hit]):g}, a negative amount")
    if events.is_cells and events.grid is not None:
        key = events.batch * events.grid.cells + events.grid.ravel(events.coords)
        if bool((key.diff() <= 0).any()):
            ordered, place = key.sort(stable=True)
            twice = torch.zeros_like(key, dtype=torch.bool)
            twice[place[1:][ordered[1:] == ordered[:-1]]] = True
            for event, hit in bad_rows(twice):
                yield Finding(
                    file, "coords", start + event, f"hold the cell {tuple(events.coords[hit].tolist())} twice"
                )
    if events.condition is not None:
        for k, name in enumerate(events.conditions):
            for event in (~events.condition[:, k].isfinite()).nonzero()[:, 0].tolist():
                value = float(events.condition[event, k])
                yield Finding(file, name, start + event, f"is {value}, not finite")
