"""A project's data: the tables, their split, and the samples that models read."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

import pandas as pd

from kar_aug.data import Tables, load_tables, split_interactions
from kar_aug.data.features import Samples, build_samples
from kar_aug.errors import DataError
from kar_aug.generate.intake import accepted
from kar_aug.pipeline.workspace.attributes import add_attributes
from kar_aug.pipeline.workspace.paths import Paths
from kar_aug.prompts import Recipe


class Data:
    """Tables, split and samples, read when first asked for.

    Args:
        paths: where the files are, and the settings of [data].
        tables, split: what is not to be read, because it is there already.
    """

    def __init__(self, paths: Paths, tables: Tables | None = None, split: pd.DataFrame | None = None) -> None:
        self.paths, self.config = paths, paths.config.data
        if tables is not None:
            self.tables = tables
        if split is not None:
            self.split = split

    @cached_property
    def tables(self) -> Tables:
        """The three tables, fetched or read."""
        data, config = self.config, self.paths.config
        if data.dataset is not None:
            from kar_aug.datasets import load

            return load(data.dataset, config.path(data.path) if data.path else None, config.work / "data")
        paths = [config.path(name) if name else None for name in (data.interactions, data.items, data.users)]
        return load_tables(
            paths[0] or Path(),
            *paths[1:],
            columns=data.columns,
            id_type=data.id_type,
            separator=data.separator,
            encoding=data.encoding,
        )

    @cached_property
    def split(self) -> pd.DataFrame:
        """The interactions with their parts.

        Raises:
            DataError: A part has no events.
        """
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
        )
        for part in ("train", "validation", "test"):
            if not (split["part"] == part).any():
                raise DataError(f"The {part} part has no events: there are too few to split by {data.protocol}.")
        return split

    @property
    def split_with_samples(self) -> pd.DataFrame:
        """The split without users who have a history alone."""
        sampled = self.split.loc[self.split["part"] != "history", "user_id"].unique()
        return self.split[self.split["user_id"].isin(sampled)]

    @cached_property
    def feature_tables(self) -> Tables:
        """The tables, and in them what models read that a language model said as JSON: see `attributes`."""
        data, tables = self.config, self.tables
        if not any("." in name for name in (*data.user_features, *data.item_features)):
            return tables
        with self.paths.open_cache() as cache:
            answers = partial(cache.knowledge, accept=accepted(self.paths.config.generate))
            users = add_attributes(tables.users, "user", data.user_features, self._recipe, answers)
            items = add_attributes(tables.items, "item", data.item_features, self._recipe, answers)
        return replace(tables, users=users, items=items)

    def _recipe(self, name: str) -> Recipe:
        """A recipe by name, one of the user's own as NAME.toml beside kar.toml."""
        own = f"{name}.toml"
        return self.paths.recipe(own if self.paths.config.path(own).is_file() else name)

    @cached_property
    def samples(self) -> Samples:
        """What the CTR model is trained and tested on."""
        data = self.config
        return build_samples(
            self.feature_tables,
            self.split,
            user_features=data.user_features,
            item_features=data.item_features,
            history_length=data.history_length,
        )

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over everything that a model of this data reads."""
        digest = hashlib.sha256()
        samples = self.samples
        for name, values in sorted(samples.inputs.items()):
            digest.update(name.encode() + values.tobytes())
        digest.update(samples.label.tobytes() + "".join(samples.part).encode())
        return digest.hexdigest()[:16]

    def blind(self) -> Data:
        """The same, where events end with the histories: nothing made of it can know a sample."""
        history = self.split[self.split["part"] == "history"]
        seen = self.tables if history.empty else replace(self.tables, interactions=history)
        return Data(self.paths, seen, history)
