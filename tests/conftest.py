"""Fixtures that many tests share."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from tests.decoders import exported_once, tiny_tokenizer
from tests.networks import images, residual_cnn
from trt_ptq.onnx_io.load import Model, load_model

# A shell that starts the tests in the background has them ignore Ctrl-C, and all that they start too.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Give each worker process one thread for PyTorch: a thread a core in every one of them fights over the cores."""
    if getattr(config.option, "numprocesses", None):
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # before they start: they inherit it


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests come first, so that no worker is still busy with one when the others have run out of tests."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


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


@pytest.fixture(scope="session")
def decoder_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama, exported with its cache; once for all worker processes."""
    pytest.importorskip("transformers")
    pytest.importorskip("onnxscript")
    base = tmp_path_factory.getbasetemp()
    return exported_once(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)


@pytest.fixture(scope="session")
def decoder(decoder_path: Path) -> Model:
    """The exported tiny Llama, loaded."""
    return load_model(decoder_path)


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tokenizer for the tiny Llama."""
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer().save_pretrained(folder)
    return folder
