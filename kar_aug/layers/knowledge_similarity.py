"""How alike candidates and events are in knowledge space, without a vector an event in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kar_aug._keras import keras, tf
from kar_aug.layers.knowledge_vectors import KnowledgeVectors

# Bytes of events' vectors at a time. A processor's caches hold so much; a GPU is given all at once.
_BLOCK = 2**21
_BLOCK_OF_A_GPU = 2**29


@keras.utils.register_keras_serializable(package="kar_aug")
class KnowledgeSimilarity(KnowledgeVectors):
    """Compares a candidate with each event by what is known of them.

        similarity[e] = <ready vector of the candidate, ready vector of event e>

    A cosine, in [-1, 1], as `KnowledgeVectors` prepares them; exactly 0 for padding, and where nothing is known of the
    candidate or of the event. It is a `KnowledgeVectors`, and takes what that takes.

    The vectors of (batch, length) events are looked up and multiplied a block of rows at a time: written to memory
    whole, 50 events of 4,096 rows would be 52 MB a step, which takes longer than all else together.

    Input shape:
        [candidate ids, (batch,) or (batch, 1); event ids, (batch, length), 0 or "" where there is none].
    Output shape:
        (batch, length)
    """

    suffix = "similarity"

    def call(self, inputs: Sequence[Any], mask: Any = None) -> Any:
        candidate, events = map(tf.convert_to_tensor, inputs)
        table = tf.convert_to_tensor(self._table)
        candidates, events = tf.reshape(self._places(candidate, False), [-1]), self._places(events, True)
        rows, length = tf.shape(events)[0], tf.shape(events)[1]
        block = tf.clip_by_value(_block() // tf.maximum(1, length * self.width * 4), 1, tf.maximum(1, rows))
        missing = -rows % block  # of the last block

        def compared(some: Sequence[Any]) -> Any:
            vectors = [tf.cast(tf.gather(table, places), self.compute_dtype) for places in some]
            return tf.linalg.matvec(vectors[1], vectors[0])

        blocks = (
            tf.reshape(tf.pad(candidates, [[0, missing]]), [-1, block]),
            tf.reshape(tf.pad(events, [[0, missing], [0, 0]]), [-1, block, length]),
        )
        found = tf.map_fn(compared, blocks, fn_output_signature=self.compute_dtype, parallel_iterations=2)
        return tf.ensure_shape(tf.reshape(found, [-1, length])[:rows], inputs[1].shape)

    def compute_output_shape(self, input_shape: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(input_shape[1])


def _block() -> int:
    return _BLOCK_OF_A_GPU if tf.config.list_physical_devices("GPU") else _BLOCK
