"""Compares an exported language model with the torch module, in prefill and in a decode step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from trt_ptq.errors import ModelError
from trt_ptq.language_models.decoder import LOGITS, decoder_layout
from trt_ptq.onnx_io.load import load_model
from trt_ptq.onnx_io.ort_session import load_mapped_session, run_session
from trt_ptq.types import Array, Batch

_TOLERANCE = 1e-3  # of the largest logit; float32 kernels differ by about 1e-6, float accumulation over layers by 1e-4
_LENGTH, _SAMPLES = 12, 2


def check_same_logits(torch: Any, module: Any, cache_shapes: list[tuple[int, int]], path: Path, name: str) -> None:
    """Run seeded tokens through `path` and through `module`.

    Raises:
        ModelError: the logits of the prefill or of the decode step differ by more than 0.1 % of the largest.
    """
    layout = decoder_layout(load_model(path), name)
    session = load_mapped_session(path, name)
    outputs_of = [output.name for output in session.get_outputs()]
    vocabulary = layout.vocabulary or 2
    ids = np.random.default_rng(0).integers(0, vocabulary, (_SAMPLES, _LENGTH))
    past: dict[str, Array] | None = None
    torch_past = [tuple(torch.zeros((_SAMPLES, heads, 0, size)) for _ in range(2)) for heads, size in cache_shapes]
    for step, tokens in (("prefill", ids[:, :-1]), ("decode step", ids[:, -1:])):
        feeds = layout.feeds(tokens, past)
        outputs = dict(zip(outputs_of, run_session(session, Batch(feeds, f"{name}, {step}")), strict=True))
        length = _LENGTH if past else _LENGTH - 1
        logits, torch_past = module(
            torch.from_numpy(tokens),
            torch.ones((_SAMPLES, length), dtype=torch.int64),
            torch.arange(length - tokens.shape[1], length).repeat(_SAMPLES, 1),
            torch_past,
        )
        _check(logits.numpy(), outputs[LOGITS], name, step)
        past = layout.past(outputs)


def _check(expected: Array, actual: Array, name: str, step: str) -> None:
    difference = float(np.abs(expected - actual).max() / max(float(np.abs(expected).max()), 1e-30))
    if not difference <= _TOLERANCE:
        raise ModelError(
            f"{name}: the exported model computes other logits than PyTorch in the {step} (they differ by "
            f"{difference:.2%} of the largest): export it with Optimum, and give the ONNX file with `tokenizer`"
        )
