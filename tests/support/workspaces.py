"""Settings of a folder of tables, opened with some of them changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from kar_aug.config import Config
from kar_aug.pipeline.workspace import Workspace

# [compare]: long enough to learn what the vectors of the fixture `truth` say.
LEARNING = {"epochs": 4, "patience": 4, "learning_rate": 0.05, "batch_size": 32}
# A module `counting` with a protocol `counted`, which leaves a line in the file $COUNTED for each split it makes.
COUNTING = """
import os
from kar_aug.data.split import by_user

def counted(frame, shares):
    with open(os.environ["COUNTED"], "a") as file:
        file.write("split\\n")
    return by_user(frame, shares)
"""


def opened(tables: Path, workdir: Path, data: dict[str, Any] | None = None, **compare: Any) -> Workspace:
    """The settings beside some tables, for models that know nothing of items but ids, and of events but their items:
    the fewer inputs, the sooner a model is built; in another workdir, [data] and [compare] changed.
    """
    few = {"item_features": [], "event_features": []}
    config = Config.load(tables / "kar.toml", {"compare": compare, "data": {**few, **(data or {})}})
    return Workspace(replace(config, workdir=str(workdir)))
