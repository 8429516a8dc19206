"""What forgetting costs: prompts that showed an item which is forgotten are others then, and are asked anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kar_aug.cache.texts.forgetting import Whom
from kar_aug.errors import KarError
from kar_aug.generate import Estimate, Prices, estimate, question_key
from kar_aug.generate.summaries import StoredSummaries
from kar_aug.pipeline.workspace import ENTITIES, Data, Workspace
from kar_aug.pipeline.workspace.forgotten import ForgottenIds


def asked_anew(workspace: Workspace, whom: Sequence[Whom], listed: ForgottenIds) -> list[str]:
    """How many more questions `generate` will have where items are forgotten, and what they cost, as a sentence. Groups
    are not counted, which are drawn only when they are asked about.

    Args:
        listed: the list as it will be.
    """
    if not any(each.entity == "item" for each in whom):
        return []
    prompts = replace(workspace.config.prompts, user_clusters=None, item_clusters=None)
    now = workspace.changed(prompts=prompts)
    try:
        then = Workspace(now.config, Data(now.paths, workspace.data.without(listed)))
        before, after = _estimate(now), _estimate(then)
    except (KarError, OSError) as error:
        return [f"what it costs to ask anew cannot be told: {error}"]
    more = after.questions - before.questions
    if more <= 0:
        return []
    return [f"prompts that showed them change: kar-aug generate asks {more:,} more questions{_price(before, after)}"]


def keys_asked(workspace: Workspace, whom: Whom) -> set[str]:
    """The keys of what is asked about them by today's settings, while the tables still show them."""
    model = workspace.config.generate
    with workspace.paths.open_cache(reading=True) as cache:
        prompts = workspace.asking.prompts(whom.entity, answers=StoredSummaries(cache, model))
        return {question_key(model, p) for p in prompts if whom.is_about(p.knowledge, p.entity_id)}


def _estimate(workspace: Workspace) -> Estimate:
    model = workspace.config.generate
    prices = Prices(workspace.config.path(model.prices) if model.prices else None)
    with workspace.paths.open_cache(reading=True) as cache:
        answers = StoredSummaries(cache, model, stand_in=True)
        prompts = (p for entity in ENTITIES for p in workspace.asking.prompts(entity, answers=answers))
        return estimate(prompts, cache, model, prices=prices)


def _price(before: Estimate, after: Estimate) -> str:
    now, then = before.cost(), after.cost()
    return ", of a model whose price is not known" if now is None or then is None else f", at most ${then - now:,.4f}"
