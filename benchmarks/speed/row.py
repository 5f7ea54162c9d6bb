"""One line of the table: what was to be reached, and what was measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

NOT_MEASURED = "not measured: "


@dataclass(frozen=True)
class Row:
    """`met` is None where nothing is to be reached, or nothing could be measured (`measured` says why).

    `figures` are the numbers behind it: seconds of every round, never rounded.
    """

    what: str
    reach: str
    measured: str
    met: bool | None
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        return {True: "met", False: "NOT MET", None: ""}[self.met]
