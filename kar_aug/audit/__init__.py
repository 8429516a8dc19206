"""Whether a comparison can be believed: no sample, test part or not, may be known before it is predicted.

The audit looks at what is really there: the split interactions, the model's inputs, the stored answers with their
prompts and as-of times, and the vectors. It finds

- samples at or before the as-of time of the knowledge that they would use;
- items or ratings of a user's samples in that user's prompt;
- columns, id vocabularies and click histories that were fitted on test rows, or give the label away;
- users or times that stand on both sides of a split.

What cannot be looked into (texts that came without prompt and as-of time) is reported as unproved, never as clean. What
a language model read before anybody asked it, reviews of the very items among them, no audit of this data can know.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from kar_aug.audit import inputs, knowledge, split, statistics
from kar_aug.audit.findings import REMEDIES as REMEDIES
from kar_aug.audit.findings import Check as Check
from kar_aug.audit.findings import Finding as Finding
from kar_aug.errors import LeakageError
from kar_aug.pipeline.workspace import SOURCES, Workspace

__all__ = ["REMEDIES", "Audit", "Check", "Finding", "audit", "require_clean"]


@dataclass(frozen=True)
class Audit:
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
    def verdict(self) -> str:
        """One line."""
        found = f"{len(self.leaks)} leaks" if self.leaks else "no leak"
        return f"{found} found by {len(self.checks)} checks" + (
            f"; {len(self.unproved)} cannot be proved clean" if self.unproved else ""
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for reports and files."""
        return {"verdict": self.verdict, **asdict(self)}


def audit(workspace: Workspace) -> Audit:
    """Audit the data, prompts, answers and vectors of a workspace.

    Raises:
        KarError: Something cannot be read at all.
    """
    data, tables, parts = workspace.config.data, workspace.feature_tables, workspace.split
    answers = knowledge.read(workspace)
    checks = [
        split.history_before_samples(parts),
        split.parts_apart(parts, data.protocol),
        inputs.samples_are_the_split(workspace.samples, parts),
        inputs.click_history(workspace.samples, parts),
        inputs.labels(workspace.samples),
        inputs.vocabularies(workspace.samples, parts),
    ]
    for source, features in zip(SOURCES, (data.user_features, data.item_features), strict=True):
        table = tables.users if source == "user" else tables.items
        shown = getattr(workspace.scenario, source)["fields"]
        checks.append(statistics.columns(source, table, [*features, *shown], parts))
    for source in SOURCES:
        checks.append(knowledge.as_of_times(source, answers[workspace.knowledge_source(source)], parts))
        checks.append(knowledge.vectors(source, answers[workspace.knowledge_source(source)], workspace))
    checks.append(knowledge.prompts(answers[workspace.knowledge_source("user")], workspace))
    return Audit(tuple(checks))


def require_clean(workspace: Workspace) -> Audit:
    """The audit of a workspace without leaks.

    Raises:
        LeakageError: There are leaks.
    """
    done = audit(workspace)
    if done.leaks:
        raise LeakageError(
            f"The comparison would be worthless: {done.leaks[0].text} ({len(done.leaks)} leaks in all). "
            "See them with: kar-aug audit",
            findings=done.leaks,
        )
    return done
