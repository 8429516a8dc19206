"""What a click is, and which rows an expression over the interactions' columns chooses: "event == 'buy'"."""

from __future__ import annotations

import pandas as pd

from kar_aug.errors import DataError


def labelled(interactions: pd.DataFrame, label: str) -> pd.DataFrame:
    """The interactions with the column `label`: 1.0 a click, 0.0 none, missing where nothing is known.

    Args:
        label: a column of 0 and 1, in which rows may be empty: these are events of a user's past, and no samples. Or an
            expression that is true of clicks.

    Raises:
        DataError: It is neither.
    """
    if label in interactions:
        return interactions.assign(label=interactions[label])
    return interactions.assign(label=where(interactions, label, "[data] label").astype("float32"))


def where(frame: pd.DataFrame, expression: str, name: str) -> pd.Series:
    """The rows of a frame for which an expression over its columns is true; what is missing is not.

    Args:
        name: how messages call the expression.

    Raises:
        DataError: It cannot be evaluated, or is neither true nor false.
    """
    try:
        # Of its columns alone: `@name` would be a variable of ours, and pandas' look at these ended Python 3.13.0.
        found = frame.eval(expression, engine="python", local_dict={}, global_dict={})
    except Exception as error:  # pandas raises whatever the parser, the names or the types raise
        columns = ", ".join(map(str, frame.columns))
        raise DataError(f"{name}: {expression!r} cannot be evaluated: {error}. Columns: {columns}") from None
    if not isinstance(found, pd.Series) or not pd.api.types.is_bool_dtype(found.dtype):
        raise DataError(f"{name}: {expression!r} is neither true nor false of a row.")
    return found.fillna(False).astype(bool)
