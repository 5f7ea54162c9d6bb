"""The only gate to optional packages."""

from __future__ import annotations

import importlib
from typing import Any

from trt_ptq.calibrators.errors import MissingPackageError


def require(module: str, extra: str) -> Any:
    """Import `module`, or say which extra of trt-ptq brings it.

    Raises:
        MissingPackageError: the module, or a library it loads, is not there.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackageError(
            f'{module} is needed here and could not be imported ({error}): pip install "trt-ptq[{extra}]"'
        ) from error
