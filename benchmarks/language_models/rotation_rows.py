"""Hadamard rotation against SmoothQuant: what W8A8 loses after each, and after both.

Data, range method, judging and excluded layers are those of the rows w8a8-80 to w8a8-100; weights are rounded to
nearest. The MatMuls that rotate at run time are in FP32, and do not count as linear layers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from benchmarks.language_models import prepared
from benchmarks.language_models.lm_rows import SUITE
from benchmarks.language_models.rotation import rotate
from benchmarks.language_models.rotation_table import ROTATED_FRACTIONS, VARIANTS, Variant
from benchmarks.results_file import Figures, RowSpec
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.calibrators.methods import METHODS
from trt_ptq.calibrators.table.calibration_table import derive_table
from trt_ptq.language_models.decoder import decoder_layout
from trt_ptq.onnx_io.load import load_model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.qdq.insert import insert_qdq
from trt_ptq.transforms.alpha_search import apply_smoothquant


def rotation_rows() -> list[RowSpec]:
    """A row for each way to prepare the model for W8A8."""
    return [RowSpec(SUITE, name, partial(_losses, variant)) for name, variant in VARIANTS.items()]


def _losses(variant: Variant, rows: Mapping[str, Figures]) -> Figures:
    """The losses by percentage of the MACs of linear layers in INT8."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, rotating = prepared.plain().path, list[str]()
        if variant.rotated:
            head_size = decoder_layout(prepared.plain()).cache[0].head_size
            rotated = prepared.plain().to_ir()
            rotating = rotate(rotated, head_size, values=variant.values, online=variant.online)
            path = folder / "rotated.onnx"
            save_model(rotated, path)
        with prepared.calibration_data(folder, path) as data:
            if variant.smooth:
                smooth = apply_smoothquant(load_model(path), data).model
                path = folder / "smooth.onnx"
                save_model(smooth, path)
            model = load_model(path)
            table = derive_table(collect_statistics(model, data, select_calibration_tensors(model)), METHODS["minmax"])
        losses = {}
        for percent in ROTATED_FRACTIONS:
            excluded = rows[f"w8a8-{percent}"]["excluded"]
            losses[str(percent)] = prepared.judged(insert_qdq(model, table, [*excluded, *rotating]).model)
    return {"by_percent": losses}
