"""Greedy generation, to see what quantization changes in the text that a model writes."""

from __future__ import annotations

import numpy as np

from trt_ptq.evaluation.runners.onnx_runner import Run
from trt_ptq.language_models.decoder import LOGITS, DecoderLayout
from trt_ptq.types import Array


def generate(run: Run, layout: DecoderLayout, prompt: Array, max_tokens: int, end_id: int | None = None) -> Array:
    """The most likely tokens that follow `prompt`: a prefill, then a decode step for each token.

    Args:
        run: runs the model.
        layout: its inputs and outputs.
        prompt: tokens [length], at least one.
        max_tokens: how many tokens to generate at most.
        end_id: the token to end at; it is not returned.
    """
    tokens: list[int] = []
    outputs = run(layout.feeds(prompt[None]))
    while len(tokens) < max_tokens:
        token = int(outputs[LOGITS][0, -1].argmax())
        if token == end_id:
            break
        tokens.append(token)
        if len(tokens) < max_tokens:
            outputs = run(layout.feeds(np.array([[token]]), layout.past(outputs)))
    return np.array(tokens, np.int64)
