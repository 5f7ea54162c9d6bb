"""The genuine Python packages that run on the stand-ins, each in a folder of its own."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from .libraries import Standins, StandinUnavailableError, atomic_folder, default_cache

# The first and the last release of TensorRT 10, and two between.
TENSORRT_VERSIONS = ("10.0.1", "10.9.0.34", "10.13.3.9.post1", "10.16.1.11")

CUDA_BINDINGS = ("cuda-bindings==12.9.10", "cuda-pathfinder==1.*")
PYCUDA = ("pycuda==2026.1",)
CUDA_HEADERS = ("nvidia-cuda-runtime-cu12==12.9.79", "nvidia-cuda-profiler-api-cu12==12.9.79")

INSTALL_TIMEOUT_S = 900

# `import tensorrt` comes with the wheel of NVIDIA's libraries; here the name is an alias of the bindings.
TENSORRT_ALIAS = """\
import importlib
import sys

sys.modules[__name__] = importlib.import_module("tensorrt_bindings")
"""


def tensorrt_bindings(version: str, cache: Path | None = None) -> Path:
    """Folder with the genuine `tensorrt-cu12-bindings` of a version, importable as `tensorrt`; no NVIDIA library."""
    requirement = f"tensorrt-cu12-bindings=={version}"
    return _installed(f"tensorrt-{version}", [requirement], cache, extra_files={"tensorrt.py": TENSORRT_ALIAS})


def cuda_bindings(cache: Path | None = None) -> Path:
    """Folder with the genuine `cuda-bindings` (use `cuda.bindings.driver`)."""
    return _installed("cuda-bindings", CUDA_BINDINGS, cache)


def pycuda(standins: Standins, cache: Path | None = None) -> Path:
    """Folder with the genuine pycuda, compiled against the stand-in libcuda: about a minute, the first time.

    The CUDA headers come from wheels, so that no toolkit is needed and every machine compiles the same thing.
    """
    headers = _installed("cuda-headers", CUDA_HEADERS, cache) / "nvidia"
    includes = [str(headers / package / "include") for package in ("cuda_runtime", "cuda_profiler_api")]
    settings = {
        "CUDA_ROOT": str(headers),
        "CUDA_INC_DIR": includes,
        "CUDA_ENABLE_CURAND": False,
        "CUDADRV_LIB_DIR": [str(standins.libraries)],
        "CUDADRV_LIBNAME": ["cuda"],
        "CXXFLAGS": ["-O0"],
    }
    with tempfile.TemporaryDirectory() as home:  # pycuda's build reads its settings from the home folder
        lines = [f"{name} = {value!r}\n" for name, value in settings.items()]
        Path(home, ".aksetup-defaults.py").write_text("".join(lines))
        environment = {
            "XDG_CONFIG_HOME": str(Path.home() / ".config"),  # the user's pip settings stay in force
            **os.environ,
            "HOME": home,
            "LD_LIBRARY_PATH": str(standins.libraries),
        }
        return _installed("pycuda", PYCUDA, cache, dependencies=True, environment=environment)


def _installed(
    name: str,
    requirements: Sequence[str],
    cache: Path | None,
    *,
    dependencies: bool = False,
    environment: Mapping[str, str] | None = None,
    extra_files: Mapping[str, str] | None = None,
) -> Path:
    python = f"py{sys.version_info.major}{sys.version_info.minor}"
    folder = (cache or default_cache()) / f"{name}-{python}"
    if folder.is_dir():
        return folder
    with atomic_folder(folder) as unfinished:
        options = [] if dependencies else ["--no-deps"]
        # No cache: pip would store a pycuda that was compiled for the stand-in, and install it in other projects.
        command = [
            *_installer(),
            "install",
            "--no-cache-dir",
            *options,
            "--target",
            str(unfinished),
            *requirements,
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False, env=environment
        )
        if done.returncode != 0:
            output = (done.stdout + done.stderr)[-2000:]
            raise StandinUnavailableError(f"{' '.join(command)} failed:\n{output}")
        for file_name, text in (extra_files or {}).items():
            (unfinished / file_name).write_text(text)
    return folder


def _installer() -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    if shutil.which("uv") is not None:
        return ["uv", "pip"]
    raise StandinUnavailableError("neither pip nor uv is there to install the genuine packages with")
