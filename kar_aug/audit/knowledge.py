"""What is stored as knowledge: as-of times, the prompts that were asked, and what the vectors were made of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pandas as pd

from kar_aug._helpers.batched import batched
from kar_aug._helpers.times import dates
from kar_aug.audit.findings import Check, Finding, found, shown
from kar_aug.audit.split import event_key, samples_of
from kar_aug.cache import STATUSES, Answer, VectorStore, answer_key, text_key
from kar_aug.cache.texts.cache import DamagedAnswer
from kar_aug.cache.vectors.index import EntityId
from kar_aug.data import as_of
from kar_aug.data.cells import text_of
from kar_aug.data.room import blocks
from kar_aug.pipeline.workspace import ENTITIES, Workspace
from kar_aug.prompts.histories.summaries import without_summaries

_BATCH = 256
_WORD = re.compile(r"[0-9]+(?:[.][0-9]+)?|[^\W_]+")
# Words that stand in all of so many prompts are the template's, not an item's title.
_COMMON_PROMPTS = 3
_SHORTEST_TITLE = 4  # characters; shorter ones stand everywhere
_NAMES = 0.5  # distinct values, of all: what has fewer says something of items, and names none


@dataclass(frozen=True)
class Stored:
    """The knowledge of one entity.

    Args:
        as_of: the time of the last event that its prompt saw, as stored.
        text_key: of the answer's text, as vector stores keep it.
        proved: whether the prompt is, to the byte, what is rendered today where nothing but histories can be seen.
        asked: what was asked, without system message and summaries; "" where the prompt did not come with the answer,
            or is proved.
        summaries: whether the prompt shows summaries of whose own prompts nothing is known: it is not proved.
        last: the time of the last event that the prompt shows, as it is rendered today; None where it is not proved.
        imported: whether it came as a text: there is no prompt to be asked again.
    """

    entity_id: EntityId
    as_of: str | None
    text_key: str
    proved: bool
    asked: str = ""
    summaries: bool = False
    last: str | None = None
    imported: bool = False


def read(workspace: Workspace) -> tuple[dict[str, list[Stored]], list[DamagedAnswer]]:
    """All knowledge in the text cache, by what it is called; and the answers that cannot be read."""
    damaged: list[DamagedAnswer] = []
    stored: dict[str, list[Stored]] = {workspace.paths.knowledge(entity): [] for entity in ENTITIES}
    with workspace.paths.open_cache(reading=True) as cache:
        if not any(cache.counts()[status] for status in STATUSES):
            return stored, []
        blind = workspace.asking.blind()
        # What is asked about a block shows that block alone, of whatever part its events are.
        asking = {e: workspace.asking if workspace.paths.in_versions(e) else blind for e in ENTITIES}
        rendered = {
            (prompt.knowledge, prompt.entity_id): (_question(prompt.messages), prompt.as_of)
            for entity in ENTITIES
            for prompt in asking[entity].prompts(entity, everyone=True)
        }
        for answers in batched(cache.answers(damaged.append), _BATCH):
            links = cache.links_of([answer.key for answer in answers])
            for answer in answers:
                question, key = _question(answer.messages[:2]), text_key(answer.text)
                asked, summaries = _asked(answer)
                for link in links.get(answer.key, ()):
                    today, last = rendered.get((link.knowledge, link.entity_id), ("", None))
                    proved = bool(answer.messages) and today == question
                    text = "" if proved or link.knowledge.partition(":")[0] != "user" else asked
                    stored.setdefault(link.knowledge, []).append(
                        Stored(
                            link.entity_id,
                            link.as_of,
                            key,
                            proved,
                            text,
                            summaries and not proved,
                            last if proved else None,
                            not answer.messages,
                        )
                    )
    return stored, damaged


def whole(damaged: Sequence[DamagedAnswer]) -> Check:
    """Answers that cannot be read: nobody can tell what they know."""
    text = f"{len(damaged):,} stored answers are damaged, and were not looked at. See: kar-aug cache verify"
    finding = Finding("damaged", len(damaged), text, str(damaged[0]) if damaged else "")
    return Check("stored answers are what was stored", len(damaged), "answers", (), found(finding))


def _question(messages: Sequence[Mapping[str, Any]]) -> str:
    return answer_key("", messages, {})


def _asked(answer: Answer) -> tuple[str, bool]:
    """(what was asked without the summaries in it, whether there are such): what a summary says of an item need not be
    of the data. A prompt is proved with its summaries, which are looked up by their own prompts, rendered again.
    """
    text = "\n".join(str(message["content"]) for message in answer.messages if message.get("role") != "system")
    rest = without_summaries(text)
    return rest, rest != text


def as_of_times(entity: str, stored: Sequence[Stored], split: pd.DataFrame) -> Check:
    """Whether every sample is later than the as-of time of the knowledge that it would use."""
    key = f"{entity}_id"
    name = f"samples come after the knowledge of their {entity}"
    said = pd.Series([each.as_of or "" for each in stored], pd.Index([each.entity_id for each in stored]), dtype="str")
    times = pd.to_datetime(said, format="ISO8601", utc=True, errors="coerce")
    by_order = event_key(split) == "order" and entity == "user"
    ends = _utc(as_of(split)) if by_order else None
    imported = pd.Index([each.entity_id for each in stored if each.imported])
    told = 0
    bad: dict[str, tuple[int, str]] = {}  # kind of finding -> of how many samples, and one of them
    for samples in samples_of(split) if stored else ():
        known, when = _of_each(times, samples[key]), _utc(samples["timestamp"])
        if ends is None:
            late = when <= known
        else:  # at the very end of the history a sample may still be later in the given order: the split was checked
            late = (when < known) | ((when == known) & (known != _of_each(ends, samples["user_id"])))
        told += int(known.notna().sum())
        is_imported = samples[key].isin(imported)
        for kind, wrong in (("as-of", samples[late & ~is_imported]), ("imported", samples[late & is_imported])):
            if len(wrong):
                count, example = bad.get(kind) or (0, _as_of_example(entity, wrong.iloc[0], known[wrong.index[0]]))
                bad[kind] = count + len(wrong), example
    leaks = [
        Finding(kind, count, f"{count:,} samples are not later than the as-of time of their {entity}'s knowledge.", one)
        for kind, (count, one) in bad.items()
    ]
    untold = [each for each in stored if pd.isna(times.loc[each.entity_id]) and not each.proved]
    unproved = Finding(
        "as-of",
        len(untold),
        f"{len(untold):,} texts about {entity}s have no as-of time, and no prompt that is rendered today.",
        f"{entity} {untold[0].entity_id!r}" if untold else "",
    )
    return Check(name, told, "samples", tuple(leaks), found(unproved))


def _as_of_example(entity: str, row: pd.Series, known: pd.Timestamp) -> str:
    sample = f"the sample in {row['part']} about item {shown(row['item_id'])} of {row['timestamp']}"
    return f"{entity} {shown(row[f'{entity}_id'])}: the knowledge is of {known.isoformat()}, {sample}"


def _of_each(values: pd.Series, ids: pd.Series) -> pd.Series:
    """The value of each id, in the type of the values even where there is none."""
    return values.reindex(ids).set_axis(ids.index)


def users_in(leaked: Sequence[tuple[EntityId, str]]) -> int:
    """Of how many users what `seen_in` found is."""
    return len({user for user, _ in leaked})


def _utc(timestamp: pd.Series) -> pd.Series:
    return pd.to_datetime(dates(timestamp), utc=True)


def prompts(stored: Sequence[Stored], workspace: Workspace) -> Check:
    """Whether no prompt of a user shows an item or rating of the user's samples, other than as history has it.

    Where a prompt is what is rendered today from histories alone, only the user's own row could tell: it is searched
    for the items. All others are searched in full.
    """
    asked = {each.entity_id: each.asked for each in stored if not each.proved and each.asked}
    proved = {each.entity_id for each in stored if each.proved}
    untold = [each for each in stored if not each.proved and not each.asked]
    titles = titles_of(workspace)
    rows = _profiles(workspace, proved)
    found_in = list(seen_in(asked, titles, workspace.data.split)) + list(
        seen_in(rows, titles, workspace.data.split, ratings=False)
    )
    leak = Finding(
        "prompt",
        len(found_in),
        f"{users_in(found_in):,} prompts show {len(found_in):,} items or ratings of their user's samples.",
        "user {!r}: {}".format(*found_in[0]) if found_in else "",
    )
    unproved = Finding(
        "prompt",
        len(untold),
        f"{len(untold):,} texts about users came without the prompts that were asked.",
        f"user {untold[0].entity_id!r}" if untold else "",
    )
    summarised = [each for each in stored if each.summaries]
    unknown = Finding(
        "prompt",
        len(summarised),
        f"{len(summarised):,} prompts of users show summaries that are not those of today's histories.",
        f"user {summarised[0].entity_id!r}" if summarised else "",
    )
    return Check(
        "prompts show nothing of their user's samples",
        len(asked) + len(proved),
        "prompts",
        found(leak),
        found(unproved, unknown),
    )


def titles_of(workspace: Workspace) -> dict[EntityId, list[str]]:
    """Per item, what names it in a prompt, as words: no town or brand, which a user's row may have in common."""
    items = workspace.data.tables.items
    shown = [name for name in workspace.asking.scenario.user.get("item_fields", []) if name in items]
    columns = {name: [_words(text_of(value)) for value in items[name].tolist()] for name in shown}
    titles: dict[EntityId, list[str]] = {}
    for name in _naming(columns):
        for item, words in zip(items["item_id"].tolist(), columns[name], strict=True):
            if _is_long(words):
                titles.setdefault(item, []).append(words)
    return titles


def _naming(columns: Mapping[str, Sequence[str]]) -> list[str]:
    """The columns whose values are mostly those of a single item each; if none is, the one with most values."""
    distinct, there = {}, {}
    for name, values in columns.items():
        long = [words for words in values if _is_long(words)]
        distinct[name], there[name] = len(set(long)), len(long)
    found = [name for name in columns if distinct[name] > _NAMES * there[name]]
    return found or sorted(columns, key=lambda name: distinct[name], reverse=True)[:1]


def _is_long(words: str) -> bool:
    return len(words) - 2 >= _SHORTEST_TITLE


def _profiles(workspace: Workspace, wanted: set[EntityId]) -> dict[EntityId, str]:
    """Per user, the cells that a prompt shows of the user's row."""
    users = workspace.data.tables.users
    fields = [name for name in workspace.asking.scenario.user["fields"] if name in users]
    texts = [name for name in fields if not pd.api.types.is_numeric_dtype(users[name])]
    if not texts:
        return {}
    cells = users[texts].map(text_of).agg(" \n ".join, axis=1)
    return {user: cell for user, cell in zip(users["user_id"].tolist(), cells.tolist(), strict=True) if user in wanted}


def seen_in(
    texts: Mapping[EntityId, str], titles: Mapping[EntityId, list[str]], split: pd.DataFrame, *, ratings: bool = True
) -> Iterable[tuple[EntityId, str]]:
    """(user, what is shown) of every item or rating that stands in a user's text and only in the user's samples."""
    if not texts or not titles:
        return
    wanted = pd.Index(list(texts))
    rows = pd.concat(
        [part[part["user_id"].isin(wanted)] for part in (split.iloc[block] for block in blocks(len(split)))]
    )
    value = "rating" if "rating" in rows else "label"
    common = _common([_words(text) for text in texts.values()])
    user: Any
    for user, group in rows.groupby("user_id", sort=False):
        text = _words(texts[user])
        before = (group["part"] == "history").to_numpy()
        events = [*zip(group["item_id"].tolist(), group[value].astype(float).tolist(), strict=True)]
        seen = {event for event, is_history in zip(events, before, strict=True) if is_history}
        later = dict.fromkeys(event for event, is_history in zip(events, before, strict=True) if not is_history)
        seen_items = {item for item, _ in seen}
        rest = _without(text, {title for item in seen_items for title in titles.get(item, ())})
        for item in dict.fromkeys(item for item, _ in later if item not in seen_items):
            for title in titles.get(item, ()):
                if title not in common and title in rest:
                    yield user, f"item {item!r} of a sample, {title.strip()!r}"
        for item, rating in later if ratings else ():
            if item in seen_items and (item, rating) not in seen:
                for title in titles.get(item, ()):
                    if _rated(text, title, rating):
                        yield user, f"the rating {rating:g} of a sample of item {item!r}, {title.strip()!r}"


def _without(text: str, titles: Iterable[str]) -> str:
    """The text without the titles, the longest first: "Dune" stands in "Dune Messiah"."""
    for title in sorted(titles, key=len, reverse=True):
        text = text.replace(title, " . ")
    return text


def _rated(text: str, title: str, rating: float) -> bool:
    """Whether the number that follows the title is this rating: "Fargo 1996 rated 5"."""
    return any(
        float(number) == rating
        for number in re.findall(rf"{re.escape(title)}(?:[^\W\d]\S* ){{0,3}}(\d+(?:\.\d+)?) ", text)
    )


@lru_cache(100_000)
def _words(text: str) -> str:
    """Words and numbers in small letters with a space around each: whatever a template did to a title, it is found."""
    return f" {' '.join(_WORD.findall(text.lower()))} "


def _common(texts: Sequence[str]) -> set[str]:
    """Single words of the template: those in every text, where there are enough to tell."""
    if len(texts) < _COMMON_PROMPTS:
        return set()
    return {f" {word} " for word in set.intersection(*(set(text.split()) for text in texts))}


def vectors(entity: str, stored: Sequence[Stored], workspace: Workspace) -> Check:
    """Whether the vectors encode the texts that were checked, and not others."""
    name = f"vectors of {entity}s encode these texts"
    path = workspace.paths.vectors(workspace.paths.knowledge(entity))
    if not path.exists():
        return Check(name, 0, "vectors")
    store = VectorStore.open(path)
    keys, texts = store.keys, {each.entity_id: each.text_key for each in stored}
    foreign = [id for id in keys if id not in texts]
    stale = [id for id in keys if id in texts and texts[id] != keys[id]]
    others = [*stale, *foreign]
    if not others or _made_before_all_samples(store, workspace.data.split):
        return Check(name, len(keys), "vectors")
    leak = _superseded(stale, keys, workspace) if entity == "user" and stale else None
    unproved = [
        Finding(
            "vectors",
            len(stale),
            f"{len(stale):,} vectors of {entity}s encode other texts than are stored now. Run: kar-aug encode",
            f"{entity} {stale[0]!r}" if stale else "",
        ),
        Finding(
            "vectors",
            len(foreign),
            f"{len(foreign):,} vectors of {entity}s encode texts that are not in the text cache.",
            f"{entity} {foreign[0]!r}" if foreign else "",
        ),
    ]
    return Check(name, len(keys), "vectors", found(leak), found(*unproved))


def _made_before_all_samples(store: VectorStore, split: pd.DataFrame) -> bool:
    """Whether the latest as-of time of all texts of the store is before the first sample of anybody."""
    if store.manifest.as_of is None:
        return False
    latest = pd.to_datetime(store.manifest.as_of, utc=True, errors="coerce")
    return all(bool(latest < _utc(samples["timestamp"]).min()) for samples in samples_of(split) if len(samples))


def _superseded(stale: Sequence[EntityId], keys: Mapping[EntityId, str], workspace: Workspace) -> Finding:
    """The prompts of answers that are nobody's any more, where vectors still encode them."""
    owners: dict[str, list[EntityId]] = {}
    for id in stale:
        owners.setdefault(keys[id], []).append(id)
    asked: dict[EntityId, str] = {}
    with workspace.paths.open_cache(reading=True) as cache:
        for answer in cache.answers(lambda damaged: None):
            for id in owners.get(text_key(answer.text), ()):
                asked[id], _ = _asked(answer)
    leaked = list(seen_in(asked, titles_of(workspace), workspace.data.split))
    return Finding(
        "vectors",
        users_in(leaked),
        f"{users_in(leaked):,} vectors of users encode older answers, whose prompts show items or ratings of the "
        "user's samples. Run: kar-aug encode",
        "user {!r}: {}".format(*leaked[0]) if leaked else "",
    )
