"""Looking at a vector store: its norms, and which entities its vectors put side by side."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kar_aug.cache import VectorStore
from kar_aug.cache.vectors.index import EntityId
from kar_aug.data.cells import text_of
from kar_aug.errors import ConfigError, StoreError

_ROWS = 65_536


def norms(store: VectorStore, *, most: int = 100_000) -> npt.NDArray[np.float64]:
    """Lengths of the vectors, (count,); of the first `most` of a larger store."""
    ids = store.ids[:most]
    return np.linalg.norm(store.gather(ids).astype(np.float32), axis=1).astype(np.float64)


def nearest(store: VectorStore, id: EntityId, count: int = 5) -> list[tuple[EntityId, float]]:
    """The `count` entities whose vectors have the largest cosine to that of `id`, nearest first.

    The mean of all vectors is taken off first: what all texts have in common ("this film is ...") says nothing of one.

    Raises:
        StoreError: `id` has no vector.
    """
    ids = [other for other in store.ids if other != id]
    if len(ids) < 1:
        raise StoreError(f"{store.path} holds no other vector than that of {id!r}.", path=store.path, entity_id=id)
    batches = [ids[start : start + _ROWS] for start in range(0, len(ids), _ROWS)]
    mean = sum(store.gather(batch).astype(np.float32).sum(axis=0) for batch in batches) / len(ids)
    asked = store.gather([id])[0].astype(np.float32) - mean
    cosines = np.concatenate([_cosine(store.gather(batch).astype(np.float32) - mean, asked) for batch in batches])
    return [(ids[place], float(cosines[place])) for place in np.argsort(-cosines, kind="stable")[:count]]


def _cosine(vectors: npt.NDArray[Any], asked: npt.NDArray[Any]) -> npt.NDArray[Any]:
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(asked)
    return vectors @ asked / np.maximum(lengths, 1e-12)


def titles(table: pd.DataFrame, key: str, fields: Sequence[str] = ()) -> dict[EntityId, str]:
    """Per id what people call it: the column `title` or `name`, or the first of some fields with the id, or that alone.

    Args:
        fields: what a scenario shows of it.
    """
    column = next((name for name in ("title", "name") if name in table), key)
    first = next((name for name in fields if name in table), None)
    if column == key and first is not None:
        said = table[first].map(lambda cell: text_of(cell) or "?")
        return {id: f"{text} ({id})" for id, text in zip(table[key].tolist(), said.tolist(), strict=True)}
    return dict(zip(table[key].tolist(), table[column].astype(str).tolist(), strict=True))


def find(named: dict[EntityId, str], given: str) -> EntityId:
    """The entity that a person means: by id, by a title that no other has, or by a part that only one title has.

    Raises:
        ConfigError: There is none, or several; the message names some.
    """
    if (own := next((id for id in named if str(id) == given), None)) is not None:
        return own
    with_id = {id: f"{title.removesuffix(f' ({id})')} ({id})" for id, title in named.items()}
    having = {id: title for id, title in with_id.items() if given in (title, title.removesuffix(f" ({id})"))}
    if not having:
        having = {id: title for id, title in named.items() if given.casefold() in title.casefold()}
    if len(having) == 1:
        return next(iter(having))
    near = list(having.values()) or difflib.get_close_matches(given, list(named.values()), 3, 0.5)
    hint = f" Did you mean {' or '.join(map(repr, near[:3]))}?" if near else ""
    raise ConfigError(f"{'Several items are' if having else 'There is no item'} called {given!r}.{hint}")
