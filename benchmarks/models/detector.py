"""PP-OCRv4 text detector: pages in, each pixel's probability of being text out, judged by the lines found."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from benchmarks.models.fonts import FONT_NAMES, font
from benchmarks.models.texts import Split, line_texts
from benchmarks.models.wheels import wheel_file

Feeds = dict[str, NDArray[Any]]
Boxes = NDArray[np.float64]

_SIZES = ((480, 640), (640, 480))
_BATCH = 2
_LINES = 24
_TEXT_PIXEL = 0.3
_TEXT_BOX = 0.5
_UNCLIP = 1.6


class Page(NamedTuple):
    """Pixels, uint8 [height, width, 3], and the lines' boxes, float [lines, 4]: left, top, right, bottom."""

    pixels: NDArray[np.uint8]
    boxes: Boxes


def model() -> Path:
    """The ONNX file: dynamic batch, height and width (multiples of 32)."""
    return wheel_file(
        "rapidocr-onnxruntime==1.4.4",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
    )


def calibration(*, samples: int = 48) -> Iterator[Feeds]:
    """Batches of 2 pages, 480 x 640 or 640 x 480 pixels; no line on them is in the test set."""
    for batch in _batches("calibration", samples):
        yield _feeds(batch)


def validation(run: Callable[[Feeds], Feeds], samples: int = 80) -> dict[str, float]:
    """The metric of `evaluate` on pages whose lines are neither in the test nor in the calibration set."""
    return _hmean(run, "validation", samples)


def evaluate(run: Callable[[Feeds], Feeds], samples: int = 80) -> dict[str, float]:
    """`hmean`: harmonic mean of precision and recall of the lines' boxes, right from an IoU of 0.5."""
    return _hmean(run, "test", samples)


def _hmean(run: Callable[[Feeds], Feeds], split: Split, samples: int) -> dict[str, float]:
    true = found = recalled = correct = 0
    for batch in _batches(split, samples):
        (maps,) = run(_feeds(batch)).values()
        for page, probabilities in zip(batch, maps[:, 0], strict=True):
            boxes = _find_boxes(probabilities)
            overlaps = _iou(page.boxes, boxes) >= 0.5
            true += len(page.boxes)
            found += len(boxes)
            recalled += int(overlaps.any(axis=1).sum())
            correct += int(overlaps.any(axis=0).sum())
    precision, recall = correct / max(found, 1), recalled / true
    return {"hmean": 2 * precision * recall / max(precision + recall, 1e-9)}


def _feeds(batch: list[Page]) -> Feeds:
    """`x`, float32 [2, 3, height, width] in -1..1."""
    pixels = np.stack([page.pixels for page in batch]).transpose(0, 3, 1, 2)
    return {"x": (pixels.astype(np.float32) / 255 - 0.5) / 0.5}


def _batches(split: Split, samples: int) -> Iterator[list[Page]]:
    pages = _pages(split, samples)
    for start in range(0, samples, _BATCH):
        yield list(pages[start : start + _BATCH])


@lru_cache(maxsize=4)
def _pages(split: Split, samples: int) -> tuple[Page, ...]:
    """Pages, of which two neighbours have one size."""
    texts = line_texts(split, samples * _LINES)
    rng = random.Random(f"pages {split}")
    return tuple(
        _page(texts[index * _LINES : (index + 1) * _LINES], _SIZES[index // _BATCH % 2], rng)
        for index in range(samples)
    )


def _page(texts: list[str], size: tuple[int, int], rng: random.Random) -> Page:
    """As many of the lines as fit, from top to bottom, each with a typeface, size and ink of its own."""
    height, width = size
    dark = rng.random() < 0.25
    paper = [rng.randint(0, 60) if dark else rng.randint(180, 255) for _ in range(3)]
    picture = Image.new("RGB", (width, height), tuple(paper))
    draw = ImageDraw.Draw(picture)
    boxes = []
    top = rng.randint(8, 40)
    for text in texts:
        face = font(rng.choice(FONT_NAMES), rng.choice((10, 12, 14, 18, 24, 32)))
        ink_left, ink_top, ink_right, ink_bottom = (round(edge) for edge in face.getbbox(text))
        line_width, line_height = ink_right - ink_left + 2, ink_bottom - ink_top + 2  # a margin of a pixel
        if line_width > width - 16:
            continue
        if top + line_height > height - 8:
            break
        left = rng.randint(8, width - 8 - line_width)
        contrast = rng.randint(30, 160)
        ink = tuple(channel + contrast if dark else channel - contrast for channel in paper)
        draw.text((left + 1 - ink_left, top + 1 - ink_top), text, fill=ink, font=face)
        boxes.append((left, top, left + line_width, top + line_height))
        top += line_height + rng.randint(6, 30)
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, rng.uniform(0, 12), (height, width, 3))
    return Page((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8), np.array(boxes, np.float64))


def _find_boxes(probabilities: NDArray[np.float32]) -> Boxes:
    """Upright boxes [found, 4] of the connected text pixels, grown as DB (arXiv 1911.08947) prescribes.

    DB learns shrunken lines; a box grows back by area * 1.6 / perimeter on every side.
    """
    regions, _ = ndimage.label(probabilities > _TEXT_PIXEL, structure=np.ones((3, 3)))
    boxes = []
    for rows, columns in ndimage.find_objects(regions):
        width, height = columns.stop - columns.start, rows.stop - rows.start
        if min(width, height) >= 3 and probabilities[rows, columns].mean() >= _TEXT_BOX:
            grow = width * height * _UNCLIP / (2 * (width + height))
            boxes.append((columns.start - grow, rows.start - grow, columns.stop + grow, rows.stop + grow))
    return np.array(boxes, np.float64).reshape(-1, 4)


def _iou(left: Boxes, right: Boxes) -> NDArray[np.float64]:
    """Intersection over union of every box of `left` [n, 4] with every one of `right` [m, 4]: [n, m]."""
    start = np.maximum(left[:, None, :2], right[None, :, :2])
    stop = np.minimum(left[:, None, 2:], right[None, :, 2:])
    shared = (stop - start).clip(min=0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (left, right)]
    return np.asarray(shared / (areas[0][:, None] + areas[1][None, :] - shared))
