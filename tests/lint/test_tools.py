"""Models of real tools: ONNX Runtime, torch and trt_ptq."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from benchmarks.models import detector, magika, minilm, recogniser
from tests.networks import images
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.calibrators.methods import METHODS
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.calibrators.table.calibration_table import derive_table
from trt_ptq.data.open import open_data
from trt_ptq.lint.linter import lint_model
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.qdq.insert import insert_qdq
from trt_ptq.types import Feeds

pytestmark = pytest.mark.slow

SYMMETRIC = {"ActivationSymmetric": True, "WeightSymmetric": True}
INT8 = {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8}
# By default ONNX Runtime quantizes every node that it can, the model's outputs and residual sums too.
EVERYWHERE = {"double-residual": 1, "quantized-output": 1}


class _Images(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        self._batches: Iterator[Feeds] = ({"x": images(4, seed)} for seed in range(4))

    def get_next(self) -> Feeds | None:
        return next(self._batches, None)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QUInt8},
            {"zero-point": 6, "uint8": 10, "int32-bias": 1, "weight-per-tensor": 3, **EVERYWHERE},
        ),
        ({}, {"zero-point": 6, "int32-bias": 1, "weight-per-tensor": 3, **EVERYWHERE}),
        (
            {**INT8, "extra_options": SYMMETRIC},
            {"int32-bias": 1, "weight-per-tensor": 3, "before-activation": 1, **EVERYWHERE},
        ),
        (
            {**INT8, "per_channel": True, "extra_options": SYMMETRIC},
            {"int32-bias": 1, "before-activation": 1, **EVERYWHERE},
        ),
        (
            {**INT8, "per_channel": True, "extra_options": {**SYMMETRIC, "QuantizeBias": False}},
            {"before-activation": 1, **EVERYWHERE},
        ),
        (
            {"quant_format": QuantFormat.QOperator},
            {"zero-point": 1, "integer-operator": 4, "quantized-output": 1},
        ),
    ],
    ids=["uint8", "default", "symmetric", "per channel", "per channel, float bias", "QOperator"],
)
def test_models_of_onnxruntime_have_the_expected_findings(
    cnn_path: Path, tmp_path: Path, options: dict[str, Any], expected: dict[str, int]
) -> None:
    path = tmp_path / "m.onnx"
    quantize_static(cnn_path, path, _Images(), **options)
    assert Counter(finding.rule for finding in lint_model(path)) == expected


def test_a_dynamically_quantized_model_has_operators_that_tensorrt_does_not_support(
    cnn_path: Path, tmp_path: Path
) -> None:
    quantize_dynamic(cnn_path, tmp_path / "m.onnx")
    assert {(finding.severity, finding.rule) for finding in lint_model(tmp_path / "m.onnx")} == {
        ("error", "integer-operator")
    }


@pytest.mark.parametrize("dynamo", [False, True], ids=["TorchScript", "dynamo"])
@pytest.mark.parametrize(("zero_point", "expected"), [(0, set()), (5, {"zero-point"})])
def test_fake_quantization_exported_by_torch_is_linted(
    tmp_path: Path, dynamo: bool, zero_point: int, expected: set[str]
) -> None:
    torch = pytest.importorskip("torch", reason='needs torch: pip install "trt-ptq[torch]"')

    class Quantized(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(16, 16, 3, 3))

        def forward(self, x: Any) -> Any:
            x = torch.fake_quantize_per_tensor_affine(x, 0.02, zero_point, -128, 127)
            zeros = torch.zeros(16, dtype=torch.int32)
            weight = torch.fake_quantize_per_channel_affine(self.weight, torch.full((16,), 0.01), zeros, 0, -128, 127)
            return torch.relu(torch.nn.functional.conv2d(x, weight, padding=1))

    path = tmp_path / "m.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        torch.onnx.export(Quantized().eval(), (torch.randn(1, 16, 8, 8),), str(path), opset_version=18, dynamo=dynamo)
    assert {finding.rule for finding in lint_model(path)} == expected


@pytest.fixture(
    scope="module", params=[recogniser, detector, magika, minilm], ids=lambda module: module.__name__.split(".")[-1]
)
def measured(request: pytest.FixtureRequest) -> tuple[Model, Statistics]:
    """A trained model, and its statistics."""
    model = load_model(request.param.model())
    source = open_data(partial(request.param.calibration, samples=8), model.inputs)
    return model, collect_statistics(model, source, select_calibration_tensors(model))


@pytest.mark.parametrize("method", ["percentile", "minmax"])
def test_our_own_models_have_no_findings(measured: tuple[Model, Statistics], method: str, tmp_path: Path) -> None:
    model, statistics = measured
    path = tmp_path / "int8.onnx"
    save_model(insert_qdq(model, derive_table(statistics, METHODS[method])).model, path)
    assert lint_model(path, statistics) == []
