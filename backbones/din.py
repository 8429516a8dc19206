"""DIN (Zhou et al. 2018, arXiv:1706.06978) with knowledge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kar_aug._helpers.keras import keras
from kar_aug.backbones._deepctr import (
    Knowledge,
    deepctr_columns,
    deepctr_models,
    options,
    rebuild,
    told_of_events,
    with_keys,
)
from kar_aug.backbones._pooling import with_pooling
from kar_aug.backbones.protocol import Injection, KnownEvents, Settings, events_of, nothing, on_keras
from kar_aug.data.features import Feature
from kar_aug.errors import ConfigError
from kar_aug.layers import KnowledgeAugmentation


@on_keras("2")
def build(features: Sequence[Feature], settings: Settings, augmentation: Any, injection: Injection) -> Any:
    """DIN as `compare` trains it."""
    read = deepctr_columns(features, settings)
    further = {"keys": features, **options(settings)}
    return DIN(read, told_of_events(features), augmentation=augmentation, injection=injection, **further)


def DIN(
    dnn_feature_columns: Sequence[Any],
    history_feature_list: Sequence[str],
    *args: Any,
    augmentation: KnowledgeAugmentation | None = None,
    injection: Injection | str = "fields",
    history: Sequence[str] = (),
    keys: Sequence[Feature] = (),
    **kwargs: Any,
) -> Any:
    """DeepCTR's DIN; augmented vectors enter the final MLP, and those of events the attention.

    Args:
        dnn_feature_columns, *args, **kwargs: as `deepctr.models.DIN` takes them.
        history_feature_list: likewise; and names of what is told of events alone, "rating" for "hist_rating": the
            user's interest is made of it, too. The first must be told of both.
        augmentation: None gives DeepCTR's own model.
        injection: what enters: a name of `kar_aug.registry.INJECTIONS`, or an `Injection`. With "events" the attention
            also compares what is known of the candidate and of the items clicked before.
        history: former name of `injection=Events(history)`.
        keys: features; those with `is_key` are inputs of the model, too, by which knowledge is looked up.
    """
    from_deepctr = with_pooling(deepctr_models().DIN)
    from deepctr.layers.utils import NoMask

    from kar_aug.backbones._attention import InterestAttention

    history_feature_list = list(history_feature_list)
    if not history_feature_list:
        raise ConfigError("DIN attends to earlier events: it needs some. In kar.toml: [data] history_length")
    knowledge = Knowledge(augmentation, nothing if augmentation is None else injection, history)
    event_inputs = [events_of(name) for name in history_feature_list]

    def attended(features: Any) -> dict[str, KnownEvents]:
        """Known events that stand beside those that the attention reads."""
        length = features[event_inputs[0]].shape[1]
        events = knowledge.of(features).events
        return {name: known for name, known in events.items() if known.vectors.shape[1] == length}

    several = {column.name for column in dnn_feature_columns if getattr(column, "values", 1) > 1}
    lists = [c for c in dnn_feature_columns if events_of(c.name) in several and c.name in history_feature_list]
    of_candidate: list[str] = []  # what is told of both
    told: list[Any] = []  # and of events alone

    def with_events(original: Any, tables: Any, features: Any, columns: Any, *args: Any, **kwargs: Any) -> Any:
        embeddings = original(tables, features, columns, *args, **kwargs)
        asked = list(args[0]) if args else []
        if asked not in (history_feature_list, event_inputs):
            return embeddings
        by_name = dict(zip((column.name for column in columns if column.name in asked), embeddings, strict=True))
        known = attended(features).values()
        if asked == history_feature_list:
            # What a candidate has several values of is the mean of theirs, as it is of each event.
            means = {column.name: tables[column.embedding_name](features[column.name], mean=True) for column in lists}
            by_name |= {name: keras.layers.Reshape((1, mean.shape[-1]))(mean) for name, mean in means.items()}
            of_candidate.extend(by_name)
            vectors = [keras.layers.Reshape((1, each.candidate.shape[-1]))(each.candidate) for each in known]
            return [*by_name.values(), *vectors]
        # The first says which events there are: what is told of one may be missing.
        by_name = {name: by_name[name] if name == asked[0] else NoMask()(by_name[name]) for name in asked}
        compared = [events_of(name) for name in of_candidate]
        told.extend(by_name[name] for name in asked if name not in compared)
        return [*(by_name[name] for name in compared), *(each.vectors for each in known)]

    def attention(original: Any, *args: Any, **kwargs: Any) -> Any:
        """Weighs what is told of events alone like the rest, which is compared with the candidate."""
        if not told:
            return InterestAttention(*args, **kwargs)
        weigh = InterestAttention(*args, return_score=True, **kwargs)

        def interest(inputs: Any) -> Any:
            events = keras.layers.Concatenate()([NoMask()(vectors) for vectors in (inputs[1], *told)])
            return keras.layers.Dot(axes=(2, 1))([weigh(inputs), events])

        return interest

    def with_vectors(original: Any, features: Any, *args: Any, **kwargs: Any) -> Any:
        injected = knowledge.of(features)
        unattended = injected.vectors(attended(features))
        return original(features, *args, **kwargs) + unattended + list(injected.dense)

    steps = {
        "build_input_features": with_keys(keys),
        "embedding_lookup": with_events,
        "AttentionSequencePoolingLayer": attention,
        "get_dense_input": with_vectors,
    }
    return rebuild(from_deepctr, steps)(dnn_feature_columns, history_feature_list, *args, **kwargs)
