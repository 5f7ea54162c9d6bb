"""Statistics of a language model, by the length of the text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

import trt_ptq
from tests.cli.run import refused
from tests.cli.run import trt_ptq as command
from tests.decoders import sentences
from trt_ptq.api.calibrating_text import collect_text
from trt_ptq.calibration.checkpoint import Checkpoint
from trt_ptq.calibrators.statistics.statistics import merge_statistics
from trt_ptq.language_models.length_drift import range_drift

T = TypeVar("T")
TEXTS = [*sentences(12, words=6), *sentences(12, seed=1, words=30)]


@pytest.fixture(scope="module")
def calibrated(decoder_path: Path, tokenizer_folder: Path) -> trt_ptq.TextStatistics:
    return trt_ptq.calibrate_text(decoder_path, TEXTS, tokenizer=tokenizer_folder)


def test_each_length_has_statistics_and_together_they_are_those_of_all(calibrated: trt_ptq.TextStatistics) -> None:
    assert len(calibrated.by_length) >= 2
    assert {bucket.samples for bucket in calibrated.audit.lengths} <= set(range(1, 25))
    parts = list(calibrated.by_length.values())
    assert calibrated.statistics == merge_statistics(reversed(parts))
    assert calibrated.statistics.data.samples == sum(part.data.samples for part in parts)


def test_drift_is_the_largest_range_over_the_smallest(calibrated: trt_ptq.TextStatistics) -> None:
    drifts = calibrated.drift()
    assert [drift.ratio for drift in drifts] == sorted((drift.ratio for drift in drifts), reverse=True)
    first = drifts[0]
    for label, statistics in calibrated.by_length.items():
        tensor = statistics.tensors[first.tensor]
        assert first.amax[label] == pytest.approx(max(abs(tensor.minimum), abs(tensor.maximum)))
    assert first.ratio == pytest.approx(max(first.amax.values()) / min(first.amax.values()))
    assert first.ratio > 1
    assert range_drift({}) == []


def test_the_command_saves_each_length(decoder_path: Path, tokenizer_folder: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "p.jsonl", tmp_path / "stats.safetensors"
    data.write_text("\n".join(json.dumps({"text": text}) for text in TEXTS))
    arguments: list[Any] = ["calibrate", decoder_path, "--tokenizer", tokenizer_folder, "--data", data, "-o", out]
    done = command(*arguments, "--by-length")
    assert done.returncode == 0, done.stderr
    assert "largest magnitude by number of tokens" in done.stdout
    assert "│ model.layers.0.self_att" in done.stdout
    assert "only 24 calibration texts" in done.stderr
    parts = sorted(set(tmp_path.glob("stats.*-*.safetensors")))
    assert len(parts) >= 2
    again = tmp_path / "again.safetensors"
    assert command("merge", *parts, "-o", again).returncode == 0
    assert again.read_bytes() == out.read_bytes()
    stats = trt_ptq.load_statistics(out)
    assert np.isfinite(list(stats.table("minmax").amax.values())).all()
    document = json.loads(command(*arguments, "--json").stdout)
    assert document["text"]["samples"] == 24
    assert document["by_length"] == {} and document["drift"] == []


def test_options_that_do_not_go_together(decoder_path: Path, tokenizer_folder: Path, tmp_path: Path) -> None:
    plain: list[Any] = ["calibrate", decoder_path, "--data", tmp_path]
    assert refused(*plain, "--by-length") == "--by-length is for text: add --task text-generation"
    assert refused(*plain, "--samples", 9) == "--samples is for text: add --task text-generation"
    text = [*plain, "--tokenizer", tokenizer_folder]
    for option, value in (("--until-stable", "1%"), ("--method", "mse"), ("--percentile", 99), ("--ray", "local")):
        assert refused(*text, option, value) == f"{option} does not work with --task: omit one of the two"
    for option, value in (("--shard", "0/2"), ("--checkpoint", "c")):
        message = f"{option} does not work with --by-length: omit one of the two"
        assert refused(*text, "--by-length", option, value) == message


def test_shards_of_text_merge_to_the_whole(decoder_path: Path, tokenizer_folder: Path, tmp_path: Path) -> None:
    data, whole, merged = tmp_path / "p.jsonl", tmp_path / "whole.safetensors", tmp_path / "merged.safetensors"
    data.write_text("\n".join(json.dumps({"text": text}) for text in TEXTS))
    arguments: list[Any] = ["calibrate", decoder_path, "--tokenizer", tokenizer_folder, "--data", data]
    assert command(*arguments, "-o", whole).returncode == 0
    shards = [tmp_path / f"{index}.safetensors" for index in range(2)]
    for index, shard in enumerate(shards):
        assert command(*arguments, "--shard", f"{index}/2", "-o", shard).returncode == 0
    assert command("merge", *shards, "-o", merged).returncode == 0
    assert merged.read_bytes() == whole.read_bytes()


def test_an_interrupted_calibration_resumes_from_its_checkpoint(
    calibrated: trt_ptq.TextStatistics, decoder_path: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    config = trt_ptq.QuantizeConfig(task="text-generation")
    checkpoint = tmp_path / "checkpoint"

    def interrupt(items: Iterable[T], _description: str, _total: int | None) -> Iterator[T]:
        yield from islice(items, 5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect_text(decoder_path, TEXTS, tokenizer_folder, config, interrupt, checkpoint=Checkpoint(checkpoint))
    resumed = Checkpoint(checkpoint)
    result = collect_text(decoder_path, TEXTS, tokenizer_folder, config, checkpoint=resumed)
    assert resumed.resumed is not None
    assert resumed.resumed.statistics.data.samples < result.statistics.data.samples
    assert result.statistics == calibrated.statistics
    assert result.by_length == {}


def test_statistics_do_not_replace_the_text_or_the_tokenizer(
    decoder_path: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    data = tmp_path / "p.jsonl"
    data.write_text(json.dumps({"text": TEXTS[0]}))
    arguments: list[Any] = ["calibrate", decoder_path, "--tokenizer", tokenizer_folder, "--data", data]
    for file in (data, tokenizer_folder / "tokenizer.json"):
        before = file.read_bytes()
        assert "it is an input of this command" in refused(*arguments, "-o", file)
        assert file.read_bytes() == before
