"""Temporary folders and files. What a killed process left is removed by the next one that works in the same place."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from trt_ptq._internal.locks import try_lock
from trt_ptq.errors import OutputError

_PREFIX = "trt-ptq-scratch-"
_ABANDONED = re.compile(r"\.?trt-ptq-scratch-\w{8}|\.trt-ptq-[0-9a-f]{8}\.tmp")


@contextmanager
def temporary_folder(inside: Path | None = None) -> Iterator[Path]:
    """A folder that is removed at the end, hidden in `inside`, or in the system's folder for temporary files.

    Raises:
        OSError: it cannot be created.
        OutputError: the block has filled the disk.
    """
    parent = Path(tempfile.gettempdir()) if inside is None else inside
    _remove_abandoned_once(parent)
    prefix = _PREFIX if inside is None else f".{_PREFIX}"
    # Windows does not remove a file that is still mapped into memory: no reason for a finished run to fail.
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True) as name:
        descriptor = None
        with suppress(OSError):
            descriptor = try_lock(Path(name))
        try:
            yield Path(name)
        except OSError as error:
            if not _fills(error, name):
                raise
            where = "the temporary folder" if inside is None else "the folder"
            remedy = "set TMPDIR to a folder that has more" if inside is None else "make room there"
            raise OutputError(f"no space left in {where} {parent}: {remedy}") from error
        finally:
            if descriptor is not None:
                os.close(descriptor)


def _fills(error: OSError, folder: str) -> bool:
    """Whether a write into `folder` failed for lack of space; an error of `write` itself names no file."""
    file = error.filename
    return error.errno == errno.ENOSPC and (file is None or os.fsdecode(file).startswith(folder))


def remove_abandoned(parent: Path) -> None:
    """Remove the temporary folders and files in `parent` whose process has ended."""
    try:
        entries = list(parent.iterdir())
    except OSError:
        return
    for path in entries:
        if not _ABANDONED.fullmatch(path.name) or path.is_symlink():
            continue
        with suppress(OSError):  # of another user, or removed meanwhile
            if (descriptor := try_lock(path)) is None:
                continue
            try:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            finally:
                os.close(descriptor)


@cache
def _remove_abandoned_once(parent: Path) -> None:
    remove_abandoned(parent)
