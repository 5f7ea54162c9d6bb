"""Fixtures that many tests share."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

from tests.networks import images, residual_cnn
from trt_ptq.onnx_io.load import Model, load_model

# A shell that starts the tests in the background has them ignore Ctrl-C, and all that they start too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def cnn_path(tmp_path: Path) -> Path:
    """The residual CNN on disk."""
    return residual_cnn(tmp_path / "cnn.onnx")


@pytest.fixture
def cnn(cnn_path: Path) -> Model:
    """The residual CNN, loaded."""
    return load_model(cnn_path)


@pytest.fixture
def npz_folder(tmp_path: Path) -> Path:
    """Ten batches of 12 samples for the CNN."""
    folder = tmp_path / "data"
    folder.mkdir()
    for index in range(10):
        np.savez(folder / f"{index:03}.npz", x=images(12, seed=index))
    return folder
