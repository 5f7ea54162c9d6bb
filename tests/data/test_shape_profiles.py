"""Shape profiles from the observed shapes, and checks of given ones against the model."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from trt_ptq.data.observation import observe
from trt_ptq.data.shape_profiles import ShapeObserver, match_profiles, profiles_from_shapes, wider_profile
from trt_ptq.data.sources import InMemorySource
from trt_ptq.errors import UsageError
from trt_ptq.types import Batch, ShapeProfile, TensorSpec

FLOAT = np.dtype(np.float32)
A = TensorSpec("a", FLOAT, ("n", 16, 8, 8))
B = TensorSpec("b", FLOAT, ("n", 16, 8, 8))
FIXED = TensorSpec("fixed", FLOAT, (1, 16, 8, 8))
PROFILE = ShapeProfile((1, 16, 8, 8), (2, 16, 8, 8), (4, 16, 8, 8))


def observed(*widths: int) -> dict[str, Counter[tuple[int, ...]]]:
    """The shapes of a batch of two images for each width."""
    shapes = ShapeObserver()
    feeds = [{"x": np.zeros((2, 3, 48, width), np.float32), "fixed": np.zeros(4, np.float32)} for width in widths]
    list(observe(InMemorySource([Batch(item, "") for item in feeds]), shapes))
    return shapes.seen


class TestObservedShapes:
    def test_every_shape_is_counted(self) -> None:
        assert observed(64, 32, 64) == {
            "x": Counter({(2, 3, 48, 64): 2, (2, 3, 48, 32): 1}),
            "fixed": Counter({(4,): 3}),
        }

    def test_a_profile_spans_all_shapes_and_is_optimized_for_the_most_frequent_one(self) -> None:
        inputs = (TensorSpec("x", FLOAT, ("n", 3, "?", "w")), TensorSpec("fixed", FLOAT, (4,)))
        assert profiles_from_shapes(observed(64, 32, 64, 128), inputs) == {
            "x": ShapeProfile(minimum=(1, 3, 48, 32), optimum=(2, 3, 48, 64), maximum=(2, 3, 48, 128))
        }

    def test_a_fixed_batch_stays_fixed(self) -> None:
        inputs = (TensorSpec("x", FLOAT, (2, 3, 48, "w")),)
        profile = profiles_from_shapes({"x": Counter({(2, 3, 48, 32): 1})}, inputs)["x"]
        assert profile.minimum == profile.maximum == (2, 3, 48, 32)

    def test_a_key_value_cache_may_start_empty_but_the_engine_is_optimized_for_a_filled_one(self) -> None:
        seen: dict[str, Counter[tuple[int, ...]]] = {"past": Counter({(2, 4, 0, 8): 5, (2, 4, 16, 8): 3})}
        profile = profiles_from_shapes(seen, (TensorSpec("past", FLOAT, ("n", 4, "past", 8)),))["past"]
        assert profile == ShapeProfile((1, 4, 0, 8), (2, 4, 16, 8), (2, 4, 16, 8))
        assert ShapeProfile.parse(str(profile)) == profile

    def test_scalars_get_no_profile(self) -> None:
        assert profiles_from_shapes({"scalar": Counter({(): 1})}, (TensorSpec("scalar", FLOAT, ()),)) == {}


class TestWiderProfiles:
    @pytest.mark.parametrize(
        ("observed_profile", "shape", "wider"),
        [
            ("1x48:4x48:8x48", ("n", "seq"), "1x24:4x48:8x96"),
            ("1x3x32:1x3x64:1x3x64", ("n", 3, "w"), "1x3x16:1x3x64:8x3x128"),
            ("1x4x0x8:2x4x1x8:2x4x1x8", ("n", 4, "past", 8), "1x4x0x8:2x4x1x8:2x4x2x8"),
            ("1x1:2x1:2x1", ("n", "seq"), "1x1:2x1:2x2"),
            ("1x16:4x16:8x16", ("n", 16), "1x16:4x16:8x16"),
        ],
    )
    def test_dynamic_axes_accept_half_to_twice_and_a_batch_of_one_up_to_eight(
        self, observed_profile: str, shape: tuple[int | str, ...], wider: str
    ) -> None:
        assert str(wider_profile(ShapeProfile.parse(observed_profile), TensorSpec("x", FLOAT, shape))) == wider


class TestGivenProfiles:
    @pytest.mark.parametrize("profiles", [{}, {"a": PROFILE, "b": PROFILE}], ids=["none", "all"])
    def test_none_or_all_dynamic_inputs_have_a_profile(self, profiles: dict[str, ShapeProfile]) -> None:
        match_profiles(profiles, (A, B, FIXED))

    def test_a_missing_profile_is_named(self) -> None:
        with pytest.raises(UsageError, match=r"`shapes` is missing for b: float32 \[n, 16, 8, 8\], which is dynamic"):
            match_profiles({"a": PROFILE}, (A, B, FIXED))

    def test_an_unknown_input_is_refused_with_the_known_ones(self) -> None:
        with pytest.raises(UsageError, match=r"`shapes` names unknown input 'c': the model has a, b"):
            match_profiles({"c": PROFILE}, (A, B))

    @pytest.mark.parametrize("sizes", [(1, 16, 8), (1, 32, 8, 8)], ids=["rank", "size"])
    def test_a_profile_that_does_not_fit_is_refused(self, sizes: tuple[int, ...]) -> None:
        with pytest.raises(UsageError, match=r"does not fit the model's a: float32 \[n, 16, 8, 8\]"):
            match_profiles({"a": ShapeProfile(sizes, sizes, sizes)}, (A,))

    def test_two_patterns_that_disagree_on_an_input_are_refused(self) -> None:
        other = ShapeProfile((1, 16, 8, 8), (1, 16, 8, 8), (1, 16, 8, 8))
        with pytest.raises(UsageError, match=r"`shapes` gives 'a' both .* and, by '\?', 1x16x8x8"):
            match_profiles({"*": PROFILE, "?": other}, (A, B))
        assert match_profiles({"*": PROFILE, "?": PROFILE}, (A, B)) == {"a": PROFILE, "b": PROFILE}

    def test_a_pattern_names_all_inputs_that_are_not_named_themselves(self) -> None:
        own = ShapeProfile((1, 16, 8, 8), (1, 16, 8, 8), (1, 16, 8, 8))
        assert match_profiles({"*": PROFILE, "fixed": own}, (A, B, FIXED)) == {"a": PROFILE, "b": PROFILE, "fixed": own}

    def test_a_pattern_that_matches_nothing_is_an_unknown_input(self) -> None:
        with pytest.raises(UsageError, match=r"`shapes` names unknown input 'past\.\*'"):
            match_profiles({"past.*": PROFILE}, (A, B))
