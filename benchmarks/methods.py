"""The task metric of four real models in FP32, FP16 and INT8 by each range method, and the sizes of their engines.

    python -m benchmarks.methods [--json FILE] [--models recogniser magika]

INT8 models run on ONNX Runtime's CPU; engines are built by TensorRT-RTX and not run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.models import detector, magika, minilm, recogniser
from trt_ptq.accuracy.evaluate import evaluate_model
from trt_ptq.calibrators.methods import METHODS
from trt_ptq.calibrators.table.table import derive_table
from trt_ptq.collect.collector import collect
from trt_ptq.data.checked import CheckedSource
from trt_ptq.data.shapes import ShapeWatch, profiles_from_shapes
from trt_ptq.data.sources import Loader
from trt_ptq.engines.build import build_engine
from trt_ptq.engines.spec import EngineSpec, Precision
from trt_ptq.graph.half import to_float16
from trt_ptq.graph.macs import count_macs, share_in_int8
from trt_ptq.graph.model import load_model
from trt_ptq.graph.qdq import insert_qdq
from trt_ptq.graph.save import save_model
from trt_ptq.graph.taps import choose_taps

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
    save_model(to_float16(model), files["fp16"])
    source = ShapeWatch(CheckedSource(Loader(name, module.calibration), model.inputs))
    statistics = collect(model, source, choose_taps(model))
    for method, chosen in METHODS.items():
        files[method] = folder / f"{method}.onnx"
        converted = insert_qdq(model, derive_table(statistics, chosen))
        save_model(converted.model, files[method])
    metrics = {label: evaluate_model(path, module.evaluate, name) for label, path in files.items()}
    profiles = profiles_from_shapes(source.seen, model.inputs)
    macs = count_macs(model, {label: profile.optimum for label, profile in profiles.items()})
    engines = {}
    precisions: dict[Precision, str] = {"fp32": "fp32", "fp16": "fp16", "int8": "percentile"}
    for precision, label in precisions.items():
        spec = EngineSpec(files[label], folder / f"{precision}.engine", precision, model.identity, profiles)
        engines[precision] = build_engine(spec).size_bytes
    return {
        "samples": statistics.data.samples,
        "int8_nodes": f"{converted.in_int8} of {len(converted.nodes)}",
        "int8_share_of_macs": share_in_int8(converted.plan, macs),
        "metrics": metrics,
        "engine_bytes": engines,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = {}
    for name in arguments.models:
        with tempfile.TemporaryDirectory() as folder:
            results[name] = measure(name, MODELS[name], Path(folder))
        print(name, json.dumps(results[name], indent=2), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
