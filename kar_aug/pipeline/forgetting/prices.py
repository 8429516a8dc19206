"""What is asked about those who are forgotten, and what forgetting costs: prompts that showed an item which is
forgotten are others then, and are asked anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from kar_aug.cache.texts.forgetting import Whom
from kar_aug.errors import KarError
from kar_aug.generate import Estimate, Prices, estimate, question_key
from kar_aug.generate.summaries import StoredSummaries
from kar_aug.pipeline.workspace import ENTITIES, Data, Workspace
from kar_aug.pipeline.workspace.forgotten import ForgottenIds
from kar_aug.prompts import Prompt


def asked_anew(workspace: Workspace, whom: Sequence[Whom], listed: ForgottenIds) -> list[str]:
    """How many more questions `generate` will have where items are forgotten, and what they cost, as a sentence. Groups
    are not counted, which are drawn only when they are asked about.

    Args:
        listed: the list as it will be.
    """
    if not any(each.entity == "item" for each in whom):
        return []
    now = _without_groups(workspace)
    try:
        then = Workspace(now.config, Data(now.paths, workspace.data.without(listed)))
        before, after = _estimate(now), _estimate(then)
    except (KarError, OSError) as error:
        return [f"what it costs to ask anew cannot be told: {error}"]
    more = after.questions - before.questions
    if more <= 0:
        return []
    return [f"prompts that showed them change: kar-aug generate asks {more:,} more questions{_price(before, after)}"]


def keys_asked(workspace: Workspace, whom: Sequence[Whom]) -> tuple[set[str], set[str]]:
    """The keys of what is asked by today's settings, while the tables still show them: about them, and about those who
    stay. Groups are left out: to ask about one may be to draw it anew, with them in it.

    Raises:
        KarError, OSError: The prompts cannot be rendered: tables were moved, say.
    """
    model, theirs, others = workspace.config.generate, set[str](), set[str]()
    with workspace.paths.open_cache(reading=True) as cache:
        answers = StoredSummaries(cache, model)
        for prompt in _prompts(_without_groups(workspace), answers):
            about_them = any(each.is_about(prompt.knowledge, prompt.entity_id) for each in whom)
            (theirs if about_them else others).add(question_key(model, prompt))
    return theirs, others


def _without_groups(workspace: Workspace) -> Workspace:
    return workspace.changed(prompts=replace(workspace.config.prompts, user_clusters=None, item_clusters=None))


def _prompts(workspace: Workspace, answers: StoredSummaries) -> Iterator[Prompt]:
    return (prompt for entity in ENTITIES for prompt in workspace.asking.prompts(entity, answers=answers))


def _estimate(workspace: Workspace) -> Estimate:
    model = workspace.config.generate
    prices = Prices(workspace.config.path(model.prices) if model.prices else None)
    with workspace.paths.open_cache(reading=True) as cache:
        answers = StoredSummaries(cache, model, stand_in=True)
        return estimate(_prompts(workspace, answers), cache, model, prices=prices)


def _price(before: Estimate, after: Estimate) -> str:
    now, then = before.cost(), after.cost()
    return ", of a model whose price is not known" if now is None or then is None else f", at most ${then - now:,.4f}"
