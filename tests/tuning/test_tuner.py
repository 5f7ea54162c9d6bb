"""Tuning of real models: analysis, techniques, excluded layers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from tests.networks import images, sabotaged_cnn, two_sided_cnn, weight, write
from tests.pipeline.quantizing import quantized, source
from trt_ptq.calibrators.methods import AUTO_CANDIDATES
from trt_ptq.data.sources import ArraySource
from trt_ptq.data.subset import split_source
from trt_ptq.errors import UsageError
from trt_ptq.evaluation.compare_models import compare_models
from trt_ptq.evaluation.metrics import Evaluate
from trt_ptq.evaluation.verdict import format_loss
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.recipe import load_recipe
from trt_ptq.report.schema import Report

T = TypeVar("T")


@pytest.fixture(autouse=True)
def _no_builder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)


@pytest.fixture
def sabotaged(tmp_path: Path) -> Model:
    return load_model(sabotaged_cnn(tmp_path / "m.onnx"))


def run(model: Model, out: Path, data: Any = None, **options: Any) -> Report:
    return quantized(model, out, data, **options).report


def test_the_analysis_shows_where_the_loss_comes_from(sabotaged: Model, tmp_path: Path) -> None:
    both, weights, activations = run(sabotaged, tmp_path / "out", search=False, techniques=()).trials
    assert (both.name, weights.name, activations.name) == (
        "weights and activations",
        "weights only",
        "activations only",
    )
    assert both.losses["fidelity of y"] > 0.06
    assert not weights.losses
    assert weights.output_error is not None and activations.output_error is not None
    assert 10 * weights.output_error < activations.output_error
    assert both.output_error is None  # a first look suffices to compare the parts with
    of_both = float(activations.note.removeprefix("output error of both on the same samples: "))
    assert of_both > activations.output_error


def test_only_the_sabotaged_layer_is_excluded(sabotaged: Model, tmp_path: Path) -> None:
    report = run(sabotaged, tmp_path / "out", techniques=())
    assert load_recipe(tmp_path / "out" / "recipe.yaml").nodes_to_exclude == ("c3",)
    assert report.trials[-1].name == "mixed precision: 1 of 4 layers excluded"
    assert report.int8_fraction_of_macs == pytest.approx(0.75)
    assert report.verdict.passed


@pytest.mark.parametrize(("alike", "ranked"), [(True, [2]), (False, [2, 1])])
def test_layers_are_ranked_on_more_samples_where_few_disagree(tmp_path: Path, alike: bool, ranked: list[int]) -> None:
    recorded = []

    def progress(items: Iterable[T], description: str, total: int | None) -> Iterable[T]:
        if description == "Ranking layers":
            recorded.append(total)
        return items

    pictures = np.abs(images(144))
    by_batch = pictures.reshape(18, 8, *pictures.shape[1:])
    if alike:
        by_batch[:, 1] *= -0.1
    else:
        by_batch[2::4] *= -1  # every other batch of a first look
    data = ArraySource("images.npz", {"x": pictures}, 8)
    options = {"test_data": data, "max_drop": 0.0, "techniques": (), "progress": progress}
    run(load_model(two_sided_cnn(tmp_path / "m.onnx")), tmp_path / "out", data, **options)
    assert recorded == ranked


def test_the_verdict_is_on_batches_that_nothing_was_selected_on(sabotaged: Model, tmp_path: Path) -> None:
    report = run(sabotaged, tmp_path / "out", techniques=())
    assert report.held_out_samples == 4
    assert not any("the verdict is optimistic" in warning for warning in report.warnings)


def test_a_result_that_meets_the_threshold_only_on_the_selection_data_is_warned_of(
    sabotaged: Model, tmp_path: Path
) -> None:
    feeds = {"x": images(16, seed=5)}
    wanted = ort.InferenceSession(sabotaged.path).run(None, feeds)[0]

    def quality(infer, split: str) -> dict[str, float]:  # type: ignore[no-untyped-def]
        lost = float(np.square(infer(feeds)["y"] - wanted).sum() / np.square(wanted).sum())
        return {"quality": 1 - (1000 * lost if split == "test" else lost)}

    report = run(sabotaged, tmp_path / "out", techniques=(), evaluate=quality)
    assert load_recipe(tmp_path / "out" / "recipe.yaml").nodes_to_exclude == ("c3",)
    assert not report.verdict.passed
    (warning,) = [warning for warning in report.warnings if "on the data that candidates are selected on" in warning]
    assert "meets `max_drop`; on the data of the verdict" in warning
    assert warning.endswith("lower `max_drop`, or let `evaluate` use more samples")  # `test_data` would change nothing


def test_selecting_by_the_metric_of_the_verdict_is_warned_of(sabotaged: Model, tmp_path: Path) -> None:
    feeds = {"x": images(16, seed=5)}
    wanted = ort.InferenceSession(sabotaged.path).run(None, feeds)[0]

    def quality(infer) -> dict[str, float]:  # type: ignore[no-untyped-def]
        return {"quality": 1 - float(np.square(infer(feeds)["y"] - wanted).sum() / np.square(wanted).sum())}

    report = run(sabotaged, tmp_path / "out", techniques=(), evaluate=quality)
    assert load_recipe(tmp_path / "out" / "recipe.yaml").nodes_to_exclude == ("c3",)
    assert report.verdict.passed
    assert any("the verdict is optimistic" in warning for warning in report.warnings)


def test_a_metric_that_int8_makes_infinite_is_tuned_not_refused(sabotaged: Model, tmp_path: Path) -> None:
    feeds = {"x": images(16, seed=5)}
    wanted = ort.InferenceSession(sabotaged.path).run(None, feeds)[0]

    def perplexity(infer) -> dict[str, float]:  # type: ignore[no-untyped-def]
        noise = float(np.square(infer(feeds)["y"] - wanted).sum() / np.square(wanted).sum())
        return {"perplexity_lower": 1 + noise if noise < 0.01 else float("inf")}

    report = run(sabotaged, tmp_path / "out", techniques=(), evaluate=perplexity)
    assert report.trials[0].losses == {"perplexity_lower": float("inf")}
    assert report.verdict.passed
    assert load_recipe(tmp_path / "out" / "recipe.yaml").nodes_to_exclude == ("c3",)


def test_an_unknown_node_to_exclude_is_refused_before_the_work(cnn: Model, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'c9'"):
        run(cnn, tmp_path / "out", nodes_to_exclude=("c9",))
    assert not (tmp_path / "out").exists()


def test_a_bias_correction_behind_a_matmul_stays_in_fp16(tmp_path: Path) -> None:
    weights = [weight("w", 32, 32), weight("v", 32, 32)]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Sigmoid", ["m"], ["s"]),
        helper.make_node("MatMul", ["s", "v"], ["y"]),
    ]
    rows = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 32])
    model = load_model(write(tmp_path / "m.onnx", nodes, weights, [rows], ["y"]))
    data = np.random.default_rng(0).normal(size=(80, 32)).astype(np.float32)
    rows_of_data = ArraySource("x.npz", {"x": data}, 8)
    report = run(model, tmp_path / "out", rows_of_data, techniques=("bias-correction", "auto"))
    assert report.high_precision == "fp16"
    assert not report.fp32_nodes
    assert any("model.int8.onnx has bias correction" in warning for warning in report.warnings)


def test_a_model_that_passes_is_not_tuned(cnn: Model, tmp_path: Path) -> None:
    report = run(cnn, tmp_path / "out")
    recipe = load_recipe(tmp_path / "out" / "recipe.yaml")
    assert (recipe.nodes_to_exclude, recipe.techniques, recipe.method) == ((), (), "minmax")
    assert len(report.trials) == 1


def test_without_search_and_techniques_the_threshold_is_exceeded(sabotaged: Model, tmp_path: Path) -> None:
    assert not run(sabotaged, tmp_path / "out", search=False, techniques=()).verdict.passed


def test_a_requested_technique_is_applied_or_its_omission_reported(cnn: Model, tmp_path: Path) -> None:
    report = run(cnn, tmp_path / "out", techniques=("smoothquant", "bias-correction", "auto"))
    assert [(trial.name, trial.decision) for trial in report.trials] == [
        ("SmoothQuant", "does not apply"),
        ("bias correction", "applied"),
        ("weights and activations", "baseline"),
    ]
    assert [warning for warning in report.warnings if "does not apply" in warning] == [
        "SmoothQuant does not apply to this model, so the recipe is without it: omit it from `techniques`"
    ]
    assert load_recipe(tmp_path / "out" / "recipe.yaml").techniques == ("bias-correction",)
    assert not (tmp_path / "out" / "model.transformed.onnx").exists()


def test_the_method_with_the_smallest_output_error_is_selected(cnn: Model, tmp_path: Path) -> None:
    calibration, _ = split_source(source(), None)
    losses = {}
    for method in AUTO_CANDIDATES:
        family, _, percentile = method.name.partition(" ")
        options = {"method": family, "percentile": float(percentile) if percentile else None}
        run(cnn, tmp_path / method.name, **options, techniques=(), search=False, high_precision="fp32")
        compared = compare_models(cnn.path, tmp_path / method.name / "model.int8.onnx", calibration)
        losses[method.name] = 1 - compared.outputs["y"].cosine
    report = run(cnn, tmp_path / "o", method="auto")
    assert report.method == min(losses, key=lambda name: losses[name]) != AUTO_CANDIDATES[0].name
    assert load_recipe(tmp_path / "o" / "recipe.yaml").method == report.method
    assert all(f"{format_loss(loss)} by {name}" in report.trials[0].note for name, loss in losses.items())


def clipping(reference: Path) -> Evaluate:
    """A metric that clipping alone makes worse."""
    feeds = {"x": images(16, seed=5)}
    wanted = np.abs(ort.InferenceSession(reference).run(None, feeds)[0]).max()

    def largest(infer: Callable[..., Any]) -> dict[str, float]:
        return {"largest": 1 - abs(float(np.abs(infer(feeds)["y"]).max() / wanted) - 1)}

    return largest


def ranked_methods(report: Report) -> list[str]:
    """The methods in the order of the ranking."""
    _, _, ranking = report.trials[0].note.partition(": ")
    return [method.partition(" by ")[2] for method in ranking.split(", ")]


@pytest.mark.parametrize(("effort", "tried"), [("low", 0), ("medium", 1), ("high", 3)])
def test_above_the_threshold_the_metric_is_computed_for_the_next_methods(
    cnn: Model, tmp_path: Path, effort: str, tried: int
) -> None:
    options = {"max_drop": 0.0, "techniques": (), "search": False, "effort": effort}
    report = run(cnn, tmp_path, method="auto", evaluate=clipping(cnn.path), **options)
    judged = [trial for trial in report.trials if trial.losses]
    ranked = ranked_methods(report)
    assert [trial.name.removeprefix("method ") for trial in judged[1:]] == ranked[1 : tried + 1]
    losses = {name: trial.losses["largest"] for name, trial in zip(ranked, judged, strict=False)}
    assert losses[report.method] == min(losses.values())


def test_without_a_metric_no_more_methods_are_tried(cnn: Model, tmp_path: Path) -> None:
    report = run(cnn, tmp_path, method="auto", max_drop=0.0, techniques=(), search=False)
    assert len(report.trials) == 3
    assert report.method == ranked_methods(report)[0]


def test_a_technique_without_a_gain_is_rejected(sabotaged: Model, tmp_path: Path) -> None:
    report = run(sabotaged, tmp_path / "out", search=False)
    assert {trial.decision for trial in report.trials[1:]} <= {
        "analysis",
        "accepted",
        "rejected: no gain",
        "rejected: larger output error",
    }
    accepted = [trial.name for trial in report.trials if trial.decision in ("baseline", "accepted")]
    losses = [trial.losses["fidelity of y"] for trial in report.trials if trial.decision in ("baseline", "accepted")]
    assert losses == sorted(losses, reverse=True), accepted
    assert report.trials[0].decision == "baseline"


def test_where_only_excluding_all_layers_would_help_the_plain_model_stays(cnn: Model, tmp_path: Path) -> None:
    report = run(cnn, tmp_path / "out", max_drop=0.0, techniques=())
    assert report.int8_fraction_of_macs == 1
    assert not report.verdict.passed
    assert any("No mixed-precision configuration within 0% that" in warning for warning in report.warnings)
