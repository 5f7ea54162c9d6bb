"""A model whose tapped tensors are written into memory that is allocated once and used again for every batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime as ort

from trt_ptq.calibrators.batches import Array, Batch, Feeds
from trt_ptq.calibrators.errors import DataError
from trt_ptq.collect.blocked import create_tapped_session
from trt_ptq.collect.buffers import HostBuffers
from trt_ptq.graph.model import Model
from trt_ptq.graph.taps import with_outputs

Shapes = tuple[tuple[int, ...], ...]


class TappedModel:
    """Gives the tensors named in `tensors`, inputs of the model among them, for one batch after the other.

    What `run` gives is valid until the next `run`; the values of a tensor may be in any order.
    """

    def __init__(self, model: Model, tensors: Sequence[str], threads: int | None = None) -> None:
        inputs = {one.name for one in model.inputs}
        self._inputs = [name for name in tensors if name in inputs]
        proto = with_outputs(model, [name for name in tensors if name not in inputs])
        types = {value.name: value.type.tensor_type.elem_type for value in proto.graph.output}
        self._session, self._output_of = create_tapped_session(proto, model.path.parent, str(model.path), threads)
        self._types = {output: types[name] for name, output in self._output_of.items()}
        self._shapes: dict[Shapes, Shapes] = {}  # of the outputs, by those of the inputs
        self._buffers = HostBuffers()

    def run(self, batch: Batch) -> dict[str, Array]:
        """The tensors by name.

        Raises:
            DataError: the model fails on the batch; names it.
        """
        feeds = {name: np.ascontiguousarray(array) for name, array in batch.feeds.items()}
        shapes = tuple(feeds[name].shape for name in sorted(feeds))
        try:
            outputs = self._run_bound(feeds, self._shapes[shapes])
        except Exception:  # shapes not seen before; or outputs whose shapes depend on values; failures are told below
            outputs = self._run_unbound(feeds, batch.origin)
            self._shapes[shapes] = tuple(array.shape for array in outputs.values())
        measured = {name: outputs[output] for name, output in self._output_of.items()}
        return measured | {name: feeds[name] for name in self._inputs}

    def _run_bound(self, feeds: Feeds, shapes: Shapes) -> dict[str, Array]:
        """Outputs of known `shapes`, written straight into the buffers."""
        binding = self._bind_inputs(feeds)
        outputs = {}
        for (name, kind), shape in zip(self._types.items(), shapes, strict=True):
            outputs[name] = self._buffers.take(name, kind, shape)
            pointer = self._buffers.pointer(outputs[name])
            binding.bind_output(name, self._buffers.device, 0, kind, shape, pointer)
        self._session.run_with_iobinding(binding)
        return outputs

    def _run_unbound(self, feeds: Feeds, origin: str) -> dict[str, Array]:
        """Outputs of any shapes, copied from memory that ONNX Runtime allocates and frees."""
        binding = self._bind_inputs(feeds)
        for name in self._types:
            binding.bind_output(name, self._buffers.device)
        options = ort.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", f"{self._buffers.device}:0")
        try:
            self._session.run_with_iobinding(binding, options)
        except Exception as error:  # ONNX Runtime has no common base for its errors
            reason = str(error).strip().splitlines()[0]
            raise DataError(f"{origin}: the model fails on this batch: {reason}") from error
        outputs = {}
        for (name, kind), value in zip(self._types.items(), binding.get_outputs(), strict=True):
            outputs[name] = self._buffers.take(name, kind, tuple(value.shape()))
            self._buffers.fill(outputs[name], value.data_ptr())
        return outputs

    def _bind_inputs(self, feeds: Feeds) -> ort.IOBinding:
        binding = self._session.io_binding()
        for name, array in feeds.items():
            binding.bind_cpu_input(name, array)
        return binding
