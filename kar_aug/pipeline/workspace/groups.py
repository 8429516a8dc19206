"""Collective knowledge, after REKI (arXiv:2408.10520): ask about groups of users or items instead of each one.

Entities are clustered, by the interactions of the histories or by vectors; the model is asked once a cluster, so that
the cost falls from N questions to K; and each entity gets its cluster's vector, mixed with its own where it has one.

Like popularity elsewhere, groups are formed of the histories alone, those of all users: a group's text may tell of
events that came later than a sample of another of its members, never of the samples themselves.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kar_aug._helpers.batched import batched
from kar_aug._helpers.times import latest
from kar_aug.cache import VectorStore
from kar_aug.cache.texts.cache import OF_GROUPS
from kar_aug.cache.vectors.files import MANIFEST
from kar_aug.data import Tables
from kar_aug.errors import EncodingError, MissingDependencyError
from kar_aug.prompts import Message, Prompt, Recipe, Scenario
from kar_aug.prompts.data import marked
from kar_aug.prompts.prompt import version_with
from kar_aug.prompts.text import clean

_DIMENSION = 32  # of the factors of the interactions
_TYPICAL = 12  # members, or items liked by them, that a prompt names
_COMMON = 3  # values of a field that it names
_ROWS = 8192
Id = int | str


@dataclass(frozen=True)
class Clusters:
    """Groups of users, or of items. `of` maps an entity to its group; `members` has the most typical first."""

    entity: str
    members: tuple[tuple[Id, ...], ...]

    @cached_property
    def of(self) -> dict[Id, int]:
        """The group of each entity."""
        return {id: number for number, ids in enumerate(self.members) for id in ids}

    @cached_property
    def fingerprint(self) -> str:
        """12 hex digits over who is in which group."""
        return hashlib.sha256(repr(self.members).encode()).hexdigest()[:12]

    @classmethod
    def read(cls, entity: str, path: Path) -> Clusters:
        """The groups that `write` wrote."""
        frame = pd.read_parquet(path)
        return cls(entity, tuple(tuple(ids.tolist()) for _, ids in frame.groupby("cluster")["id"]))

    def write(self, path: Path) -> None:
        """Keep them: another machine's arithmetic might draw other borders, and every question would be new."""
        rows = [(number, id) for number, ids in enumerate(self.members) for id in ids]
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows, columns=["cluster", "id"]).to_parquet(path)


def cluster(entity: str, ids: Sequence[Id], vectors: npt.NDArray[Any], count: int, *, seed: int = 0) -> Clusters:
    """k-means over unit vectors, shape (len(ids), dimension); entities nearest to a centre are the most typical.

    Raises:
        MissingDependencyError: scikit-learn is not installed.
        EncodingError: There are fewer entities than groups.
    """
    try:
        from sklearn.cluster import KMeans, MiniBatchKMeans
    except ImportError:
        raise MissingDependencyError("scikit-learn", "online") from None
    if len(ids) < count:
        raise EncodingError(
            f"{len(ids):,} {entity}s cannot be put into {count:,} groups: lower {entity}_clusters.",
            entity=entity, left=count, right=len(ids),
        )  # fmt: skip
    unit = np.asarray(vectors, np.float32)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    kind = KMeans if len(ids) <= 20_000 else partial(MiniBatchKMeans, batch_size=4096)
    model = kind(count, n_init=3, random_state=seed).fit(unit)
    far = np.linalg.norm(unit - model.cluster_centers_[model.labels_], axis=1)
    groups: list[list[Id]] = [[] for _ in range(count)]
    for row in np.argsort(far, kind="stable").tolist():
        groups[model.labels_[row]].append(ids[row])
    return Clusters(entity, tuple(tuple(group) for group in groups if group))


def kept_clusters(entity: str, count: int, split: pd.DataFrame, items: VectorStore | None, folder: Path) -> Clusters:
    """The groups of users, or items, kept in `folder`: drawn once for the same histories and vectors.

    Args:
        items: the items' vectors, to group by; by the interactions of the histories if None.
    """
    history = split.loc[split["part"] == "history", ["user_id", "item_id", "label"]]
    seen = hashlib.sha256(history.to_csv(index=False).encode() + (items.fingerprint if items else "").encode())
    by = "interactions" if items is None else "vectors"
    path = folder / f"{entity}-{count}-{by}-{seen.hexdigest()[:12]}.parquet"
    if path.exists():
        return Clusters.read(entity, path)
    if items is None:
        found = interaction_vectors(split, entity)
    elif entity == "item":
        found = items.ids, items.gather(items.ids)
    else:
        found = mean_vectors(split, items)
    clusters = cluster(entity, *found, count)
    clusters.write(path)
    return clusters


def interaction_vectors(split: pd.DataFrame, entity: str) -> tuple[list[Id], npt.NDArray[np.float32]]:
    """(ids, a vector each): users or items by what they have in common in the histories: truncated SVD of their matrix,
    scaled by the popularity of both sides. An entity without history has no vector, and is in no group.

    Args:
        split: what `split_interactions` returned. A click counts 1, what was seen and not clicked -0.5.
    """
    try:
        from sklearn.decomposition import TruncatedSVD
    except ImportError:
        raise MissingDependencyError("scikit-learn", "online") from None
    from scipy import sparse

    events = split[split["part"] == "history"]
    other = "item" if entity == "user" else "user"
    rows, names = pd.factorize(events[f"{entity}_id"], sort=True)
    columns, others = pd.factorize(events[f"{other}_id"], sort=True)
    scale = np.sqrt(np.bincount(rows)[rows] * np.bincount(columns)[columns])
    worth = np.where(events["label"] > 0, 1.0, -0.5) / scale
    matrix = sparse.csr_matrix((worth, (rows, columns)), shape=(len(names), len(others)))
    dimension = min(_DIMENSION, *(size - 1 for size in matrix.shape))
    if dimension < 1:
        raise EncodingError(f"There are too few histories to group {entity}s by.", entity=entity)
    vectors = TruncatedSVD(dimension, random_state=0).fit_transform(matrix)
    return names.tolist(), vectors.astype(np.float32)


def mean_vectors(split: pd.DataFrame, items: VectorStore) -> tuple[list[Id], npt.NDArray[np.float32]]:
    """(user ids, a vector each): users by the mean vector of what they clicked in their histories."""
    liked = split[(split["part"] == "history") & (split["label"] > 0)]
    rows = items.rows(liked["item_id"].tolist())
    users, names = pd.factorize(liked["user_id"][rows >= 0], sort=True)
    total = np.zeros((len(names), items.spec.dimension), np.float32)
    np.add.at(total, users, items.vectors_at(rows[rows >= 0]).astype(np.float32))
    return names.tolist(), total


def collective_knowledge(knowledge: str, count: int) -> str:
    """How the knowledge of groups is called in the text cache: "item:collective-200", "item:tags:collective-200"."""
    return f"{knowledge if ':' in knowledge else knowledge + ':kar'}{OF_GROUPS}{count}"


def cluster_prompts(
    scenario: Scenario, tables: Tables, split: pd.DataFrame, clusters: Clusters, recipe: Recipe, count: int
) -> Iterator[Prompt]:
    """One prompt a group: the recipe's question about an entity, with the group's data in its place."""
    entity = clusters.entity
    describe = partial(_of_items if entity == "item" else _of_users, scenario, tables)
    version = version_with(recipe.version(scenario, entity), {"clusters": clusters.fingerprint})
    name = collective_knowledge(recipe.knowledge(entity), count)
    events = split[split["part"] == "history"]
    by_group = dict(iter(events.groupby(events[f"{entity}_id"].map(clusters.of))))
    for number, members in enumerate(clusters.members):
        seen = by_group.get(number, events.iloc[:0])
        last = None if entity == "item" or seen.empty else _time(seen["timestamp"].max())
        data = marked(describe(members, seen))
        system, asked = recipe.ask(scenario, entity, data)
        messages = _about_group(scenario, entity, system), asked
        yield Prompt(name, number, messages, version, last, schema=recipe.schema(entity), data=data)


def _about_group(scenario: Scenario, entity: str, system: Message) -> Message:
    things = scenario.words["items"] if entity == "item" else "users"
    wish = f"The data describe a group of {things}, not one: answer for what they share."
    return {"role": "system", "content": f"{system['content']}\n{wish}"}


def _of_items(scenario: Scenario, tables: Tables, members: Sequence[Id], seen: pd.DataFrame) -> Iterator[str]:
    rows = tables.items[tables.items["item_id"].isin(members)]
    by_id: dict[Any, dict[str, Any]] = rows.set_index("item_id").to_dict("index")  # type: ignore[assignment]
    names = (scenario.name_of(by_id[id]) for id in members if id in by_id)
    named = [name for name in names if name][:_TYPICAL]
    yield f"Group of {len(members)} {scenario.words['items']}, the most typical: {'; '.join(named)}"
    yield from _common(rows, scenario.item["fields"], skip=set(scenario.item.get("required", [])))


def _of_users(scenario: Scenario, tables: Tables, members: Sequence[Id], seen: pd.DataFrame) -> Iterator[str]:
    by_id: dict[Any, dict[str, Any]] = tables.items.set_index("item_id").to_dict("index")  # type: ignore[assignment]
    yield f"Group of {len(members)} users"
    for said, wanted in (("liked", seen["label"] > 0), ("not liked", seen["label"] <= 0)):
        counts = seen.loc[wanted, "item_id"].value_counts()
        ordered = sorted(counts.items(), key=lambda pair: (-pair[1], str(pair[0])))
        names = [scenario.name_of(by_id[id]) for id, _ in ordered if id in by_id]
        if named := [name for name in names if name][:_TYPICAL]:
            yield f"Most often {said} by them: {'; '.join(named)}"
    yield from _common(tables.users[tables.users["user_id"].isin(members)], scenario.user["fields"], skip=set())


def _common(rows: pd.DataFrame, fields: Sequence[str], *, skip: set[str]) -> Iterator[str]:
    """The values that a group has most often."""
    for field in fields:
        if field in skip or field not in rows or rows.empty:
            continue
        counted = Counter(value for cell in rows[field] for value in clean(cell).split("|") if value)
        most = sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))[:_COMMON]
        if most:
            listed = ", ".join(f"{value} ({count / len(rows):.0%})" for value, count in most)
            yield f"{field.replace('_', ' ').capitalize()}, most often: {listed}"


def mix(
    own: VectorStore | None, groups: VectorStore, cluster_of: Mapping[Id, int], path: Path, *, own_share: float = 0.5
) -> VectorStore:
    """A store of all entities: `own_share` of an entity's own vector and the rest of its group's; the group's alone
    where it has none, its own alone where it is in no group. Rows that are up to date stay.

    Raises:
        StoreError: The two stores are of different encoders, or `path` holds a store of another kind.
    """
    spec = groups.spec
    if own is not None:
        versions = tuple(sorted({*spec.prompt_versions, *own.spec.prompt_versions}))
        models = tuple(sorted({*spec.language_models, *own.spec.language_models}))
        spec = replace(spec, prompt_versions=versions, language_models=models)
        if own.spec != replace(own.spec, encoder=spec.encoder, dimension=spec.dimension):
            raise EncodingError(
                f"{own.path} and {groups.path} are of different encoders: delete one, encode again.",
                path=path, left=own.spec, right=groups.spec,
            )  # fmt: skip
    if (path / MANIFEST).exists() and VectorStore.open(path).spec != spec:
        shutil.rmtree(path)  # made of other texts: nothing in it is paid for
    as_of = latest(store.manifest.as_of for store in (groups, own) if store is not None)
    ids = list(dict.fromkeys([*cluster_of, *(own.ids if own is not None else [])]))
    with VectorStore.writer(path, spec) as writer:
        present = VectorStore.open(path) if writer.manifest.generation else None
        gone = [] if present is None else list(set(present.ids) - set(ids))
        for batch in batched(ids, _ROWS):
            group_keys = groups.keys_of([cluster_of.get(id, -1) for id in batch])
            own_keys = own.keys_of(batch) if own is not None else [None] * len(batch)
            old = present.keys_of(batch) if present is not None else [None] * len(batch)
            keys = [_key(a, b, own_share) for a, b in zip(own_keys, group_keys, strict=True)]
            gone += [id for id, key in zip(batch, keys, strict=True) if key is None]
            todo = [i for i, key in enumerate(keys) if key is not None and key != old[i]]
            mine = _vectors(own, [batch[i] for i in todo], spec.dimension)
            shared = _vectors(groups, [cluster_of.get(batch[i]) for i in todo], spec.dimension)
            has_own, has_group = (np.array([k[i] is not None for i in todo]) for k in (own_keys, group_keys))
            share = np.where(has_own, np.where(has_group, own_share, 1.0), 0.0)[:, None]
            mixed = share * mine + (1 - share) * shared
            if spec.normalized:
                mixed /= np.maximum(np.linalg.norm(mixed, axis=1, keepdims=True), 1e-12)
            writer.append([batch[i] for i in todo], [keys[i] or "" for i in todo], mixed, as_of=as_of)
        writer.delete(gone)
        writer.index()
        writer.prune()
    return VectorStore.open(path)


def _vectors(store: VectorStore | None, ids: Sequence[Id | None], dimension: int) -> npt.NDArray[np.float32]:
    """Vectors, zeros where there is none."""
    found = np.zeros((len(ids), dimension), np.float32)
    if store is not None:
        rows = store.rows(ids)
        found[rows >= 0] = store.vectors_at(rows[rows >= 0])
    return found


def _key(own: str | None, group: str | None, share: float) -> str | None:
    if own is None and group is None:
        return None
    return hashlib.sha256(f"{own} {group} {share}".encode()).hexdigest()[:32]


def _time(value: Any) -> str:
    return (value if isinstance(value, pd.Timestamp) else pd.Timestamp(value, unit="s")).isoformat()
