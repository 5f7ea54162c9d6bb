"""Locks that end with the process that holds them, however it ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trt_ptq.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there
    fcntl = None  # type: ignore[assignment]


def try_lock(path: Path) -> int | None:
    """Lock a file or a folder until the returned descriptor is closed; None if somebody else has locked it.

    Raises:
        OSError: it does not exist or cannot be locked, as on some network file systems.
    """
    if fcntl is None:
        raise OSError("this system has no flock")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Keep other runs from writing to `folder`, which leaves no file in it.

    Raises:
        OutputError: another run that is alive writes to it.
    """
    try:
        descriptor = try_lock(folder)
    except OSError:  # a file system without locks
        yield
        return
    if descriptor is None:
        raise OutputError(f"cannot write {folder}: another run is writing to it; wait for it, or choose another folder")
    try:
        yield
    finally:
        os.close(descriptor)
