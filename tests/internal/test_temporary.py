"""Temporary folders: those of killed processes are removed, those in use and of others are not."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from trt_ptq._internal.files import atomic_replace
from trt_ptq._internal.locks import try_lock
from trt_ptq._internal.temporary import remove_abandoned, temporary_folder
from trt_ptq.errors import OutputError


def test_a_folder_ends_with_its_block(tmp_path: Path) -> None:
    with temporary_folder(tmp_path) as folder:
        (folder / "file").touch()
        assert folder.parent == tmp_path
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("has_name", [False, True])
def test_a_full_disk_is_said_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_name: bool) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with (
        pytest.raises(OutputError, match=f"no space left in the temporary folder {tmp_path}: set TMPDIR"),
        temporary_folder() as folder,
    ):
        raise OSError(errno.ENOSPC, "No space left on device", *[str(folder / "model.onnx")] * has_name)
    with pytest.raises(OSError, match="elsewhere"), temporary_folder(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device", "elsewhere")


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    for name in (".trt-ptq-scratch-abcdef12", "trt-ptq-scratch-a_cdef12"):
        (tmp_path / name / "inner").mkdir(parents=True)
    (tmp_path / ".trt-ptq-00ff00ff.tmp").touch()
    remove_abandoned(tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_is_in_use_or_of_others_stays(tmp_path: Path) -> None:
    others = {"trt-ptq-case-abcdefgh", "trt-ptq-scratch-of-mine", "results"}
    for name in others:
        (tmp_path / name).mkdir()
    with temporary_folder(tmp_path) as folder, atomic_replace(tmp_path / "file") as temporary:
        temporary.write_bytes(b"half")
        remove_abandoned(tmp_path)
        assert folder.is_dir()
        assert temporary.read_bytes() == b"half"
    assert {path.name for path in tmp_path.iterdir()} == {*others, "file"}


def test_a_lock_is_held_until_its_descriptor_is_closed(tmp_path: Path) -> None:
    descriptor = try_lock(tmp_path)
    assert descriptor is not None
    assert try_lock(tmp_path) is None
    os.close(descriptor)
    again = try_lock(tmp_path)
    assert again is not None
    os.close(again)
