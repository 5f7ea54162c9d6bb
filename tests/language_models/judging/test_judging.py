"""Perplexity by windows, next-token agreement and KL divergence."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.decoders import VOCABULARY, tiny_llama
from trt_ptq.errors import DataError
from trt_ptq.evaluation.by_sample.paired_test import PairedTest
from trt_ptq.evaluation.by_sample.sample_scores import SampleScores
from trt_ptq.evaluation.runners.onnx_runner import Run, onnx_runner
from trt_ptq.language_models.decoder import DecoderLayout, decoder_layout
from trt_ptq.language_models.judging.agreement import next_token_agreement
from trt_ptq.language_models.judging.generation import generate
from trt_ptq.language_models.judging.metric import LanguageModelMetric
from trt_ptq.language_models.judging.perplexity import perplexity, text_windows, token_losses
from trt_ptq.onnx_io.load import Model
from trt_ptq.types import Array, Feeds

TEXTS = [np.random.default_rng(seed).integers(0, VOCABULARY, length) for seed, length in enumerate((40, 7, 1))]


@pytest.fixture
def layout(decoder: Model) -> DecoderLayout:
    return decoder_layout(decoder)


@pytest.fixture
def run(decoder_path: Path) -> Iterator[Run]:
    with onnx_runner(decoder_path) as runner:
        yield lambda feeds: runner.infer(feeds, "test")


class TestWindows:
    def test_each_token_but_the_first_is_scored_once(self) -> None:
        scored = []
        for text in TEXTS:
            for window in text_windows([text], window=16, stride=4):
                assert len(window.ids) <= 16
                scored.append(window.ids[window.first_scored :])
        assert np.array_equal(np.concatenate(scored), np.concatenate([text[1:] for text in TEXTS]))

    def test_later_windows_have_context(self) -> None:
        windows = text_windows([np.arange(40)], window=16, stride=4)
        assert {window.first_scored for window in windows[1:]} == {12}
        assert windows[-1].ids[-1] == 39

    def test_windows_without_overlap_leave_the_first_token_of_each_out(self) -> None:
        windows = text_windows([np.arange(33)], window=16)
        assert [(window.ids[0], window.num_scored) for window in windows] == [(0, 15), (16, 15)]

    def test_a_text_within_the_window_is_one_window(self) -> None:
        (window,) = text_windows([TEXTS[1]], window=16)
        assert window.first_scored == 1


class TestPerplexity:
    def test_it_is_that_of_torch(self, run: Run, layout: DecoderLayout) -> None:
        import torch

        model, total, count = tiny_llama(), 0.0, 0
        for window in text_windows(TEXTS, window=16, stride=8):
            ids = torch.from_numpy(window.ids)[None]
            labels = ids.clone()
            labels[:, : window.first_scored] = -100
            with torch.no_grad():
                total += float(model(input_ids=ids, labels=labels).loss) * window.num_scored
            count += window.num_scored
        assert count == 39 + 6
        measured = perplexity(run, layout, text_windows(TEXTS, window=16, stride=8))
        assert measured == pytest.approx(math.exp(total / count), rel=1e-4)

    def test_a_uniform_model_has_the_perplexity_of_its_vocabulary(self, layout: DecoderLayout) -> None:
        def uniform(feeds: Feeds) -> dict[str, Array]:
            return {"logits": np.zeros((*feeds["input_ids"].shape, VOCABULARY), np.float32)}

        assert perplexity(uniform, layout, text_windows(TEXTS, 16)) == pytest.approx(VOCABULARY)

    def test_more_rows_than_are_computed_at_a_time(self) -> None:
        logits, ids = np.random.default_rng(0).normal(size=(150, 5)), np.arange(150) % 5
        expected = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(150), ids]
        np.testing.assert_allclose(token_losses(logits, ids), expected)

    def test_texts_of_one_token_are_refused(self, run: Run, layout: DecoderLayout) -> None:
        with pytest.raises(DataError, match="at least two tokens"):
            perplexity(run, layout, text_windows([TEXTS[2]], 16))

    def test_the_metric_selects_on_one_part_and_judges_on_the_other(
        self, run: Run, layout: DecoderLayout, decoder_path: Path
    ) -> None:
        select, test = text_windows(TEXTS[:1], 16), text_windows(TEXTS[1:], 16)
        metric = LanguageModelMetric(layout, select, test).as_user_metric()
        assert metric.takes_split
        measured = [metric.evaluate_reference(decoder_path, split)["perplexity"] for split in ("select", "test")]
        assert measured == [perplexity(run, layout, select), perplexity(run, layout, test)]
        assert metric.losses({"perplexity": 2.0}, {"perplexity": 3.0}) == {"perplexity": 0.5}

    @pytest.mark.parametrize(("rise", "hopeless"), [(0.005, False), (0.2, True)])
    def test_a_candidate_is_given_up_where_its_windows_lose_too_much(
        self, rise: float, hopeless: bool, layout: DecoderLayout
    ) -> None:
        metric = LanguageModelMetric(layout, text_windows(TEXTS[:1], 16), ()).as_user_metric()
        noise = np.random.default_rng(0)
        losses = noise.normal(3, 1, 400)
        test = PairedTest({"perplexity": losses}, lambda _name: True, 0.01, metric.of_mean, metric.in_groups)
        scores = SampleScores("perplexity", "perplexity", metric.of_mean)
        for window in np.split(losses[:100], 10):
            assert not test.is_hopeless(scores)
            scores.add({"perplexity": window + rise + noise.normal(0, 0.1, 10)})
        assert test.is_hopeless(scores) == hopeless
        assert scores.metrics()["perplexity"] == pytest.approx(np.exp(scores.means()["perplexity"]))


class TestAgreement:
    def test_a_model_agrees_with_itself_everywhere(self, run: Run, layout: DecoderLayout) -> None:
        rows = next_token_agreement(run, run, layout, text_windows(TEXTS, 32))
        assert [(row.start, row.stop) for row in rows] == [(0, 1), (1, 16), (16, 32), (0, 32)]
        assert all(row.agreement == 1 and row.kl_divergence == 0 for row in rows)
        assert sum(row.positions for row in rows[:-1]) == rows[-1].positions

    def test_it_is_counted_by_position(self, run: Run, layout: DecoderLayout) -> None:
        def wrong_at_first(feeds: Feeds) -> dict[str, Array]:
            outputs = run(feeds)
            outputs["logits"][:, 0] = -outputs["logits"][:, 0]
            return outputs

        rows = next_token_agreement(run, wrong_at_first, layout, text_windows(TEXTS[:1], 20))
        assert rows[0].agreement == 0 and rows[0].kl_divergence > 0
        assert rows[1].agreement == 1 and rows[1].kl_divergence == 0

    def test_the_divergence_is_that_of_two_distributions(self, layout: DecoderLayout) -> None:
        def predicts(probability: float) -> Run:
            def run(feeds: Feeds) -> dict[str, Array]:
                row = np.log([probability, 1 - probability])
                return {"logits": np.broadcast_to(row, (*feeds["input_ids"].shape, 2)).copy()}

            return run

        (*_, everywhere) = next_token_agreement(predicts(0.5), predicts(0.25), layout, text_windows(TEXTS[1:2], 16))
        assert everywhere.kl_divergence == pytest.approx(0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75))


class TestGeneration:
    def test_it_writes_what_torch_writes(self, run: Run, layout: DecoderLayout) -> None:
        import torch

        prompt = TEXTS[1]
        expected = tiny_llama().generate(
            torch.from_numpy(prompt)[None], max_new_tokens=10, do_sample=False, eos_token_id=None, pad_token_id=0
        )[0, len(prompt) :]
        assert generate(run, layout, prompt, 10).tolist() == expected.tolist()

    def test_it_ends_before_the_token_that_ends_texts(self, run: Run, layout: DecoderLayout) -> None:
        tokens = generate(run, layout, TEXTS[0], 10).tolist()
        end = tokens[4]
        assert generate(run, layout, TEXTS[0], 10, end).tolist() == tokens[: tokens.index(end)]
