"""The task of one worker of a cluster: collect the statistics of a shard, in the caller's folder and versions."""

from __future__ import annotations

import os
import platform
import socket
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from trt_ptq._internal.packages.optional_packages import require
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.tensors import CalibrationTensors
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.choices import Nonfinite
from trt_ptq.data.checks.audit import Audit
from trt_ptq.data.checks.validation import ValidatedSource
from trt_ptq.data.observation import observe
from trt_ptq.data.shard import EmptyShardError, ShardedSource
from trt_ptq.errors import ClusterError, ModelError
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.onnx_io.ort_session import tools
from trt_ptq.provenance import ModelIdentity
from trt_ptq.types import BatchSource


@dataclass(frozen=True)
class ShardTask:
    """The input of every worker.

    Attributes:
        model: Path of the float model.
        identity: Its identity, to check the file on the node.
        calibration_tensors: The tensors to measure.
        nonfinite: "refuse" NaN and infinite values, or "skip" and count them.
        source: Ray's reference to the data source, which is sent to each node once.
        folder: The caller's current folder.
        tools: The caller's versions, which the node must have too.
    """

    model: Path
    identity: ModelIdentity
    calibration_tensors: CalibrationTensors
    nonfinite: Nonfinite
    source: Any
    folder: Path
    tools: tuple[str, ...]


@dataclass(frozen=True)
class ShardResult:
    """The result for one shard.

    Attributes:
        index: Index of the shard.
        statistics: Its statistics; None if it has no batches.
        audit: The audit of its data.
        processor: The processor of the worker.
    """

    index: int
    statistics: Statistics | None
    audit: Audit
    processor: str


def measure_shard(task: ShardTask, index: int, count: int) -> ShardResult:
    """Measure shard `index` of `count`, with one thread per CPU that Ray assigned to this worker.

    Raises:
        ClusterError, ModelError: This node is set up differently from the caller's machine; names the node.
        DataError: See `collect_statistics`.
    """
    node = f"node {socket.gethostname()}"
    if tools() != task.tools:
        raise ClusterError(
            f"{node} has {', '.join(tools())}, not {', '.join(task.tools)}: install the same on all nodes"
        )
    try:
        os.chdir(task.folder)  # resolves the user's relative paths as on the caller's machine
    except OSError as error:
        raise ClusterError(
            f"{node} has no folder {task.folder} ({error.strerror}): start from a folder that all nodes share"
        ) from error
    ray = require("ray", extra="ray")
    source = _receive(ray, task.source, node)
    model = _load(task.model, task.identity, node)
    checked = ValidatedSource(
        ShardedSource(source, index, count), model.inputs, allow_nonfinite=task.nonfinite == "skip"
    )
    audit = Audit()
    threads = max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)))
    statistics: Statistics | None
    try:
        statistics = collect_statistics(
            model, observe(checked, audit), task.calibration_tensors, task.nonfinite, threads=threads
        )
    except EmptyShardError:
        statistics = None
    return ShardResult(index, statistics, audit, _processor())


def _receive(ray: Any, reference: Any, node: str) -> BatchSource:
    try:
        source: BatchSource = ray.get(reference)
    except ray.exceptions.RaySystemError as error:  # a user's file that is missing on this node, or fails on import
        raise ClusterError(f"{node}: {error.client_exc}: the data must be at the same path on all nodes") from error
    return source


@lru_cache(maxsize=1)  # one worker process measures several shards
def _load(path: Path, identity: ModelIdentity, node: str) -> Model:
    try:
        model = load_model(path)
    except ModelError as error:
        raise ModelError(f"{node}: {error}; the model must be at the same path on all nodes") from error
    difference = identity.difference(model.identity)
    if difference:
        raise ModelError(f"{node}: {path} is another model on that node: {difference}")
    return model


def _processor() -> str:
    """The processor model, by which ONNX Runtime selects its kernels."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
