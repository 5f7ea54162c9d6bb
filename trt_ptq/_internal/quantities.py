"""Fractions and sizes as people write them: 0.01 or "1%", 4_000_000_000 or "4GB". Errors name the parameter."""

from __future__ import annotations

import math
import re

from trt_ptq.errors import UsageError

_UNITS = {"MB": 1_000_000, "GB": 1_000_000_000, "TB": 1_000_000_000_000}
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}
_AMBIGUOUS_FROM = 0.1  # without a %, larger numbers may be meant in percent


def parse_fraction(parameter: str, value: float | str) -> float:
    """A fraction from 0 to 1: 0.01 from 0.01, "0.01" or "1%".

    Args:
        parameter: what the error message calls the value.
        value: a number, or text with or without a percent sign.

    Raises:
        UsageError: not a number, or outside 0 to 1.
    """
    text = value.strip() if isinstance(value, str) else ""
    try:
        fraction = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1) if text else _number(value)
    except ValueError:
        fraction = math.nan
    if not 0 <= fraction <= 1:  # NaN fails it, too
        meant = f"{text}%" if 1 < fraction <= 100 and text and not text.endswith("%") else '"1%" or 0.01'
        raise UsageError(f"`{parameter}` must be a fraction from 0 to 1, not {value!r}: write {meant}")
    return fraction


class MaxDrop(float):
    """A largest loss that was checked: it is accepted again, where a config is copied."""


def parse_max_drop(parameter: str, value: float | str) -> MaxDrop:
    """The largest relative loss that is allowed, as a fraction: from a percentage, or from a fraction below 0.1.

    Raises:
        UsageError: not a fraction from 0 to 1; or 0.1 or more without a percent sign, which may be meant in percent.
    """
    if isinstance(value, MaxDrop):
        return value
    try:
        fraction = parse_fraction(parameter, value)
    except UsageError as error:
        number = str(value).strip()
        remedy = f": write {number}%" if re.fullmatch(r"\d+(\.\d+)?", number) and 1 < float(number) <= 100 else ""
        raise UsageError(
            f"`{parameter}` must be a percentage such as 1% or a fraction below {_AMBIGUOUS_FROM}, not {value!r}"
            f"{remedy}"
        ) from error
    if fraction >= _AMBIGUOUS_FROM and not str(value).strip().endswith("%"):
        percent = 100 * fraction
        raise UsageError(
            f"`{parameter}={value}` would allow a loss of {percent:.6g} %: write {value}% or {percent:.6g}%"
        )
    return MaxDrop(fraction)


def parse_tolerance(parameter: str, value: float | str) -> float:
    """How far ranges may still move, as a fraction above 0 and below 1.

    Raises:
        UsageError: see `parse_fraction`; or 0, which is never reached, or 1, which is always met.
    """
    tolerance = parse_fraction(parameter, value)
    if not 0 < tolerance < 1:
        raise UsageError(f"`{parameter}` must be above 0 and below 1, not {value!r}: write 1%")
    return tolerance


def parse_size(parameter: str, value: int | str) -> int:
    """A size in bytes: 4_000_000_000 from that number or "4GB"; MB, GB and TB are powers of 1000.

    Raises:
        UsageError: not a size above 0.
    """
    size = 0
    if isinstance(value, str):
        number, unit = value.strip()[:-2], value.strip()[-2:].upper()
        try:
            size = int(float(number) * _UNITS[unit])
        except (KeyError, ValueError, OverflowError):
            size = 0
    elif isinstance(value, int) and not isinstance(value, bool):
        size = value
    if size <= 0:
        raise UsageError(f'`{parameter}` must be a size such as "800MB" or "4GB", not {value!r}')
    return size


def parse_duration(parameter: str, value: float | str) -> float:
    """A duration in seconds: 600.0 from 600, "600", "600s" or "10m"; h is an hour.

    Raises:
        UsageError: not a duration above 0.
    """
    text = value.strip().lower() if isinstance(value, str) else ""
    try:
        seconds = float(text.rstrip("smh")) * _SECONDS[text.lstrip("0123456789. ")] if text else _number(value)
    except (KeyError, ValueError):
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise UsageError(f'`{parameter}` must be a duration such as "90s", "10m" or "2h", not {value!r}')
    return seconds


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("not a number")
    return float(value)


def format_percent(fraction: float) -> str:
    """A fraction in percent, however small it is."""
    return f"{100 * fraction:.6g}%"
