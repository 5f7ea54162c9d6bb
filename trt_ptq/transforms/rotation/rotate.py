"""Rotates the residual stream by a Hadamard matrix, so that no channel of it stands out.

The embeddings and the layers that write to the stream are multiplied by an orthogonal matrix R behind, those that read
it by the weight of their norm and by the transpose of R before. Everything between is as it was: queries, keys, values
and the cache. Outliers of single channels are spread over all, which leaves INT8 more of its range; inputs of layers
that do not read the stream, such as the product in a gated MLP, are not rotated.

Source: Ashkboos et al., "QuaRot: Outlier-Free 4-Bit Inference in Rotated LLMs", 2024, stage 1a; the signs: Liu et al.,
"SpinQuant: LLM Quantization with Learned Rotations", 2024.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trt_ptq._internal.hardware.blas import one_blas_thread
from trt_ptq.analysis.dataflow import name_of
from trt_ptq.onnx_io.graph_editor import GraphEditor
from trt_ptq.onnx_io.lazy_tensor import lazy_map
from trt_ptq.onnx_io.load import Model
from trt_ptq.transforms.linear_layers import Linear
from trt_ptq.transforms.result import TransformResult, TransformSite
from trt_ptq.transforms.rotation.hadamard import hadamard
from trt_ptq.transforms.rotation.residual_stream import ResidualStream, UnfitError, embedding_gathers, find_stream
from trt_ptq.types import Array

_SEED = 0  # of the signs, without which the first channel would be the sum of all

Floats = npt.NDArray[np.float32]


def rotate_stream(model: Model) -> TransformResult:
    """Rotate the residual stream of `model`; unchanged if it has none that can be rotated."""
    result = model.to_ir()
    skipped = []
    for gather in embedding_gathers(result.graph):
        name = name_of(gather.outputs[0])
        try:
            stream = find_stream(gather)
        except UnfitError as unfit:
            skipped.append(TransformSite(name, str(unfit)))
            continue
        matrix = hadamard(stream.width)
        if matrix is None:
            skipped.append(TransformSite(name, f"no Hadamard matrix of order {stream.width} is known"))
            continue
        signs = np.random.default_rng(_SEED).choice([-1.0, 1.0], stream.width)
        _rotate(GraphEditor(result.graph), stream, (signs[:, None] * matrix).astype(np.float32))
        layers = sum(len(norm.readers) for norm in stream.norms) + len(stream.writers)
        site = TransformSite(name, f"residual stream of {stream.width} channels, {layers} layers")
        changed = [*stream.tensors, *(value for norm in stream.norms for value in norm.tensors)]
        changed += [writer.node.outputs[0] for writer in stream.writers]
        return TransformResult(result, (site,), tuple(skipped), frozenset(map(name_of, changed)))
    return TransformResult(result, (), tuple(skipped))


def _rotate(editor: GraphEditor, stream: ResidualStream, rotation: Floats) -> None:
    for norm in stream.norms:
        assert norm.weight.const_value is not None
        scaled = norm.weight.const_value.numpy()[:, None] * rotation  # [channels, rotated channels]
        for linear in norm.readers:
            _change(editor, linear, _reading(scaled, linear.axis), linear.weight is stream.embeddings)
    for weight in {norm.weight for norm in stream.norms}:
        weight.const_value = ir.tensor(np.ones(stream.width, np.float32), name=weight.name)
    for linear in stream.writers:
        _change(editor, linear, _writing(rotation, linear.axis), False)
    assert stream.embeddings.const_value is not None
    stream.embeddings.const_value = _mapped(stream.embeddings.const_value, _writing(rotation, 0))


def _reading(scaled: Floats, axis: int) -> Callable[[Array], Array]:
    """The weight of a layer that reads the rotated stream; `axis` is that of its input channels."""
    return (lambda weight: scaled.T @ weight) if axis == 0 else (lambda weight: weight @ scaled)


def _writing(rotation: Floats, axis: int) -> Callable[[Array], Array]:
    """The weight of a layer that writes to the rotated stream; `axis` is that of its input channels."""
    return (lambda weight: weight @ rotation) if axis == 0 else (lambda weight: rotation.T @ weight)


def _change(editor: GraphEditor, linear: Linear, function: Callable[[Array], Array], tied: bool) -> None:
    """Replace the weight of a layer; the head gets one of its own if it shares that of the embeddings."""
    assert linear.weight.const_value is not None
    changed = _mapped(linear.weight.const_value, function)
    if tied:
        linear.with_own_weight(editor, changed)
    else:
        linear.weight.const_value = changed


def _mapped(tensor: ir.TensorProtocol, function: Callable[[Array], Array]) -> ir.LazyTensor:
    return lazy_map(tensor, one_blas_thread()(function), ir.DataType.FLOAT, str(tensor.name))
