"""trt-ptq inspect"""

from __future__ import annotations

from dataclasses import asdict

from trt_ptq.cli import console, options
from trt_ptq.engines.running.runtime import EngineSession


def inspect(engine: options.Engine, json: options.Json = False) -> None:
    """Say which layers of an engine really run in INT8, and where it reformats. Needs the GPU that it is for.

    Example: trt-ptq inspect int8/model.int8.engine
    """
    inspection = EngineSession(engine).inspect()
    if json:
        console.print_json(
            {
                "engine": str(engine),
                "precisions": inspection.precisions(),
                "reformats": len(inspection.reformats),
                "layers": [{**asdict(layer), "reformat": layer.reformat} for layer in inspection.layers],
            }
        )
        return
    console.print_table(
        ["layer", "kind", "reads", "writes", "runs in"],
        (
            [
                layer.name,
                layer.kind,
                ", ".join(dict.fromkeys(layer.inputs)),
                ", ".join(dict.fromkeys(layer.outputs)),
                "reformat" if layer.reformat else layer.precision or "",
            ]
            for layer in inspection.layers
        ),
        str(engine),
    )
    counts = ", ".join(f"{count} in {precision}" for precision, count in inspection.precisions().items())
    console.say(f"layers that compute: {counts or 'none'}; reformats: {len(inspection.reformats)}")
