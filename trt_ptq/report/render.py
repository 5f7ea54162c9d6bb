"""report.html: one file that needs nothing else, readable without scripts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

from trt_ptq.evaluation.fidelity import worst_output
from trt_ptq.evaluation.verdict import format_percent
from trt_ptq.report.schema import Report, TensorRow
from trt_ptq.report.trajectory_plots import distance_rows, scale_plots

_GRADE_CLASS = {"excellent": "good", "acceptable": "fair", "needs work": "bad"}


def render_html(report: Report) -> str:
    """The whole page."""
    verdict = report.verdict
    passed = "passed" if verdict.passed else "FAILED"
    sections = [
        f'<p class="verdict {_GRADE_CLASS[verdict.grade]}"><b>{escape(verdict.grade)}</b>: '
        f"{verdict.loss:.2%} loss of {escape(verdict.metric)} against FP32 "
        f"(allowed {format_percent(verdict.max_drop)}: {passed})</p>",
        _facts(report),
        _warnings(report.warnings),
        "<h2>Accuracy and size</h2>" + _models(report),
        "<h2>Where INT8 loses, and what was done about it</h2>" + _trials(report),
        "<h2>Fidelity of the outputs to FP32</h2>" + _fidelity(report),
        "<h2>Engines</h2>" + _engines(report) + _measured(report),
        f"<h2>Ranges ({len(report.tensors)} tensors, {escape(report.method)})</h2>" + _ranges(report),
        "<h2>Ranges by the number of samples</h2>" + _trajectory(report),
        f"<h2>Nodes</h2><p>{report.int8_summary}</p>" + _nodes(report),
        f"<h2>The rest runs in {report.high_precision.upper()}</h2>" + _kept(report),
    ]
    return fill_page("INT8 report", report.model, sections)


def fill_page(heading: str, title: str, sections: Sequence[str]) -> str:
    """A page that needs nothing else, of sections that are HTML already."""
    page = files("trt_ptq.report").joinpath("page.html").read_text(encoding="utf-8")
    filled = page.replace("{{heading}}", escape(heading)).replace("{{title}}", escape(title))
    return filled.replace("{{body}}", "\n".join(sections))


def html_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells are HTML already."""
    header = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table></div>'


def _facts(report: Report) -> str:
    data = report.fingerprint
    facts = {
        "model": report.model,
        "graph / weights": f"{report.identity.graph[:16]} / {report.identity.weights[:16]}",
        "calibrated with": f"{data.samples} samples of {report.data} (fingerprint {data.digest[:16]}), in "
        f"{report.passes} pass{'es' * (report.passes > 1)}",
        "until stable": str(report.stability) if report.stability and report.stability.stable else "",
        "compared on": f"{report.held_out_samples} samples that were not used in calibration",
        "made by": report.tool,
    }
    return (
        "<dl>" + "".join(f"<dt>{key}</dt><dd>{escape(value)}</dd>" for key, value in facts.items() if value) + "</dl>"
    )


def _warnings(warnings: list[str]) -> str:
    if not warnings:
        return ""
    return "<ul class='warnings'>" + "".join(f"<li>{escape(one)}</li>" for one in warnings) + "</ul>"


def _models(report: Report) -> str:
    names = sorted({name for one in report.models for name in one.metrics})
    rows = [
        [
            one.precision.upper(),
            escape(one.file),
            f"{one.size_bytes / 1e6:.2f} MB",
            *(f"{one.metrics[name]:.4f}" if name in one.metrics else "" for name in names),
        ]
        for one in report.models
    ]
    return html_table(["", "ONNX file", "size", *map(escape, names)], rows)


def _trials(report: Report) -> str:
    names = sorted({name for one in report.trials for name in one.losses})
    rows = [
        [
            escape(one.name),
            *(f"{one.losses[name]:.2%}" if name in one.losses else "" for name in names),
            one.decision,
            escape(one.note),
        ]
        for one in report.trials
    ]
    head = [
        f"in INT8 (the rest in {report.high_precision.upper()})",
        *(f"loss: {escape(name)}" for name in names),
        "",
        "",
    ]
    return html_table(head, rows)


def _fidelity(report: Report) -> str:
    rows = [
        [
            one.precision.upper(),
            escape(name),
            f"{output.sqnr_db:.1f} dB",
            output.similarity_text,
            "" if output.top1 is None else f"{output.top1:.2%}",
            f"{output.max_abs:.3g}",
            f"{output.mean_abs:.3g}",
        ]
        for one in report.models
        for name, output in one.fidelity.items()
    ]
    return html_table(["", "output", "SQNR", "cosine", "top-1 agreement", "max error", "mean error"], rows)


def _engines(report: Report) -> str:
    if not report.engines:
        return "<p>None was built; see the warnings.</p>"
    rows = [
        [
            one.precision.upper(),
            f"{escape(one.backend)} {escape(one.backend_version)}",
            f"{one.size_bytes / 1e6:.2f} MB",
            f"{one.build_seconds:.1f} s",
            escape(one.gpu or "built without a GPU, not run"),
            "<br>".join(escape(f"{name}={shapes}") for name, shapes in one.profiles.items()),
        ]
        for one in report.engines
    ]
    return html_table(["", "builder", "size", "build time", "GPU", "shapes"], rows)


def _measured(report: Report) -> str:
    """What the engines did on the GPU; nothing where they were not run."""
    if not report.measured:
        return ""
    rows = []
    for one in report.measured:
        timed = one.benchmark
        worst = worst_output(one.fidelity)
        rows.append(
            [
                timed.precision.upper(),
                f"{timed.latency.median_ms:.3f} ms",
                f"{timed.latency.p99_ms:.3f} ms",
                f"{timed.latency.throughput:.0f} / s at batch {timed.latency.batch}",
                f"{timed.device_memory_bytes / 1e6:.2f} MB",
                ", ".join(f"{count} {escape(precision)}" for precision, count in one.layers.items()),
                str(one.reformats),
                f"{worst.sqnr_db:.1f} dB" if worst else "",
                escape(timed.gpu),
            ]
        )
    head = ["", "median latency", "99th percentile", "throughput", "device memory", "layers", "reformats"]
    return html_table([*head, "SQNR to the FP16 engine (worst output)", "GPU"], rows)


def _ranges(report: Report) -> str:
    rows = [
        [
            escape(row.name),
            _bars(row),
            f"{row.minimum:.4g}",
            f"{row.maximum:.4g}",
            f"{row.amax:.4g}",
            f"{row.scale:.4g}",
            f"{row.clipped:.3%}",
            f"{row.asymmetric_scale:.4g} / {row.asymmetric_zero_point}",
        ]
        for row in report.tensors
    ]
    head = ["tensor", "magnitudes (log counts; line: range)", "min", "max", "amax", "scale", "clipped"]
    return html_table([*head, "asymmetric scale / zero point (analysis only)"], rows)


def _bars(row: TensorRow, width: int = 192, height: int = 32) -> str:
    top = math.log1p(max(row.bars)) or 1
    step = width / len(row.bars)
    heights = [math.log1p(count) / top * height for count in row.bars]
    bars = "".join(
        f'<rect x="{index * step:.1f}" y="{height - tall:.1f}" width="{step:.1f}" height="{tall:.1f}"/>'
        for index, tall in enumerate(heights)
        if tall
    )
    x = min(row.amax / row.bars_end, 1) * width
    line = f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height}"/>'
    label = escape(f"{row.name}: magnitudes up to {row.bars_end:g}, range {row.amax:.4g}", quote=True)
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{bars}{line}</svg>'


def _trajectory(report: Report) -> str:
    head = ["distance to the final range", *map(str, report.trajectory.samples)]
    plots = f"<div class='plots'>{scale_plots(report.trajectory)}</div>"
    return plots + html_table(head, distance_rows(report.trajectory))


def _nodes(report: Report) -> str:
    rows = [
        [escape(node.output), node.op_type, "INT8" if node.is_int8 else "float", escape(node.reason)]
        for node in report.nodes
    ]
    return html_table(["node (by its first output)", "op", "runs in", "why"], rows)


def _kept(report: Report) -> str:
    if not report.fp32_nodes:
        return ""
    rows = [[escape(node.output), node.op_type, node.cause, escape(node.reason)] for node in report.fp32_nodes]
    return f"<p>{len(rows)} nodes stay in FP32:</p>" + html_table(
        ["node (by its first output)", "op", "cause", "why"], rows
    )
