"""A project's data: the tables, their split, and the samples that models read.

The samples lie in a folder of the workdir (see `kar_aug.data.prepared`): whoever asks for them first reads and splits
the tables and makes it, and all others map it into their memory. For samples alone no table is read then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kar_aug.cache import Status, VectorStore
from kar_aug.codes import SemanticIds
from kar_aug.config import ENTITIES
from kar_aug.data import Tables, load_tables, split_interactions
from kar_aug.data.building import build_samples
from kar_aug.data.contradictions import without_contradictions
from kar_aug.data.delimited import TextFormat
from kar_aug.data.inputs import Inputs, inputs
from kar_aug.data.kar_lists import kar_lists
from kar_aug.data.labels import labelled
from kar_aug.data.lists import SCORED, impressions, with_scores
from kar_aug.data.negatives import with_negatives
from kar_aug.data.outcomes import with_outcomes
from kar_aug.data.reading import read_table
from kar_aug.data.room import Room, among, different
from kar_aug.data.samples import Samples
from kar_aug.data.some_users import some_users
from kar_aug.data.split import PARTS, SAMPLE_PARTS, is_sample, part_codes, timeline
from kar_aug.errors import DataError, StoreError
from kar_aug.generate.intake import accepted
from kar_aug.pipeline.workspace.attributes import add_attributes, answers_fingerprint
from kar_aug.pipeline.workspace.code_features import add_codes, codes_fingerprint, codes_wanted, is_code, pieces_for
from kar_aug.pipeline.workspace.forgotten import ForgottenIds
from kar_aug.pipeline.workspace.paths import Paths
from kar_aug.pipeline.workspace.preparing import folder_of, made_of, prepared_samples
from kar_aug.prompts import Recipe


class Data:
    """Tables, split and samples, read when first asked for.

    Args:
        paths: where the files are, and the settings of [data].
        tables, split: what is to be instead of what the settings say. No samples of it are kept.
    """

    def __init__(self, paths: Paths, tables: Tables | None = None, split: pd.DataFrame | None = None) -> None:
        self.paths, self.config = paths, paths.config.data
        self.room = Room(paths.config.work / "room", paths.config.data.bytes)
        self._is_given = tables is not None or split is not None
        self._get_tables: Callable[[], Tables] = self._wanted if tables is None else lambda: tables
        self._get_split: Callable[[], pd.DataFrame] = self._make_split if split is None else lambda: split

    def changed(self, paths: Paths) -> Data:
        """The same tables by other settings; and the same split, if the settings of [data] are the same. Whoever is
        asked first reads them.
        """
        other = Data(paths)
        other._is_given, other._get_tables = self._is_given, lambda: self.tables
        if other.config == self.config:
            other._get_split = lambda: self.split
        return other

    @cached_property
    def tables(self) -> Tables:
        """The three tables, fetched or read."""
        return self._get_tables()

    def _wanted(self) -> Tables:
        return self.without(ForgottenIds.read(self.paths.config.work))

    def without(self, forgotten: ForgottenIds) -> Tables:
        """The tables without those who were forgotten; and of the others so many as are wanted."""
        left = forgotten.leave_out(self.all_tables(), self.room)
        count = self.config.sample_users
        return left if count is None else some_users(left, count, self.room)

    def all_tables(self) -> Tables:
        """As they are read, with those who were forgotten and those who are not wanted."""
        data, config = self.config, self.paths.config
        if data.dataset is not None:
            from kar_aug.datasets import load

            public = load(data.dataset, config.path(data.path) if data.path else None, config.work / "data")
            if data.label is None:
                return public
            return replace(public, interactions=labelled(public.interactions, data.label))
        paths = [config.path(name) if name else None for name in (data.interactions, data.items, data.users)]
        return load_tables(
            paths[0] or Path(),
            *paths[1:],
            columns=data.columns,
            id_type=data.id_type,
            separator=data.separator,
            encoding=data.encoding,
            thousands=data.thousands,
            label=data.label,
            shown=data.shown,
            clicked=data.clicked,
            item_columns=data.item_columns,
            room=self.room,
        )

    @cached_property
    def split(self) -> pd.DataFrame:
        """The interactions with their parts, and drawn negatives among them where these are asked for.

        Raises:
            DataError: A part has no events, or is of one class alone.
        """
        return self._get_split()

    def _make_split(self) -> pd.DataFrame:
        data = self.config
        split = split_interactions(
            self.tables.interactions,
            protocol=data.protocol,
            history=data.history,
            history_share=data.history_share,
            click_above=data.click_above,
            validation=data.validation,
            test=data.test,
            seed=data.seed,
            room=self.room,
        )
        if data.samples is not None or data.window is not None:
            split = with_outcomes(split, data.samples, data.window, self.room)
        if data.lists == "impressions":  # first: of what was shown and of its click one row is left, where it was shown
            split = impressions(split)
        before = _counts(split, self.room)
        for part, (rows, _) in before.items():
            if not rows:
                raise DataError(f"The {part} part has no events: there are too few to split by {data.protocol}.")
        if data.one_sample:
            split = without_contradictions(split)
            for part, (rows, clicks) in _counts(split, self.room).items():
                if clicks == rows and not data.negatives and before[part][0] > before[part][1]:
                    raise DataError(
                        f"The {part} part holds only clicks ({rows:,} rows), since [data] one_sample made events of "
                        f"the past of the {before[part][0] - before[part][1]:,} rows that were none: each is beside a "
                        "click of the same user, item and moment. Leave one_sample out, or draw items: negatives = 4"
                    )
        if data.negatives:
            split = with_negatives(split, data.negatives, data.seed, self.room)
        if data.lists == "kar":
            split = kar_lists(split, data.seed)
        if data.lists is not None and data.initial_scores is not None:
            split = self._with_scores(split, self.paths.config.path(data.initial_scores))
        counts = _counts(split, self.room)
        for part, (rows, clicks) in counts.items():
            have_both = [name for name, (others, theirs) in counts.items() if 0 < theirs < others]
            _two_classes(rows, clicks, part, have_both, in_lists=data.lists is not None)
        return split

    def _with_scores(self, split: pd.DataFrame, path: Path) -> pd.DataFrame:
        """Ids are read as text where the file has no types: those of the split say what they are."""
        scores = read_table(
            path,
            ids=SCORED,
            id_type="string",
            written=TextFormat(self.config.separator, self.config.encoding, self.config.thousands),
            room=self.room,
        )
        return with_scores(split, scores, str(path))

    @cached_property
    def timeline(self) -> pd.DataFrame:
        """All events in their order, of whatever part: see `kar_aug.data.split.timeline`."""
        return timeline(self.tables.interactions, click_above=self.config.click_above, room=self.room)

    @property
    def split_with_samples(self) -> pd.DataFrame:
        """The split without users who have a history alone."""
        split, room = self.split, self.room
        users = split["user_id"]
        sampled = different(users.iloc[block][is_sample(split.iloc[block])] for block in room.blocks(len(split)))
        is_sampled = among(sampled)
        return room.rows(split, room.filled(len(split), bool, lambda block: is_sampled(users.iloc[block])))

    @cached_property
    def feature_tables(self) -> Tables:
        """The tables, and in them what models read that stands in none: semantic ids of items, see `code_features`; and
        what a language model said as JSON, see `attributes`.
        """
        data, tables = self.config, self.tables
        if (codes := self.codes) is not None:
            names = (*self.inputs.item_features, *(self.inputs.event_features or ()))
            catalogue = pd.Index(tables.ids("item", self.room))
            tables = replace(tables, items=add_codes(tables.items, catalogue, names, codes))
        of_items = [name for name in data.item_features if not is_code(name)]
        if not any("." in name for name in (*data.user_features, *of_items)):
            return tables
        with self.paths.open_cache(reading=True) as cache:
            answers = partial(cache.knowledge, accept=self._accepted)
            users = add_attributes(tables.users, "user", data.user_features, self._recipe, answers)
            items = add_attributes(tables.items, "item", of_items, self._recipe, answers)
        return replace(tables, users=users, items=items)

    @cached_property
    def codes(self) -> SemanticIds | None:
        """The semantic ids that all models read of items; None where [data] asks for none, or the tables have columns
        of these names.

        Raises:
            StoreError: There are none, or they are those of an earlier state of the vectors.
        """
        if not codes_wanted(self.config):  # then no table need be read
            return None
        if not codes_wanted(self.config, self._of_items, self._of_events):
            return None
        path = self.paths.store("item")
        if not path.exists():
            raise StoreError(
                f'{path}: there are no vectors of items, which [data] item_features = "codes" needs. Make some, and '
                "semantic ids of them: kar-aug encode, then kar-aug codes",
                path=path,
            )
        return SemanticIds.of(VectorStore.open(path))

    @property
    def _of_items(self) -> set[str]:
        """The columns that a feature of items may be."""
        return set(map(str, self.tables.items))

    @property
    def _of_events(self) -> set[str]:
        """The columns that may be told of an earlier event."""
        return {*self._of_items, *map(str, self.tables.interactions)}

    @property
    def awaited_codes(self) -> str:
        """Why the semantic ids that all models are to read cannot be read yet, and what to do; "" where they can, or
        where none are.
        """
        try:
            _ = self.codes
        except StoreError as error:
            return str(error)
        return ""

    @property
    def inputs(self) -> Inputs:
        """What [data] says that models read, semantic ids piece by piece."""
        data, codes = self.config, self.codes
        if codes is None:
            return inputs(data)
        read = pieces_for(data.item_features, self._of_items, codes)
        told = data.event_features and pieces_for(data.event_features, self._of_events, codes)
        return inputs(replace(data, item_features=read, event_features=told))

    def _recipe(self, name: str) -> Recipe:
        """A recipe by name, one of the user's own as NAME.toml beside kar.toml."""
        own = f"{name}.toml"
        return self.paths.recipe(own if self.paths.config.path(own).is_file() else name)

    @cached_property
    def samples(self) -> Samples:
        """What the CTR model is trained and tested on.

        Raises:
            OSError: The workdir cannot be written to.
        """
        made = self._made_of
        return self._build() if made is None else prepared_samples(self.paths.config.work, made, self._build)

    @property
    def prepared(self) -> Path | None:
        """The folder that the samples lie in, or will; None where they are kept in none."""
        return None if self._made_of is None else folder_of(self.paths.config.work, self._made_of)

    def _build(self) -> Samples:
        return build_samples(self.feature_tables, self.split, self.inputs, self.room)

    @cached_property
    def _made_of(self) -> dict[str, Any] | None:
        """What the samples are made of; None where they are not to be kept."""
        made = None if self._is_given else made_of(self.paths.config)
        named = dict(zip(ENTITIES, (self.config.user_features, self.config.item_features), strict=True))
        if made is not None and codes_wanted(self.config):
            made |= {"codes": codes_fingerprint(self.paths.store("item"))}
        if made is None or not any("." in name for names in named.values() for name in names):
            return made
        with self.paths.open_cache(reading=True) as cache:
            answers = partial(cache.knowledge, accept=self._accepted)
            return made | {
                "answers": {e: answers_fingerprint(e, names, self._recipe, answers) for e, names in named.items()}
            }

    @property
    def _accepted(self) -> tuple[Status, ...]:
        return accepted(self.paths.config.generate)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over everything that a model of this data reads."""
        return self.samples.fingerprint

    def blind(self) -> Data:
        """The same, where events end with the histories: nothing made of it can know a sample."""
        part = self.split["part"]
        is_history = self.room.filled(len(part), bool, lambda block: part.iloc[block] == "history")
        history = self.room.rows(self.split, is_history)
        seen = self.tables if history.empty else replace(self.tables, interactions=history)
        return Data(self.paths, seen, history)


def _counts(split: pd.DataFrame, room: Room) -> dict[str, tuple[int, int]]:
    """Of each part with samples how many it has, and how many of them are clicks."""
    found = np.zeros((len(PARTS), 2), int)
    for block in room.blocks(len(split)):
        code, clicked = part_codes(split["part"].iloc[block]), split["label"].iloc[block] > 0
        for number in range(len(PARTS)):
            found[number] += (code == number).sum(), (clicked & (code == number)).sum()
    return {part: (int(found[PARTS.index(part), 0]), int(found[PARTS.index(part), 1])) for part in SAMPLE_PARTS}


def _two_classes(rows: int, clicks: int, part: str, have_both: Collection[str], *, in_lists: bool) -> None:
    """Raise DataError where there is nothing to tell apart.

    Args:
        have_both: the parts that hold clicks and others: what a click is was said then.
    """
    if have_both and clicks in (0, rows):
        which = "only" if clicks else "no"
        wanted = "validation and test smaller" if part == "train" else f"{part} larger"
        remedy = f"Others hold both ({', '.join(have_both)}): make [data] {wanted}, or see whether the log is whole."
    elif clicks == 0:
        which, remedy = "no", "Say what a click is: [data] label = ..., or click_above = ..."
    elif clicks == rows:
        which = "only"
        remedy = (
            'What was shown and not clicked has label 0; without a label it is no sample: [data] label = "click == 1"?'
            if in_lists
            else "If the log holds nothing else, items can be drawn beside them: [data] negatives = 4"
        )
    else:
        return
    raise DataError(
        f"The {part} part holds {which} clicks ({rows:,} rows): no model can be trained and tested. {remedy}"
    )
