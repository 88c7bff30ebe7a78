"""Classes of events: their names, and how a file format counts them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsegen.data.source import EventsSource
from sparsegen.errors import DataError

__all__ = ["class_names", "labels_in"]


def class_names(labels: NDArray[Any]) -> tuple[str, ...]:
    """Names of classes that are only numbered.

    Example:
        >>> class_names(np.array([2, 0]))
        ('0', '1', '2')
    """
    return tuple(map(str, range(int(labels.max(initial=0)) + 1)))


def labels_in(source: EventsSource, known: tuple[str, ...], path: Path, format: str) -> NDArray[np.int64]:
    """Labels of a data set as a format counts its own classes: by name, or by number where they have no other name.

    Args:
        source: The data set.
        known: The format's classes.
        path: The file to write, for errors.
        format: The format's name, for errors.

    Raises:
        DataError: The data set has no labels, or of other classes.
    """
    if source.labels is None:
        raise DataError(f"{path}: {format} says of each event whether it is {' or '.join(known)}; pass labels")
    labels = source.labels.numpy()
    if source.classes == tuple(map(str, range(len(source.classes)))):
        names: tuple[str, ...] = (*known, *source.classes[len(known) :])
    else:
        names = source.classes
    for label in np.unique(labels).tolist():
        if names[label] not in known:
            raise DataError(f"{path}: {format} has the classes {', '.join(known)}; given {', '.join(source.classes)}")
    place = [known.index(name) if name in known else -1 for name in names]
    return np.array(place, dtype=np.int64)[labels]
