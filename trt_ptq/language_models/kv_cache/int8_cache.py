"""Store the cache of keys and values in INT8: int8 inputs and outputs of the graph, one scale for each cache tensor.

The tokens of a call are quantized once, appended to the int8 cache, and the whole is dequantized for the attention:

    past (int8) ------------------v
    new keys -> QuantizeLinear -> Concat -> present (int8)
                                         -> DequantizeLinear -> attention

So a value that is in the cache is never rounded again. `past_key_values.N.key` and `present.N.key` share a scale.
TensorRT 11's own cache node takes no INT8, hence inputs and outputs of the graph.
"""

from __future__ import annotations

import json

import numpy as np
import onnx_ir as ir

from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.engines.int8_io import INT8_IO
from trt_ptq.errors import ModelError, TableError
from trt_ptq.language_models.decoder import PAST_AXIS, CacheTensor, DecoderLayout
from trt_ptq.onnx_io.graph_editor import GraphEditor


def quantize_cache(model: ir.Model, layout: DecoderLayout, table: CalibrationTable) -> None:
    """Make the cache of `model` INT8, in place.

    The scales are recorded in the model's metadata, so that runners of models and engines feed and return float
    values.

    Args:
        model: a decoder, with Q/DQ or without, before it is converted to float16.
        layout: its cache.
        table: the ranges of the outputs `present.N.key` and `present.N.value`.

    Raises:
        TableError: the table lacks a range.
        ModelError: an output is not the input with the new tokens appended.
    """
    editor = GraphEditor(model.graph)
    for tensor in layout.cache:
        if tensor.present not in table.amax:
            raise TableError(f"{tensor.present!r} has no range in the table: calibrate with `kv_cache=int8`")
        _quantize(model.graph, editor, tensor, table.scale(tensor.present))
    model.graph.sort()
    scales = {name: float(table.scale(tensor.present)) for tensor in layout.cache for name in tensor.names}
    model.metadata_props[INT8_IO] = json.dumps(scales)


def _quantize(graph: ir.Graph, editor: GraphEditor, tensor: CacheTensor, scale: np.float32) -> None:
    past = next(value for value in graph.inputs if value.name == tensor.past)
    index, present = next((i, value) for i, value in enumerate(graph.outputs) if value.name == tensor.present)
    concat = present.producer()
    readers = {use.node for use in past.uses() if use.node.op_type != "Shape"}
    if concat is None or concat.op_type != "Concat" or readers != {concat} or concat.inputs[0] is not past:
        raise ModelError(f"output {tensor.present!r} is not {tensor.past!r} with the new tokens appended by a Concat")
    new = concat.inputs[1]
    if len(concat.inputs) != 2 or new is None or concat.attributes.get_int("axis") not in (PAST_AXIS, PAST_AXIS - 4):
        raise ModelError(f"output {tensor.present!r} does not append tokens along axis {PAST_AXIS}")
    scales = editor.constant(f"{tensor.present}.scale", ir.tensor(np.array(scale, np.float32)))
    zeros = editor.constant(f"{tensor.present}.zero_point", ir.tensor(np.array(0, np.int8)))
    quantized = _node(editor, "QuantizeLinear", [new, scales, zeros], f"{tensor.present}.new", ir.DataType.INT8)
    quantized.shape = new.shape
    dequantized = _node(
        editor, "DequantizeLinear", [present, scales, zeros], f"{tensor.present}.dequantized", present.dtype
    )
    dequantized.shape = present.shape
    for use in list(present.uses()):
        if use.node is not dequantized.producer():
            use.node.replace_input_with(use.idx, dequantized)
    concat.replace_input_with(1, quantized)
    past.dtype = present.dtype = ir.DataType.INT8
    producers = [value.producer() for value in (quantized, dequantized)]
    graph.extend(node for node in producers if node is not None)
    assert graph.outputs[index] is present


def _node(editor: GraphEditor, op_type: str, inputs: list[ir.Value], name: str, dtype: ir.DataType | None) -> ir.Value:
    output = ir.val(editor.unique_name(name), dtype=dtype)
    return ir.node(op_type, inputs, outputs=[output], name=output.name).outputs[0]
