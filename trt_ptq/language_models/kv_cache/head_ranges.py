"""The range of each cache tensor, as a whole and for each head, for servers that keep the cache themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common as passes

from trt_ptq.calibrators.table.calibration_table import INT8_MAX, CalibrationTable
from trt_ptq.data.subset import Head
from trt_ptq.language_models.decoder import DecoderLayout
from trt_ptq.onnx_io.graph_editor import GraphEditor
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.ort_session import create_session, run_session
from trt_ptq.types import BatchSource

_SAMPLES = 64
_AXES_ARE_AN_INPUT = 18  # of ReduceMax, since this opset


@dataclass(frozen=True)
class CacheRange:
    """The range of one cache tensor.

    Attributes:
        past: the input.
        present: the output.
        scale: the scale of both in the graph.
        head_scales: for each head the largest magnitude / 127, over all positions of the samples.
    """

    past: str
    present: str
    scale: float
    head_scales: tuple[float, ...]


def measure_cache_ranges(
    model: Model, source: BatchSource, layout: DecoderLayout, table: CalibrationTable
) -> list[CacheRange]:
    """Measure the heads of the cache on up to 64 samples; the model itself reduces, so no cache leaves it.

    Args:
        model: the float model.
        source: the calibration data.
        layout: its cache.
        table: the ranges of the whole tensors.

    Raises:
        DataError: there are no batches, or the model fails on one.
    """
    part = model.to_ir()
    editor = GraphEditor(part.graph)
    by_name = {value.name: value for value in part.graph.outputs}
    axes = editor.constant("trt_ptq.heads.axes", ir.tensor(np.array([0, 2, 3])))
    part.graph.outputs.clear()
    for tensor in layout.cache:
        size = editor.node(f"trt_ptq.heads.{tensor.present}", "Abs", by_name[tensor.present])
        name = f"trt_ptq.heads.{tensor.present}.amax"
        if model.opset >= _AXES_ARE_AN_INPUT:
            amax = editor.node(name, "ReduceMax", size, axes, keepdims=0)
        else:
            amax = editor.node(name, "ReduceMax", size, axes=[0, 2, 3], keepdims=0)
        amax.type = ir.TensorType(ir.DataType.FLOAT)
        part.graph.outputs.append(amax)
    proto = ir.to_proto(passes.RemoveUnusedNodesPass()(part).model)
    session = create_session(proto, model.external.folder, str(model.path))
    largest = [np.zeros(tensor.num_heads, np.float32) for tensor in layout.cache]
    for batch in Head(source, _SAMPLES):
        largest = list(map(np.maximum, largest, run_session(session, batch)))
    return [
        CacheRange(
            tensor.past,
            tensor.present,
            float(table.scale(tensor.present)),
            tuple(float(value) / INT8_MAX for value in heads),
        )
        for tensor, heads in zip(layout.cache, largest, strict=True)
    ]
