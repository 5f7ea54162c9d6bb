"""trt-ptq report"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trt_ptq._internal.files import write_atomic
from trt_ptq.cli import console, options
from trt_ptq.report.render import render_html
from trt_ptq.report.schema import load_report


def report(
    folder: Annotated[Path, typer.Argument(help="Folder that `quantize` left.", show_default=False)],
    json: options.Json = False,
) -> None:
    """Write report.html anew from report.json.

    Example: trt-ptq report int8/
    """
    page = folder / "report.html"
    found = load_report(folder / "report.json")
    write_atomic(page, render_html(found))
    if json:
        console.print_json(found.model_dump(mode="json"))
    else:
        console.say(f"{page}: {found.verdict.grade}, {found.verdict.loss:.2%} loss of {found.verdict.metric}")
