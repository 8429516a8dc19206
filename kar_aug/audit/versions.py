"""What is known in versions, of users block by block say: whether no sample is given what saw an event at or after it.

That is a chain: the prompt of a block shows no event after the block's as-of time; the vectors of a version encode what
was said of its blocks, and stand in the store under the latest of their as-of times; and a sample is given the last
version strictly before it. Each link is looked at, with the times of the events in the log and not those that are
stored beside the answers, as far as the prompts can be rendered again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kar_aug._helpers.times import dates
from kar_aug.audit.findings import Check, Finding, found, shown
from kar_aug.audit.knowledge import Stored, seen_in, titles_of, users_in
from kar_aug.audit.split import samples_of
from kar_aug.cache import VectorStore, text_key
from kar_aug.cache.vectors.index import EntityId, given_ids
from kar_aug.cache.vectors.moments import BEFORE_ALL, Moments, as_of_moment, datetimes, moments
from kar_aug.generate.intake import accepted
from kar_aug.pipeline.workspace import Workspace
from kar_aug.pipeline.workspace.versions import with_blocks
from kar_aug.prompts.histories.blocks import owner


def as_of_times(stored: Sequence[Stored]) -> Check:
    """Whether no block is said to have ended before the last event that its prompt shows."""
    early = [each for each in stored if each.as_of is not None and _said(each) < _seen(each)]
    leak = Finding(
        "as-of",
        len(early),
        f"{len(early):,} blocks of histories are said to end before the last event that their prompt shows.",
        f"{_named(early[0])}: as of {early[0].as_of}, its last event is of {early[0].last}" if early else "",
    )
    untold = [each for each in stored if each.as_of is None]
    unproved = Finding(
        "as-of",
        len(untold),
        f"{len(untold):,} texts about blocks of histories have no as-of time.",
        _named(untold[0]) if untold else "",
    )
    return Check("blocks of histories end when they are said to", len(stored), "blocks", found(leak), found(unproved))


def prompts(stored: Sequence[Stored], workspace: Workspace) -> Check:
    """Whether no block's prompt shows an event after the block's as-of time.

    What is rendered today shows the block's own events alone. All other prompts are searched for what the user did
    later: items that are new then, and other ratings.
    """
    others = [each for each in stored if not each.proved]
    asked: dict[EntityId, str] = {each.entity_id: each.asked for each in others if each.asked}
    leaked = list(seen_in(asked, titles_of(workspace), _told_apart(others, workspace.data.timeline))) if asked else []
    leak = Finding(
        "prompt",
        users_in(leaked),
        f"{users_in(leaked):,} prompts of blocks of histories show {len(leaked):,} items or ratings of later events.",
        "block {!r}: {}".format(*leaked[0]) if leaked else "",
    )
    untold = [each for each in others if not each.asked]
    unproved = Finding(
        "prompt",
        len(untold),
        f"{len(untold):,} texts about blocks of histories came without the prompts that were asked.",
        _named(untold[0]) if untold else "",
    )
    name = "prompts of blocks show nothing after them"
    return Check(name, len(stored) - len(untold), "prompts", found(leak), found(unproved))


def samples(stored: Sequence[Stored], workspace: Workspace, entity: str = "user") -> Check:
    """Whether each sample is given vectors of texts that saw nothing but what was strictly before it.

    What earlier events are given of their items was known before those events, and so before the sample.
    """
    name = f"samples come after all that they are told of their {entity}"
    path = workspace.paths.vectors(workspace.paths.knowledge(entity))
    if not path.exists():
        return Check(name, 0, "samples")
    store = VectorStore.open(path)
    if not len(store):
        return Check(name, 0, "samples")
    known = _known(stored, workspace) if entity == "user" else _known_of_items(workspace)
    saw, foreign = _last_seen(store, known)
    told, bad, example = 0, 0, ""
    for part in samples_of(workspace.data.split):
        when = pd.to_datetime(dates(part["timestamp"]), utc=True)
        rows = store.rows_at(part[f"{entity}_id"].tolist(), when)
        late = (rows >= 0) & (saw[rows] >= moments(when))
        told, bad = told + int((rows >= 0).sum()), bad + int(late.sum())
        if late.any() and not example:
            first = int(late.argmax())
            example = _example(entity, part.iloc[first], store.moments_at(rows[[first]]), saw[rows[[first]]])
    leak = Finding(
        "as-of",
        bad,
        f"{bad:,} samples are given knowledge of their {entity} that saw an event at their time or later.",
        example,
    )
    unproved = Finding(
        "vectors",
        len(foreign),
        f"{len(foreign):,} vectors of {entity}s encode texts that are not, or not any more, what is known"
        + (". Run: kar-aug encode" if entity == "user" else ": what these saw is taken at the word of their store."),
        f"{entity} {foreign[0]!r}" if foreign else "",
    )
    return Check(name, told, "samples", found(leak), found(unproved))


@dataclass(frozen=True)
class _Known:
    """The versions that today's answers make: by (user, moment) the key of the text; by (user, key) the latest event
    that any of its blocks' prompts shows.
    """

    keys: Mapping[tuple[EntityId, int], str]
    last: Mapping[tuple[EntityId, str], int]


def _known(stored: Sequence[Stored], workspace: Workspace) -> _Known:
    of_block = {each.entity_id: _seen(each) for each in stored}
    keys: dict[tuple[EntityId, int], str] = {}
    last: dict[tuple[EntityId, str], int] = {}
    name = workspace.paths.knowledge("user")
    with workspace.paths.open_cache(reading=True) as cache:
        for text, blocks in with_blocks(cache.knowledge(name, accept=accepted(workspace.config.generate))):
            key = text_key(text.text)
            keys[text.entity_id, _moment(text.as_of)] = key
            seen = max(of_block.get(block, BEFORE_ALL) for block in blocks)
            last[text.entity_id, key] = max(seen, last.get((text.entity_id, key), BEFORE_ALL))
    return _Known(keys, last)


def _known_of_items(workspace: Workspace) -> _Known:
    """The same of what is known of items, whose texts say themselves until when they saw: whose versions are a store
    that somebody made.
    """
    last: dict[tuple[EntityId, str], int] = {}
    with workspace.paths.open_cache(reading=True) as cache:
        for text in workspace.asking.knowledge(cache, workspace.paths.knowledge("item")):
            last[text.entity_id, text_key(text.text)] = _moment(text.as_of)
    return _Known({}, last)


def are_of_items(workspace: Workspace) -> bool:
    """Whether what is known of items is a store of versions."""
    path = workspace.paths.vectors(workspace.paths.knowledge("item"))
    return path.exists() and VectorStore.open(path).versioned


def _last_seen(store: VectorStore, known: _Known) -> tuple[Moments, list[EntityId]]:
    """Per row of a store until when its text saw; and the users of vectors whose texts nobody knows, which are taken at
    their word.
    """
    index = store.index
    assert index.times is not None
    saw = np.full(store.manifest.rows, BEFORE_ALL)
    foreign: list[EntityId] = []
    keys = store.keys_at(index.rows)
    rows = zip(given_ids(index.ids), index.times.tolist(), index.rows.tolist(), keys, strict=True)
    for user, moment, row, key in rows:
        saw[row] = known.last.get((user, key), moment)
        if known.keys.get((user, moment)) != key and (user, key) not in known.last:
            foreign.append(user)
    return saw, foreign


def _told_apart(blocks: Sequence[Stored], timeline: pd.DataFrame) -> pd.DataFrame:
    """The events of each block's user, as if the block were one: "history" until its as-of time, then others."""
    users = {owner(block.entity_id)[0] for block in blocks}
    some = timeline[timeline["user_id"].isin(users)]
    some = some.assign(moment=moments(pd.to_datetime(dates(some["timestamp"]), utc=True)))
    of_user = dict(iter(some.groupby("user_id")))
    found = [some.iloc[:0]]
    for block in blocks:
        events = of_user.get(owner(block.entity_id)[0], some.iloc[:0])
        later = events["moment"] > _said(block)
        found.append(events.assign(user_id=block.entity_id, part=np.where(later, "test", "history")))
    return pd.concat(found, ignore_index=True)


def _said(block: Stored) -> int:
    """Until when a block is said to have seen; of one of which nothing is said, before everything."""
    return _moment(block.as_of)


def _seen(block: Stored) -> int:
    """Until when it did, as far as that can be known."""
    return _said(block) if block.last is None else as_of_moment(block.last)


def _moment(as_of: str | None) -> int:
    try:
        return as_of_moment(as_of or "")
    except ValueError:
        return int(BEFORE_ALL)


def _named(block: Stored) -> str:
    user, number = owner(block.entity_id)
    return f"block {number} of user {user!r}"


def _example(entity: str, sample: pd.Series, as_of: Moments, saw: Moments) -> str:
    said, seen = (datetimes(moment)[0].isoformat() for moment in (as_of, saw))
    other = "item" if entity == "user" else "user"
    return (
        f"{entity} {shown(sample[f'{entity}_id'])}: what is said to be known as of {said} saw an event of {seen}, the "
        f"sample in {sample['part']} about {other} {shown(sample[f'{other}_id'])} is of {sample['timestamp']}"
    )


def checks(stored: Sequence[Stored], workspace: Workspace) -> Iterator[Check]:
    """All of them."""
    yield as_of_times(stored)
    yield prompts(stored, workspace)
    yield samples(stored, workspace)
