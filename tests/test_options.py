"""An option of the wrong kind, or out of its range, is one sentence that names it, when the layer is made."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kar_aug import prestore
from kar_aug._helpers.keras import keras
from kar_aug.layers import (
    BilinearSimilarity,
    GivenVectors,
    HybridExpertAdaptor,
    KnowledgeAttention,
    KnowledgeAugmentation,
    KnowledgeVectors,
    ListAsRows,
    MaskedMean,
    MostSimilar,
    PrestoredAugmentation,
    RowsAsList,
    SimilarityFeatures,
    VectorAugmentation,
)

pytestmark = pytest.mark.both_keras
TABLE = np.random.default_rng(0).normal(size=(9, 4)).astype("float32")
NO_NUMBERS = ["a", "0.1", None, [], True, float("nan"), float("inf"), -1]
NO_WHOLES = [*NO_NUMBERS, 1.5, np.float32(2.0)]
NO_FLAGS = ["a", "True", None, [], 1, 0.0, float("nan")]
NO_LISTS = ["a", 1, [], None, [0], [-1.0], ["a"], [float("nan")], [True]]
NO_NAMES = ["a", [], None, 1, ["a", "a"], [1]]
NO_MAPPINGS = ["a", 1, ["a"], [("a", 4)]]
EXPERTS: dict[str, list[Any]] = {
    "shared_experts": NO_WHOLES,
    "dedicated_experts": NO_WHOLES,
    "expert_units": [*NO_LISTS, [1.5]],
}
KEYED = {"a": TABLE}
OPTIONS: list[tuple[type, tuple[Any, ...], dict[str, list[Any]]]] = [
    (
        HybridExpertAdaptor,
        (["a"],),
        {
            **EXPERTS,
            "sources": NO_NAMES,
            "dropout": [*NO_NUMBERS, 1.0],
            "layer_norm": NO_FLAGS,
            "activation": ["none such", 1, []],
            "kernel_regularizer": ["none such", 1, []],
        },
    ),
    (
        KnowledgeAugmentation,
        (KEYED,),
        {**EXPERTS, "load_balance": NO_NUMBERS, "mask_zero": NO_FLAGS, "embed_tables": NO_FLAGS},
    ),
    (VectorAugmentation, ({"a": 4},), {**EXPERTS, "load_balance": NO_NUMBERS, "sources": NO_MAPPINGS}),
    (GivenVectors, ({"a": 4},), {"sources": NO_MAPPINGS, "versions": NO_MAPPINGS}),
    (PrestoredAugmentation, (KEYED,), {"tables": NO_MAPPINGS, "mask_zero": NO_FLAGS}),
    (
        KnowledgeVectors,
        (TABLE,),
        {
            "components": [each for each in NO_WHOLES if each is not None],
            "spare": NO_WHOLES,
            "centre": NO_FLAGS,
            "whiten": NO_FLAGS,
            "unit": NO_FLAGS,
        },
    ),
    (KnowledgeAttention, (TABLE,), {"width": NO_WHOLES, "heads": NO_WHOLES}),
    (BilinearSimilarity, (), {"heads": NO_WHOLES}),
    (MostSimilar, (3,), {"count": NO_WHOLES}),
    (SimilarityFeatures, (), {"temperatures": NO_LISTS, "top": NO_WHOLES, "bins": NO_WHOLES}),
    (MaskedMean, (), {"mask_zero": NO_FLAGS}),
    (ListAsRows, (3,), {"size": NO_WHOLES, "of_items": NO_FLAGS}),
    (RowsAsList, (3,), {"size": NO_WHOLES}),
]


@pytest.mark.parametrize(("layer", "first", "options"), OPTIONS, ids=lambda given: getattr(given, "__name__", ""))
def test_a_wrong_option_is_named(layer: Any, first: tuple[Any, ...], options: dict[str, list[Any]]) -> None:
    layer(*first)
    required = ("sources", "tables", "count", "size")  # what comes first
    for name, wrong in options.items():
        for value in wrong:
            given = () if name in required else first
            with pytest.raises(ValueError, match=rf"^`{name}` .*Received: {name}="):
                layer(*given, **{name: value})


def test_numbers_of_numpy_are_numbers() -> None:
    adaptor = HybridExpertAdaptor(["a"], np.int64(1), np.int32(2), np.asarray([4, 3]), dropout=np.float32(0.5))
    assert adaptor.get_config()["expert_units"] == [4, 3] and adaptor.get_config()["dropout"] == 0.5


def test_room_for_new_ids_is_a_whole_number() -> None:
    ids = keras.Input((1,), name="a", dtype="int32")
    model = keras.Model(ids, keras.layers.Dense(1)(KnowledgeAugmentation(KEYED)({"a": ids})["a"]))
    with pytest.raises(ValueError, match=r"`spare` must be a whole number, 0 or more\. Received: spare='a'"):
        prestore(model, spare="a")  # type: ignore[arg-type]
