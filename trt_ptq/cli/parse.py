"""Values of options that are more than a string or a number."""

from __future__ import annotations

from typing import TypeVar

from trt_ptq.calibration.calibration_pass import Nonfinite
from trt_ptq.errors import UsageError
from trt_ptq.fp16.convert import HighPrecision

Choice = TypeVar("Choice", bound=str)

_PERHAPS_PERCENT = 0.1
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
        meant = f"{text}%" if 1 < share <= 100 and not text.endswith("%") else "1% or 0.01"
        raise UsageError(f"{text!r} is not a share: write {meant}")
    return share


def parse_max_drop(text: str) -> float:
    """The largest loss that `--max-drop` allows.

    Raises:
        UsageError: no share, or one of 0.1 or more without a %, which may be meant in percent.
    """
    largest = parse_share(text)
    if largest >= _PERHAPS_PERCENT and not text.endswith("%"):
        raise UsageError(
            f"--max-drop {text} would allow {largest:.6g} of all to be lost: write {text}% or {100 * largest:.6g}%"
        )
    return largest


def parse_tolerance(text: str) -> float:
    """What `--until-stable` allows a range to move.

    Raises:
        UsageError: no share, one that no range exceeds, or none at all.
    """
    tolerance = parse_share(text)
    if not tolerance:
        raise UsageError(f"--until-stable {text}: ranges never stop moving altogether: write 1%")
    if tolerance >= 1:
        raise UsageError(f"--until-stable {text}: no range ever moves by more: write 1%")
    return tolerance


def parse_nonfinite(text: str) -> Nonfinite:
    """What to do with NaN and infinity.

    Raises:
        UsageError: neither "refuse" nor "skip".
    """
    choices: tuple[Nonfinite, ...] = ("refuse", "skip")
    return _one_of(choices, text, "--nonfinite")


def parse_high_precision(text: str) -> HighPrecision:
    """What runs that is not INT8.

    Raises:
        UsageError: neither "fp16" nor "fp32".
    """
    choices: tuple[HighPrecision, ...] = ("fp16", "fp32")
    return _one_of(choices, text, "--high-precision")


def _one_of(choices: tuple[Choice, ...], text: str, option: str) -> Choice:
    for choice in choices:
        if choice == text:
            return choice
    raise UsageError(f"{option} is {' or '.join(choices)}, not {text!r}")


def parse_memory_limit(text: str | None, device: str) -> int | None:
    """Bytes from "800MB" or "4.5GB"; None if there is no limit.

    Raises:
        UsageError: no such size, or not for the CPU: it is of the host's memory, where --device cuda keeps no tensors.
    """
    if text is None:
        return None
    if device != "cpu":
        raise UsageError(f"--memory-limit is for --device cpu, not {device}: there, give smaller batches")
    return _parse_size(text)


def _parse_size(text: str) -> int:
    number, unit = text[:-2], text[-2:].upper()
    try:
        size = int(float(number) * _UNITS[unit])
    except (KeyError, ValueError, OverflowError):
        size = 0
    if size <= 0:
        raise UsageError(f"{text!r} is not a size: write 800MB or 4GB")
    return size
