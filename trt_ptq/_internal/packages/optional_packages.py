"""The import of optional packages."""

from __future__ import annotations

import importlib
from typing import Any

from trt_ptq.errors import MissingPackageError


def require(module: str, extra: str) -> Any:
    """Import `module`.

    Args:
        module: Name of a module of an optional package.
        extra: The extra of trt-ptq that installs the package.

    Raises:
        MissingPackageError: The module, or a library that it loads, is missing; says how to install it.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: a shared library that does not load
        reason = " ".join(str(error).split())
        raise MissingPackageError(
            f'{module} is required and could not be imported ({reason}): pip install "trt-ptq[{extra}]"'
        ) from error
