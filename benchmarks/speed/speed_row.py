"""One line of the table: what was measured, beside its target."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

NOT_MEASURED = "not measured: "


@dataclass(frozen=True)
class Row:
    """`met` is None without a target, or where nothing could be measured (`measured` says why).

    `figures` are the numbers behind it: seconds of every round, never rounded.
    """

    what: str
    target: str
    measured: str
    met: bool | None
    figures: dict[str, Any] = field(default_factory=dict)
