"""PP-OCRv4 text recogniser: pictures of one line of text in, characters out, judged by how many are right."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from benchmarks.models.fonts import FONT_NAMES, font
from benchmarks.models.texts import Split, line_texts
from benchmarks.models.wheels import wheel_file

Feeds = dict[str, NDArray[Any]]

_HEIGHT = 48
_WIDTHS = (160, 320, 480, 640)
_BATCH = 4  # lines: their activations stay in the processor's cache, those of 16 take 1.6 times the time


class Batch(NamedTuple):
    """Lines of similar width: uint8 pixels [n, 48, width, 3], the width each line has itself, its text."""

    pixels: NDArray[np.uint8]
    widths: list[int]
    texts: list[str]

    def feeds(self) -> Feeds:
        """`x`, float32 [n, 3, 48, width] in -1..1, and 0 to the right of each line's end."""
        x = (self.pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255 - 0.5) / 0.5
        for line, width in zip(x, self.widths, strict=True):
            line[:, :, width:] = 0
        return {"x": x}


def model() -> Path:
    """The ONNX file: dynamic batch and width, 6625 classes (blank, the characters, space)."""
    return wheel_file(
        "rapidocr-onnxruntime==1.4.4",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
    )


def calibration(*, samples: int = 320) -> Iterator[Feeds]:
    """Batches of rendered lines, none of which is in the test set."""
    for batch in _batches("calibration", samples):
        yield batch.feeds()


def validation(run: Callable[[Feeds], Feeds], samples: int = 800) -> dict[str, float]:
    """The metrics of `evaluate` on lines that are neither in the test nor in the calibration set."""
    return _accuracy(run, "validation", samples)


def evaluate(run: Callable[[Feeds], Feeds], samples: int = 1000) -> dict[str, float]:
    """`character_accuracy` (1 - edit distance / characters) and `exact_lines` (share without an error).

    Spaces do not count, as in PaddleOCR's own metric: this model drops or adds some at any precision.
    """
    return _accuracy(run, "test", samples)


def _accuracy(run: Callable[[Feeds], Feeds], split: Split, samples: int) -> dict[str, float]:
    alphabet = _alphabet()
    characters = errors = exact = 0
    for batch in _batches(split, samples):
        (probabilities,) = run(batch.feeds()).values()
        for text, classes in zip(batch.texts, probabilities.argmax(axis=2), strict=True):
            truth = text.replace(" ", "")
            distance = _edit_distance(truth, _decode(classes, alphabet).replace(" ", ""))
            characters += len(truth)
            errors += distance
            exact += distance == 0
    return {"character_accuracy": 1 - errors / characters, "exact_lines": exact / samples}


@lru_cache(maxsize=4)
def _batches(split: Split, samples: int) -> tuple[Batch, ...]:
    """Lines grouped by width, so that there are few different shapes."""
    rng = random.Random(f"pictures {split}")
    by_width: dict[int, list[tuple[str, Image.Image]]] = {width: [] for width in _WIDTHS}
    for text in line_texts(split, samples):
        picture = _picture(text, rng)
        by_width[next(width for width in _WIDTHS if picture.width <= width)].append((text, picture))
    return tuple(
        _batch(lines[start : start + _BATCH], width)
        for width, lines in by_width.items()
        for start in range(0, len(lines), _BATCH)
    )


def _batch(lines: list[tuple[str, Image.Image]], width: int) -> Batch:
    pixels = np.zeros((len(lines), _HEIGHT, width, 3), np.uint8)
    for row, (_, picture) in zip(pixels, lines, strict=True):
        row[:, : picture.width] = np.asarray(picture)
    return Batch(pixels, [picture.width for _, picture in lines], [text for text, _ in lines])


def _picture(text: str, rng: random.Random) -> Image.Image:
    """One line, 48 pixels high, at most 640 wide: any typeface, size, colours; some blurred or noisy."""
    face = font(rng.choice(FONT_NAMES), rng.choice((10, 12, 14, 18, 24, 32, 40)))
    left, top, right, bottom = (round(edge) for edge in face.getbbox(text))
    margin = rng.randint(1, max(2, (bottom - top) // 4))
    paper, ink = _colours(rng)
    picture = Image.new("RGB", (right - left + 2 * margin, bottom - top + 2 * margin), paper)
    ImageDraw.Draw(picture).text((margin - left, margin - top), text, fill=ink, font=face)
    if rng.random() < 0.15:
        picture = picture.filter(ImageFilter.GaussianBlur(picture.height / 48 * rng.uniform(1.0, 2.5)))
    width = min(-(-picture.width * _HEIGHT // picture.height), _WIDTHS[-1])
    picture = picture.resize((width, _HEIGHT), Image.Resampling.BILINEAR)
    if rng.random() < 0.3:
        noise = np.random.default_rng(rng.getrandbits(32)).normal(0, rng.uniform(5, 25), (_HEIGHT, width, 3))
        picture = Image.fromarray((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8))
    return picture


def _colours(rng: random.Random) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Paper and ink, as RGB; one line in five is faint, one in four is light on dark."""
    contrast = rng.randint(40, 80) if rng.random() < 0.2 else rng.randint(100, 200)
    dark = [rng.randint(0, 255 - contrast) for _ in range(3)]
    light = [channel + contrast for channel in dark]
    pair = (tuple(light), tuple(dark))
    return pair if rng.random() < 0.75 else pair[::-1]


@lru_cache(maxsize=1)
def _alphabet() -> list[str]:
    """The character of each class; class 0 is CTC's blank, the last one the space."""
    (characters,) = (entry.value for entry in onnx.load(model()).metadata_props if entry.key == "character")
    return ["", *characters.splitlines(), " "]


def _decode(classes: NDArray[np.int64], alphabet: list[str]) -> str:
    """CTC: of each run of equal classes keep one, then drop the blanks."""
    starts = np.flatnonzero(np.diff(classes, prepend=-1))
    return "".join(alphabet[index] for index in classes[starts])


def _edit_distance(left: str, right: str) -> int:
    """Levenshtein's: insertions, deletions and substitutions from one to the other."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(right, 1):
            diagonal, row[j] = row[j], min(diagonal + (a != b), row[j] + 1, row[j - 1] + 1)
    return row[-1]
