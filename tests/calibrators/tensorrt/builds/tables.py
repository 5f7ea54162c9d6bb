"""The expected caches: what the TensorRT stand-in computes from batches, computed with numpy."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from tests.calibrators.tensorrt.builds.building import IDENTITY_OUTPUT, Feeds


def header(version: str, algorithm: str = "EntropyCalibration2") -> str:
    major, minor, patch = map(int, version.split(".")[:3])
    return f"TRT-{major * 10000 + minor * 100 + patch}-{algorithm}"


def cache_text(first_line: str, fed: Sequence[Feeds], names: Sequence[str] = ("image", "mask")) -> str:
    """Scales max(abs) / 127 of float inputs, and that of the identity layer's output."""
    scales = {name: scale_hex(max(float(np.abs(feeds[name]).max()) for feeds in fed)) for name in names}
    lines = [first_line, *(f"{name}: {digits}" for name, digits in scales.items())]
    if "image" in scales:
        lines.append(f"{IDENTITY_OUTPUT}: {scales['image']}")
    return "\n".join(lines) + "\n"


def scale_hex(amax: float) -> str:
    return struct.pack(">f", np.float32(amax / 127)).hex()
