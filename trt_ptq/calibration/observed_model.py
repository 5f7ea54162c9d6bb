"""A model whose tapped tensors are written into memory that is allocated once and used again for every batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort

from trt_ptq.analysis.dynamic_sizes import Shape, dynamic_sizes, known_shape
from trt_ptq.calibration.devices import Device
from trt_ptq.calibration.nchwc import create_observed_session
from trt_ptq.calibration.tensors import model_with_outputs
from trt_ptq.onnx_io.externalized import externalized
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.ort_session import model_fails, run_session
from trt_ptq.types import Batch, Feeds

Shapes = tuple[Shape, ...]

_TEXT = "OSU"  # kinds of NumPy's types that hold strings


class ObservedModel:
    """Gives the tensors named in `tensors`, inputs of the model among them, for one batch after the other.

    What `run` gives is valid until the next `run`; the values of a tensor may be in any order.
    """

    def __init__(self, model: Model, tensors: Sequence[str], device: Device, threads: int | None = None) -> None:
        inputs = {one.name for one in model.inputs}
        self._inputs = [name for name in tensors if name in inputs]
        computed = [name for name in tensors if name not in inputs]
        part = model_with_outputs(
            model, computed or model.outputs
        )  # the model runs even where only inputs are measured
        with externalized(model, part) as (proto, folder):
            declared = {value.name: value for value in proto.graph.output}
            self._session, self._output_of = create_observed_session(
                proto, folder, str(model.path), device.providers, threads
            )
        self._names = [output.name for output in self._session.get_outputs()]
        self._specs = model.inputs
        if not computed:
            self._output_of = {}  # strings and sequences among them
        self._outputs = {output: declared[name] for name, output in self._output_of.items()}
        self._learned: dict[Shapes, Shapes] = {}  # shapes of the outputs by those of the inputs
        self._device = device
        device.release()  # what an earlier pass left

    def run(self, batch: Batch) -> dict[str, Any]:
        """The tensors by name, as arrays of the device.

        Raises:
            DataError: the model fails on the batch; names it.
        """
        feeds = {name: np.ascontiguousarray(array) for name, array in batch.feeds.items()}
        self._device.synchronize()
        if not self._outputs or any(array.dtype.kind in _TEXT for array in feeds.values()):
            return self._run_copying(batch) | self._fed(feeds)
        fed = tuple(feeds[name].shape for name in sorted(feeds))
        shapes = self._learned.get(fed) or self._known_shapes(feeds)
        try:
            outputs = self._run_bound(feeds, shapes) if shapes else None
        except Exception:  # a shape depends on values, or was declared wrongly; a failing model fails below again
            outputs = None
        if outputs is None:
            outputs = self._run_unbound(feeds, batch)
            self._learned[fed] = tuple(array.shape for array in outputs.values())
        measured = {name: outputs[output] for name, output in self._output_of.items()}
        return measured | self._fed(feeds)

    def _fed(self, feeds: Feeds) -> dict[str, Any]:
        return {name: self._device.upload(feeds[name]) for name in self._inputs}

    def _run_copying(self, batch: Batch) -> dict[str, Any]:
        """The computed tensors, by a plain run: where there are none, or strings, which cannot be bound, are fed."""
        outputs = dict(zip(self._names, run_session(self._session, batch), strict=True))
        return {name: self._device.upload(outputs[output]) for name, output in self._output_of.items()}

    def _known_shapes(self, feeds: Feeds) -> Shapes | None:
        sizes = dynamic_sizes(self._specs, feeds)
        shapes = [known_shape(value, sizes) for value in self._outputs.values()]
        return None if None in shapes else tuple(shape for shape in shapes if shape is not None)

    def _run_bound(self, feeds: Feeds, shapes: Shapes) -> dict[str, Any]:
        """Outputs of known `shapes`, written straight into the buffers."""
        binding = self._bind_inputs(feeds)
        outputs = {}
        for (name, value), shape in zip(self._outputs.items(), shapes, strict=True):
            kind = value.type.tensor_type.elem_type
            outputs[name] = self._device.allocate(name, kind, shape)
            pointer = self._device.data_pointer(outputs[name])
            binding.bind_output(name, self._device.name, 0, kind, shape, pointer)
        self._session.run_with_iobinding(binding)
        return outputs

    def _run_unbound(self, feeds: Feeds, batch: Batch) -> dict[str, Any]:
        """Outputs of any shapes, copied from memory that ONNX Runtime allocates and frees."""
        binding = self._bind_inputs(feeds)
        for name in self._outputs:
            binding.bind_output(name, self._device.name)
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise model_fails(batch, error) from error
        outputs = {}
        for (name, value), result in zip(self._outputs.items(), binding.get_outputs(), strict=True):
            outputs[name] = self._device.allocate(name, value.type.tensor_type.elem_type, tuple(result.shape()))
            self._device.copy_from(outputs[name], result.data_ptr())
        return outputs

    def _bind_inputs(self, feeds: Feeds) -> ort.IOBinding:
        binding = self._session.io_binding()
        for name, array in feeds.items():
            binding.bind_cpu_input(name, array)
        return binding
