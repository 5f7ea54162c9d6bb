"""What `quantize` returns: the verdict first, then where everything is."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

from trt_ptq._internal.listing import counted
from trt_ptq.errors import TrtPtqError
from trt_ptq.evaluation.metrics import Metrics
from trt_ptq.evaluation.verdict import Verdict
from trt_ptq.output import ENGINES, FP16_MODEL, INT8_MODEL, REPORT_PAGE
from trt_ptq.report.schema import ModelResult, Report
from trt_ptq.speed.engine_comparison import SpeedComparison

_COLORS = {"excellent": "#1a7f37", "acceptable": "#9a6700", "needs work": "#cf222e"}


@dataclass(frozen=True, repr=False)
class QuantizeResult:
    """The `report` of a run, and where its files are.

    `engine_error` is why the INT8 engine is missing: the builder refused the model, or could not write the engine. It
    is None where that was built or not asked for, and where `backend="auto"` finds nothing to build with, which is one
    of the `warnings`.
    """

    report: Report
    output_dir: Path
    engine_error: TrtPtqError | None = None

    @property
    def passed(self) -> bool:
        """Whether the INT8 model meets `max_drop`."""
        return self.verdict.passed

    @property
    def speed(self) -> SpeedComparison | None:
        """The INT8 engine against the FP16 engine: size, bytes moved, kernels, and estimated or measured time."""
        return self.report.speed

    @property
    def fast_enough(self) -> bool:
        """Whether the INT8 engine meets `require_speedup`."""
        return self.report.fast_enough

    @property
    def verdict(self) -> Verdict:
        """The grade, by the largest relative loss against FP32, or without a metric by the fidelity to FP32.

        It is on the engines where they can run, otherwise on the ONNX models: see `report.verdict_basis`.
        """
        return self.report.verdict

    @property
    def model_path(self) -> Path:
        """The INT8 model: ONNX with QuantizeLinear and DequantizeLinear."""
        return self.output_dir / INT8_MODEL

    @property
    def fp16_model_path(self) -> Path | None:
        """The FP16 model that INT8 is compared with; None if it could not be written, as on a full disk."""
        written = any(model.precision == "fp16" for model in self.report.models)
        return self.output_dir / FP16_MODEL if written else None

    @property
    def engine_path(self) -> Path | None:
        """The INT8 engine; None if none was built."""
        built = any(engine.precision == "int8" for engine in self.report.engines)
        return self.output_dir / ENGINES["int8"] if built else None

    @property
    def metrics(self) -> dict[str, Metrics]:
        """The user's metrics by precision ("fp32", "fp16", "int8"); without a metric, SQNR to FP32 in dB."""
        return {model.precision: _metrics(model) for model in self.report.models}

    @property
    def engine_metrics(self) -> dict[str, Metrics]:
        """The same of the engines, by precision ("fp16", "int8"); empty where they cannot run."""
        return {engine.precision: _metrics(engine) for engine in self.report.evaluated_engines}

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to know before the result is used, a sentence each."""
        return tuple(self.report.warnings)

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        """The verdict, the metrics by precision, the files, and how many warnings there are."""
        lines = [str(self.verdict)]
        lines += [f"  speed: {self.report.speed_verdict}"] if self.report.speed_verdict else []
        lines += [f"  {precision}: {_metrics_text(metrics)}" for precision, metrics in self._rows()]
        lines.append(f"  {self.report.int8_summary}")
        lines += [f"  {name}: {value}" for name, value in self._files()]
        if self.warnings:
            lines.append(f"  {self._num_warnings()}: see .warnings")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """The same for notebooks, with all warnings."""
        rows = [(precision, _metrics_text(metrics)) for precision, metrics in self._rows()] + self._files()
        table = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows)
        warnings = "".join(f"<li>{escape(warning)}</li>" for warning in self.warnings)
        details = f"<details><summary>{self._num_warnings()}</summary><ul>{warnings}</ul></details>"
        return (
            f'<div><p style="color: {_COLORS[self.verdict.grade]}"><b>{escape(str(self.verdict))}</b></p>'
            f"<p>{escape(self.report.speed_verdict)}</p>"
            f"<table>{table}</table><p>{escape(self.report.int8_summary)}</p>{details if warnings else ''}</div>"
        )

    def _num_warnings(self) -> str:
        return counted(len(self.warnings), "warning")

    def _rows(self) -> list[tuple[str, Metrics]]:
        engines = {f"{precision.upper()} engine": metrics for precision, metrics in self.engine_metrics.items()}
        models = {precision.upper(): metrics for precision, metrics in self.metrics.items()}
        return [(name, metrics) for name, metrics in (models | engines).items() if metrics]

    def _files(self) -> list[tuple[str, str]]:
        engine = str(self.engine_path or (f"none ({self.engine_error})" if self.engine_error else "none"))
        return [("model", str(self.model_path)), ("engine", engine), ("report", str(self.output_dir / REPORT_PAGE))]


def _metrics(model: ModelResult) -> Metrics:
    """The user's metrics, or the SQNR of each output and the top-1 agreement of scores."""
    if model.metrics:
        return model.metrics
    compared = {name: output for name, output in model.fidelity.items() if output.compared}
    agreements = {
        f"top-1 agreement of {name}": output.top1 for name, output in compared.items() if output.top1 is not None
    }
    return {f"SQNR of {name} in dB": output.sqnr_db for name, output in compared.items()} | agreements


def _metrics_text(metrics: Metrics) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in metrics.items())
