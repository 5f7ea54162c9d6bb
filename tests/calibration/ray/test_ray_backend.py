"""Workers of a Ray cluster collect the same statistics as one process, byte for byte, even if a worker is killed."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.models import recogniser
from tests.networks import images, residual_cnn
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.ray.ray_backend import ATTEMPTS, collect_on_ray
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.calibrators.statistics.statistics_file import save_statistics
from trt_ptq.data.checks.audit import Audit
from trt_ptq.data.observation import observe
from trt_ptq.data.open import open_data
from trt_ptq.errors import ClusterError, DataError, MissingPackageError, ModelError, UsageError
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.types import Batch

WORKERS = 2
BATCHES = 24


@pytest.fixture(scope="class")
def cluster() -> Iterator[Any]:
    """A real Ray cluster on this machine with two workers, started once."""
    ray = pytest.importorskip("ray", reason="needs ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(address="local", num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield ray
    ray.shutdown()


@dataclass(frozen=True)
class Made:
    """24 batches of 4 samples, and what a worker may do at one of them."""

    folder: Path

    @property
    def total(self) -> int:
        return BATCHES

    def batch(self, index: int) -> Batch:
        return Batch({"x": images(4, seed=index)}, f"batch {index}")

    def __iter__(self) -> Iterator[Batch]:
        return map(self.batch, range(BATCHES))


@dataclass(frozen=True)
class KillsOnce(Made):
    """The worker that comes to batch 13, the second of its shard, is killed; the next one is not."""

    def batch(self, index: int) -> Batch:
        killed = self.folder / "killed"
        if index == 13 and not killed.exists():
            killed.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return super().batch(index)


@dataclass(frozen=True)
class KillsAlways(Made):
    """Every worker that comes to batch 13 is killed."""

    def batch(self, index: int) -> Batch:
        if index == 13:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().batch(index)


@dataclass(frozen=True)
class BrokenAndSlow(Made):
    """Batch 1 has a NaN; each batch takes a moment, and leaves a mark."""

    def batch(self, index: int) -> Batch:
        (self.folder / f"{index}.read").touch()
        if index != 1:
            time.sleep(0.3)
            return super().batch(index)
        broken = images(4)
        broken[0, 0, 0, 0] = np.nan
        return Batch({"x": broken}, "batch 1")


def content(statistics: Statistics, path: Path) -> bytes:
    save_statistics(statistics, path)
    return path.read_bytes()


def same_bytes(statistics: Statistics, other: Statistics, folder: Path) -> bool:
    return content(statistics, folder / "statistics.st") == content(other, folder / "other.st")


on_cluster = partial(collect_on_ray, address="auto")


@pytest.mark.slow
class TestOnACluster:
    def test_the_statistics_are_those_of_one_process_byte_for_byte(
        self, cluster: Any, cnn: Model, npz_folder: Path, tmp_path: Path
    ) -> None:
        source = open_data(str(npz_folder), cnn.inputs)
        calibration_tensors = select_calibration_tensors(cnn, ["all"])
        result = on_cluster(cnn, source, calibration_tensors)
        assert same_bytes(result.statistics, collect_statistics(cnn, source, calibration_tensors), tmp_path)
        assert (result.incidents, result.audit.findings()) == ([], [])
        assert cluster.is_initialized()  # the caller's connection stays
        with pytest.raises(ClusterError, match=r"no Ray cluster at 'local': .*twice"):
            collect_on_ray(cnn, source, calibration_tensors, address="local")

    def test_a_killed_worker_is_replaced_and_reported(self, cluster: Any, cnn: Model, tmp_path: Path) -> None:
        calibration_tensors = select_calibration_tensors(cnn)
        result = on_cluster(cnn, KillsOnce(tmp_path), calibration_tensors)
        assert int((tmp_path / "killed").read_text()) != os.getpid()
        assert result.incidents == ["shard 5/8 lost its worker (WorkerCrashedError) and was measured again"]
        assert same_bytes(result.statistics, collect_statistics(cnn, Made(tmp_path), calibration_tensors), tmp_path)
        assert result.audit.samples == 4 * BATCHES

    def test_a_shard_that_kills_every_worker_is_given_up(self, cluster: Any, cnn: Model, tmp_path: Path) -> None:
        with pytest.raises(
            ClusterError, match=rf"shard 5/8 lost its worker {ATTEMPTS} times, the last time to WorkerCr"
        ):
            on_cluster(cnn, KillsAlways(tmp_path), select_calibration_tensors(cnn))

    def test_a_bad_batch_is_reported_as_in_one_process_and_stops_the_others(
        self, cluster: Any, cnn: Model, tmp_path: Path
    ) -> None:
        message = r"^batch 1: input 'x' has nan at \[0, 0, 0, 0\]: remove it \(calibrate and"
        with pytest.raises(DataError, match=message):
            on_cluster(cnn, BrokenAndSlow(tmp_path), select_calibration_tensors(cnn))
        before, read = -1, 0
        while read > before:  # what runs already is finished, slowly on a busy machine
            time.sleep(4)
            before, read = read, len(list(tmp_path.glob("*.read")))
        assert 0 < read < BATCHES

    def test_what_was_skipped_is_counted(self, cluster: Any, cnn: Model, tmp_path: Path) -> None:
        calibration_tensors = select_calibration_tensors(cnn)
        result = on_cluster(cnn, BrokenAndSlow(tmp_path), calibration_tensors, nonfinite="skip")
        assert result.statistics.tensors["x"].nonfinite == 1

    def test_findings_about_the_data_come_back(self, cluster: Any, cnn: Model, tmp_path: Path) -> None:
        for index in range(5):
            np.savez(tmp_path / f"{index}.npz", x=images(4, seed=index % 4))
        source = open_data(str(tmp_path), cnn.inputs)
        assert on_cluster(cnn, source, select_calibration_tensors(cnn)).audit.findings() == [
            "only 20 calibration samples: 100 to 1000 are advised",
            f"1 batches repeat earlier ones, e.g. {tmp_path}/4.npz repeats {tmp_path}/0.npz",
        ]

    def test_each_worker_loads_a_users_function_from_its_path(
        self, cluster: Any, cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("scale.txt").write_text("2")
        Path("load.py").write_text(
            "import numpy as np\n"
            "SCALE = float(open('scale.txt').read())\n"
            "def batches():\n"
            "    for seed in range(5):\n"
            "        yield {'x': SCALE * np.random.default_rng(seed).normal(size=(2, 16, 8, 8)).astype(np.float32)}\n"
        )
        source = open_data("load.py:batches", cnn.inputs)
        calibration_tensors = select_calibration_tensors(cnn)
        assert same_bytes(
            on_cluster(cnn, source, calibration_tensors).statistics,
            collect_statistics(cnn, source, calibration_tensors),
            tmp_path,
        )

    @pytest.mark.parametrize("batches", [1, 3])
    def test_fewer_batches_than_workers_or_shards_are_no_problem(
        self, cluster: Any, cnn: Model, tmp_path: Path, batches: int
    ) -> None:
        (tmp_path / "load.py").write_text(
            "import numpy as np\n"
            "def batches():\n"
            f"    return [{{'x': np.full((2, 16, 8, 8), i + 1, np.float32)}} for i in range({batches})]\n"
        )
        for index in range(batches):
            np.savez(tmp_path / f"{index}.npz", x=images(4, seed=index))
        calibration_tensors = select_calibration_tensors(cnn)
        for spec in (f"{tmp_path / 'load.py'}:batches", str(tmp_path)):
            source = open_data(spec, cnn.inputs)
            assert same_bytes(
                on_cluster(cnn, source, calibration_tensors).statistics,
                collect_statistics(cnn, source, calibration_tensors),
                tmp_path,
            )

    def test_shards_of_equal_samples_count_each(self, cluster: Any, cnn: Model, tmp_path: Path) -> None:
        np.savez(tmp_path / "d.npz", x=np.repeat(images(1), 8, axis=0))
        source = open_data(str(tmp_path / "d.npz"), cnn.inputs, batch_size=1)
        calibration_tensors = select_calibration_tensors(cnn)
        assert same_bytes(
            on_cluster(cnn, source, calibration_tensors).statistics,
            collect_statistics(cnn, source, calibration_tensors),
            tmp_path,
        )

    def test_no_batches_at_all_is_an_error(self, cluster: Any, cnn: Model, tmp_path: Path) -> None:
        (tmp_path / "load.py").write_text("def batches():\n    return []\n")
        source = open_data(f"{tmp_path / 'load.py'}:batches", cnn.inputs)
        with pytest.raises(DataError, match="the data has no batches"):
            on_cluster(cnn, source, select_calibration_tensors(cnn))

    def test_another_model_on_a_node_is_refused_by_the_nodes_name(
        self, cluster: Any, cnn: Model, tmp_path: Path
    ) -> None:
        residual_cnn(cnn.path, seed=1)
        message = rf"^node {socket.gethostname()}: {cnn.path} is another model on that node: .* the weights"
        with pytest.raises(ModelError, match=message):
            on_cluster(cnn, Made(tmp_path), select_calibration_tensors(cnn))

    def test_a_model_missing_on_a_node_is_reported_with_the_nodes_name(
        self, cluster: Any, cnn: Model, tmp_path: Path
    ) -> None:
        cnn.path.unlink()
        with pytest.raises(ModelError, match=rf"^node {socket.gethostname()}: {cnn.path}: no such model file; the mod"):
            on_cluster(cnn, Made(tmp_path), select_calibration_tensors(cnn))

    def test_a_users_file_missing_on_a_node_is_reported_with_the_nodes_name(
        self, cluster: Any, cnn: Model, tmp_path: Path
    ) -> None:
        (tmp_path / "load.py").write_text("def batches():\n    return []\n")
        source = open_data(f"{tmp_path / 'load.py'}:batches", cnn.inputs)
        (tmp_path / "load.py").unlink()
        with pytest.raises(ClusterError, match=rf"^node {socket.gethostname()}: .*load\.py: no such Python file"):
            on_cluster(cnn, source, select_calibration_tensors(cnn))

    def test_a_source_that_cannot_be_pickled_is_refused(self, cluster: Any, cnn: Model) -> None:
        source = open_data(threading.Lock().acquire, cnn.inputs)
        with pytest.raises(DataError, match="this data source cannot be sent to other machines: "):
            on_cluster(cnn, source, select_calibration_tensors(cnn))

    def test_progress_counts_shards(self, cluster: Any, cnn: Model, tmp_path: Path) -> None:
        seen = []

        def progress(shards: Any, description: str, total: int | None) -> Any:
            for shard in shards:
                seen.append((shard.index, description, total))
                yield shard

        on_cluster(cnn, Made(tmp_path), select_calibration_tensors(cnn), progress=progress)
        assert sorted(seen) == [(index, "Calibrating", 8) for index in range(8)]

    def test_a_real_model_gives_the_same_bytes(self, cluster: Any, tmp_path: Path) -> None:
        model = load_model(recogniser.model())
        source = open_data(partial(recogniser.calibration, samples=12), model.inputs)
        calibration_tensors = select_calibration_tensors(model)
        assert same_bytes(
            on_cluster(model, source, calibration_tensors).statistics,
            collect_statistics(model, source, calibration_tensors),
            tmp_path,
        )

    def test_findings_are_those_of_one_process(self, cluster: Any, cnn: Model, tmp_path: Path) -> None:
        audit = Audit()
        list(observe(Made(tmp_path), audit))
        assert on_cluster(cnn, Made(tmp_path), select_calibration_tensors(cnn)).audit.findings() == audit.findings()


@pytest.mark.parametrize("address", ["", "nonsense", ":6379", "ray://head:10001", "head:port"])
def test_an_invalid_address_is_refused(address: str, cnn: Model, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs ray")
    with pytest.raises(UsageError, match="is not the address of a Ray cluster: use local, auto or HOST:PORT"):
        collect_on_ray(cnn, Made(tmp_path), select_calibration_tensors(cnn), address=address)


def test_an_address_where_nobody_listens_is_refused_at_once(cnn: Model, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs ray")
    with pytest.raises(ClusterError, match=r"no Ray cluster at '127\.0\.0\.1:1': .*refused \(--ray local starts"):
        collect_on_ray(cnn, Made(tmp_path), select_calibration_tensors(cnn), address="127.0.0.1:1")


def test_without_ray_the_pip_command_is_shown(cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackageError, match=r'pip install "trt-ptq\[ray\]"'):
        collect_on_ray(cnn, Made(tmp_path), select_calibration_tensors(cnn))
