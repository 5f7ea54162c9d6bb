"""What a checkpoint keeps, and when."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.calibration.test_collector import Given
from tests.networks import images
from trt_ptq.calibration.checkpoint import Checkpoint
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.observed.observed_model import ObservedModel
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.calibrators.statistics.statistics_file import load_statistics, load_unfinished, save_statistics
from trt_ptq.data.checks.audit import Audit
from trt_ptq.data.observation import observe
from trt_ptq.errors import DataError, StatisticsError
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.ort_session import tools
from trt_ptq.types import Array, Batch

BATCHES = [images(4, seed=seed) for seed in range(6)]


class CutOffError(Exception):
    pass


@dataclass(frozen=True)
class CutOff(Given):
    """The run is cut off after so many batches, over all passes."""

    left: Iterator[None]

    def __iter__(self) -> Iterator[Batch]:
        for batch in super().__iter__():
            if next(self.left, True):
                raise CutOffError
            yield batch


def cut_off(model: Model, path: Path, batches: int, passes: tuple[tuple[str, ...], ...] = ()) -> None:
    """Leave a checkpoint of a run that was cut off after `batches`, over all passes."""
    source = CutOff([*BATCHES, *BATCHES] if batches == len(BATCHES) else BATCHES, iter([None] * batches))
    with pytest.raises(CutOffError):
        collect_statistics(
            model, source, select_calibration_tensors(model), passes=passes, checkpoint=Checkpoint(path, every=0)
        )


@pytest.mark.parametrize("batches", range(1, 7))
def test_statistics_are_the_same_wherever_the_run_was_interrupted(cnn: Model, tmp_path: Path, batches: int) -> None:
    calibration_tensors = select_calibration_tensors(cnn)
    cut_off(cnn, tmp_path / "c", batches)
    checkpoint = Checkpoint(tmp_path / "c")
    resumed = collect_statistics(cnn, Given(BATCHES), calibration_tensors, checkpoint=checkpoint)
    assert checkpoint.resumed is not None
    assert checkpoint.resumed.batches == batches
    whole = collect_statistics(cnn, Given(BATCHES), calibration_tensors)
    assert resumed == whole
    assert list(resumed.tensors) == list(whole.tensors)


def test_measured_batches_are_not_run_again(cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_off(cnn, tmp_path / "c", 4)
    ran = []
    run = ObservedModel.run
    monkeypatch.setattr(ObservedModel, "run", lambda self, batch: ran.append(batch.origin) or run(self, batch))  # type: ignore[func-returns-value]
    collect_statistics(cnn, Given(BATCHES), select_calibration_tensors(cnn), checkpoint=Checkpoint(tmp_path / "c"))
    assert ran == ["batch 4", "batch 5"]


def test_the_audit_sees_all_data_again(cnn: Model, tmp_path: Path) -> None:
    cut_off(cnn, tmp_path / "c", 4)
    audit, source = Audit(), Given(BATCHES)
    collect_statistics(
        cnn, observe(source, audit), select_calibration_tensors(cnn), checkpoint=Checkpoint(tmp_path / "c")
    )
    assert audit.findings()[0].startswith("only 24 calibration samples")


@pytest.mark.parametrize(("batches", "current"), [(4, 0), (7, 1), (11, 1)])
def test_a_run_in_passes_resumes_in_its_pass(cnn: Model, tmp_path: Path, batches: int, current: int) -> None:
    calibration_tensors = select_calibration_tensors(cnn)
    groups = (calibration_tensors.tensors[:2], calibration_tensors.tensors[2:])
    cut_off(cnn, tmp_path / "c", batches, groups)
    checkpoint = Checkpoint(tmp_path / "c")
    # Other groups are asked for, as other memory is in use now: the old ones are kept to.
    resumed = collect_statistics(
        cnn,
        Given(BATCHES),
        calibration_tensors,
        passes=[[name] for name in calibration_tensors.tensors],
        checkpoint=checkpoint,
    )
    assert checkpoint.resumed is not None
    assert checkpoint.resumed.pass_index == current
    assert resumed == collect_statistics(cnn, Given(BATCHES), calibration_tensors, passes=groups)


@pytest.mark.parametrize(("batches", "kept"), [(4, 0), (7, 2), (11, 2)])
def test_with_less_memory_the_remaining_tensors_are_regrouped(
    cnn: Model, tmp_path: Path, batches: int, kept: int
) -> None:
    calibration_tensors = select_calibration_tensors(cnn)
    cut_off(cnn, tmp_path / "c", batches, (calibration_tensors.tensors[:2], calibration_tensors.tensors[2:]))
    checkpoint = Checkpoint(tmp_path / "c", memory_limit=10**9)
    resumed = collect_statistics(
        cnn,
        Given(BATCHES),
        calibration_tensors,
        passes=[[name] for name in calibration_tensors.tensors],
        checkpoint=checkpoint,
    )
    assert checkpoint.resumed is not None
    finished = (calibration_tensors.tensors[:2],) if kept else ()
    assert checkpoint.resumed.passes == (*finished, *((name,) for name in calibration_tensors.tensors[kept:]))
    assert resumed == collect_statistics(cnn, Given(BATCHES), calibration_tensors)


def test_with_more_memory_the_groups_stay(cnn: Model, tmp_path: Path) -> None:
    calibration_tensors = select_calibration_tensors(cnn)
    groups = (calibration_tensors.tensors[:2], calibration_tensors.tensors[2:])
    cut_off(cnn, tmp_path / "c", 7, groups)
    checkpoint = Checkpoint(tmp_path / "c", memory_limit=10**12)
    resumed = collect_statistics(cnn, Given(BATCHES), calibration_tensors, checkpoint=checkpoint)
    assert checkpoint.resumed is not None
    assert (checkpoint.resumed.passes, checkpoint.resumed.batches) == (groups, 1)
    assert resumed == collect_statistics(cnn, Given(BATCHES), calibration_tensors)


def test_other_data_in_a_later_pass_are_refused_after_a_resume_too(cnn: Model, tmp_path: Path) -> None:
    calibration_tensors = select_calibration_tensors(cnn)
    cut_off(cnn, tmp_path / "c", 7, (calibration_tensors.tensors[:2], calibration_tensors.tensors[2:]))
    with pytest.raises(DataError, match=r"not the same in pass 2 \(20 samples\) as in pass 1 \(24\)"):
        collect_statistics(cnn, Given(BATCHES[:5]), calibration_tensors, checkpoint=Checkpoint(tmp_path / "c"))


@pytest.mark.parametrize(
    "changed",
    [
        [*BATCHES[:2], images(4, seed=9), *BATCHES[3:]],
        [BATCHES[0][:2], BATCHES[0][2:], *BATCHES[1:]],
        BATCHES[:3],
        [],
    ],
    ids=["a sample changed", "another batch size", "fewer batches", "none"],
)
def test_other_data_are_refused(cnn: Model, tmp_path: Path, changed: list[Array]) -> None:
    cut_off(cnn, tmp_path / "c", 4)
    with pytest.raises(DataError, match="c: the data has changed since this checkpoint: its first 4 batches"):
        collect_statistics(cnn, Given(changed), select_calibration_tensors(cnn), checkpoint=Checkpoint(tmp_path / "c"))


def test_another_onnxruntime_is_refused(cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_off(cnn, tmp_path / "c", 4)
    now = tools()
    monkeypatch.setattr("trt_ptq.calibration.collector.tools", lambda: ("onnxruntime 9.9", now[1]))
    with pytest.raises(StatisticsError, match=f"checkpoint made by {now[0]}, .* this is onnxruntime 9.9"):
        collect_statistics(cnn, Given(BATCHES), select_calibration_tensors(cnn), checkpoint=Checkpoint(tmp_path / "c"))


@pytest.mark.parametrize("batches", [1, 4])
def test_an_interrupt_while_a_batch_is_measured_waits_for_it_and_saves(
    cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:
    run, ran = ObservedModel.run, []

    def interrupted(self: ObservedModel, batch: Batch) -> Iterator[dict[str, Any]]:
        ran.append(batch.origin)
        if len(ran) == batches:
            signal.raise_signal(signal.SIGINT)
        return run(self, batch)

    monkeypatch.setattr(ObservedModel, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        collect_statistics(cnn, Given(BATCHES), select_calibration_tensors(cnn), checkpoint=Checkpoint(tmp_path / "c"))
    monkeypatch.undo()
    checkpoint = Checkpoint(tmp_path / "c")
    resumed = collect_statistics(cnn, Given(BATCHES), select_calibration_tensors(cnn), checkpoint=checkpoint)
    assert checkpoint.resumed is not None
    assert checkpoint.resumed.batches == batches
    assert resumed == collect_statistics(cnn, Given(BATCHES), select_calibration_tensors(cnn))


def test_an_interrupt_before_anything_new_was_measured_leaves_the_checkpoint_as_it_is(
    cnn: Model, tmp_path: Path
) -> None:
    class Interrupted(Given):
        def __iter__(self) -> Iterator[Batch]:
            yield from list(super().__iter__())[:2]
            raise KeyboardInterrupt

    cut_off(cnn, tmp_path / "c", 4)
    before = (tmp_path / "c").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        collect_statistics(
            cnn, Interrupted(BATCHES), select_calibration_tensors(cnn), checkpoint=Checkpoint(tmp_path / "c", every=0)
        )
    assert (tmp_path / "c").read_bytes() == before


def test_nothing_is_written_before_its_time(cnn: Model, tmp_path: Path) -> None:
    collect_statistics(
        cnn, Given(BATCHES), select_calibration_tensors(cnn), checkpoint=Checkpoint(tmp_path / "c", every=60)
    )
    assert not (tmp_path / "c").exists()


def test_a_checkpoint_is_never_read_as_statistics(cnn: Model, tmp_path: Path) -> None:
    cut_off(cnn, tmp_path / "c", 4)
    with pytest.raises(StatisticsError, match="c: a checkpoint of an interrupted calibration"):
        load_statistics(tmp_path / "c")


def test_a_checkpoint_of_another_version_is_refused(cnn: Model, tmp_path: Path) -> None:
    cut_off(cnn, tmp_path / "c", 4)
    statistics, note = load_unfinished(tmp_path / "c")
    save_statistics(statistics, tmp_path / "c", unfinished={**note, "passes": None})
    with pytest.raises(StatisticsError, match="c: not a checkpoint of this version"):
        collect_statistics(cnn, Given(BATCHES), select_calibration_tensors(cnn), checkpoint=Checkpoint(tmp_path / "c"))
