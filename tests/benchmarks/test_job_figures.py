"""What a run of `quantize` costs in batches, inference and models: counts that hold on any machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.job.counting import CountedBatches
from benchmarks.job.job_table import job_table, phase_table
from benchmarks.job.measure_job import Job, Run, Text, measure_job
from tests.decoders import VOCABULARY, sentences
from tests.networks import images, sabotaged_cnn
from trt_ptq.language_models.decoder import decoder_layout
from trt_ptq.onnx_io.load import Model

Figures = dict[str, Any]
BATCHES = [{"x": images(4, seed=seed)} for seed in range(10)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sabotaged_cnn(tmp_path_factory.mktemp("network") / "m.onnx")


@pytest.fixture(scope="module")
def by_fidelity(model: Path) -> Figures:
    return measure_job(Job(model, BATCHES, config={"max_drop": 1e-6}))


@pytest.fixture(scope="module")
def by_metric(model: Path) -> Figures:
    def size(run: Run, split: str) -> dict[str, float]:
        (outputs,) = run({"x": images(8, seed=50 if split == "select" else 51)}).values()
        return {"accuracy": -float(np.abs(outputs).mean())}

    return measure_job(Job(model, BATCHES, size, {"max_drop": 1e-6}))


@pytest.fixture(params=["by_fidelity", "by_metric"])
def figures(request: pytest.FixtureRequest) -> Figures:
    measured: Figures = request.getfixturevalue(request.param)
    return measured


def test_each_batch_is_produced_once(figures: Figures) -> None:
    assert (figures["batches"], figures["batches_produced"], figures["most_often_produced"]) == (10, 10, 1)


def test_fp32_computes_the_outputs_of_a_sample_once_but_for_one_batch(figures: Figures) -> None:
    assert figures["fp32_samples"] <= 40
    assert figures["most_often_computed_fp32"] <= 2
    assert figures["fp32_samples_computed_again"] <= 4  # one batch runs whole and in parts


def test_no_model_is_built_twice(figures: Figures) -> None:
    assert figures["models_built"] == figures["distinct_models"] > 3


def test_no_candidate_runs_twice_on_a_sample(figures: Figures) -> None:
    assert figures["most_often_a_candidate_ran_on_a_sample"] == 1


def test_the_metric_runs_once_for_each_result(by_fidelity: Figures, by_metric: Figures) -> None:
    assert not any(by_fidelity["metric_evaluations"].values())
    assert {kind: by_metric["metric_evaluations"][kind] for kind in ("FP32", "FP16", "INT8")} == {
        "FP32": 2,  # once for each split
        "FP16": 1,
        "INT8": 1,
    }


def test_phases_have_seconds_and_memory(figures: Figures) -> None:
    assert {"calibrating", "tuning", "comparing the models"} < figures["phase_seconds"].keys()
    assert all(peak > 10_000_000 for peak in figures["phase_peak_bytes"].values())
    assert sum(figures["phase_seconds"].values()) >= figures["seconds"]


def test_batches_that_are_produced_again_are_counted() -> None:
    data = CountedBatches(BATCHES[:2])
    list(data())
    next(data())
    assert data.produced == {0: 2, 1: 1}


def test_the_tables_show_what_was_measured(figures: Figures) -> None:
    heading, _, row = job_table({"tiny": figures, "broken": {"failed": "no reason"}})
    assert row.startswith("| tiny | ")
    assert row.count("|") == heading.count("|")
    assert any(line.startswith("| calibrating | ") for line in phase_table(figures))


def test_a_language_model_is_given_text(decoder: Model, tokenizer_folder: Path) -> None:
    ids = np.random.default_rng(0).integers(0, VOCABULARY, (1, 16))
    text = Text(sentences(30), sentences(12, seed=1), tokenizer_folder)
    config = {"samples": 20, "method": "minmax", "techniques": (), "search": False}
    figures = measure_job(Job(decoder.path, [decoder_layout(decoder).feeds(ids)], config=config, text=text))
    assert figures["plain_seconds"] > 0
    assert figures["batches_produced"] == 0
    assert figures["runs"]["INT8"] > 0
