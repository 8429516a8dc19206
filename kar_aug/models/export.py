"""A trained model as a SavedModel that TensorFlow alone can load and serve."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kar_aug._keras import tf
from kar_aug._version import __version__
from kar_aug.cache.vectors.store import VectorStore
from kar_aug.layers import KnowledgeAugmentation, KnowledgeVectors, PrestoredAugmentation
from kar_aug.models.change import prestore

if TYPE_CHECKING:  # it needs pandas, and what a model of one's own is exported with does not
    from kar_aug.models.preprocessing import Preprocessing

NOTE, ENCODINGS = "kar_aug.json", "encodings.json"
_CTR = "the probability of a click"
_SERVED = (PrestoredAugmentation, KnowledgeVectors)


def export(
    model: Any,
    path: Path | str,
    stores: Mapping[str, VectorStore] | None = None,
    *,
    dtype: str = "float32",
    preprocessing: Preprocessing | None = None,
) -> Path:
    """Write a model with knowledge for serving: augmented vectors prestored, inputs and output by name.

    The signature `serving_default` takes the model's inputs by their names, or the raw columns that `preprocessing`
    makes them of, and returns {"ctr": (batch, 1)}. The file assets.extra/kar_aug.json names the stores' fingerprints
    and describes the raw columns; encodings.json beside it has the vocabularies, buckets and scales that are inside.

    Args:
        model: a model with a `KnowledgeAugmentation`, or one that `prestore` returned, or one whose knowledge is in
            layers that compare frozen vectors (`KnowledgeVectors`) alone; with `preprocessing`, one without any, too.
        path: folder to write; an older export there is replaced once the new one is complete.
        stores: source name -> the vector store its knowledge came from; by default the model says.
        dtype: of the prestored tables, "float32" or "float16".
        preprocessing: what makes the model's inputs of raw ids and values; by default they are taken as they are.
    """
    path = Path(path)
    serving = model if _is_fit_for_serving(model, preprocessing) else prestore(model, dtype=dtype)
    module = _module(serving, preprocessing)
    note: dict[str, Any] = {"kar_aug": __version__, "stores": _fingerprints(serving, stores or {})}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        with contextlib.redirect_stdout(io.StringIO()):
            tf.saved_model.save(module, folder, signatures={"serving_default": module.serve})
        extra = Path(folder) / "assets.extra"
        extra.mkdir(exist_ok=True)
        if preprocessing is not None:
            note["inputs"] = [raw.as_dict() for raw in preprocessing.inputs]
            note["outputs"] = [{"name": "ctr", "dtype": "float32", "shape": ["rows", 1], "meaning": _CTR}]
            known = {name: encoding.as_dict() for name, encoding in preprocessing.encodings.items()}
            (extra / ENCODINGS).write_text(json.dumps(known), encoding="utf-8")
        (extra / NOTE).write_text(json.dumps(note, indent=1), encoding="utf-8")
        if path.exists():
            shutil.rmtree(path)
        shutil.copytree(folder, path)
    return path


def _is_fit_for_serving(model: Any, preprocessing: Preprocessing | None) -> bool:
    """Whether no experts are left in a model, but tables. One without knowledge is there for what goes before it."""
    if any(isinstance(layer, KnowledgeAugmentation) for layer in model.layers):
        return False
    return preprocessing is not None or any(isinstance(layer, _SERVED) for layer in model.layers)


def _module(serving: Any, preprocessing: Preprocessing | None) -> Any:
    """What is saved: the function that serves, and all that it looks up."""
    if preprocessing is None:
        names = {_name(tensor): tensor for tensor in serving.inputs}
        specs = {name: tf.TensorSpec(tensor.shape, tensor.dtype, name) for name, tensor in names.items()}
    else:
        specs = {raw.name: raw.spec for raw in preprocessing.inputs}

    @tf.function(input_signature=[specs])
    def serve(features: dict[str, Any]) -> dict[str, Any]:
        read = features if preprocessing is None else preprocessing(features)
        inputs = tf.nest.map_structure(lambda tensor: read[_name(tensor)], serving.input)
        return {"ctr": serving(inputs, training=False)}

    module = tf.Module()
    module.variables_of_model = serving.weights
    module.preprocessing = [] if preprocessing is None else preprocessing.tracked
    module.serve = serve
    return module


def _fingerprints(serving: Any, stores: Mapping[str, VectorStore]) -> dict[str, str]:
    return {name: store.fingerprint for name, store in stores.items()} or {
        name: store["fingerprint"]
        for layer in serving.layers
        if isinstance(layer, _SERVED)
        for name, store in layer.stores.items()
    }


def _name(tensor: Any) -> str:
    """Of a model's input."""
    return str(tensor.name).split(":")[0]
