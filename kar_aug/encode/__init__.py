"""Texts into knowledge vectors.

job         what is missing or changed, into a vector store     encoders/   the models that do it
"""

from kar_aug._helpers.stage import make_callable
from kar_aug.encode.encoders import Encoder, load_encoder
from kar_aug.encode.encoders.locate import MINILM
from kar_aug.encode.encoders.sentence_transformer import SentenceTransformerEncoder
from kar_aug.encode.job import Texts, encode

__all__ = ["MINILM", "Encoder", "SentenceTransformerEncoder", "Texts", "encode", "load_encoder"]

make_callable(__name__)
