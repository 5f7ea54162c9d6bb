"""Measurements that outlive a run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from trt_ptq.errors import OutputError
from trt_ptq.provenance import ModelIdentity
from trt_ptq.recipe import Recipe
from trt_ptq.tuning.judge import TimeLimit
from trt_ptq.tuning.kept_trials import KeptTrials

RECIPE = Recipe(model=ModelIdentity("", ""), method="minmax", nodes_to_exclude=("a", "b"))


def test_measurements_are_found_by_the_next_run(tmp_path: Path) -> None:
    file = tmp_path / "trials.jsonl"
    KeptTrials(file, "one").keep({"losses": {"cer": math.inf}, "metrics": {"cer": 0.25}}, "score", RECIPE)
    kept = KeptTrials(file, "one")
    reordered = RECIPE.model_copy(update={"nodes_to_exclude": ("b", "a"), "high_precision": "fp32"})
    assert kept.find("score", reordered) == {"losses": {"cer": "inf"}, "metrics": {"cer": 0.25}}
    assert kept.find("output error", RECIPE) is None
    assert kept.find("score", RECIPE, "weights") is None
    assert kept.find("score", RECIPE.model_copy(update={"nodes_to_exclude": ("a",)})) is None


def test_measurements_of_another_search_are_dropped(tmp_path: Path) -> None:
    file = tmp_path / "trials.jsonl"
    KeptTrials(file, "one").keep(0.5, "output error", RECIPE)
    assert KeptTrials(file, "another").find("output error", RECIPE) is None
    assert file.read_text() == '{"search": "another"}\n'


@pytest.mark.parametrize("damage", ['{"key": "half', "[]\n", "\n", '{"key": 1}\n'])
def test_a_line_that_a_killed_run_did_not_finish_is_dropped(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "trials.jsonl"
    kept = KeptTrials(file, "one")
    kept.keep(0.5, "output error", RECIPE)
    whole = file.read_text()
    file.write_text(whole + damage)
    again = KeptTrials(file, "one")
    assert again.find("output error", RECIPE) == 0.5
    assert file.read_text() == whole
    again.keep(0.25, "output error", RECIPE, "weights")
    assert [json.loads(line) for line in file.read_text().splitlines()][-1]["value"] == 0.25


def test_a_file_of_something_else_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "trials.jsonl"
    file.write_bytes(b"\xff\x00")
    KeptTrials(file, "one")
    assert file.read_text() == '{"search": "one"}\n'


def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    kept = KeptTrials(tmp_path / "trials.jsonl", "one")
    (tmp_path / "trials.jsonl").unlink()
    (tmp_path / "trials.jsonl").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*trials.jsonl"):
        kept.keep(0.5, "output error", RECIPE)


def test_a_time_limit_counts_from_its_creation() -> None:
    now = [100.0]
    limit = TimeLimit(10, lambda: now[0])
    now[0] = 107.0
    assert (limit.seconds_left, limit.is_up) == (3, False)
    now[0] = 110.0
    assert limit.is_up
    assert not TimeLimit().is_up
