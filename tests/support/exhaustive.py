"""Tables of one assertion over many combinations: `make test` runs the telling cases, `make test-all` all of them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import pytest

ON_KERAS_3 = os.environ.get("TF_USE_LEGACY_KERAS") == "0"
everything = True  # conftest.py says otherwise where tests that are `exhaustive` are deselected


def table(cases: Iterable[Any], *telling: Any) -> list[Any]:
    """The cases of a table as parameters; those that are not among the telling ones are left to `make test-all`.

    Args:
        cases: values of one parameter, or tuples of values of several.
        telling: some of them, as unlike as can be.
    """
    cases = list(cases)
    assert telling and all(case in cases for case in telling), "a telling case is one of the table's"
    return [case if case in telling else left_out(*(case if isinstance(case, tuple) else (case,))) for case in cases]


def left_out(*values: Any) -> Any:
    """A case that is left to `make test-all`."""
    return pytest.param(*values, marks=pytest.mark.exhaustive)


def examples(number: int) -> int:
    """How many examples of a property are tried: all by `make test-all`; of a layer's numbers fewer on Keras 3, where
    TensorFlow computes them just the same.
    """
    return number // 4 if ON_KERAS_3 else number if everything else -(-number // 3)


# Of tests for both Keras APIs, those that compute the same with the same TensorFlow on either: once is enough, but for
# `make test-all`. What Keras itself does (saving, graphs of layers, training, exporting) is tested on both.
same_on_keras_3 = pytest.mark.exhaustive if ON_KERAS_3 else pytest.mark.both_keras
