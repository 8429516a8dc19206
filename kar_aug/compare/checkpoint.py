"""Where a training stands, on disk, so that one that was stopped goes on there and comes to the same, bit for bit."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kar_aug._helpers.files import atomic_path
from kar_aug._helpers.keras import IS_KERAS_3, keras

_SECONDS = 60.0  # of training between two writes, at least; what takes less is done again from its beginning
_SHARE = 0.05  # of the time, at most, goes into writing
Array = npt.NDArray[Any]


@dataclass
class Standing:
    """How far a training is.

    Args:
        best: the model's weights of its best epoch.
        epoch, piece: what is to be trained on next.
        curve: validation AUC of each epoch.
        seconds: that it took.
        fastest: seconds of the fastest look at the validation part.
    """

    best: list[Array]
    epoch: int = 0
    piece: int = 0
    curve: list[float] = field(default_factory=list)
    seconds: float = 0.0
    fastest: float = float("inf")


class Checkpoint:
    """The standing of one training, and all that its model and optimizer are made of, in a file.

    Args:
        path: of the file; None to keep nothing.
        model: compiled, its optimizer built.
    """

    def __init__(self, path: Path | None, model: Any) -> None:
        self._path, self._model = path, model
        self._kept, self._took = time.monotonic(), 0.0

    def standing(self) -> Standing:
        """Where the training stands: at its beginning, unless a file says otherwise; the model is then as it was."""
        if self._path is not None and self._path.exists():
            try:
                with np.load(self._path, allow_pickle=False) as kept:
                    return self._restored(dict(kept))
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                pass  # of another version, or damaged: no more is lost than the time
        return Standing(self._model.get_weights())

    def _restored(self, kept: dict[str, Array]) -> Standing:
        variables = list(_variables(self._model))
        values = [kept[f"variable-{number}"] for number in range(len(variables))]
        if [value.shape for value in values] != [tuple(variable.shape) for variable in variables]:
            raise ValueError("It is another model's.")
        best = [kept[f"best-{number}"] for number in range(len(self._model.get_weights()))]
        epoch, piece = (int(kept[name]) for name in ("epoch", "piece"))
        curve, seconds, fastest = kept["curve"].tolist(), float(kept["seconds"]), float(kept["fastest"])
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        return Standing(best, epoch, piece, curve, seconds, fastest)

    def keep(self, standing: Standing) -> None:
        """Write, if it is time to."""
        started = time.monotonic()
        if self._path is None or started - self._kept < max(_SECONDS, self._took / _SHARE):
            return
        content: dict[str, Any] = {
            f"variable-{n}": np.asarray(variable) for n, variable in enumerate(_variables(self._model))
        }
        content |= {f"best-{n}": values for n, values in enumerate(standing.best)}
        content |= {name: np.asarray(value) for name, value in vars(standing).items() if name != "best"}
        with atomic_path(self._path) as temporary, temporary.open("wb") as file:
            np.savez(file, **content)
        self._kept = time.monotonic()
        self._took = self._kept - started


def _variables(model: Any) -> Iterator[Any]:
    """All that a training changes: weights, what the optimizer knows of them, and where random numbers stand."""
    yield from model.variables
    yield from model.optimizer.variables
    if not IS_KERAS_3:  # which counts them among a model's variables
        for layer in model._flatten_layers():
            generator = getattr(getattr(layer, "_random_generator", None), "_generator", None)
            if generator is not None:
                yield generator.state


def random_numbers_that_can_be_kept() -> None:
    """Have Keras 2's layers draw from generators with a state that can be read and set, as those of Keras 3 do."""
    if not IS_KERAS_3:
        keras.backend.experimental.enable_tf_random_generator()
