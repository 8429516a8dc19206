"""A trained model as a SavedModel that TensorFlow alone can load and serve."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kar_aug._keras import tf
from kar_aug._version import __version__
from kar_aug.cache.vectors.store import VectorStore
from kar_aug.layers import PrestoredAugmentation
from kar_aug.models.change import prestore

NOTE = "kar_aug.json"


def export(
    model: Any,
    path: Path | str,
    stores: Mapping[str, VectorStore] | None = None,
    *,
    dtype: str = "float32",
) -> Path:
    """Write a model with knowledge for serving: augmented vectors prestored, inputs and output by name.

    The signature `serving_default` takes the model's inputs by their names and returns {"ctr": (batch, 1)}. The file
    assets.extra/kar_aug.json names the stores' fingerprints.

    Args:
        model: a model with a `KnowledgeAugmentation`, or one that `prestore` returned.
        path: folder to write; an older export there is replaced once the new one is complete.
        stores: source name -> the vector store its knowledge came from; by default the model says.
        dtype: of the prestored tables, "float32" or "float16".
    """
    path = Path(path)
    prestored = any(isinstance(layer, PrestoredAugmentation) for layer in model.layers)
    serving = model if prestored else prestore(model, dtype=dtype)
    fingerprints = {name: store.fingerprint for name, store in (stores or {}).items()} or {
        name: store["fingerprint"]
        for layer in serving.layers
        if isinstance(layer, PrestoredAugmentation)
        for name, store in layer.stores.items()
    }
    specs = {_name(tensor): tf.TensorSpec(tensor.shape, tensor.dtype, name=_name(tensor)) for tensor in serving.inputs}

    @tf.function(input_signature=[specs])
    def serve(features: dict[str, Any]) -> dict[str, Any]:
        inputs = tf.nest.map_structure(lambda tensor: features[_name(tensor)], serving.input)
        return {"ctr": serving(inputs, training=False)}

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        module = tf.Module()
        module.variables_of_model = serving.weights
        module.serve = serve
        with contextlib.redirect_stdout(io.StringIO()):
            tf.saved_model.save(module, folder, signatures={"serving_default": serve})
        extra = Path(folder) / "assets.extra"
        extra.mkdir(exist_ok=True)
        note = {
            "kar_aug": __version__,
            "stores": fingerprints,
        }
        (extra / NOTE).write_text(json.dumps(note, indent=1), encoding="utf-8")
        if path.exists():
            shutil.rmtree(path)
        shutil.copytree(folder, path)
    return path


def _name(tensor: Any) -> str:
    """Of a model's input."""
    return str(tensor.name).split(":")[0]
