"""The only gate to optional packages."""

from __future__ import annotations

import importlib
from typing import Any

from trt_ptq.errors import MissingPackageError


def require(module: str, extra: str) -> Any:
    """Import `module`, or say which extra of trt-ptq brings it.

    Raises:
        MissingPackageError: the module, or a library it loads, is not there.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: a shared library that does not load
        reason = " ".join(str(error).split())
        raise MissingPackageError(
            f'{module} is needed here and could not be imported ({reason}): pip install "trt-ptq[{extra}]"'
        ) from error
