"""Lists in messages, cut where they would be too long."""

from __future__ import annotations

from collections.abc import Sequence


def first_few(texts: Sequence[str], most: int, separator: str = ", ") -> str:
    """Join the first `most` texts, and say how many more there are: "a, b, and 3 more"."""
    more = f"{separator}and {len(texts) - most} more" if len(texts) > most else ""
    return separator.join(texts[:most]) + more


def counted(count: int, noun: str) -> str:
    """The count and the noun, in the plural unless there is one: "1 layer", "3 layers"."""
    return f"{count} {noun}{'s' * (count != 1)}"
