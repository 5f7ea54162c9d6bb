"""Output errors of real models, and what they are measured on."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from onnx import helper, numpy_helper

from tests.networks import image_input, images, transformer_block, write
from tests.networks import sequences as sequences_of
from tests.pipeline.quantizing import chain_path
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.measurements.bias_error import measure_bias_error
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.calibrators.methods import AUTO_CANDIDATES
from trt_ptq.choices import Technique
from trt_ptq.data.sources import ArraySource, InMemorySource
from trt_ptq.errors import DataError
from trt_ptq.evaluation.reference import Reference
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.recipe import Recipe
from trt_ptq.tuning.candidates import candidate_builder
from trt_ptq.tuning.candidates.calibrated_models import CalibratedModel, CalibratedModels, CalibrationData
from trt_ptq.tuning.candidates.candidate_builder import CandidateBuilder
from trt_ptq.tuning.estimating.estimates import Estimates
from trt_ptq.tuning.estimating.few_samples import FewSamples, few_samples
from trt_ptq.tuning.estimating.output_deviation import DeviationSums, OutputDeviation
from trt_ptq.tuning.kept_trials import KeptTrials
from trt_ptq.tuning.settings import DEFAULT_SETTINGS
from trt_ptq.types import Batch, BatchSource


class Setting:
    """A model with what estimates errors of its recipes on `few` samples of `source`."""

    def __init__(self, model: Model, source: BatchSource, folder: Path, few: FewSamples | None = None) -> None:
        reference = Reference(model.path)
        self.few = few or few_samples(model, reference, source, DEFAULT_SETTINGS)
        data = CalibrationData(source, self.few)
        plain = CalibratedModel(model, collect_statistics(model, source, select_calibration_tensors(model)))

        def unused(*_arguments: object) -> None:
            raise AssertionError("not needed")

        self.builder = CandidateBuilder(
            CalibratedModels(plain, data, unused, folder),  # type: ignore[arg-type]
            data,
            unused,  # type: ignore[arg-type]
        )
        self.deviation = OutputDeviation(model, reference, self.few, source, 8)
        self.kept = KeptTrials()
        self.estimates = Estimates(self.builder, self.deviation, self.kept)


def recipe(model: Model, *techniques: Technique) -> Recipe:
    return Recipe(model=model.identity, method="minmax", high_precision="fp32", techniques=techniques)


def thresholded(path: Path) -> Model:
    """A convolution whose large values are the output, as of a detector: there may be none."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Flatten", ["c"], ["f"], axis=0),
        helper.make_node("Greater", ["f", "least"], ["g"]),
        helper.make_node("Squeeze", ["g", "zero"], ["m"]),
        helper.make_node("Compress", ["f", "m"], ["y"], axis=1),
    ]
    least, zero = (
        numpy_helper.from_array(np.array(0.5, np.float32), "least"),
        numpy_helper.from_array(np.array([0]), "zero"),
    )
    weights = [numpy_helper.from_array(np.eye(16, dtype=np.float32)[:, :, None, None] * 64, "w"), least, zero]
    return load_model(write(path, nodes, weights, [image_input()], ["y"]))


@pytest.mark.parametrize(("empty", "parts"), [((0,), 2), ((1,), 1)])
def test_a_first_look_at_images_without_detections_goes_on_to_the_others(
    tmp_path: Path, empty: tuple[int, ...], parts: int
) -> None:
    model = thresholded(tmp_path / "m.onnx")
    blank, full = np.zeros_like(images(1)), np.sign(images(1))
    first, rest = (InMemorySource([Batch({"x": blank if part in empty else full}, "x")]) for part in (0, 1))
    setting = Setting(model, rest if 0 in empty else first, tmp_path, FewSamples(first, rest, None))
    sums = DeviationSums()
    errors = setting.deviation.measure(setting.builder.build_for_search(recipe(model)), sums, 1)
    assert (len(errors), sums.parts) == (parts, parts)
    assert len({*errors}) == 1 and 0 <= errors[0] < 0.1
    nothing = FewSamples(InMemorySource([Batch({"x": blank}, "x")]), None, None)
    with pytest.raises(DataError, match="no output has a finite value"):
        Setting(model, rest if 0 in empty else first, tmp_path, nothing).estimates.first_look(recipe(model))


def test_range_methods_are_ranked_on_enough_batches_of_one(tmp_path: Path) -> None:
    model = load_model(chain_path(tmp_path))
    data = images(80)
    data[2:] *= np.random.default_rng(0).pareto(2, (78, 1, 1, 1)).astype(np.float32) + 1
    best = []
    for size in (1, 16):
        setting = Setting(model, ArraySource("x.npz", {"x": data}, size), tmp_path)
        best.append(next(iter(setting.estimates.rank_methods(recipe(model), AUTO_CANDIDATES).errors)))
    assert best[0] == best[1]


def test_bias_corrections_get_a_first_look_on_samples_that_they_do_not_fit(tmp_path: Path) -> None:
    model = load_model(chain_path(tmp_path))
    setting = Setting(model, ArraySource("x.npz", {"x": images(80)}, 8), tmp_path)
    with patch.object(candidate_builder, "measure_bias_error", wraps=measure_bias_error) as measured:
        setting.estimates.first_look(recipe(model, "bias-correction"), roughly=True)
    assert [call.args[2] for call in measured.call_args_list] == [setting.few.second]
    assert setting.few.second not in (None, setting.few.first)


def test_after_gptq_layers_are_ranked_with_its_weights(tmp_path: Path) -> None:
    model = load_model(transformer_block(tmp_path / "m.onnx"))
    setting = Setting(model, ArraySource("x.npz", {"x": sequences_of(24, 10)}, 8), tmp_path)
    errors = []
    for one in (recipe(model), recipe(model, "gptq")):
        setting.estimates.rank_layers(one)
        errors.append(setting.kept.find("layer ranking", one))
    assert errors[0].keys() == errors[1].keys()
    assert errors[0] != errors[1]
