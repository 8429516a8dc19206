"""Adam (Kingma and Ba 2015, arXiv:1412.6980), its update of a variable as the one operation that TensorFlow has for it.

Keras's own is of some twenty operations for each variable: a model of 50 variables spends a third of the time that its
graph takes to build on them, and each of them goes through the memory of a table of embeddings.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kar_aug._helpers.keras import IS_KERAS_3, keras, tf


class FusedAdam(keras.optimizers.Adam):
    """Keras's optimizer, with the same arguments and the same numbers."""

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Any, Any]], *args: Any, **kwargs: Any) -> Any:
        """As Keras's."""
        step = tf.cast(self.iterations + 1, tf.float32)
        self._powers = tf.pow(self.beta_1, step), tf.pow(self.beta_2, step)  # once, and not a variable
        return super().apply_gradients(grads_and_vars, *args, **kwargs)

    def update_step(self, gradient: Any, variable: Any, *rate: Any) -> None:
        """As Keras's; of a gradient that knows a few rows alone, it is Keras's."""
        if isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable, *rate)
            return
        place = self._get_variable_index(variable) if IS_KERAS_3 else self._index_dict[self._var_key(variable)]
        beta1_power, beta2_power = self._powers
        tf.raw_ops.ResourceApplyAdam(
            var=_handle(variable),
            m=_handle(self._momentums[place]),
            v=_handle(self._velocities[place]),
            beta1_power=beta1_power,
            beta2_power=beta2_power,
            lr=rate[0] if rate else self.learning_rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


def _handle(variable: Any) -> Any:
    return (variable.value if IS_KERAS_3 and isinstance(variable, keras.Variable) else variable).handle
