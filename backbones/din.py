"""DIN (Zhou et al. 2018, arXiv:1706.06978) with knowledge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kar_aug._keras import keras
from kar_aug.backbones._deepctr import Knowledge, deepctr_columns, deepctr_models, options, rebuild, with_events
from kar_aug.backbones.protocol import Injection, Settings, events_of, on_keras
from kar_aug.data.features import Feature
from kar_aug.layers import KnowledgeAugmentation


@on_keras("2")
def build(features: Sequence[Feature], settings: Settings, augmentation: Any, injection: Injection) -> Any:
    """DIN as `compare` trains it."""
    read = deepctr_columns(features, settings)
    return DIN(read, with_events(features), augmentation=augmentation, injection=injection, **options(settings))


def DIN(
    dnn_feature_columns: Sequence[Any],
    history_feature_list: Sequence[str],
    *args: Any,
    augmentation: KnowledgeAugmentation | None = None,
    injection: Injection | str = "fields",
    history: Sequence[str] = (),
    **kwargs: Any,
) -> Any:
    """DeepCTR's DIN; augmented vectors enter the final MLP, and those of events the attention.

    Args:
        dnn_feature_columns, history_feature_list, *args, **kwargs: as `deepctr.models.DIN` takes them.
        augmentation: None gives DeepCTR's own model.
        injection: what enters: a name of `kar_aug.registry.INJECTIONS`, or an `Injection`. With "events" the attention
            also compares what is known of the candidate and of the items clicked before.
        history: former name of `injection=Events(history)`.
    """
    from_deepctr = deepctr_models()
    if augmentation is None:
        return from_deepctr.DIN(dnn_feature_columns, history_feature_list, *args, **kwargs)
    knowledge = Knowledge(augmentation, injection, history)
    event_inputs = [events_of(name) for name in history_feature_list]

    def with_knowledge(original: Any, tables: Any, features: Any, *args: Any, **kwargs: Any) -> Any:
        embeddings = original(tables, features, *args, **kwargs)
        asked = args[1] if len(args) > 1 else ()
        if asked not in (history_feature_list, event_inputs):
            return embeddings
        known = [k for name, k in knowledge.of(features).events.items() if name in history_feature_list]
        if asked == event_inputs:
            return embeddings + [k.vectors for k in known]
        return embeddings + [keras.layers.Reshape((1, k.candidate.shape[-1]))(k.candidate) for k in known]

    def with_vectors(original: Any, features: Any, *args: Any, **kwargs: Any) -> Any:
        injected = knowledge.of(features)
        unattended = injected.vectors(attended=history_feature_list)
        return original(features, *args, **kwargs) + unattended + list(injected.dense)

    model = rebuild(from_deepctr.DIN, {"embedding_lookup": with_knowledge, "get_dense_input": with_vectors})
    return model(dnn_feature_columns, history_feature_list, *args, **kwargs)
