"""ONNX Runtime's `quantize_static` as its documents advise for GPUs: Q/DQ, symmetric, int8 weights per channel.

https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html: `quant_pre_process` first; QInt8 for
activations and weights, both symmetric, for TensorRT. Percentile is ONNX Runtime's own default, 99.999; Entropy has
2048 bins, since with its default of 128 bins and 128 levels it searches nothing.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.calibrate import create_calibrator, save_tensors_data
from onnxruntime.quantization.shape_inference import quant_pre_process

from benchmarks.accuracy.cases import Feeds
from benchmarks.speed.onnxruntime_calibrators import BINS, Reader

MATRIX_OPS = ("Conv", "MatMul", "Gemm")
_BINS = {"MinMax": {}, "Percentile": {}, "Entropy": {"num_bins": BINS}}
_PER_CHANNEL_OPSET = 13


def quantize_theirs(path: Path, batches: Sequence[Feeds], method: str, operators: Sequence[str], result: Path) -> str:
    """Quantize `path` to `result` by the calibration `method`; returns notes about it.

    `operators` are the types that are quantized, all when empty.

    Histograms are collected batch by batch, as ONNX Runtime's `CalibStridedMinMax` does: else all activations of all
    batches would be held in memory. Its ranges reach `quantize_static` by its own calibration cache, because
    `quantize_static` has no option for the number of bins.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        prepared, cache = Path(folder) / "prepared.onnx", Path(folder) / "ranges.json"
        notes = _prepare(_with_per_channel(path, Path(folder)), prepared)
        types = list(operators) or _all_operators()
        calibrator: Any = create_calibrator(
            prepared,
            types,
            str(Path(folder) / "augmented.onnx"),
            CalibrationMethod[method],
            extra_options={"symmetric": True, **_BINS[method]},
        )
        for part in [batches] if method == "MinMax" else [[batch] for batch in batches]:
            calibrator.collect_data(Reader(part))
        save_tensors_data(calibrator.compute_data(), cache)
        del calibrator
        quantize_static(
            prepared,
            result,
            calibration_cache_path=cache,
            calibrate_method=CalibrationMethod[method],
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=types,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
        )
    return "; ".join(notes)


def _prepare(path: Path, prepared: Path) -> list[str]:
    """`quant_pre_process`, and what had to be changed so that it and `quantize_static` do not fail."""
    notes = []
    try:
        quant_pre_process(path, prepared)
    except Exception as error:
        if "symbolic shape" not in str(error):
            raise
        quant_pre_process(path, prepared, skip_symbolic_shape=True)
        notes.append("quant_pre_process with skip_symbolic_shape, because it fails without")
    model = onnx.load(prepared)
    if _flatten_biases(model.graph):
        onnx.save(model, prepared)
        notes.append("biases [1, n] of Gemm made [n], because quantize_static fails on them")
    return notes


def _flatten_biases(graph: onnx.GraphProto) -> int:
    """Make [n] of what only Gemm adds and is [1, n], as the pre-processing leaves it; how many."""
    read = {name: {node.op_type for node in graph.node if name in node.input} for name in _biases(graph)}
    changed = 0
    for tensor in graph.initializer:
        if read.get(tensor.name) == {"Gemm"} and len(tensor.dims) == 2 and tensor.dims[0] == 1:
            flat = onnx.numpy_helper.to_array(tensor).reshape(-1)
            tensor.CopyFrom(onnx.numpy_helper.from_array(flat, tensor.name))
            changed += 1
    return changed


def _biases(graph: onnx.GraphProto) -> set[str]:
    return {node.input[2] for node in graph.node if node.op_type == "Gemm" and len(node.input) > 2}


def _all_operators() -> list[str]:
    """The types that `quantize_static` takes when none is named."""
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return sorted({*QLinearOpsRegistry, *QDQRegistry})


def _with_per_channel(path: Path, folder: Path) -> Path:
    """The model in opset 13 at least, which Q/DQ per channel needs."""
    model = onnx.load(path)
    if next(opset.version for opset in model.opset_import if not opset.domain) >= _PER_CHANNEL_OPSET:
        return path
    converted = folder / "opset.onnx"
    onnx.save(onnx.version_converter.convert_version(model, _PER_CHANNEL_OPSET), converted)
    return converted
