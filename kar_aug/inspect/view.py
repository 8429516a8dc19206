"""All answers as one page: a file that needs nothing else, and that a browser searches.

The page holds an index, a row for each entity that has an answer (or failed), and the texts in chunks, both packed. A
browser unpacks the index when it opens the page, a chunk when one of its answers is opened, and one after the other
when somebody looks for words in all texts. Only the rows that can be seen are in the table.

What others wrote (titles, answers) is in the page as packed data alone, is shown as text and never as HTML; and the
page's policy forbids it to ask for anything.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from kar_aug._helpers.batched import batched
from kar_aug._helpers.files import atomic_path
from kar_aug._helpers.foreign import harmless
from kar_aug._helpers.printed import Printed
from kar_aug.cache import Answer, Link, TextCache, VectorStore
from kar_aug.cache.texts.cache import DamagedAnswer, is_of_groups
from kar_aug.cache.texts.verify import Flag
from kar_aug.cache.vectors.index import EntityId
from kar_aug.inspect.nearest import titles
from kar_aug.pipeline.workspace import ENTITIES, Workspace

FACTS = ("model", "tier", "seconds", "answered", "prompt version", "as of", "key")
_TEXTS = 500  # answers of a chunk
_INDEX = 5_000  # rows of a chunk of the index
_NEAREST = 5
_MOST = 20_000  # vectors: of more, each beside each takes minutes
_BLOCK = 2_048
Row = list[Any]


@dataclass(frozen=True)
class View(Printed):
    """A page of answers: where it is, and how much is in it."""

    path: Path
    rows: int
    answers: int
    bytes: int

    def __str__(self) -> str:
        return f"{self.path}: {self.rows:,} rows, {self.answers:,} answers, {self.bytes / 1e6:,.1f} MB"


def write_view(workspace: Workspace, path: Path, flags: Iterable[Flag] = (), *, prompts: bool = True) -> View:
    """Write the page.

    Args:
        flags: of `kar_aug.cache.texts.verify`.
        prompts: whether with the prompts, which show rows of the data.
    """
    with workspace.paths.open_cache(reading=True) as cache, atomic_path(path) as temporary:
        page = _Page(_by_key(flags), _names(workspace), _neighbours(workspace), prompts)
        before, after = _template(workspace, cache).split("@DATA@")
        with temporary.open("w", encoding="utf-8") as file:
            file.write(before)
            for script in page.scripts(cache):
                file.write(script)
            file.write(after)
    return View(path, page.rows, page.answers, path.stat().st_size)


@dataclass
class _Page:
    """The data of a page, as they are written."""

    flags: Mapping[str, list[Flag]]
    names: Mapping[str, Mapping[EntityId, str]]
    near: Mapping[str, Mapping[EntityId, list[tuple[EntityId, float]]]]
    prompts: bool
    rows: int = 0
    answers: int = 0
    _index: list[Row] = field(default_factory=list)

    def scripts(self, cache: TextCache) -> Iterator[str]:
        """The chunks of texts, then those of the index."""
        damaged: list[DamagedAnswer] = []
        for number, answers in enumerate(batched(cache.answers(damaged.append), _TEXTS)):
            links = cache.links_of([answer.key for answer in answers])
            for place, answer in enumerate(answers):
                owners: list[Link | None] = [*links.get(answer.key, [])] or [None]
                for link in owners:
                    self._index.append(self._row(answer, link, number, place))
            self.answers += len(answers)
            yield _script(f"texts-{number}", [self._texts(answer) for answer in answers])
        for each in damaged:
            self._index.append(self._lost(each.key, "damaged", each.why, None, None))
        for failure in cache.failures():
            row = self._lost(failure.key, "failed", failure.reason, failure.knowledge, failure.entity_id)
            self._index.append(row)
        self.rows = len(self._index)
        for number, rows in enumerate(batched(self._index, _INDEX)):
            yield _script(f"index-{number}", list(rows))

    def _texts(self, answer: Answer) -> dict[str, Any]:
        messages = [
            [harmless(str(m.get("role", ""))), harmless(str(m.get("content", "")))]
            for m in (answer.messages if self.prompts else ())
        ]
        return {"messages": messages, "text": harmless(answer.text)}

    def _row(self, answer: Answer, link: Link | None, chunk: int, place: int) -> Row:
        knowledge, id = (link.knowledge, link.entity_id) if link else ("nobody's", answer.key[:8])
        entity = "" if is_of_groups(knowledge) else knowledge.partition(":")[0]
        version, as_of = (link.prompt_version, link.as_of or "") if link else ("", "")
        facts = [answer.served_model or answer.model, answer.tier, f"{answer.seconds:.1f}", answer.created]
        return [
            knowledge,
            harmless(str(id)),
            harmless(self.names.get(entity, {}).get(id, "")),
            str(answer.status),
            self._flags(answer.key, link.entity_id if link else None),
            answer.prompt_tokens + answer.completion_tokens,
            answer.cost,
            chunk,
            place,
            [*map(harmless, [*facts, version, as_of, answer.key])],
            [[harmless(str(other)), round(cosine, 4)] for other, cosine in self.near.get(knowledge, {}).get(id, ())],
        ]

    def _lost(self, key: str, status: str, why: str, knowledge: str | None, id: EntityId | None) -> Row:
        entity = (knowledge or "").partition(":")[0]
        name = self.names.get(entity, {}).get(id, "") if id is not None else ""
        shown = key[:8] if id is None else str(id)
        facts = [""] * (len(FACTS) - 1)
        flags = [[status, harmless(why)]]
        return [
            knowledge or "nobody's",
            harmless(shown),
            harmless(name),
            status,
            flags,
            0,
            None,
            -1,
            0,
            [*facts, key],
            [],
        ]

    def _flags(self, key: str, id: EntityId | None) -> list[list[str]]:
        mine = (flag for flag in self.flags.get(key, ()) if flag.entity_id == id)
        return [[flag.kind, harmless(flag.detail)] for flag in mine]


def _script(name: str, content: Any) -> str:
    packed = base64.b64encode(zlib.compress(json.dumps(content, ensure_ascii=False).encode(), 6)).decode()
    return f'<script type="text/plain" id="{name}">{packed}</script>\n'


def _template(workspace: Workspace, cache: TextCache) -> str:
    spent = ", ".join(
        f"{model}: ${cost:,.4f} spent or reserved"
        for model in sorted({row.model for row in cache.ledger.history()})
        if (cost := cache.spent(model))
    )
    content = files("kar_aug.inspect").joinpath("view.html").read_text(encoding="utf-8")
    title = f"Answers of {workspace.config.folder.resolve().name}"
    content = content.replace("@TITLE@", escape(harmless(title)))
    about = f"{cache.name}. {spent}" if spent else cache.name
    return content.replace("@ABOUT@", escape(harmless(about))).replace("@FACTS@", json.dumps(FACTS))


def _by_key(flags: Iterable[Flag]) -> dict[str, list[Flag]]:
    found: dict[str, list[Flag]] = {}
    for flag in flags:
        found.setdefault(flag.key, []).append(flag)
    return found


def _names(workspace: Workspace) -> dict[str, dict[EntityId, str]]:
    items = workspace.data.tables.items
    return (
        {"item": titles(items, "item_id", workspace.asking.scenario.item["fields"])} if len(items.columns) > 1 else {}
    )


def _neighbours(workspace: Workspace) -> dict[str, dict[EntityId, list[tuple[EntityId, float]]]]:
    """Of each kind of knowledge that has vectors, and not too many: the nearest of each entity, by cosine."""
    found = {}
    for entity in ENTITIES:
        path = workspace.paths.store(entity)
        if path.exists():
            store = VectorStore.open(path)
            if 1 < len(store) <= _MOST:
                found[workspace.paths.knowledge(entity)] = _nearest_of_each(store)
    return found


def _nearest_of_each(store: VectorStore) -> dict[EntityId, list[tuple[EntityId, float]]]:
    """As `kar_aug.inspect.nearest` does for one: what all vectors have in common is taken off."""
    ids: Sequence[EntityId] = store.ids
    vectors = store.gather(ids).astype(np.float32)
    vectors -= vectors.mean(axis=0)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    count = min(_NEAREST, len(ids) - 1)
    found: dict[EntityId, list[tuple[EntityId, float]]] = {}
    for start in range(0, len(ids), _BLOCK):
        cosines = vectors[start : start + _BLOCK] @ vectors.T
        rows = np.arange(len(cosines))
        cosines[rows, start + rows] = -np.inf
        best = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        for row, places in zip(rows.tolist(), best.tolist(), strict=True):
            ordered = sorted(places, key=lambda place, row=row: -cosines[row, place])  # type: ignore[misc]
            found[ids[start + row]] = [(ids[place], float(cosines[row, place])) for place in ordered]
    return found
