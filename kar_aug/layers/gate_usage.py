"""What can be watched while a model with knowledge trains."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kar_aug._helpers.keras import keras, tf

if TYPE_CHECKING:
    from kar_aug.layers.knowledge_augmentation import KnowledgeAugmentation


class GateUsage(keras.callbacks.Callback):
    """Writes the mean gate weight of each expert to TensorBoard after every epoch, as gate_usage/<source>/expert_<i>.

    An expert whose line falls to zero is not used; `KnowledgeAugmentation(load_balance=...)` spreads the choice.

    Args:
        augmentation: the layer in the model.
        ids: source name -> the ids to average over: a sample of the data, or the vocabulary.
        log_dir: folder of TensorBoard's event files.

    Raises:
        ValueError: The layer's adaptor has no gate.
    """

    def __init__(self, augmentation: KnowledgeAugmentation, ids: Mapping[str, Any], log_dir: Path | str) -> None:
        super().__init__()
        augmentation.adaptor.check_gate()
        self._augmentation, self._ids, self._log_dir = augmentation, dict(ids), str(log_dir)
        self._writer: Any = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Open the event file."""
        self._writer = tf.summary.create_file_writer(self._log_dir)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Write one point an expert."""
        with self._writer.as_default(step=epoch):
            for source, usage in self._augmentation.gate_usage(self._ids).items():
                for expert, weight in enumerate(usage):
                    tf.summary.write(f"gate_usage/{source}/expert_{expert}", weight, metadata=_scalar_metadata())

    def on_train_end(self, logs: Any = None) -> None:
        """Close the event file."""
        self._writer.close()


def _scalar_metadata() -> Any:
    """What makes TensorBoard draw a value as a curve; `tf.summary.scalar` would need it installed here."""
    metadata = tf.compat.v1.SummaryMetadata()
    metadata.plugin_data.plugin_name = "scalars"
    return metadata
