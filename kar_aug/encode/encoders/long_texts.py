"""Texts longer than an encoder's window: split into pieces that fit, whose vectors are averaged by token count.

KAR's authors cut such texts off, so that what comes last, often the conclusion, is never encoded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kar_aug.errors import EncodingError

# The places of a text where its tokens begin.
Tokens = Callable[[Sequence[str]], list[list[int]]]


def encode_in_pieces(
    texts: Sequence[str],
    tokens: Tokens,
    window: int,
    encode: Callable[[list[str]], npt.NDArray[Any]],
    *,
    normalized: bool,
) -> tuple[npt.NDArray[np.float32], int]:
    """Vectors of texts of any length, and how many had to be split.

    Args:
        tokens: per text, the character at which each of its tokens begins.
        window: most tokens of a piece.
        encode: (pieces) -> (pieces, dimension).
        normalized: whether averages are brought to length 1, as the encoder's vectors are.
    """
    pieces: list[str] = []
    owner: list[int] = []
    weight: list[int] = []
    for number, (text, starts) in enumerate(zip(texts, tokens(texts), strict=True)):
        for piece, size in split(text, starts, window):
            pieces.append(piece)
            owner.append(number)
            weight.append(size)
    try:
        vectors = np.asarray(encode(pieces), np.float32)
    except EncodingError as error:
        if error.position is not None:  # of a piece
            error.position = owner[error.position]
        raise
    if len(pieces) == len(texts):
        return vectors, 0
    averaged = np.zeros((len(texts), vectors.shape[1]), np.float32)
    weights = np.asarray(weight, np.float32)
    np.add.at(averaged, owner, vectors * weights[:, np.newaxis])
    averaged /= np.bincount(owner, weights)[:, np.newaxis]
    if normalized:
        averaged /= np.maximum(np.linalg.norm(averaged, axis=1, keepdims=True), 1e-12)
    return averaged, int((np.bincount(owner) > 1).sum())


def split(text: str, starts: Sequence[int], window: int) -> list[tuple[str, int]]:
    """Pieces of like length, none beyond `window` tokens, with their tokens. Pieces begin where a word does if one
    begins in the last quarter of the piece before.
    """
    if len(starts) <= window:
        return [(text, max(1, len(starts)))]
    size = -(-len(starts) // -(-len(starts) // window))  # as many pieces as must be, of like length
    cuts = [0]
    while len(starts) - cuts[-1] > size:
        cut = cuts[-1] + size
        words = [at for at in range(cut, cut - size // 4 - 1, -1) if text[starts[at] - 1 : starts[at]].isspace()]
        cuts.append(words[0] if words else cut)
    ends = [*cuts[1:], len(starts)]
    return [
        (text[starts[cut] : starts[end] if end < len(starts) else len(text)], end - cut)
        for cut, end in zip(cuts, ends, strict=True)
    ]


def token_starts(tokenizer: Any) -> Tokens:
    """For a Hugging Face tokenizer, whose fast kind says where each token is."""

    def starts(texts: Sequence[str]) -> list[list[int]]:
        offsets = tokenizer(
            list(texts), add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False,
            truncation=False, padding=False, verbose=False,
        )["offset_mapping"]  # fmt: skip
        return [[start for start, _ in text] for text in offsets]

    return starts


def words_as_tokens(characters: int = 3) -> Tokens:
    """Where there is no tokenizer: every few characters count as a token, more than any text really has."""
    return lambda texts: [list(range(0, len(text), characters)) for text in texts]
