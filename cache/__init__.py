"""What a run paid for or computed once: answers as text, knowledge as vectors.

The halves know nothing of each other, and names resolve lazily: vectors load no database, texts no matrix.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from kar_aug.errors import MissingDependencyError

if TYPE_CHECKING:
    from kar_aug.cache.texts.batches import Batch, BatchBook, Request
    from kar_aug.cache.texts.cache import Answer, Failure, Knowledge, Link, TextCache, answer_key, text_key
    from kar_aug.cache.texts.claims import Claims
    from kar_aug.cache.texts.incoming import merge
    from kar_aug.cache.texts.ledger import Ledger, Order, Reservation, Shortage, Spending
    from kar_aug.cache.texts.status import STATUSES, Status
    from kar_aug.cache.vectors.files import StoreSpec
    from kar_aug.cache.vectors.store import VectorStore
    from kar_aug.cache.vectors.table import KnowledgeTable
    from kar_aug.cache.vectors.writer import StoreWriter

__all__ = [
    "STATUSES",
    "Answer",
    "Batch",
    "BatchBook",
    "Claims",
    "Failure",
    "Knowledge",
    "KnowledgeTable",
    "Ledger",
    "Link",
    "Order",
    "Request",
    "Reservation",
    "Shortage",
    "Spending",
    "Status",
    "StoreSpec",
    "StoreWriter",
    "TextCache",
    "VectorStore",
    "answer_key",
    "merge",
    "text_key",
]

_ELSEWHERE = {
    "Batch": "texts.batches",
    "BatchBook": "texts.batches",
    "Request": "texts.batches",
    "Claims": "texts.claims",
    "Ledger": "texts.ledger",
    "Order": "texts.ledger",
    "Reservation": "texts.ledger",
    "Shortage": "texts.ledger",
    "Spending": "texts.ledger",
    "merge": "texts.incoming",
    "STATUSES": "texts.status",
    "Status": "texts.status",
    "KnowledgeTable": "vectors.table",
    "StoreSpec": "vectors.files",
    "StoreWriter": "vectors.writer",
    "VectorStore": "vectors.store",
}


if not TYPE_CHECKING:  # a type checker reads the imports above, and finds a name that is not there

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            module = importlib.import_module(f"{__name__}.{_ELSEWHERE.get(name, 'texts.cache')}")
        except ModuleNotFoundError as error:
            raise MissingDependencyError.named(error, "offline") from None
        return getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
