"""Compiles counting loops with numba, and caches the machine code on disk if possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile `function` in nopython mode, without the GIL.

    If neither the installation nor the user's cache folder is writable, as for some users in containers, numba's cache
    raises on import. Then every process compiles the function itself, which takes seconds.
    """
    try:
        return cast(Function, njit(nogil=True, cache=True)(function))
    except RuntimeError:
        return cast(Function, njit(nogil=True)(function))
