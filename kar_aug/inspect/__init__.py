"""Looking at what a run made.

inspection   prompts, answers and vectors of a project      nearest      the neighbours of a vector
inputs       what models read of its data                   vector_map   a store as a picture
"""

from __future__ import annotations

from kar_aug._helpers.stage import make_callable
from kar_aug.inspect.inputs import DataView
from kar_aug.inspect.inspection import Inspection, Known, Nearest, Vectors
from kar_aug.pipeline.workspace import Workspace

__all__ = ["DataView", "Inspection", "Known", "Nearest", "Vectors", "inspect"]


def inspect(workspace: Workspace) -> Inspection:
    """What there is in a workspace, to look at."""
    return Inspection(workspace)


make_callable(__name__)
