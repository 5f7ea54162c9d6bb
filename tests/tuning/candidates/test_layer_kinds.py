"""Which layers are of one kind."""

from __future__ import annotations

from trt_ptq.tuning.candidates.layer_kinds import kinds_of_layers


def test_layers_whose_names_differ_in_numbers_are_of_one_kind() -> None:
    sources = {"layers.0.q": ["a"], "layers.0.down": ["b"], "layers.1.q": ["c"], "layers.1.down": ["d"], "head": ["e"]}
    assert kinds_of_layers(sources) == [("layers.0.q", "layers.1.q"), ("layers.0.down", "layers.1.down"), ("head",)]


def test_layers_that_read_one_tensor_are_of_one_kind() -> None:
    sources = {"layers.0.q": ["a"], "layers.0.k": ["a"], "layers.1.k": ["b"], "layers.1.v": ["b"], "head": ["c", "d"]}
    assert kinds_of_layers(sources) == [("layers.0.q", "layers.0.k", "layers.1.k", "layers.1.v"), ("head",)]
