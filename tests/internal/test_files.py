"""Atomic writes: a reader sees the complete old file or the complete new one."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from trt_ptq._internal.files import atomic_replace, check_writable, write_atomic
from trt_ptq.errors import OutputError

WRITES_HALF_AND_WAITS = """
import sys, time
from pathlib import Path
from trt_ptq._internal.files import atomic_replace
with atomic_replace(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half of the ne")
    print("half", flush=True)
    time.sleep(60)
"""


def test_writes_bytes_and_text_as_they_are(tmp_path: Path) -> None:
    write_atomic(tmp_path / "b", b"\x00\r\n\xff")
    write_atomic(tmp_path / "t", "ü\r\n")
    assert (tmp_path / "b").read_bytes() == b"\x00\r\n\xff"
    assert (tmp_path / "t").read_bytes() == "ü\r\n".encode()


def test_makes_the_folders_on_the_way(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a" / "b" / "c", "x")
    assert (tmp_path / "a" / "b" / "c").read_text() == "x"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, MemoryError])
def test_an_exception_in_the_middle_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    write_atomic(tmp_path / "f", "old")

    def write() -> None:
        with atomic_replace(tmp_path / "f") as temporary:
            temporary.write_text("half of the ne")
            raise error

    with pytest.raises(error):
        write()
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("f", "old")]


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path: Path) -> None:
    write_atomic(tmp_path / "f", "old")
    with atomic_replace(tmp_path / "f") as temporary:
        temporary.write_text("new")
        assert (tmp_path / "f").read_text() == "old"
    assert (tmp_path / "f").read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_reader_that_has_the_old_file_open_reads_it_to_its_end(tmp_path: Path) -> None:
    write_atomic(tmp_path / "f", "old")
    with (tmp_path / "f").open() as reader:
        write_atomic(tmp_path / "f", "new")
        assert reader.read() == "old"


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_kill_9_in_the_middle_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "f.npz"
    write_atomic(path, "old")
    with subprocess.Popen(
        [sys.executable, "-c", WRITES_HALF_AND_WAITS, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
    assert path.read_text() == "old"
    left = [file.name for file in tmp_path.iterdir() if file != path]
    assert all(name.startswith(".trt-ptq-") and name.endswith(".tmp") for name in left)  # nobody reads such a file
    write_atomic(path, "new")
    assert path.read_text() == "new"


def below_a_file(folder: Path) -> Path:
    (folder / "file").write_text("old")
    return folder / "file" / "out"


def deep_below_a_file(folder: Path) -> Path:
    return below_a_file(folder) / "deeper" / "out"


def an_existing_folder(folder: Path) -> Path:
    (folder / "folder").mkdir()
    return folder / "folder"


def a_name_too_long(folder: Path) -> Path:
    return folder / ("n" * 300)


@pytest.mark.parametrize("place", [below_a_file, deep_below_a_file, an_existing_folder, a_name_too_long])
def test_an_unwritable_path_is_one_line_that_names_it(tmp_path: Path, place: Callable[[Path], Path]) -> None:
    path = place(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    writers: list[Callable[[], None]] = [lambda: write_atomic(path, "x"), lambda: check_writable(path)]
    for write in writers:
        with pytest.raises(OutputError, match=r"^cannot write ") as caught:
            write()
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_device_is_never_replaced_by_a_file() -> None:
    null = Path("/dev/null")
    writers: list[Callable[[], None]] = [lambda: write_atomic(null, "x"), lambda: check_writable(null)]
    for write in writers:
        with pytest.raises(OutputError, match="a device or pipe"):
            write()
    assert null.is_char_device()


def test_a_name_as_long_as_the_file_system_allows_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    write_atomic(path, "x")
    assert path.read_text() == "x"


def test_checking_leaves_nothing_behind_and_keeps_the_old_file(tmp_path: Path) -> None:
    write_atomic(tmp_path / "f", "old")
    check_writable(tmp_path / "f")
    check_writable(tmp_path, is_folder=True)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("f", "old")]


def test_checking_a_folder_refuses_a_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        check_writable(tmp_path / "f", is_folder=True)
