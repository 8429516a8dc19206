"""Any Hugging Face encoder or decoder: the mean of its last hidden states, as KAR did with BERT and ChatGLM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kar_aug.encode.encoders import Options
from kar_aug.encode.encoders.locate import locate
from kar_aug.encode.encoders.long_texts import encode_in_pieces, token_starts
from kar_aug.errors import EncodingError, MissingDependencyError

_BATCH = 16
_LONGEST = 2048


class HuggingFaceEncoder:
    """Mean of the last hidden states over a text's tokens, not normalised.

    Args:
        name: a name on the Hugging Face hub, or a folder.
        long_texts: "average" splits texts beyond the model's window (at most 2,048 tokens), "cut" leaves the rest out.

    Raises:
        EncodingError: The model cannot be loaded.
        MissingDependencyError: transformers is not installed.

    Source:
        KAR (arXiv:2306.10933), section 3.4: "average pooling" over the last layer.
    """

    pooling, normalized = "mean", False

    def __init__(self, name: str, *, long_texts: str = "average") -> None:
        try:
            from transformers import AutoModel, AutoTokenizer
        except ImportError:
            raise MissingDependencyError("transformers", "offline") from None
        path, called, from_hub = locate(name)
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=not from_hub)
            self._model = AutoModel.from_pretrained(path, local_files_only=not from_hub).eval()
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise EncodingError(f"Encoder {name!r} cannot be loaded: {reason}", encoder=name) from None
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token  # decoders have none; the mask leaves it out
        config = self._model.config
        self.name = f"{called}+mean"
        self.dimension = int(config.hidden_size)
        longest = min(self._tokenizer.model_max_length, getattr(config, "max_position_embeddings", _LONGEST), _LONGEST)
        self._longest = int(longest)
        self._window = max(1, self._longest - self._tokenizer.num_special_tokens_to_add())
        self.long_texts = "averaged" if long_texts == "average" and self._tokenizer.is_fast else "cut"
        self.split = 0

    def encode(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        """Vectors of shape (len(texts), dimension), float32."""
        if self.long_texts == "cut":
            return self._encode(list(texts))
        starts = token_starts(self._tokenizer)
        vectors, split = encode_in_pieces(texts, starts, self._window, self._encode, normalized=False)
        self.split += split
        return vectors

    def _encode(self, texts: list[str]) -> npt.NDArray[Any]:
        import torch

        order = np.argsort([len(text) for text in texts])
        vectors = np.empty((len(texts), self.dimension), np.float32)
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            tokens = self._tokenizer(
                [texts[i] for i in batch], padding=True, truncation=True, max_length=self._longest, return_tensors="pt"
            )
            with torch.inference_mode():
                hidden = self._model(**tokens).last_hidden_state.float()
                mask = tokens["attention_mask"].unsqueeze(-1).float()
                # An empty text has no token at all with some tokenizers: zeros, not NaN.
                vectors[batch] = ((hidden * mask).sum(1) / mask.sum(1).clamp(min=1)).numpy()
        return vectors


def load(name: str, options: Options) -> HuggingFaceEncoder:
    """For the registry."""
    return HuggingFaceEncoder(name, long_texts=options.long_texts)
