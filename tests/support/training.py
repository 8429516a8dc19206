"""Training and predicting without tracing a graph twice, or where none is needed: most of a small model's time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from kar_aug._helpers.keras import keras, tf
from support.commands import STEP_BY_STEP


def ready(model: Any, learning_rate: float = 0.01, loss: str = "binary_crossentropy", *, eagerly: bool = False) -> Any:
    """The model, compiled with an Adam that is made now: one that the first step makes has this step traced twice.

    Without XLA, which Keras 3 would choose: it takes seconds to compile what is trained in milliseconds, and has a test
    of its own (`test_execution`).

    Args:
        eagerly: step by step, where a few steps come before what is tested: a graph takes longer to trace.
    """
    model.compile(keras.optimizers.Adam(learning_rate), loss, jit_compile=False, run_eagerly=eagerly)
    model.optimizer.build(model.trainable_variables)
    return model


@contextmanager
def step_by_step() -> Iterator[None]:
    """Trainings in the block, of commands too, run without a graph, which takes longer to trace than a few steps take.

    For tests of what a comparison makes of its trainings, whatever these come to; not of what is trained or exported.
    """
    tf.config.run_functions_eagerly(True)
    os.environ[STEP_BY_STEP] = "1"
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)
        del os.environ[STEP_BY_STEP]


def predicted(model: Any, inputs: Any) -> np.ndarray:
    """What a model predicts, computed at once: `predict` would trace a graph for one batch."""
    return np.asarray(model(inputs, training=False))
