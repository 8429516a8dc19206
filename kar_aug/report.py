"""A comparison for people: a sentence a backbone, a table, a plot; as one HTML file that needs nothing else."""

from __future__ import annotations

import io
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from kar_aug._version import __version__
from kar_aug.compare import Arm, Comparison, summary
from kar_aug.files import write_atomic

COLUMNS = ("model", "coverage", "AUC", "LogLoss", "GAUC", "seconds")


def rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """The table's cells, a row an arm, as `COLUMNS` names them: means over the seeds, ± standard deviation for AUC."""
    table: list[tuple[str, ...]] = []
    for row in summary(comparison):
        covered = row["coverage"]
        table.append(
            (
                Arm(row["backbone"], row["knowledge"]).name,
                " / ".join(f"{share:.0%}" for share in covered.values()) if covered else "",
                f"{row['auc']:.4f} ± {row['auc_std']:.4f}",
                f"{row['logloss']:.4f}",
                f"{row['gauc']:.4f}",
                f"{row['seconds']:.1f}",
            )
        )
    return table


def verdicts(comparison: Comparison) -> list[str]:
    """What knowledge did to the test AUC of each backbone, in words that claim no more than the seeds show."""
    sentences = []
    for backbone in dict.fromkeys(arm.backbone for arm in comparison.arms):
        gain = comparison.gain(backbone)
        text = f"{backbone}: AUC {gain.mean():+.4f} with knowledge"
        if len(gain) > 1:
            same = max((gain > 0).sum(), (gain < 0).sum())
            way = "up" if gain.mean() > 0 else "down"
            text += f" (± {gain.std(ddof=1):.4f} over {len(gain)} seeds; {way} in {same} of them)" if same else ""
        sentences.append(text + ".")
    return sentences


def write_report(
    comparison: Comparison,
    path: Path,
    *,
    knowledge: Mapping[str, Any],
    reproduce: str,
    title: str,
    maps: Mapping[str, Any] | None = None,
) -> None:
    """Write the report as one HTML file.

    Args:
        knowledge: what is known of how the knowledge was made, label -> value.
        reproduce: the command that makes this report again.
        maps: pictures of the vectors (`vector_map`), by their captions.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(files("kar_aug").joinpath("report.html.j2").read_text(encoding="utf-8"))
    content = template.render(
        title=title,
        verdicts=verdicts(comparison),
        columns=COLUMNS,
        rows=rows(comparison),
        plot=_auc_plot(comparison),
        curves=_curve_plot(comparison),
        maps={caption: _svg(figure) for caption, figure in (maps or {}).items()},
        parts=comparison.rows,
        id_coverage=comparison.id_coverage,
        knowledge=knowledge,
        reproduce=reproduce,
        version=__version__,
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )
    write_atomic(path, content)


def _auc_plot(comparison: Comparison) -> str:
    """One line an arm: a dot a seed, the mean as a bar; those with knowledge in colour."""
    from matplotlib.figure import Figure

    arms = comparison.arms[::-1]
    figure = Figure(figsize=(7, 0.5 * len(arms) + 0.9), layout="constrained")
    axes = figure.subplots()
    for position, arm in enumerate(arms):
        values = [run.auc for run in comparison.of(arm)]
        colour = _COLOURS[arm.knowledge]
        axes.plot(values, [position] * len(values), "o", color=colour, alpha=0.6, markersize=6)
        axes.plot(np.mean(values), position, "|", color=colour, markersize=22, markeredgewidth=3)
    axes.set_yticks(range(len(arms)), [arm.name for arm in arms])
    axes.set_xlabel("test AUC (dot: a seed, bar: their mean)")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return _svg(figure)


def _curve_plot(comparison: Comparison) -> str:
    """Validation AUC by epoch, a panel a backbone."""
    from matplotlib.figure import Figure

    backbones = list(dict.fromkeys(arm.backbone for arm in comparison.arms))
    figure = Figure(figsize=(7, 2.4), layout="constrained")
    panels = figure.subplots(1, len(backbones), sharey=True, squeeze=False)[0]
    for axes, backbone in zip(panels, backbones, strict=True):
        for knowledge, label in ((False, "without"), (True, "with knowledge")):
            for number, run in enumerate(comparison.of(Arm(backbone, knowledge))):
                axes.plot(
                    range(1, len(run.curve) + 1), run.curve, color=_COLOURS[knowledge], alpha=0.7,
                    label=label if number == 0 else None,
                )  # fmt: skip
        axes.set_title(backbone, fontsize=10)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("validation AUC")
    panels[0].legend(fontsize=8)
    return _svg(figure)


_COLOURS = {False: "#888888", True: "#1f6feb"}


def _svg(figure: Any) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    return buffer.getvalue().split("?>", 1)[1].split(">", 1)[1]  # without the XML and DOCTYPE lines
