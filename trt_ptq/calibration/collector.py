"""Runs the float model over the calibration data and collects statistics of its activations, which are not stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from trt_ptq.calibration.calibration_pass import CalibrationPass
from trt_ptq.calibration.checkpoint import Checkpoint
from trt_ptq.calibration.convergence import Convergence
from trt_ptq.calibration.devices import Device, HostDevice
from trt_ptq.calibration.measurements.grouped import GroupedStatistics
from trt_ptq.calibration.observed.shared_arena import shrink_shared_arena
from trt_ptq.calibration.state import CalibrationState
from trt_ptq.calibration.tensors import CalibrationTensors
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.choices import Nonfinite
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
    groups: GroupedStatistics | None = None,
) -> Statistics:
    """Collect the statistics of tensors of a model over all batches of a data source.

    Inference and counting alternate instead of running side by side, which was slower on two cores. Ctrl-C takes
    effect after the current batch, and saves the checkpoint.

    Args:
        model: The float model.
        source: The calibration data.
        calibration_tensors: The tensors to measure; see `select_calibration_tensors`.
        nonfinite: "refuse" NaN and infinite values, or "skip" and count them.
        progress: Wraps the batches of each pass.
        passes: Groups of tensors, each measured in a pass of its own over the data, to limit memory; see
            `plan_passes`. Default: a single pass.
        threads: Number of threads. Default: one per core.
        device: Where the model runs and values are counted. Default: the CPU.
        checkpoint: File to save progress to, and to resume from.
        convergence: Records how the ranges converge. With a tolerance, it ends the calibration once they are stable.
        groups: Records the statistics of each group of batches; without a checkpoint, which has only those of all.

    Returns:
        The statistics of all batches.

    Raises:
        DataError: The model fails on a batch, a tensor has NaN or infinite values that are refused, or the data
            differs between passes or from that of the interrupted run.
        StatisticsError: The checkpoint belongs to another calibration.
        UsageError: `convergence` has a tolerance, and there are several passes.
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
            "nonfinite": nonfinite,
            "device": device.name,
            "until_stable": convergence.settings if convergence else "none",
        },
    )
    state = checkpoint.resume(start) if checkpoint else start
    if convergence:
        convergence.restore(state.ranges)
    pass_count = len(state.passes)
    if convergence and convergence.tolerance is not None and pass_count > 1:
        raise UsageError(
            f"`until_stable` needs all tensors in one pass over the data, not in {pass_count}: "
            "raise `memory_limit`, or use smaller batches"
        )
    try:
        while state.pass_index < pass_count:
            pass_name = f", pass {state.pass_index + 1} of {pass_count}" if pass_count > 1 else ""
            calibration_pass = CalibrationPass(model, state, nonfinite, device, threads)
            try:
                for _ in calibration_pass.steps(progress(source, f"Calibrating{pass_name}", source.total)):
                    if convergence and convergence.update(calibration_pass.data.samples, calibration_pass.tensors):
                        break
                    if checkpoint and checkpoint.due:
                        checkpoint.save(_current_state(calibration_pass, convergence))
            except KeyboardInterrupt:
                if checkpoint and calibration_pass.has_new_batches:
                    checkpoint.save(_current_state(calibration_pass, convergence))
                raise
            if convergence:
                convergence.record(calibration_pass.data.samples, calibration_pass.tensors())
            if groups:
                groups.record(calibration_pass.tensors_by_group(), calibration_pass.data_by_group)
            state = calibration_pass.state().next_pass()
            del calibration_pass  # frees its session before the next pass creates one
    finally:
        device.release()  # the buffers of a large model take gigabytes
        shrink_shared_arena()
    tensors = {name: state.statistics.tensors[name] for name in calibration_tensors.tensors}
    return replace(state.statistics, data=state.full_data, tensors=tensors)


def _current_state(calibration_pass: CalibrationPass, convergence: Convergence | None) -> CalibrationState:
    return replace(calibration_pass.state(), ranges=convergence.ranges if convergence else {})


def check_statistics(statistics: Statistics, model: Model, where: str) -> None:
    """Check that `statistics` belong to `model`; `where` names them in the message.

    Raises:
        StatisticsError: They belong to another model; says what differs.
    """
    difference = statistics.model.difference(model.identity)
    if difference:
        raise StatisticsError(f"{where}: of another model than {model.path}: {difference}; calibrate again")
