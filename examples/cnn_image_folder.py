"""A CNN that reads digits: calibrated from a folder of images, judged by its accuracy on labelled test images.

Run: python examples/cnn_image_folder.py [FOLDER]    (needs torch, scikit-learn and Pillow; about 20 seconds)
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import trt_ptq


def preprocess(image: Image.Image) -> np.ndarray:
    """From an image file to the input of one sample, float32 [1, 8, 8] in 0..1: the same as in training."""
    return np.asarray(image, np.float32)[None] / 255


class Digits(torch.nn.Module):
    """Two convolutions and a linear layer: x [n, 1, 8, 8] -> logits [n, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(1, 32, 3, padding=1)
        self.second = torch.nn.Conv2d(32, 32, 3, padding=1)
        self.head = torch.nn.Linear(32 * 16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.first(x).relu()).relu()
        logits: torch.Tensor = self.head(torch.nn.functional.max_pool2d(x, 2).flatten(1))
        return logits


def train(images: np.ndarray, labels: np.ndarray) -> torch.nn.Module:
    torch.manual_seed(0)
    model = Digits()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    inputs, targets = torch.from_numpy(images), torch.from_numpy(labels)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    return model.eval()


def write_images(folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """One subfolder for each class, as in ImageNet."""
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray((image[0] * 255).astype(np.uint8)).save(folder / str(label) / f"{number:04}.png")


def main(folder: Path) -> trt_ptq.QuantizeResult:
    digits = load_digits()
    pixels = (digits.images / 16).astype(np.float32)[:, None]
    images, test_images, labels, test_labels = train_test_split(pixels, digits.target, test_size=0.3, random_state=0)
    model = train(images, labels)
    write_images(folder / "calibration", images[:300], labels[:300])

    def accuracy(run) -> dict[str, float]:  # type: ignore[no-untyped-def]
        (logits,) = run({"x": test_images}).values()
        return {"accuracy": float((logits.argmax(1) == test_labels).mean())}

    return trt_ptq.quantize(
        model,
        folder / "calibration",
        preprocess=preprocess,
        evaluate=accuracy,
        example_inputs={"x": torch.from_numpy(images[:2])},
        output_dir=folder / "int8",
        config=trt_ptq.QuantizeConfig(max_drop=0.01, batch_size=10),
    )


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="trt-ptq-cnn-"))
    print(main(target))
