"""Texts into vectors, by an encoder that each worker loads once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kar_aug._helpers.batched import batched
from kar_aug.arrow.columns import Batch, with_columns
from kar_aug.arrow.gather import vector_column
from kar_aug.arrow.worker import OpensOnce, workspace_of
from kar_aug.cache import text_key
from kar_aug.cache.vectors.reduction import truncate
from kar_aug.config import encoder_name
from kar_aug.encode import Encoder, load_encoder
from kar_aug.errors import ConfigError, EncodingError, KarError

if TYPE_CHECKING:
    from kar_aug.pipeline.project import Project
    from kar_aug.pipeline.workspace import Workspace

_TEXTS = 256  # of one call of the encoder


class Encode(OpensOnce[Encoder]):
    """Gives a batch with a column `text` the columns vector, text_key and vector_reason: null, null, and why, where
    there is no text or the encoder cannot encode it. Equal texts are encoded once.

    Args:
        project: its [encode] says which encoder, and how many numbers a vector keeps.

    Raises:
        ConfigError: The encoder is an endpoint, which is paid by the text: `kar-aug encode` keeps its budget; or there
            is to be a PCA, which is fitted on all texts.
        MissingDependencyError: The encoder's package is not there; when the first batch comes.
    """

    def __init__(self, project: Project | Workspace) -> None:
        workspace = workspace_of(project)
        config = workspace.config.encode
        if encoder_name(config.encoder).startswith("openai:"):
            raise ConfigError(
                "[encode] encoder: an endpoint is paid by the text, and asked by one process that keeps the budget: "
                "kar-aug encode."
            )
        if config.pca is not None:
            raise ConfigError("[encode] pca is fitted on all texts at once: use truncate_dim, or kar-aug encode.")
        self._encoder, self._long_texts = _absolute(config.encoder), config.long_texts
        self._truncate_dim, self._dtype = config.truncate_dim, config.dtype

    @property
    def opens(self) -> tuple[object, ...]:
        """The encoder, and how it takes long texts."""
        return self._encoder, self._long_texts

    def open(self) -> Encoder:
        """The encoder."""
        return load_encoder(self._encoder, long_texts=self._long_texts)

    def __call__(self, batch: Batch) -> Batch:
        """The batch with the vectors of its texts."""
        texts: list[str | None] = batch.column("text").to_pylist()
        different = sorted({text for text in texts if text is not None}, key=lambda text: (len(text), text))
        vectors, reasons = self._vectors(different)
        place = {text: row for row, text in enumerate(different)}
        rows = np.array([-1 if text is None else place[text] for text in texts], np.int64)
        why = [None if text is None else reasons.get(text) for text in texts]
        missing = (rows < 0) | np.array([reason is not None for reason in why], bool)
        found = np.zeros((len(texts), vectors.shape[1]), self._dtype)
        found[~missing] = vectors[rows[~missing]]
        keys = [None if gone or text is None else text_key(text) for text, gone in zip(texts, missing, strict=True)]
        columns = {
            "vector": vector_column(found, missing),
            "text_key": pa.array(keys, pa.string()),
            "vector_reason": pa.array(why, pa.string()),
        }
        return with_columns(batch, columns)

    def _vectors(self, texts: Sequence[str]) -> tuple[npt.NDArray[Any], dict[str, str]]:
        """A row a text, and why those have none that have none."""
        made, reasons = [], {}
        dimension = self._truncate_dim or self.opened.dimension
        for some in batched(texts, _TEXTS):
            try:
                made.append(self._encoded(some))
            except KarError:  # which of them it was
                for text in some:
                    try:
                        made.append(self._encoded([text]))
                    except KarError as error:
                        reasons[text] = str(error)
                        made.append(np.zeros((1, dimension), self._dtype))
        return (np.concatenate(made) if made else np.zeros((0, dimension), self._dtype)), reasons

    def _encoded(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        encoder = self.opened
        vectors = np.asarray(encoder.encode(texts))
        if self._truncate_dim is not None:
            vectors = truncate(vectors, self._truncate_dim, normalized=getattr(encoder, "normalized", False))
        with np.errstate(over="ignore"):  # what overflows is refused below
            vectors = vectors.astype(self._dtype)
        if not np.isfinite(vectors).all():
            raise EncodingError(f"{encoder.name} gave a vector with NaN or infinity", encoder=encoder.name)
        return vectors


def _absolute(encoder: str) -> str:
    """The same, where a folder of the driver's is named that its workers have too."""
    kind, colon, name = encoder.rpartition(":")
    return f"{kind}{colon}{Path(name).resolve()}" if Path(name).is_dir() else encoder
