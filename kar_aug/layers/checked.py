"""What a layer is told, when it is made and when it is called: checked there, and not by whatever Keras makes of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

Shape = tuple[Any, ...]


def whole(name: str, value: Any, least: int = 1) -> int:
    """An option that is a whole number.

    Raises:
        ValueError: It is none, or less than `least`; True and False are none.
    """
    if isinstance(value, bool | np.bool_) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"`{name}` must be a whole number, {least} or more. Received: {name}={value!r}")
    return int(value)


def wholes(name: str, values: Any) -> list[int]:
    """One that is several positive whole numbers."""
    try:
        numbers = [whole(name, each) for each in values]
    except (TypeError, ValueError):
        numbers = []
    if not numbers:
        raise ValueError(f"`{name}` must be positive whole numbers, at least one. Received: {name}={values!r}")
    return numbers


def flag(name: str, value: Any) -> bool:
    """One that is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"`{name}` must be True or False. Received: {name}={value!r}")
    return bool(value)


def share(name: str, value: Any, what: str) -> float:
    """One that is a share of something, less than all of it."""
    if not (_is_number(value) and 0 <= value < 1):
        raise ValueError(f"`{name}` must be a share of {what}, from 0 to less than 1. Received: {name}={value!r}")
    return float(value)


def weight(name: str, value: Any) -> float:
    """One that is a number, 0 or more."""
    if not (_is_number(value) and value >= 0):
        raise ValueError(f"`{name}` must be a number, 0 or more. Received: {name}={value!r}")
    return float(value)


def positives(name: str, values: Any) -> list[float]:
    """One that is several positive numbers."""
    given = values if isinstance(values, Sequence | np.ndarray) and not isinstance(values, str) else []
    if not len(given) or not all(_is_number(each) and each > 0 for each in given):
        raise ValueError(f"`{name}` must be positive numbers, at least one. Received: {name}={values!r}")
    return [float(each) for each in given]


def names(name: str, values: Any) -> list[str]:
    """One that is several names."""
    given = list(values) if isinstance(values, Sequence) and not isinstance(values, str) else []
    if not given or not all(isinstance(each, str) for each in given) or len(set(given)) != len(given):
        raise ValueError(f"`{name}` must be different names, at least one. Received: {name}={values!r}")
    return given


def by_name(name: str, value: Any, example: str) -> Mapping[str, Any]:
    """One that says something for each of several names."""
    if not isinstance(value, Mapping):
        raise ValueError(f"`{name}` must say by names what it is, {example}. Received: {name}={value!r}")
    return value


def known(name: str, value: Any, get: Callable[[Any], Any]) -> Any:
    """One that Keras knows by its name, or that can be called.

    Args:
        get: Keras's function that finds it.
    """
    try:
        found = get(value)
    except (TypeError, ValueError):
        found = value
    if found is not None and not callable(found):
        raise ValueError(f"`{name}` is none that Keras knows. Received: {name}={value!r}")
    return found


def inputs(layer: Any, given: Any, takes: str, fit: Callable[[list[Shape]], bool]) -> None:
    """What a layer is called with, or built for: several tensors, whose axes go together.

    Args:
        given: tensors, or their shapes.
        takes: what it must be, for the error: "[similarity, (batch, length); ...]".
        fit: whether shapes do, of tensors of known rank; `go_together` compares axes.

    Raises:
        ValueError: They do not.
    """
    several = isinstance(given, Sequence) and not isinstance(given, str) and not _is_shape(given)
    shapes = [_shape(each) for each in given] if several else [_shape(given)]
    if None in shapes or (several and fit([each for each in shapes if each is not None])):
        return
    came = ", ".join(map(str, shapes)) or "none"
    raise ValueError(f"{type(layer).__name__} takes {takes}. Received shapes: {came}")


def go_together(*sizes: int | None) -> bool:
    """Whether sizes are the same, as far as they are known."""
    return len({size for size in sizes if size is not None}) < 2


def one_a_row(shape: Shape) -> bool:
    """Whether a shape is (batch,) or (batch, 1)."""
    return len(shape) == 1 or (len(shape) == 2 and shape[1] in (1, None))


def sequences_alike(shapes: Sequence[Shape]) -> bool:
    """Whether all shapes are (batch, length), of the same length."""
    return all(len(shape) == 2 for shape in shapes) and go_together(*(shape[1] for shape in shapes))


def _is_shape(given: Any) -> bool:
    return all(each is None or isinstance(each, int) for each in given)


def _shape(given: Any) -> Shape | None:
    """A shape, or that of a tensor; None where its rank is unknown."""
    shape = getattr(given, "shape", given)
    return None if shape is None or getattr(shape, "rank", 0) is None else tuple(shape)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_) and math.isfinite(value)
