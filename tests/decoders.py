"""A tiny Llama with random weights, and its export."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Any

VOCABULARY, WINDOW = 320, 128


def tiny_llama(**config: Any) -> Any:
    """A LlamaForCausalLM: hidden size 64, 2 layers, 4 heads, 2 of keys and values; the weights are seeded."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    settings = {"num_key_value_heads": 2, "vocab_size": VOCABULARY, "max_position_embeddings": WINDOW}
    return LlamaForCausalLM(LlamaConfig(**{**sizes, **settings, "initializer_range": 0.1, **config})).eval()


def exported_once(folder: Path) -> Path:
    """The exported tiny Llama in `folder`, which several processes may ask for at once."""
    path = folder / "tiny-llama.onnx"
    with (folder / "tiny-llama.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            from trt_ptq.language_models.export.huggingface import export_causal_lm

            partial = folder / "partial.onnx"
            export_causal_lm(tiny_llama(), partial, "tiny Llama")
            partial.replace(path)
    return path
