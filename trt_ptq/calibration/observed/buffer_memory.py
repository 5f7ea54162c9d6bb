"""How much memory the observed tensors of a model take, without running it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx

from trt_ptq._internal.hardware.cpu import usable_cores
from trt_ptq.calibration.observed.observed_sessions import runs_in_segments
from trt_ptq.calibration.observed.segments import cut
from trt_ptq.calibration.observed.tensor_buffers import BufferSlots
from trt_ptq.calibration.tensors import model_with_outputs
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.ort_session import CPU
from trt_ptq.onnx_io.writer import without_weights


class BufferMemory:
    """The memory for observed tensors of a model on the CPU, in the segments that it runs in there.

    It is an estimate where ONNX Runtime's optimizations change the order of the nodes.

    Args:
        model: The float model.
        sizes: Bytes of each tensor for a batch, by name; 0 for inputs of the model.
    """

    def __init__(self, model: Model, sizes: Mapping[str, int]) -> None:
        self._sizes = sizes
        inputs = {spec.name for spec in model.inputs}
        computed = [name for name in sizes if name not in inputs]
        self._proto = without_weights(model_with_outputs(model, computed)) if computed else onnx.ModelProto()
        outputs = onnx.GraphProto()
        outputs.output.extend(self._proto.graph.output)
        self._outputs = {value.name: value for value in outputs.output}
        self._in_segments = runs_in_segments(self._proto, [CPU])

    def bytes_for(self, tensors: Collection[str]) -> int:
        """The memory that observing `tensors` together takes."""
        outputs = [self._outputs[name] for name in tensors if name in self._outputs]
        if not self._in_segments or not outputs:
            return sum(self._sizes[name] for name in tensors)
        del self._proto.graph.output[:]
        self._proto.graph.output.extend(outputs)
        slots = BufferSlots()
        slot_of: dict[str, int] = {}
        for segment in cut(self._proto, usable_cores()):
            slot_of |= {name: slots.take(self._sizes[name]) for name in segment.observed}
            for name in segment.released & slot_of.keys():
                slots.free(slot_of.pop(name))
        return slots.total_bytes
