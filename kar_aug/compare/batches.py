"""Samples as a model reads them: batches of the inputs that it has, gathered when they are due.

Of samples that are mapped into memory a training holds which they are, 8 bytes a row, the pool of them that it is at
(see `kar_aug.compare.order`), and the batches that are due. Of the files it maps what it read last: a million rows.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from kar_aug._helpers.keras import tf
from kar_aug.compare.order import Order
from kar_aug.data.encodings import FIRST, UNKNOWN
from kar_aug.data.features import Feature
from kar_aug.data.lists import Lists
from kar_aug.data.room import blocks
from kar_aug.data.samples import Samples

_PREDICTED_ROWS = 8192
_READERS = 2  # threads, where TensorFlow has so many: NumPy lets the others go on while it copies
_MAPPED_ROWS = 1 << 20  # that are read before what was mapped of them is let go
_IDS = ("user_id", "item_id")
Positions = npt.NDArray[np.int64]


class Batches:
    """Batches of some samples, as `tf.data`, in their order.

    Args:
        samples: all of them; or all lists.
        of: those that are read.
        names: the inputs of the model.
        size: rows, or lists, a batch; as many as are predicted at once if None, of lists by their items.
    """

    def __init__(
        self, samples: Samples | Lists, of: Positions, names: Collection[str], size: int | None = None
    ) -> None:
        self.samples, self.of = samples, of
        self.size = size or max(1, _PREDICTED_ROWS // (samples.size if isinstance(samples, Lists) else 1))
        self.inputs = [feature for feature in (*samples.features, *samples.keys) if feature.name in names]
        self._names = {feature.name for feature in self.inputs}
        self.weighted = any((samples.labels(of[block])[1] != 1).any() for block in blocks(len(of)))
        self.order: Positions | Order = of

    @property
    def steps(self) -> int:
        """Batches there are."""
        return -(-len(self.of) // self.size)

    def dataset(self, first: int = 0, stop: int | None = None) -> Any:
        """Inputs, labels and, where there are some, weights; read anew, in the present order, each time it is gone
        through.

        Args:
            first, stop: batches, to have a piece of them.
        """
        steps = self.steps if stop is None else min(stop, self.steps)
        outputs = [_dtype(feature) for feature in self.inputs] + [tf.float32, tf.float32]

        def which(step: Any) -> tuple[Any, ...]:
            return step, tf.numpy_function(self._which, [step], tf.int64)  # an order is gone through step by step

        def gather(step: Any, some: Any) -> tuple[Any, ...]:
            found = tf.numpy_function(self._gather, [step, some], outputs, stateful=False)
            for feature, tensor in zip(self.inputs, found, strict=False):
                tensor.set_shape(self.samples.shape(feature))
            found[-2].set_shape(self.samples.shape())
            found[-1].set_shape([None])
            inputs = {feature.name: tensor for feature, tensor in zip(self.inputs, found, strict=False)}
            return (inputs, *(found[-2:] if self.weighted else found[-2:-1]))

        # Told, or TensorFlow would run it side by side as it sees fit.
        asked = tf.data.Dataset.range(first, steps).map(which, num_parallel_calls=1, deterministic=True)
        return asked.map(gather, num_parallel_calls=_READERS, deterministic=True).prefetch(2)

    def _which(self, step: Any) -> Positions:
        if int(step) % max(1, _MAPPED_ROWS // self.size) == 0:
            self.samples.let_go()
        return self.order[int(step) * self.size : (int(step) + 1) * self.size]

    def _gather(self, step: Any, some: Positions) -> list[npt.NDArray[Any]]:
        read = self.changed(self.samples.read(some, self._names), int(step))
        values = [np.asarray(read[feature.name]) for feature in self.inputs]
        return [*values, *self.samples.labels(some)]

    def changed(self, read: dict[str, Any], step: int) -> dict[str, Any]:
        """What the model is given of what was read."""
        return read


class TrainingBatches(Batches):
    """The same in another order each epoch, that depends on nothing but the seed and the number of the epoch.

    Args:
        unknown_share: of the ids, that are given as unknown ones, so that these come to be worth something.
    """

    def __init__(
        self, samples: Samples | Lists, names: Collection[str], size: int, seed: int, unknown_share: float = 0.0
    ) -> None:
        super().__init__(samples, samples.of("train"), names, size)
        self._seed, self._unknown_share, self._epoch = seed, unknown_share, 0
        self._ids = [feature.name for feature in self.inputs if (feature.embedding or feature.name) in _IDS]

    def start(self, epoch: int) -> None:
        """Shuffle for an epoch."""
        self._epoch = epoch
        self.order = Order(self.of, [self._seed, 11, epoch])

    def changed(self, read: dict[str, Any], step: int) -> dict[str, Any]:
        if not self._unknown_share:
            return read
        random = np.random.default_rng([self._seed, 12, self._epoch, step])
        for name in self._ids:
            forgotten = (random.random(read[name].shape, np.float32) < self._unknown_share) & (read[name] >= FIRST)
            read[name] = np.where(forgotten, np.int32(UNKNOWN), read[name])
        return read


def _dtype(feature: Feature) -> Any:
    return tf.float32 if feature.is_number else tf.int32
