"""The result of a transformation of the float model before quantization."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir


@dataclass(frozen=True)
class TransformSite:
    """A place in the model: the name of a tensor, and a note about what was done there or why nothing was."""

    tensor: str
    note: str

    def __str__(self) -> str:
        return f"{self.tensor!r}: {self.note}"


@dataclass(frozen=True)
class TransformResult:
    """A float model that computes the same function as before; its tensors and weights keep their names.

    Attributes:
        model: the transformed model; unchanged if nothing was applied.
        applied: the places that changed.
        skipped: places where the transformation would apply, were it not for the reason in the note.
        changed: tensors whose values are changed; all others are the same function of the inputs as before.
    """

    model: ir.Model
    applied: tuple[TransformSite, ...]
    skipped: tuple[TransformSite, ...]
    changed: frozenset[str] = frozenset()
