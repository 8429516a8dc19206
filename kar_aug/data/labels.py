"""What a click is, and which rows an expression over the interactions' columns chooses: "event == 'buy'"."""

from __future__ import annotations

import ast
from collections.abc import Collection
from io import StringIO
from tokenize import TokenError, generate_tokens, untokenize
from typing import Any

import pandas as pd

from kar_aug.errors import DataError

_WORDS = {"&": " and ", "|": " or "}  # as pandas reads them, after comparisons
_ASKS = ("isna", "isnull", "notna", "notnull")


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
    """The rows of a frame for which an expression over its columns is true. Of what is missing nothing is: neither
    "event == 'buy'" nor "event != 'skip'".

    Args:
        name: how messages call the expression.

    Raises:
        DataError: It cannot be evaluated, or is neither true nor false.
    """
    said = expression
    frame = frame.assign(**{str(key): _nullable(cells) for key, cells in frame.items() if str(key) in expression})
    gaps = [str(key) for key, cells in frame.items() if str(key) in expression and cells.isna().any()]
    expression = _of_what_is_known(expression, gaps) if gaps else expression
    try:
        # Of its columns alone: `@name` would be a variable of ours, and pandas' look at these ended Python 3.13.0.
        found = frame.eval(expression, engine="python", local_dict={}, global_dict={})
    except Exception as error:  # pandas raises whatever the parser, the names or the types raise
        columns = ", ".join(map(str, frame.columns))
        why = 'of numbers `not` and `~` say nothing: write "n == 0"' if "'invert'" in str(error) else error
        raise DataError(f"{name}: {said!r} cannot be evaluated: {why}. Columns: {columns}") from None
    if not isinstance(found, pd.Series) or not pd.api.types.is_bool_dtype(found.dtype):
        raise DataError(f"{name}: {said!r} is neither true nor false of a row.")
    return found.fillna(False).astype(bool)


def _nullable(cells: pd.Series) -> pd.Series:
    """True and false with gaps as a type that has these: as objects they are no truth values to pandas."""
    is_truth = (
        cells.dtype == object and cells.isna().any() and pd.api.types.infer_dtype(cells, skipna=True) == "boolean"
    )
    return cells.astype("boolean") if is_truth else cells


def _of_what_is_known(expression: str, gaps: Collection[str]) -> str:
    """The expression, in which what is negated is true of rows alone that have what it speaks of.

    Args:
        gaps: columns in which some are missing.
    """
    try:
        tokens = [(kind, _WORDS.get(text, text)) for kind, text, *_ in generate_tokens(StringIO(expression).readline)]
        return ast.unparse(_OfKnown(gaps).visit(ast.parse(untokenize(tokens).strip(), mode="eval")))
    except (SyntaxError, TokenError):  # names in backticks are pandas' own
        return expression


class _OfKnown(ast.NodeTransformer):
    def __init__(self, gaps: Collection[str]) -> None:
        self._gaps = gaps

    def visit_UnaryOp(self, node: ast.UnaryOp) -> Any:
        """`not` and `~`."""
        return self._and_known(node) if isinstance(node.op, ast.Not | ast.Invert) else node

    def visit_Compare(self, node: ast.Compare) -> Any:
        """`!=` and `not in`."""
        return self._and_known(node) if any(isinstance(op, ast.NotEq | ast.NotIn) for op in node.ops) else node

    def _and_known(self, node: ast.expr) -> Any:
        if any(isinstance(each, ast.Attribute) and each.attr in _ASKS for each in ast.walk(node)):
            return node  # it says by itself what is meant of the missing
        names = sorted({each.id for each in ast.walk(node) if isinstance(each, ast.Name)} & set(self._gaps))
        known = [ast.Compare(ast.Name(name), [ast.Eq()], [ast.Name(name)]) for name in names]
        return ast.BoolOp(ast.And(), [node, *known]) if known else node
