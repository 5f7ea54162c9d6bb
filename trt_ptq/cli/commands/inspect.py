"""trt-ptq inspect: the layers of an engine."""

from __future__ import annotations

from dataclasses import asdict

from trt_ptq.cli import console, options
from trt_ptq.engines.running.runtime import EngineSession


def inspect(engine: options.Engine, json: options.Json = False) -> None:
    """List the layers of an engine: the precision each really runs in, and the reformats between them.

    Needs the GPU that the engine was built for.

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
