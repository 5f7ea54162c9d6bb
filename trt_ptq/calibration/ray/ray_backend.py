"""Collects the statistics of shards of the data on the workers of a Ray cluster, and merges them."""

from __future__ import annotations

import os
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trt_ptq._internal.packages.optional_packages import require
from trt_ptq.calibration.ray.shard_task import ShardResult, ShardTask, measure_shard
from trt_ptq.calibration.tensors import CalibrationTensors
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.choices import Nonfinite
from trt_ptq.data.checks.audit import Audit
from trt_ptq.errors import ClusterError, DataError, UsageError
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.ort_session import tools
from trt_ptq.types import BatchSource, is_indexed, no_progress

SHARDS_PER_WORKER = 4  # a lost worker loses a quarter of its work; the model is loaded four times
ATTEMPTS = 4

ShardProgress = Callable[[Iterable[ShardResult], str, "int | None"], Iterable[ShardResult]]


@dataclass(frozen=True)
class ClusterResult:
    """The result of a calibration on a cluster.

    Attributes:
        statistics: The same statistics that one process collects.
        audit: The audit of the data.
        incidents: Lost workers and the like, as sentences.
    """

    statistics: Statistics
    audit: Audit
    incidents: list[str]


def collect_on_ray(
    model: Model,
    source: BatchSource,
    calibration_tensors: CalibrationTensors,
    nonfinite: Nonfinite = "refuse",
    address: str = "local",
    progress: ShardProgress = no_progress,
) -> ClusterResult:
    """Collect statistics on a Ray cluster; see `collect_statistics`.

    Each worker has one CPU. Model, data and current folder must have the same path on every node. Workers validate and
    audit the batches that they read; if the source is a function, each worker iterates over all of its batches.

    Args:
        model: The float model.
        source: The calibration data.
        calibration_tensors: The tensors to measure.
        nonfinite: "refuse" NaN and infinite values, or "skip" and count them.
        address: "local" starts a cluster on this machine, "auto" uses the one that this process is connected to or
            this machine belongs to, otherwise HOST:PORT.
        progress: Wraps the results of the shards.

    Raises:
        UsageError: Not an address.
        ClusterError: No cluster, a node that is set up differently, or a shard whose workers die.
        TrtPtqError: Any error of a worker; the other workers are stopped.
        MissingPackageError: Ray is not installed.
    """
    ray = require("ray", extra="ray")
    with _connected(ray, address):
        workers = int(ray.cluster_resources().get("CPU", 0))
        if not workers:
            raise ClusterError(f"the Ray cluster at {address!r} has no CPU to run on: add nodes")
        count = _shard_count(source, workers)
        task = ShardTask(
            model.path, model.identity, calibration_tensors, nonfinite, _send(ray, source), Path.cwd(), tools()
        )
        run = ray.remote(num_cpus=1, max_retries=0)(measure_shard)  # retries by Ray would not be reported
        incidents: list[str] = []
        merged: Statistics | None = None
        audits: dict[int, Audit] = {}
        processors: set[str] = set()
        results = _shard_results(ray, lambda index: run.remote(task, index, count), count, incidents)
        for shard in progress(results, "Calibrating", count):
            audits[shard.index] = shard.audit
            processors.add(shard.processor)
            if shard.statistics is not None:
                merged = shard.statistics if merged is None else merged.merge_disjoint(shard.statistics)
    if merged is None:
        raise DataError("the data has no batches")
    if len(processors) > 1:
        incidents.append(
            f"the workers have different processors ({', '.join(sorted(processors))}): ONNX Runtime may round "
            "differently on each, so another run may differ in a few counts"
        )
    audit = Audit()
    for index in sorted(audits):
        audit.merge(audits[index])
    return ClusterResult(merged, audit, incidents)


def _shard_count(source: BatchSource, workers: int) -> int:
    if is_indexed(source):
        return max(1, min(SHARDS_PER_WORKER * workers, source.total))
    return workers  # each shard iterates over all batches, so more shards than workers would cost more


def _send(ray: Any, source: BatchSource) -> Any:
    try:
        return ray.put(source)
    except Exception as error:  # pickling a user's source may raise anything
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"this data source cannot be sent to other machines: {reason}") from error


def _shard_results(ray: Any, submit: Callable[[int], Any], count: int, incidents: list[str]) -> Iterator[ShardResult]:
    """Yield the shards as they finish. If a worker is lost, submit its shard again and record it in `incidents`."""
    pending = {submit(index): index for index in range(count)}
    lost: Counter[int] = Counter()
    try:
        while pending:
            (ready,), _ = ray.wait(list(pending), num_returns=1)
            index = pending.pop(ready)
            try:
                yield ray.get(ready)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error
            except ray.exceptions.RayError as error:  # the process or node is gone
                lost[index] += 1
                reason = type(error).__name__
                if lost[index] == ATTEMPTS:
                    raise ClusterError(
                        f"shard {index}/{count} lost its worker {ATTEMPTS} times, the last time to {reason}: see "
                        "Ray's logs; if memory ran out, lower `batch_size`, or give Ray fewer CPUs per node"
                    ) from error
                incidents.append(f"shard {index}/{count} lost its worker ({reason}) and was measured again")
                pending[submit(index)] = index
    finally:
        for ready in pending:
            ray.cancel(ready)


@contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    """Connect to the cluster for the block. An existing connection of the caller is used and left open."""
    if address == "auto" and ray.is_initialized():
        yield
        return
    _check_address(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no telemetry
    local = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error", **local)
    except Exception as error:  # ConnectionError, RuntimeError or ValueError, depending on the address
        reason = str(error).strip().splitlines()[0]
        raise ClusterError(f"no Ray cluster at {address!r}: {reason} (--ray local starts one here)") from error
    try:
        with redirect_stdout(sys.stderr):  # Ray prints worker failures; standard output is for the result
            yield
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Check that a server listens at `address`; Ray itself would retry for a quarter of an hour."""
    if address in ("local", "auto"):
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise UsageError(f"{address!r} is not the address of a Ray cluster: use local, auto or HOST:PORT")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(f"no Ray cluster at {address!r}: {error} (--ray local starts one here)") from error
