"""trt-ptq inspect: the layers of an engine."""

from __future__ import annotations

from trt_ptq.cli import console, options
from trt_ptq.engines.running.runtime import EngineSession


def inspect(engine: options.Engine, json: options.Json = False) -> None:
    """List the layers of an engine: the precision each really runs in, and the reformats between them.

    Needs the GPU that the engine was built for. Of an engine of TensorRT-RTX, `trt-ptq plan` shows what
    was kept beside it, without a GPU.

    Example: trt-ptq inspect int8/model.int8.engine
    """
    plan = EngineSession(engine).inspect()
    if json:
        console.print_json(
            {
                "engine": str(engine),
                "precisions": plan.precisions(),
                "reformats": len(plan.reformats),
                "layers": [
                    {
                        "name": kernel.name,
                        "kind": kernel.kind,
                        "inputs": [tensor.dtype for tensor in kernel.inputs],
                        "outputs": [tensor.dtype for tensor in kernel.outputs],
                        "precision": kernel.precision,
                        "tactic": kernel.tactic,
                        "reformat": kernel.reformat,
                    }
                    for kernel in plan.kernels
                ],
            }
        )
        return
    console.print_table(
        ["layer", "kind", "reads", "writes", "runs in"],
        (
            [
                kernel.name,
                kernel.kind,
                ", ".join(dict.fromkeys(tensor.dtype for tensor in kernel.inputs)),
                ", ".join(dict.fromkeys(tensor.dtype for tensor in kernel.outputs)),
                "reformat" if kernel.reformat else kernel.precision or "",
            ]
            for kernel in plan.kernels
        ),
        str(engine),
    )
    counts = ", ".join(f"{count} in {precision}" for precision, count in plan.precisions().items())
    console.say(f"layers that compute: {counts or 'none'}; reformats: {len(plan.reformats)}")
