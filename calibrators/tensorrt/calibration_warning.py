"""Warnings about calibration, for what does not stop it."""

from __future__ import annotations

import warnings


class CalibrationWarning(UserWarning):
    """Calibration continues, but the user should know something about its data or its result."""


class CalibrationFailedWarning(CalibrationWarning):
    """A callback failed, but TensorRT finishes the build: its engine must not be used."""


def notify(message: str) -> None:
    """Warn with a one-line message."""
    warnings.warn(message, CalibrationWarning, stacklevel=2)
