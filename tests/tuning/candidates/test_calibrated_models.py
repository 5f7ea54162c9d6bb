"""What is calibrated again after a technique: the tensors that it changed, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

from tests.networks import CHANNELS, image_input, weight, write
from tests.pipeline.quantizing import chain_path, quantized, source
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.devices import HostDevice
from trt_ptq.calibration.measurements.magnitudes import combine_amax, measure_amax
from trt_ptq.calibration.tensors import CalibrationTensors, select_calibration_tensors
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.calibrators.statistics.statistics_file import load_statistics
from trt_ptq.calibrators.table.table_file import load_table
from trt_ptq.choices import Technique
from trt_ptq.data.subset import SampleRange, split_source
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.pipeline import calibration_step
from trt_ptq.recipe import Recipe
from trt_ptq.tuning.candidates.calibrated_models import CalibratedModel, CalibratedModels, CalibrationData
from trt_ptq.tuning.estimating.few_samples import FewSamples
from trt_ptq.types import BatchSource, no_progress

ALL, FEW = source(), SampleRange(source(8), 0, 2)
EQUALIZED: tuple[Technique, ...] = ("equalization",)


def recipe(model: Model, *techniques: Technique) -> Recipe:
    return Recipe(model=model.identity, method="minmax", techniques=techniques)


def test_a_trial_measures_few_samples_and_acceptance_all(tmp_path: Path) -> None:
    model = load_model(chain_path(tmp_path))
    asked: list[tuple[set[str], BatchSource]] = []

    def calibrate(model: Model, before: Statistics, changed: Collection[str], source: BatchSource) -> Statistics:
        asked.append((set(changed), source))
        return collect_statistics(model, source, select_calibration_tensors(model))

    plain = CalibratedModel(model, collect_statistics(model, ALL, select_calibration_tensors(model)))
    models = CalibratedModels(plain, CalibrationData(ALL, FewSamples(FEW, ALL, None)), calibrate, tmp_path)
    assert models.transformed(recipe(model, *EQUALIZED))
    assert not asked  # the technique alone needs no statistics
    rough, final = (models.table(recipe(model, *EQUALIZED), roughly=roughly) for roughly in (True, False))
    assert asked == [({"c", "r"}, FEW), ({"c", "r"}, ALL)]
    assert 0.5 < rough.amax["r"] / final.amax["r"] < 1
    models.table(recipe(model, *EQUALIZED, "bias-correction"), roughly=True)
    assert len(asked) == 2  # the last technique leaves the float model as it is


def test_only_changed_tensors_are_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    measured: list[set[str]] = []

    def collect(model: Model, source: BatchSource, tensors: CalibrationTensors, *args: Any, **more: Any) -> Statistics:
        measured.append(set(tensors.tensors))
        return collect_statistics(model, source, tensors, *args, **more)

    monkeypatch.setattr(calibration_step, "collect_statistics", collect)
    quantized(chain_path(tmp_path), tmp_path / "out", techniques=("equalization",))
    assert measured == [{"x", "r"}, {"r"}]
    model, (calibration, _) = load_model(tmp_path / "out" / "model.transformed.onnx"), split_source(source(), None)
    anew = collect_statistics(model, calibration, select_calibration_tensors(model)).table("minmax")
    table = load_table(tmp_path / "out" / "calibration.json")
    assert table.amax == pytest.approx(dict(anew.amax), rel=1e-5)
    assert table.provenance == anew.provenance


def convolutions_and_a_projection(path: Path) -> Path:
    """Two convolutions, which equalization changes, and a MatMul behind a LayerNormalization, for SmoothQuant."""
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "w2"], ["d"]),
        helper.make_node("Transpose", ["d"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("LayerNormalization", ["t", "gain"], ["normed"], axis=-1),
        helper.make_node("MatMul", ["normed", "v"], ["y"]),
    ]
    weights = [weight(name, CHANNELS, CHANNELS, 1, 1) for name in ("w1", "w2")]
    gain = numpy_helper.from_array(np.geomspace(0.1, 10, CHANNELS, dtype=np.float32), "gain")
    return write(path, nodes, [*weights, gain, weight("v", CHANNELS, CHANNELS)], [image_input()], ["y"])


@pytest.mark.parametrize("tensors", ["fused", "all"])
@pytest.mark.parametrize(
    ("techniques", "changed"),
    [(("smoothquant",), [{"normed"}]), (("equalization", "smoothquant"), [{"c", "r", "normed"}])],
    ids=["one", "one on another"],
)
def test_statistics_after_techniques_are_those_of_the_changed_model(
    tmp_path: Path, techniques: tuple[Technique, ...], changed: list[set[str]], tensors: str
) -> None:
    model = load_model(convolutions_and_a_projection(tmp_path / "m.onnx"))
    job: Any = SimpleNamespace(
        tensors=(tensors,),
        recipe=SimpleNamespace(attention=False),
        memory_limit=None,
        nonfinite="refuse",
        progress=no_progress,
        device=HostDevice(),
    )
    asked: list[set[str]] = []

    def calibrate(model: Model, before: Statistics, changed: Collection[str], source: BatchSource) -> Statistics:
        asked.append(set(changed))
        return calibration_step.recalibrate(job, model, before, changed, source)

    def anew(model: Model) -> Statistics:
        return collect_statistics(model, ALL, select_calibration_tensors(model, (tensors,)))

    plain = CalibratedModel(model, anew(model))
    models = CalibratedModels(plain, CalibrationData(ALL, FewSamples(FEW, ALL, None)), calibrate, tmp_path)
    calibrated = models.calibrated(recipe(model, *techniques))
    expected = anew(calibrated.model)
    assert asked == changed
    assert list(calibrated.statistics.tensors) == list(expected.tensors)
    assert calibrated.statistics.shares_range == expected.shares_range
    amax, of_plain = (dict(one.table("minmax").amax) for one in (calibrated.statistics, plain.statistics))
    assert amax == pytest.approx(dict(expected.table("minmax").amax), rel=1e-4)
    assert amax != pytest.approx(of_plain, rel=1e-4)


def test_only_changed_tensors_have_their_magnitudes_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    measured: list[set[str]] = []

    def measure(*args: Any, **more: Any) -> dict[str, float]:
        measured.append(more["only"])
        return measure_amax(*args, **more)

    monkeypatch.setattr(calibration_step, "measure_amax", measure)
    quantized(chain_path(tmp_path), tmp_path / "out", techniques=EQUALIZED)
    model, (calibration, _) = load_model(tmp_path / "out" / "model.transformed.onnx"), split_source(source(), None)
    assert {"c", "r"} in measured
    recipe = load_table(tmp_path / "out" / "calibration.json").recipe
    assert recipe is not None
    anew = combine_amax(measure_amax(model, calibration), load_statistics(tmp_path / "out" / "stats.safetensors"))
    assert recipe.magnitudes == pytest.approx(anew, rel=1e-5)
