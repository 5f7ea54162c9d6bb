"""Calibration batches of a language model: prefill, and decode steps whose cache the FP32 model has filled."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from trt_ptq.errors import DataError
from trt_ptq.language_models.decoder import DecoderLayout
from trt_ptq.language_models.text.samples import TokenSample
from trt_ptq.language_models.text.sampling import bucket_label, length_bucket
from trt_ptq.onnx_io.ort_session import load_session, model_fails
from trt_ptq.types import Array, Batch, contiguous

_DECODE_PERIOD = 4  # one group in four decodes: a decode step has the values of the prefill, and in addition the past
_MAX_DECODED_GROUPS = 16  # bounds the time to fill caches, and their files
_MAX_TOKENS = 1024  # of a batch: 49,152 logits of each take 0.2 GB, and activations twice as much


@dataclass(frozen=True)
class _Step:
    """A batch: the whole texts of a group, or the token at `position` after a cache of the ones before."""

    group: int
    position: int | None = None


class DecoderBatches:
    """A batch source of texts, the same in every pass.

    Texts are never padded, as padding would be measured too: a batch holds texts of one length, of up to 1024 tokens
    together, or one text. Each group of texts is a prefill with an empty cache. One group in four, up to 16, adds two
    decode steps: one token after half of the text, and the last token after all others. A causal model computes the
    same values for a token in prefill and decode, so more steps would add only time; what decode adds are the past
    tensors.

    Args:
        model: the FP32 model that fills the caches.
        layout: its inputs and outputs.
        samples: the texts, in the order in which batches are formed.
        folder: where the filled caches are kept, so that memory does not grow with the data.
        batch_size: largest number of texts in a batch.

    Raises:
        DataError: there are no texts.
    """

    def __init__(
        self, model: Path, layout: DecoderLayout, samples: Sequence[TokenSample], folder: Path, batch_size: int = 8
    ) -> None:
        if not samples:
            raise DataError("the data has no texts")
        self._model = model
        self._layout = layout
        self._folder = folder
        self._groups = _groups_of_one_length(samples, batch_size)
        self._steps = _schedule([len(group[0].ids) for group in self._groups])
        self._used: Sequence[_Step] = self._steps

    @property
    def total(self) -> int:
        return len(self._steps)

    def for_shard(self, index: int, count: int) -> DecoderBatches:
        """The same batches, of which only every `count`-th from `index` on is read: only their caches are filled."""
        part = copy(self)
        part._used = self._steps[index::count]
        return part

    def fill_caches(self) -> None:
        """Fill the caches of decode steps now: later, beside another session, two copies of the weights are in memory.

        Raises:
            DataError: the model fails.
            ModelError: ONNX Runtime cannot load it.
        """
        _ = self._filled

    def batch(self, index: int) -> Batch:
        """Batch `index`; its group is the length bucket of its texts, such as "32-63", in prefill and decode alike.

        Raises:
            DataError: the model fails while a cache is filled.
        """
        step = self._steps[index]
        group = self._groups[step.group]
        ids = np.stack([sample.ids for sample in group])
        length = bucket_label(length_bucket(ids.shape[1]))
        if step.position is None:
            return Batch(self._layout.feeds(ids), f"{_origin(group)}, prefill of {ids.shape[1]} tokens", length)
        past = self._cache(step.group, step.position)
        token = ids[:, step.position : step.position + 1]
        return Batch(self._layout.feeds(token, past), f"{_origin(group)}, decode at token {step.position}", length)

    def __iter__(self) -> Iterator[Batch]:
        return map(self.batch, range(self.total))

    def _cache(self, group: int, length: int) -> dict[str, Array]:
        with np.load(self._filled[group], allow_pickle=False) as file:
            return {tensor.past: file[tensor.past][:, :, :length] for tensor in self._layout.cache}

    @cached_property
    def _filled(self) -> dict[int, Path]:
        """The file of the filled cache of each group that decodes. The FP32 model is loaded for that, once."""
        session = load_session(self._model, str(self._model))
        names = [tensor.present for tensor in self._layout.cache]
        files = {}
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        for index in dict.fromkeys(step.group for step in self._used if step.position is not None):
            group = self._groups[index]
            feeds = self._layout.feeds(np.stack([sample.ids[:-1] for sample in group]))
            try:
                outputs = dict(zip(names, session.run(names, contiguous(feeds)), strict=True))
            except Exception as error:  # ONNX Runtime has no common base for its errors
                raise model_fails(Batch(feeds, _origin(group)), error) from error
            files[index] = folder / f"{index}.npz"
            np.savez(files[index], **self._layout.past(outputs))  # type: ignore[arg-type]
        return files


def _groups_of_one_length(samples: Sequence[TokenSample], batch_size: int) -> list[list[TokenSample]]:
    """Groups of up to `batch_size` texts of one length, in the order of the first text of each group."""
    groups: list[list[TokenSample]] = []
    open_groups: dict[int, list[TokenSample]] = {}
    for sample in samples:
        group = open_groups.get(len(sample.ids))
        if group is None or len(group) == batch_size or (len(group) + 1) * len(sample.ids) > _MAX_TOKENS:
            group = open_groups[len(sample.ids)] = []
            groups.append(group)
        group.append(sample)
    return groups


def _schedule(lengths: Sequence[int]) -> list[_Step]:
    decoding = [index for index, length in enumerate(lengths) if length > 1][::_DECODE_PERIOD]
    spacing = -(-len(decoding) // _MAX_DECODED_GROUPS) or 1
    chosen = set(decoding[::spacing])
    steps = []
    for index, length in enumerate(lengths):
        steps.append(_Step(index))
        if index in chosen:
            steps += [_Step(index, position) for position in sorted({length // 2, length - 1})]
    return steps


def _origin(group: Sequence[TokenSample]) -> str:
    more = f" and {len(group) - 1} more" if len(group) > 1 else ""
    return f"{group[0].origin}{more}"
