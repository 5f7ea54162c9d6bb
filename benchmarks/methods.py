"""The task metric of four real models in FP32, FP16 and INT8 by each range method, and the sizes of their engines.

What is not INT8 is FP16. All run on ONNX Runtime's CPU, with float16 rounded as fp16/emulate.py tells; engines are
built by TensorRT-RTX and not run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.models import detector, magika, minilm, recogniser
from benchmarks.results_file import Figures, RowSpec
from trt_ptq.analysis.macs import count_macs
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.measurements.magnitudes import combine_amax, measure_amax
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.calibrators.methods import METHODS
from trt_ptq.calibrators.table.calibration_table import derive_table
from trt_ptq.data.checks.validation import ValidatedSource
from trt_ptq.data.observation import observe
from trt_ptq.data.open import open_data
from trt_ptq.data.shape_profiles import ShapeObserver, profiles_from_shapes
from trt_ptq.engines.backends import build_engine
from trt_ptq.engines.spec import EngineSpec, Precision
from trt_ptq.evaluation.metrics import UserMetric
from trt_ptq.fp16.convert import convert_to_float16, to_float16
from trt_ptq.onnx_io.load import load_model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.qdq.insert import insert_qdq
from trt_ptq.qdq.plan import int8_fraction

MODELS: dict[str, ModuleType] = {
    "recogniser": recogniser,
    "detector": detector,
    "magika": magika,
    "minilm": minilm,
}


def measure(name: str, module: ModuleType, folder: Path) -> dict[str, Any]:
    """Metrics by precision or method, engine sizes in bytes, and how much runs in INT8."""
    model = load_model(module.model())
    files = {"fp32": folder / "fp32.onnx", "fp16": folder / "fp16.onnx"}
    save_model(model.to_ir(), files["fp32"])
    data = ValidatedSource(open_data(module.calibration, model.inputs), model.inputs)
    shapes = ShapeObserver()
    statistics = collect_statistics(model, observe(data, shapes), select_calibration_tensors(model))
    amax = combine_amax(measure_amax(model, data), statistics)
    save_model(to_float16(model, amax), files["fp16"])
    for method, chosen in METHODS.items():
        files[method] = folder / f"{method}.onnx"
        converted = insert_qdq(model, derive_table(statistics, chosen))
        save_model(convert_to_float16(converted.model, amax).model, files[method])
    metrics = {label: UserMetric(module.evaluate, name).evaluate(path) for label, path in files.items()}
    profiles = profiles_from_shapes(shapes.seen, model.inputs)
    macs = count_macs(model, {label: profile.optimum for label, profile in profiles.items()})
    engines = {}
    precisions: dict[Precision, str] = {"fp32": "fp32", "fp16": "fp16", "int8": "percentile"}
    for precision, label in precisions.items():
        spec = EngineSpec(files[label], folder / f"{precision}.engine", precision, model.identity, profiles)
        engines[precision] = build_engine(spec).size_bytes
    return {
        "samples": statistics.data.samples,
        "int8_nodes": f"{converted.num_int8_nodes} of {len(converted.nodes)}",
        "int8_fraction_of_macs": int8_fraction(converted.plan, macs),
        "metrics": metrics,
        "engine_bytes": engines,
    }


def method_rows() -> list[RowSpec]:
    """A row for each model."""
    return [RowSpec("methods", name, partial(_row, name)) for name in MODELS]


def _row(name: str, _rows: Mapping[str, Figures]) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        return measure(name, MODELS[name], Path(folder))
