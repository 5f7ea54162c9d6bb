"""An old TensorRT calibration cache becomes a Q/DQ model for TensorRT 11. No data and no GPU are needed.

Run: python examples/migrate_cache.py MODEL.onnx OLD.cache [OUT.onnx]
"""

from __future__ import annotations

import sys
from pathlib import Path

import trt_ptq


def main(model: Path, cache: Path, out: Path) -> trt_ptq.QuantizedModel:
    table = trt_ptq.load_table(cache)
    print(f"{cache}: {len(table.amax)} ranges")
    quantized = trt_ptq.quantize_model(model, table)
    for node in quantized.nodes:
        print(f"{'INT8' if node.is_int8 else 'float':5}  {node.op_type:10}  {node.output}: {node.reason}")
    quantized.save(out)
    findings = [finding for finding in trt_ptq.lint_model(out) if finding.severity == "error"]
    print(f"{out}: {quantized.num_int8_nodes} nodes in INT8, {len(findings)} lint errors")
    return quantized


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: python examples/migrate_cache.py MODEL.onnx OLD.cache [OUT.onnx]")
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3] if len(sys.argv) > 3 else "model.int8.onnx"))
