"""The file beside an engine that has its plan: model.engine -> model.engine.plan.json."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import ValidationError

from trt_ptq._internal.files import write_atomic
from trt_ptq.engines.plans.engine_plan import EnginePlan
from trt_ptq.errors import EngineError


def plan_path(engine: Path) -> Path:
    """model.engine -> model.engine.plan.json"""
    return engine.with_name(engine.name + ".plan.json")


def write_plan(plan: EnginePlan, path: Path) -> None:
    """Write a plan as JSON.

    Raises:
        OutputError: the file cannot be written.
    """
    write_atomic(path, _text(plan))


def plan_digest(plan: EnginePlan) -> str:
    """SHA-256 of the file of a plan."""
    return hashlib.sha256(_text(plan).encode()).hexdigest()


def load_plan(path: Path, sha256: str | None = None) -> EnginePlan:
    """Read the plan in a file of `write_plan`.

    Raises:
        EngineError: there is no such file, it is damaged, or it is not the one with the digest `sha256`.
    """
    try:
        content = path.read_bytes()
        if sha256 not in (None, hashlib.sha256(content).hexdigest()):
            raise EngineError(f"{path}: the plan of another engine than the one beside it: build that again")
        return EnginePlan.model_validate_json(content)
    except OSError as error:
        raise EngineError(f"cannot read {path}: {error.strerror}") from error
    except (ValidationError, ValueError) as error:
        raise EngineError(f"{path}: not the plan of an engine") from error


def _text(plan: EnginePlan) -> str:
    return plan.model_dump_json() + "\n"
