"""What the runs say, in words that claim no more than they show."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from kar_aug._helpers.counting import counted
from kar_aug.compare.additions import Control
from kar_aug.compare.arms import Arm, decisive, pairs
from kar_aug.compare.comparison import Comparison
from kar_aug.compare.decomposition import decomposition
from kar_aug.compare.statistics import Bootstrapped, Estimate, delong, detectable, estimate, holm, paired_t, wilcoxon

SIGNIFICANT = 0.05
ALPHA = f"{SIGNIFICANT:.0%}"
_ALL = 0.5  # AUC from guessing to knowing all
_TOO_GOOD = 0.98  # an AUC that no click was ever foreseen with


@dataclass(frozen=True)
class Verdict:
    """Does an arm beat another? `gain`: test AUC that it has more, over the seeds; `up`: seeds in which it has more;
    p-values are corrected (Holm) for all verdicts of their kind: those against plain backbones, those against controls;
    `detectable`: the gain that these seeds would likely have shown (see `statistics.detectable`);
    `weakness`: what the plain backbone does not beat (see `kar_aug.compare.sanity`), so that no gain is called one.
    Between an arm and its control it is "" also where the arm with knowledge beats all that the plain one does not;
    `metric`: what stands for AUC here; `lists`: under "rerank", the test over lists in the place of DeLong's.

    The word follows the paired t-test over seeds: it asks whether training again would show the gain again. DeLong's
    test asks another question, whether other test rows would, for the mean prediction of the seeds.
    """

    arm: Arm
    against: Arm
    gain: Estimate
    up: int
    seeds: int
    t: float
    wilcoxon: float
    delong: float
    weakness: str = ""
    detectable: float = float("nan")
    metric: str = "AUC"
    lists: Bootstrapped | None = None

    @property
    def over_rows(self) -> float:
        """The p-value that other test rows would show as much."""
        return self.delong if self.lists is None else self.lists.p

    @property
    def word(self) -> str:
        """yes, "not shown", "no, worse", that one seed cannot tell, or nothing can be told over such a backbone."""
        if self.weakness:
            return "nothing can be told"
        if math.isnan(self.t):
            return "one seed cannot tell"
        if self.t >= SIGNIFICANT:
            return "not shown"
        return "yes" if self.gain.mean > 0 else "no, worse"

    @property
    def shows_none(self) -> bool:
        """Whether the gain that these seeds would show is more than there is between guessing and knowing all."""
        return self.detectable >= _ALL

    @property
    def _shown(self) -> str:
        if self.shows_none:
            return "no gain shows, however large: take more"
        return f"only gains of {self.detectable:.4f} and more show"

    @property
    def text(self) -> str:
        """As a person says it: "DeepFM + knowledge beats DeepFM + metadata text: not shown, AUC +0.0004 ± 0.0011"."""
        spread = "" if math.isnan(self.gain.half) else f" ± {self.gain.half:.4f}"
        chance = "" if math.isnan(self.t) else f" ({_p(self.t)}, up in {self.up} of {self.seeds} seeds)"
        over = f" over what does not beat {self.weakness}" if self.weakness else ""
        may_miss = self.word == "not shown" and not math.isnan(self.detectable)
        missed = f"; with {self.seeds} seeds like these {self._shown}" if may_miss else ""
        drawn = (
            ""
            if self.lists is None
            else f"; over lists {self.lists.low:+.4f} to {self.lists.high:+.4f}, {_p(self.lists.p)}"
        )
        said = f"{self.word}{over}, {self.metric} {self.gain.mean:+.4f}{spread}{chance}{missed}{drawn}"
        return f"{self.arm.name} beats {self.against.name}: {said}"


def p_value(p: float) -> str:
    """A p-value as tables show it."""
    return "" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _p(p: float) -> str:
    """The same in a sentence: "p = 0.012", "p < 0.001"."""
    told = p_value(p)
    return f"p {told}" if told.startswith("<") else f"p = {told}"


def verdicts(comparison: Comparison) -> tuple[list[Verdict], list[Verdict]]:
    """Every arm against its plain backbone, and knowledge against each control and other store."""
    against_base, against_controls = pairs(comparison.arms)
    return _family(comparison, against_base), _family(comparison, against_controls)


def leading(comparison: Comparison) -> list[Verdict]:
    """Those that decide: the fullest knowledge of each backbone against it, whichever way it enters, and against
    controls and other stores.
    """
    against_base, against_controls = verdicts(comparison)
    best = [arm for backbone in comparison.backbones for arm in decisive(comparison.arms, backbone)]
    return [v for v in against_base if v.arm in best] + against_controls


def _family(comparison: Comparison, tested: Sequence[tuple[Arm, Arm]]) -> list[Verdict]:
    gains = [comparison.gains(arm, against) for arm, against in tested]
    t = holm([paired_t(values) for values in gains])
    signed_rank = holm([wilcoxon(values) for values in gains])
    by_rows = holm([_delong(comparison, arm, against) for arm, against in tested])
    by_lists = _corrected([comparison.bootstrapped(arm, against) for arm, against in tested])
    return [
        Verdict(
            arm,
            against,
            estimate(values),
            sum(v > 0 for v in values),
            len(values),
            *p,
            _weakness(comparison, arm, against),
            detectable(values, len(tested)),
            comparison.objective.metric,
            lists,
        )
        for (arm, against), values, p, lists in zip(
            tested, gains, zip(t, signed_rank, by_rows, strict=True), by_lists, strict=True
        )
    ]


def _weakness(comparison: Comparison, arm: Arm, against: Arm) -> str:
    """What makes a gain worth nothing: a plain backbone that beats nothing, unless the question is another one, which
    of two kinds of vectors it is that make a model that beats everything.
    """
    told = against != arm.base and comparison.is_strong(arm)
    return "" if told else comparison.weakness(arm.base)


def _corrected(found: Sequence[Bootstrapped | None]) -> list[Bootstrapped | None]:
    p_values = holm([float("nan") if each is None else each.p for each in found])
    return [each and replace(each, p=p) for each, p in zip(found, p_values, strict=True)]


def _delong(comparison: Comparison, arm: Arm, against: Arm) -> float:
    if comparison.objective.key != "auc":
        return float("nan")
    ours, theirs = comparison.pooled(arm), comparison.pooled(against)
    if ours is None or theirs is None:
        return float("nan")
    return delong(comparison.clicked(0), ours, theirs).p


def headlines(comparison: Comparison) -> list[str]:
    """First the doubts, then the conclusions."""
    return [*doubts(comparison), *conclusions(comparison)]


def doubts(comparison: Comparison) -> list[str]:
    """What to know before any number is read: what the rows are, which plain backbones are too weak for anything to be
    told, and which trainings learnt nothing.
    """
    return [
        *_drawn(comparison), *_all_knowing(comparison), *_weak_backbones(comparison), *_failed_trainings(comparison)
    ]  # fmt: skip


def _drawn(comparison: Comparison) -> Iterator[str]:
    if remark := comparison.objective.remark:
        yield remark
    elif share := comparison.drawn:
        yield (
            f"{share:.0%} of the rows are negatives that were drawn, by popularity: AUC says how clicks are told from "
            "what others click, and not from what was shown."
        )


def _all_knowing(comparison: Comparison) -> Iterator[str]:
    """Nobody foresees clicks so well: what is foreseen stands in what is read."""
    if comparison.objective.key != "auc":
        return
    found = {backbone: comparison.estimate(Arm(backbone)).mean for backbone in comparison.backbones}
    found |= {rival.name: rival.auc for rival in comparison.rivals}
    for name, auc in found.items():
        if auc > _TOO_GOOD:
            yield (
                f"AUC {auc:.4f} of {name}: nearly every answer is known, so something that is read tells the label, "
                "and no gain means anything. kar-aug check names what is known to do that."
            )
            return


def _weak_backbones(comparison: Comparison) -> Iterator[str]:
    for backbone in comparison.backbones:
        if weakness := comparison.weakness(Arm(backbone)):
            metric = comparison.objective.metric
            plain = comparison.estimate(Arm(backbone)).mean
            strong = [*_strong_arms(comparison, backbone)]
            yield (
                f"{backbone} ({metric} {plain:.4f}) does not beat {weakness}: to be better than it tells nothing. See "
                f"what it reads with kar-aug inspect --data{'.' if strong else _remedy(comparison)}"
            )
            yield from strong


def _failed_trainings(comparison: Comparison) -> Iterator[str]:
    """Where one seed learns and another does not, the mean of both is that of no model; a doubt, also of a control."""
    key = comparison.objective.key
    for arm, runs in comparison.runs.items():
        failed = [run for run in runs if not comparison.beats_guessing(run.value(key))]
        if 0 < len(failed) < len(runs):
            values = ", ".join(
                f"seed {run.seed} ({comparison.objective.metric} {run.value(key):.4f})" for run in failed
            )
            yield (
                f"{arm.name}: {values} learnt nothing, and other seeds did, so its mean, and what is told by it, is of "
                "no use. A smaller [compare] learning_rate may help, or tune."
            )


def _remedy(comparison: Comparison) -> str:
    """What may be wrong: the training, or, where nothing else learns anything either, what is learnt."""
    rivals = [rival.name for rival in comparison.rivals]
    if not rivals or any(comparison.beats_guessing(r.value(comparison.objective.key)) for r in comparison.rivals):
        return ", and train it better: [compare] learning_rate, epochs, tune."
    return f". Neither {' nor '.join(rivals)} beats guessing: what is read may tell nothing of the label. Is it right?"


def _strong_arms(comparison: Comparison, backbone: str) -> Iterator[str]:
    """Where ids and numbers tell nothing, a text may still tell all: such an arm is worth having, and is named."""
    for arm in decisive(comparison.arms, backbone):
        if comparison.is_strong(arm):
            value = f"{comparison.objective.metric} {comparison.estimate(arm).mean:.4f}"
            rivals = ", ".join(f"{r.name} {r.value(comparison.objective.key):.4f}" for r in comparison.rivals)
            yield (
                f"{arm.name} ({value}) beats guessing and all that was tried beside it ({rivals}), in every seed: "
                "whether that is knowledge, its controls tell."
            )


def conclusions(comparison: Comparison) -> list[str]:
    """What a gain is made of, and whether it is shown, a sentence for each way that knowledge enters: what it is shown
    to beat of the plain backbone, the controls and the other stores, what it is not, and what is better.
    """
    asked = leading(comparison)
    if not asked:
        return ["No arm has knowledge."]
    metric = comparison.objective.metric
    made_of = [each.told(metric) for each in decomposition(comparison) if not comparison.weakness(each.rungs[0].arm)]
    sentences = [*told(asked)]
    if sentences and comparison.seeds == 1:
        sentences = ["One seed cannot tell a gain from chance: raise [compare] seeds. What is trained stays."]
    if not any(isinstance(arm.addition, Control) and arm.addition.is_text for arm in comparison.arms):
        sentences.append("No control with metadata ran: this does not tell knowledge from any other text.")
    return [*made_of, *sentences]


def told(asked: Sequence[Verdict]) -> Iterator[str]:
    """ "Item knowledge (similarity): shown to beat the plain backbone, shuffled vectors; not shown to beat metadata
    text (up in 3 of 5 seeds), which may be chance; worse than human plots." say. Of backbones too weak, nothing.
    """
    for knowledge in dict.fromkeys(_on_any_backbone(verdict) for verdict in asked):
        of_knowledge = [verdict for verdict in asked if _on_any_backbone(verdict) == knowledge]
        outcomes: dict[str, list[str]] = {_SHOWN: [], _NOT_SHOWN: [], _WORSE: []}
        for rival in dict.fromkeys(_rival(verdict) for verdict in of_knowledge):
            against_rival = [verdict for verdict in of_knowledge if _rival(verdict) == rival]
            if not all(verdict.weakness for verdict in against_rival):
                outcome, where = _outcome(against_rival)
                outcomes[outcome].append(rival + where)
        clauses = [outcome.format(", ".join(rivals)) for outcome, rivals in outcomes.items() if rivals]
        if clauses:
            yield f"{knowledge}: {'; '.join(clauses)}."


_SHOWN, _NOT_SHOWN, _WORSE = "shown to beat {}", "not shown to beat {}, which may be chance", "worse than {}"


def _on_any_backbone(verdict: Verdict) -> str:
    return verdict.arm.words.capitalize() + verdict.arm.special


def _rival(verdict: Verdict) -> str:
    """What it is set against; the fair base of a blind one has another backbone."""
    fair = verdict.against.backbone != verdict.arm.backbone
    return "the same with the user's profile and past" if fair else verdict.against.words


def _outcome(found: Sequence[Verdict]) -> tuple[str, str]:
    """Of a rival; and where that holds, if not on all backbones, or in how many seeds."""
    won = [verdict.arm.backbone for verdict in found if verdict.word == "yes"]
    lost = [verdict.arm.backbone for verdict in found if verdict.word == "no, worse"]
    if not won and not lost:
        (first, *more) = found
        return _NOT_SHOWN, "" if more else f" (up in {first.up} of {counted(first.seeds, 'seed')})"
    held, of = won or lost, len(found)
    where = f"on {len(held)} of {counted(of, 'backbone')}: {', '.join(held)}" if len(held) < of else ""
    worse = f"worse on {', '.join(lost)}" if won and lost else ""
    said = "; ".join(each for each in (where, worse) if each)
    return _SHOWN if won else _WORSE, f" ({said})" if said else ""
