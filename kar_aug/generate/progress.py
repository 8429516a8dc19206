"""Where a job stands."""

from __future__ import annotations

from dataclasses import dataclass, field

# Statuses of answers in which there is no answer.
_NOTHING_SAID = ("empty", "unfinished", "malformed", "wrong_model")


@dataclass
class Progress:
    """Counts of one job; they grow while prompts are read and answers come.

    Every prompt is one of `new` (nothing was known about its entity), `changed` (the entity has the answer to another
    prompt, model or parameters) and `unchanged`. `gone` are entities with knowledge that this job had no prompt for; it
    is known when all prompts were read. And every prompt ends as `cached` (its question has an answer), `asked`
    (answered in this job), `failed`, `skipped` (rejected before, not asked again) or `elsewhere` (in a batch that
    runs).

    `requests` counts what was sent, retries included; `limited` how often the server asked to slow down; `concurrency`
    is how many requests may be in flight just now; `ready` are answers of batches that still run; `cost` is in US
    dollars, 0 where prices are not known; `stopping` says that only what is in flight is still waited for.

    `no_knowledge` counts prompts, cached ones too, whose answer is none, by its status. `remarks` are sentences on this
    job's answers (see `kar_aug.generate.remarks`); `judged` are stored answers that are worth something else by today's
    settings than before.
    """

    total: int = 0
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    gone: int = 0
    cached: int = 0
    asked: int = 0
    failed: int = 0
    skipped: int = 0
    elsewhere: int = 0
    requests: int = 0
    limited: int = 0
    concurrency: int = 0
    ready: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    stopping: bool = False
    reasons: dict[str, int] = field(default_factory=dict)
    no_knowledge: dict[str, int] = field(default_factory=dict)
    remarks: dict[str, int] = field(default_factory=dict)
    judged: int = 0

    @property
    def done(self) -> int:
        """Prompts that need nothing more in this job."""
        return self.cached + self.asked + self.failed + self.skipped + self.elsewhere

    def count_failure(self, reason: str, count: int = 1) -> None:
        """So many more prompts that have no answer, and why."""
        self.failed += count
        self.count(self.reasons, reason, count)

    @property
    def complete(self) -> bool:
        """Whether every prompt was answered, or is in a batch. A refusal is an answer; but if none is knowledge,
        nothing came of it.
        """
        nothing_said = sum(self.no_knowledge.get(status, 0) for status in _NOTHING_SAID)
        useless = 0 < self.total - self.elsewhere <= sum(self.no_knowledge.values())
        return not (self.failed or self.skipped or nothing_said or useless)

    def count(self, counted: dict[str, int], what: str, count: int = 1) -> bool:
        """Count into one of `reasons`, `no_knowledge` and `remarks`; whether it is the first of its kind."""
        counted[what] = counted.get(what, 0) + count
        return counted[what] == count

    @property
    def changes(self) -> str:
        """What is new since the last job."""
        return f"{self.new:,} new, {self.changed:,} changed, {self.unchanged:,} unchanged, {self.gone:,} gone"

    def __str__(self) -> str:
        text = f"{self.asked:,} asked, {self.cached:,} already cached, {self.failed:,} failed of {self.total:,}"
        if self.stopping:
            text += " looked at"  # a job that stops has not read all of its prompts
        if self.skipped:
            text += f"; {self.skipped:,} rejected before (--retry-failed asks again)"
        if self.elsewhere:
            text += f"; {self.elsewhere:,} in batches that run"
        if self.judged:
            text += f"; {self.judged:,} stored answers judged anew"
        if self.cost:
            text += f"; ${self.cost:,.4f}"
        text += "".join(f"; {count:,} x {reason}" for reason, count in self.reasons.items())
        if self.no_knowledge:
            text += "; no knowledge: " + ", ".join(f"{n:,} {status}" for status, n in sorted(self.no_knowledge.items()))
        return text + "".join(f"; {count:,} x {remark}" for remark, count in self.remarks.items())
