"""Magika: the first and the last bytes of a file in, its type out. The data are this Python's own files."""

from __future__ import annotations

import json
import sysconfig
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.models.texts import Split
from benchmarks.models.wheels import wheel_file

Feeds = dict[str, NDArray[Any]]

_WHEEL = "magika==1.0.3"
_BATCH = 32
_HALF = 1024
_BLOCK = 4096
_PADDING = 256
_SHORTEST = 8
_MOST: dict[Split, int] = {"calibration": 1000, "validation": 400, "test": 1000}
# Only endings that mean one type; no bytecode, because running Python creates more of it.
_LABELS = {
    ".bat": "batch",
    ".bz2": "bzip",
    ".c": "c",
    ".cmake": "cmake",
    ".cpp": "cpp",
    ".css": "css",
    ".csv": "csv",
    ".exe": "pebin",
    ".f90": "fortran",
    ".gif": "gif",
    ".gz": "gzip",
    ".html": "html",
    ".jpg": "jpeg",
    ".js": "javascript",
    ".json": "json",
    ".md": "markdown",
    ".npy": "npy",
    ".npz": "npz",
    ".onnx": "onnx",
    ".pem": "pem",
    ".pkl": "pickle",
    ".png": "png",
    ".proto": "proto",
    ".py": "python",
    ".rst": "rst",
    ".sh": "shell",
    ".so": "elf",
    ".svg": "svg",
    ".ttf": "ttf",
    ".wav": "wav",
    ".xml": "xml",
    ".xz": "xz",
    ".yaml": "yaml",
    ".zip": "zip",
}


class Sample(NamedTuple):
    """What the model sees of a file (int32 [2048], 256 where there is no byte) and the file's type."""

    features: NDArray[np.int32]
    label: str


def model() -> Path:
    """The ONNX file: dynamic batch, 214 types."""
    return wheel_file(
        _WHEEL,
        "magika/models/standard_v3_3/model.onnx",
        "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
    )


def calibration(*, samples: int = 512) -> Iterator[Feeds]:
    """Batches of 32 files, none of which looks the same as a file of the test set."""
    for batch in _batches("calibration", samples):
        yield _feeds(batch)


def validation(run: Callable[[Feeds], Feeds], samples: int = 400) -> dict[str, float]:
    """The metric of `evaluate` on files none of which looks the same as one of the test or calibration set."""
    return _accuracy(run, "validation", samples)


def evaluate(run: Callable[[Feeds], Feeds], samples: int = 800) -> dict[str, float]:
    """`accuracy`: the share of files whose most probable type is the one that the file's ending says."""
    return _accuracy(run, "test", samples)


def _accuracy(run: Callable[[Feeds], Feeds], split: Split, samples: int) -> dict[str, float]:
    labels = _labels()
    right = total = 0
    for batch in _batches(split, samples):
        (probabilities,) = run(_feeds(batch)).values()
        found = [labels[index] for index in probabilities.argmax(axis=1)]
        right += sum(label == sample.label for label, sample in zip(found, batch, strict=True))
        total += len(batch)
    return {"accuracy": right / total}


def _feeds(batch: list[Sample]) -> Feeds:
    return {"bytes": np.stack([sample.features for sample in batch])}


def _batches(split: Split, samples: int) -> Iterator[list[Sample]]:
    chosen = _samples()[split][:samples]
    for start in range(0, len(chosen), _BATCH):
        yield chosen[start : start + _BATCH]


@lru_cache(maxsize=1)
def _samples() -> dict[Split, list[Sample]]:
    """Files of the standard library and site-packages by split, types taking turns.

    The same on every run as long as the same packages are installed. A checksum of the features decides where a file
    goes: of files that look the same to the model one is kept, on one side.
    """
    splits: dict[Split, list[Sample]] = {"calibration": [], "validation": [], "test": []}
    seen: set[int] = set()
    for turn in zip_longest(*_paths().values()):
        for path in filter(None, turn):
            features = _features(path.read_bytes())
            checksum = zlib.crc32(features.tobytes())
            if checksum not in seen and features[_SHORTEST - 1] != _PADDING:
                seen.add(checksum)
                splits[_split_of(checksum)].append(Sample(features, _LABELS[path.suffix]))
        if all(len(splits[split]) >= most for split, most in _MOST.items()):
            break
    return splits


def _split_of(checksum: int) -> Split:
    if checksum % 2:
        return "test"
    return "calibration" if checksum % 3 else "validation"


def _paths() -> dict[str, list[Path]]:
    """Files by ending, in an order that mixes all packages: by a checksum of the path."""
    found: dict[str, list[tuple[int, str, Path]]] = {ending: [] for ending in _LABELS}
    for root in sorted({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}):
        for path in Path(root).rglob("*.*"):
            if path.suffix in found and path.is_file():
                name = path.relative_to(root).as_posix()
                found[path.suffix].append((zlib.crc32(name.encode()), name, path))
    return {ending: [path for *_, path in sorted(files)] for ending, files in found.items()}


def _features(content: bytes) -> NDArray[np.int32]:
    """Magika's rule: 1024 bytes after the leading white space, then the 1024 before the trailing one."""
    features = np.full(2 * _HALF, _PADDING, np.int32)
    head = content[:_BLOCK].lstrip()[:_HALF]
    tail = content[-_BLOCK:].rstrip()[-_HALF:]
    features[: len(head)] = list(head)
    features[len(features) - len(tail) :] = list(tail)
    return features


@lru_cache(maxsize=1)
def _labels() -> list[str]:
    """The type of each class, after Magika's own renaming of the two classes that stand for noise."""
    path = wheel_file(
        _WHEEL,
        "magika/models/standard_v3_3/config.min.json",
        "ae24c742205358f6ff6dfd5facb6743fb69743dbba8373e73da58ff0cbd695db",
    )
    config = json.loads(path.read_text())
    return [config["overwrite_map"].get(label, label) for label in config["target_labels_space"]]
