"""Checks that a calibrator frees everything on the device."""

from __future__ import annotations

from typing import Any

LEAKABLE = ("device_allocations", "device_bytes", "pinned_allocations", "streams", "events", "primary_context_users")


def assert_nothing_leaked(outcome: dict[str, Any]) -> None:
    assert {name: outcome["counters"][name] for name in LEAKABLE} == dict.fromkeys(LEAKABLE, 0)
