"""Check that a converted model computes what the original computes, by running both on one batch."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

from trt_ptq.errors import DataError, ModelError
from trt_ptq.onnx_io.domains import all_nodes, runnable_part
from trt_ptq.onnx_io.ort_session import create_session, run_session, session_options
from trt_ptq.types import Array, Batch, TensorSpec

_LOGGER = logging.getLogger(__name__)
_BATCH_SIZE = 2
_OTHER_SIZES = (16, 32, 64, 224, 1)  # of dynamic dimensions; the first that the model accepts
_TOLERANCE = {"float64": 1e-9, "float32": 1e-4, "float16": 1e-2}  # of the largest magnitude; integers must be equal
_ORIGIN = "a synthetic batch"
_GROUP = 32  # tensors that are compared at once, in graph order


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
    opset = _opset(converted)
    try:
        batch = _accepted_batch(original, folder, inputs)
        tensor = first_difference(original, converted, folder, batch)
    except (ModelError, DataError) as error:
        _LOGGER.warning(
            "%s was converted to opset %d; whether it still computes the same was not checked: %s", path, opset, error
        )
        return
    if tensor is not None:
        raise ModelError(
            f"{path}: the conversion to opset {opset} changes what {describe_tensor(original, tensor)} computes: "
            f"export the model with opset {opset} or newer"
        )


def first_difference(
    original: onnx.ModelProto,
    converted: onnx.ModelProto,
    folder: Path,
    batch: Batch,
    tensors: Collection[str] | None = None,
) -> str | None:
    """The first tensor, in graph order, in which two models differ by more than rounding; None if there is none.

    Tensors that differ between two runs of the original are random, and do not count; nor do those behind plugins.

    Args:
        original: The model as it was read.
        converted: The same model after some conversion.
        folder: The folder of the external weights of both.
        batch: Inputs of both.
        tensors: The tensors to compare; all that both models compute unless given.

    Raises:
        ModelError, DataError: ONNX Runtime cannot run one of them.
    """
    original, converted = runnable_part(original), runnable_part(converted)
    computed = {name for node in converted.graph.node for name in node.output if name}
    if tensors is not None:
        computed.intersection_update(tensors)
    names: list[str] = [name for node in original.graph.node for name in node.output if name in computed]
    for start in range(0, len(names), _GROUP):
        group = names[start : start + _GROUP]
        before = _session(original, group, folder)
        expected = run_session(before, batch)
        actual = run_session(_session(converted, group, folder), batch)
        for name, value, other in zip(group, expected, actual, strict=True):
            if not is_close(value, other):
                again = dict(zip(group, run_session(before, batch), strict=True))
                if is_close(value, again[name]):
                    return name
    return None


def describe_tensor(proto: onnx.ModelProto, tensor: str) -> str:
    """The operator that computes `tensor`, and its name."""
    node = next(node for node in proto.graph.node if tensor in node.output)
    return f"{node.op_type} {tensor!r}"


def _opset(proto: onnx.ModelProto) -> int:
    return next(int(entry.version) for entry in proto.opset_import if entry.domain == "")


def unoptimized() -> ort.SessionOptions:
    """Options of a session that runs the nodes as they are."""
    options = session_options()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def _session(part: onnx.ModelProto, names: Sequence[str], folder: Path) -> ort.InferenceSession:
    """A session with the outputs `names`; those of `part` change."""
    del part.graph.output[:]
    part.graph.output.extend(map(helper.make_empty_tensor_value_info, names))
    return create_session(part, folder, "the model", unoptimized())


def _accepted_batch(proto: onnx.ModelProto, folder: Path, inputs: Sequence[TensorSpec]) -> Batch:
    """The first batch that the model accepts."""
    part = runnable_part(proto)
    session = _session(part, unread_tensors(part), folder)
    for size in _OTHER_SIZES[:-1]:
        batch = _batch(inputs, size)
        try:
            run_session(session, batch)
        except DataError:
            continue
        return batch
    batch = _batch(inputs, _OTHER_SIZES[-1])
    run_session(session, batch)
    return batch


def unread_tensors(part: onnx.ModelProto) -> list[str]:
    """The tensors that `part` computes and that no node of it reads."""
    read = {name for node in all_nodes(part.graph.node) for name in node.input}
    return [name for node in part.graph.node for name in node.output if name and name not in read]


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


def is_close(expected: Array, actual: Array) -> bool:
    """Whether two values of a tensor differ by no more than rounding, which depends on its type."""
    if not isinstance(expected, np.ndarray) or not isinstance(actual, np.ndarray):
        return True  # a sequence or the like
    if expected.dtype != actual.dtype or expected.shape != actual.shape:
        return False
    if expected.dtype.kind != "f":
        return bool(np.array_equal(expected, actual))
    finite = np.abs(expected[np.isfinite(expected)])
    limit = _TOLERANCE.get(expected.dtype.name, 1e-2) * (float(finite.max()) if finite.size else 0.0)
    return bool(np.allclose(actual, expected, rtol=0, atol=limit, equal_nan=True))
