"""Tokens of texts: cut, without near-duplicates, drawn over lengths and groups, audited."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tests.decoders import VOCABULARY, WINDOW, sentences, tiny_tokenizer
from trt_ptq.errors import DataError, MissingPackageError, UsageError
from trt_ptq.language_models.text.near_duplicates import without_near_duplicates
from trt_ptq.language_models.text.prompts import ChatMessage, Prompt
from trt_ptq.language_models.text.samples import TokenSample, check_max_length, tokenize
from trt_ptq.language_models.text.sampling import draw_samples, length_bucket
from trt_ptq.language_models.text.text_audit import TextAudit, advised_samples, audit_text
from trt_ptq.language_models.text.tokenizer import TextTokenizer, load_tokenizer

PARAMETERS = 135_000_000


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    pytest.importorskip("transformers")
    return load_tokenizer(tiny_tokenizer(), WINDOW)


def random_samples(*lengths: int, seed: int = 0, group: tuple[str, ...] = ()) -> list[TokenSample]:
    random = np.random.default_rng(seed)
    return [TokenSample(random.integers(0, VOCABULARY, length), f"text {i}", group) for i, length in enumerate(lengths)]


def audit(calibration: list[TokenSample], held_out: list[TokenSample]) -> TextAudit:
    return audit_text(len(calibration), 0, calibration, held_out, PARAMETERS, VOCABULARY)


class TestTokenizer:
    def test_it_encodes_and_decodes(self, tokenizer: TextTokenizer) -> None:
        ids = tokenizer.encode("the old king")
        assert tokenizer.decode(ids) == "the old king"
        assert tokenizer.begin_id is None
        assert tokenizer.end_id == 1

    def test_the_window_is_that_of_the_model_beside_it(self, tokenizer_folder: Path, tmp_path: Path) -> None:
        assert load_tokenizer(tokenizer_folder).window is None
        for file in tokenizer_folder.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        (tmp_path / "config.json").write_text('{"text_config": {"max_position_embeddings": 99}}')
        assert load_tokenizer(tmp_path).window == 99

    def test_one_of_another_model_is_refused(self, tokenizer: TextTokenizer) -> None:
        tokenizer.check_fits(VOCABULARY, "model.onnx")
        with pytest.raises(DataError, match=r"tokens up to 319, and model\.onnx has 300 tokens: it belongs to another"):
            tokenizer.check_fits(300, "model.onnx")

    def test_a_folder_without_a_tokenizer_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="has no tokenizer"):
            load_tokenizer(tmp_path)
        (tmp_path / "tokenizer.json").write_text("{")
        with pytest.raises(UsageError, match="cannot load the tokenizer") as refused:
            load_tokenizer(tmp_path)
        assert "\n" not in str(refused.value)

    def test_something_else_is_refused(self) -> None:
        with pytest.raises(UsageError, match="`tokenizer` must be a folder or a Hugging Face tokenizer, not int"):
            load_tokenizer(3)


class TestTokenize:
    def test_texts_beyond_the_window_are_refused_unless_they_are_cut(self, tokenizer: TextTokenizer) -> None:
        text = " ".join(sentences(20))
        prompts = [Prompt(text, "tale.txt")]
        with pytest.raises(
            DataError, match=r"tale\.txt: has \d+ tokens, and the model's window has 128: .*`max_length`"
        ):
            tokenize(prompts, tokenizer)
        pieces = tokenize(prompts, tokenizer, 32)
        whole = tokenizer.encode(text)
        assert np.array_equal(np.concatenate([piece.ids for piece in pieces]), whole[: sum(len(p.ids) for p in pieces)])
        assert {len(piece.ids) for piece in pieces[:-1]} == {32}
        assert len(pieces[-1].ids) >= 16
        assert pieces[1].origin == "tale.txt, piece 1"

    def test_each_piece_begins_with_the_token_that_begins_texts(self) -> None:
        from tokenizers.processors import TemplateProcessing

        own = tiny_tokenizer()
        own._tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
        tokenizer = load_tokenizer(own)
        assert tokenizer.begin_id == 0
        pieces = tokenize([Prompt(" ".join(sentences(10)), "tale")], tokenizer, 16)
        assert {int(piece.ids[0]) for piece in pieces} == {0}
        assert sum(int(token == 0) for piece in pieces for token in piece.ids) == len(pieces)

    def test_a_chat_is_written_by_the_template_of_the_tokenizer(self) -> None:
        own = tiny_tokenizer()
        own.chat_template = (
            "{% for message in messages %}{% if message.role == 'tool' %}{{ raise_exception('no tools here') }}"
            "{% endif %}<s>{{ message.content }}{% endfor %}"
        )
        tokenizer = load_tokenizer(own)
        chat = (ChatMessage("user", "the old king"), ChatMessage("assistant", "said the king"))
        (sample,) = tokenize([Prompt(chat, "row 3")], tokenizer)
        expected = [0, *tokenizer.encode("the old king"), 0, *tokenizer.encode("said the king")]
        assert sample.ids.tolist() == expected
        with pytest.raises(DataError, match=r"row 3: the chat template of .* refuses it: .*no tools here"):
            tokenize([Prompt((ChatMessage("tool", "x"),), "row 3")], tokenizer)

    def test_a_chat_needs_a_template(self, tokenizer: TextTokenizer) -> None:
        with pytest.raises(DataError, match=r"row 3: is a chat, and .* has no chat template"):
            tokenize([Prompt((ChatMessage("user", "the old king"),), "row 3")], tokenizer)

    def test_single_tokens_are_no_samples(self, tokenizer: TextTokenizer) -> None:
        assert len(tokenize([Prompt("a", "x"), Prompt("the king said", "y")], tokenizer)) == 1
        with pytest.raises(DataError, match="no text has 2 tokens"):
            tokenize([Prompt("a", "x")], tokenizer)

    def test_pieces_longer_than_the_window_are_refused(self) -> None:
        check_max_length(128, 128)
        check_max_length(None, 128)
        check_max_length(256, None)
        with pytest.raises(UsageError, match="`max_length=129` exceeds the model's window of 128"):
            check_max_length(129, 128)


class TestNearDuplicates:
    def test_copies_with_few_changes_are_dropped(self) -> None:
        samples = random_samples(60, 60, 60)
        ids = samples[0].ids.copy()
        ids[30] = (ids[30] + 1) % VOCABULARY
        assert without_near_duplicates([*samples, TokenSample(ids, "copy")]) == samples

    def test_texts_that_share_a_half_are_kept(self) -> None:
        first, second = random_samples(60, 60)
        half = TokenSample(np.concatenate([first.ids[:30], second.ids[30:]]), "half")
        assert len(without_near_duplicates([first, second, half])) == 3

    def test_a_missing_package_is_named_with_its_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "datasketch", None)
        with pytest.raises(MissingPackageError, match=r'datasketch is required .*pip install "trt-ptq\[llm\]"'):
            without_near_duplicates(random_samples(2))

    def test_short_texts_are_compared_too(self) -> None:
        assert len(without_near_duplicates([*random_samples(2), *random_samples(2), *random_samples(2, seed=1)])) == 2


class TestSampling:
    def test_rare_lengths_and_languages_are_kept(self) -> None:
        samples = [
            *random_samples(*[20] * 900, group=("en",)),
            *random_samples(*[500] * 3, group=("en",)),
            *random_samples(*[20] * 5, group=("de",)),
        ]
        drawn = draw_samples(samples, 20)
        assert len(drawn) == 20
        assert sum(len(sample.ids) == 500 for sample in drawn) == 3
        assert sum(sample.group == ("de",) for sample in drawn) == 5

    def test_it_is_the_same_twice_and_shuffled(self) -> None:
        samples = random_samples(*range(2, 200))
        first, second = draw_samples(samples, 50), draw_samples(samples, 50)
        assert [sample.origin for sample in first] == [sample.origin for sample in second]
        assert [len(sample.ids) for sample in first] != sorted(len(sample.ids) for sample in first)

    def test_all_are_drawn_if_there_are_fewer(self) -> None:
        assert {sample.origin for sample in draw_samples(random_samples(5, 6), 9)} == {"text 0", "text 1"}

    @pytest.mark.parametrize(("length", "bucket"), [(1, (1, 1)), (32, (32, 63)), (63, (32, 63)), (64, (64, 127))])
    def test_buckets_are_powers_of_two(self, length: int, bucket: tuple[int, int]) -> None:
        assert length_bucket(length) == bucket


class TestAudit:
    def test_it_says_how_many_and_which_lengths(self, tokenizer: TextTokenizer) -> None:
        samples = tokenize([Prompt(text, "x", ("tales",)) for text in sentences(120)], tokenizer)
        found = audit(samples, random_samples(40))
        assert found.findings == ()
        assert found.samples == sum(bucket.samples for bucket in found.lengths) == 120
        assert found.groups == {"tales": 120}
        assert str(found).startswith(f"120 calibration texts of {found.tokens} tokens (")

    def test_too_few_for_the_size_of_the_model(self) -> None:
        assert [advised_samples(size) for size in (PARAMETERS, 7_000_000_000, 70_000_000_000)] == [
            (100, 500),
            (500, 1000),
            (1000, 2000),
        ]
        assert audit(random_samples(9), []).findings == (
            "only 1 calibration texts: 100 to 500 are advised for a model with 135 million parameters",
        )

    def test_text_that_is_evaluated_too(self) -> None:
        calibration = random_samples(*[40] * 100)
        inside = TokenSample(np.concatenate([calibration[3].ids[:30], calibration[4].ids]), "evaluated")
        (finding, _) = audit(calibration, [inside]).findings
        assert finding.startswith("2 of 100 calibration texts are also in the evaluation text, e.g. text 3")

    def test_random_tokens(self) -> None:
        (finding,) = audit(random_samples(*[40] * 100), []).findings
        assert "looks like random tokens" in finding
