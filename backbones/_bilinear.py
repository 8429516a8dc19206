"""FiBiNET's bilinear interaction with one weight and a product a field: the same function of the same numbers.

DeepCTR has a matrix of its own for each pair of fields, as a variable of its own, multiplied apart: 780 pairs of 40
fields make thousands of operations, whose graph takes longer to build than many a training takes, and an optimizer that
goes through 780 variables at each step. Here the matrices lie in one variable, and those of a field's pairs side by
side, so that they are one product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kar_aug._helpers.keras import keras, tf
from kar_aug.backbones._deepctr import deepctr_models

deepctr_models()
from deepctr.layers.interaction import BilinearInteraction  # noqa: E402


@keras.saving.register_keras_serializable("kar_aug")
class PairwiseInteraction(BilinearInteraction):
    """DeepCTR's, with a matrix for each pair: (v_i W_ij) * v_j of all i < j (Huang et al. 2019, equation 7).

    Fields of shape (batch, 1, width) each give (batch, pairs, width), the pairs in the order (0, 1), (0, 2) ... (1, 2)
    ...; the weight "bilinear_weights" is (pairs, width, width).
    """

    def build(self, input_shape: Sequence[Any]) -> None:
        if self.bilinear_type != "interaction":
            super().build(input_shape)
            return
        fields, width = len(input_shape), int(input_shape[0][-1])
        if fields < 2:
            raise ValueError(f"Fields interact with each other: there must be two at least. Received: {fields}")

        # Each matrix as Glorot and Bengio (2010) would have it, normal, cut off at two standard deviations.
        spread = (1 / width) ** 0.5 / 0.87962566
        pairs = fields * (fields - 1) // 2
        self.pairs = self.add_weight(
            name="bilinear_weights",
            shape=(pairs, width, width),
            initializer=keras.initializers.TruncatedNormal(stddev=spread, seed=self.seed),
        )
        keras.layers.Layer.build(self, input_shape)

    def call(self, inputs: Sequence[Any], **kwargs: Any) -> Any:
        if self.bilinear_type != "interaction":
            return super().call(inputs, **kwargs)
        fields = [tf.squeeze(field, 1) for field in inputs]
        count, width = len(fields), fields[0].shape[-1]
        weights = tf.split(self.pairs, [count - 1 - i for i in range(count - 1)])
        products = []
        for i, of_field in enumerate(weights):  # (pairs of i, width, width)
            side_by_side = tf.reshape(tf.transpose(of_field, (1, 0, 2)), (width, -1))
            turned = tf.matmul(fields[i], side_by_side)  # (batch, pairs of i * width)
            products.append(turned * tf.concat(fields[i + 1 :], axis=1))
        return tf.reshape(tf.concat(products, axis=1), (-1, count * (count - 1) // 2, width))
