"""Writing files so that a reader finds the old one or the new one, never a part."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trt_ptq.errors import OutputError


@contextmanager
def atomic_replace(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends well, flush it to disk and rename it.

    Raises:
        OutputError: the folder or the file cannot be written. The old file is untouched then.
    """
    temporary = path.parent / f".trt-ptq-{secrets.token_hex(4)}.tmp"
    require_regular_file(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
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
        with suppress(OSError):  # below a file, or after the rename, there is nothing to remove
            temporary.unlink()


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write `content` (text as UTF-8, newlines as they are) to `path` in one step."""
    with atomic_replace(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def check_writable(path: Path, *inputs: Path, is_folder: bool = False) -> None:
    """Find out before the work that `path` cannot be written, or is one of the `inputs` or of the files in them.

    Raises:
        OutputError: with the reason.
    """
    if not is_folder:
        require_regular_file(path)
        read = {path.resolve(), path.resolve().parent} if path.exists() else {path.resolve()}
        if not read.isdisjoint(one.resolve() for one in inputs):
            raise OutputError(f"cannot write {path}: it is what is read here; name another file")
    probe = (path if is_folder else path.parent) / f".trt-ptq-{secrets.token_hex(4)}.tmp"
    _try(path, lambda: probe.parent.mkdir(parents=True, exist_ok=True))
    _try(path, lambda: probe.write_bytes(b""))
    probe.unlink()


def require_regular_file(path: Path) -> None:
    """Only a file may be replaced: renaming over /dev/null would destroy the device.

    Raises:
        OutputError: `path` is a folder, a device or a pipe.
    """
    _try(path, lambda: _require_regular_file(path))


def _require_regular_file(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return  # nothing there yet; a missing or impossible folder is told when it is made
    if stat.S_ISDIR(mode):
        raise OutputError(f"cannot write {path}: it is a folder; name a file")
    if not stat.S_ISREG(mode):
        raise OutputError(f"cannot write {path}: it is a device or pipe; name a file")


def _try(path: Path, action: Callable[[], object]) -> None:
    try:
        action()
    except (FileExistsError, NotADirectoryError) as error:
        raise OutputError(f"cannot write {path}: there is a file where a folder must be; name another") from error
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
