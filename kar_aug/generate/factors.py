"""Factors by collaboration (KAR, arXiv:2306.10933, section 3.3): a language model proposes, experts decide.

The model is asked several times which factors decide whether somebody likes an item of the domain; what it says is
merged and ranked by how many samples name it. What the experts made of it goes into the scenario's file, with a record
of who proposed and who decided.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kar_aug._helpers.toml import edited
from kar_aug.cache import TextCache
from kar_aug.config import LanguageModel
from kar_aug.errors import ConfigError, GenerationError, PromptError
from kar_aug.generate import generate
from kar_aug.generate.cost import Prices
from kar_aug.prompts import Prompt, Scenario
from kar_aug.prompts.prompt import version_of
from kar_aug.prompts.schema import answer_fault, read_json

if TYPE_CHECKING:
    from tomlkit import TOMLDocument
    from tomlkit.items import Table

SOURCE = "factors"
_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["factors"],
    "properties": {"factors": {"type": "array", "items": {"type": "string"}, "minItems": 1}},
}
_LONGEST = 60  # characters: a longer one is a sentence, and no factor
_TEMPERATURE = 1.0  # samples are to differ


@dataclass(frozen=True)
class Proposal:
    """A factor, how many samples name it, and where in them it stands on average (1 is first)."""

    factor: str
    votes: int
    rank: float


def propose(
    scenario: Scenario,
    cache: TextCache,
    model: LanguageModel,
    *,
    samples: int = 5,
    key: str | None = None,
    prices: Prices | None = None,
) -> list[Proposal]:
    """Ask for factors, `samples` times, and merge what comes. Samples that were answered before are not asked again.

    Raises:
        GenerationError: The model cannot be asked, or no sample names a factor.
    """
    answers: list[list[str]] = []
    prompt = question(scenario)
    for number in range(samples):
        sample = replace(prompt, entity_id=f"{scenario.name} {number}")
        drawn = replace(model, seed=model.seed + number, temperature=max(model.temperature, _TEMPERATURE))
        generate([sample], cache, drawn, key=key, prices=prices)
        answer = cache.of_entity(SOURCE, sample.entity_id)
        if answer is not None and answer_fault(answer.text, _SCHEMA) is None:
            answers.append(read_json(answer.text)["factors"])
    proposals = merge(answers)
    if not proposals:
        raise GenerationError(f"{model.model} named no factors in {samples} samples. See: kar-aug generate --status")
    return proposals


def question(scenario: Scenario) -> Prompt:
    """The question for factors of a scenario's domain."""
    words = scenario.words
    system = f"You are an expert for {words['items']} and for the people who like them. Answer in JSON."
    asks = (
        f"Which factors decide whether somebody likes a {words['item']}? Name at most ten, the most important first, "
        'each of one to three words, as one JSON object: {"factors": ["...", "..."]}'
    )
    messages = ({"role": "system", "content": system}, {"role": "user", "content": asks})
    return Prompt(SOURCE, scenario.name, messages, version_of(messages), schema=_SCHEMA)  # type: ignore[arg-type]


def merge(answers: Sequence[Sequence[str]]) -> list[Proposal]:
    """Factors by votes, then by their mean rank. "Director", "directors" and "the director" are one, called as the
    first sample does.
    """
    names: dict[str, str] = {}
    ranks: dict[str, list[int]] = {}
    for answer in answers:
        seen: set[str] = set()
        for text in answer:
            name = " ".join(re.sub(r"[\s_]+", " ", text).strip(" .,;:*-").lower().split())
            form = _form(name)
            if form and len(name) <= _LONGEST and form not in seen:
                seen.add(form)
                names.setdefault(form, name)
                ranks.setdefault(form, []).append(len(seen))
    proposals = [Proposal(names[form], len(found), sum(found) / len(found)) for form, found in ranks.items()]
    return sorted(proposals, key=lambda proposal: (-proposal.votes, proposal.rank, proposal.factor))


def _form(name: str) -> str:
    """What spellings of one factor share."""
    words = [word for word in re.findall(r"\w+", name) if word not in ("the", "a", "an", "of")]
    return " ".join(re.sub(r"(?<=\w{3})(?<!s)s$", "", word) for word in words)


def with_factors(
    content: str, factors: Sequence[str], proposals: Sequence[Proposal], *, by: str, model: str, samples: int, day: str
) -> str:
    """A scenario's file with another list of factors, and after its tables who decided them. All else stays as it is;
    comments inside the old list go with it.

    Args:
        by: who chose; model: who proposed; day: when, as 2026-01-31.

    Raises:
        PromptError: There is no list of factors in the file, or it cannot be replaced without moving anything.
    """

    def decide(document: TOMLDocument) -> None:
        import tomlkit
        from tomlkit.items import AoT, Array

        before = document.get("factors")
        if not isinstance(before, Array):
            raise PromptError('The scenario has no list of factors at its top: factors = ["...", "..."]')
        document["factors"] = tomlkit.array().multiline("\n" in before.as_string())
        document["factors"].extend(factors)
        decisions = document.setdefault("decisions", tomlkit.aot())
        if not isinstance(decisions, AoT):
            raise ConfigError("decisions must be tables: [[decisions]]")
        decisions.append(_record(factors, proposals, by, model, samples, day))

    try:
        return edited(content, decide)
    except ConfigError:
        raise PromptError(
            "The scenario's factors could not be replaced. Edit its line `factors = [...]` by hand."
        ) from None


def _record(
    factors: Sequence[str], proposals: Sequence[Proposal], by: str, model: str, samples: int, day: str
) -> Table:
    import tomlkit

    proposed = {proposal.factor: proposal.votes for proposal in proposals}
    votes = tomlkit.inline_table()
    votes.update(proposed)
    record = tomlkit.table()
    record.trivia.indent = "\n"  # an empty line before it
    record.comment("who decided the factors; no model sees it")
    record.update(
        {
            "day": day,
            "decided_by": by,
            "proposed_by": model,
            "samples": samples,
            "votes": votes,
            "kept": [name for name in factors if name in proposed],
            "added": [name for name in factors if name not in proposed],
            "left_out": [name for name in proposed if name not in factors],
        }
    )
    return record
