"""What Keras asks of its own layers (`run_layer_test`), asked of all of ours: config, file, shapes, dtypes, training.

    python -m support.asked_by_keras [LAYER ...]

on whatever Keras 3 runs on.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from keras.src.testing import TestCase

import kar_aug.layers as ours
from kar_aug import VectorStore
from kar_aug._helpers.keras import BACKEND, keras
from kar_aug.cache import StoreSpec
from kar_aug.codes import SemanticIds

BATCH, LENGTH, ITEMS, DIMENSION, WIDTH = 4, 5, 20, 6, 3
ONE, EVENTS, IDS = (BATCH, 1), (BATCH, LENGTH), "int32"
FIELD, FIELDS = (BATCH, WIDTH), (BATCH, LENGTH, WIDTH)
VECTOR, VECTORS = (BATCH, DIMENSION), (BATCH, LENGTH, DIMENSION)
NO_LAYERS = {"Adaptor", "AdaptorSettings", "store_locations", "vectors_left_out"}


def by_name(layer: type[Any], *names: str) -> type[Any]:
    """A layer that reads a dictionary, for Keras, which gives one tensor or a tuple: of these names, in order."""

    def named(given: Any) -> Any:
        if isinstance(given, Mapping):
            return given
        single = len(names) == 1 and not (isinstance(given, tuple) and isinstance(given[0], tuple))
        return dict(zip(names, (given,) if single else given, strict=True))

    @keras.utils.register_keras_serializable(package="tests", name=f"Named{layer.__name__}")
    class Named(layer):
        def __call__(self, inputs: Any, **options: Any) -> Any:
            return super().__call__(named(inputs), **options)

        def build(self, input_shape: Any) -> None:
            super().build(named(input_shape))

        def compute_output_shape(self, input_shape: Any) -> Any:
            return super().compute_output_shape(named(input_shape))

        def compute_output_spec(self, inputs: Any, *given: Any, **options: Any) -> Any:
            return super().compute_output_spec(named(inputs), *given, **options)

    return Named


def cases(folder: Path) -> dict[str, tuple[type[Any], dict[str, Any], dict[str, Any]]]:
    """Name -> layer, its arguments, and what Keras is to give it."""
    table = np.random.default_rng(0).normal(size=(ITEMS, DIMENSION)).astype("float32")
    with VectorStore.writer(folder / "items", StoreSpec("encoder", DIMENSION)) as writer:
        writer.append(range(ITEMS), [""] * ITEMS, table)
    codes = SemanticIds.make(VectorStore.open(folder / "items"), levels=2, size=4).align(range(ITEMS))
    two, experts = ("item", "user"), {"expert_units": (4, WIDTH)}
    listed = {"run_training_check": BACKEND != "tensorflow"}  # where Keras's own generator takes no lists of outputs
    return {
        "BilinearSimilarity": (ours.BilinearSimilarity, {"heads": 3}, given(FIELD, VECTOR)),
        "CandidateAndEvents": (ours.CandidateAndEvents, {}, {**given(FIELD, FIELDS), **listed}),
        "EventMask": (ours.EventMask, {}, {"input_shape": EVENTS, "input_dtype": IDS}),
        "EventValues": (ours.EventValues, {}, given(EVENTS, EVENTS)),
        "GivenVectors": (by_name(ours.GivenVectors, *two), {"sources": dict.fromkeys(two, WIDTH)},
                         given(FIELD, FIELDS)),
        "HistoryPooling": (ours.HistoryPooling, {}, {**given(EVENTS, FIELDS), **listed}),
        "HybridExpertAdaptor": (by_name(ours.HybridExpertAdaptor, *two), {"sources": two, **experts, "layer_norm": True,
                                "dropout": 0.1, "kernel_regularizer": "l2"}, given(VECTOR, VECTORS)),
        "KnowledgeAdded": (ours.KnowledgeAdded, {}, given(FIELDS, FIELD)),
        "KnowledgeAttention": (ours.KnowledgeAttention, {"source": table, "width": WIDTH},
                               given(ONE, EVENTS, FIELDS, EVENTS, types=(IDS, IDS, "float32", "float32"))),
        "KnowledgeAugmentation": (by_name(ours.KnowledgeAugmentation, *two), {"sources": dict.fromkeys(two, table),
                                  **experts, "load_balance": 0.1}, given(ONE, EVENTS, types=(IDS, IDS))),
        "KnowledgeCodes": (ours.KnowledgeCodes, {"source": codes},
                           {"input_shape": EVENTS, "input_dtype": IDS, **listed}),
        "KnowledgeSimilarity": (ours.KnowledgeSimilarity, {"source": table}, given(ONE, EVENTS, types=(IDS, IDS))),
        "KnowledgeState": (ours.KnowledgeState, {"source": table},
                           given(ONE, EVENTS, EVENTS, EVENTS, types=(IDS, IDS, "float32", "float32"))),
        "KnowledgeVectors": (ours.KnowledgeVectors, {"source": table}, {"input_shape": EVENTS, "input_dtype": IDS}),
        "LastOfList": (ours.LastOfList, {}, given(FIELDS, EVENTS)),
        "LayerAdaptor": (by_name(ours.LayerAdaptor, "item"), {"layers": {"item": keras.layers.Dense(WIDTH)}},
                         {"input_shape": VECTOR}),
        "ListAsRows": (ours.ListAsRows, {"size": LENGTH}, {"input_shape": FIELDS}),
        "ListPositions": (ours.ListPositions, {}, {"input_shape": FIELDS}),
        "ListScores": (ours.ListScores, {}, given((BATCH, LENGTH, 1), EVENTS)),
        "MaskedMean": (ours.MaskedMean, {}, given(EVENTS, FIELDS)),
        "MostSimilar": (ours.MostSimilar, {"count": 2}, {**given(EVENTS, EVENTS, EVENTS), **listed}),
        "PrestoredAugmentation": (by_name(ours.PrestoredAugmentation, *two), {"tables": dict.fromkeys(two, table)},
                                  given(ONE, EVENTS, types=(IDS, IDS))),
        "RowsAsList": (ours.RowsAsList, {"size": LENGTH}, {"input_shape": (BATCH * LENGTH, WIDTH)}),
        "SetToList": (ours.SetToList, {}, {**given(FIELDS, VECTORS, (*EVENTS, 2, WIDTH), (*EVENTS, 2, WIDTH), EVENTS,
                                                   EVENTS), **listed}),
        "SimilarityFeatures": (ours.SimilarityFeatures, {"bins": 2}, given(EVENTS, EVENTS, EVENTS)),
        "VectorAugmentation": (by_name(ours.VectorAugmentation, *two), {"sources": dict.fromkeys(two, DIMENSION),
                               **experts}, given(VECTOR, VECTORS)),
    }  # fmt: skip


def given(*shapes: tuple[int, ...], types: tuple[str, ...] | None = None) -> dict[str, Any]:
    return {"input_shape": shapes, "input_dtype": types or ("float32",) * len(shapes)}


def main(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asked = cases(Path(folder))
        lacking = set(asked) ^ (set(ours.__all__) - NO_LAYERS)
        assert not lacking, f"asked of all public layers, and of no other: {sorted(lacking)}"
        for name in names or asked:
            layer, arguments, what = asked[name]
            try:
                TestCase().run_layer_test(layer, arguments, **what)
            except Exception as error:
                error.add_note(f"Keras said this of {name}.")
                raise


if __name__ == "__main__":
    main(sys.argv[1:])
