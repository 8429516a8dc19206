"""DIN's attention at half its price: the same function of the same weights.

DeepCTR puts [candidate, event, candidate - event, candidate * event] side by side for each event, and multiplies that
with one kernel. The kernel's four parts can be multiplied apart: what is of the candidate alone then costs a product a
row and not one an event, and the difference none at all. Nothing of four times the events' size is written to memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kar_aug._helpers.keras import keras, tf
from kar_aug.backbones._deepctr import deepctr_models

deepctr_models()
from deepctr.layers.core import LocalActivationUnit  # noqa: E402
from deepctr.layers.sequence import AttentionSequencePoolingLayer  # noqa: E402


@keras.saving.register_keras_serializable("kar_aug")
class SplitActivationUnit(LocalActivationUnit):
    """DeepCTR's, (batch, 1, width) and (batch, length, width) to (batch, length, 1)."""

    def build(self, input_shape: Sequence[Any]) -> None:
        super().build(input_shape)
        wide = 4 * int(input_shape[1][-1])
        with tf.name_scope(self.dnn.name):
            self.dnn.build((None, input_shape[1][1], wide))
        self.dnn.built = True

    def call(self, inputs: Sequence[Any], training: Any = None, **kwargs: Any) -> Any:
        candidate, events = inputs
        of_candidate, of_event, of_difference, of_product = tf.split(self.dnn.kernels[0], 4)
        once = tf.nn.bias_add(tf.matmul(candidate, of_candidate + of_difference), self.dnn.bias[0])  # (batch, 1, units)
        hidden = _product(events, of_event - of_difference) + _product(candidate * events, of_product) + once
        for i, activation in enumerate(self.dnn.activation_layers):
            if i:
                hidden = tf.nn.bias_add(_product(hidden, self.dnn.kernels[i]), self.dnn.bias[i])
            hidden = activation(hidden, training=training)
        return tf.nn.bias_add(_product(hidden, self.kernel), self.bias)


@keras.saving.register_keras_serializable("kar_aug")
class InterestAttention(AttentionSequencePoolingLayer):
    """DeepCTR's `AttentionSequencePoolingLayer`, which scores events by a `SplitActivationUnit`."""

    def build(self, input_shape: Sequence[Any]) -> None:
        super().build(input_shape)
        if self.att_hidden_units:
            self.local_att: Any = SplitActivationUnit(self.att_hidden_units, self.att_activation)


def _product(vectors: Any, kernel: Any) -> Any:
    """(batch, length, width) times (width, units)."""
    return tf.tensordot(vectors, kernel, axes=(-1, 0))
