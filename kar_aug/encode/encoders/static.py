"""Static models (model2vec): a vector a token, looked up and averaged. Hundreds of times faster than a transformer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from kar_aug.encode.encoders import Options
from kar_aug.encode.encoders.locate import locate
from kar_aug.errors import EncodingError, MissingDependencyError


class StaticEncoder:
    """A model2vec model.

    Args:
        name: a name on the Hugging Face hub, or a folder.

    Raises:
        EncodingError: The model cannot be loaded.
        MissingDependencyError: model2vec is not installed.
    """

    pooling, long_texts = "mean of token vectors", "whole"

    def __init__(self, name: str) -> None:
        try:
            from model2vec import StaticModel
        except ImportError:
            raise MissingDependencyError("model2vec", "static") from None
        path, called, _ = locate(name)
        try:
            self._model = StaticModel.from_pretrained(path)
        except Exception as error:  # it raises whatever reading files and the hub raise
            raise EncodingError(
                f"Encoder 'model2vec:{name}' cannot be loaded: {_first_line(error)}", encoder=name
            ) from None
        self.name = f"{called}+static"
        self.dimension = int(self._model.dim)
        self.normalized = bool(self._model.normalize)

    def encode(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        """Vectors of shape (len(texts), dimension), float32. Texts of any length are read whole."""
        return self._model.encode(list(texts), max_length=None, use_multiprocessing=False)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def load(name: str, options: Options) -> StaticEncoder:
    """For the registry."""
    return StaticEncoder(name)
