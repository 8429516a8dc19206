"""Augmented vectors as a store of their own: by id, for systems that serve them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from kar_aug.cache.vectors.store import VectorStore
from kar_aug.layers import KnowledgeAugmentation
from kar_aug.models.versions import check_versions

_ROWS = 4_096


def augmented_store(
    layer: KnowledgeAugmentation, source: str, store: VectorStore, path: Path | str, *, dtype: str = "float32",
    any_version: bool = False,
) -> VectorStore:  # fmt: skip
    """Bring a store of augmented vectors up to date: those of all ids of a store of knowledge vectors, whether the
    model was trained on them or not. What another text or another adaptor makes is computed; what is there, stays.

    Args:
        layer: the trained layer.
        source: which of its sources the store is of.
        store: knowledge vectors, (ids, dimension), by the encoder that the layer was trained with.
        path: folder of the store of augmented vectors, (ids, width).
        dtype: "float32" or "float16".
        any_version: take vectors of another version, as `refresh` has it.

    Returns:
        The store of augmented vectors. Its encoder is named after the knowledge's, and the adaptor's weights.

    Raises:
        StoreError: There is a store of another adaptor's vectors at `path`; or `store` is of another version than the
            layer learnt to read, and not the one whose vectors it has.

    Source:
        KAR, arXiv:2306.10933, section 3.5: augmented vectors are prestored for fast inference.
    """
    if not any_version and layer.stores.get(source, {}).get("fingerprint") != store.fingerprint:
        check_versions(layer, {source: store})
    adaptor = fingerprint(layer, source)
    spec = replace(
        store.spec, encoder=f"{store.spec.encoder} > adaptor {adaptor}", dimension=layer.width, dtype=dtype, pooling="",
        normalized=False, reduction=f"version {store.version}" if store.manifest.version else "",
    )  # fmt: skip
    path = Path(path)
    with VectorStore.writer(path, spec) as writer:
        there = VectorStore.open(path).keys if writer.manifest.generation else {}
        for ids, keys, vectors in store.blocks(_ROWS):
            # An empty key says nothing of the vector: it may have changed.
            changed = [
                place
                for place, (id, key) in enumerate(zip(ids, keys, strict=True))
                if there.pop(id, None) != key or not key
            ]
            if changed:
                augmented = layer.adapt(source, vectors[changed])
                writer.append(
                    [ids[place] for place in changed], [keys[place] for place in changed], augmented,
                    as_of=store.manifest.as_of,
                )  # fmt: skip
        writer.delete(list(there))
    return VectorStore.open(path)


def fingerprint(layer: KnowledgeAugmentation, source: str) -> str:
    """8 hex digits over what makes an augmented vector of a source: its name, and the adaptor's weights."""
    digest = hashlib.sha256(source.encode())
    for weights in layer.adaptor.get_weights():
        digest.update(np.ascontiguousarray(weights).tobytes())
    return digest.hexdigest()[:8]
