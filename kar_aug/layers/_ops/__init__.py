"""The array operations that the layers are written in, under the names that `keras.ops` has for them.

on_tensorflow   TensorFlow's own, with nothing in between, for tf-keras and for Keras 3; by_blocks is a part of it
of_keras        those of Keras 3, for JAX and torch alike
on_jax, on_torch   the same, and what `keras.ops` has no name for: these alone know how their library does it

`ops` is the one of them that this process computes with.
"""

from __future__ import annotations

import importlib
from typing import Any

from kar_aug._helpers.keras import BACKEND

ops: Any = importlib.import_module(f"kar_aug.layers._ops.on_{BACKEND}")
