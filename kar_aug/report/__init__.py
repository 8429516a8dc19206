"""A comparison for people: one HTML file that needs nothing else, results.csv, and a table for pull requests.

tables    cells, the same for terminal, Markdown and HTML        plots    pictures, as SVG
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from kar_aug._helpers.counting import counted
from kar_aug._helpers.files import write_atomic
from kar_aug._helpers.foreign import harmless
from kar_aug._helpers.servers.addresses import masked_in
from kar_aug.compare import Comparison, by_slice, decomposition, headlines, leading, verdicts
from kar_aug.compare.arms import Arm, fullest
from kar_aug.compare.experiment import code_version
from kar_aug.report import plots
from kar_aug.report.tables import (
    COLUMNS,
    FEW_PAIRS,
    LADDER,
    LEGEND,
    SLICES,
    TERMINAL,
    TESTS,
    clicks,
    columns_of,
    gate_usage,
    ladder_rows,
    legend,
    markdown,
    named_after,
    pairs_told,
    rows,
    slice_rows,
    terminal_columns,
    test_rows,
)

__all__ = [
    "COLUMNS",
    "FEW_PAIRS",
    "LEGEND",
    "TERMINAL",
    "Example",
    "Section",
    "legend",
    "rows",
    "terminal_columns",
    "write_report",
    "write_tables",
]


@dataclass(frozen=True)
class Section:
    """A part of the report that others bring, the leakage audit say: a sentence, and a table if there are rows."""

    title: str
    text: str
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


@dataclass(frozen=True)
class Example:
    """What is known of one item.

    Args:
        title: what people call it.
        messages: (who says it, what), of the prompt, then the answer.
        summary: who answered, how, and for how much.
        encoder: that made its vector of the answer.
        neighbours: (title, cosine) of the items whose vectors are nearest.
    """

    title: str
    messages: Sequence[tuple[str, str]]
    summary: str
    encoder: str
    neighbours: Sequence[tuple[str, str]]


def write_tables(comparison: Comparison, folder: Path, *, remarks: Sequence[str] = ()) -> None:
    """Write results.csv, a row a run, and results.md, the verdicts and a row an arm.

    Args:
        remarks: sentences at the head of results.md: that nothing was audited.
    """
    write_atomic(folder / "results.csv", comparison.table().to_csv(index=False))
    write_atomic(folder / "results.md", "".join(f"{remark}\n\n" for remark in remarks) + markdown(comparison))


def write_report(
    comparison: Comparison,
    path: Path,
    *,
    knowledge: Mapping[str, Any],
    reproduce: str,
    title: str,
    sections: Sequence[Section] = (),
    maps: Mapping[str, Any] | None = None,
    price: Sequence[str] = (),
    example: Example | None = None,
) -> None:
    """Write the report as one HTML file.

    Args:
        knowledge: what is known of how the knowledge was made and what it cost, label -> value.
        reproduce: the command that makes this report again.
        sections: further parts, shown before how to reproduce: the leakage audit.
        maps: pictures of the vectors (`vector_map`), by their captions.
        price: sentences on what the knowledge cost beside what it brings.
        example: an item's prompt, answer and neighbours.
    """
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_harmless,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.from_string(files("kar_aug.report").joinpath("report.html.j2").read_text(encoding="utf-8"))
    best = [arm for b in comparison.backbones if (arm := fullest(comparison.arms, b)) is not None]
    against_base, against_controls = verdicts(comparison)
    ladders, asked = decomposition(comparison), leading(comparison)
    run = next(iter(comparison.runs.values()))[0]
    content = template.render(
        title=title,
        headlines=headlines(comparison),
        verdicts=asked,
        pairs=pairs_told(len(asked)),
        few_pairs=len(asked) <= FEW_PAIRS,
        seeds=counted(comparison.seeds, "seed"),
        ladder_columns=named_after(comparison, LADDER),
        ladders={ladder.title: ladder_rows(ladder) for ladder in ladders},
        of_both=any(len(ladder.rungs[-1].arm.entities) > 1 for ladder in ladders),
        decomposition=plots.decomposition(ladders, comparison.objective.metric) if ladders else "",
        intervals=plots.intervals(comparison),
        columns=columns_of(comparison),
        rows=rows(comparison),
        test_columns=named_after(comparison, TESTS),
        tests=test_rows([*against_base, *against_controls]),
        slice_columns=named_after(comparison, SLICES),
        slices={arm.name: slice_rows(found) for arm in best if (found := by_slice(comparison, arm))},
        of_slice=comparison.objective.of_slice,
        curves=plots.curves(comparison),
        calibration=plots.calibration(comparison, best),
        gates=gate_usage(comparison, best),
        maps={caption: plots.svg(figure) for caption, figure in (maps or {}).items()},
        legend=legend(comparison),
        metric=comparison.objective.metric,
        lists=comparison.objective.told(comparison.experiment.samples(0)),
        grouped_by=comparison.grouped_by,
        clicks=clicks(comparison),
        price=price,
        example=example,
        parts=comparison.rows,
        coverage=_coverage(comparison, best),
        knowledge=knowledge,
        sections=sections,
        reproduce=reproduce,
        settings=json.dumps(masked_in(comparison.experiment.workspace.config.as_dict()), indent=1),
        fingerprints={
            "data": run.data,
            **dict(item for arm in best for item in comparison.runs[arm][0].knowledge.items()),
        },
        environment=run.environment,
        code=code_version(),
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )
    write_atomic(path, content)


def _harmless(value: Any) -> Any:
    """Prompts, answers, titles and names of files as a page shows them; pictures are the report's own."""
    return harmless(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _coverage(comparison: Comparison, best: Sequence[Arm]) -> dict[str, tuple[float, float]]:
    """Per source the share of test rows, and of known ids, that have knowledge."""
    if not best:
        return {}
    # Of an id that has versions, whether there is any now.
    tables = comparison.experiment.served_tables(best[0], 0) or comparison.experiment.tables(best[0], 0)
    of_rows = comparison.coverage(best[0])
    return {name: (of_rows[name], float((table.rows[1:] >= 0).mean())) for name, table in tables.items()}
