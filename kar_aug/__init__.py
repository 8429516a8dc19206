"""kar-aug: give classical CTR models the knowledge of a large language model.

`Project` is every stage of a kar.toml, from tables to verdicts; the others are its parts. Names resolve lazily:
importing this package loads neither TensorFlow nor a language-model client, and makes no network call.
"""

from __future__ import annotations

import importlib

from kar_aug._version import __version__ as __version__

# As type checkers know it. Python's own is in a module that takes longer to import than all there is here, before the
# command has seen to it that Ctrl-C ends it without a traceback.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kar_aug.cache import KnowledgeTable as KnowledgeTable
    from kar_aug.cache import TextCache as TextCache
    from kar_aug.cache import VectorStore as VectorStore
    from kar_aug.errors import ConfigError as ConfigError
    from kar_aug.errors import DataError as DataError
    from kar_aug.errors import EncodingError as EncodingError
    from kar_aug.errors import GenerationError as GenerationError
    from kar_aug.errors import Hopeless as Hopeless
    from kar_aug.errors import KarError as KarError
    from kar_aug.errors import LeakageError as LeakageError
    from kar_aug.errors import LimitReached as LimitReached
    from kar_aug.errors import MissingDependencyError as MissingDependencyError
    from kar_aug.errors import PromptError as PromptError
    from kar_aug.errors import StoreError as StoreError
    from kar_aug.layers import HybridExpertAdaptor as HybridExpertAdaptor
    from kar_aug.layers import KnowledgeAugmentation as KnowledgeAugmentation
    from kar_aug.layers import PrestoredAugmentation as PrestoredAugmentation
    from kar_aug.layers.gate_usage import GateUsage as GateUsage
    from kar_aug.models import attachment_points as attachment_points
    from kar_aug.models import augment as augment
    from kar_aug.models import load_model as load_model
    from kar_aug.models import prestore as prestore
    from kar_aug.models import refresh as refresh
    from kar_aug.models.export import export as export
    from kar_aug.pipeline.project import Project as Project
    from kar_aug.pipeline.watch import Watch as Watch
    from kar_aug.prompts import Scenario as Scenario

_NAMES = {
    "ConfigError": "kar_aug.errors",
    "DataError": "kar_aug.errors",
    "EncodingError": "kar_aug.errors",
    "GateUsage": "kar_aug.layers.gate_usage",
    "GenerationError": "kar_aug.errors",
    "Hopeless": "kar_aug.errors",
    "HybridExpertAdaptor": "kar_aug.layers",
    "KarError": "kar_aug.errors",
    "KnowledgeAugmentation": "kar_aug.layers",
    "KnowledgeTable": "kar_aug.cache",
    "LeakageError": "kar_aug.errors",
    "LimitReached": "kar_aug.errors",
    "MissingDependencyError": "kar_aug.errors",
    "PrestoredAugmentation": "kar_aug.layers",
    "Project": "kar_aug.pipeline.project",
    "PromptError": "kar_aug.errors",
    "Scenario": "kar_aug.prompts",
    "StoreError": "kar_aug.errors",
    "TextCache": "kar_aug.cache",
    "VectorStore": "kar_aug.cache",
    "Watch": "kar_aug.pipeline.watch",
    "attachment_points": "kar_aug.models",
    "augment": "kar_aug.models",
    "export": "kar_aug.models.export",
    "load_model": "kar_aug.models",
    "prestore": "kar_aug.models",
    "refresh": "kar_aug.models",
}
# Not exported: `kar_aug.datasets.load(...)` works without an import of its own.
_PACKAGES = (
    "audit", "backbones", "codes", "compare", "data", "datasets", "encode", "generate", "inspect", "layers", "prompts",
)  # fmt: skip

__all__ = ["__version__", *_NAMES]


def __getattr__(name: str) -> Any:
    try:
        if name in _NAMES:
            return getattr(importlib.import_module(_NAMES[name]), name)
        if name in _PACKAGES:
            return importlib.import_module(f"kar_aug.{name}")
    except ModuleNotFoundError as error:  # tables and prompts: whatever else an extra brings says so itself
        from kar_aug.errors import MissingDependencyError

        raise MissingDependencyError.named(error, "cli") from None
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
