"""An exported language model is recognised by its names, and fed in prefill and decode."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.decoders import VOCABULARY
from trt_ptq.errors import ModelError
from trt_ptq.language_models.decoder import decoder_layout, is_decoder
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.onnx_io.ort_session import load_session
from trt_ptq.types import Array

IDS = np.random.default_rng(0).integers(0, VOCABULARY, (2, 9))


def small_export(path: Path, inputs: dict[str, list[str | int]], outputs: list[str]) -> Model:
    """A graph with these names, whose outputs are sums of its inputs."""
    kinds = {name: TensorProto.FLOAT if "past" in name else TensorProto.INT64 for name in inputs}
    nodes = [helper.make_node("Cast", ["input_ids"], [name], to=TensorProto.FLOAT, name=name) for name in outputs]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kinds[name], shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return load_model(path)


def test_layers_heads_sizes_and_vocabulary_are_recognised(decoder: Model) -> None:
    layout = decoder_layout(decoder)
    assert layout.num_layers == 2
    assert [(tensor.num_heads, tensor.head_size) for tensor in layout.cache] == [(2, 16)] * 4
    assert [tensor.past for tensor in layout.cache[:2]] == ["past_key_values.0.key", "past_key_values.0.value"]
    assert [tensor.present for tensor in layout.cache[2:]] == ["present.1.key", "present.1.value"]
    assert layout.vocabulary == VOCABULARY


def test_decode_steps_after_a_prefill_give_the_logits_of_one_prefill(decoder: Model, decoder_path: Path) -> None:
    layout, session = decoder_layout(decoder), load_session(decoder_path, "tiny")
    names = [output.name for output in session.get_outputs()]

    def run(feeds: dict[str, Array]) -> dict[str, Array]:
        return dict(zip(names, session.run(None, feeds), strict=True))

    whole = run(layout.feeds(IDS))
    outputs = run(layout.feeds(IDS[:, :5]))
    np.testing.assert_allclose(outputs["logits"], whole["logits"][:, :5], atol=1e-5)
    for position in range(5, 9):
        outputs = run(layout.feeds(IDS[:, position : position + 1], layout.past(outputs)))
        np.testing.assert_allclose(outputs["logits"][:, 0], whole["logits"][:, position], atol=1e-5)
    assert {name: array.shape for name, array in layout.past(outputs).items()} == {
        tensor.past: (2, 2, 9, 16) for tensor in layout.cache
    }


def test_optional_inputs_may_be_missing(tmp_path: Path) -> None:
    past: dict[str, list[str | int]] = {f"past_key_values.0.{part}": ["n", 3, "past", 8] for part in ("value", "key")}
    outputs = ["logits", "present.0.key", "present.0.value"]
    layout = decoder_layout(small_export(tmp_path / "m.onnx", {"input_ids": ["n", "s"], **past}, outputs))
    assert layout.vocabulary is None
    assert set(layout.feeds(IDS)) == {"input_ids", *past}
    assert layout.cache[0].past == "past_key_values.0.key"


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ({"input_ids": ["n", "s"]}, ["logits"], "exported without past"),
        ({"input_ids": ["n", "s"]}, ["scores"], "not an exported language model"),
        ({"past_key_values.0.key": ["n", 2, "p", 8]}, ["logits"], "the cache is incomplete"),
        (
            {f"past_key_values.{layer}.{part}": ["n", 2, "p", 8] for layer in (0, 2) for part in ("key", "value")},
            ["logits"],
            r"past_key_values\.1\.key is missing",
        ),
        (
            {f"past_key_values.0.{part}": ["n", 2, "p", 8] for part in ("key", "value")},
            ["logits"],
            r"'past_key_values\.0\.key' has no output 'present\.0\.key'",
        ),
        (
            {f"past_key_values.0.{part}": ["n", 16, "p"] for part in ("key", "value")},
            ["logits", "present.0.key", "present.0.value"],
            "is not .samples, heads, tokens, head size.",
        ),
        (
            {"use_cache_branch": [1], **{f"past_key_values.0.{part}": ["n", 2, "p", 8] for part in ("key", "value")}},
            ["logits", "present.0.key", "present.0.value"],
            "'use_cache_branch', which is not in Optimum's layout",
        ),
    ],
    ids=["no past", "no logits", "no values", "a layer missing", "no present", "three axes", "another input"],
)
def test_other_exports_are_refused_in_one_line(
    tmp_path: Path, inputs: dict[str, list[str | int]], outputs: list[str], message: str
) -> None:
    model = small_export(tmp_path / "m.onnx", {"input_ids": ["n", "s"], **inputs}, outputs)
    with pytest.raises(ModelError, match=message) as refused:
        decoder_layout(model)
    assert str(refused.value).startswith(str(tmp_path / "m.onnx"))
    assert "\n" not in str(refused.value)


def scorer(path: Path, classes: int, *, pooled: bool) -> Model:
    """Embeddings of 50 tokens and of 2 segments, and a linear layer that scores `classes`, of the text or of tokens."""
    random = np.random.default_rng(0)
    weights = {"tokens": (50, 8), "segments": (2, 8), "head": (8, classes)}
    nodes = [
        helper.make_node("Gather", ["tokens", "input_ids"], ["a"], name="a"),
        helper.make_node("Gather", ["segments", "token_type_ids"], ["b"], name="b"),
        helper.make_node("Add", ["a", "b"], ["c"], name="c"),
        helper.make_node("ReduceMean", ["c"], ["pooled"], name="pooled", axes=[1], keepdims=0),
        helper.make_node("MatMul", ["pooled" if pooled else "c", "head"], ["logits"], name="logits"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info(f"{kind}_ids", TensorProto.INT64, ["n", "s"])
            for kind in ("input", "token_type")
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", classes] if pooled else ["n", "s", classes])],
        [numpy_helper.from_array(random.random(shape, np.float32), name) for name, shape in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return load_model(path)


@pytest.mark.parametrize(
    ("classes", "pooled", "expected"), [(50, False, True), (2, True, False), (1, True, False), (2, False, False)]
)
def test_classifiers_of_text_are_no_decoders(tmp_path: Path, classes: int, pooled: bool, expected: bool) -> None:
    assert is_decoder(scorer(tmp_path / "m.onnx", classes, pooled=pooled)) is expected


def test_a_network_of_pictures_is_no_decoder(cnn: Model) -> None:
    assert not is_decoder(cnn)
