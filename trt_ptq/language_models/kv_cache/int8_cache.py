"""Store the cache of keys and values in INT8: int8 inputs and outputs of the graph, with scales for heads or channels.

The tokens of a call are quantized once, appended to the int8 cache, and the whole is dequantized for the attention:

    past (int8) ---------------------------------v
    new keys -> Mul by 1 / f -> QuantizeLinear -> Concat -> present (int8)
                                                         -> DequantizeLinear -> Mul by f -> attention

So a value that is in the cache is never rounded again. TensorRT's Q/DQ of activations have one scale each, that of the
widest channel; the constants f, the scale of each channel divided by it, do the rest in float. Builders fuse them with
their neighbours. `past_key_values.N.key` and `present.N.key` share scales. TensorRT 11's own cache node takes no INT8,
hence inputs and outputs of the graph.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from trt_ptq.calibrators.table.table_recipe import HeadScales
from trt_ptq.engines.int8_io import INT8_IO, IoScales
from trt_ptq.errors import ModelError, TableError
from trt_ptq.language_models.decoder import PAST_AXIS, CacheTensor, DecoderLayout
from trt_ptq.language_models.kv_cache.cache_scales import Floats, scales_array
from trt_ptq.onnx_io.graph_editor import GraphEditor


def quantize_cache(model: ir.Model, layout: DecoderLayout, scales: Mapping[str, HeadScales]) -> None:
    """Make the cache of `model` INT8, in place.

    The scales are recorded in the model's metadata, so that runners of models and engines feed and return float
    values.

    Args:
        model: a decoder, with Q/DQ or without, before it is converted to float16.
        layout: its cache.
        scales: the scales of the outputs `present.N.key` and `present.N.value`; see `measure_cache_scales`.

    Raises:
        TableError: scales are missing, or of another cache.
        ModelError: an output is not the input with the new tokens appended.
    """
    editor = GraphEditor(model.graph)
    recorded: dict[str, IoScales] = {}
    for tensor in layout.cache:
        array = _checked_scales(tensor, scales)
        _quantize(model.graph, editor, tensor, array)
        recorded |= dict.fromkeys(tensor.names, array.tolist())
    model.graph.sort()
    model.metadata_props[INT8_IO] = json.dumps(recorded)


def _checked_scales(tensor: CacheTensor, scales: Mapping[str, HeadScales]) -> Floats:
    if tensor.present not in scales:
        raise TableError(f"the table lacks scales of {tensor.present!r}: run quantize with `kv_cache=int8` again")
    array = scales_array(scales[tensor.present])
    if len(array) != tensor.num_heads or array.shape[2] not in (1, tensor.head_size):
        raise TableError(
            f"{tensor.present!r} has scales for {len(array)} heads of {array.shape[2]} channels, but the cache has "
            f"{tensor.num_heads} heads of {tensor.head_size}: the table is of another model"
        )
    return array


def _quantize(graph: ir.Graph, editor: GraphEditor, tensor: CacheTensor, scales: Floats) -> None:
    past = next(value for value in graph.inputs if value.name == tensor.past)
    index, present = next((i, value) for i, value in enumerate(graph.outputs) if value.name == tensor.present)
    concat = present.producer()
    readers = {use.node for use in past.uses() if use.node.op_type != "Shape"}
    if concat is None or concat.op_type != "Concat" or readers != {concat} or concat.inputs[0] is not past:
        raise ModelError(f"output {tensor.present!r} is not {tensor.past!r} with the new tokens appended by a Concat")
    new = concat.inputs[1]
    if len(concat.inputs) != 2 or new is None or concat.attributes.get_int("axis") not in (PAST_AXIS, PAST_AXIS - 4):
        raise ModelError(f"output {tensor.present!r} does not append tokens along axis {PAST_AXIS}")

    def append(op_type: str, name: str, source: ir.Value, *constants: ir.Value) -> ir.Value:
        output = ir.val(editor.unique_name(f"{tensor.present}.{name}"), shape=source.shape)
        output.dtype = ir.DataType.INT8 if op_type == "QuantizeLinear" else ir.DataType.FLOAT
        graph.append(ir.node(op_type, [source, *constants], outputs=[output], name=output.name))
        return output

    def constant(name: str, values: Floats | np.int8) -> ir.Value:
        return editor.constant(f"{tensor.present}.{name}", ir.tensor(np.array(values)))

    widest = scales.max()
    zero_point, scale = constant("zero_point", np.int8(0)), constant("scale", widest)
    readers_of_present = list(present.uses())
    scaled = append("Mul", "new.scaled", new, constant("reciprocals", widest / scales))
    quantized = append("QuantizeLinear", "new", scaled, scale, zero_point)
    dequantized = append("DequantizeLinear", "dequantized", present, scale, zero_point)
    unscaled = append("Mul", "unscaled", dequantized, constant("factors", scales / widest))
    for use in readers_of_present:
        use.node.replace_input_with(use.idx, unscaled)
    concat.replace_input_with(1, quantized)
    past.dtype = present.dtype = ir.DataType.INT8
    assert graph.outputs[index] is present
