"""What a backbone is to `compare`, and what an injection brings into it. Nothing here imports TensorFlow.

A model of one's own is compared by writing one function:

    >>> @on_keras("3")
    ... def two_tower(features, settings, augmentation, injection):
    ...     embedded = embed(features, settings)                   # kar_aug.backbones.embed
    ...     knowledge = injection(augmentation, embedded.inputs)   # empty for an arm without knowledge
    ...     read = [*embedded.fields, *embedded.dense, *knowledge.vectors(), *knowledge.dense]
    ...     hidden = keras.layers.Concatenate()(read)
    ...     for units in settings.hidden_units:
    ...         hidden = keras.layers.Dense(units, "relu")(hidden)
    ...     return keras.Model(embedded.inputs, keras.layers.Dense(1, "sigmoid")(hidden))

and naming it in kar.toml: `backbones = ["DeepFM", "my_models:two_tower"]`. Who builds on DeepCTR takes
`kar_aug.backbones.deepctr_columns(features, settings)` instead of `embed`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

if TYPE_CHECKING:
    from kar_aug.data.features import Feature

B = TypeVar("B", bound=Callable[..., Any])


@dataclass(frozen=True)
class Settings:
    """What a model is built with; how it is trained is not its business.

    Args:
        embedding_dim: width of an embedding, and of an augmented vector.
        hidden_units: widths of the deep part. The control "bigger" raises them; a model that has no use for them cannot
            be made bigger.
        dropout: after each of them.
        l2_embedding: weight of the squared embeddings in the loss.
        seed: for what takes a seed of its own. Keras's generator was seeded with it before the model is built.
    """

    embedding_dim: int = 32
    hidden_units: tuple[int, ...] = (128, 64)
    dropout: float = 0.0
    l2_embedding: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class KnownEvents:
    """What is known of the candidate of one source, and of the user's events with it.

    Args:
        candidate: (batch, width).
        vectors: (batch, length, width), of the events in their order.
        mask: (batch, length), 1.0 where there is an event, else 0.0.
        pooled: the events as one vector, or as several, (batch, width) each; for models without an attention.
    """

    candidate: Any
    vectors: Any
    mask: Any
    pooled: Sequence[Any] = ()


@dataclass(frozen=True)
class Injected:
    """What a backbone has to find a place for. All are tensors of the model that is being built.

    Args:
        fields: as wide as embeddings, (batch, width) each.
        dense: values of any width for the deep part, (batch, any) each.
        events: source -> what is known of its candidate and events, which an attention may compare.
    """

    fields: Sequence[Any] = ()
    dense: Sequence[Any] = ()
    events: Mapping[str, KnownEvents] = field(default_factory=dict)

    def vectors(self, attended: Collection[str] = ()) -> list[Any]:
        """All that is as wide as an embedding: the fields, then the pools of the events that no attention reads."""
        pools = [vector for name, known in self.events.items() if name not in attended for vector in known.pooled]
        return [*self.fields, *pools]


class Injection(Protocol):
    """Where and how knowledge enters: `kar_aug.backbones.injections` has one a file."""

    def __call__(self, augmentation: Any, inputs: Mapping[str, Any]) -> Injected:
        """What there is to place.

        Args:
            augmentation: the `KnowledgeAugmentation` of the arm.
            inputs: the model's symbolic inputs by feature, (batch, 1), or (batch, length) for a sequence. What the user
                met before the candidate of one, oldest first and zeros after, is in `events_of` it. All that he met
                before an item, where that is longer, is in "past_item", and what it was worth to him in "past_value".

        Raises:
            ValueError: The model lacks an input that this needs.
        """
        ...


class Backbone(Protocol):
    """A function that `[compare] backbones` names. Models differ between two arms by their arguments alone.

    An attribute `keras`, "2" or "3", says which of Keras's interfaces the model is written for (see `on_keras`);
    without it, it is the one of `[compare] keras`. Layers of one's own must be registered
    (`keras.saving.register_keras_serializable`), as a run's model is saved and exported.
    """

    def __call__(self, features: Sequence[Feature], settings: Settings, augmentation: Any, injection: Injection) -> Any:
        """An uncompiled functional Keras model with one output, the click probability, (batch, 1).

        Args:
            features: what the samples hold. The model's inputs are named after them. Those with `is_key` are there if
                there is an augmentation: it looks up by them, and they have no embedding.
            settings: what to build it with.
            augmentation: the arm's `KnowledgeAugmentation`; None for an arm without knowledge.
            injection: to be called with it and the inputs. An arm without knowledge has `nothing` here, which brings
                nothing, so that a backbone need not ask.
        """
        ...


def events_of(name: str) -> str:
    """The feature that holds the events with what `name` holds the candidate of, as DeepCTR calls it."""
    return "hist_" + name


def key_of(source: str) -> str:
    """The input that holds the ids of a source: of several sources of the same ids, "item" and "item.reviews", the
    same.
    """
    return source.partition(".")[0]


def nothing(augmentation: Any, inputs: Mapping[str, Any]) -> Injected:
    """The injection of an arm without knowledge."""
    return Injected()


def on_keras(version: Literal["2", "3"]) -> Callable[[B], B]:
    """Says which of Keras's interfaces a backbone is written for: "3", or "2" (tf-keras, as DeepCTR is)."""

    def mark(backbone: B) -> B:
        backbone.keras = version  # type: ignore[attr-defined]
        return backbone

    return mark


def keras_of(backbone: Any, otherwise: str) -> str:
    """The interface that a backbone asks for."""
    return str(getattr(getattr(backbone, "func", backbone), "keras", otherwise))  # `func`: a member of a family
