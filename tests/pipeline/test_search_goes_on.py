"""What a search costs, when it ends, and that the same command goes on from where an earlier run ended."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from tests.networks import images, sabotaged_cnn
from tests.pipeline.quantizing import quantized, source
from trt_ptq.calibrators.methods import AUTO_CANDIDATES
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.pipeline import QuantizeResult
from trt_ptq.qdq.insert import TENSOR_KINDS, QdqModel, TensorKind
from trt_ptq.recipe import Recipe, load_recipe
from trt_ptq.tuning.candidates.candidate_builder import CandidateBuilder

_METRIC = """
from pathlib import Path
import numpy as np
import onnxruntime as ort
here = Path(__file__).parent
pictures, wanted = np.load(here / "pictures.npy"), np.load(here / "wanted.npy")
def quality(run):
    calls = here / "calls"
    calls.write_text(calls.read_text() + "x")
    if len(calls.read_text()) == int((here / "killed_at").read_text()):
        raise KeyboardInterrupt
    return {"quality": 1 - float(np.square(run({"x": pictures})["y"] - wanted).sum() / np.square(wanted).sum())}
"""
_OF_THE_RESULT = 3  # calls for FP32, and for INT8 and FP16 as they are written: not of the search


@pytest.fixture(autouse=True)
def _no_builder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)


class Metric:
    """A metric in a file of its own, which counts its calls and can end the run."""

    def __init__(self, folder: Path, model: Model) -> None:
        self._folder = folder
        np.save(folder / "pictures.npy", images(16, seed=5))
        np.save(folder / "wanted.npy", ort.InferenceSession(model.path).run(None, {"x": images(16, seed=5)})[0])
        self.file = folder / "metric.py"
        self.file.write_text(_METRIC)

    def run(self, model: Model, out: Path, killed_at: int = 0, data: Any = None, **config: Any) -> QuantizeResult:
        (self._folder / "calls").write_text("")
        (self._folder / "killed_at").write_text(str(killed_at))
        options = {"max_drop": "1%", "techniques": (), **config}
        return quantized(model, out, data, evaluate=f"{self.file}:quality", **options)

    @property
    def calls(self) -> int:
        return len((self._folder / "calls").read_text())


@pytest.fixture
def sabotaged(tmp_path: Path) -> Model:
    return load_model(sabotaged_cnn(tmp_path / "m.onnx"))


@pytest.fixture
def metric(tmp_path: Path, sabotaged: Model) -> Metric:
    return Metric(tmp_path, sabotaged)


def test_the_metric_judges_the_plain_model_and_the_finalist(sabotaged: Model, metric: Metric, tmp_path: Path) -> None:
    result = metric.run(sabotaged, tmp_path / "out")
    assert result.passed
    assert load_recipe(tmp_path / "out" / "recipe.yaml").nodes_to_exclude == ("c3",)
    assert metric.calls == _OF_THE_RESULT + 2


def test_no_model_is_built_twice(
    sabotaged: Model, metric: Metric, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: Counter[tuple[Recipe, tuple[str, ...], bool]] = Counter()
    insert = CandidateBuilder._insert_qdq

    def counted(
        builder: CandidateBuilder,
        recipe: Recipe,
        kinds: tuple[TensorKind, ...] = TENSOR_KINDS,
        *,
        roughly: bool = False,
    ) -> QdqModel:
        in_order = recipe.model_copy(update={"nodes_to_exclude": tuple(sorted(recipe.nodes_to_exclude))})
        built[in_order, kinds, roughly] += 1
        return insert(builder, recipe, kinds, roughly=roughly)

    monkeypatch.setattr(CandidateBuilder, "_insert_qdq", counted)
    metric.run(sabotaged, tmp_path / "out", method="auto")
    assert len(built) > len(AUTO_CANDIDATES) + len(TENSOR_KINDS)
    assert set(built.values()) == {1}


def test_the_same_run_measures_nothing_again(sabotaged: Model, metric: Metric, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = metric.run(sabotaged, out).report
    again = metric.run(sabotaged, out).report
    assert metric.calls == _OF_THE_RESULT
    assert again.trials == first.trials


def test_a_run_that_was_killed_goes_on(sabotaged: Model, metric: Metric, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        metric.run(sabotaged, out, killed_at=3)
    report = metric.run(sabotaged, out).report
    assert metric.calls == _OF_THE_RESULT + 1
    assert report.trials == metric.run(sabotaged, tmp_path / "uninterrupted").report.trials


def test_another_metric_or_other_data_measures_all_again(sabotaged: Model, metric: Metric, tmp_path: Path) -> None:
    out = tmp_path / "out"
    metric.run(sabotaged, out)
    metric.run(sabotaged, out, data=source(seed=1))
    assert metric.calls == _OF_THE_RESULT + 2
    metric.file.write_text(_METRIC + "# edited\n")
    metric.run(sabotaged, out, data=source(seed=1))
    assert metric.calls == _OF_THE_RESULT + 2


def test_without_a_metric_the_held_out_batches_count(sabotaged: Model, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = quantized(sabotaged, out, test_data=source(seed=2)).report
    kept = (out / "trials.jsonl").read_text()
    assert quantized(sabotaged, out, test_data=source(seed=2)).report.trials == first.trials
    assert (out / "trials.jsonl").read_text() == kept
    quantized(sabotaged, out, test_data=source(seed=3))
    assert (out / "trials.jsonl").read_text().splitlines()[0] != kept.splitlines()[0]


def test_nothing_is_kept_with_a_metric_that_may_change_unnoticed(sabotaged: Model, tmp_path: Path) -> None:
    out = tmp_path / "out"
    quantized(sabotaged, out)
    assert (out / "trials.jsonl").exists()
    quantized(sabotaged, out, evaluate=lambda run: {"accuracy": float(len(run({"x": images(4)})))})
    assert not (out / "trials.jsonl").exists()


def test_when_time_is_up_the_best_so_far_is_the_result(sabotaged: Model, metric: Metric, tmp_path: Path) -> None:
    result = metric.run(sabotaged, tmp_path / "out", time_limit=1e-3)
    assert [trial.name for trial in result.report.trials] == ["weights and activations"]
    assert not result.passed
    assert any(warning.startswith("`time_limit` was reached") for warning in result.warnings)
    later = metric.run(sabotaged, tmp_path / "out", time_limit="2h")
    assert later.passed
    assert not any("time_limit" in warning for warning in later.warnings)
    assert metric.calls == _OF_THE_RESULT + 1


def test_a_hopeless_candidate_is_given_up_after_some_samples(sabotaged: Model, tmp_path: Path) -> None:
    pictures = images(256, seed=5)
    wanted = ort.InferenceSession(sabotaged.path).run(None, {"x": pictures})[0]
    read = []

    def accuracy(run: Any) -> Any:
        read.append(0)
        for start in range(0, len(pictures), 16):
            part = slice(start, start + 16)
            difference = np.square(run({"x": pictures[part]})["y"] - wanted[part]).reshape(16, -1).sum(1)
            read[-1] += 16
            yield difference < 0.01 * np.square(wanted[part]).reshape(16, -1).sum(1)

    report = quantized(sabotaged, tmp_path / "out", evaluate=accuracy, techniques=("auto",), effort="low").report
    given_up = [trial for trial in report.trials if "given up after 64 samples" in trial.note]
    assert given_up
    assert all(trial.decision == "rejected: no gain" for trial in given_up)
    assert {64, 256} == set(read)
    assert report.verdict.passed
