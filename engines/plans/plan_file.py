"""The file beside an engine that has its plan: model.engine -> model.engine.plan.json."""

from __future__ import annotations

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
    write_atomic(path, plan.model_dump_json() + "\n")


def load_plan(path: Path) -> EnginePlan:
    """Read the plan in a file of `write_plan`.

    Raises:
        EngineError: there is no such file, or it is damaged.
    """
    try:
        return EnginePlan.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EngineError(f"cannot read {path}: {error.strerror}") from error
    except (ValidationError, ValueError) as error:
        raise EngineError(f"{path}: not the plan of an engine") from error
