"""The results as Markdown."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.accuracy.row import Row


def markdown(name: str, rows: Mapping[str, Row]) -> str:
    """One model's table: metrics, loss of the worst one, fraction of the MACs in INT8, seconds."""
    metrics = next((list(row.metrics) for row in rows.values() if row.metrics), [])
    headings = [name, *metrics, "loss", "MACs in INT8", "seconds", ""]
    lines = [headings, ["---"] * len(headings)]
    for label, row in rows.items():
        if row.failed or row.metrics is None:
            lines.append([label, *["-"] * (len(metrics) + 3), f"failed: {row.failed}"])
            continue
        figures = [f"{row.metrics[metric]:.4f}" for metric in metrics]
        loss = "" if row.loss is None else f"{row.loss:+.2%}"
        fraction = "" if row.int8_fraction_of_macs is None else f"{row.int8_fraction_of_macs:.1%}"
        seconds = "" if row.seconds is None else f"{row.seconds:.0f}"
        lines.append([label, *figures, loss, fraction, seconds, row.note])
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
