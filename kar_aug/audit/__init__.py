"""Whether a comparison can be believed: no sample, test part or not, may be known before it is predicted.

The audit looks at what is really there: the split interactions, the model's inputs, the stored answers with their
prompts and as-of times, and the vectors. It finds

- samples at or before the as-of time of the knowledge that they would use; where there are versions of it, of the one
  that they are given;
- items or ratings of a user's samples in that user's prompt;
- columns, vocabularies, scales and histories that were fitted on test rows, or give the label away;
- users or times that stand on both sides of a split;
- lists whose order gives away what was clicked in them;
- texts in what prompts show that speak to a language model, which are no leak and are named one by one.

What cannot be looked into (texts that came without prompt and as-of time) is reported as unproved, never as clean. What
a language model read before anybody asked it, reviews of the very items among them, no audit of this data can know.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from kar_aug._helpers.printed import Printed
from kar_aug._helpers.stage import make_callable
from kar_aug.audit import attacks, inputs, knowledge, lists, split, statistics, versions
from kar_aug.audit.findings import REMEDIES as REMEDIES
from kar_aug.audit.findings import Check as Check
from kar_aug.audit.findings import Finding as Finding
from kar_aug.errors import LeakageError
from kar_aug.pipeline.workspace import ENTITIES, Workspace

__all__ = ["REMEDIES", "Audit", "Check", "Finding", "audit", "require_clean"]


@dataclass(frozen=True)
class Audit(Printed):
    """What was checked, and what was found."""

    checks: tuple[Check, ...]

    @property
    def leaks(self) -> list[Finding]:
        """What makes a comparison worthless."""
        return [finding for check in self.checks for finding in check.leaks]

    @property
    def unproved(self) -> list[Finding]:
        """What may be clean, or not: there is no way to tell."""
        return [finding for check in self.checks for finding in check.unproved]

    @property
    def warnings(self) -> list[Finding]:
        """What is no leak, and worth a person's look: texts that speak to a model."""
        return [finding for check in self.checks for finding in check.warnings]

    @property
    def damaged(self) -> int:
        """How many stored answers could not be read."""
        return sum(finding.count for finding in self.unproved if finding.kind == "damaged")

    @property
    def verdict(self) -> str:
        """One line."""
        found = f"{len(self.leaks)} leaks" if self.leaks else "no leak"
        return f"{found} found by {len(self.checks)} checks" + (
            f"; {len(self.unproved)} cannot be proved clean" if self.unproved else ""
        )

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        """A row a check, as tables show it: what was checked, on how much, the result."""
        return [(check.name, f"{check.count:,} {check.unit}", check.result) for check in self.checks]

    @property
    def frame(self) -> pd.DataFrame:
        """A row a check: checked, count, unit, result, leaks, unproved (how many findings of each)."""
        rows = [(c.name, c.count, c.unit, c.result, len(c.leaks), len(c.unproved)) for c in self.checks]
        return pd.DataFrame(rows, columns=pd.Index(["checked", "count", "unit", "result", "leaks", "unproved"]))

    @property
    def explanation(self) -> list[str]:
        """What was found, with examples and what to do about it; the verdict at last. A line each."""
        lines = []
        for kind, findings in (
            ("leak", self.leaks),
            ("cannot be proved", self.unproved),
            ("to be looked at", self.warnings),
        ):
            for finding in findings:
                lines.append(f"{kind}: {finding.text}")
                if finding.example:
                    lines.append(f"  for example {finding.example}")
        kinds = dict.fromkeys(finding.kind for finding in (*self.leaks, *self.warnings))
        return [*lines, *(f"what to do ({kind}): {REMEDIES[kind]}" for kind in kinds), self.verdict]

    def __str__(self) -> str:
        checks = [f"{result}: {name}, {on}" for name, on, result in self.rows]
        return "\n".join([*checks, *self.explanation])

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for reports and files."""
        return {"verdict": self.verdict, **asdict(self)}


def audit(workspace: Workspace, entities: Collection[str] = ENTITIES) -> Audit:
    """Audit the data, prompts, answers and vectors of a workspace.

    Args:
        entities: those whose knowledge is looked at, and what its prompts show. What models read is, whatever they are.

    Raises:
        KarError: Something cannot be read at all.
    """
    config, data, asking = workspace.config.data, workspace.data, workspace.asking
    tables, parts, samples = data.feature_tables, data.split, data.samples
    answers, damaged = knowledge.read(workspace)
    checks = [
        split.history_before_samples(parts),
        split.parts_apart(parts, config.protocol),
        inputs.samples_are_the_split(samples, parts),
        inputs.earlier_events(samples, parts, data.room),
        inputs.labels(samples),
        inputs.vocabularies(samples, parts),
        inputs.fitted_on_training(samples, parts, data.room),
    ]
    if config.lists is not None:
        checks.append(lists.places(samples))
    for entity, features in zip(ENTITIES, (config.user_features, config.item_features), strict=True):
        table = tables.users if entity == "user" else tables.items
        is_shown = entity in entities or "user" in entities  # whose prompts show items, too
        shown = getattr(asking.scenario, entity)["fields"] if is_shown else []
        checks.append(statistics.columns(entity, table, [*features, *shown], parts))
        checks.append(attacks.speaking_texts(entity, table, shown))
    stored = {entity: answers[workspace.paths.knowledge(entity)] for entity in ENTITIES}
    for entity in entities:
        if workspace.paths.in_versions(entity):
            checks += versions.checks(stored[entity], workspace)
            continue
        if entity == "item" and versions.are_of_items(workspace):
            checks.append(versions.samples((), workspace, entity))
            continue
        checks.append(knowledge.as_of_times(entity, stored[entity], parts))
        checks.append(knowledge.vectors(entity, stored[entity], workspace))
    if "user" in entities and not workspace.paths.in_versions("user"):
        checks.append(knowledge.prompts(stored["user"], workspace))
    if damaged:
        checks.append(knowledge.whole(damaged))
    return Audit(tuple(checks))


def require_clean(workspace: Workspace, entities: Collection[str] = ENTITIES) -> Audit:
    """The audit of a workspace without leaks.

    Args:
        entities: those whose knowledge is looked at.

    Raises:
        LeakageError: There are leaks.
    """
    done = audit(workspace, entities)
    if done.leaks:
        raise LeakageError(
            f"The comparison would be worthless: {done.leaks[0].text} ({len(done.leaks)} leaks in all). "
            "See them with: kar-aug audit",
            findings=done.leaks,
        )
    return done


make_callable(__name__)
