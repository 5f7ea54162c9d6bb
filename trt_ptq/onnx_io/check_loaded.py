"""Check on real inputs that a loaded model computes what its file computes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from trt_ptq.errors import DataError, ModelError
from trt_ptq.onnx_io.domains import all_nodes, is_runnable, runnable_part
from trt_ptq.onnx_io.externalized import externalized
from trt_ptq.onnx_io.load import Model, read_proto
from trt_ptq.onnx_io.loading.same_results import (
    describe_tensor,
    first_difference,
    is_close,
    unoptimized,
    unread_tensors,
)
from trt_ptq.onnx_io.ort_session import create_session, load_session, run_session
from trt_ptq.types import Batch, sample_count

_SAMPLES = 2


def check_loaded(model: Model, source: Iterable[Batch]) -> list[str]:
    """Compare a loaded model with its file, unless loading changed nothing.

    They run on the first two samples of `source`, or on its first batch if the model does not take a part of it.

    Args:
        model: The model.
        source: Valid inputs of the model.

    Returns:
        A warning if they cannot be compared, as ONNX Runtime cannot run the file.

    Raises:
        ModelError: They differ by more than rounding; names the first tensor that does. Or two nodes have one name.
    """
    _check_node_names(model)
    batch = next(iter(source), None) if model.rewrites else None
    if batch is None:
        return []
    rewrites = ", ".join(model.rewrites)
    try:
        try:
            difference = _difference(model, _first_samples(model, batch))
        except DataError:  # the first axis does not count samples
            difference = _difference(model, batch)
    except (ModelError, DataError) as error:
        return [
            f"{model.path}: changed at loading ({rewrites}); that it still computes the same was not checked: {error}"
        ]
    if difference is None:
        return []
    raise ModelError(
        f"{model.path}: loading changes what {difference} computes for {batch.origin} ({rewrites}): export the model "
        "with opset 17 or newer, with dense weights and without functions"
    )


def _first_samples(model: Model, batch: Batch) -> Batch:
    """Two samples of `batch`, or all of it if the first axis of an input has a fixed size."""
    if not all(isinstance(spec.shape[0], str) for spec in model.inputs if spec.shape) or sample_count(batch.feeds) == 1:
        return batch
    feeds = {name: array[:_SAMPLES] if array.ndim else array for name, array in batch.feeds.items()}
    return Batch(feeds, batch.origin)


def _difference(model: Model, batch: Batch) -> str | None:
    """The node whose tensor is the first one that differs, in words; None if there is none."""
    if _has_same_outputs(model, batch):
        return None
    original = read_proto(model.path)
    tensor = first_difference(original, model.proto, model.external.folder, batch)
    return None if tensor is None else describe_tensor(original, tensor)


def _check_node_names(model: Model) -> None:
    """Make sure that ONNX Runtime, which everything is measured with, does not refuse the names of nodes."""
    names = Counter(node.name for node in model.proto.graph.node if node.name)
    for name, count in names.most_common(1):
        if count > 1:
            raise ModelError(
                f"{model.path}: {count} nodes are called {name!r}, which ONNX Runtime refuses: give each node a name "
                "of its own, or none"
            )


def _has_same_outputs(model: Model, batch: Batch) -> bool:
    """Whether the outputs are the same; of a model with plugins, the last tensors that ONNX Runtime can compute."""
    if not all(is_runnable(node.op_type, node.domain) for node in all_nodes(model.proto.graph.node)):
        original = read_proto(model.path)
        last = unread_tensors(runnable_part(original))
        return first_difference(original, model.proto, model.external.folder, batch, last) is None
    expected = run_session(load_session(model.path, str(model.path), unoptimized()), batch)
    with externalized(model, model.to_ir()) as (proto, folder):
        session = create_session(proto, folder, "the loaded model", unoptimized())
    return all(map(is_close, expected, run_session(session, batch)))
