"""Kinds of encoders, chosen by one string: `[encode] encoder = "kind:name"`.

| string                      | encoder                                                                           |
|-----------------------------|-----------------------------------------------------------------------------------|
| NAME or folder              | a sentence-transformers model, with its own pooling and prompts                   |
| openvino:NAME or folder     | the same model on OpenVINO: twice as fast where the CPU has BF16 |
| transformers:NAME or folder | any Hugging Face encoder or decoder, mean of the last hidden states                |
| model2vec:NAME or folder    | a static model: a table of token vectors, no network to run                       |
| openai:NAME                 | an OpenAI-compatible embeddings endpoint                                          |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy.typing as npt

from kar_aug.errors import ConfigError

KINDS = ("sentence-transformers", "openvino", "transformers", "model2vec", "openai")
LONG_TEXTS = ("average", "cut")


class Encoder(Protocol):
    """Turns texts into vectors. `name` says which encoder and revision; it pins the store.

    An encoder may also say `pooling`, `normalized` and `long_texts` (see `StoreSpec`), and count in `split` the texts
    that were longer than its window.
    """

    name: str
    dimension: int

    def encode(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        """Vectors of shape (len(texts), dimension)."""
        ...


def kind_and_name(encoder: str) -> tuple[str, str]:
    """("openvino", "x/y") of "openvino:x/y"; without a kind it is a sentence-transformers name or folder.

    Raises:
        ConfigError: There is no such kind, or nothing after it.
    """
    kind, colon, name = encoder.partition(":")
    if not colon or len(kind) == 1:  # a letter before a colon is a drive of Windows
        return KINDS[0], encoder
    if kind not in KINDS or not name:
        raise ConfigError(f"[encode] encoder {encoder!r} is unknown. Say a name, or a kind and a name: "
                          f"{', '.join(f'{kind}:NAME' for kind in KINDS)}.")  # fmt: skip
    return kind, name


def load_encoder(encoder: str, *, long_texts: str = "average", base_url: str | None = None) -> Encoder:
    """The encoder that a string names; see the table above.

    Args:
        long_texts: what to do with texts beyond the encoder's window: "average" splits them and averages the pieces
            by their tokens, "cut" leaves the rest out.
        base_url: of the endpoint, for "openai:" only.

    Raises:
        ConfigError: The string names no kind of encoder.
        EncodingError: The model cannot be loaded, or the endpoint not reached.
        MissingDependencyError: Its package is not installed.
    """
    kind, name = kind_and_name(encoder)
    return _LOADERS[kind](name, long_texts, base_url)


def _sentence_transformer(name: str, long_texts: str, base_url: str | None) -> Encoder:
    from kar_aug.encode.encoders.sentence_transformer import SentenceTransformerEncoder

    return SentenceTransformerEncoder(name, long_texts=long_texts)


def _openvino(name: str, long_texts: str, base_url: str | None) -> Encoder:
    from kar_aug.encode.encoders.openvino import OpenVINOEncoder

    return OpenVINOEncoder(name, long_texts=long_texts)


def _transformers(name: str, long_texts: str, base_url: str | None) -> Encoder:
    from kar_aug.encode.encoders.hugging_face import HuggingFaceEncoder

    return HuggingFaceEncoder(name, long_texts=long_texts)


def _model2vec(name: str, long_texts: str, base_url: str | None) -> Encoder:
    from kar_aug.encode.encoders.static import StaticEncoder

    return StaticEncoder(name)


def _openai(name: str, long_texts: str, base_url: str | None) -> Encoder:
    from kar_aug.encode.encoders.endpoint import EndpointEncoder

    return EndpointEncoder(name, base_url, long_texts=long_texts)


_LOADERS: dict[str, Callable[[str, str, str | None], Encoder]] = {
    "sentence-transformers": _sentence_transformer,
    "openvino": _openvino,
    "transformers": _transformers,
    "model2vec": _model2vec,
    "openai": _openai,
}
