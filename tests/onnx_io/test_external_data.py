"""Models with external data: where the files may be, what is refused, and what is read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.networks import weight
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.data.open import open_data
from trt_ptq.errors import ModelError
from trt_ptq.onnx_io.load import Model, load_model, read_inputs
from trt_ptq.onnx_io.save import save_model
from trt_ptq.qdq.insert import insert_qdq
from trt_ptq.types import BatchSource

WIDTH = 256  # 256 * 256 float32 are 256 KiB: large enough to stay outside


def mlp(opset: int = 17) -> onnx.ModelProto:
    """x [n, 256] -> MatMul a -> Relu -> Reshape -> MatMul b -> y; the shape is a tensor too."""
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["m"]),
        helper.make_node("Relu", ["m"], ["r"]),
        helper.make_node("Reshape", ["r", "shape"], ["s"]),
        helper.make_node("MatMul", ["s", "b"], ["y"]),
    ]
    weights = [
        weight("a", WIDTH, WIDTH),
        numpy_helper.from_array(np.array([2, 3, WIDTH], np.int64), "shape"),
        weight("b", WIDTH, WIDTH),
    ]
    named = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3, WIDTH]),
    ]
    graph = helper.make_graph(nodes, "g", named[:1], named[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def split(folder: Path, location: str = "weights.bin", opset: int = 17) -> Path:
    """The model in `folder`, all its tensors in `location`."""
    (folder / location).parent.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    onnx.save(mlp(opset), path, save_as_external_data=True, location=location, size_threshold=0)
    return path


def a_file_a_tensor(folder: Path) -> Path:
    folder.mkdir()
    path = folder / "model.onnx"
    onnx.save(mlp(), path, save_as_external_data=True, all_tensors_to_one_file=False, size_threshold=0)
    assert {file.name for file in folder.iterdir()} == {"model.onnx", "a", "b", "shape"}
    return path


def in_a_folder_below(folder: Path) -> Path:
    return split(folder, "weights/part.bin")


def in_a_linked_folder(folder: Path) -> Path:
    split(folder / "real")
    (folder / "link").symlink_to("real")
    return folder / "link" / "model.onnx"


def by_a_link_beside_the_model(folder: Path) -> Path:
    path = split(folder)
    (folder / "weights.bin").rename(folder / "real.bin")
    (folder / "weights.bin").symlink_to("real.bin")
    return path


def as_in_the_cache_of_hugging_face(folder: Path) -> Path:
    split(folder / "downloaded")
    blobs, snapshot = folder / "blobs", folder / "snapshots" / "main"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for name, blob in (("model.onnx", "0a1b"), ("weights.bin", "2c3d")):
        shutil.move(folder / "downloaded" / name, blobs / blob)
        (snapshot / name).symlink_to(Path("../../blobs") / blob)
    return snapshot / "model.onnx"


@pytest.fixture
def inline(tmp_path: Path) -> Model:
    onnx.save(mlp(), tmp_path / "inline.onnx")
    return load_model(tmp_path / "inline.onnx")


def batches() -> BatchSource:
    return open_data([{"x": np.random.default_rng(0).normal(size=(6, WIDTH)).astype(np.float32)}], ())


@pytest.mark.parametrize(
    "place",
    [
        split,
        a_file_a_tensor,
        in_a_folder_below,
        in_a_linked_folder,
        by_a_link_beside_the_model,
        as_in_the_cache_of_hugging_face,
    ],
)
def test_results_do_not_depend_on_where_the_weights_are(
    tmp_path: Path, inline: Model, place: Callable[[Path], Path]
) -> None:
    model = load_model(place(tmp_path / "model"))
    assert model.identity == inline.identity
    assert collect_statistics(model, batches(), select_calibration_tensors(model)) == collect_statistics(
        inline, batches(), select_calibration_tensors(inline)
    )
    table = CalibrationTable({"x": 4.0, "s": 4.0})
    for source, name in ((model, "outside.onnx"), (inline, "inside.onnx")):
        save_model(insert_qdq(source, table).model, tmp_path / name)
    assert (tmp_path / "outside.onnx").read_bytes() == (tmp_path / "inside.onnx").read_bytes()


def test_a_relative_path_works_after_a_change_of_the_working_directory(
    tmp_path: Path, inline: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    split(tmp_path / "model")
    monkeypatch.chdir(tmp_path / "model")
    model = load_model(Path("model.onnx"))
    monkeypatch.chdir(tmp_path)
    assert collect_statistics(model, batches(), select_calibration_tensors(model)) == collect_statistics(
        inline, batches(), select_calibration_tensors(inline)
    )
    save_model(model.to_ir(), tmp_path / "copy.onnx")
    assert load_model(tmp_path / "copy.onnx").identity == inline.identity


def test_only_large_weights_stay_external(tmp_path: Path) -> None:
    outside = {t.name: t.data_location for t in load_model(split(tmp_path)).proto.graph.initializer}
    assert outside == {"a": TensorProto.EXTERNAL, "shape": TensorProto.DEFAULT, "b": TensorProto.EXTERNAL}


def test_shapes_are_inferred_through_an_external_shape(tmp_path: Path) -> None:
    value = next(value for value in load_model(split(tmp_path)).proto.graph.value_info if value.name == "s")
    assert [dim.dim_value for dim in value.type.tensor_type.shape.dim] == [2, 3, WIDTH]


def test_an_old_opset_is_converted_without_loading_the_weights(tmp_path: Path) -> None:
    model = load_model(split(tmp_path, opset=11))
    assert model.opset == 13
    assert {
        tensor.name for tensor in model.proto.graph.initializer if tensor.data_location == TensorProto.EXTERNAL
    } == {
        "a",
        "b",
    }
    save_model(model.to_ir(), tmp_path / "raised.onnx")
    feeds = next(iter(batches())).feeds
    both = (mlp(opset=11).SerializeToString(), tmp_path / "raised.onnx")
    before, after = (ort.InferenceSession(file).run(None, dict(feeds))[0] for file in both)
    np.testing.assert_array_equal(before, after)


def edited(path: Path, key: str, value: str, name: str = "b") -> Path:
    """The model with another `key` in the external data of the tensor `name`."""
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if tensor.name == name and entry.key == key:
                entry.value = value
    path.write_bytes(proto.SerializeToString())
    return path


def linked_without_its_weights(folder: Path) -> Path:
    split(folder / "real")
    (folder / "link.onnx").symlink_to("real/model.onnx")
    return folder / "link.onnx"


def on_another_disk(folder: Path) -> Path:
    path = split(folder / "model")
    (folder / "disk").mkdir()
    shutil.move(folder / "model" / "weights.bin", folder / "disk")
    (folder / "model" / "weights.bin").symlink_to("../disk/weights.bin")
    return path


def above_the_model(folder: Path) -> Path:
    path = split(folder / "model")
    shutil.copy(folder / "model" / "weights.bin", folder)
    return edited(path, "location", "../weights.bin")


def hard_linked(folder: Path) -> Path:
    path = split(folder)
    os.link(folder / "weights.bin", folder / "again.bin")
    return path


def absolute(folder: Path) -> Path:
    return edited(split(folder), "location", str(folder / "weights.bin"))


def without_length(path: Path) -> Path:
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        entries = [entry for entry in tensor.external_data if entry.key != "length"]
        del tensor.external_data[:]
        tensor.external_data.extend(entries)
    path.write_bytes(proto.SerializeToString())
    return path


def truncated_without_a_length(folder: Path) -> Path:
    path = without_length(split(folder))
    os.truncate(folder / "weights.bin", WIDTH * WIDTH * 8)
    return path


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            linked_without_its_weights,
            r"weights\.bin is missing .*link\.onnx is a symbolic link: pass .*real/model\.onnx instead",
        ),
        (on_another_disk, r"disk/weights\.bin is outside the model's folder.* copy both into one folder"),
        (above_the_model, r"weights\.bin is outside the model's folder.* copy both into one folder"),
        (hard_linked, r"weights\.bin has 2 hard links.* use a copy of the file"),
        (absolute, r"'b' refers to its weights file by an absolute path"),
        (lambda folder: edited(split(folder), "length", "7"), r"'b' has 7 bytes in .* but its shape needs 262144"),
        (lambda folder: edited(split(folder), "offset", "-8"), r"external data of tensor 'b' is invalid"),
        (lambda folder: edited(split(folder), "offset", "one"), r"external data of tensor 'b' is invalid"),
        (lambda folder: edited(split(folder), "location", ""), r"is missing \(tensor 'b'\)"),
        (truncated_without_a_length, r"weights\.bin is truncated: tensor 'b' ends at byte"),
    ],
)
def test_weights_that_cannot_be_read_are_refused_in_one_line(
    tmp_path: Path, spoil: Callable[[Path], Path], message: str
) -> None:
    path = spoil(tmp_path / "m")
    for read in (load_model, read_inputs):
        with pytest.raises(ModelError, match=message) as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_a_length_may_be_left_out(tmp_path: Path, inline: Model) -> None:
    assert load_model(without_length(split(tmp_path / "m"))).identity == inline.identity


def test_changed_external_weights_are_another_model(tmp_path: Path, inline: Model) -> None:
    path = split(tmp_path / "m")
    with (tmp_path / "m" / "weights.bin").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x3e")
    changed = load_model(path).identity
    assert changed.graph == inline.identity.graph
    assert changed.weights != inline.identity.weights


def test_external_weights_in_a_body_are_part_of_the_identity(tmp_path: Path) -> None:
    def with_body(seed: int) -> Model:
        named = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [WIDTH, WIDTH]) for name in ("x", "y", "z")]
        inner = weight("w", WIDTH, WIDTH, seed=seed)
        body = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["z"])], "b", [], named[2:], [inner])
        condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
        node = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
        graph = helper.make_graph([node], "g", [named[0], condition], named[1:2])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        folder = tmp_path / str(seed)
        folder.mkdir()
        onnx.save(model, folder / "m.onnx", save_as_external_data=True, location="w.bin")
        assert (folder / "w.bin").stat().st_size >= WIDTH * WIDTH * 4
        return load_model(folder / "m.onnx")

    assert with_body(0).identity != with_body(1).identity
