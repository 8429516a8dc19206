"""A trained model as a SavedModel that TensorFlow alone can load and serve, or as ONNX or TFLite."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kar_aug._helpers.formats import ENCODINGS, EXTRA, FORMATS, NOTE, ONNX, SAVED_MODEL, TFLITE, folder_for_model
from kar_aug._helpers.keras import is_ragged, keras, tf
from kar_aug._version import __version__
from kar_aug.cache.vectors.store import VectorStore
from kar_aug.errors import StoreError
from kar_aug.layers import (
    GivenVectors,
    KnowledgeAugmentation,
    KnowledgeCodes,
    KnowledgeVectors,
    PrestoredAugmentation,
)
from kar_aug.layers._ops.portable import portable
from kar_aug.models.change import prestore
from kar_aug.models.find import check_model, knowledge_layers
from kar_aug.models.formats import Serve, table_of_hashes, write_onnx, write_tflite
from kar_aug.models.graph import input_name
from kar_aug.models.portable_tables import tables_by_places
from kar_aug.models.texts import texts_of
from kar_aug.models.versions import learnt_by

if TYPE_CHECKING:  # it needs pandas, and what a model of one's own is exported with does not
    from kar_aug.models.preprocessing import Preprocessing

_LENGTHS = "_lengths"  # of the rows of a ragged input
_ONE, _CTR = "ctr", "the probability of a click"
_AS_A_LAYER = (
    "Call it with its inputs, and export that: inputs = {'item_id': keras.Input((1,), name='item_id', dtype='int32'), "
    "...}; keras.Model(inputs, model(inputs))"
)
_OF_VECTORS = (PrestoredAugmentation, KnowledgeVectors, GivenVectors)
_SERVED = (*_OF_VECTORS, KnowledgeCodes)
_TOO_SHORT = {ONNX: ("bfloat16",), TFLITE: ("bfloat16", "float16")}  # floats that a runtime does not compute in


def export(
    model: Any,
    path: Path | str,
    stores: Mapping[str, VectorStore] | None = None,
    *,
    dtype: str = "float32",
    preprocessing: Preprocessing | None = None,
    format: str = SAVED_MODEL,  # noqa: A002 - what the command calls it
) -> Path:
    """Write a model with knowledge for serving: augmented vectors prestored, inputs and output by name.

    The signature `serving_default` takes the model's inputs by their names, or the raw columns that `preprocessing`
    makes them of, and returns its outputs by theirs: the keys of a dictionary of outputs, or else the names of the
    layers that they come from. The output of a model with one, which is no dictionary, is "ctr", whatever its layer is
    called. A ragged input is two there: {name}, the values of all rows one after another, and {name}_lengths, how
    many each row has. A sparse input comes dense, and one that is optional to the model is not: it must come. The
    file assets.extra/kar_aug.json names the stores' fingerprints and versions, and describes the raw columns;
    encodings.json beside it has the vocabularies, buckets and scales that are inside.

    Args:
        model: a model with a `KnowledgeAugmentation`, or one that `prestore` returned, or one whose knowledge is in
            layers that compare frozen vectors (`KnowledgeVectors`) or look codes up (`KnowledgeCodes`) alone; with
            `preprocessing`, one without any, too.
        path: folder to write; an older export there is replaced once the new one is complete, and nothing else is.
        stores: source name -> the vector store its knowledge came from; by default the model says. "onnx" and "tflite"
            need those of sources whose ids are texts.
        dtype: of the prestored tables, "float32" or "float16".
        preprocessing: what makes the model's inputs of raw ids and values; by default they are taken as they are.
        format: "savedmodel"; "onnx", the file model.onnx in the folder, which takes raw ids and texts likewise (its
            names of ids come from the stores); or "tflite", model.tflite there. The notes are beside the file then.
            Both answer as Keras does, to rounding.

    Raises:
        ValueError: There is no such format; or the model is not functional, so that nobody knows its inputs: the
            message says what to make of it.
        MissingDependencyError: For "onnx", tf2onnx is not installed.
        ConfigError: `path` is no path.
        StoreError: The format has no room, or no operation, for what is in the model, no ragged inputs, or not the
            floats of half the width that a layer computes in; or a store does not have all texts that it needs; or
            `path` cannot be written to, or is a folder of something else.
    """
    check_model(model, "export")
    if format not in FORMATS:
        raise ValueError(f"`format` must be one of {', '.join(FORMATS)}. Received: {format!r}")
    target = folder_for_model(path)
    serving = model if _is_fit_for_serving(model, preprocessing) else prestore(model, dtype=dtype)
    check_model(serving, "export", instead=_AS_A_LAYER)
    ragged = [input_name(tensor) for tensor in serving.inputs if is_ragged(tensor)]
    if ragged and format != SAVED_MODEL:
        raise StoreError(
            f"{format} has no ragged inputs, as {ragged[0]!r} is. Let the model read padded rows, or export a "
            "SavedModel."
        )
    _check_floats(serving, format)
    note: dict[str, Any] = {
        "kar_aug": __version__,
        "stores": _fingerprints(serving, stores or {}),
        "versions": _versions(serving, stores or {}),
        "codes": {
            name: version
            for layer in knowledge_layers(serving, (KnowledgeCodes,))
            for name, version in learnt_by(layer).items()
        },
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    serve, specs = _serving(serving, preprocessing)
    layers = {layer.name: type(layer).__name__ for layer in knowledge_layers(serving, (keras.layers.Layer,))}
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        folder = Path(temporary) / "new"  # of the rights that new folders have: a temporary one is its owner's
        folder.mkdir()
        extra = folder / EXTRA if format == SAVED_MODEL else folder
        if format == SAVED_MODEL:
            _save(serving, preprocessing, serve, specs, folder)
        elif format == TFLITE:
            with tables_by_places(serving) as texts, tempfile.TemporaryDirectory() as beside:
                hashed = table_of_hashes([*texts, *_texts(serving, stores or {}, preprocessing)])
                with portable(hashed, doubles=False):
                    _save(serving, preprocessing, serve, specs, Path(beside), [hashed] if hashed else [])
                write_tflite(Path(beside), layers, folder)
        else:
            with tables_by_places(serving) as texts:
                write_onnx(serve, specs, [*texts, *_texts(serving, stores or {}, preprocessing)], layers, folder)
        extra.mkdir(exist_ok=True)
        if preprocessing is not None:
            note["inputs"] = [raw.as_dict() for raw in preprocessing.inputs]
            note["outputs"] = preprocessing.outputs or [
                {"name": name, "dtype": "float32", "shape": ["rows", 1], "meaning": _CTR if name == _ONE else ""}
                for name in _named(serving, serving.output)
            ]
            known = {name: encoding.as_dict() for name, encoding in preprocessing.encodings.items()}
            (extra / ENCODINGS).write_text(json.dumps(known), encoding="utf-8")
        (extra / NOTE).write_text(json.dumps(note, indent=1), encoding="utf-8")
        folder_for_model(target)  # it took a while
        if target.exists():
            target.rename(Path(temporary) / "former")
        folder.rename(target)
    return Path(path)


def _check_floats(serving: Any, kind: str) -> None:
    """Raise StoreError if a layer computes in floats that a format's runtime does not know."""
    for layer in knowledge_layers(serving, (keras.layers.Layer,)):
        computes = not isinstance(layer, keras.layers.InputLayer)  # which has a policy, too
        if computes and layer.compute_dtype in _TOO_SHORT.get(kind, ()):
            raise StoreError(
                f"{kind} does not compute in {layer.compute_dtype}, as layer {layer.name!r} ({type(layer).__name__}) "
                "does. Build the model under the policy float32, which has the same weights, give it these, "
                "set_weights(trained.get_weights()), and export that; or export a SavedModel."
            )


def _is_fit_for_serving(model: Any, preprocessing: Preprocessing | None) -> bool:
    """Whether no experts are left in a model, but tables. One without knowledge is there for what goes before it."""
    if knowledge_layers(model, (KnowledgeAugmentation,)):
        return False
    return preprocessing is not None or bool(knowledge_layers(model, _SERVED))


def _serving(serving: Any, preprocessing: Preprocessing | None) -> tuple[Serve, dict[str, Any]]:
    """The function that serves, from inputs by name to outputs by name, and what its inputs are."""
    if preprocessing is None:
        specs = {name: spec for tensor in serving.inputs for name, spec in _specs_of(tensor).items()}
    else:
        specs = {raw.name: raw.spec for raw in preprocessing.inputs}

    def serve(features: dict[str, Any]) -> dict[str, Any]:
        read = features if preprocessing is None else preprocessing(features)
        inputs = tf.nest.map_structure(lambda tensor: _read(tensor, read), serving.input)
        named = _named(serving, serving(inputs, training=False))
        return named if preprocessing is None else dict(preprocessing.served(features, named))

    return serve, specs


def _specs_of(tensor: Any) -> dict[str, Any]:
    """What comes of a model's input, by name: signatures have dense tensors alone."""
    name = input_name(tensor)
    if not is_ragged(tensor):
        return {name: tf.TensorSpec(tensor.shape, tensor.dtype, name)}
    values = tf.TensorSpec((None, *tensor.shape[2:]), tensor.dtype, name)
    return {name: values, name + _LENGTHS: tf.TensorSpec((None,), "int64", name + _LENGTHS)}


def _read(tensor: Any, given: Mapping[str, Any]) -> Any:
    """A model's input of what came."""
    name = input_name(tensor)
    if not is_ragged(tensor):
        return given[name]
    return tf.RaggedTensor.from_row_lengths(given[name], given[name + _LENGTHS])


def _save(
    serving: Any, preprocessing: Preprocessing | None, serve: Serve, specs: Mapping[str, Any], folder: Path,
    further: Sequence[Any] = (),
) -> None:  # fmt: skip
    """Write a SavedModel, as Keras saves it: the function that serves, and all that it looks up."""
    archive = keras.export.ExportArchive()
    for each in [serving, *([] if preprocessing is None else preprocessing.tracked), *further]:
        archive.track(each)
    archive.add_endpoint("serve", serve, [dict(specs)])
    with contextlib.redirect_stdout(io.StringIO()):
        archive.write_out(str(folder))


def _texts(serving: Any, stores: Mapping[str, VectorStore], preprocessing: Preprocessing | None) -> list[str]:
    """All texts that are looked up."""
    return [*([] if preprocessing is None else preprocessing.texts), *texts_of(serving, stores)]


def _named(model: Any, outputs: Any) -> dict[str, Any]:
    """Outputs of a model by name."""
    if isinstance(outputs, dict) and not any(tf.nest.is_nested(output) for output in outputs.values()):
        return dict(outputs)
    flat = tf.nest.flatten(outputs)
    if len(flat) == 1:
        return {_ONE: flat[0]}
    seen: Counter[str] = Counter()  # one layer may give several outputs
    named = {}
    for name, output in zip(model.output_names, flat, strict=True):
        named[f"{name}_{seen[name]}" if seen[name] else name] = output
        seen[name] += 1
    return named


def _versions(serving: Any, stores: Mapping[str, VectorStore]) -> dict[str, str]:
    """Of the knowledge that the model learnt to read, as far as its file says."""
    layers = knowledge_layers(serving, _OF_VECTORS)
    said = {name: version for layer in layers for name, version in learnt_by(layer).items()}
    return {**said, **{name: store.version for name, store in stores.items()}}


def _fingerprints(serving: Any, stores: Mapping[str, VectorStore]) -> dict[str, str]:
    return {name: store.fingerprint for name, store in stores.items()} or {
        name: store["fingerprint"]
        for layer in knowledge_layers(serving, _OF_VECTORS)
        for name, store in layer.stores.items()
        if "fingerprint" in store
    }
