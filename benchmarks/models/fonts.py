"""Typefaces from wheels and from Pillow, never from the system: text looks the same on every machine."""

from __future__ import annotations

from functools import cache
from typing import cast

from PIL import ImageFont

from benchmarks.models.wheels import wheel_file

_FILES = {
    "source-sans": (
        "font-source-sans-pro==0.0.1",
        "font_source_sans_pro/files/SourceSansPro-Regular.ttf",
        "b77f3a700edd0fc0dec73258f882d5c3926c77f5caf6800a201d2166568d2309",
    ),
    "source-sans-bold": (
        "font-source-sans-pro==0.0.1",
        "font_source_sans_pro/files/SourceSansPro-Bold.ttf",
        "2efc3a95d076f2d04c5928c0ad698b7c61cc302d6f6e79e9643cd3722f7becc2",
    ),
    "source-serif": (
        "font-source-serif-pro==0.0.1",
        "font_source_serif_pro/files/SourceSerifPro-Regular.ttf",
        "b4e0771f06d8f6573a535312762b0b2f4fb9a03372239e39b0e7cf203da8ea9a",
    ),
    "source-serif-italic": (
        "font-source-serif-pro==0.0.1",
        "font_source_serif_pro/files/SourceSerifPro-It.ttf",
        "13e315bc49bd04ef89228db5fbc793e407d76f9ffadda4e5e08894fb474736eb",
    ),
    "caladea": (
        "font-caladea==0.0.2",
        "font_caladea/files/Caladea-Regular.ttf",
        "d2f6cad33f191e65b68bd74e6d4f7708080a41b32db635866109df3090265d91",
    ),
    "fredoka": (
        "font-fredoka-one==0.0.4",
        "font_fredoka_one/files/FredokaOne-Regular.ttf",
        "a2fbb1416510efe20330272bc182d667efe1507db5faecde893084fb15953973",
    ),
}

_LAYOUT = ImageFont.Layout.BASIC  # the other engine exists only on some machines

FONT_NAMES = ("aileron", *_FILES)


@cache
def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """The typeface `name` (one of FONT_NAMES) at `size` pixels; `aileron` is the one inside Pillow."""
    if name == "aileron":
        built_in = cast(ImageFont.FreeTypeFont, ImageFont.load_default(size))
        return built_in.font_variant(layout_engine=_LAYOUT)
    return ImageFont.truetype(wheel_file(*_FILES[name]), size, layout_engine=_LAYOUT)
