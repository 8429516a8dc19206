"""A project's answers as vectors: what is known of users and items, of their groups, and what prompts showed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from kar_aug._helpers.printed import Printed
from kar_aug.cache import Knowledge, VectorStore
from kar_aug.config import EncodeConfig
from kar_aug.encode import Encoder, Texts, load_encoder
from kar_aug.encode import encode as run_encode
from kar_aug.encode.encoders import Bill
from kar_aug.errors import ConfigError
from kar_aug.pipeline.bill import open_bill
from kar_aug.pipeline.watch import SILENT, Watch
from kar_aug.pipeline.workspace import ENTITIES, Workspace
from kar_aug.pipeline.workspace import collaborative as behaviour
from kar_aug.pipeline.workspace.groups import mix
from kar_aug.prompts.histories.blocks import is_of_blocks
from kar_aug.registry import CONTROLS


@dataclass(frozen=True)
class Store(Printed):
    """A vector store that is up to date.

    Args:
        title: what it holds, as a person says it: "users", "item:tags", "items' metadata".
        long_texts: how many texts were longer than the encoder's window, and averaged over their pieces.
        groups: how many groups' vectors were mixed with its entities' own; 0 where none were.
        taken: how many vectors were taken away, since nothing is known of their entities any more.
    """

    title: str
    path: Path
    vectors: int
    dimension: int
    encoder: str
    long_texts: int = 0
    groups: int = 0
    taken: int = 0

    def __str__(self) -> str:
        if self.groups:
            return f"{self.title}: {self.vectors} vectors mixed with those of {self.groups} groups"
        text = f"{self.title}: {self.vectors} vectors of {self.dimension} by {self.encoder}"
        if self.long_texts:
            text += f"; {self.long_texts} texts were longer than its window: averaged over their pieces"
        if self.taken:
            text += f"; {self.taken:,} vectors were taken away, whose texts are no knowledge any more"
        return text


@dataclass(frozen=True)
class Encoded(Printed):
    """The stores that were brought up to date; `unknown` are entities of which there is no knowledge."""

    stores: Sequence[Store]
    unknown: Sequence[str]

    @property
    def frame(self) -> pd.DataFrame:
        """A row a store: what, vectors, dimension, encoder, long_texts, groups, taken, path."""
        names = ("title", "vectors", "dimension", "encoder", "long_texts", "groups", "taken", "path")
        rows = [[getattr(store, name) for name in names] for store in self.stores]
        return pd.DataFrame(rows, columns=pd.Index(["what", *names[1:]]))

    def __str__(self) -> str:
        return "\n".join([*map(str, self.stores), *map(_nothing, self.unknown)])


def encode(workspace: Workspace, watch: Watch = SILENT, *, collaborative: bool = False) -> Encoded:
    """Bring the vector stores up to date; vectors that are, stay.

    Args:
        collaborative: make those of behaviour alone, which need neither texts nor an encoder. They are made after all
            others where they are among the controls.

    Raises:
        ConfigError: [encode] does not fit its encoder, has a max_cost and no price, or groups have no knowledge yet.
        LimitReached: The endpoint's next request would cross [encode] max_cost; what is encoded is stored.
        EncodingError: There is no knowledge at all, or the encoder gave a vector that is not finite.
        StoreError: A store was made with another encoder, prompt version or language model.
    """
    if collaborative:
        return Encoded([_collaborative(workspace, watch)], [])
    with open_bill(workspace) as bill:
        return encode_by(open_encoder(workspace, bill), workspace, watch)


def encode_by(encoder: Encoder, workspace: Workspace, watch: Watch = SILENT) -> Encoded:
    """The same by an encoder that is open."""
    encoding = _Encoding(workspace, encoder, watch)
    grouped = [entity for entity in ENTITIES if workspace.paths.groups(entity) is not None]
    if workspace.config.encode.pca is not None and grouped:
        raise ConfigError("[encode] pca is fitted to one store, and groups have their own: use truncate_dim.")
    known = encoding.knowledge()
    for entity in ENTITIES:
        if entity not in known:
            watch.result(_nothing(entity))
        elif entity in grouped:
            encoding.mixed(entity)
    for name in workspace.config.compare.controls:
        control = CONTROLS.load(name)()
        for entity in known if control.needs_encoding else ():
            texts = Texts(partial(control.texts, workspace, entity))
            versions = control.in_versions and workspace.paths.in_versions(entity)
            encoding.texts(f"{entity}s' {name}", texts, control.folder(workspace, entity), versions=versions)
    if "collaborative" in workspace.config.compare.controls:
        if awaited := workspace.data.awaited_codes:  # by what models read, these vectors are called
            watch.result(f"items' collaborative vectors: none yet. {awaited}. Then again: kar-aug encode")
        else:
            encoding.stores.append(_collaborative(workspace, watch))
    return Encoded(encoding.stores, [entity for entity in ENTITIES if entity not in known])


def _collaborative(workspace: Workspace, watch: Watch) -> Store:
    """Behaviour as vectors of items; of each split, where seeds have their own."""
    compared = workspace.config.compare
    for seed in range(1, compared.seeds if compared.vary_split else 1):
        behaviour.make(workspace.with_seed(workspace.config.data.seed + seed))
    made = behaviour.make(workspace)
    store = Store("items' collaborative vectors", made.path, len(made), made.spec.dimension, made.spec.encoder)
    watch.result(str(store))
    return store


def open_encoder(workspace: Workspace, bill: Bill | None) -> Encoder:
    """The encoder of [encode]."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    config = workspace.config.encode
    options = {name: getattr(config, name) for name in ("long_texts", "base_url", "rpm", "tpm", "give_up_after")}
    return fitting(load_encoder(config.encoder, bill=bill, **options), config)


def fitting(encoder: Encoder, config: EncodeConfig) -> Encoder:
    """The encoder.

    Raises:
        ConfigError: [encode] wants more numbers than it has.
    """
    for name, dimension in (("truncate_dim", config.truncate_dim), ("pca", config.pca)):
        if dimension is not None and dimension >= encoder.dimension:
            raise ConfigError(f"[encode] {name} must be below the {encoder.dimension} numbers of {encoder.name}.")
    return encoder


# Loading an encoder prints bars of its own.
_QUIET = {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}


class _Encoding:
    """One run: its encoder, and the stores that it made so far."""

    def __init__(self, workspace: Workspace, encoder: Encoder, watch: Watch) -> None:
        self.workspace, self.encoder, self.watch = workspace, encoder, watch
        self.stores: list[Store] = []

    def knowledge(self) -> list[str]:
        """Encode all knowledge that there is; of which entities there is some."""
        paths, asking = self.workspace.paths, self.workspace.asking
        names = {entity: paths.all_knowledge(entity) for entity in ENTITIES}
        with paths.open_cache(reading=True) as cache:
            texts = {n: Texts(partial(asking.knowledge, cache, n)) for entity in ENTITIES for n in names[entity]}
            some = [name for name in texts if next(iter(texts[name]), None) is not None]
            for name in texts:
                if name not in some and paths.vectors(name).exists():
                    self.nothing_left(_title(name), paths.vectors(name))
            for name in some or names[ENTITIES[0]]:  # without any, the first says what to do
                self.texts(_title(name), texts[name], paths.vectors(name), versions=is_of_blocks(name))
        return [entity for entity in ENTITIES if any(name in some for name in names[entity])]

    def texts(self, title: str, texts: Iterable[Knowledge], path: Path, *, versions: bool = False) -> None:
        """Encode texts into the store at `path`, of versions where there are several an entity."""
        config, encoder = self.workspace.config.encode, self.encoder
        before, done = _long_texts(encoder), 0
        taken: list[int] = []
        with self.watch.bar(f"vectors of {title}", sum(1 for _ in texts)) as show:

            def count(rows: int) -> None:
                nonlocal done
                done += rows
                show(done, "")

            store = run_encode(
                texts,
                path,
                encoder,
                dtype=config.dtype,
                truncate_dim=config.truncate_dim,
                pca=config.pca,
                versions=versions,
                on_progress=count,
                # Of a sample of users, the others' vectors are not gone.
                on_taken=taken.append if self.workspace.config.data.sample_users is None else None,
            )
        self._add(title, store, long_texts=_long_texts(encoder) - before, taken=sum(taken))

    def nothing_left(self, title: str, path: Path) -> None:
        """Take all vectors away: none of their texts is knowledge any more."""
        store = VectorStore.open(path)
        with VectorStore.writer(path, store.spec) as writer:
            taken = writer.delete(store.ids)
        if taken:
            self._add(title, VectorStore.open(path), taken=taken)

    def mixed(self, entity: str) -> None:
        """Give each entity its group's vector, mixed with its own."""
        paths = self.workspace.paths
        own, groups = map(paths.vectors, paths.all_knowledge(entity))
        clusters = self.workspace.asking.clusters(entity)
        assert clusters is not None  # only then there is knowledge of groups
        if not groups.exists():
            raise ConfigError(
                f"Groups of {entity}s have no knowledge yet. Run kar-aug generate with the same settings."
            )
        store = mix(
            VectorStore.open(own) if own.exists() else None,
            VectorStore.open(groups),
            clusters.of,
            paths.store(entity),
            own_share=self.workspace.config.prompts.own_share,
        )
        self._add(f"{entity}s", store, groups=len(clusters.members))

    def _add(self, title: str, store: VectorStore, **counts: Any) -> None:
        self.stores.append(Store(title, store.path, store.versions, store.spec.dimension, self.encoder.name, **counts))
        self.watch.result(str(self.stores[-1]))


def _long_texts(encoder: Encoder) -> int:
    """How many texts beyond its window an encoder met so far."""
    return getattr(encoder, "split", 0)


def _title(knowledge: str) -> str:
    return f"{knowledge}s" if knowledge in ENTITIES else knowledge


def _nothing(entity: str) -> str:
    return f"{entity}s: no knowledge, nothing to encode"
