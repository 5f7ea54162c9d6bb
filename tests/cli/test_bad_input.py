"""Bad input: one clear line, exit status 2, nothing half-written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.cli.run import refused, trt_ptq
from tests.networks import images, residual_cnn, write
from trt_ptq.types import Array


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve good samples."""
    path = tmp_path / "data.npz"
    np.savez(path, x=images(12))
    return path


@pytest.mark.parametrize("command", ["quantize", "calibrate"])
def test_a_missing_model(command: str, data: Path, tmp_path: Path) -> None:
    assert refused(command, tmp_path / "none.onnx", "--data", data).endswith("none.onnx: no such model file")


def test_an_empty_folder(cnn_path: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "has no .npz files and no images" in refused("calibrate", cnn_path, "--data", tmp_path / "empty")


def test_a_folder_of_npy_files_says_what_to_save_instead(cnn_path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "arrays"
    folder.mkdir()
    np.save(folder / "0.npy", images(4))
    message = refused("calibrate", cnn_path, "--data", folder)
    assert "save each batch as .npz" in message
    assert "in one .npy file" in message


def test_a_pattern_for_data_is_refused_with_the_folder(cnn_path: Path, npz_folder: Path) -> None:
    assert f"give the folder, {npz_folder}" in refused("calibrate", cnn_path, "--data", npz_folder / "*.npz")
    expanded = sorted(npz_folder.glob("*.npz"))
    assert "give the folder" in refused("calibrate", cnn_path, "--data", *expanded)


def test_a_wrong_input_name_lists_the_right_ones(cnn_path: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", image=images(4))
    message = refused("calibrate", cnn_path, "--data", tmp_path / "d.npz")
    assert "'image' unknown; x missing" in message
    assert "the model takes x: float32 [n, 16, 8, 8]" in message


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (images(4).astype(np.float64), "is float64, the model takes float32"),
        (images(4)[:, :3], "has shape [4, 3, 8, 8], the model takes x: float32 [n, 16, 8, 8]"),
        (images(4)[..., 0], "has shape [4, 16, 8]"),
    ],
    ids=["dtype", "channels", "rank"],
)
def test_wrong_dtype_or_shape(cnn_path: Path, tmp_path: Path, array: Array, message: str) -> None:
    np.savez(tmp_path / "d.npz", x=array)
    assert message in refused("calibrate", cnn_path, "--data", tmp_path / "d.npz")


def test_a_nan_in_one_file_names_the_file(cnn_path: Path, npz_folder: Path, tmp_path: Path) -> None:
    broken = images(12)
    broken[3, 1, 0, 7] = np.nan
    np.savez(npz_folder / "004.npz", x=broken)
    out = tmp_path / "stats.safetensors"
    message = refused("calibrate", cnn_path, "--data", npz_folder, "-o", out)
    assert "004.npz: input 'x' has nan at [3, 1, 0, 7]" in message
    assert not out.exists()


def test_a_truncated_file_among_good_ones_is_named(cnn_path: Path, npz_folder: Path) -> None:
    file = npz_folder / "007.npz"
    file.write_bytes(file.read_bytes()[:500])
    assert "007.npz: not a readable NumPy file" in refused("calibrate", cnn_path, "--data", npz_folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "kl"], "'--method': 'kl' is not one of 'auto', 'entropy', 'minmax', 'mse', 'percentile'"),
        (["--method", "entropy", "--percentile", "99"], "--percentile belongs to method"),
        (["--method", "percentile", "--percentile", "0"], "--percentile must be"),
        (["--max-drop", "much"], "--max-drop must be"),
        (["--nonfinite", "maybe"], "'maybe' is not one of 'refuse', 'skip'"),
        (["--backend", "tvm"], "'tvm' is not one of 'auto', 'trt', 'rtx', 'none'"),
        (["--shape", "y=1x2"], "unknown input 'y': the model has x"),
        (["--shape", "x=1x3x8x8"], "does not fit the model's x: float32 [n, 16, 8, 8]"),
        (["--tensors", "conv9"], "no float activation named 'conv9'"),
        (["--eval", "metric.txt"], "write path/to/file.py:function"),
        (["--eval", "nowhere.py:metric"], "nowhere.py: no such Python file"),
        (["--batch-size", "0"], "--batch-size must be"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_options_that_make_no_sense(
    cnn_path: Path, data: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    out = tmp_path / "out"
    assert message in refused("quantize", cnn_path, "--data", data, "--out", out, *options)
    assert not out.exists() or not any(out.iterdir())


def test_an_unwritable_output(cnn_path: Path, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    why = f"{file} is a file, and should be a folder"
    assert why in refused("quantize", cnn_path, "--data", data, "--out", file)
    assert why in refused("quantize", cnn_path, "--data", data, "--out", file / "out")
    assert why in refused("calibrate", cnn_path, "--data", data, "-o", file / "stats")
    assert "it is a folder" in refused("calibrate", cnn_path, "--data", data, "-o", tmp_path)


def test_a_table_of_another_model_says_what_differs(cnn_path: Path, npz_folder: Path, tmp_path: Path) -> None:
    other = residual_cnn(tmp_path / "other.onnx", seed=1)
    stats, table = tmp_path / "s.safetensors", tmp_path / "t.json"
    assert trt_ptq("calibrate", cnn_path, "--data", npz_folder, "-o", stats).returncode == 0
    assert trt_ptq("table", stats, "-o", table).returncode == 0
    out = tmp_path / "int8.onnx"
    message = refused("qdq", other, "--table", table, "-o", out)
    assert "made for another model: the graph is the same but the weights differ" in message
    assert not out.exists()
    assert trt_ptq("qdq", other, "--table", table, "-o", out, "--allow-other-model").returncode == 0


def test_a_corrupt_cache_names_the_line(cnn_path: Path, tmp_path: Path) -> None:
    cache = tmp_path / "c.cache"
    cache.write_text("TRT-101601-EntropyCalibration2\nx: 3c010a14\nr1: 3c01\n")
    assert "c.cache, line 3: expected" in refused("qdq", cnn_path, "--table", cache)


def test_a_metric_that_fails_is_named(cnn_path: Path, npz_folder: Path, tmp_path: Path) -> None:
    metric = tmp_path / "metric.py"
    metric.write_text("def accuracy(run):\n    return 1 / 0\n")
    options = ["--data", npz_folder, "--out", tmp_path / "out", "--eval", f"{metric}:accuracy"]
    assert "accuracy fails on cnn.onnx: metric.py line 2: ZeroDivisionError" in refused("quantize", cnn_path, *options)


def test_a_metric_that_never_runs_the_model_is_refused(cnn_path: Path, npz_folder: Path, tmp_path: Path) -> None:
    metric = tmp_path / "metric.py"
    metric.write_text("def accuracy(run):\n    return {'accuracy': 1.0}\n")
    options = ["--data", npz_folder, "--out", tmp_path / "out", "--eval", f"{metric}:accuracy"]
    assert "does not run the model" in refused("quantize", cnn_path, *options)


@pytest.mark.parametrize(("max_drop", "message"), [("1", "1% or 100%"), ("0.5", "0.5% or 50%"), ("0.1", "0.1% or 10%")])
def test_a_threshold_that_may_be_meant_in_percent_is_refused(
    cnn_path: Path, npz_folder: Path, tmp_path: Path, max_drop: str, message: str
) -> None:
    options = ["--data", npz_folder, "--out", tmp_path / "out", "--max-drop", max_drop]
    assert f"write {message}" in refused("quantize", cnn_path, *options)


@pytest.mark.parametrize("name", ["model.int8.onnx", "recipe.yaml", "stats.safetensors"])
def test_a_folder_where_a_result_goes_is_refused_before_the_work(
    cnn_path: Path, npz_folder: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "out" / name).mkdir(parents=True)
    message = refused("quantize", cnn_path, "--data", npz_folder, "--out", tmp_path / "out")
    assert f"{name}: it is a folder" in message
    assert [file.name for file in (tmp_path / "out").iterdir()] == [name]


@pytest.mark.parametrize(
    ("command", "source"), [("calibrate", "--data"), ("qdq", "--table"), ("build", "--table"), ("quantize", "--data")]
)
def test_the_model_that_is_read_is_never_overwritten(
    command: str, source: str, cnn_path: Path, data: Path, tmp_path: Path
) -> None:
    out = cnn_path
    if command == "quantize":
        cnn_path = cnn_path.rename(tmp_path / "model.fp16.onnx")
        out = tmp_path
    before = cnn_path.read_bytes()
    given = data if source == "--data" else tmp_path / "c.cache"
    (tmp_path / "c.cache").write_text("TRT-101601-EntropyCalibration2\nx: 3c010a14\nr1: 3c010a14\n")
    message = refused(command, cnn_path, source, given, "--out", out)
    assert "it is an input of this command" in message or "would replace the model" in message
    assert cnn_path.read_bytes() == before


def test_the_model_in_half_precision_is_refused(data: Path, tmp_path: Path) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["n", 16]) for name in "xy")
    weight = numpy_helper.from_array(np.ones((16, 16), np.float16), "w")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "half", [x], [y], [weight])
    model = tmp_path / "half.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), model)
    message = refused("calibrate", model, "--data", data)
    assert "it computes in float16, bfloat16 or double; use the float32 model" in message


def test_a_model_too_narrow_for_int8_is_refused(data: Path, tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])
    weight = numpy_helper.from_array(np.ones((8, 8), np.float32), "w")
    model = write(tmp_path / "m.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"])], [weight], [x], ["y"])
    assert "1 of 1: K or N less than 16: no speedup from INT8" in refused("calibrate", model, "--data", data)


@pytest.mark.parametrize("code", ["def f():\n    sys.exit(0)\n    yield\n", "sys.exit(0)\n"], ids=["run", "import"])
def test_a_loader_that_exits_is_no_success(code: str, cnn_path: Path, tmp_path: Path) -> None:
    (tmp_path / "loader.py").write_text(f"import sys\n{code}")
    assert "it calls sys.exit(0)" in refused("calibrate", cnn_path, "--data", f"{tmp_path}/loader.py:f")


def test_a_loader_that_yields_once_only_is_refused_where_it_is_read_again(cnn_path: Path, tmp_path: Path) -> None:
    (tmp_path / "loader.py").write_text(
        "import numpy as np\none = iter([{'x': np.ones((2, 16, 8, 8), np.float32)}] * 4)\ndef f():\n    return one\n"
    )
    options = ["--data", f"{tmp_path}/loader.py:f", "--out", tmp_path / "out", "--scratch-limit", "0.001MB"]
    assert "a function must yield them anew each time it is called" in refused("quantize", cnn_path, *options)


def test_preprocess_without_images(cnn_path: Path, data: Path, npz_folder: Path) -> None:
    for given in (data, npz_folder):
        assert "--preprocess is for" in refused("calibrate", cnn_path, "--data", given, "--preprocess", "p.py:f")


def test_a_candidate_with_another_input_shape_is_one_line(cnn_path: Path, data: Path, tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16])
    other = write(tmp_path / "other.onnx", [helper.make_node("Relu", ["x"], ["y"])], [], [x], ["y"])
    assert "other.onnx takes x: float32 [n, 16], and " in refused("compare", cnn_path, other, "--data", data)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["quantise"], "No such command 'quantise'"),
        (["quantize"], "Missing"),
        (["quantize", "m.onnx", "--data", "d", "--speed", "11"], "--speed"),
        (["quantize", "m.onnx", "--data", "d", "--batch-size", "many"], "valid integer"),
        (["cache"], ""),
    ],
    ids=["command", "argument", "option", "number", "nothing"],
)
def test_wrong_usage_is_one_line_too(arguments: list[str], message: str) -> None:
    if message:
        assert message in refused(*arguments)
    else:
        assert "Commands" in trt_ptq(*arguments).stdout


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["quantize", "m.onnx", "--data", "d", "--eval", ""], "empty value after --eval: is a variable unset?"),
        (["calibrate", "m.onnx", "--data="], "empty value in --data=: is a variable unset?"),
        (["calibrate", ""], "empty value after calibrate: is a variable unset?"),
    ],
)
def test_an_unset_variable_is_no_default(command: list[str], message: str) -> None:
    assert refused(*command) == message


def test_inputs_are_never_overwritten(cnn_path: Path, npz_folder: Path, tmp_path: Path) -> None:
    loader = tmp_path / "loader.py"
    loader.write_text("def batches():\n    return []\n")
    batch = next(npz_folder.iterdir())
    before = batch.read_bytes()
    for data, out in ((npz_folder, batch), (f"{loader}:batches", loader)):
        assert "it is an input of this command" in refused("calibrate", cnn_path, "--data", data, "-o", out)
    assert batch.read_bytes() == before
    assert trt_ptq("calibrate", cnn_path, "--data", npz_folder, "-o", npz_folder / "new.safetensors").returncode == 0


def test_no_arguments_show_the_help_and_no_error() -> None:
    done = trt_ptq()
    assert (done.returncode, done.stderr) == (2, "")
    assert "Usage" in done.stdout
