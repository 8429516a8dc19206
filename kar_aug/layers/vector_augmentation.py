"""`KnowledgeAugmentation` without a table: knowledge vectors come with each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kar_aug._helpers.keras import keras, serialized, track_weights
from kar_aug.layers import checked
from kar_aug.layers._ops import ops
from kar_aug.layers.adaptor import AdaptorSettings
from kar_aug.layers.given_vectors import GivenVectors
from kar_aug.layers.knowledge_augmentation import (
    KnowledgeAugmentation,
    adaptor_for,
    adaptor_of_config,
    build_adaptor,
    imbalance,
)
from kar_aug.layers.saved_weights import weights_for
from kar_aug.registry import ADAPTORS


@keras.utils.register_keras_serializable(package="kar_aug")
class VectorAugmentation(GivenVectors):
    """Adapts knowledge vectors that come with each row into fields of a CTR model: for more entities than memory holds
    vectors of, in training from disk (`kar_aug.models.join` brings them) and from a feature store in the request path.

    The trained weights are those of a `KnowledgeAugmentation` with the same arguments, in the same order: an adaptor,
    and a default vector a source. An id that is in a batch twice is adapted twice, and counts twice for `load_balance`,
    since no id is known.

    Example:
        >>> layer = VectorAugmentation({"item_id": items})  # a VectorStore, of which nothing is read
        >>> layer({"item_id": vectors, "item_id_known": known})["item_id"].shape  # (64, 384), (64,)
        TensorShape([64, 32])

    Args:
        sources, versions: as `GivenVectors` has them, of knowledge vectors.
        shared_experts, dedicated_experts, expert_units, adaptor, load_balance: as `KnowledgeAugmentation` has them.

    Input shape, output shape:
        As of `GivenVectors`; the width is the adaptor's.
    """

    def __init__(
        self,
        sources: Mapping[str, Any],
        shared_experts: int = 2,
        dedicated_experts: int = 3,
        expert_units: Sequence[int] = (128, 32),
        adaptor: Any = "hybrid-expert",
        load_balance: float = 0.0,
        versions: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super(GivenVectors, self).__init__(**kwargs)  # its default vectors come after the adaptor
        self._take(sources, versions)
        self.shared_experts = checked.whole("shared_experts", shared_experts, least=0)
        self.dedicated_experts = checked.whole("dedicated_experts", dedicated_experts, least=0)
        self.expert_units = checked.wholes("expert_units", expert_units)
        self.adaptor_name = adaptor if isinstance(adaptor, str) else None
        self.load_balance = checked.weight("load_balance", load_balance)
        settings = AdaptorSettings(
            self.sources, shared_experts, dedicated_experts, self.expert_units, kwargs.get("dtype")
        )
        self.adaptor = adaptor_for(adaptor, settings)
        if load_balance:
            self.adaptor.check_gate()
        with ops.name_scope(self.name):
            build_adaptor(self.adaptor, self.name, self.dimensions)
        self._make_defaults()
        track_weights(self)

    @classmethod
    def of(cls, augmentation: KnowledgeAugmentation) -> VectorAugmentation:
        """One with the weights of a layer that has tables, in whose place it reads their vectors."""
        versions = {name: store["version"] for name, store in augmentation.stores.items() if "version" in store}
        layer = cls(
            augmentation.dimensions,
            augmentation.shared_experts,
            augmentation.dedicated_experts,
            augmentation.expert_units,
            augmentation.adaptor_name or augmentation.adaptor.copied(),
            augmentation.load_balance,
            versions,
            name=f"{augmentation.name}_of_vectors",
        )
        layer.adaptor.set_weights(augmentation.adaptor.get_weights())
        for default, trained in zip(layer._defaults, augmentation.defaults.values(), strict=True):
            default.assign(trained)
        return layer

    def width_of(self, name: str) -> int:
        return self.adaptor.width

    def _made_of(self, name: str, vectors: Any, known: Any) -> Any:
        adapted, gate = self.adaptor.adapt(name, vectors)  # (rows, width), (rows, experts)
        if self.load_balance:
            self.add_loss(self.load_balance * imbalance(gate, known))
        return adapted

    def load_own_variables(self, store: Any) -> None:
        """Keras calls this for .keras and .weights.h5 files."""
        super().load_own_variables(weights_for(self, store))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> VectorAugmentation:
        return cls(**{**config, "adaptor": adaptor_of_config(config["adaptor"])})

    def get_config(self) -> dict[str, Any]:
        named = self.adaptor_name in ADAPTORS.names()
        return {
            **super().get_config(),
            "shared_experts": self.shared_experts,
            "dedicated_experts": self.dedicated_experts,
            "expert_units": self.expert_units,
            "adaptor": self.adaptor_name if named else serialized(self.adaptor),
            "load_balance": self.load_balance,
        }
