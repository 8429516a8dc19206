"""Vectors for systems that serve: feature stores, key-value stores, indexes. What is there already is not written
again.

rows        what is written of a vector: whose, since when, which version
publishing  bring a place up to date with a store, and compare the two
places/     one kind of place a file: Parquet (Feast reads it), Redis, Lance, faiss
"""

from __future__ import annotations

from kar_aug.online.publishing import Checked, Published, check, publish
from kar_aug.online.rows import Rows, version_of

__all__ = ["Checked", "Published", "Rows", "check", "publish", "version_of"]
