"""What a run paid for or computed once: answers as text, knowledge as vectors."""

from kar_aug.cache.texts.batches import Batch, BatchBook, Request
from kar_aug.cache.texts.cache import Answer, Failure, Knowledge, Link, TextCache, answer_key, merge, text_key
from kar_aug.cache.texts.claims import Claims
from kar_aug.cache.texts.status import STATUSES, Status
from kar_aug.cache.vectors.files import StoreSpec
from kar_aug.cache.vectors.store import KnowledgeTable, VectorStore
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
    "Link",
    "Request",
    "Status",
    "StoreSpec",
    "StoreWriter",
    "TextCache",
    "VectorStore",
    "answer_key",
    "merge",
    "text_key",
]
