"""Measures shards of the data on the workers of a Ray cluster, and merges their statistics."""

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

from trt_ptq._internal.optional_packages import require
from trt_ptq.calibration.calibration_pass import Nonfinite
from trt_ptq.calibration.ray.shard_task import ShardResult, ShardTask, measure_shard
from trt_ptq.calibration.tensors import CalibrationTensors
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.data.audit import Audit
from trt_ptq.errors import ClusterError, DataError, UsageError
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.ort_session import tools
from trt_ptq.types import BatchSource, is_indexed, no_progress

SHARDS_PER_WORKER = 4  # a lost worker costs a quarter of its work, loading the model four times
ATTEMPTS = 4

ShardProgress = Callable[[Iterable[ShardResult], str, "int | None"], Iterable[ShardResult]]


@dataclass(frozen=True)
class ClusterResult:
    """What one process would have measured; what was seen of the data; and what happened on the way, in sentences."""

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
    """As `collect_statistics`, on the cluster at `address`: "local" starts one here, "auto" is the one that this
    process is connected with or this machine belongs to.

    Each worker has one CPU. Model, data and current folder must be at the same path on every node. `source` is
    checked and audited where it is read. A function that yields batches is run through by each worker.

    Raises:
        UsageError: no address.
        ClusterError: no cluster, a node that is not set up as this machine, or a shard whose workers die.
        TrtPtqError: what a worker raised; the other workers are stopped.
        MissingPackageError: Ray is not installed.
    """
    ray = require("ray", extra="ray")
    with _connected(ray, address):
        workers = int(ray.cluster_resources().get("CPU", 0))
        if not workers:
            raise ClusterError(f"the Ray cluster at {address!r} has no CPU to run on: add nodes")
        count = _shard_count(source, workers)
        job = ShardTask(
            model.path, model.identity, calibration_tensors, nonfinite, _send(ray, source), Path.cwd(), tools()
        )
        run = ray.remote(num_cpus=1, max_retries=0)(measure_shard)  # Ray's own retries cannot be told
        incidents: list[str] = []
        merged: Statistics | None = None
        audits: dict[int, Audit] = {}
        processors: set[str] = set()
        done = _measured(ray, lambda index: run.remote(job, index, count), count, incidents)
        for shard in progress(done, "Calibrating", count):
            audits[shard.index] = shard.audit
            processors.add(shard.processor)
            if shard.statistics is not None:
                merged = shard.statistics if merged is None else merged.merge_disjoint(shard.statistics)
    if merged is None:
        raise DataError("the data has no batches")
    if len(processors) > 1:
        incidents.append(
            f"the workers have different processors ({', '.join(sorted(processors))}): ONNX Runtime may round "
            "otherwise on another one, so that another run may differ in a few counts"
        )
    audit = Audit()
    for index in sorted(audits):
        audit.merge(audits[index])
    return ClusterResult(merged, audit, incidents)


def _shard_count(source: BatchSource, workers: int) -> int:
    if is_indexed(source):
        return max(1, min(SHARDS_PER_WORKER * workers, source.total))
    return workers  # each shard runs through everything, so no more of them than there are hands


def _send(ray: Any, source: BatchSource) -> Any:
    try:
        return ray.put(source)
    except Exception as error:  # whatever the pickling of a user's source raises
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"this source of data cannot be sent to other machines: {reason}") from error


def _measured(ray: Any, submit: Callable[[int], Any], count: int, incidents: list[str]) -> Iterator[ShardResult]:
    """The shards as they are done. One whose worker is lost is submitted again, and that is told in `incidents`."""
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
            except ray.exceptions.RayError as error:  # not what the task raised: its process or node is gone
                lost[index] += 1
                reason = type(error).__name__
                if lost[index] == ATTEMPTS:
                    raise ClusterError(
                        f"shard {index}/{count} lost its worker {ATTEMPTS} times, at last to {reason}: see Ray's logs; "
                        "if memory ran out, give --batch-size a smaller number or Ray fewer CPUs a node"
                    ) from error
                incidents.append(f"shard {index}/{count} lost its worker ({reason}) and was measured again")
                pending[submit(index)] = index
    finally:
        for ready in pending:
            ray.cancel(ready)


@contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    """A connection that ends with the block; one that the caller of trt_ptq has made is used, and stays."""
    if address == "auto" and ray.is_initialized():
        yield
        return
    _check_address(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster of ours reports to nobody
    local = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error", **local)
    except Exception as error:  # ConnectionError, RuntimeError, ValueError, by what is wrong with the address
        reason = str(error).strip().splitlines()[0]
        raise ClusterError(f"no Ray cluster at {address!r}: {reason} (--ray local starts one here)") from error
    try:
        with redirect_stdout(sys.stderr):  # Ray prints what befell a worker; standard output is for the result
            yield
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Find out at once, where Ray itself tries for a quarter of an hour, that nobody listens at `address`."""
    if address in ("local", "auto"):
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise UsageError(f"{address!r} is no address of a Ray cluster: write local, auto or HOST:PORT")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(f"no Ray cluster at {address!r}: {error} (--ray local starts one here)") from error
