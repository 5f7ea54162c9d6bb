"""Smoothing finds the normalizations that torch exports, those of LLaMA and of BERT (run by ONNX Runtime)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.transforms.normalized import changed_tensors, outputs
from trt_ptq.onnx_io.load import load_model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.transforms.smoothquant import find_pairs, scale_pairs

pytestmark = pytest.mark.slow
TOKENS = np.arange(16, dtype=np.int64).reshape(2, 8)


def export(model: Any, path: Path) -> Path:
    """The model, with every normalization as uneven as trained ones, as torch exports it: tokens [2, 8] -> y."""
    torch = pytest.importorskip("torch")
    for name, parameter in model.named_parameters():
        if "norm" in name.lower() and name.endswith("weight"):
            torch.nn.init.normal_(parameter, 1, 0.5)
    options = {"input_names": ["tokens"], "output_names": ["y"], "opset_version": 18, "verbose": False}
    torch.onnx.export(model.train(mode=False), (torch.from_numpy(TOKENS),), path, dynamo=True, **options)
    return path


def smoothed(path: Path) -> tuple[list[int], Path]:
    """How many linear layers each pair has, and the model with all of them scaled, and nothing else."""
    model = load_model(path).to_ir()
    pairs, _ = find_pairs(model.graph)
    scaled_tensors = set[str]().union(*(pair.scaled_tensors() for pair in pairs))
    scale_pairs(model.graph, [(pair, np.exp2(np.linspace(-3, 3, pair.channels)).astype(np.float32)) for pair in pairs])
    result = path.with_name("smoothed.onnx")
    save_model(model, result)
    assert scaled_tensors == changed_tensors(path, result, tokens=TOKENS)
    return [len(pair.linears) for pair in pairs], result


def assert_same_function(before: Path, after: Path) -> None:
    (old, *_), (new, *_) = outputs(before, tokens=TOKENS), outputs(after, tokens=TOKENS)
    np.testing.assert_allclose(new, old, atol=1e-4 * np.abs(old).max())


def test_llama_has_two_normalizations_attention_and_a_gate_a_layer_and_one_before_its_head(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=128,
        attn_implementation="eager",
        use_cache=False,
    )
    path = export(transformers.LlamaForCausalLM(config), tmp_path / "llama.onnx")
    counts, after = smoothed(path)
    assert counts == [3, 1, 2, 1, 3, 1, 2, 1, 1]
    assert len(onnx.load(after).graph.node) == len(onnx.load(path).graph.node) + 2  # behind attention
    assert_same_function(path, after)


def test_bert_reads_its_normalizations_in_residuals_too(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=128,
        attn_implementation="eager",
    )
    path = export(transformers.BertModel(config, add_pooling_layer=False), tmp_path / "bert.onnx")
    counts, after = smoothed(path)
    assert counts == [3, 1, 1, 3, 1, 1]
    assert len(onnx.load(after).graph.node) == len(onnx.load(path).graph.node) + 4 + 2
    assert_same_function(path, after)
