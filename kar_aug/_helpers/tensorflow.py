"""Starting TensorFlow: which Keras, how many threads, and that it computes the same thing twice."""

from __future__ import annotations

import contextlib
import logging
import os

from kar_aug._helpers.quiet import quiet_stderr


def choose_keras() -> None:
    """Set what TensorFlow reads at its import; processes that are started later inherit it."""
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def prepare_tensorflow(threads: int | None = None) -> None:
    """Choose the Keras that DeepCTR works with and keep start-up notes off the terminal; before TensorFlow's import.

    Args:
        threads: cores that this process may use; all if not given.
    """
    choose_keras()
    with quiet_stderr():
        import tensorflow as tf

    tf.get_logger().setLevel(logging.ERROR)
    if threads is not None:
        with contextlib.suppress(RuntimeError):  # it computed something already: then it keeps what it has
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
