"""From prompts to token samples: tokenised, cut to length."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from trt_ptq.errors import DataError, UsageError
from trt_ptq.language_models.text.prompts import Prompt
from trt_ptq.language_models.text.tokenizer import TextTokenizer
from trt_ptq.types import Array

_SHORTEST = 2  # tokens: a single one predicts nothing that could be scored


@dataclass(frozen=True)
class TokenSample:
    """The tokens of a text or of a piece of one.

    Attributes:
        ids: the tokens [length].
        origin: where it came from, for messages.
        group: its source, language and so on.
        document: the number of the text in the data.
        piece: the number of the piece in the text.
    """

    ids: Array
    origin: str
    group: tuple[str, ...] = ()
    document: int = 0
    piece: int = 0

    def ngrams(self, size: int) -> set[bytes]:
        """The distinct sequences of `size` tokens, as bytes; the whole text if it is shorter."""
        size = min(size, len(self.ids))
        return {self.ids[start : start + size].tobytes() for start in range(len(self.ids) - size + 1)}


def check_max_length(max_length: int | None, window: int | None) -> None:
    """Make sure that texts are not cut longer than the model can read.

    Raises:
        UsageError: `max_length` exceeds the window.
    """
    if max_length is not None and window is not None and max_length > window:
        raise UsageError(f"`max_length={max_length}` exceeds the model's window of {window} tokens")


def tokenize(prompts: Iterable[Prompt], tokenizer: TextTokenizer, max_length: int | None = None) -> list[TokenSample]:
    """The tokens of each prompt; prompts without two tokens are left out.

    Args:
        prompts: the texts.
        tokenizer: what makes tokens of them.
        max_length: cut longer texts into pieces of this many tokens, each of which begins with the tokenizer's
            begin-of-text token, if it has one; a remainder shorter than half of that is dropped.

    Raises:
        DataError: a text is longer than the model's window, and `max_length` is not given; or a chat that the
            tokenizer has no template for.
    """
    samples = []
    begin = tokenizer.begin_id if max_length else None
    for document, prompt in enumerate(prompts):
        ids = tokenizer.encode_prompt(prompt)
        if max_length is None and tokenizer.window is not None and len(ids) > tokenizer.window:
            raise DataError(
                f"{prompt.origin}: has {len(ids)} tokens, and the model's window has {tokenizer.window}: cut texts "
                f"into pieces by `max_length`, of at most {tokenizer.window} tokens"
            )
        pieces = [ids] if max_length is None else _cut(ids, max_length, begin)
        for index, piece in enumerate(pieces):
            where = prompt.origin if len(pieces) == 1 else f"{prompt.origin}, piece {index}"
            if len(piece) >= _SHORTEST:
                samples.append(TokenSample(piece, where, prompt.group, document, index))
    if not samples:
        raise DataError(f"no text has {_SHORTEST} tokens or more")
    return samples


def _cut(ids: Array, length: int, begin: int | None) -> list[Array]:
    if len(ids) <= length:
        return [ids]
    prefix = np.array([] if begin is None or ids[0] != begin else [begin], np.int64)  # a chat may begin otherwise
    content = ids[len(prefix) :]
    step = length - len(prefix)
    pieces = [content[start : start + step] for start in range(0, len(content), step)]
    return [np.concatenate([prefix, piece]) for piece in pieces if len(piece) >= step / 2]
