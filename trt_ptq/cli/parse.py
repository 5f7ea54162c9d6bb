"""Values of options that are more than a string or a number."""

from __future__ import annotations

from trt_ptq.calibrators.errors import UsageError
from trt_ptq.collect.collector import Nonfinite
from trt_ptq.graph.half import HighPrecision


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


def parse_high_precision(text: str) -> HighPrecision:
    """What runs that is not INT8.

    Raises:
        UsageError: neither "fp16" nor "fp32".
    """
    if text == "fp16":
        return "fp16"
    if text == "fp32":
        return "fp32"
    raise UsageError(f"--high-precision is fp16 or fp32, not {text!r}")
