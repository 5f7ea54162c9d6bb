"""Runs one segment of an observed model, with observed tensors written to buffers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Union

import onnxruntime as ort

from trt_ptq.analysis.dynamic_sizes import Shape, known_shape
from trt_ptq.calibration.devices import Device
from trt_ptq.calibration.observed.segments import Segment
from trt_ptq.calibration.observed.tensor_buffers import Buffer, BufferPool
from trt_ptq.errors import DataError
from trt_ptq.onnx_io.ort_session import model_fails
from trt_ptq.types import Array, Batch

Shapes = tuple[Shape, ...]
Value = Union[Array, Buffer, ort.OrtValue]  # an input of the model, an observed tensor, any other tensor
Buffers = dict[str, Buffer]


@dataclass(frozen=True)
class BatchShapes:
    """The shapes of the inputs of a batch, and the `sizes` of dynamic dimensions; see `dynamic_sizes`."""

    inputs: Shapes
    sizes: Mapping[str, int]


class ObservedSegment:
    """A segment with its session.

    Args:
        segment: The segment.
        session: Its session.
        device: Where it runs.
        pool: Memory of the device, for the observed tensors.
    """

    def __init__(self, segment: Segment, session: ort.InferenceSession, device: Device, pool: BufferPool) -> None:
        self._segment = segment
        self._session = session
        self._device = device
        self._pool = pool
        declared = {value.name: value for value in segment.proto.graph.output}
        self._inputs = [value.name for value in segment.proto.graph.input]
        self._observed = {name: declared.pop(name) for name in segment.observed}
        self._others = list(declared)
        self._shapes: dict[Shapes, Shapes] = {}  # of the observed tensors, by the shapes of the inputs of the model
        self._certain: set[Shapes] = set()  # shapes of inputs, for which declared shapes were right

    def run(self, values: dict[str, Value], batch: Batch, shapes: BatchShapes) -> Buffers:
        """Run the segment, which adds its outputs to `values`: inputs of the model, and outputs of earlier segments.

        Returns:
            The observed tensors, valid until `release`.

        Raises:
            DataError: The model fails on the batch.
        """
        buffers = self._run_bound(values, batch, shapes)
        if buffers is None:
            buffers = self._run_unbound(values, batch)
            self._shapes[shapes.inputs] = tuple(buffer.shape for buffer in buffers.values())
        values.update(buffers)
        return buffers

    def release(self, values: dict[str, Value]) -> None:
        """Remove what no later segment needs from `values`, so that its memory is used again."""
        for name in self._segment.released:
            value = values.pop(name, None)
            if isinstance(value, Buffer):
                self._pool.free(value)

    def _declared_shapes(self, sizes: Mapping[str, int]) -> Shapes | None:
        shapes = [known_shape(value, sizes) for value in self._observed.values()]
        return None if None in shapes else tuple(shape for shape in shapes if shape is not None)

    def _run_bound(self, values: dict[str, Value], batch: Batch, shapes: BatchShapes) -> Buffers | None:
        """Run with outputs that are written directly to buffers; None if their shapes are unknown, or were others."""
        measured = self._shapes.get(shapes.inputs)
        known = self._declared_shapes(shapes.sizes) if measured is None else measured
        if known is None:
            return None
        overwritten = self._overwritten_buffers(values, known) if shapes.inputs in self._certain else {}
        binding = self._bind_inputs(values)
        buffers: Buffers = {}
        for (name, value), shape in zip(self._observed.items(), known, strict=True):
            buffer = overwritten.get(name) or self._pool.allocate(value.type.tensor_type.elem_type, shape)
            binding.bind_output(
                name, self._device.name, 0, buffer.element_type, shape, self._device.data_pointer(buffer.array)
            )
            buffers[name] = buffer
        for name in self._others:
            binding.bind_output(name, self._device.name)
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:  # a shape depends on values or is declared wrongly, or the model fails
            if overwritten:  # so that the segment cannot run again
                raise DataError(
                    f"{model_fails(batch, error)} (or a tensor has not the shape that is declared)"
                ) from error
            for buffer in buffers.values():
                self._pool.free(buffer)
            return None
        self._add_others(values, binding)
        for name in overwritten:
            del values[self._segment.overwritten[name]]
        if measured is None:
            self._shapes[shapes.inputs] = known
            self._certain.add(shapes.inputs)
        return buffers

    def _run_unbound(self, values: dict[str, Value], batch: Batch) -> Buffers:
        """Run with outputs of unknown shapes, which are copied from memory that ONNX Runtime allocates."""
        binding = self._bind_inputs(values)
        for name in (*self._observed, *self._others):
            binding.bind_output(name, self._device.name)
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise model_fails(batch, error) from error
        self._add_others(values, binding)
        buffers: Buffers = {}
        for (name, value), result in zip(self._observed.items(), binding.get_outputs(), strict=False):
            buffers[name] = self._pool.allocate(value.type.tensor_type.elem_type, tuple(result.shape()))
            self._device.copy_from(buffers[name].array, result.data_ptr())
        return buffers

    def _bind_inputs(self, values: Mapping[str, Value]) -> ort.IOBinding:
        binding = self._session.io_binding()
        for name in self._inputs:
            value = values[name]
            if isinstance(value, Buffer):
                pointer = self._device.data_pointer(value.array)
                binding.bind_input(name, self._device.name, 0, value.element_type, value.shape, pointer)
            elif isinstance(value, ort.OrtValue):
                binding.bind_ortvalue_input(name, value)
            else:
                binding.bind_cpu_input(name, value)
        return binding

    def _add_others(self, values: dict[str, Value], binding: ort.IOBinding) -> None:
        """Add the outputs that are not observed, which are bound last, to `values`."""
        if self._others:
            values.update(zip(self._others, binding.get_outputs()[len(self._observed) :], strict=True))

    def _overwritten_buffers(self, values: Mapping[str, Value], shapes: Shapes) -> Buffers:
        """By observed output: the buffer of the residual that it can be written over."""
        buffers: Buffers = {}
        for (name, value), shape in zip(self._observed.items(), shapes, strict=True):
            residual = values.get(self._segment.overwritten.get(name, ""))
            if (
                isinstance(residual, Buffer)
                and residual.shape == shape
                and residual.element_type == value.type.tensor_type.elem_type
            ):
                buffers[name] = residual
        return buffers
