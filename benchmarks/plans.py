"""What TensorRT-RTX makes of five models in FP16 and in INT8: kernels, bytes moved, and an estimate for an RTX 4090.

Two batches calibrate: the plan depends on which layers run in INT8, and not on their ranges.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

import trt_ptq
from benchmarks.accuracy.cases import CASES, Feeds
from benchmarks.results_file import Figures, RowSpec
from benchmarks.speed import models
from trt_ptq.engines.cost import estimate, load_gpu
from trt_ptq.engines.manifest import EngineManifest, read_manifest

GPU = "rtx4090"
SHAPES = {
    "recogniser": {"x": "8x3x48x320"},
    "detector": {"x": "2x3x480x640"},
    "magika": {"bytes": "8x2048"},
    "minilm": {"input_ids": "8x128", "attention_mask": "8x128"},
    "resnet50": {"x": "8x3x224x224"},  # random weights
}
_BATCHES = 2


def plan_rows() -> list[RowSpec]:
    """A row for each model."""
    return [RowSpec("plans", name, partial(_row, name)) for name in SHAPES]


def _row(name: str, _rows: Mapping[str, Figures]) -> Figures:
    model, batches = _inputs(name)
    with tempfile.TemporaryDirectory() as folder:
        quantized = Path(folder) / "int8.onnx"
        table = trt_ptq.calibrate(model, batches).table("minmax")
        trt_ptq.quantize_model(model, table, high_precision="fp16", data=batches).save(quantized)
        engines = {"fp16": _engine(name, model, Path(folder)), "int8": _engine(name, quantized, Path(folder))}
        engines["int8_rtx"] = _for_rtx(name, model, batches, Path(folder) / "rtx")
    return {"shapes": SHAPES[name], "gpu": GPU, **engines}


def _for_rtx(name: str, model: Path, batches: list[Feeds], folder: Path) -> Figures:
    """The INT8 engine of `quantize` for TensorRT-RTX, without tuning: layers that do not pay are in FP16."""
    options = {"method": "minmax", "techniques": (), "search": False, "backend": "rtx", "shapes": SHAPES[name]}
    config = trt_ptq.QuantizeConfig(gpu=GPU, **options)  # type: ignore[arg-type]
    result = trt_ptq.quantize(model, batches, test_data=batches[:1], output_dir=folder, config=config)
    assert result.engine_path is not None
    return _figures(read_manifest(result.engine_path), result.engine_path)


def _engine(name: str, onnx: Path, folder: Path) -> Figures:
    path = folder / "model.engine"
    return _figures(trt_ptq.build_engine(onnx, path, shapes=SHAPES[name], backend="rtx"), path)


def _figures(built: EngineManifest, path: Path) -> Figures:
    plan = trt_ptq.read_plan(path)
    return {
        "builder": f"{built.backend} {built.backend_version}",
        "engine_bytes": built.size_bytes,
        "constant_bytes": plan.constant_bytes,
        "kernels": plan.num_kernels,
        "reformats": len(plan.reformats),
        "bytes_moved": plan.bytes_moved,
        "macs": plan.macs,
        "estimated_seconds": estimate(plan, load_gpu(GPU)).seconds,
        "precisions": plan.precisions(),
    }


def _inputs(name: str) -> tuple[Path, list[Feeds]]:
    if name == "resnet50":
        return models.resnet50(), [models.images(4, seed=index) for index in range(_BATCHES)]
    batches = islice(CASES[name].calibration(), _BATCHES)
    return CASES[name].model(), [
        {key: np.ascontiguousarray(array) for key, array in feeds.items()} for feeds in batches
    ]
