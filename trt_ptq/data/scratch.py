"""Arrays that a run needs again, kept as files in its temporary folder up to a limit."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np

from trt_ptq.types import Array, Feeds

_logger = logging.getLogger(__name__)

_FRACTION_OF_FREE_DISK = 10
_FILE_KINDS = "biufc"  # NumPy's kinds that a .npy file holds without pickle, and that can be mapped


@dataclass(frozen=True)
class StoredArrays:
    """Arrays by name: each in a .npy file, or in memory if it has a type that such a file does not hold."""

    arrays: Mapping[str, Path | Array]

    def load(self) -> dict[str, Array]:
        """The arrays; those of files are mapped into memory, read-only."""
        return {
            name: np.load(stored, mmap_mode="r") if isinstance(stored, Path) else stored
            for name, stored in self.arrays.items()
        }


class Scratch:
    """Stores arrays in a folder, which the caller removes.

    Args:
        folder: the folder.
        limit_bytes: how much may be stored; a tenth of the free disk unless given.
    """

    def __init__(self, folder: Path, limit_bytes: int | None = None) -> None:
        free = shutil.disk_usage(folder).free
        self._folder = folder
        self._limit_bytes = free // _FRACTION_OF_FREE_DISK if limit_bytes is None else limit_bytes
        self._used_bytes = 0
        self._is_full = False
        self._numbers = count()

    def store(self, arrays: Feeds) -> StoredArrays | None:
        """Store copies of `arrays`; None if there is no room for all of them, which is logged once.

        After that nothing more is stored, so that what is stored of a sequence is its beginning.
        """
        if self._is_full:
            return None
        self._used_bytes += sum(array.nbytes for array in arrays.values())
        if self._used_bytes > self._limit_bytes:
            self._give_up(f"`scratch_limit` is reached ({self._limit_bytes:,} bytes)")
            return None
        try:
            return StoredArrays({name: self._store(array) for name, array in arrays.items()})
        except OSError as error:
            self._give_up(error.strerror or str(error))
            return None

    def _store(self, array: Array) -> Path | Array:
        if array.dtype.kind not in _FILE_KINDS:
            return array.copy()
        path = self._folder / f"{next(self._numbers)}.npy"
        try:
            np.save(path, array)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return path

    def _give_up(self, reason: str) -> None:
        self._is_full = True
        _logger.warning(
            "%s holds no more batches and FP32 outputs: %s. The rest is read from the data and computed again where it "
            "is needed again, which takes longer; the data must then be the same in each pass",
            self._folder.parent,
            reason,
        )
