"""What a run paid for or computed once: answers as text, knowledge as vectors."""

from kar_aug.cache.text_cache import Answer, Knowledge, TextCache, answer_key
from kar_aug.cache.vector_files import StoreSpec
from kar_aug.cache.vector_store import KnowledgeTable, VectorStore
from kar_aug.cache.vector_writer import StoreWriter

__all__ = [
    "Answer",
    "Knowledge",
    "KnowledgeTable",
    "StoreSpec",
    "StoreWriter",
    "TextCache",
    "VectorStore",
    "answer_key",
]
