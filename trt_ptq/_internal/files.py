"""Atomic writes: a reader sees the old file or the new one, never a part of it."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trt_ptq._internal.locks import try_lock
from trt_ptq.errors import OutputError


@contextmanager
def atomic_replace(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block succeeds, flush that file to disk and rename it to `path`.

    Raises:
        OutputError: The folder or the file cannot be written. The old file is untouched.
    """
    temporary = path.parent / f".trt-ptq-{secrets.token_hex(4)}.tmp"
    require_regular_file(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _marked_as_used(temporary):
            yield temporary
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # after the rename, or if the folder is a file, there is nothing to remove
            temporary.unlink()


@contextmanager
def _marked_as_used(temporary: Path) -> Iterator[None]:
    """Lock a new temporary file, so that no other process takes it for one that a killed process left."""
    temporary.touch()
    descriptor = None
    with suppress(OSError):  # a file system without locks
        descriptor = try_lock(temporary)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write `content` to `path`, atomically; text as UTF-8 with unchanged line endings."""
    with atomic_replace(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def check_writable(path: Path, *inputs: Path, is_folder: bool = False) -> None:
    """Check, before any work, that `path` can be written.

    Args:
        path: The file to write, or the folder if `is_folder`. Missing folders are created.
        inputs: Files and folders that the command reads. `path` must not be one of them, nor an existing file directly
            in one of the folders.
        is_folder: Whether `path` is a folder.

    Raises:
        OutputError: It cannot; says why.
    """
    if not is_folder:
        require_regular_file(path)
        replaced = {path.resolve(), path.resolve().parent} if path.exists() else {path.resolve()}
        if not replaced.isdisjoint(source.resolve() for source in inputs):
            raise OutputError(f"cannot write {path}: it is an input of this command; choose another path")
    probe = (path if is_folder else path.parent) / f".trt-ptq-{secrets.token_hex(4)}.tmp"
    _try(path, lambda: probe.parent.mkdir(parents=True, exist_ok=True))
    _try(path, lambda: probe.write_bytes(b""))
    probe.unlink()


def require_regular_file(path: Path) -> None:
    """Check that `path`, if it exists, is a regular file: renaming a file to /dev/null would destroy the device.

    Raises:
        OutputError: It is a folder, a device or a pipe.
    """
    _try(path, lambda: _require_regular_file(path))


def _require_regular_file(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return  # it does not exist; creating its folder reports what is wrong with that
    if stat.S_ISDIR(mode):
        raise OutputError(f"cannot write {path}: it is a folder; choose the path of a file")
    if not stat.S_ISREG(mode):
        raise OutputError(f"cannot write {path}: it is a device or pipe; choose the path of a file")


def _try(path: Path, action: Callable[[], object]) -> None:
    try:
        action()
    except (FileExistsError, NotADirectoryError) as error:
        file = next((part for part in (path, *path.parents) if os.path.lexists(part)), path)
        raise OutputError(
            f"cannot write {path}: {file} is a file, and should be a folder; choose another path"
        ) from error
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
