"""What is wrong with a file, found before anything is trained on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsegen.data.files import stamp
from sparsegen.data.reader import Reader
from sparsegen.errors import DataError
from sparsegen.events import Events

__all__ = ["Finding", "check_reader", "findings"]

_checked: set[tuple[str, tuple[str, int, int]]] = set()


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with one event.

    Args:
        file: The file.
        key: What holds the fault: a column, an axis or a data set.
        row: The event's row in the file.
        message: What is wrong.
        remedy: What to do.
    """

    file: str
    key: str
    row: int
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file}: {self.key} of row {self.row} {self.message}; {self.remedy}"


def check_reader(reader: Reader) -> None:
    """Raise the first thing that is wrong with a file; a file that has not changed is read only once.

    Raises:
        DataError: Names the file, the key, the row and what to do.
    """
    key = (type(reader).__name__, stamp(reader.path))
    if key in _checked:
        return
    reader.check_file()
    for finding in findings(reader):
        raise DataError(str(finding))
    _checked.add(key)


def findings(reader: Reader) -> Iterator[Finding]:
    """Everything that is wrong with a file's events, block by block: values that are not finite, negative amounts."""
    for start in range(0, reader.rows, reader.block):
        stop = min(start + reader.block, reader.rows)
        yield from _event_findings(str(reader.path), reader.read([(start, stop)]), start)


def _event_findings(file: str, events: Events, start: int) -> Iterator[Finding]:
    repair = "drop or mend the row with `sparsegen data repair`"

    def rows(bad: Tensor) -> list[tuple[int, int]]:
        """The first bad hit of each event that has one."""
        hits = bad.nonzero()[:, 0]
        owners, counts = torch.unique_consecutive(events.batch[hits], return_counts=True)
        first = hits[counts.cumsum(0) - counts]
        return list(zip(owners.tolist(), first.tolist(), strict=True))

    if events.coords.is_floating_point():
        for axis, name in enumerate(events.axes):
            for event, hit in rows(~events.coords[:, axis].isfinite()):
                value = float(events.coords[hit, axis])
                yield Finding(file, name, start + event, f"is {value}, not finite", repair)
    for column in events.columns:
        values = events.column(column.name)
        for event, hit in rows(~values.isfinite()):
            yield Finding(file, column.name, start + event, f"is {float(values[hit])}, not finite", repair)
        if column.additive:
            for event, hit in rows(values < 0):
                message = f"is {float(values[hit]):g}, a negative amount"
                yield Finding(file, column.name, start + event, message, repair)
    if events.condition is not None:
        for k, name in enumerate(events.conditions):
            bad = (~events.condition[:, k].isfinite()).nonzero()[:, 0]
            for event in bad.tolist():
                value = float(events.condition[event, k])
                yield Finding(file, name, start + event, f"is {value}, not finite", repair)
