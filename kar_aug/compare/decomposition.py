"""What a gain is made of: rung by rung, what each kind of vectors is worth over the one before, in the same place.

    plain -> [behaviour] -> shuffled -> metadata -> knowledge

Shuffled vectors tell what the mere place is worth: parameters, ratings of the past. Metadata adds what the tables say
anyway, and knowledge what a language model says beyond. Where behaviour stands beside the vectors, it is the first of
them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from kar_aug.compare.arms import Arm, decisive
from kar_aug.compare.comparison import Comparison
from kar_aug.compare.statistics import Estimate, estimate


@dataclass(frozen=True)
class Rung:
    """An arm, and what it has more than the rung before, seed by seed: `step`; of the plain backbone that is nothing.

    Args:
        what: that it has more.
    """

    what: str
    arm: Arm
    auc: Estimate
    step: Estimate | None = None


@dataclass(frozen=True)
class Ladder:
    """Rungs from a plain backbone to the fullest knowledge.

    Args:
        name: of the backbone, and of the way its vectors enter: "DeepFM, similarity, beside behaviour".
    """

    name: str
    rungs: tuple[Rung, ...]

    @property
    def gain(self) -> float:
        """What the last has more than the first."""
        return self.rungs[-1].auc.mean - self.rungs[0].auc.mean

    @property
    def of(self) -> str:
        """Whose knowledge it is, and metadata: "users", "items", or "users and items"."""
        return " and ".join(f"{entity}s" for entity in self.rungs[-1].arm.entities)

    @property
    def title(self) -> str:
        """Over its table."""
        return f"{self.name}: knowledge of {self.of}"

    def told(self, metric: str) -> str:
        """As a person says it, "DeepFM, similarity: AUC 0.6596 without knowledge, 0.7476 with that of items. Step by
        step: any vectors -0.0186, what metadata says +0.0012, what the language model adds +0.1054" say.
        """
        first, last = (rung.auc.mean for rung in (self.rungs[0], self.rungs[-1]))
        steps = ", ".join(f"{rung.what} {_more(rung.step)}" for rung in self.rungs if rung.step)
        values = f"{metric} {first:.4f} without knowledge, {last:.4f} with that of {self.of}"
        return f"{self.name}: {values}. Step by step: {steps}."


def _more(step: Estimate) -> str:
    return f"{step.mean:+.4f}" + ("" if math.isnan(step.half) else f" ± {step.half:.4f}")


def decomposition(comparison: Comparison) -> list[Ladder]:
    """A ladder for each way in which knowledge enters a backbone, where there is a control between the two."""
    best = [arm for backbone in comparison.backbones for arm in decisive(comparison.arms, backbone)]
    ladders = [Ladder(_name(arm), tuple(_rungs(comparison, arm))) for arm in best]
    return [ladder for ladder in ladders if len(ladder.rungs) > 2]


def _rungs(comparison: Comparison, best: Arm) -> Iterator[Rung]:
    before: Arm | None = None
    for what, arm in _climbed(comparison, best):
        step = None if before is None else estimate(comparison.gains(arm, before))
        yield Rung(what, arm, comparison.estimate(arm), step)
        before = arm


def _climbed(comparison: Comparison, best: Arm) -> Iterator[tuple[str, Arm]]:
    yield "the plain backbone", best.base
    alike = [
        (best.beside, best.companion, "behaviour"),
        ("shuffled", replace(best, knowledge="shuffled"), "any vectors"),
        ("metadata", replace(best, knowledge="metadata"), "what metadata says"),
    ]
    yield from ((what, arm) for name, arm, what in alike if name and arm in comparison.runs)
    yield "what the language model adds", best


def _name(arm: Arm) -> str:
    beside = ", beside behaviour" if arm.beside else ""
    return f"{arm.backbone}, {arm.injection}{beside}"
