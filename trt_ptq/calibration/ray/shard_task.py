"""What one worker of a cluster does: measure a shard, in the folder and with the versions of the one who asks."""

from __future__ import annotations

import os
import platform
import socket
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from trt_ptq._internal.optional_packages import require
from trt_ptq.calibration.calibration_pass import Nonfinite
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.tensors import CalibrationTensors
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.data.audit import Audit
from trt_ptq.data.observation import observe
from trt_ptq.data.shard import EmptyShardError, ShardedSource
from trt_ptq.data.validation import ValidatedSource
from trt_ptq.errors import ClusterError, ModelError
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.onnx_io.ort_session import tools
from trt_ptq.provenance import ModelIdentity
from trt_ptq.types import BatchSource


@dataclass(frozen=True)
class ShardTask:
    """What every worker is told. `source` is Ray's reference to the data source, which is sent to a node once."""

    model: Path
    identity: ModelIdentity
    calibration_tensors: CalibrationTensors
    nonfinite: Nonfinite
    source: Any
    folder: Path
    tools: tuple[str, ...]


@dataclass(frozen=True)
class ShardResult:
    """One shard: its statistics (None if it had no batch), what was seen of its data, and what computed it."""

    index: int
    statistics: Statistics | None
    audit: Audit
    processor: str


def measure_shard(job: ShardTask, index: int, count: int) -> ShardResult:
    """Measure shard `index` of `count` with as many threads as Ray gave this worker CPUs.

    Raises:
        ClusterError, ModelError: this node is not set up as the one who asks; names the node.
        DataError: as `collect_statistics`.
    """
    node = f"node {socket.gethostname()}"
    if tools() != job.tools:
        raise ClusterError(
            f"{node} has {', '.join(tools())}, not {', '.join(job.tools)}: install the same on all nodes"
        )
    try:
        os.chdir(job.folder)  # so that the paths which the user wrote mean the same here
    except OSError as error:
        raise ClusterError(
            f"{node} has no folder {job.folder} ({error.strerror}): start from one that all nodes share"
        ) from error
    ray = require("ray", extra="ray")
    source = _receive(ray, job.source, node)
    model = _load(job.model, job.identity, node)
    checked = ValidatedSource(
        ShardedSource(source, index, count), model.inputs, allow_nonfinite=job.nonfinite == "skip"
    )
    audit = Audit()
    threads = max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)))
    statistics: Statistics | None
    try:
        statistics = collect_statistics(
            model, observe(checked, audit), job.calibration_tensors, job.nonfinite, threads=threads
        )
    except EmptyShardError:
        statistics = None
    return ShardResult(index, statistics, audit, _processor())


def _receive(ray: Any, reference: Any, node: str) -> BatchSource:
    try:
        source: BatchSource = ray.get(reference)
    except ray.exceptions.RaySystemError as error:  # a user's file that is missing here, or fails on import
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
        raise ModelError(f"{node}: {path} is another model there: {difference}")
    return model


def _processor() -> str:
    """The kind of processor, by which ONNX Runtime chooses its kernels."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
