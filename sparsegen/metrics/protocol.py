"""How a number was obtained: sizes, batches, replacement, what happens to events that cannot be evaluated."""

from __future__ import annotations

from dataclasses import dataclass

from sparsegen.errors import ConfigError, unknown_name

__all__ = ["PROTOCOLS", "Protocol", "resolve"]


@dataclass(frozen=True)
class Protocol:
    """The settings that two numbers must share to be compared.

    Args:
        name: What the settings are called; two results compare only under one name.
        events: Events a batch on each side; None takes both samples whole, once.
        batches: Batches whose mean and standard deviation are value and error; used with ``events``.
        replace: Whether batches are drawn with replacement.
        resamples: Resamples behind the error of a whole-sample value, where it has no closed form.
        pairs: Real-against-real pairs behind the floor.
        invalid: What to do with events that are not finite, have negative energy or no hits: ``leave_out`` (and count
            them) or ``raise``.
    """

    name: str = "whole"
    events: int | None = None
    batches: int = 1
    replace: bool = False
    resamples: int = 100
    pairs: int = 10
    invalid: str = "leave_out"

    def __post_init__(self) -> None:
        if self.invalid not in ("leave_out", "raise"):
            raise ConfigError(unknown_name("way to treat invalid events", self.invalid, ("leave_out", "raise")))
        if self.batches < 1 or self.resamples < 2 or self.pairs < 1 or (self.events is not None and self.events < 2):
            raise ConfigError(
                f"Protocol {self.name!r}: events {self.events}, batches {self.batches}, resamples {self.resamples} and "
                f"pairs {self.pairs}; expected at least 2, 1, 2 and 1"
            )


PROTOCOLS: dict[str, Protocol] = {
    "whole": Protocol(),
    "mpgan2021": Protocol("mpgan2021", events=10_000, batches=5, replace=True),
    "jetnet0.2": Protocol("jetnet0.2", events=50_000, batches=5, replace=True),
    "calochallenge": Protocol("calochallenge"),
}
"""Protocols by name: both samples whole, and those of published tables (Kansal et al., 2021; JetNet 0.2; Krause et al.,
2024)."""


def resolve(protocol: Protocol | str | None) -> Protocol:
    """The protocol of that name; the whole samples by default."""
    if isinstance(protocol, Protocol):
        return protocol
    name = "whole" if protocol is None else protocol
    if name not in PROTOCOLS:
        raise ConfigError(unknown_name("protocol", name, PROTOCOLS))
    return PROTOCOLS[name]
