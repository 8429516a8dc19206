"""What the stages of one kar.toml read and write. A stage finds what the one before left, or says how to make it.

paths       where everything lies, and what knowledge is called      groups       users or items asked about together
data        tables, split, samples                                   attributes   answers as columns of the tables
preparing   which samples are kept in the workdir, and since when   collaborative  behaviour as vectors of items
asking      prompts, and the texts that are known                    metadata     what prompts show, without a model
frames      tables that came as data frames                          passed_on    what was written elsewhere, and where
forgotten   who is left out of the tables                            versions     what is known of users, block by block
at_work     who makes something of them now                       code_features  semantic ids as columns of the items
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from kar_aug.cache import TextCache
from kar_aug.config import ENTITIES, Config
from kar_aug.data import Tables
from kar_aug.data.samples import Samples
from kar_aug.pipeline.workspace.asking import Asking
from kar_aug.pipeline.workspace.data import Data
from kar_aug.pipeline.workspace.paths import Paths

__all__ = ["ENTITIES", "Asking", "Data", "Paths", "Workspace"]


class Workspace:
    """The paths, data and questions of one config.

    Args:
        config: what a kar.toml says.
        like: other data, whose tables these are too.
    """

    def __init__(self, config: Config, like: Data | None = None) -> None:
        self.config = config
        self.paths = Paths(config)
        self.data = Data(self.paths) if like is None else like.changed(self.paths)
        self.asking = Asking(self.paths, self.data)

    def changed(self, **sections: Any) -> Workspace:
        """The same tables with other sections: `changed(prompts=replace(workspace.config.prompts, max_users=10))`."""
        return Workspace(replace(self.config, **sections), self.data)

    def with_seed(self, seed: int) -> Workspace:
        """The same tables, split anew by another seed."""
        return self.changed(data=replace(self.config.data, seed=seed))

    # What trainings read

    @property
    def tables(self) -> Tables:
        """`data.tables`."""
        return self.data.tables

    @property
    def samples(self) -> Samples:
        """`data.samples`."""
        return self.data.samples

    @property
    def data_fingerprint(self) -> str:
        """`data.fingerprint`."""
        return self.data.fingerprint

    def store_path(self, entity: str) -> Path:
        """`paths.store`."""
        return self.paths.store(entity)

    def metadata_path(self, entity: str) -> Path:
        """`paths.metadata`."""
        return self.paths.metadata(entity)

    def open_cache(self) -> TextCache:
        """`paths.open_cache`."""
        return self.paths.open_cache()
