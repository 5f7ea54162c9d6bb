"""Arrays in the temporary folder of a run."""

from __future__ import annotations

import errno
import logging
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from trt_ptq.data.scratch import Scratch


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.arange(6, dtype=np.float16).reshape(2, 3).T,
        np.array(3, np.int64),
        np.zeros((2, 0, 4), np.float32),
        np.array([True, False]),
        np.array([["a"], ["bc"]]),
        np.array([["a"], ["bc"]], object),
        np.ones(3, ml_dtypes.bfloat16),
    ],
    ids=["matrix", "transposed", "scalar", "empty", "bool", "text", "objects", "bfloat16"],
)
def test_arrays_come_back_as_they_were(tmp_path: Path, array: Any) -> None:
    stored = Scratch(tmp_path).store({"x": array})
    assert stored is not None
    loaded = stored.load()["x"]
    assert (loaded.dtype, loaded.shape) == (array.dtype, array.shape)
    assert np.array_equal(loaded, array)


def test_arrays_that_files_hold_take_no_memory(tmp_path: Path) -> None:
    stored = Scratch(tmp_path).store({"x": np.ones(3, np.float32)})
    assert stored is not None
    assert isinstance(stored.load()["x"], np.memmap)


def test_a_tenth_of_the_free_disk_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(free=10 * 12))
    scratch = Scratch(tmp_path)
    assert scratch.store({"x": np.ones(3, np.float32)})
    assert scratch.store({"x": np.ones(1, np.float32)}) is None


def test_nothing_is_stored_after_the_first_that_did_not_fit(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path, 10)
    assert [bool(scratch.store({"x": np.ones(size, np.uint8)})) for size in (6, 6, 2)] == [True, False, False]


def test_a_full_disk_is_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def save(path: Path, _array: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", save)
    with caplog.at_level(logging.WARNING, logger="trt_ptq"):
        assert Scratch(tmp_path).store({"x": np.ones(3, np.float32)}) is None
    assert "No space left on device" in caplog.text
    assert not list(tmp_path.iterdir())
