"""`quantize` of causal language models: text in, perplexity and next-token predictions out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.run import refused, trt_ptq
from tests.decoders import WINDOW, sentences, tiny_llama, tiny_tokenizer
from trt_ptq.config import QuantizeConfig
from trt_ptq.errors import UsageError
from trt_ptq.pipeline import QuantizeResult, quantize
from trt_ptq.recipe import load_recipe
from trt_ptq.report.render import render_html
from trt_ptq.report.schema import load_report

QUICK: dict[str, Any] = {
    "method": "minmax",
    "backend": "none",
    "techniques": (),
    "search": False,
    "max_drop": 0.09,
    "samples": 20,
}


def quantized(model: Any, data: Any, out: Path, tokenizer: Any, **arguments: Any) -> QuantizeResult:
    return quantize(model, data, output_dir=out, tokenizer=tokenizer, config=QuantizeConfig(**QUICK), **arguments)


@pytest.fixture(scope="module")
def result(decoder_path: Path, tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> QuantizeResult:
    """The exported tiny Llama, quantized with sentences."""
    return quantized(decoder_path, sentences(60), tmp_path_factory.mktemp("out"), tokenizer_folder)


def test_perplexity_decides(result: QuantizeResult) -> None:
    assert result.passed
    assert set(result.metrics["int8"]) == {"perplexity"}
    assert result.metrics["fp32"]["perplexity"] > 1


def test_texts_are_counted_beside_samples(result: QuantizeResult) -> None:
    judged, text = result.report.language, result.report.text
    assert judged is not None and text is not None
    assert (judged.texts, judged.tokens > 2 * 5) == (2, True)
    assert result.report.comparison_data.startswith(f"2 held-out texts ({judged.tokens} tokens) by perplexity; outputs")
    assert result.report.calibration_data.startswith(f"{text.samples} texts (")


def test_the_report_has_the_text_the_agreement_and_generations(result: QuantizeResult) -> None:
    report = load_report(result.output_dir)
    assert report.text and report.language
    assert (report.text.read, report.text.samples, report.text.held_out) == (60, 20, 5)
    assert [row.start for row in report.language.agreement["int8"]] == [0, 1, 0]
    assert {*report.language.agreement} == {"fp16", "int8"}
    for generation in report.language.generations:
        assert {*generation.continuations} == {"fp32", "fp16", "int8"}
    page = render_html(report)
    assert "Next-token predictions beside FP32" in page
    assert report == result.report


def test_the_report_says_how_ranges_drift_with_the_length(result: QuantizeResult) -> None:
    report = result.report
    assert report.text is not None
    lengths = [f"{bucket.start}-{bucket.stop}" for bucket in report.text.lengths]
    assert len(lengths) > 1
    first = report.length_drift[0]
    assert list(first.amax) == lengths
    ranges = {tensor.name: max(-tensor.minimum, tensor.maximum) for tensor in report.tensors}
    assert max(first.amax.values()) == pytest.approx(ranges[first.tensor])
    page = render_html(report)
    assert "Ranges by the length of the text" in page
    assert first.layers and all(layer.startswith("model.layers.") for layer in first.layers)
    assert f"<td>{first.tensor}</td><td>{first.layers_text}</td><td>{first.ratio:.2f}</td>" in page


def test_what_is_suspicious_about_the_text_is_warned_of(result: QuantizeResult) -> None:
    warnings = "\n".join(result.report.warnings)
    assert "only 20 calibration texts: 100 to 500 are advised" in warnings
    assert "the perplexity is that of only" in warnings
    assert "hardly better than guessing among 320 tokens" in warnings  # its weights are random
    assert "noise" not in warnings


def test_prefill_and_decode_are_calibrated_and_compared(result: QuantizeResult) -> None:
    assert result.report.fingerprint.samples > 20  # decode steps count beside the texts
    assert result.report.held_out_samples > 5


def test_test_data_of_its_own(decoder_path: Path, tokenizer_folder: Path, tmp_path: Path) -> None:
    data = sentences(30)
    report = quantized(decoder_path, data, tmp_path, tokenizer_folder, test_data=data[:20]).report
    assert report.text is not None
    assert (report.text.samples, report.text.held_out) == (20, 20)
    assert report.held_out_samples == 12  # 8 texts, and the decode steps of two of them
    assert any("calibration texts are also in the evaluation text" in warning for warning in report.warnings)


@pytest.mark.parametrize(("texts", "warned"), [(4, True), (12, False)])
def test_a_verdict_on_the_text_that_candidates_were_selected_on_is_warned_of(
    decoder_path: Path, tokenizer_folder: Path, tmp_path: Path, texts: int, warned: bool
) -> None:
    config = QuantizeConfig(method="minmax", techniques=(), backend="none", effort="low", max_drop=0.005)
    report = quantize(
        decoder_path, sentences(texts), output_dir=tmp_path, tokenizer=tokenizer_folder, config=config
    ).report
    assert report.trials[-1].name.startswith("mixed precision")
    found = [warning for warning in report.warnings if "the verdict is optimistic" in warning]
    assert len(found) == warned and all(warning.endswith("verdict, give more `test_data`") for warning in found)


@pytest.mark.parametrize(("mode", "techniques"), [("w8a8", ("rotation", "smoothquant", "gptq")), ("w8a16", ("gptq",))])
def test_language_models_are_rotated_smoothed_and_rounded_unless_techniques_are_chosen(
    decoder_path: Path,
    tokenizer_folder: Path,
    result: QuantizeResult,
    tmp_path: Path,
    mode: str,
    techniques: tuple[str, ...],
) -> None:
    config = QuantizeConfig(**{**QUICK, "mode": mode, "techniques": "auto"})
    report = quantize(
        decoder_path, sentences(60), output_dir=tmp_path, tokenizer=tokenizer_folder, config=config
    ).report
    assert load_recipe(tmp_path / "recipe.yaml").techniques == techniques
    assert [trial.decision for trial in report.trials] == ["applied"] * len(techniques) + ["baseline"]
    assert any("build implicit engines" in warning for warning in report.warnings) == (mode == "w8a8")
    notes = {trial.name: trial.note for trial in report.trials}
    assert ("residual stream of 64 channels, 15 layers" in notes.get("Hadamard rotation", "")) == (mode == "w8a8")
    assert (tmp_path / "model.transformed.onnx").is_file()
    assert load_recipe(result.output_dir / "recipe.yaml").techniques == ()


@pytest.mark.parametrize(("techniques", "left_out"), [("auto", True), ("gptq", False)])
def test_gptq_that_was_not_asked_for_is_left_out_when_the_time_is_up(
    decoder_path: Path, tokenizer_folder: Path, tmp_path: Path, techniques: str, left_out: bool
) -> None:
    config = QuantizeConfig(**{**QUICK, "mode": "w8a16", "techniques": techniques, "time_limit": 1e-3})
    report = quantize(
        decoder_path, sentences(60), output_dir=tmp_path, tokenizer=tokenizer_folder, config=config
    ).report
    assert load_recipe(tmp_path / "recipe.yaml").techniques == (() if left_out else ("gptq",))
    assert any("`time_limit` was reached before GPTQ" in warning for warning in report.warnings) == left_out


def test_a_metric_of_the_user_decides_instead(decoder_path: Path, tokenizer_folder: Path, tmp_path: Path) -> None:
    from trt_ptq.language_models.decoder import decoder_layout
    from trt_ptq.onnx_io.load import load_model

    layout, ids = decoder_layout(load_model(decoder_path)), tiny_tokenizer()("the king said")["input_ids"]

    def accuracy(run: Any) -> dict[str, float]:
        import numpy as np

        return {"accuracy": 1.0 + 0 * float(run(layout.feeds(np.array([ids])))["logits"].sum())}

    result = quantized(decoder_path, sentences(30), tmp_path, tokenizer_folder, evaluate=accuracy)
    assert set(result.metrics["int8"]) == {"accuracy"}
    assert not any("perplexity" in warning for warning in result.warnings)
    assert result.report.language is not None


def test_the_command_line_cuts_texts_and_shows_the_agreement(
    decoder_path: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    data = tmp_path / "prompts.jsonl"
    data.write_text("\n".join(json.dumps({"body": " ".join(sentences(6, seed))}) for seed in range(12)))
    options = ["--task", "text-generation", "--tokenizer", tokenizer_folder, "--data", data, "--text-column", "body"]
    quick = ["--method", "minmax", "--technique", "none", "--no-search", "--backend", "none", "--max-drop", "9%"]
    cut = ["--max-length", 24, "--samples", 12, "--out", tmp_path / "out"]
    done = trt_ptq("quantize", decoder_path, *options, *cut, *quick)
    assert done.returncode == 0, done.stderr
    assert "next-token agreement with FP32" in done.stdout
    assert max(len(line) for line in done.stdout.splitlines() if line.startswith(("┏", "│"))) <= 80


class TestBadInput:
    def test_options_for_text_need_the_task(self, decoder_path: Path, tmp_path: Path) -> None:
        fields: dict[str, Any] = {"text_column": "a", "group_columns": "a", "max_length": 9, "samples": 9}
        for name, value in fields.items():
            with pytest.raises(UsageError, match=f"`{name}` is for text: add `task=text-generation`"):
                quantize(decoder_path, [], output_dir=tmp_path / "out", config=QuantizeConfig(**{name: value}))

    def test_a_tokenizer_is_needed(self, decoder_path: Path, tmp_path: Path) -> None:
        message = refused("quantize", decoder_path, "--task", "text-generation", "--data", tmp_path)
        assert message.startswith("--tokenizer is missing: give the Hugging Face tokenizer of")

    def test_a_language_model_needs_the_task(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="LlamaForCausalLM: is a language model: give its `tokenizer`"):
            quantize(tiny_llama(), [], output_dir=tmp_path / "out")

    def test_missing_files_are_found_before_the_model_is_exported(self, tmp_path: Path, tokenizer_folder: Path) -> None:
        (tmp_path / "config.json").write_text("{}")
        options = ["quantize", tmp_path, "--task", "text-generation", "--data", tmp_path / "none.jsonl"]
        assert "has no tokenizer" in refused(*options)
        assert "none.jsonl: no such data file" in refused(*options, "--tokenizer", tokenizer_folder)

    def test_pieces_that_exceed_the_window_are_refused_before_the_model_is_exported(self, tmp_path: Path) -> None:
        tiny_tokenizer().save_pretrained(tmp_path)
        (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": WINDOW}))
        options = ["--task", "text-generation", "--data", tmp_path, "--max-length", WINDOW + 1]
        message = f"--max-length {WINDOW + 1} exceeds the model's window of {WINDOW} tokens"
        assert refused("quantize", tmp_path, *options) == message

    def test_preprocess_is_for_images(self, decoder_path: Path, tokenizer_folder: Path, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="`preprocess` is for images"):
            quantized(decoder_path, sentences(9), tmp_path / "out", tokenizer_folder, preprocess="a.py:b")

    def test_a_model_without_past(self, tmp_path: Path, tokenizer_folder: Path) -> None:
        from tests.language_models.test_decoder import small_export

        path = small_export(tmp_path / "m.onnx", {"input_ids": ["n", "s"]}, ["logits"]).path
        options = ["--task", "text-generation", "--tokenizer", tokenizer_folder, "--data", tmp_path]
        assert "m.onnx: exported without past" in refused("quantize", path, *options)

    def test_a_tokenizer_of_another_model(self, decoder_path: Path, tmp_path: Path) -> None:
        tokenizer = tiny_tokenizer()
        tokenizer.add_tokens([f"word{index}" for index in range(9)])
        tokenizer.save_pretrained(tmp_path / "t")
        options = ["--task", "text-generation", "--tokenizer", tmp_path / "t", "--data", tmp_path]
        assert "it belongs to another model" in refused("quantize", decoder_path, *options)

    def test_a_single_text(self, decoder_path: Path, tokenizer_folder: Path, tmp_path: Path) -> None:
        (tmp_path / "one.txt").write_text(sentences(1)[0])
        options = ["--task", "text-generation", "--tokenizer", tokenizer_folder, "--data", tmp_path / "one.txt"]
        assert "the data has a single text (long texts are cut" in refused("quantize", decoder_path, *options)

    def test_a_folder_of_something_else(self, tmp_path: Path) -> None:
        assert "a folder without config.json" in refused("quantize", tmp_path, "--data", tmp_path)

    @pytest.mark.parametrize(("name", "value"), [("samples", 0), ("max_length", 1), ("samples", True), ("task", "asr")])
    def test_fields_are_checked(self, name: str, value: Any) -> None:
        with pytest.raises(UsageError, match=f"`{name}` must be"):
            QuantizeConfig(**{name: value})


def test_a_bad_recipe_is_refused_before_the_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trt_ptq.pipeline.opened_model", pytest.fail)
    config = QuantizeConfig(recipe=tmp_path / "recipe.yaml", task="text-generation")
    with pytest.raises(UsageError, match=r"cannot read .*recipe\.yaml: No such file"):
        quantize(tmp_path, sentences(4), output_dir=tmp_path / "out", config=config)
