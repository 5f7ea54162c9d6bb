"""Which layer a builder has no implementation for, by its error messages.

The forms are those of public build logs of TensorRT 8 to 10; TensorRT does not document them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# A closing parenthesis of the name belongs to it only if it was opened in it: the message itself may be in parentheses.
_FORMS = (
    re.compile(r"[Cc]ould not find any implementation for node (?P<layer>.+)"),
    re.compile(r"No supported formats for (?P<layer>.+)"),
    re.compile(r"No implementation of layer (?P<layer>.+?) obeys the requested constraints"),
    re.compile(r"(?:\(|^|: )(?P<layer>[^()\s]+): could not find any supported formats consistent with"),
)
_AFTERWARDS = re.compile(r"\s*,? please check the TensorRT operator doc.*$")
_WORKSPACE = "insufficient workspace"  # more memory mends this, not other precisions


def unsupported_layer(messages: Iterable[str]) -> str | None:
    """The name of the first layer that one of the builder's messages says there is no implementation for.

    Returns:
        The name as the builder writes it, such as "w + w_QuantizeLinear + /conv/Conv + PWN(/act/Sigmoid)"; see
        `int8_nodes_of_layer`. None if there is none, or if the builder lacks workspace for it.
    """
    for message in messages:
        line = next(iter(message.splitlines()), "")
        for form in _FORMS:
            match = form.search(line)
            if match and _WORKSPACE not in line:
                return _without_frame(_AFTERWARDS.sub("", match["layer"]))
    return None


def _without_frame(name: str) -> str:
    """`name` without the full stop and the parenthesis that end the message around it."""
    name = name.strip().removesuffix(".")
    while name.endswith((")", ".")) and (name.endswith(".") or name.count(")") > name.count("(")):
        name = name[:-1]
    return name.strip()
