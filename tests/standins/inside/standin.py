"""For code that runs on the stand-ins: counters of libcuda, and the contents of stand-in plans."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import NamedTuple

PLAN_MARK = "TRT_PTQ STAND-IN PLAN, NOT A TENSORRT ENGINE"


class Counters(NamedTuple):
    """Counters of the libcuda stand-in, in its order (cuda/lookup.cpp)."""

    device_allocations: int
    device_bytes: int
    peak_device_bytes: int
    pinned_allocations: int
    pinned_bytes: int
    copies_to_device: int
    copies_to_host: int
    copies_on_device: int
    streams: int
    events: int
    primary_context_users: int


def counters() -> Counters:
    """Allocations and objects that exist now, and the number of copies so far."""
    values = (ctypes.c_uint64 * len(Counters._fields))()
    ctypes.CDLL("libcuda.so.1").standin_cuda_counters(values)
    return Counters(*values)


@dataclass(frozen=True)
class Plan:
    """The inputs of a stand-in build.

    `source` is "calibrated", "cache", "explicit" (Q/DQ layers) or "none"; `table` is the cache in use.
    """

    version: int
    int8: bool
    fp16: bool
    source: str
    batches: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dynamic_ranges: dict[str, tuple[float, float]]
    table: str


def read_plan(plan: bytes) -> Plan:
    """Parse a plan from `build_serialized_network`; ValueError for anything else."""
    head, separator, table = plan.decode().partition("\ntable:\n")
    mark, *lines = head.split("\n")
    if mark != PLAN_MARK or not separator:
        raise ValueError("not a stand-in plan")
    fields: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        fields.setdefault(name, []).append(value)
    ranges: dict[str, tuple[float, float]] = {}
    for entry in fields.get("dynamic range", []):
        tensor, _, limits = entry.rpartition(": ")
        low, high = limits.split(" ")
        ranges[tensor] = (float(low), float(high))
    return Plan(
        version=int(fields["version"][0]),
        int8=fields["int8"] == ["1"],
        fp16=fields["fp16"] == ["1"],
        source=fields["source"][0],
        batches=int(fields["batches"][0]),
        inputs=tuple(fields.get("input", [])),
        outputs=tuple(fields.get("output", [])),
        dynamic_ranges=ranges,
        table=table,
    )
