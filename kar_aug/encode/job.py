"""Texts into knowledge vectors, written to a vector store as they come; only what is missing or changed."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kar_aug._helpers.batched import batched
from kar_aug._helpers.times import latest
from kar_aug.cache import Knowledge, StoreSpec, StoreWriter, VectorStore, text_key
from kar_aug.cache.vectors.moments import Moments, as_of_moment
from kar_aug.cache.vectors.reduction import fit_pca, project, truncate
from kar_aug.encode.encoders import Encoder
from kar_aug.errors import EncodingError, StoreError

# Texts held at once, sorted by length: enough that hardly any of a batch is padding.
_WINDOW_TEXTS = 32_768
# Texts between two publications: what a killed run does again. An encoder that works on many at a time says more.
_PUBLISH_TEXTS = 256
_PCA_TEXTS = 4096
_log = logging.getLogger("kar_aug")


def encode(
    knowledge: Iterable[Knowledge],
    store: Path | str,
    encoder: Encoder,
    *,
    dtype: str = "float16",
    truncate_dim: int | None = None,
    pca: int | None = None,
    versions: bool = False,
    on_progress: Callable[[int], None] = lambda rows: None,
    on_taken: Callable[[int], None] | None = None,
) -> VectorStore:
    """Bring a store up to date with texts. Killed and started again, it encodes what is still missing.

    Args:
        knowledge: texts of one source, as `TextCache.knowledge` yields them. It is gone through twice: a list, or
            anything whose `__iter__` starts anew (`Texts`), is streamed; an iterator is read into memory.
        store: folder of the store, made if it is not there.
        truncate_dim: keep the first so many numbers of each vector.
        pca: reduce to so many numbers by a PCA, fitted on up to 4,096 texts when the store is made and kept in it.
        versions: whether an entity may have several texts, each of another as-of time: the store is of versions then,
            and gets one more where a history has grown.
        on_progress: called with the number of texts that were just finished, old ones included.
        on_taken: if given, vectors of entities that no text is about, any more, and of versions that are none any more,
            are taken away, and it is called with how many these are; else they stay.

    Raises:
        EncodingError: There is no text, a version's has no as-of time, or the encoder gave a vector that is not finite;
            the message names the entity.
        LimitReached: The encoder's bill may not grow; what is encoded is published.
        StoreError: The store was made with another encoder, prompt version or language model.
        ValueError: `truncate_dim` or `pca` does not fit the encoder, or both are given.
    """
    texts: Iterable[Knowledge] = list(knowledge) if isinstance(knowledge, Iterator) else knowledge
    if truncate_dim is not None and pca is not None:
        raise ValueError("Give `truncate_dim` or `pca`, not both.")
    for name, dimension in (("truncate_dim", truncate_dim), ("pca", pca)):
        if dimension is not None and not 1 <= dimension < encoder.dimension:
            raise ValueError(
                f"`{name}` must be between 1 and {encoder.dimension - 1}, below the encoder's dimension. "
                f"Received: {dimension}"
            )
    seen = _survey(texts)
    if not seen.count:
        raise EncodingError(
            f"There is no knowledge to encode into {store}. Generate it first: kar-aug generate", path=store
        )
    spec = StoreSpec(
        encoder=encoder.name,
        dimension=pca or truncate_dim or encoder.dimension,
        prompt_versions=seen.prompt_versions,
        language_models=seen.language_models,
        dtype=dtype,
        pooling=getattr(encoder, "pooling", ""),
        normalized=getattr(encoder, "normalized", False),
        long_texts=getattr(encoder, "long_texts", ""),
        reduction=f"pca from {encoder.dimension}"
        if pca
        else f"truncated from {encoder.dimension}"
        if truncate_dim
        else "",
    )
    with VectorStore.writer(store, spec) as writer:
        reduce = _reduction(writer, encoder, seen.sample, spec, truncate_dim, pca)
        present = VectorStore.open(store) if writer.manifest.generation else None
        others = _Others(present)
        moments = _moments if versions else _no_moments
        for window in batched(texts, _WINDOW_TEXTS):
            _encode_window(window, present, writer, encoder, reduce, on_progress, moments)
            others.leave(window, moments(window))
        if on_taken is not None:
            on_taken(writer.delete(*others.ids_and_versions))
        writer.index()
        writer.prune()
    return VectorStore.open(store)


@dataclass(frozen=True)
class Texts:
    """Texts that can be gone through again: `read()` gives a new iterator each time.

    Example:
        >>> store = encode(Texts(lambda: cache.knowledge("item")), folder / "item", encoder)
    """

    read: Callable[[], Iterator[Knowledge]]

    def __iter__(self) -> Iterator[Knowledge]:
        return self.read()


@dataclass(frozen=True)
class _Survey:
    count: int
    prompt_versions: tuple[str, ...]
    language_models: tuple[str, ...]
    sample: list[str]


def _survey(texts: Iterable[Knowledge]) -> _Survey:
    """What must be known before the first vector is written; one pass, in bounded memory."""
    versions: set[str] = set()
    models: set[str] = set()
    count = 0
    smallest: list[tuple[int, str]] = []  # by hash: random, and the same for the same texts
    for count, text in enumerate(texts, start=1):  # noqa: B007
        versions.add(text.prompt_version)
        models.add(text.model)
        entry = (-int(text_key(text.text)[:16], 16), text.text)
        if len(smallest) < _PCA_TEXTS:
            heapq.heappush(smallest, entry)
        elif entry > smallest[0]:
            heapq.heappushpop(smallest, entry)
    return _Survey(count, tuple(sorted(versions)), tuple(sorted(models)), sorted({text for _, text in smallest}))


TextsMoments = Callable[[Sequence[Knowledge]], Moments | None]


def _no_moments(texts: Sequence[Knowledge]) -> None:
    """Of texts that are not of versions."""


def _moments(texts: Sequence[Knowledge]) -> Moments:
    """Until when texts knew."""
    found = np.empty(len(texts), np.int64)
    for place, text in enumerate(texts):
        try:
            found[place] = as_of_moment(text.as_of or "")
        except ValueError:
            raise EncodingError(
                f"{text.knowledge} {text.entity_id!r}: a version's text needs an as-of time, and it is {text.as_of!r}.",
                entity_id=text.entity_id,
            ) from None
    return found


class _Others:
    """The entities of a store, or versions of them, that no text was about so far; a bit each."""

    def __init__(self, store: VectorStore | None) -> None:
        self._store = store
        self._rows = np.zeros(0 if store is None else store.manifest.rows, bool)
        if store is not None:
            self._rows[store.live_rows] = True

    def leave(self, texts: Sequence[Knowledge], versions: Moments | None) -> None:
        """There are texts about these."""
        if self._store is not None:
            rows = self._store.rows([text.entity_id for text in texts], versions)
            self._rows[rows[rows >= 0]] = False

    @property
    def ids_and_versions(self) -> tuple[list[int | str], Moments | None]:
        """What is left, as a writer deletes it."""
        if self._store is None:
            return [], None
        left = np.flatnonzero(self._rows)
        return self._store.ids_at(left), self._store.moments_at(left) if self._store.versioned else None


Reduce = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]


def _reduction(
    writer: StoreWriter, encoder: Encoder, sample: list[str], spec: StoreSpec, truncate_dim: int | None, pca: int | None
) -> Reduce:
    if truncate_dim is not None:
        return lambda vectors: truncate(vectors, truncate_dim, normalized=spec.normalized)
    if pca is None:
        return lambda vectors: vectors
    matrix = VectorStore.open(writer.path).projection if writer.manifest.projection else None
    if matrix is None:
        if len(sample) <= pca:
            raise EncodingError(
                f"A PCA to {pca} numbers needs more than {pca} different texts; there are {len(sample)}.",
                encoder=encoder.name, path=writer.path, left=pca, right=len(sample),
            )  # fmt: skip
        vectors = np.concatenate(
            [_encoded(encoder, batch) for batch in batched(sorted(sample, key=len), _PUBLISH_TEXTS)]
        )
        matrix = fit_pca(vectors, pca)
        writer.project(matrix)
    fitted = matrix
    return lambda vectors: project(vectors, fitted)


def _encode_window(
    window: Sequence[Knowledge],
    present: VectorStore | None,
    writer: StoreWriter,
    encoder: Encoder,
    reduce: Reduce,
    on_progress: Callable[[int], None],
    moments: TextsMoments,
) -> None:
    """Encode what is missing of a window: each different text once, shorter ones first."""
    keys, ids = [text_key(text.text) for text in window], [text.entity_id for text in window]
    stored = present.keys_of(ids, moments(window)) if present is not None else [None] * len(window)
    missing: dict[str, list[Knowledge]] = {}
    for text, key, old in zip(window, keys, stored, strict=True):
        if key != old:
            missing.setdefault(key, []).append(text)
    on_progress(len(window) - sum(map(len, missing.values())))
    size = max(_PUBLISH_TEXTS, at_once := getattr(encoder, "at_once", _PUBLISH_TEXTS))
    for batch in batched(sorted(missing.items(), key=lambda item: len(item[1][0].text)), size):
        vectors: list[npt.NDArray[Any]] = []
        try:
            while left := batch[len(vectors) :]:
                texts = [same[0] for _, same in left[:at_once]]
                vectors += list(reduce(_encoded(encoder, [text.text for text in texts], texts)))
        finally:  # what was encoded may have been paid for: it is kept, whatever stops the rest
            on_progress(_publish(batch[: len(vectors)], vectors, writer, encoder, moments))


def _publish(
    batch: Sequence[tuple[str, list[Knowledge]]],
    vectors: Sequence[npt.NDArray[Any]],
    writer: StoreWriter,
    encoder: Encoder,
    moments: TextsMoments,
) -> int:
    """Append the vectors of different texts, each for all that have it. Returns how many these are."""
    if not batch:
        return 0
    row_of = np.repeat(np.arange(len(batch)), [len(same) for _, same in batch])
    owners = [text for _, same in batch for text in same]
    try:
        writer.append(
            [text.entity_id for text in owners], [key for key, same in batch for _ in same], np.stack(vectors)[row_of],
            as_of=latest(text.as_of for text in owners), versions=moments(owners),
        )  # fmt: skip
    except StoreError as error:
        raise EncodingError(f"{encoder.name}: {error}", encoder=encoder.name, path=writer.path) from None
    return len(owners)


def _encoded(encoder: Encoder, texts: Sequence[str], owners: Sequence[Knowledge] = ()) -> npt.NDArray[Any]:
    """Args:
    owners: of the texts, to be named in errors; () where they are not known.
    """
    try:
        vectors = np.asarray(encoder.encode(texts))
    except EncodingError as error:
        if error.position is None:
            raise
        text = texts[error.position]
        owner = owners[error.position] if owners else None
        who = f"the text {text[:40]!r}" if owner is None else f"{owner.knowledge} {owner.entity_id!r}"
        raise EncodingError(
            f"{who}: {error}",
            encoder=encoder.name,
            entity_id=owner.entity_id if owner else None,
            position=error.position,
        ) from None
    if vectors.shape != (len(texts), encoder.dimension):
        raise EncodingError(
            f"{encoder.name} gave vectors of shape {vectors.shape} for {len(texts)} texts; "
            f"({len(texts)}, {encoder.dimension}) is what it announced.",
            encoder=encoder.name, left=(len(texts), encoder.dimension), right=vectors.shape,
        )  # fmt: skip
    zeros = np.flatnonzero(~vectors.any(axis=1))
    if len(zeros) and owners:
        first = owners[int(zeros[0])]
        _log.warning(
            "%s: %d vectors are all zeros, and say nothing. The first is that of %s %r.",
            encoder.name, len(zeros), first.knowledge, first.entity_id,
        )  # fmt: skip
    return vectors
