"""A model that computes observed tensors, in buffers that are reused for every batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from trt_ptq.analysis.dynamic_sizes import dynamic_sizes
from trt_ptq.calibration.devices import Device
from trt_ptq.calibration.observed.observed_segment import BatchShapes, ObservedSegment, Value
from trt_ptq.calibration.observed.observed_sessions import create_observed_sessions, has_numbers_only
from trt_ptq.calibration.observed.tensor_buffers import BufferPool
from trt_ptq.calibration.tensors import model_with_outputs, runnable_outputs
from trt_ptq.onnx_io.externalized import externalized
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.ort_session import run_session
from trt_ptq.types import Batch, contiguous


class ObservedModel:
    """Computes the observed tensors of a model for one batch after the other, a few tensors at a time.

    The values of a tensor may be in any order.

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
            self._has_numbers_only = has_numbers_only(proto)
            sessions = create_observed_sessions(proto, folder, str(model.path), device.providers, threads)
        self._sessions = sessions.sessions
        self._tensors_of: dict[str, list[str]] = {}  # by the output of a session
        for name in computed:
            self._tensors_of.setdefault(sessions.output_of[name], []).append(name)
        self._specs = model.inputs
        self._pool = BufferPool(device)
        self._segments = [
            ObservedSegment(segment, session, device, self._pool)
            for segment, session in zip(sessions.segments, sessions.sessions, strict=True)
        ]
        self._device = device
        device.release()  # the buffers of an earlier pass

    def run(self, batch: Batch) -> Iterator[dict[str, Any]]:
        """Yield the observed tensors by name, as arrays of the device, each valid until the next ones are computed.

        Raises:
            DataError: The model fails on the batch.
        """
        feeds = contiguous(batch.feeds)
        self._device.synchronize()
        if self._inputs:
            yield {name: self._device.upload(feeds[name]) for name in self._inputs}
        if not self._has_numbers_only:
            yield self._run_copying(batch)
            return
        self._pool.free_all()
        values: dict[str, Value] = dict(feeds)
        shapes = BatchShapes(tuple(feeds[name].shape for name in sorted(feeds)), dynamic_sizes(self._specs, feeds))
        for segment in self._segments:
            buffers = segment.run(values, batch, shapes)
            yield {
                name: buffer.array for output, buffer in buffers.items() for name in self._tensors_of.get(output, ())
            }
            segment.release(values)

    def _run_copying(self, batch: Batch) -> dict[str, Any]:
        """Run without binding, which strings do not allow, nor outputs that are no tensors."""
        (session,) = self._sessions
        outputs = dict(zip([output.name for output in session.get_outputs()], run_session(session, batch), strict=True))
        return {
            name: self._device.upload(outputs[output]) for output, names in self._tensors_of.items() for name in names
        }
