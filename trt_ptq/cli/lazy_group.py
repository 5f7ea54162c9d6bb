"""The commands, each imported when it is used: `trt-ptq --help` lists them without importing any."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from inspect import cleandoc
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


@dataclass(frozen=True)
class _Entry:
    panel: str
    summary: str
    file: str = ""  # its module, where it is not called like the command


COMMANDS = {
    "quantize": _Entry("Quantization", "Quantize, compare with FP32, build engines and report, in one command."),
    "calibrate": _Entry("Quantization", "Run a model over data and save the statistics of its tensors."),
    "merge": _Entry("Quantization", "Merge the statistics of several shards of the data."),
    "table": _Entry("Quantization", "Derive a calibration table from statistics, with any range method."),
    "qdq": _Entry("Quantization", "Convert a float model and a calibration table to a Q/DQ model."),
    "compare": _Entry("Accuracy", "Compare the outputs and metrics of two models."),
    "sensitivity": _Entry("Accuracy", "Measure how sensitive each layer is to INT8."),
    "lint": _Entry("Accuracy", "Find what TensorRT rejects, computes wrongly or runs slowly in a Q/DQ model."),
    "build": _Entry("Engines", "Build an engine."),
    "plan": _Entry(
        "Engines",
        "Show the kernels of an engine, what they move and why INT8 is slow, without a GPU.",
        "plan_engine",
    ),
    "inspect": _Entry("Engines", "List the layers of an engine with the precisions they run in."),
    "bench": _Entry("Engines", "Measure latency, throughput and memory of engines on the GPU."),
    "cache": _Entry("Tools", "Show, compare, convert and check calibration tables."),
    "report": _Entry("Tools", "Write report.html again from report.json."),
    "doctor": _Entry("Tools", "Check the installation."),
}


class LazyGroup(TyperGroup):
    """A group that imports a command only to run it, or to show its help."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {name: _summary(name, entry) for name, entry in COMMANDS.items()}
        self._listing = False

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if self._listing or cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        return load_command(cmd_name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        with self._summaries_only():
            super().format_help(ctx, formatter)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        with self._summaries_only():
            return super().shell_complete(ctx, incomplete)

    @contextmanager
    def _summaries_only(self) -> Iterator[None]:
        self._listing = True
        try:
            yield
        finally:
            self._listing = False


def load_command(name: str) -> Any:
    """Import a command, with its options."""
    entry = COMMANDS[name]
    module = import_module(f"trt_ptq.cli.commands.{entry.panel.lower()}.{entry.file or name}")
    if hasattr(module, "app"):
        command: Any = typer.main.get_command(module.app)
        command.name = name
        return command
    app = new_app()
    add_command(app, getattr(module, name))
    return typer.main.get_command(app)


def new_app(**settings: Any) -> typer.Typer:
    """A Typer application with the settings that all commands share."""
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich", **settings)


def add_command(app: typer.Typer, function: Callable[..., None]) -> Callable[..., None]:
    """Add `function` as a command; its docstring is the help text."""
    return app.command(function.__name__, help=reflow(function.__doc__ or ""))(function)


def reflow(text: str) -> str:
    """Remove the line breaks inside paragraphs, so that they wrap at any width."""
    return re.sub(r"(?<=\S)\n(?=\S)", " ", cleandoc(text))


def _summary(name: str, entry: _Entry) -> TyperCommand:
    return TyperCommand(name, help=entry.summary, rich_help_panel=entry.panel, rich_markup_mode="rich")
