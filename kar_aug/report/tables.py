"""The cells of the report's tables, as text."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from kar_aug._helpers.counting import counted
from kar_aug.compare import Comparison, Ladder, Slice, Verdict, decomposition, headlines, leading
from kar_aug.compare.arms import Arm
from kar_aug.compare.statistics import Estimate
from kar_aug.compare.verdicts import p_value

Rows = list[tuple[str, ...]]
LEGEND = (
    "AUC: mean over {seeds} (sd: standard deviation of one seed). "
    "±: half the 95% interval of a mean gain over the seeds."
)
NONE = "—"  # of what cannot be told
FEW_PAIRS = 12  # of models that are set side by side: of more, what each comes to hides what all do
_COSTS = ("parameters", "seconds", "µs a row")
COLUMNS = ("model", "coverage", "AUC", "relative", "LogLoss", "GAUC", "ECE", *_COSTS)
TERMINAL = ("model", "coverage", "AUC", "LogLoss", "GAUC", "seconds")
TESTS = ("model", "against", "AUC gain", "95% interval", "paired t", "Wilcoxon", "DeLong", "beats it", "shows from")
LADDER = ("what there is", "model", "AUC", "more than before", "95% interval")
SLICES = ("rows", "share", "plain AUC", "AUC gain ± 95% interval")


def columns_of(comparison: Comparison) -> tuple[str, ...]:
    """All of a comparison: `COLUMNS`, with the metrics of its task."""
    decides, *others = comparison.objective.values
    return ("model", "coverage", decides, "relative", *others, *_COSTS)


def terminal_columns(comparison: Comparison) -> tuple[str, ...]:
    """Those that a terminal has room for: `TERMINAL`, likewise."""
    return ("model", "coverage", *comparison.objective.shown, "seconds")


def named_after(comparison: Comparison, columns: Sequence[str]) -> tuple[str, ...]:
    """`TESTS`, `LADDER` or `SLICES` with the names of a comparison's metric and of its test over rows."""
    words = {"AUC": comparison.objective.metric, "DeLong": comparison.objective.over_rows}
    return tuple(" ".join(words.get(word, word) for word in column.split(" ")) for column in columns)


def legend(comparison: Comparison) -> str:
    """`LEGEND`, likewise."""
    return LEGEND.replace("AUC", comparison.objective.metric, 1).format(seeds=counted(comparison.seeds, "seed"))


def rows(comparison: Comparison, columns: Sequence[str] | None = None) -> Rows:
    """A row for what any model must beat, and a row an arm, some or all of `columns_of`: means over the seeds, with the
    standard deviation of AUC, or of what decides in its place.
    """
    objective = comparison.objective
    everything = columns_of(comparison)
    columns = everything if columns is None else columns
    table: Rows = []
    for rival in comparison.rivals:
        known = {name: f"{rival.value(objective.values[name]):.4f}" for name in objective.shown}
        table.append(tuple({"model": rival.name, **known}.get(column, "") for column in columns))
    for arm, runs in comparison.runs.items():
        improvement = comparison.improvement(arm)
        others = list(objective.values.values())[1:]
        mean = {name: comparison.estimate(arm, name).mean for name in (*others, "train_seconds")}
        cells = (
            arm.name,
            " / ".join(f"{share:.0%}" for share in comparison.coverage(arm).values()),
            with_sd(comparison.estimate(arm)),
            "" if arm.is_base else NONE if math.isnan(improvement) else f"{improvement:+.1%}",
            *(f"{mean[name]:.4f}" for name in others),
            f"{runs[0].parameters:,}",
            f"{mean['train_seconds']:.1f}",
            f"{np.median([run.microseconds for run in runs]):.1f}",
        )
        named = dict(zip(everything, cells, strict=True))
        table.append(tuple(named[column] for column in columns))
    return table


def with_sd(value: Estimate) -> str:
    """A mean, with the standard deviation over seeds where there are several. "±" is kept for intervals."""
    return f"{value.mean:.4f}" + ("" if math.isnan(value.sd) else f" (sd {value.sd:.4f})")


def test_rows(verdicts: Sequence[Verdict]) -> Rows:
    """A row a verdict, as `TESTS` names them."""
    return [
        (
            v.arm.name,
            v.against.name,
            f"{v.gain.mean:+.4f}",
            _interval(v.gain),
            p_value(v.t),
            p_value(v.wilcoxon),
            p_value(v.over_rows),
            v.word,
            "" if math.isnan(v.detectable) else NONE if v.shows_none else f"{v.detectable:.4f}",
        )
        for v in verdicts
    ]


def ladder_rows(ladder: Ladder) -> Rows:
    """A row a rung, as `LADDER` names them."""
    return [
        (
            rung.what,
            rung.arm.name,
            with_sd(rung.auc),
            "" if rung.step is None else f"{rung.step.mean:+.4f}",
            "" if rung.step is None else _interval(rung.step),
        )
        for rung in ladder.rungs
    ]


def slice_rows(slices: Sequence[Slice]) -> list[tuple[str, Rows]]:
    """Per group of slices, a row a slice as `SLICES` names them."""
    groups = dict.fromkeys(s.group for s in slices)
    return [(group, [_slice_row(s) for s in slices if s.group == group]) for group in groups]


def _slice_row(s: Slice) -> tuple[str, ...]:
    spread = "" if math.isnan(s.gain.half) else f" ± {s.gain.half:.4f}"
    return s.label, f"{s.share:.0%}", f"{s.base.mean:.4f}", f"{s.gain.mean:+.4f}{spread}"


def clicks(comparison: Comparison) -> str:
    """The click rate of each part: what guessing "no click" is right by."""
    return ", ".join(f"{share:.1%} of {part}" for part, share in comparison.click_rates.items())


def gate_usage(comparison: Comparison, best: Sequence[Arm]) -> dict[str, list[tuple[str, list[tuple[str, float]]]]]:
    """Per arm and source, (expert, mean gate weight over seeds); the shared experts come first."""
    found = {}
    for arm in best:
        runs = [run for run in comparison.runs[arm] if run.gate]
        if not runs:
            continue
        shared = comparison.experiment.config.shared_experts if arm.adaptor == "hybrid-expert" else 0
        found[arm.name] = [
            (source, _experts(np.mean([run.gate[source] for run in runs], axis=0).tolist(), shared))
            for source in runs[0].gate
        ]
    return found


def _experts(weights: Sequence[float], shared: int) -> list[tuple[str, float]]:
    return [
        (f"shared {i + 1}" if i < shared else f"dedicated {i - shared + 1}", weight) for i, weight in enumerate(weights)
    ]


def _interval(value: Estimate) -> str:
    if math.isnan(value.half):
        return ""
    return f"{value.mean - value.half:+.4f} to {value.mean + value.half:+.4f}"


def pairs_told(count: int) -> str:
    """Over the verdicts."""
    return f"{counted(count, 'pair')} of models, each by itself"


def markdown(comparison: Comparison) -> str:
    """The headlines, the verdicts and the table, for a pull request."""
    pairs = [f"- {verdict.text}" for verdict in leading(comparison)]
    if len(pairs) > FEW_PAIRS:
        pairs = [f"<details><summary>{pairs_told(len(pairs))}</summary>", "", *pairs, "", "</details>"]
    lines = [*headlines(comparison), "", *pairs, ""]
    columns = columns_of(comparison)
    lines += ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(row) + " |" for row in rows(comparison)]
    for ladder in decomposition(comparison):
        head = " | ".join(named_after(comparison, LADDER))
        lines += ["", f"What the gain is made of: {ladder.title}", "", f"| {head} |"]
        lines += ["|" + " --- |" * len(LADDER), *("| " + " | ".join(row) + " |" for row in ladder_rows(ladder))]
    relative = "AUC - 0.5" if comparison.objective.metric == "AUC" else comparison.objective.metric
    lines += ["", f"{legend(comparison)} Relative: improvement of {relative}."]
    if told := comparison.objective.told(comparison.experiment.samples(0)):
        lines += [f"Lists: {'; '.join(told)}. Clicks: {clicks(comparison)}."]
    else:
        lines += [f"GAUC: mean AUC within {comparison.grouped_by}s. Clicks: {clicks(comparison)}."]
    return "\n".join(lines) + "\n"
