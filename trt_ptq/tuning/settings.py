"""Every constant of tuning in one place, with its evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trt_ptq.choices import Effort


@dataclass(frozen=True)
class TuningSettings:
    """Constants of tuning, tuned on five real models (see benchmarks/models).

    Attributes:
        min_gain: a change that does not meet the threshold must lower the loss by this fraction of it: smaller gains of
            a metric on a few hundred samples are as likely luck. The user's metric is only asked about a technique that
            lowers the output error as much.
        num_runner_up_methods: how many range methods beside the best one the user's metric is computed for; each takes
            one evaluation.
        likely_excluded: fraction of the layers that is excluded while the range method for mixed precision is chosen:
            layers that are excluded later would decide on it otherwise.
        selection_target: fraction of the threshold that the search for layers aims at by a user's metric: the best of
            15 candidates of a text recogniser lost 0.04 % on 800 validation lines, and 1.5 % on test data.
        max_evaluations: most sets of excluded layers that the user's metric is computed for.
        max_comparisons: most sets of excluded layers that are compared with FP32 without a user's metric; each takes a
            pass over half of the held-out batches.
        max_layers_factor: the stricter target is given up where it excludes more than this many times the layers that
            the threshold itself does: the accuracy is not worth that much speed.
        max_excluded_macs: largest fraction of the multiply-accumulates that leaves INT8: with more, INT8 does not pay,
            and a search that needs it is given up. Without it, 31 of 42 layers of the text recogniser were excluded.
        max_layer_kinds: with more kinds of layers, these do not get range methods of their own: each takes an output
            error for each method. A choice that no measurement decided.
        max_requantized: most layers of a set that are tried in INT8 again by their output error, the largest first: a
            choice that no measurement decided, each takes a model.
        output_error_batches: calibration batches that output errors are measured on, more where these do not have
            `output_error_samples`; on five real models, 8 of 8 samples order the range methods as all held-out data do.
        output_error_samples: samples that suffice, the same number of each batch; of a model that takes whole batches
            only, as many batches as have so many samples.
        first_look_samples: samples that a technique or a range method must look good on to be measured on the others.
            Two of each of eight batches order the range methods of MiniLM as all 64 samples do.
        first_look_batches: fewest whole batches at a first look, of a model that takes no others.
        first_look_factor: largest error of a range method at the first look, relative to the best one: the method that
            is best on all samples had 1.0 (MiniLM), 1.1 (text recogniser) and 1.4 times that (magika, 0.005 %).
        min_finalists: range methods that are measured on all these samples, whatever their error at the first look: a
            choice that no measurement decided.
        ranked_further: fraction of the layers, the most sensitive ones, that is ranked on as many samples again where
            the batches of a first look disagree: a choice that no measurement decided.
        min_ranking_agreement: least agreement of half of the batches with the others on the most sensitive layers: a
            language model reaches 0.9, rendered text 0.6.
        max_placement_builds: most INT8 models that are built to find the layers that TensorRT-RTX runs faster in FP16;
            on ResNet-50, 24 find nothing better than 9 do.
    """

    min_gain: float = 0.1
    num_runner_up_methods: int = 1
    likely_excluded: float = 0.1
    selection_target: float = 0.5
    max_evaluations: int = 5
    max_comparisons: int = 15
    max_layers_factor: int = 2
    max_excluded_macs: float = 0.5
    max_layer_kinds: int = 8
    max_requantized: int = 4
    output_error_batches: int = 8
    output_error_samples: int = 64
    first_look_samples: int = 16
    first_look_batches: int = 2
    first_look_factor: float = 1.5
    min_finalists: int = 3
    ranked_further: float = 0.25
    min_ranking_agreement: float = 0.85
    max_placement_builds: int = 12


DEFAULT_SETTINGS = TuningSettings()

EFFORTS: Mapping[Effort, TuningSettings] = {
    "low": TuningSettings(
        num_runner_up_methods=0, max_evaluations=3, max_comparisons=5, max_requantized=0, max_placement_builds=4
    ),
    "medium": DEFAULT_SETTINGS,
    "high": TuningSettings(
        num_runner_up_methods=3,
        min_finalists=4,
        max_evaluations=15,
        max_comparisons=30,
        max_requantized=24,
        max_placement_builds=24,
    ),
}
