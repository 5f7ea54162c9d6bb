"""A tiny Llama with random weights, its export, and a tokenizer for it."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Any

import numpy as np

VOCABULARY, WINDOW = 320, 128


def tiny_llama(**config: Any) -> Any:
    """A LlamaForCausalLM: hidden size 64, 2 layers, 4 heads, 2 of keys and values; the weights are seeded."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    settings = {"num_key_value_heads": 2, "vocab_size": VOCABULARY, "max_position_embeddings": WINDOW}
    return LlamaForCausalLM(LlamaConfig(**{**sizes, **settings, "initializer_range": 0.1, **config})).eval()


def sentences(count: int, seed: int = 0, words: int = 12) -> list[str]:
    """Sentences of a few words each, some of which are frequent, as in a language."""
    names = [
        "the",
        "a",
        "wolf",
        "king",
        "daughter",
        "went",
        "into",
        "forest",
        "and",
        "saw",
        "old",
        "house",
        "little",
        "bird",
        "golden",
        "said",
        "then",
        "came",
        "water",
    ]
    random = np.random.default_rng(seed)
    frequencies = 1 / np.arange(1, len(names) + 1)
    drawn = random.choice(names, (count, words), p=frequencies / frequencies.sum())
    return [" ".join(row) for row in drawn]


def tiny_tokenizer() -> Any:
    """A byte-level BPE tokenizer of the tiny Llama's vocabulary, trained on `sentences`; it adds no tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(sentences(200), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


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
