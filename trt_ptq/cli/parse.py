"""Values of options that are more than a string or a number."""

from __future__ import annotations

from trt_ptq.calibrators.errors import UsageError
from trt_ptq.collect.measuring import Nonfinite


def parse_share(text: str) -> float:
    """0.01 from "1%" or "0.01".

    Raises:
        UsageError: no number, or outside 0 to 1.
    """
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise UsageError(f"{text!r} is not a share: write 1% or 0.01")
    return share


def parse_tolerance(text: str) -> float:
    """What `--until-stable` allows a range to move.

    Raises:
        UsageError: no share, or one that no range exceeds.
    """
    tolerance = parse_share(text)
    if tolerance >= 1:
        raise UsageError(f"--until-stable {text}: no range ever moves by more: write 1%")
    return tolerance


def parse_nonfinite(text: str) -> Nonfinite:
    """What to do with NaN and infinity.

    Raises:
        UsageError: neither "refuse" nor "skip".
    """
    if text == "refuse":
        return "refuse"
    if text == "skip":
        return "skip"
    raise UsageError(f"--nonfinite is refuse or skip, not {text!r}")
