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

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from kar_aug.config import encoder_name
from kar_aug.registry import ENCODERS


class Encoder(Protocol):
    """Turns texts into vectors. `name` says which encoder and revision; it pins the store.

    An encoder may also say `pooling`, `normalized` and `long_texts` (see `StoreSpec`), count in `split` the texts that
    were longer than its window, and say in `at_once` how many texts it is best given at once: what it gave is kept if
    it fails at the next.
    """

    name: str
    dimension: int

    def encode(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        """Vectors of shape (len(texts), dimension)."""
        ...


class Entry(Protocol):
    """A request on a bill, before it is sent. If neither of these is called, it counts at the most that it can cost."""

    def settle(self, document: Any) -> None:
        """It was answered with this, in which the server says what it charges; if not readably, it counts likewise."""
        ...

    def release(self) -> None:
        """It was not sent, or surely not charged."""
        ...


class Bill(Protocol):
    """What an encoder writes down that costs money: each request, before it is sent."""

    def entry(self, texts: Sequence[str]) -> AbstractContextManager[Entry]:
        """Enter a request about texts; it is over when the context is left.

        Raises:
            LimitReached: It may not be sent.
        """
        ...


@dataclass(frozen=True)
class Options:
    """What an encoder is loaded with.

    Args:
        long_texts: what to do with texts beyond the encoder's window: "average" splits them and averages the pieces
            by their tokens, "cut" leaves the rest out.
        base_url: of the endpoint, for "openai:" only.
        rpm, tpm: most requests and tokens a minute of an endpoint; None for as many as it takes.
        give_up_after: seconds without any answer of an endpoint after which it is given up.
        bill: where an endpoint's requests are written down; None for nowhere.
    """

    long_texts: str = "average"
    base_url: str | None = None
    rpm: float | None = None
    tpm: float | None = None
    give_up_after: float = 600.0
    bill: Bill | None = None


def load_encoder(encoder: str, **options: Any) -> Encoder:
    """The encoder that a string names; see the table above, or "module:attribute" of a function of `Options`.

    Args:
        options: those of `Options`, by name.

    Raises:
        ConfigError: The string names no kind of encoder.
        EncodingError: The model cannot be loaded, or the endpoint not reached.
        MissingDependencyError: Its package is not installed.
    """
    loaded: Encoder = ENCODERS.load(encoder_name(encoder))(Options(**options))
    return loaded
