"""The report's pictures, as SVG with real text: sharp, small, and narrow enough for a phone."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import count
from textwrap import fill
from typing import Any

import numpy as np

from kar_aug._helpers.foreign import harmless
from kar_aug.compare import Comparison, Ladder
from kar_aug.compare.arms import Arm, fullest
from kar_aug.compare.metrics import calibration as calibration_of

_WIDTH = 4.6  # inches: 442 pixels, of which a phone shows 360
_LETTERS = 30  # of a line beside them: what is longer leaves the dots no room
_COLOURS = {"base": "#666666", "knowledge": "#1f6feb", "control": "#c2571a", "store": "#2f8f5b"}
_PIECES = ("#999999", "#c2571a", "#8250df", "#1f6feb", "#2f8f5b")
_numbers = count()


def intervals(comparison: Comparison) -> dict[str, str]:
    """Per backbone a line an arm: a dot a seed, the mean, and the 95% interval of the mean."""
    pictures = {}
    for backbone in comparison.backbones:
        arms = [arm for arm in comparison.arms if arm.backbone == backbone][::-1]
        names = [fill(_short(arm), _LETTERS) for arm in arms]
        lines = max(name.count("\n") for name in names) + 1
        figure, axes = _figure((0.17 + 0.19 * lines) * len(arms) + 0.7)
        axes.axvline(comparison.estimate(Arm(backbone)).mean, color=_COLOURS["base"], linewidth=1, linestyle=":")
        for position, arm in enumerate(arms):
            values, colour = [run.value(comparison.objective.key) for run in comparison.runs[arm]], _COLOURS[arm.kind]
            found = comparison.estimate(arm)
            axes.plot(values, [position] * len(values), "o", color=colour, alpha=0.35, markersize=4)
            if np.isfinite(found.half):
                axes.errorbar(found.mean, position, xerr=found.half, color=colour, capsize=3, linewidth=1.6)
            axes.plot(found.mean, position, "D", color=colour, markersize=5)
        axes.set_yticks(range(len(arms)), names)
        axes.set_ylim(-0.6, len(arms) - 0.4)
        axes.locator_params(axis="x", nbins=5)
        axes.set_xlabel(f"test {comparison.objective.metric}")
        pictures[backbone] = svg(figure)
    return pictures


def decomposition(ladders: Sequence[Ladder], metric: str = "AUC") -> str:
    """A bar a ladder, a piece a rung: what each adds to the plain backbone's test AUC. What takes away lies left."""
    figure, axes = _figure(0.5 * len(ladders) + 1.3)
    axes.set_axisbelow(True)
    colours = dict(zip(dict.fromkeys(r.what for each in ladders for r in each.rungs[1:]), _PIECES, strict=False))
    for position, ladder in enumerate(ladders[::-1]):
        right = left = 0.0
        for rung in ladder.rungs[1:]:
            step = rung.step.mean if rung.step is not None else 0.0
            axes.barh(position, step, left=right if step > 0 else left, color=colours[rung.what], height=0.6)
            right, left = (right + step, left) if step > 0 else (right, left + step)
    axes.axvline(0, color=_COLOURS["base"], linewidth=1)
    axes.set_yticks(range(len(ladders)), [ladder.name.replace(", ", "\n", 1) for ladder in ladders[::-1]])
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel(f"test {metric} more than the plain backbone")
    handles = [axes.barh(0, 0, color=colour, label=what) for what, colour in colours.items()]
    figure.legend(handles=handles, frameon=False, fontsize=8, loc="outside lower center", ncols=2)
    return svg(figure)


def curves(comparison: Comparison) -> dict[str, str]:
    """Per backbone the validation AUC by epoch: a thin line a seed, a thick one for the epochs that all seeds have."""
    pictures = {}
    for backbone in comparison.backbones:
        figure, axes = _figure(2.6)
        best = fullest(comparison.arms, backbone)
        for arm in comparison.arms:
            if arm.backbone != backbone or (not arm.is_base and arm != best):
                continue
            runs, colour = comparison.runs[arm], _COLOURS[arm.kind]
            for run in runs:
                axes.plot(range(1, run.epochs + 1), run.curve, color=colour, alpha=0.35, linewidth=0.8)
            common = min(run.epochs for run in runs)
            mean = np.mean([run.curve[:common] for run in runs], axis=0)
            axes.plot(range(1, common + 1), mean, "o-", color=colour, linewidth=2, markersize=4, label=_short(arm))
        axes.set_xlabel("epoch")
        axes.set_ylabel(f"validation {comparison.objective.metric}")
        axes.legend(frameon=False)
        axes.xaxis.get_major_locator().set_params(integer=True)
        pictures[backbone] = svg(figure)
    return pictures


def calibration(comparison: Comparison, best: Sequence[Arm]) -> dict[str, str]:
    """Per backbone the share of clicks against the predicted one, in ten equally large groups of test rows."""
    pictures: dict[str, str] = {}
    if comparison.objective.key != "auc":
        return pictures  # what orders a list is no probability
    for arm in best:
        figure, axes = _figure(3.2)
        limits = []
        for drawn in (arm.base, arm):
            rows = [
                (comparison.clicked(run.seed), comparison.prediction(drawn, run.seed)) for run in comparison.runs[drawn]
            ]
            label, prediction = (np.concatenate(parts) for parts in zip(*rows, strict=True))
            predicted, clicked, _ = calibration_of(label, prediction)
            axes.plot(
                predicted, clicked, "o-", color=_COLOURS[drawn.kind], markersize=4, linewidth=1.2, label=_short(drawn)
            )
            limits += [*predicted, *clicked]
        ends = (min(limits), max(limits))
        axes.plot(ends, ends, color="#999999", linewidth=0.8, linestyle=":")
        axes.set_xlabel("predicted click rate")
        axes.set_ylabel("click rate")
        axes.legend(frameon=False)
        pictures[arm.backbone] = svg(figure)
    return pictures


def svg(figure: Any) -> str:
    """A Matplotlib figure as an element of an HTML page. Its text stays text: no dollar in it begins a formula, and
    what XML cannot hold is escaped.
    """
    import matplotlib as mpl
    from matplotlib.text import Text

    buffer = io.StringIO()
    for text in figure.findobj(Text):
        text.set_parse_math(False)
        text.set_text(harmless(text.get_text()))
    with mpl.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": f"kar-aug {next(_numbers)}",
            "font.family": "sans-serif",
            "text.parse_math": False,  # of labels that are made only now
        }
    ):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    return harmless(buffer.getvalue().split("?>", 1)[1].split(">", 1)[1])  # without the XML and DOCTYPE lines


def _short(arm: Arm) -> str:
    """The arm without its backbone."""
    if arm.is_base:
        return "plain"
    return arm.name.removeprefix(arm.backbone).lstrip(" +,")


def _figure(height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.subplots()
    axes.grid(axis="both", alpha=0.25)
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
