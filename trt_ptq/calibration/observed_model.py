"""A model with observed tensors as outputs, written to buffers that are reused for every batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnxruntime as ort

from trt_ptq.analysis.dynamic_sizes import Shape, dynamic_sizes, known_shape
from trt_ptq.calibration.devices import Device
from trt_ptq.calibration.nchwc import create_observed_session
from trt_ptq.calibration.tensors import model_with_outputs, runnable_outputs
from trt_ptq.onnx_io.externalized import externalized
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.ort_session import model_fails, run_session
from trt_ptq.types import Batch, Feeds, contiguous

Shapes = tuple[Shape, ...]

_STRING_KINDS = "OSU"  # NumPy dtype kinds


class ObservedModel:
    """Computes the observed tensors of a model for one batch after the other.

    The results of `run` are valid until the next `run`. The values of a tensor may be in any order.

    Args:
        model: The float model.
        tensors: Names of the tensors, which may be inputs of the model.
        device: Where the model runs and the buffers are.
        threads: Number of threads of ONNX Runtime, one per core by default.
    """

    def __init__(self, model: Model, tensors: Sequence[str], device: Device, threads: int | None = None) -> None:
        inputs = {spec.name for spec in model.inputs}
        self._inputs = [name for name in tensors if name in inputs]
        computed = [name for name in tensors if name not in inputs]
        # The model runs even if only inputs are observed.
        part = model_with_outputs(model, computed or runnable_outputs(model))
        with externalized(model, part) as (proto, folder):
            declared = {value.name: value for value in proto.graph.output}
            self._session, self._output_of = create_observed_session(
                proto, folder, str(model.path), device.providers, threads
            )
        self._names = [output.name for output in self._session.get_outputs()]
        self._specs = model.inputs
        if not computed:
            self._output_of = {}  # the outputs of the model may be strings or sequences
        self._outputs = {output: declared[name] for name, output in self._output_of.items()}
        self._output_shapes: dict[Shapes, Shapes] = {}  # by the shapes of the inputs
        self._device = device
        device.release()  # the buffers of an earlier pass

    def run(self, batch: Batch) -> dict[str, Any]:
        """Return the observed tensors by name, as arrays of the device.

        Raises:
            DataError: The model fails on the batch.
        """
        feeds = contiguous(batch.feeds)
        self._device.synchronize()
        if not self._outputs or any(array.dtype.kind in _STRING_KINDS for array in feeds.values()):
            return self._run_copying(batch) | self._observed_inputs(feeds)
        input_shapes = tuple(feeds[name].shape for name in sorted(feeds))
        shapes = self._output_shapes.get(input_shapes) or self._known_shapes(feeds)
        try:
            outputs = self._run_bound(feeds, shapes) if shapes else None
        except Exception:  # a shape depends on values or is declared wrongly; if the model fails, it fails again below
            outputs = None
        if outputs is None:
            outputs = self._run_unbound(feeds, batch)
            self._output_shapes[input_shapes] = tuple(array.shape for array in outputs.values())
        observed = {name: outputs[output] for name, output in self._output_of.items()}
        return observed | self._observed_inputs(feeds)

    def _observed_inputs(self, feeds: Feeds) -> dict[str, Any]:
        return {name: self._device.upload(feeds[name]) for name in self._inputs}

    def _run_copying(self, batch: Batch) -> dict[str, Any]:
        """Run without binding: if no tensor is computed, or for string inputs, which cannot be bound."""
        outputs = dict(zip(self._names, run_session(self._session, batch), strict=True))
        return {name: self._device.upload(outputs[output]) for name, output in self._output_of.items()}

    def _known_shapes(self, feeds: Feeds) -> Shapes | None:
        sizes = dynamic_sizes(self._specs, feeds)
        shapes = [known_shape(value, sizes) for value in self._outputs.values()]
        return None if None in shapes else tuple(shape for shape in shapes if shape is not None)

    def _run_bound(self, feeds: Feeds, shapes: Shapes) -> dict[str, Any]:
        """Run with outputs of known `shapes`, which are written directly to the buffers."""
        binding = self._bind_inputs(feeds)
        outputs = {}
        for (name, value), shape in zip(self._outputs.items(), shapes, strict=True):
            element_type = value.type.tensor_type.elem_type
            outputs[name] = self._device.allocate(name, element_type, shape)
            pointer = self._device.data_pointer(outputs[name])
            binding.bind_output(name, self._device.name, 0, element_type, shape, pointer)
        self._session.run_with_iobinding(binding)
        return outputs

    def _run_unbound(self, feeds: Feeds, batch: Batch) -> dict[str, Any]:
        """Run with outputs of unknown shapes, which are copied from memory that ONNX Runtime allocates."""
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
