"""What a change of the float model before quantization did, and where it could not be made."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir


@dataclass(frozen=True)
class TransformSite:
    """A place in the model, by the name of a tensor, and what is to be said of it."""

    tensor: str
    note: str

    def __str__(self) -> str:
        return f"{self.tensor!r}: {self.note}"


@dataclass(frozen=True)
class TransformResult:
    """A float model that computes the same function; tensors that it had keep their names, and weights theirs.

    `applied` are the places that changed, `skipped` those that would fit but for the reason in the note. Without any
    `applied` the model is the one that there was.
    """

    model: ir.Model
    applied: tuple[TransformSite, ...]
    skipped: tuple[TransformSite, ...]
