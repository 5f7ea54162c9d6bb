"""Compiles the stand-in libraries, and gives the environment in which genuine Python packages run on them."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).parent
INSIDE = SOURCES / "inside"  # for use inside the subprocess: the module standin

COMPILE_FLAGS = ("-std=c++17", "-O1", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra")
COMPILE_TIMEOUT_S = 300


class StandinUnavailableError(RuntimeError):
    """A stand-in, or a genuine package for it, is not available on this machine; the message says why."""


@dataclass(frozen=True)
class StandinLibrary:
    """One shared library: the folder of its sources, its file name, and the names that point to it."""

    sources: str
    name: str
    aliases: tuple[str, ...]


NVINFER = StandinLibrary("nvinfer", "libnvinfer.so.10", ("libnvinfer_plugin.so.10", "libnvonnxparser.so.10"))
LIBRARIES = (StandinLibrary("cuda", "libcuda.so.1", ("libcuda.so",)), NVINFER)
WITHOUT_DRIVER = "without-driver"


@dataclass(frozen=True)
class Standins:
    """The compiled libraries in one folder, and libnvinfer alone in a folder in it."""

    libraries: Path

    def environment(
        self,
        packages: Sequence[Path],
        *,
        limit_bytes: int | None = None,
        no_device: bool = False,
        defer: bool = False,
        reverse_names: bool = False,
        refused_layers: Sequence[str] = (),
        copy_from_device: bool = False,
        genuine_driver: bool = False,
    ) -> dict[str, str]:
        """Environment variables for a subprocess in which `packages` find the stand-ins.

        Args:
            packages: folders from packages.py, first match wins; this Python's own packages come after.
            limit_bytes: the stand-in device's memory; an allocation beyond it is CUDA_ERROR_OUT_OF_MEMORY.
            no_device: cuInit returns CUDA_ERROR_NO_DEVICE.
            defer: asynchronous work is done only when something synchronizes with its stream.
            reverse_names: get_batch is called with the input names in reverse order.
            copy_from_device: batches are copied from device memory by the driver, as with a genuine libcuda.
            genuine_driver: the machine's own libcuda, under our libnvinfer.
            refused_layers: layers for which the builder has no implementation if they read what was dequantized.
        """
        environment = dict(os.environ)
        libraries = self.libraries / WITHOUT_DRIVER if genuine_driver else self.libraries
        environment["LD_LIBRARY_PATH"] = _joined([libraries], environment.get("LD_LIBRARY_PATH"))
        environment["PYTHONPATH"] = _joined([INSIDE, *packages], environment.get("PYTHONPATH"))
        switches = {
            "STANDIN_CUDA_LIMIT_BYTES": None if limit_bytes is None else str(limit_bytes),
            "STANDIN_CUDA_NO_DEVICE": "1" if no_device else None,
            "STANDIN_CUDA_DEFER": "1" if defer else None,
            "STANDIN_NVINFER_REVERSE_NAMES": "1" if reverse_names else None,
            "STANDIN_NVINFER_COPY": "1" if copy_from_device else None,
            "STANDIN_NVINFER_REFUSE": "\n".join(refused_layers) or None,
        }
        for name, value in switches.items():
            environment.pop(name, None)
            if value is not None:
                environment[name] = value
        return environment


def default_cache() -> Path:
    """Folder of libraries and packages between runs; TRT_PTQ_STANDIN_CACHE overrides it."""
    chosen = os.environ.get("TRT_PTQ_STANDIN_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "trt_ptq" / "standins"


def build(folder: Path | None = None) -> Standins:
    """Compiles the libraries into a subfolder named after the hash of their sources, unless it is there.

    Raises:
        StandinUnavailableError: there is no C++ compiler, or it refused the sources.
    """
    compiler = os.environ.get("CXX") or "g++"
    libraries = (folder or default_cache()) / f"libraries-{_source_hash(compiler)}"
    if not libraries.is_dir():
        if shutil.which(compiler) is None:
            raise StandinUnavailableError(
                f"no C++ compiler {compiler!r} for the stand-in libraries: install g++, or set CXX"
            )
        with atomic_folder(libraries) as unfinished:
            for library in LIBRARIES:
                _compile(compiler, library, unfinished)
            beside_driver = unfinished / WITHOUT_DRIVER
            beside_driver.mkdir()
            for name in (NVINFER.name, *NVINFER.aliases):
                (beside_driver / name).symlink_to(Path("..", NVINFER.name))
    return Standins(libraries)


class atomic_folder:  # noqa: N801 - used like a function
    """A folder that appears under its name only when complete: parallel test runs never see half of it."""

    def __init__(self, final: Path) -> None:
        self._final = final

    def __enter__(self) -> Path:
        self._final.parent.mkdir(parents=True, exist_ok=True)
        self._unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=self._final.parent))
        return self._unfinished

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            try:
                self._unfinished.rename(self._final)
            except OSError:
                if not self._final.is_dir():  # else another run was first: its folder serves
                    raise
        shutil.rmtree(self._unfinished, ignore_errors=True)


def _compile(compiler: str, library: StandinLibrary, folder: Path) -> None:
    sources = sorted(str(path) for path in (SOURCES / library.sources).glob("*.cpp"))
    output = folder / library.name
    command = [compiler, *COMPILE_FLAGS, *sources, f"-Wl,-soname,{library.name}", "-ldl", "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise StandinUnavailableError(f"{compiler} could not compile {library.name}:\n{done.stderr}")
    for alias in library.aliases:
        (folder / alias).symlink_to(library.name)


def _source_hash(compiler: str) -> str:
    digest = hashlib.sha256(" ".join((compiler, *COMPILE_FLAGS, sys.platform)).encode())
    for library in LIBRARIES:
        for path in sorted((SOURCES / library.sources).iterdir()):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _joined(folders: Sequence[Path], rest: str | None) -> str:
    return os.pathsep.join([*map(str, folders), *([rest] if rest else [])])
