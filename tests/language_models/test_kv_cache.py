"""An INT8 cache of keys and values: in the graph, run by ONNX Runtime, and through `quantize`."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.decoders import VOCABULARY
from trt_ptq import QuantizeConfig, load_recipe, load_table, quantize, quantize_model
from trt_ptq.calibrators.table.table_recipe import HeadScales
from trt_ptq.engines.backends import build_engine
from trt_ptq.engines.spec import EngineSpec
from trt_ptq.errors import ModelError, TableError
from trt_ptq.evaluation.runners.onnx_runner import onnx_runner
from trt_ptq.language_models.batches import DecoderBatches
from trt_ptq.language_models.decoder import decoder_layout
from trt_ptq.language_models.kv_cache.cache_scales import measure_cache_scales, scales_array
from trt_ptq.language_models.kv_cache.int8_cache import quantize_cache
from trt_ptq.language_models.text.samples import TokenSample
from trt_ptq.lint.linter import lint_model
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.types import Array, ShapeProfile


@pytest.fixture
def batches(decoder: Model, tmp_path: Path) -> DecoderBatches:
    random = np.random.default_rng(0)
    samples = [TokenSample(random.integers(0, VOCABULARY, 24), f"text {index}") for index in range(8)]
    return DecoderBatches(decoder.path, decoder_layout(decoder), samples, tmp_path, batch_size=2)


def channel_scales(decoder: Model) -> dict[str, HeadScales]:
    """Another scale for every channel of the keys and every head of the values, as a server may have it."""
    random = np.random.default_rng(2)
    layout = decoder_layout(decoder)
    sizes = [(tensor, tensor.head_size if tensor.past.endswith("key") else 1) for tensor in layout.cache]
    return {
        tensor.present: tuple(
            tuple(map(float, head)) for head in random.uniform(0.02, 0.04, (tensor.num_heads, channels))
        )
        for tensor, channels in sizes
    }


def saved(decoder: Model, path: Path) -> Path:
    model = decoder.to_ir()
    quantize_cache(model, decoder_layout(decoder), channel_scales(decoder))
    save_model(model, path)
    return path


def logits_by_steps(path: Path, decoder: Model, ids: Array) -> Array:
    """The logits of all tokens, by a prefill of four and one token at a time."""
    layout, past, parts = decoder_layout(decoder), None, []
    with onnx_runner(path) as runner:
        for tokens in (ids[:, :4], *(ids[:, index : index + 1] for index in range(4, ids.shape[1]))):
            outputs = runner.infer(layout.feeds(tokens, past), "test")
            past = layout.past(outputs)
            parts.append(outputs["logits"])
    return np.concatenate(parts, axis=1)


def test_inputs_and_outputs_are_int8(decoder: Model, tmp_path: Path) -> None:
    proto = onnx.load(saved(decoder, tmp_path / "kv8.onnx"))
    onnx.checker.check_model(proto, full_check=True)
    types = {value.name: value.type.tensor_type.elem_type for value in (*proto.graph.input, *proto.graph.output)}
    for tensor in decoder_layout(decoder).cache:
        assert types[tensor.past] == types[tensor.present] == TensorProto.INT8
    assert types["logits"] == TensorProto.FLOAT


def test_decoding_hardly_changes(decoder: Model, tmp_path: Path) -> None:
    ids = np.random.default_rng(1).integers(0, VOCABULARY, (2, 12))
    exact = logits_by_steps(decoder.path, decoder, ids)
    actual = logits_by_steps(saved(decoder, tmp_path / "kv8.onnx"), decoder, ids)
    assert 0 < np.linalg.norm(actual - exact) / np.linalg.norm(exact) < 0.03


def test_a_cached_value_is_never_rounded_again(decoder: Model, tmp_path: Path) -> None:
    layout = decoder_layout(decoder)
    ids = np.random.default_rng(1).integers(0, VOCABULARY, (1, 6))
    with onnx_runner(saved(decoder, tmp_path / "kv8.onnx")) as runner:
        first = layout.past(runner.infer(layout.feeds(ids), "test"))
        second = layout.past(runner.infer(layout.feeds(ids[:, :1], first), "test"))
    for name, cache in first.items():
        assert np.array_equal(second[name][:, :, :6], cache)


def test_lint_accepts_it(decoder: Model, tmp_path: Path) -> None:
    assert [one for one in lint_model(saved(decoder, tmp_path / "kv8.onnx"), None) if one.severity == "error"] == []


def test_the_cache_is_that_of_fp32_to_half_a_step_of_each_channel(decoder: Model, tmp_path: Path) -> None:
    layout, scales = decoder_layout(decoder), channel_scales(decoder)
    ids = np.random.default_rng(1).integers(0, VOCABULARY, (2, 6))
    with onnx_runner(decoder.path) as fp32, onnx_runner(saved(decoder, tmp_path / "kv8.onnx")) as int8:
        exact, actual = (runner.infer(layout.feeds(ids), "test") for runner in (fp32, int8))
    for tensor in layout.cache[:2]:  # those of the first layer do not depend on other rounding
        steps = np.abs(actual[tensor.present] - exact[tensor.present]) / scales_array(scales[tensor.present])
        assert 0.4 < steps.max() < 0.501


def test_decode_steps_take_a_float_cache_and_round_it_likewise(decoder: Model, tmp_path: Path) -> None:
    layout = decoder_layout(decoder)
    ids = np.random.default_rng(1).integers(0, VOCABULARY, (1, 6))
    with onnx_runner(decoder.path) as fp32, onnx_runner(saved(decoder, tmp_path / "kv8.onnx")) as int8:
        past = layout.past(fp32.infer(layout.feeds(ids), "test"))
        outputs = layout.past(int8.infer(layout.feeds(ids[:, :1], past), "test"))
    for tensor in layout.cache:
        steps = (outputs[tensor.past][:, :, :6] - past[tensor.past]) / scales_array(
            channel_scales(decoder)[tensor.present]
        )
        assert np.abs(steps).max() < 0.501


def test_values_have_a_scale_for_each_channel_and_keys_for_each_rotated_pair(
    decoder: Model, batches: DecoderBatches
) -> None:
    layout = decoder_layout(decoder)
    measured = measure_cache_scales(decoder, batches, layout)
    with onnx_runner(decoder.path) as runner:
        outputs = [runner.infer(batch.feeds, batch.origin) for batch in batches]
    for tensor in layout.cache:
        amax = np.max([np.abs(output[tensor.present]).max(axis=(0, 2)) for output in outputs], axis=0)
        if tensor.past.endswith("key"):
            half = tensor.head_size // 2
            expected = np.tile(np.hypot(amax[:, :half], amax[:, half:]), 2)
        else:
            expected = amax
        assert scales_array(measured[tensor.present])[:, 0] == pytest.approx(expected / 127, rel=1e-3)


def test_keys_of_later_positions_fit_their_scales(decoder: Model, batches: DecoderBatches) -> None:
    layout = decoder_layout(decoder)
    scales = measure_cache_scales(decoder, batches, layout)
    first = next(iter(batches)).feeds
    later = {**first, "position_ids": first["position_ids"] + 100}
    with onnx_runner(decoder.path) as runner:
        keys = runner.infer(later, "test")["present.0.key"]
    assert (np.abs(keys) / scales_array(scales["present.0.key"])).max() < 127.5


def test_keys_that_are_not_rotated_have_a_scale_for_each_head(decoder: Model, batches: DecoderBatches) -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(decoder.proto)
    for node in proto.graph.node:
        if node.op_type == "Neg":
            node.op_type = "Identity"
    scales = measure_cache_scales(replace(decoder, proto=proto), batches, decoder_layout(decoder))
    assert {len(head) for name, heads in scales.items() for head in heads if name.endswith("key")} == {1}


def test_missing_scales_and_another_model_are_refused(decoder: Model, tmp_path: Path) -> None:
    layout, model = decoder_layout(decoder), decoder.to_ir()
    with pytest.raises(TableError, match=r"lacks scales of 'present\.0\.key': run quantize with `kv_cache=int8` again"):
        quantize_cache(model, layout, {})
    with pytest.raises(TableError, match="scales for 3 heads of 1 channels, but the cache has 2 heads of 16"):
        quantize_cache(model, layout, {tensor.present: ((1.0,), (1.0,), (1.0,)) for tensor in layout.cache})
    past = next(value for value in model.graph.inputs if value.name == "past_key_values.0.key")
    concat = next(node for node in model.graph if node.outputs[0].name == "present.0.key")
    concat.replace_input_with(0, concat.inputs[1])
    concat.replace_input_with(1, past)
    with pytest.raises(ModelError, match="with the new tokens appended"):
        quantize_cache(model, layout, channel_scales(decoder))


def test_quantize_writes_the_model_and_the_scales(
    decoder: Model, batches: DecoderBatches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    out = tmp_path / "out"
    config = QuantizeConfig(kv_cache="int8", method="minmax", search=False, techniques=(), backend="none")
    report = quantize(decoder.path, batches, output_dir=out, config=config).report
    assert not [node for node in report.fp32_nodes if "was not measured" in node.reason]  # beside the cache, too
    assert load_recipe(out / "recipe.yaml").kv_cache == "int8"
    assert report.int8_summary.endswith(", keys and values are cached in INT8")
    scales, table = json.loads((out / "kv_cache.json").read_text()), load_table(out / "calibration.json")
    assert table.recipe is not None
    for tensor in decoder_layout(decoder).cache:
        entry = scales[tensor.past]
        assert tuple(map(tuple, entry["scales"])) == table.recipe.cache_scales[tensor.present]
        assert entry["head_scales"] == list(map(max, entry["scales"]))
        assert entry["scale"] == max(entry["head_scales"])
    quantize_model(decoder.path, out / "calibration.json").save(tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (out / "model.int8.onnx").read_bytes()


@pytest.mark.slow
def test_weights_rounded_after_a_rotation_lead_to_the_same_bytes_with_an_int8_cache(
    decoder: Model, batches: DecoderBatches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    out = tmp_path / "out"
    config = QuantizeConfig(
        kv_cache="int8", method="minmax", search=False, techniques=("rotation", "gptq"), backend="none"
    )
    quantize(decoder.path, batches, output_dir=out, config=config)
    quantize_model(out / "model.transformed.onnx", out / "calibration.json").save(tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (out / "model.int8.onnx").read_bytes()


def test_the_manifest_of_an_engine_has_the_scales(decoder: Model, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason='needs tensorrt-rtx: pip install "trt-ptq[rtx]"')
    path, layout = saved(decoder, tmp_path / "kv8.onnx"), decoder_layout(decoder)
    feeds = layout.feeds(np.zeros((1, 4), np.int64), {tensor.past: np.zeros((1, 2, 8, 16)) for tensor in layout.cache})
    profiles = {name: ShapeProfile(array.shape, array.shape, array.shape) for name, array in feeds.items()}
    spec = EngineSpec(path, tmp_path / "kv8.engine", "int8", decoder.identity, profiles)
    names = {name for tensor in layout.cache for name in tensor.names}
    int8_io = build_engine(spec, "rtx").int8_io
    assert int8_io.keys() == names
    keys = scales_array(channel_scales(decoder)["present.1.key"])
    np.testing.assert_allclose(int8_io["past_key_values.1.key"], keys, rtol=1e-6)


def test_a_model_without_a_cache_is_refused(cnn: Model, npz_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not an exported language model"):
        quantize(cnn.path, npz_folder, output_dir=tmp_path / "out", config=QuantizeConfig(kv_cache="int8"))


@pytest.mark.parametrize(("target", "warned"), [("rtx", True), ("trt", False)])
def test_weight_only_decoding_on_rtx_is_warned_of(
    decoder: Model,
    batches: DecoderBatches,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: Literal["rtx", "trt"],
    warned: bool,
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    config = QuantizeConfig(mode="w8a16", target=target, search=False, techniques=(), backend="none")
    report = quantize(decoder.path, batches, output_dir=tmp_path / "out", config=config).report
    assert any(warning.startswith("a decode step may move more bytes") for warning in report.warnings) == warned
