"""How often a run reads the user's data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import trt_ptq
from tests.networks import images, sabotaged_cnn
from tests.pipeline.quantizing import quantized
from trt_ptq.onnx_io.load import Model, load_model

NEEDS_TUNING: dict[str, Any] = {"method": "auto", "max_drop": 1e-6}


class Images:
    """Ten batches of pictures; `produced` lists the numbers of those that were computed."""

    def __init__(self) -> None:
        self.produced: list[int] = []

    def __call__(self) -> Iterator[dict[str, npt.NDArray[np.float32]]]:
        for number in range(10):
            self.produced.append(number)
            yield {"x": images(4, seed=number)}


def test_a_run_with_every_technique_and_a_search_produces_each_batch_once(tmp_path: Path) -> None:
    data = Images()
    report = quantized(load_model(sabotaged_cnn(tmp_path / "m.onnx")), tmp_path / "out", data, **NEEDS_TUNING).report
    assert {trial.name for trial in report.trials} > {"weights and activations", "cross-layer equalization"}
    assert data.produced == list(range(10))


def test_test_data_are_produced_once_as_well(cnn: Model, tmp_path: Path) -> None:
    data, test_data = Images(), Images()
    quantized(cnn, tmp_path, data, test_data=test_data, **NEEDS_TUNING)
    assert sorted(data.produced) == sorted(test_data.produced) == list(range(10))


def test_a_folder_of_images_is_preprocessed_once(cnn: Model, tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image")
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(6):
        pillow.new("L", (8, 8), 40 * number).save(folder / f"{number}.png")
    preprocessed: list[int] = []

    def preprocess(image: Any) -> npt.NDArray[np.float32]:
        preprocessed.append(int(np.asarray(image)[0, 0]) // 40)
        picture: npt.NDArray[np.float32] = images(1, seed=preprocessed[-1])[0]
        return picture

    config = trt_ptq.QuantizeConfig(backend="none", batch_size=1, **NEEDS_TUNING)
    trt_ptq.quantize(cnn, folder, preprocess=preprocess, output_dir=tmp_path / "out", config=config)
    assert sorted(preprocessed) == list(range(6))


def test_a_scratch_limit_changes_no_result(cnn: Model, tmp_path: Path) -> None:
    for name, limit in (("all", None), ("some", 50_000), ("none", 1)):
        data = Images()
        quantized(cnn, tmp_path / name, data, scratch_limit=limit, **NEEDS_TUNING)
        assert (len(data.produced) == 10) == (name == "all")
    for file in ("calibration.json", "model.int8.onnx", "recipe.yaml", "model.fp16.onnx"):
        assert len({(tmp_path / name / file).read_bytes() for name in ("all", "some", "none")}) == 1
