"""From torch to ONNX."""

from __future__ import annotations

from typing import Any


def export_onnx(module: Any, example: dict[str, Any], most_tokens: int, output: str, opset: int) -> bytes:
    """A torch module of token sequences as ONNX; all inputs [batch, length] are open, up to `most_tokens` long.

    Raises:
        RuntimeError: torch exported no program.
    """
    import torch

    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=most_tokens)}
    program = torch.onnx.export(
        module.train(mode=False),
        kwargs=example,
        dynamic_shapes=dict.fromkeys(example, axes),
        output_names=[output],
        opset_version=opset,
        dynamo=True,
        verbose=False,
    )
    if program is None:
        raise RuntimeError("torch exported no program")
    return bytes(program.model_proto.SerializeToString(deterministic=True))
