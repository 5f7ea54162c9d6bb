"""A model over 2 GB, its weights in a file beside it: what each step takes of memory (proof: run, on a CPU).

Memory is VmHWM: the most that was resident at a time, the pages of mapped files included.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper

from tests.decoders import sentences, tiny_llama
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.calibrators.table.table_file import save_table
from trt_ptq.language_models.export.huggingface import export_causal_lm
from trt_ptq.onnx_io.load import Model

ROOT = Path(__file__).parents[1]
WIDTH, INNER, BLOCKS = 2048, 32768, 4
WEIGHT_BYTES = WIDTH * INNER * 4  # of each of the nine weights
MODEL_BYTES = (2 * BLOCKS + 1) * WEIGHT_BYTES
PYTHON_BYTES = 300_000_000  # Python with NumPy, onnx, ONNX Runtime and numba, and what a batch needs

PLAIN_INFERENCE = """
import sys
import numpy as np
import onnxruntime as ort
session = ort.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
session.run(None, {"ids": np.load(sys.argv[2])["ids"]})
"""
COMMAND = "import sys; from trt_ptq.cli.main import app; app(sys.argv[1:], standalone_mode=False)"
LOADING = """
import sys
from pathlib import Path
from trt_ptq.onnx_io.load import load_model
model = load_model(Path(sys.argv[1]))
"""
COPYING = f"""
{LOADING}
from trt_ptq.onnx_io.save import save_model
save_model(model.to_ir(), Path(sys.argv[2]))
"""
JUDGING = """
import sys
from pathlib import Path
import numpy as np
from trt_ptq.evaluation.runners.onnx_runner import onnx_runner
with onnx_runner(Path(sys.argv[1])) as runner:
    runner.infer({"ids": np.load(sys.argv[2])["ids"]}, "batch")
"""
PEAK = """
for line in open("/proc/self/status"):
    if line.startswith("VmHWM"):
        print("peak", line.split()[1])
"""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]


def peak_bytes(code: str, *arguments: object) -> int:
    """The most memory that `code` takes in a process of its own."""
    command = [sys.executable, "-c", f"{code}\n{PEAK}", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.rpartition("peak ")[2]) * 1024


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """model.onnx with model.data (2.4 GB: an embedding and MLPs), and data."""
    folder = tmp_path_factory.mktemp("large")
    weights = ["embedding", *(f"{name}{index}" for index in range(BLOCKS) for name in ("up", "down"))]
    noise = np.random.default_rng(0).normal(0, 0.01, 2**20).astype(np.float32)
    initializers = []
    with (folder / "model.data").open("wb") as file:
        for index, name in enumerate(weights):
            shape = [WIDTH, INNER] if name.startswith("up") else [INNER, WIDTH]
            tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
            for key, value in (("location", "model.data"), ("offset", file.tell()), ("length", WEIGHT_BYTES)):
                tensor.external_data.add(key=key, value=str(value))
            initializers.append(tensor)
            for _ in range(WEIGHT_BYTES // noise.nbytes):
                file.write((noise * np.float32(1 + index / 10)).tobytes())
    nodes = [helper.make_node("Gather", ["embedding", "ids"], ["h0"])]
    for index in range(BLOCKS):
        nodes += [
            helper.make_node("MatMul", [f"h{index}", f"up{index}"], [f"u{index}"]),
            helper.make_node("Relu", [f"u{index}"], [f"r{index}"]),
            helper.make_node("MatMul", [f"r{index}", f"down{index}"], [f"d{index}"]),
            helper.make_node("Add", [f"h{index}", f"d{index}"], [f"h{index + 1}"]),
        ]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", 8])
    output = helper.make_tensor_value_info(f"h{BLOCKS}", TensorProto.FLOAT, ["n", 8, WIDTH])
    graph = helper.make_graph(nodes, "g", [ids], [output], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    (folder / "data").mkdir()
    for index in range(3):
        np.savez(folder / "data" / f"{index}.npz", ids=np.random.default_rng(index).integers(0, INNER, (2, 8)))
    yield folder
    shutil.rmtree(folder)  # pytest would keep the gigabytes of the last three runs


def test_the_model_is_over_two_gigabytes(folder: Path) -> None:
    assert MODEL_BYTES > 2**31
    assert (folder / "model.data").stat().st_size == MODEL_BYTES


def test_loading_and_hashing_read_the_weights_in_parts(folder: Path) -> None:
    assert peak_bytes(LOADING, folder / "model.onnx") < PYTHON_BYTES


def test_calibrating_takes_little_more_memory_than_running_the_model(folder: Path) -> None:
    plain = peak_bytes(PLAIN_INFERENCE, folder / "model.onnx", folder / "data" / "0.npz")
    files = [folder / "model.onnx", "--data", folder / "data", "-o", folder / "stats.safetensors"]
    assert peak_bytes(COMMAND, "calibrate", *files) < plain + PYTHON_BYTES
    assert plain < MODEL_BYTES + PYTHON_BYTES  # ONNX Runtime itself does not hold them twice


def test_the_int8_model_is_made_a_weight_at_a_time_and_runs_with_float_weights_in_memory_once(
    folder: Path, tmp_path: Path
) -> None:
    table, out = tmp_path / "calibration.cache", tmp_path / "int8.onnx"
    save_table(CalibrationTable({f"{name}{index}": 1.0 for name in "hr" for index in range(BLOCKS)}), table)
    peak = peak_bytes(COMMAND, "qdq", folder / "model.onnx", "--table", table, "-o", out)
    assert peak < 2 * WEIGHT_BYTES + PYTHON_BYTES
    int8 = onnx.load(out)
    assert sum(tensor.data_type == TensorProto.INT8 and len(tensor.dims) == 2 for tensor in int8.graph.initializer) == 9
    del int8
    assert peak_bytes(JUDGING, out, folder / "data" / "0.npz") < MODEL_BYTES + WEIGHT_BYTES + PYTHON_BYTES


def test_a_float_copy_is_a_pair_of_files_written_a_weight_at_a_time(folder: Path, tmp_path: Path) -> None:
    assert peak_bytes(COPYING, folder / "model.onnx", tmp_path / "copy.onnx") < PYTHON_BYTES
    assert (tmp_path / "copy.onnx.data").stat().st_size == MODEL_BYTES


def test_calibrating_a_decoder_holds_its_weights_once(decoder: Model, tokenizer_folder: Path, tmp_path: Path) -> None:
    wide = tmp_path / "wide.onnx"
    export_causal_lm(tiny_llama(hidden_size=1024, intermediate_size=8192, num_hidden_layers=4), wide, "wide Llama")
    onnx_ir.save(onnx_ir.load(wide), tmp_path / "model.onnx", external_data="model.data")
    weight_bytes = (tmp_path / "model.data").stat().st_size
    assert weight_bytes > 4e8
    (tmp_path / "texts.txt").write_text("\n".join(sentences(1, words=40)))
    text = ["--task", "text-generation", "--tokenizer", tokenizer_folder, "--data", tmp_path / "texts.txt"]
    tiny, large = (
        peak_bytes(COMMAND, "calibrate", model, *text, "-o", tmp_path / "stats.safetensors")
        for model in (decoder.path, tmp_path / "model.onnx")
    )
    assert large - tiny < 1.3 * weight_bytes
