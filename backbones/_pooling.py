"""Means of sequences of embeddings in one step.

DeepCTR looks every event of a batch up, (batch, length, width), multiplies a mask of that size with it and adds up: a
dozen passes over the memory for one mean, and as many for its gradient. With a few sequences of 50 events that is most
of a training. Here the mean is computed out of the table, which gives the same numbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

from kar_aug._helpers.keras import keras, tf
from kar_aug.backbones._deepctr import rebuild
from kar_aug.layers._ops.portable import is_portable

_CALLERS = ("input_from_feature_columns", "get_linear_logit")


@keras.saving.register_keras_serializable("kar_aug")
class PooledEmbedding(keras.layers.Embedding):
    """An embedding that also gives the mean of those of a sequence; and of an event's, where events have several."""

    supports_jit = False  # how many of a sequence are there is not known before

    def call(self, inputs: Any, mean: bool = False) -> Any:
        """Embeddings of integers, (batch, length, width); or their mean over what is not 0, (batch, 1, width).

        Args:
            inputs: (batch, length); or (batch, length, values) of events that have several, which are the mean of
                theirs. One without any is left out of the mean over all.
        """
        ids = tf.cast(inputs, tf.int32)
        if ids.shape.rank == 3:
            events = self._means(tf.reshape(ids, (-1, ids.shape[2])))
            events = tf.reshape(events, (-1, ids.shape[1], self.output_dim))
            if not mean:
                return events
            there = tf.cast(tf.reduce_any(ids > 0, axis=2, keepdims=True), events.dtype)
            return tf.math.divide_no_nan(
                tf.reduce_sum(events, axis=1, keepdims=True), tf.reduce_sum(there, axis=1, keepdims=True)
            )
        if not mean:
            return super().call(inputs)
        return tf.ensure_shape(self._means(ids)[:, tf.newaxis], (None, 1, self.output_dim))

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """Of events with several values, those that have one."""
        found = super().compute_mask(inputs, mask)
        return found if found is None or found.shape.rank < 3 else tf.reduce_any(found, axis=2)

    def _means(self, ids: Any) -> Any:
        """(rows, values) to (rows, width): the mean over what is not 0; zeros where nothing is."""
        if is_portable():  # TFLite has no means of segments
            weights = tf.cast(ids > 0, self.embeddings.dtype)
            total = tf.reduce_sum(tf.gather(self.embeddings, ids) * weights[..., tf.newaxis], axis=1)
            return total / tf.maximum(tf.reduce_sum(weights, axis=1, keepdims=True), 1)
        there = tf.where(ids > 0)
        return tf.sparse.segment_mean(
            self.embeddings, tf.gather_nd(ids, there), tf.cast(there[:, 0], tf.int32), num_segments=tf.shape(ids)[0]
        )


def with_pooling(model_function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of DeepCTR that builds a model, its means of sequences computed in one step."""
    scope = model_function.__globals__
    if "build_input_features" in scope:
        model_function = rebuild(model_function, {"build_input_features": _inputs})
    steps = {name: step for name, step in _STEPS.items() if name in scope}
    callers = {name: _rebuilt for name in _CALLERS if name in scope and scope[name].__globals__ is not scope}
    return rebuild(model_function, {**steps, **callers})


def _rebuilt(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return with_pooling(original)(*args, **kwargs)


def _inputs(original: Callable[..., Any], columns: Any, *args: Any, **kwargs: Any) -> Any:
    """The step `build_input_features`: events that have several values are read as such."""
    inputs = original(columns, *args, **kwargs)
    for column in columns:
        if values := getattr(column, "values", None):
            inputs[column.name] = keras.Input((column.maxlen, values), dtype=column.dtype, name=column.name)
    return inputs


def _embeddings(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The step `create_embedding_matrix`."""
    return rebuild(original, {"Embedding": lambda layer, *a, **k: PooledEmbedding(*a, **k)})(*args, **kwargs)


def _looked_up(original: Callable[..., Any], layers: Any, inputs: Any, columns: Any) -> Any:
    """The step `varlen_embedding_lookup`, for what is not pooled here."""
    return original(layers, inputs, [column for column in columns if not _is_plain_mean(column)]) | {
        column.name: layers[column.embedding_name] for column in columns if _is_plain_mean(column)
    }


def _pooled(original: Callable[..., Any], looked_up: Any, inputs: Any, columns: Any, to_list: bool = False) -> Any:
    """The step `get_varlen_pooling_list`."""
    from deepctr.layers.utils import NoMask

    groups = defaultdict(list)
    for column in columns:
        if _is_plain_mean(column):
            mean = looked_up[column.name](inputs[column.name], mean=True)
            groups[column.group_name].append(NoMask()(mean))  # Keras gives it that of the sequence
        else:
            groups[column.group_name] += original(looked_up, inputs, [column], to_list=True)
    return list(chain.from_iterable(groups.values())) if to_list else groups


def _is_plain_mean(column: Any) -> bool:
    return column.combiner == "mean" and not column.use_hash and not column.length_name and not column.weight_name


_STEPS: Mapping[str, Callable[..., Any]] = {
    "create_embedding_matrix": _embeddings,
    "varlen_embedding_lookup": _looked_up,
    "get_varlen_pooling_list": _pooled,
}
