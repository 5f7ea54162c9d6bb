"""Rotates the activations of SmolLM2 by Hadamard matrices, so that no channel stands out.

The residual stream is rotated by R: the embeddings write x R, each RMSNorm gives its weight to the layers behind it and
then commutes with R, layers that read the stream undo R, and layers that write it apply R. In each head, values are
rotated between `v_proj` and `o_proj`. All of that is folded into weights. The input of `down_proj` is a product, which
no weight can rotate: `online` puts two small MatMuls before it.

Source: Ashkboos et al., "QuaRot: Outlier-Free 4-Bit Inference in Rotated LLMs", 2024, stages 1a to 1c; Liu et al.,
"SpinQuant", 2024, R1, R2 and R4. Keys and queries (R3) stay, since their MatMuls are not quantized here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

_SEED = 0
_ORDER_12 = 12  # the Hadamard matrix of Paley's first construction, for the field of 11 elements
_EMBEDDING = "lm_head.weight"  # shared by the embeddings and the head
_HEAD = "lm_head.rotated_weight"

Floats = npt.NDArray[np.float64]


def hadamard(size: int) -> Floats:
    """An orthogonal matrix [size, size] whose entries all have the magnitude size^-0.5.

    Args:
        size: a power of two, times any power of 12.
    """
    product: npt.NDArray[Any] = np.ones((1, 1))
    left = size
    while left % 3 == 0 and left >= _ORDER_12:
        product = np.kron(product, _paley_12())
        left //= _ORDER_12
    while left % 2 == 0:
        product = np.kron(product, np.array([[1.0, 1.0], [1.0, -1.0]]))
        left //= 2
    if left != 1:
        raise ValueError(f"{size} is not a power of two times a power of 12")
    return product / float(np.sqrt(size))


def _paley_12() -> Floats:
    squares = {value * value % 11 for value in range(1, 11)}
    character = np.array([0.0, *(1.0 if value in squares else -1.0 for value in range(1, 11))])
    skew = np.zeros((_ORDER_12, _ORDER_12))
    skew[0, 1:], skew[1:, 0] = 1, -1
    skew[1:, 1:] = character[(np.arange(11)[None] - np.arange(11)[:, None]) % 11]
    return skew + np.eye(_ORDER_12)


def rotate(model: ir.Model, head_size: int, *, values: bool, online: bool) -> list[str]:
    """Rotate a decoder of the LLaMA family, in place; its logits stay the same but for float rounding.

    Args:
        model: the float model, with weights named as in Hugging Face; head and embeddings share one.
        head_size: number of channels of a head.
        values: also rotate the values of each head, which the cache then holds rotated.
        online: also rotate the inputs of `down_proj`, at run time.

    Returns:
        The nodes that rotate at run time, by their outputs.
    """
    graph = model.graph
    width = len(_get(graph, "model.norm.weight"))
    signs = np.random.default_rng(_SEED).choice([-1.0, 1.0], width)
    stream = signs[:, None] * hadamard(width)
    _untie(graph)
    _set(graph, _HEAD, _get(graph, _EMBEDDING) * _get(graph, "model.norm.weight") @ stream)
    _set(graph, _EMBEDDING, _get(graph, _EMBEDDING) @ stream)
    _set(graph, "model.norm.weight", np.ones(width))
    layers = sum(name.endswith("down_proj.weight") for name in graph.initializers)
    rotating = []
    for prefix in (f"model.layers.{index}" for index in range(layers)):
        _rotate_reads(graph, f"{prefix}.input_layernorm", [f"{prefix}.self_attn.{name}_proj" for name in "qkv"], stream)
        _rotate_reads(
            graph,
            f"{prefix}.post_attention_layernorm",
            [f"{prefix}.mlp.{name}_proj" for name in ("gate", "up")],
            stream,
        )
        if values:
            _rotate_values(graph, f"{prefix}.self_attn", head_size)
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            weight = f"{prefix}.{name}.weight"
            _set(graph, weight, _get(graph, weight) @ stream)
        if online:
            rotating += _rotate_at_run_time(graph, f"{prefix}.mlp.down_proj")
    return rotating


def _rotate_reads(graph: ir.Graph, norm: str, layers: Sequence[str], stream: Floats) -> None:
    """Let layers read the rotated stream, and take over the weight of the norm before them."""
    scale = _get(graph, f"{norm}.weight")
    for layer in layers:
        name = f"{layer}.weight"
        _set(graph, name, stream.T @ (scale[:, None] * _get(graph, name)))
    _set(graph, f"{norm}.weight", np.ones_like(scale))


def _rotate_values(graph: ir.Graph, attention: str, head_size: int) -> None:
    rotation = hadamard(head_size)
    values, output = (_get(graph, f"{attention}.{name}_proj.weight") for name in "vo")
    _set(
        graph,
        f"{attention}.v_proj.weight",
        (values.reshape(len(values), -1, head_size) @ rotation).reshape(values.shape),
    )
    _set(
        graph,
        f"{attention}.o_proj.weight",
        (rotation.T @ output.reshape(-1, head_size, output.shape[1])).reshape(output.shape),
    )


def _rotate_at_run_time(graph: ir.Graph, layer: str) -> list[str]:
    """Rotate the input of `layer` by the Kronecker product of two Hadamard matrices, which costs less than one."""
    node = next(node for node in graph if node.outputs[0].name == layer)
    weight = _get(graph, f"{layer}.weight")
    small, large = hadamard(_ORDER_12), hadamard(len(weight) // _ORDER_12)
    _set(graph, f"{layer}.weight", np.kron(small, large).T @ weight)
    names = [f"{layer}.{step}" for step in ("blocks", "rotated_in_blocks", "rotated", "rotated_input")]
    blocks = _constant(graph, f"{layer}.block_shape", np.array([0, 0, _ORDER_12, len(large)]))
    flat = _constant(graph, f"{layer}.flat_shape", np.array([0, 0, len(weight)]))
    left = _constant(graph, f"{layer}.hadamard_blocks", small.T.astype(np.float32))
    right = _constant(graph, f"{layer}.hadamard", large.astype(np.float32))
    reshape = ir.node("Reshape", [node.inputs[0], blocks], name=names[0])
    within = ir.node("MatMul", [reshape.outputs[0], right], name=names[1])
    across = ir.node("MatMul", [left, within.outputs[0]], name=names[2])
    back = ir.node("Reshape", [across.outputs[0], flat], name=names[3])
    for added, name in zip((reshape, within, across, back), names, strict=True):
        added.outputs[0].name = name
    graph.insert_before(node, [reshape, within, across, back])
    node.replace_input_with(0, back.outputs[0])
    return names[1:3]


def _untie(graph: ir.Graph) -> None:
    """Give the head a weight of its own."""
    shared = graph.initializers[_EMBEDDING]
    own = _constant(graph, _HEAD, _get(graph, _EMBEDDING).astype(np.float32))
    for node, index in list(shared.uses()):
        if node.op_type != "Gather":
            node.replace_input_with(index, own)


def _constant(graph: ir.Graph, name: str, values: npt.NDArray[np.generic]) -> ir.Value:
    value = ir.val(name, const_value=ir.tensor(values, name=name))
    graph.register_initializer(value)
    return value


def _get(graph: ir.Graph, name: str) -> Floats:
    tensor = graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy().astype(np.float64)


def _set(graph: ir.Graph, name: str, values: Floats) -> None:
    graph.initializers[name].const_value = ir.tensor(values.astype(np.float32), name=name)
