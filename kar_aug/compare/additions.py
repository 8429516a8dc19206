"""What an arm adds to its plain backbone: nothing, knowledge, the vectors of another store, or a control."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from kar_aug.cache import Knowledge as Text
from kar_aug.cache import KnowledgeTable
from kar_aug.config import BASE, KNOWLEDGE, TrainingConfig
from kar_aug.errors import StoreError
from kar_aug.registry import CONTROLS

if TYPE_CHECKING:
    from kar_aug.pipeline.workspace import Workspace


class Addition:
    """What an arm adds.

    Attributes:
        kind: which of those four.
        words: how reports call it.
        has_vectors: whether there is an augmentation in the model; without one the arm has no entities either.
        entities: those that it has vectors of; of what imitates knowledge, those that this is about.
    """

    kind = ""
    words = ""
    has_vectors = True
    entities: tuple[str, ...] = ("user", "item")

    def name(self, backbone: str) -> str:
        """How tables and plots call an arm with it."""
        return f"{backbone} + {self.words}"

    def stores(self, workspace: Workspace, entity: str) -> dict[str, Path]:
        """The folders of the vector stores that it reads, by names of its own.

        Raises:
            StoreError: One is not there; the message says which command makes it.
        """
        return {}

    def table(self, tables: Mapping[str, KnowledgeTable], seed: int) -> KnowledgeTable:
        """What the layer looks up, of the tables of these stores. Drawn anew for each seed, where it draws."""
        return next(iter(tables.values()))


class Nothing(Addition):
    """The plain backbone."""

    kind = "base"
    words = "the plain backbone"
    has_vectors = False

    def name(self, backbone: str) -> str:
        return backbone


class Knowledge(Addition):
    """What a language model said of some entities: one of `kar_aug.config.KNOWLEDGE`."""

    kind = "knowledge"

    def __init__(self, name: str) -> None:
        self.entities = KNOWLEDGE[name]
        self.words = "knowledge" if len(self.entities) > 1 else f"{name} knowledge"
        self._name = name

    def stores(self, workspace: Workspace, entity: str) -> dict[str, Path]:
        path = workspace.store_path(entity)
        others = [each for each in self.entities if each != entity and workspace.store_path(each).exists()]
        if others and not path.exists():
            raise StoreError(
                f"There are no vectors of {entity}s ({path}), and there are some of {others[0]}s. Make them: kar-aug "
                f'encode. Or compare what there is, in kar.toml: [compare] knowledge = ["{others[0]}"]',
                path=path,
            )
        return {self._name: path}


class OtherStore(Addition):
    """Vectors of other texts: one of `[compare.stores]`."""

    kind = "store"

    def __init__(self, name: str) -> None:
        self.words = name

    def stores(self, workspace: Workspace, entity: str) -> dict[str, Path]:
        config = workspace.config
        return {self.words: config.path(config.compare.store_folders(self.words)[entity])}


class Control(Addition):
    """What could make a gain that is no knowledge. One a file in `kar_aug.compare.controls`, and a line in
    `kar_aug.registry.CONTROLS`, which names a class that is made without arguments.

    As it stands it reads the knowledge that it imitates. What a control must say is its `words`, and what it changes:
    the table (`table`), the stores (`stores`), or the model (`imitates`, `resized`).

    Attributes:
        is_text: whether its vectors are of texts that no language model wrote: only a control that is can tell
            knowledge from any other text.
        needs_encoding: whether `kar-aug encode` has to make its store, in `folder`, of its `texts`.
        in_versions: whether its own texts come in versions wherever the knowledge of an entity does.
        stands_beside: whether each arm with vectors is trained with these beside its own, too: what is told by
            behaviour, say, a text need not tell.
        imitates: whether the plain backbone is changed (`resized`) after the arm with the fullest knowledge.
    """

    kind = "control"
    is_text = False
    needs_encoding = False
    in_versions = False
    stands_beside = False
    imitates = False

    def stores(self, workspace: Workspace, entity: str) -> dict[str, Path]:
        return {"knowledge": workspace.store_path(entity)} if self.has_vectors else {}

    def resized(
        self,
        settings: TrainingConfig,
        count: Callable[[TrainingConfig], int],
        wanted: int,
        say: Callable[[str], None],
    ) -> TrainingConfig:
        """Other settings for the plain backbone.

        Args:
            count: how many parameters it trains with such settings; it is built for that.
            wanted: how many the arm with the fullest knowledge trains.
            say: tells the user something, in one line.
        """
        return settings

    def folder(self, workspace: Workspace, entity: str) -> Path:
        """Where the vectors of its own texts lie."""
        raise NotImplementedError

    def texts(self, workspace: Workspace, entity: str) -> Iterator[Text]:
        """Its own texts about the entities."""
        raise NotImplementedError


_OURS: Mapping[str, Addition] = {BASE: Nothing(), **{name: Knowledge(name) for name in KNOWLEDGE}}


@cache
def addition(name: str) -> Addition:
    """What the name of an arm's knowledge stands for."""
    if name in _OURS:
        return _OURS[name]
    return CONTROLS.load(name)() if name in CONTROLS else OtherStore(name)
