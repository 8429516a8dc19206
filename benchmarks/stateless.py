"""A Keras model on JAX as plain functions of its state, which can be jitted, scanned and kept on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class State(NamedTuple):
    """All that training changes."""

    trained: list[Any]
    other: list[Any]
    optimizer: list[Any]


def initial(model: Any, optimizer: Any) -> State:
    """As the model was built; copies, so that what is donated is not the model's."""
    optimizer.build(model.trainable_variables)
    groups = (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
    return State(*([jnp.array(variable.value) for variable in group] for group in groups))


def log_loss(labels: Any, predicted: Any) -> Any:
    """Of click probabilities."""
    chance = jnp.clip(predicted.astype("float32"), 1e-7, 1 - 1e-7)
    return -jnp.mean(labels * jnp.log(chance) + (1 - labels) * jnp.log1p(-chance))


def training_step(
    model: Any, optimizer: Any, loss: Callable[[Any, Any], Any] = log_loss
) -> Callable[[State, Any, Any], tuple[State, Any]]:
    """State, inputs and labels to the next state and the loss, penalties among it.

    Args:
        loss: of labels and predictions: one number.
    """

    def loss_of(trained: list[Any], other: list[Any], inputs: Any, labels: Any) -> tuple[Any, Any]:
        predicted, other, penalties = model.stateless_call(trained, other, inputs, training=True, return_losses=True)
        return loss(labels, predicted) + sum(penalties), other

    def step(state: State, inputs: Any, labels: Any) -> tuple[State, Any]:
        (found, other), slopes = jax.value_and_grad(loss_of, has_aux=True)(state.trained, state.other, inputs, labels)
        trained, optimizer_state = optimizer.stateless_apply(state.optimizer, slopes, state.trained)
        return State(trained, other, optimizer_state), found

    return step


def prediction(model: Any) -> Callable[[State, Any], Any]:
    """State and inputs to click probabilities, (batch, 1)."""
    return lambda state, inputs: model.stateless_call(state.trained, state.other, inputs, training=False)[0]


def either(which: Any, ours: Any, theirs: Any) -> Any:
    """Of states side by side, whose first axis they are, each from the one or the other.

    Args:
        which: (how many,), where it is ours.
    """

    def of_array(left: Any, right: Any) -> Any:
        return jnp.where(jnp.reshape(which, (-1, *[1] * (left.ndim - 1))), left, right)

    return jax.tree.map(of_array, ours, theirs)
