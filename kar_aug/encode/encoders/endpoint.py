"""An OpenAI-compatible embeddings endpoint. The key is read from OPENAI_API_KEY and kept nowhere."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kar_aug._batched import batched
from kar_aug.encode.encoders import Options
from kar_aug.encode.encoders.long_texts import encode_in_pieces, words_as_tokens
from kar_aug.errors import EncodingError, MissingDependencyError

_BATCH = 64
_WINDOW = 8000
_TRIES = 6


class EndpointEncoder:
    """Embeddings from a server; requests that fail for a while are tried again with growing pauses.

    Args:
        model: its name at the server.
        base_url: of the server; OpenAI's own if None.
        long_texts: "average" splits texts beyond 8,000 tokens (counted as three characters each), "cut" leaves it to
            the server what it does with them.

    Raises:
        EncodingError: The server refuses or cannot be reached, or OPENAI_API_KEY is not set.
        MissingDependencyError: openai is not installed.
    """

    pooling, normalized = "the server's", False

    def __init__(self, model: str, base_url: str | None = None, *, long_texts: str = "average") -> None:
        try:
            import openai
        except ImportError:
            raise MissingDependencyError("openai", "offline") from None
        key = os.environ.get("OPENAI_API_KEY")
        if not key and base_url is None:
            raise EncodingError("There is no key for the embeddings endpoint. Set OPENAI_API_KEY.")
        self._client = openai.OpenAI(api_key=key or "none", base_url=base_url, max_retries=_TRIES)
        self._errors: Any = openai.OpenAIError
        self._model = model
        url = self._client.base_url
        self._where = f"{url.scheme}://{url.host}{f':{url.port}' if url.port else ''}{url.path}".rstrip(
            "/"
        )  # no password
        self.name = f"{model}@{self._where}"
        self.long_texts = "averaged" if long_texts == "average" else "cut"
        self.split = 0
        self.dimension = self._encode(["dimension"]).shape[1]

    def encode(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        """Vectors of shape (len(texts), dimension), float32."""
        if self.long_texts == "cut":
            return self._encode(list(texts))
        vectors, split = encode_in_pieces(texts, words_as_tokens(), _WINDOW, self._encode, normalized=False)
        self.split += split
        return vectors

    def _encode(self, texts: list[str]) -> npt.NDArray[Any]:
        vectors: list[Any] = []
        for batch in batched(texts, _BATCH):
            # A server refuses an empty text; not every one knows the packed form that the client would ask for.
            request = [text if text.strip() else "-" for text in batch]
            try:
                answer = self._client.embeddings.create(model=self._model, input=request, encoding_format="float")
            except self._errors as error:
                key = os.environ.get("OPENAI_API_KEY")
                reason = str(error).replace(key, "********") if key else str(error)
                raise EncodingError(
                    f"{self._where} gave no embeddings by {self._model!r}: {reason}", encoder=self._model
                ) from None
            if len(answer.data) != len(batch):
                raise EncodingError(
                    f"{self._where} gave {len(answer.data)} embeddings of {len(batch)} texts.",
                    encoder=self._model, left=len(batch), right=len(answer.data),
                )  # fmt: skip
            vectors += [found.embedding for found in sorted(answer.data, key=lambda found: found.index)]
        return np.asarray(vectors, np.float32)


def load(name: str, options: Options) -> EndpointEncoder:
    """For the registry."""
    return EndpointEncoder(name, options.base_url, long_texts=options.long_texts)
