"""Values of options that are more than a string or a number."""

from __future__ import annotations

from trt_ptq.calibrators.errors import UsageError
from trt_ptq.collect.measuring import Nonfinite
from trt_ptq.graph.half import HighPrecision

_UNITS = {"MB": 1_000_000, "GB": 1_000_000_000, "TB": 1_000_000_000_000}


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


def parse_size(text: str) -> int:
    """Bytes from "800MB", "4GB" or "4.5GB".

    Raises:
        UsageError: no such size.
    """
    number, unit = text[:-2], text[-2:].upper()
    try:
        size = int(float(number) * _UNITS[unit])
    except (KeyError, ValueError, OverflowError):
        size = 0
    if size <= 0:
        raise UsageError(f"{text!r} is not a size: write 800MB or 4GB")
    return size


def refuse_memory_limit(memory_limit: str | None, device: str) -> None:
    """A limit is of the host's memory, where --device cuda keeps no tensors.

    Raises:
        UsageError: both are given.
    """
    if memory_limit is not None and device != "cpu":
        raise UsageError(f"--memory-limit is for --device cpu, not {device}: there, give smaller batches")


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
