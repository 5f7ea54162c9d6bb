"""Check that a converted model computes what the original computes, by running both on one batch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

from trt_ptq.errors import DataError, ModelError
from trt_ptq.onnx_io.domains import runnable_part
from trt_ptq.onnx_io.ort_session import create_session, run_session, session_options
from trt_ptq.types import Array, Batch, TensorSpec

_LOGGER = logging.getLogger(__name__)
_BATCH_SIZE = 2
_OTHER_SIZES = (16, 32, 64, 224, 1)  # of dynamic dimensions; the first that the model accepts
_TOLERANCE = {"float64": 1e-9, "float32": 1e-4, "float16": 1e-2}  # of the largest magnitude; integers must be equal
_ORIGIN = "a synthetic batch"


def check_same_results(
    original: onnx.ModelProto, converted: onnx.ModelProto, folder: Path, inputs: Sequence[TensorSpec], path: Path
) -> None:
    """Compare all tensors that both models have on one batch of random numbers.

    Args:
        original: The model as it was read.
        converted: The model after its conversion.
        folder: The folder of the external weights of both.
        inputs: Their inputs.
        path: The model file, for messages.

    Raises:
        ModelError: A tensor differs by more than rounding; names the first one.
    """
    computed = {name for node in converted.graph.node for name in node.output}
    names = [name for node in original.graph.node for name in node.output if name and name in computed]
    try:
        before = _session(original, names, folder)
        after = _session(converted, names, folder)
        shared = [output.name for output in before.get_outputs()]
        batch, expected = _run_any(before, inputs)
        actual = dict(zip((output.name for output in after.get_outputs()), run_session(after, batch), strict=True))
        for name, value in zip(shared, expected, strict=True):
            if name in actual and not _is_close(value, actual[name]):
                again = dict(zip(shared, run_session(before, batch), strict=True))
                if _is_close(value, again[name]):  # otherwise the original itself is random
                    raise _DifferenceError(name)
    except _DifferenceError as error:
        node = next(node for node in original.graph.node if error.tensor in node.output)
        raise ModelError(
            f"{path}: the conversion to opset {_opset(converted)} changes what {node.op_type} {error.tensor!r} "
            f"computes: export the model with opset {_opset(converted)} or newer"
        ) from error
    except (ModelError, DataError) as error:
        _LOGGER.warning(
            "%s was converted to opset %d; whether it still computes the same was not checked: %s",
            path,
            _opset(converted),
            error,
        )


class _DifferenceError(Exception):
    """The tensor `tensor` differs."""

    def __init__(self, tensor: str) -> None:
        super().__init__(tensor)
        self.tensor = tensor


def _opset(proto: onnx.ModelProto) -> int:
    return next(int(entry.version) for entry in proto.opset_import if entry.domain == "")


def _session(proto: onnx.ModelProto, names: Sequence[str], folder: Path) -> ort.InferenceSession:
    """A session of what ONNX Runtime can run, with outputs `names`, not optimized."""
    part = runnable_part(proto)
    computed = {name for node in part.graph.node for name in node.output}
    del part.graph.output[:]
    part.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name in computed)
    options = session_options()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return create_session(part, folder, "the model", options)


def _run_any(session: ort.InferenceSession, inputs: Sequence[TensorSpec]) -> tuple[Batch, list[Array]]:
    """Run the first batch that the model accepts; return it and the outputs."""
    for size in _OTHER_SIZES[:-1]:
        batch = _batch(inputs, size)
        try:
            return batch, run_session(session, batch)
        except DataError:
            continue
    batch = _batch(inputs, _OTHER_SIZES[-1])
    return batch, run_session(session, batch)


def _batch(inputs: Sequence[TensorSpec], size: int) -> Batch:
    """Random numbers: normally distributed floats; integers, which may be indices, of 0 and 1."""
    random = np.random.default_rng(0)
    feeds: dict[str, Array] = {}
    for spec in inputs:
        shape = [
            axis if isinstance(axis, int) else _BATCH_SIZE if index == 0 else size
            for index, axis in enumerate(spec.shape)
        ]
        if spec.dtype.kind == "f":
            feeds[spec.name] = random.standard_normal(shape).astype(spec.dtype)
        elif spec.dtype.kind in "iub":
            feeds[spec.name] = random.integers(0, 2, shape).astype(spec.dtype)
        else:
            raise DataError(f"input {spec.name!r} is of type {spec.dtype}")
    return Batch(feeds, _ORIGIN)


def _is_close(expected: Array, actual: Array) -> bool:
    if not isinstance(expected, np.ndarray) or not isinstance(actual, np.ndarray):
        return True  # a sequence or the like
    if expected.dtype != actual.dtype or expected.shape != actual.shape:
        return False
    if expected.dtype.kind != "f":
        return bool(np.array_equal(expected, actual))
    finite = np.abs(expected[np.isfinite(expected)])
    limit = _TOLERANCE.get(expected.dtype.name, 1e-2) * (float(finite.max()) if finite.size else 0.0)
    return bool(np.allclose(actual, expected, rtol=0, atol=limit, equal_nan=True))
