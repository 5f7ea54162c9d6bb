"""Runs code and `probe.py` on the stand-ins, with genuine packages of NVIDIA's."""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import packages
from .libraries import Standins
from .probe import batch
from .processes import run_script

PROBE = Path(__file__).with_name("probe.py")
LATEST = packages.TENSORRT_VERSIONS[-1]
IDENTITY_OUTPUT = "(Unnamed Layer* 0) [Identity]_output"


def run(
    standins: Standins,
    arguments: Sequence[str],
    version: str = LATEST,
    memory: Path | None = None,
    **switches: Any,
) -> subprocess.CompletedProcess[str]:
    folders = [packages.tensorrt_bindings(version), memory or packages.cuda_bindings()]
    return run_script(standins, arguments, folders, modules=["numpy"], **switches)


def probe(standins: Standins, options: dict[str, Any], **how: Any) -> dict[str, Any]:
    done = run(standins, [str(PROBE), json.dumps(options)], **how)
    assert done.returncode == 0, done.stderr
    *log, last_line = done.stdout.splitlines()  # TensorRT's logger writes to both streams
    outcome: dict[str, Any] = json.loads(last_line)
    outcome["log"] = "\n".join([*log, done.stderr])
    return outcome


def ask(standins: Standins, code: str, **switches: Any) -> str:
    done = run(standins, ["-c", code], **switches)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def scale_hex(name: str, batches: int) -> str:
    amax = max(np.abs(batch(index)[name]).max() for index in range(batches))
    return struct.pack(">f", np.float32(amax) / np.float32(127)).hex()


def table(first_line: str, batches: int) -> str:
    image, mask = scale_hex("image", batches), scale_hex("mask", batches)
    return f"{first_line}\nimage: {image}\nmask: {mask}\n{IDENTITY_OUTPUT}: {image}\n"


def header(version: str, algorithm: str = "EntropyCalibration2") -> str:
    major, minor, patch = version.split(".")[:3]
    return f"TRT-{int(major) * 10000 + int(minor) * 100 + int(patch)}-{algorithm}"
