"""Runs the float model over calibration batches and fills Statistics. Keeps no activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from trt_ptq.calibration.calibration_pass import CalibrationPass, Nonfinite
from trt_ptq.calibration.checkpoint import Checkpoint
from trt_ptq.calibration.convergence import Convergence
from trt_ptq.calibration.devices import Device, HostDevice
from trt_ptq.calibration.state import CalibrationState
from trt_ptq.calibration.tensors import CalibrationTensors
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.errors import StatisticsError, UsageError
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.ort_session import tools
from trt_ptq.provenance import DataFingerprint
from trt_ptq.types import BatchSource, ProgressCallback, no_progress


def collect_statistics(
    model: Model,
    source: BatchSource,
    calibration_tensors: CalibrationTensors,
    nonfinite: Nonfinite = "refuse",
    progress: ProgressCallback = no_progress,
    passes: Sequence[Sequence[str]] = (),
    threads: int | None = None,
    device: Device | None = None,
    checkpoint: Checkpoint | None = None,
    convergence: Convergence | None = None,
) -> Statistics:
    """Statistics of the `calibration_tensors` of `model` over all batches of `source`.

    With `passes` (see `plan_passes`), the data is gone through once for each group of tensors. Inference and counting
    take turns on `threads` threads, by default one for each core: side by side, they were slower on two cores.
    `device` is the CPU unless given. What an earlier run left in `checkpoint` is not measured again; `convergence`
    looks on, and may end it early. Ctrl-C waits for the batch that is being measured, and for the checkpoint.

    Raises:
        DataError: a batch on which the model fails, or (unless `nonfinite` is "skip") a NaN or infinity in a
            tensor; names tensor and batch. Or a source that gives other data in a later pass, or than an earlier run.
        StatisticsError: the checkpoint is of something else.
        UsageError: it is to end early, with several passes.
    """
    device = device or HostDevice()
    start = CalibrationState(
        statistics=Statistics(
            model=model.identity,
            data=DataFingerprint(),
            tools=tools(),
            tensors={},
            shares_range=calibration_tensors.shares_range,
        ),
        passes=tuple(map(tuple, passes)) or (calibration_tensors.tensors,),
        settings={
            "--nonfinite": nonfinite,
            "--device": device.name,
            "--until-stable": convergence.settings if convergence else "none",
        },
    )
    done = checkpoint.resume(start) if checkpoint else start
    if convergence:
        convergence.restore(done.ranges)
    if convergence and convergence.tolerance is not None and len(done.passes) > 1:
        raise UsageError(
            f"--until-stable needs all tensors in one pass over the data, not in {len(done.passes)}: "
            "raise --memory-limit, or give smaller batches"
        )
    while done.current < len(done.passes):
        which = f", pass {done.current + 1} of {len(done.passes)}" if len(done.passes) > 1 else ""
        calibration_pass = CalibrationPass(model, done, nonfinite, device, threads)
        try:
            for _ in calibration_pass.steps(progress(source, f"Calibrating{which}", source.total)):
                if convergence and convergence.update(calibration_pass.data.samples, calibration_pass.tensors):
                    break
                if checkpoint and checkpoint.due:
                    checkpoint.save(_so_far(calibration_pass, convergence))
        except KeyboardInterrupt:
            if checkpoint and calibration_pass.has_new_batches:
                checkpoint.save(_so_far(calibration_pass, convergence))
            raise
        if convergence:
            convergence.record(calibration_pass.data.samples, calibration_pass.tensors())
        done = calibration_pass.state().next_pass()
        del calibration_pass  # with its session, before the next pass makes another
    tensors = {name: done.statistics.tensors[name] for name in calibration_tensors.tensors}
    return replace(done.statistics, data=done.full_data, tensors=tensors)


def _so_far(calibration_pass: CalibrationPass, convergence: Convergence | None) -> CalibrationState:
    return replace(calibration_pass.state(), ranges=convergence.ranges if convergence else {})


def check_statistics(statistics: Statistics, model: Model, where: str) -> None:
    """Make sure that `statistics` are of `model`.

    Raises:
        StatisticsError: with what differs.
    """
    difference = statistics.model.difference(model.identity)
    if difference:
        raise StatisticsError(f"{where}: of another model than {model.path}: {difference}; calibrate again")
