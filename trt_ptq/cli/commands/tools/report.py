"""trt-ptq report: report.html from report.json."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trt_ptq._internal.files import write_atomic
from trt_ptq.cli import console, options
from trt_ptq.report.render import render_html
from trt_ptq.report.schema import load_report


def report(
    folder: Annotated[
        Path, typer.Argument(help="Output folder of `trt-ptq quantize`, or report.json.", show_default=False)
    ],
    json: options.Json = False,
) -> None:
    """Write report.html again from report.json.

    Example: trt-ptq report int8/
    """
    file = folder if folder.suffix == ".json" and not folder.is_dir() else folder / "report.json"
    page = file.with_name("report.html")
    result = load_report(file)
    write_atomic(page, render_html(result))
    if json:
        console.print_json(result.model_dump(mode="json"))
    else:
        console.say(f"{page}: {result.verdict}")
