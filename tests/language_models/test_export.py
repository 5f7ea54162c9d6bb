"""Hugging Face models are exported with their cache, or refused in one line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.decoders import tiny_llama
from trt_ptq.errors import MissingPackageError, ModelError
from trt_ptq.language_models.export import same_logits
from trt_ptq.language_models.export.huggingface import (
    export_causal_lm,
    is_causal_lm,
    is_huggingface_folder,
    load_causal_lm,
)
from trt_ptq.onnx_io.load import Model

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("onnxscript")


def refused(model: Any, tmp_path: Path) -> str:
    with pytest.raises(ModelError) as error:
        export_causal_lm(model, tmp_path / "m.onnx", "my-model")
    message = str(error.value)
    assert message.startswith("my-model: ")
    assert "\n" not in message
    return message


def test_nodes_and_weights_are_named_after_their_modules(decoder: Model) -> None:
    nodes = {node.name: node for node in decoder.proto.graph.node}
    down = nodes["model.layers.1.mlp.down_proj/MatMul"]
    assert down.input[1] == "model.layers.1.mlp.down_proj.weight"
    assert list(down.output) == ["model.layers.1.mlp.down_proj"]
    assert "lm_head/MatMul" in nodes
    assert len(nodes) == len(decoder.proto.graph.node)


def test_samples_new_tokens_and_cached_tokens_are_dynamic(decoder: Model) -> None:
    shapes = {spec.name: spec.shape for spec in decoder.inputs}
    assert shapes["input_ids"] == shapes["position_ids"] == ("batch", "sequence")
    assert shapes["attention_mask"] == ("batch", "past + sequence")
    assert shapes["past_key_values.1.value"] == ("batch", 2, "past", 16)


@pytest.mark.slow
def test_biases_and_a_sliding_window_are_exported_and_the_model_is_left_as_it_was(tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.Qwen2Config(
        **sizes, num_key_value_heads=1, vocab_size=50, use_sliding_window=True, sliding_window=4, max_window_layers=1
    )
    model = transformers.Qwen2ForCausalLM(config).train()
    export_causal_lm(model, tmp_path / "m.onnx", "Qwen2")  # compares 12 tokens with PyTorch
    assert model.training
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.slow
def test_a_layer_that_does_not_export_is_refused(tmp_path: Path) -> None:
    class DataDependent(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Any) -> Any:
            return self.inner(x) if x.sum() > 0 else x

    model = tiny_llama(num_hidden_layers=1)
    model.model.layers[0].mlp = DataDependent(model.model.layers[0].mlp)
    message = refused(model, tmp_path)
    assert "PyTorch cannot export a layer of LlamaForCausalLM" in message
    assert "give the ONNX file with `tokenizer`" in message


def test_layers_without_keys_and_values_are_refused(tmp_path: Path) -> None:
    model = transformers.MambaForCausalLM(
        transformers.MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, state_size=4)
    )
    assert "only decoders whose layers keep keys and values can be exported" in refused(model, tmp_path)


def test_weights_of_another_type_are_refused(tmp_path: Path) -> None:
    assert refused(tiny_llama().bfloat16(), tmp_path) == "my-model: has weights in bfloat16: give model.float()"


def test_other_logits_than_those_of_torch_are_refused(decoder_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trt_ptq.language_models.export.decoder_module import decoder_module

    module, shapes = decoder_module(torch, tiny_llama(), "my-model")
    with torch.no_grad():
        same_logits.check_same_logits(torch, module, shapes, decoder_path, "my-model")
        module.decoder.model.layers[0].mlp.down_proj.weight.mul_(1.5)
        with pytest.raises(ModelError, match="computes other logits than PyTorch in the prefill"):
            same_logits.check_same_logits(torch, module, shapes, decoder_path, "my-model")


def test_only_folders_with_a_language_model_are_loaded(tmp_path: Path) -> None:
    assert not is_huggingface_folder(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert is_huggingface_folder(tmp_path)
    with pytest.raises(ModelError, match="transformers cannot load a causal language model") as error:
        load_causal_lm(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_a_missing_package_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError, match=rf'{package} is required .*pip install "trt-ptq\[llm\]"'):
        load_causal_lm(tmp_path)


def test_only_hugging_face_models_are_language_models() -> None:
    assert is_causal_lm(tiny_llama())
    assert not is_causal_lm(torch.nn.Linear(2, 2))
    assert not is_causal_lm("folder")
