"""What PyTorch says while it exports a model to ONNX."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


@contextmanager
def without_export_notes() -> Iterator[None]:
    """PyTorch warns of deprecations inside itself on every export, and notes that torchvision is not installed."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        registration.setLevel(level)


def first_cause(error: BaseException) -> str:
    """What went wrong at first: torch wraps it in errors that explain the steps of the export, in colour."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next(iter(_ESCAPES.sub("", str(error)).strip().splitlines()), "")
