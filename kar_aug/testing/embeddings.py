"""A scripted server of embeddings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kar_aug.testing.hash_encoder import HashEncoder
from kar_aug.testing.scripted import Behaviour, ScriptedServer


def embeddings(vectors: Iterable[Sequence[float]], model: str = "test-model") -> bytes:
    """The body of an answer with a vector for each text. The last comes first: clients must go by the index."""
    data = [{"object": "embedding", "index": i, "embedding": [*vector]} for i, vector in enumerate(vectors)]
    usage = {"prompt_tokens": len(data), "total_tokens": len(data)}
    return json.dumps({"object": "list", "model": model, "data": data[::-1], "usage": usage}).encode()


def hashed(server: EmbeddingServer, request: dict[str, Any], number: int) -> tuple[int, Mapping[str, str], bytes]:
    """The well-behaved answer: the vectors of `HashEncoder`."""
    texts = [request["input"]] if isinstance(request["input"], str) else request["input"]
    return 200, {}, embeddings(HashEncoder().encode(texts).tolist(), request["model"])


class EmbeddingServer(ScriptedServer):
    """Answers requests for embeddings as `behaviour` says; without one, with eight numbers by `HashEncoder`.

    Args:
        behaviour: (server, body of the request, its number from 0) -> (status, headers, body of the reply);
            `embeddings` makes such a body.
        latency: seconds that an answer takes.
    """

    def __init__(self, behaviour: Behaviour = hashed, latency: float = 0.0) -> None:
        super().__init__("POST /embeddings", behaviour, latency)
