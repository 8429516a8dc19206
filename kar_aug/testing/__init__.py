"""What a test of a job with kar-aug needs instead of a language model: nothing to pay, nothing to download.

`OpenAIServer` is a real HTTP server on this machine that speaks OpenAI's API (chat completions, embeddings, files and
batches) and answers as it is told. `HashEncoder` turns texts into vectors without a model. Neither pytest nor
TensorFlow is needed.

Example:
    >>> from kar_aug.cache import TextCache
    >>> from kar_aug.config import LanguageModel
    >>> from kar_aug.encode import encode
    >>> from kar_aug.generate import generate
    >>> from kar_aug.prompts import Scenario
    >>> prompts = [Scenario.load("movies").item_prompt(1, {"title": "Fargo (1996)"})]
    >>> with OpenAIServer() as server, TextCache(folder / "answers.sqlite") as cache:
    ...     done = generate(prompts, cache, LanguageModel(model="any", base_url=server.base_url), key="any")
    ...     store = encode(cache.knowledge("item"), folder / "item", HashEncoder(dimension=4))
    >>> len(server.chat.requests), store.gather([1]).shape
    (1, (1, 4))
"""

from kar_aug.testing.batches import BatchServer
from kar_aug.testing.chat import ChatServer, completion, echo
from kar_aug.testing.embeddings import EmbeddingServer, embeddings, hashed
from kar_aug.testing.hash_encoder import HashEncoder, hash_encoder
from kar_aug.testing.openai_server import OpenAIServer

__all__ = [
    "BatchServer",
    "ChatServer",
    "EmbeddingServer",
    "HashEncoder",
    "OpenAIServer",
    "completion",
    "echo",
    "embeddings",
    "hash_encoder",
    "hashed",
]
