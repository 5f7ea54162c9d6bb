"""Stand-in: calibrators take every form of data, and all forms give the same cache."""

from __future__ import annotations

import numpy as np
import pytest

from tests.calibrators.tensorrt.builds.building import batches
from tests.calibrators.tensorrt.builds.leaks import assert_nothing_leaked
from tests.calibrators.tensorrt.builds.tables import cache_text, header
from tests.calibrators.tensorrt.conftest import LATEST, Play

FORMS = """
class Source:
    total = 3

    def __iter__(self):
        return iter(Batch(feeds, f"file {index}") for index, feeds in enumerate(batches(3)))

class Dataset:  # as Hugging Face's
    column_names = ["image", "mask", "label"]

    def __len__(self):
        return 12

    def __getitem__(self, rows):
        return {"label": [0] * 4, **{name: list(array[rows]) for name, array in everything.items()}}

everything = {name: np.concatenate([feeds[name] for feeds in batches(3)]) for name in batches(1)[0]}
np.savez("all.npz", **everything)
Path("folder").mkdir()
for index, feeds in enumerate(batches(3)):
    np.savez(f"folder/{index}.npz", **feeds)
Path("data.py").write_text(
    "from tests.calibrators.tensorrt.builds.building import batches\\ndef load(): return batches(3)\\n"
)
forms = {
    "list": batches(3),
    "tuples": [(feeds["image"], feeds["mask"]) for feeds in batches(3)],
    "generator": (feeds for feeds in batches(3)),
    "function": lambda: iter(batches(3)),
    "source": Source(),
}
cut = {
    "arrays": everything,
    "file": "all.npz",
    "folder": Path("folder"),
    "file.py:function": "data.py:load",
    "dataset": Dataset(),
}
"""
BUILD_EACH = """
def table(data, **known):
    build = Build()
    outcome = build_with(EntropyCalibrator(data, **{**build.known, **known}), build)
    return outcome["raised"] or outcome["plans"][0]["table"]
"""


def test_every_form_gives_the_same_cache(play: Play) -> None:
    outcome = play(
        f"""
from trt_ptq.types import Batch
{FORMS}{BUILD_EACH}
tell(tables={{name: table(data) for name, data in {{**forms, **cut}}.items()}})
"""
    )
    expected = cache_text(header(LATEST), batches(3))
    assert outcome["tables"] == dict.fromkeys(outcome["tables"], expected)
    assert len(outcome["tables"]) == 10
    assert_nothing_leaked(outcome)


def test_torch_loaders_and_tensors_give_the_same_cache(play: Play) -> None:
    pytest.importorskip("torch")
    outcome = play(
        f"""
import torch
{BUILD_EACH}
tensors = [{{name: torch.from_numpy(array) for name, array in feeds.items()}} for feeds in batches(3)]
samples = [[torch.cat([feeds[name] for feeds in tensors]) for name in ("image", "mask")], torch.zeros(12)]
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*samples[0], samples[1]), batch_size=4)
tell(tables=[table(tensors), table(loader), table(loader, network=None)])
"""
    )
    assert outcome["tables"] == [cache_text(header(LATEST), batches(3))] * 3


def test_without_a_network_data_must_be_in_batches(play: Play) -> None:
    outcome = play(
        f"""
from trt_ptq.types import Batch
{FORMS}{BUILD_EACH}
tell(
    tables=[table(data, network=None) for data in forms.values()],
    raised=[raised_by(lambda data=data: EntropyCalibrator(data)) for data in cut.values()],
)
"""
    )
    assert outcome["tables"] == [cache_text(header(LATEST), batches(3))] * 5
    assert all(raised.startswith("UsageError: `network` is missing") for raised in outcome["raised"])


def test_missing_data_is_refused_before_the_build(play: Play) -> None:
    outcome = play("build = Build(); tell(raised=raised_by(lambda: EntropyCalibrator('nowhere', **build.known)))")
    assert outcome["raised"] == "DataError: nowhere: no such data file or folder"


def test_an_iterator_is_read_only_as_tensorrt_asks_for_batches(play: Play) -> None:
    outcome = play(
        """
        read = []

        def source():
            for index in range(4):
                read.append(index)
                yield batch(index)

        build = Build()
        calibrator = EntropyCalibrator(source(), **build.known)
        at_first = list(read)
        calibrator.get_batch(["image", "mask"])
        calibrator.release()
        tell(at_first=at_first, later=read)
        """
    )
    assert outcome["at_first"] == []
    assert outcome["later"] in ([0, 1], [0])  # one ahead


def test_a_folder_of_images_is_preprocessed(play: Play) -> None:
    pytest.importorskip("PIL")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 2, 2, 3), np.uint8)
    outcome = play(
        """
        from PIL import Image
        pixels = np.random.default_rng(0).integers(0, 256, (3, 2, 2, 3), np.uint8)
        Path("images").mkdir()
        for index, image in enumerate(pixels):
            Image.fromarray(image).save(f"images/{index}.png")
        build = Build(inputs=["image"])
        calibrator = EntropyCalibrator(
            "images", preprocess=lambda image: np.float32(image).transpose(2, 0, 1) / 255, **build.known
        )
        tell(**build_with(calibrator, build))
        """
    )
    assert outcome["raised"] is None
    fed = [{"image": np.asarray(pixels / 255, np.float32)}]
    assert outcome["plans"][0]["table"] == cache_text(header(LATEST), fed, names=["image"])
