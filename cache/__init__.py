"""What a run paid for or computed once: answers as text, knowledge as vectors."""

from kar_aug.cache.batch_book import Batch, BatchBook, Request
from kar_aug.cache.claims import Claims
from kar_aug.cache.text_cache import STATUSES, Answer, Failure, Knowledge, Link, TextCache, answer_key, merge, text_key
from kar_aug.cache.vector_files import StoreSpec
from kar_aug.cache.vector_store import KnowledgeTable, VectorStore
from kar_aug.cache.vector_writer import StoreWriter

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
    "StoreSpec",
    "StoreWriter",
    "TextCache",
    "VectorStore",
    "answer_key",
    "merge",
    "text_key",
]
