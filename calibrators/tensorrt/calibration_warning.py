"""What a user should know although nothing failed."""

from __future__ import annotations

import warnings


class CalibrationWarning(UserWarning):
    """Calibration goes on, but not quite as one may think."""


def notify(message: str) -> None:
    """Warn of `message`, one line."""
    warnings.warn(message, CalibrationWarning, stacklevel=2)
