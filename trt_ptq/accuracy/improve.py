"""From a plain INT8 model that loses too much to one that does not: stages, repairs, layers left in float.

Stages tell where the loss comes from: weights only, activations only, both. Repairs are tried one by one, each on top
of those kept before. What is still lost then is bought back by the most sensitive layers; see search.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

from trt_ptq.accuracy.candidates import Workshop
from trt_ptq.accuracy.judge import Judge, worst_loss
from trt_ptq.accuracy.search import MOST_EVALUATIONS, search_layers
from trt_ptq.graph.recipe import AUTO, Recipe, Repair

Step = Repair | Literal["auto"]

TRIED: tuple[Step, ...] = ("equalize", "smooth", "auto", "bias")  # in this order
_TITLES = {
    "equalize": "cross-layer equalisation",
    "smooth": "SmoothQuant",
    "auto": "method auto",
    "bias": "bias correction",
}
Tell = Callable[[str], None]


def untold(_text: str) -> None:
    """Progress that nobody wants to hear of."""


@dataclass(frozen=True)
class Stage:
    """One candidate on the way: `losses` by metric against FP32, and what became of what is new in it."""

    name: str
    losses: dict[str, float]
    fate: Literal["for analysis", "kept", "dropped: no gain"] = "kept"
    note: str = ""

    @property
    def loss(self) -> float:
        """That of the worst metric."""
        return worst_loss(self.losses)


@dataclass(frozen=True)
class Improved:
    """The recipe that was found, the way there, and what failed."""

    recipe: Recipe
    stages: tuple[Stage, ...]
    warnings: tuple[str, ...] = ()


def improve(
    recipe: Recipe,
    workshop: Workshop,
    judge: Judge,
    max_drop: float,
    *,
    repair: bool = True,
    search: bool = True,
    tell: Tell = untold,
) -> Improved:
    """Judge what `recipe` makes, stage by stage, and where it loses more than `max_drop` look for a better one.

    The repairs that `recipe` asks for are kept whatever they bring. With `repair` the others are tried as long as the
    loss is above `max_drop`, and kept where they lower it; with `search` layers are left in float then.

    Raises:
        DataError, ModelError: see `Judge.losses`.
    """
    ladder = _Ladder(recipe.model_copy(update={"repairs": ()}), workshop, judge, tell)
    ladder.split()
    for asked in recipe.repairs:
        ladder.step(asked, forced=True)
    for one in TRIED if repair else ():
        if ladder.loss > max_drop and one not in (*recipe.repairs, recipe.method):
            ladder.step(one, forced=False)
    warnings = []
    if search and ladder.loss > max_drop and (failed := ladder.search(max_drop)):
        warnings.append(failed)
    return Improved(ladder.recipe, tuple(ladder.stages), tuple(warnings))


class _Ladder:
    """Judges one candidate after the other, and remembers the best recipe."""

    def __init__(self, plain: Recipe, workshop: Workshop, judge: Judge, tell: Tell) -> None:
        self.recipe = plain
        self.stages: list[Stage] = []
        self.workshop = workshop
        self._judge = judge
        self._tell = tell

    def add(self, stage: Stage) -> None:
        self._tell(f"{stage.name}: {stage.loss:.2%} loss")
        self.stages.append(stage)

    def judge(self, recipe: Recipe) -> dict[str, float]:
        return self._judge.losses(self.workshop.make(recipe).qdq.model)

    def split(self) -> None:
        """Only weights, only activations, then both in INT8."""
        for part in ("weights", "activations"):
            model = self.workshop.make(self.recipe, (part,)).qdq.model
            self.add(Stage(f"{part} only", self._judge.losses(model), "for analysis"))
        self.add(Stage("weights and activations", self.judge(self.recipe)))
        self.loss = self.stages[-1].loss

    def step(self, repair: Step, *, forced: bool) -> None:
        """Go on with `repair` if it lowers the loss, or is forced; nothing, where there is nothing that it fits."""
        changed = {"method": AUTO} if repair == AUTO else {"repairs": (*self.recipe.repairs, repair)}
        recipe = self.recipe.model_copy(update=changed)
        note = self.workshop.note(recipe, repair)
        if note is None and not forced:
            return
        losses = self.judge(recipe)
        kept = forced or worst_loss(losses) < self.loss
        fate: Literal["kept", "dropped: no gain"] = "kept" if kept else "dropped: no gain"
        self.add(Stage(_TITLES[repair], losses, fate, note or "nothing in the model that it fits"))
        if kept:
            self.recipe, self.loss = recipe, worst_loss(losses)

    def search(self, max_drop: float) -> str | None:
        """Leave in float the layers that cost most; why that failed, if it did."""
        before = self.loss
        ranked = self.workshop.ranked(self.recipe)
        judged: dict[frozenset[str], dict[str, float]] = {}

        def kept_in_float(names: Collection[str]) -> Recipe:
            return self.recipe.model_copy(update={"keep_float": (*self.recipe.keep_float, *names)})

        def loss(names: frozenset[str]) -> float:
            judged[names] = self.judge(kept_in_float(sorted(names, key=ranked.index)))
            worst = worst_loss(judged[names])
            self._tell(
                f"evaluation {len(judged)} (at most {MOST_EVALUATIONS}): {len(names)} layers in float, {worst:.2%} loss"
            )
            return worst

        found = search_layers(ranked, loss, max_drop)
        if found.kept is None:
            return (
                f"INT8 loses {before:.2%}, and no set of layers to leave in float was found that loses {max_drop:.2%} "
                f"or less ({found.evaluations} evaluations, at best {found.loss:.2%})"
            )
        self.recipe, self.loss = kept_in_float(found.kept), found.loss
        self.add(
            Stage(
                f"mixed precision: {len(found.kept)} of {len(ranked)} layers in float",
                judged[frozenset(found.kept)],
                note=f"{', '.join(found.kept)}; found in {found.evaluations} evaluations",
            )
        )
        return None
