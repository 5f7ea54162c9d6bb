"""How counting loops are compiled: by numba, with the machine code kept on disk where that can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile `function` in nopython mode, without the GIL.

    numba's cache raises as the module is imported where neither the installation nor the user's cache folder can be
    written, as in a container with a user of its own. Then every process compiles for itself, in seconds.
    """
    try:
        return cast(Function, njit(nogil=True, cache=True)(function))
    except RuntimeError:
        return cast(Function, njit(nogil=True)(function))
