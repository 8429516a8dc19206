"""What a model is written as: a SavedModel as Keras saves it, or what other runtimes read that is made of one."""

from __future__ import annotations

import contextlib
import io
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kar_aug._helpers.formats import FILES, ONNX, TFLITE
from kar_aug._helpers.keras import tf
from kar_aug._helpers.quiet import quiet_stderr
from kar_aug.errors import MissingDependencyError, StoreError
from kar_aug.layers._ops.portable import HASHES, portable
from kar_aug.layers.lookup import keys_of

_OPSET = 18
_HASHED = "StringToHashBucketFast"  # by which TensorFlow looks texts up: see `kar_aug.layers.lookup.keys_of`
# TensorFlow's comparisons, as ONNX calls them.
_ORDERS = {"Less": "Less", "LessEqual": "LessOrEqual", "Greater": "Greater", "GreaterEqual": "GreaterOrEqual"}
_MOST_BYTES = 2**31 - 1  # of a protocol buffer

Serve = Callable[[dict[str, Any]], dict[str, Any]]


def write_onnx(
    serve: Serve, specs: Mapping[str, Any], texts: Sequence[str], layers: Mapping[str, str], folder: Path
) -> Path:
    """Write a function as an ONNX model (opset 18), raw ids and texts among its inputs: of texts, those that are known
    are in a `LabelEncoder` (ai.onnx.ml), which gives each its place.

    Args:
        serve: from inputs by name to outputs by name.
        specs: a `tf.TensorSpec` an input.
        texts: all that may be looked up.
        layers: the model's, name -> class, to say which one ONNX has not.

    Raises:
        MissingDependencyError: tf2onnx or onnx is not installed.
        StoreError: The model has operations that ONNX has not, or more than 2 GB of tables.
    """
    try:
        import onnx
        import tf2onnx
        from tf2onnx.tfonnx import handler
    except ImportError as error:
        raise MissingDependencyError(error.name or "tf2onnx", "onnx") from None
    of_tf2onnx = {name: handler.tf_op.create_mapping(_OPSET, None)[name][0] for name in ("Equal", *_ORDERS)}
    known = sorted(set(texts)) or [""]
    places = [int(key) for key in keys_of(known)]

    def as_labels(context: Any, node: Any, name: str, args: Any) -> None:
        """Texts to what stands for them in sorted tables; -1, which stands for none, of those that are unknown."""
        if node.get_attr_int("num_buckets") != HASHES:
            return  # another's hash, which is told as missing
        shape = context.get_shape(node.output[0])
        labels = {"keys_strings": known, "values_int64s": places, "default_int64": -1}
        encoder = context.make_node(
            "LabelEncoder", [node.input[0]], attr=labels, domain="ai.onnx.ml", dtypes=[onnx.TensorProto.INT64],
            shapes=[shape],
        )  # fmt: skip
        context.replace_all_inputs(node.output[0], encoder.output[0])
        context.remove_node(node.name)

    def as_logarithm(context: Any, node: Any, name: str, args: Any) -> None:
        """The logarithm of one more, which tf2onnx does not know."""
        given, output = node.input[0], node.output[0]
        kind: dict[str, Any] = {"dtypes": [context.get_dtype(output)], "shapes": [context.get_shape(output)]}
        one = context.make_const(f"{name}/one", np.asarray(1, tf2onnx.utils.map_onnx_to_numpy_type(kind["dtypes"][0])))
        more = context.make_node("Add", [given, one.output[0]], **kind)
        logarithm = context.make_node("Log", [more.output[0]], **kind)
        context.replace_all_inputs(output, logarithm.output[0])
        context.remove_node(node.name)

    def as_error_function(context: Any, node: Any, name: str, args: Any) -> None:
        """Of the exact gelu: ONNX has the error function, and not what it lacks to 1."""
        given, output = node.input[0], node.output[0]
        kind: dict[str, Any] = {"dtypes": [context.get_dtype(output)], "shapes": [context.get_shape(output)]}
        one = context.make_const(f"{name}/one", np.asarray(1, tf2onnx.utils.map_onnx_to_numpy_type(kind["dtypes"][0])))
        error = context.make_node("Erf", [given], **kind)
        lacking = context.make_node("Sub", [one.output[0], error.output[0]], **kind)
        context.replace_all_inputs(output, lacking.output[0])
        context.remove_node(node.name)

    def as_count(context: Any, node: Any, name: str, args: Any) -> None:
        """The bucket of a number (`Discretization`): how many of the boundaries it is not below, all of them if it is
        missing.
        """
        given, output = node.input[0], node.output[0]
        edges = np.asarray(node.get_attr("boundaries").floats, np.float32)
        number, flag, count = onnx.TensorProto.DOUBLE, onnx.TensorProto.BOOL, onnx.TensorProto.INT32
        last = context.make_const(f"{name}/last", np.asarray([-1], np.int64)).output[0]
        boundaries = context.make_const(f"{name}/boundaries", edges.astype(np.float64)).output[0]
        numbers = context.make_node("Cast", [given], attr={"to": number}, dtypes=[number])
        apart = context.make_node("Unsqueeze", [numbers.output[0], last], dtypes=[number])
        below = context.make_node("Less", [apart.output[0], boundaries], dtypes=[flag])
        reached = context.make_node("Not", below.output, dtypes=[flag])
        ones = context.make_node("Cast", reached.output, attr={"to": count}, dtypes=[count])
        options: dict[str, Any] = {"attr": {"keepdims": 0}, "dtypes": [count], "shapes": [context.get_shape(output)]}
        bucket = context.make_node("ReduceSum", [ones.output[0], last], **options)
        context.replace_all_inputs(output, bucket.output[0])
        context.remove_node(node.name)

    def as_label(context: Any, node: Any, name: str, args: Any) -> None:
        """Whether texts are a certain one, which tf2onnx would compare as numbers. ONNX compares no two texts: what is
        left to be is told as missing.
        """
        if context.get_dtype(node.input[0]) != onnx.TensorProto.STRING:
            of_tf2onnx["Equal"](context, node)
            return
        constants = [place for place, given in enumerate(node.inputs) if given.is_const()]
        text = list(np.ravel(node.inputs[constants[0]].get_tensor_value(as_list=False))) if constants else []
        if len(text) != 1:
            node.type = f"{node.type}OfTexts"
            return
        is_it = node.type == "Equal"
        labels = {"keys_strings": [_text(text[0])], "values_int64s": [int(is_it)], "default_int64": int(not is_it)}
        output, shape = node.output[0], context.get_shape(node.output[0])
        encoder = context.make_node(
            "LabelEncoder", [node.input[1 - constants[0]]], attr=labels, domain="ai.onnx.ml",
            dtypes=[onnx.TensorProto.INT64], shapes=[shape],
        )  # fmt: skip
        truth = context.make_node(
            "Cast", encoder.output, attr={"to": onnx.TensorProto.BOOL}, dtypes=[onnx.TensorProto.BOOL], shapes=[shape]
        )
        context.replace_all_inputs(output, truth.output[0])
        context.remove_node(node.name)

    def as_choice(context: Any, node: Any, name: str, args: Any) -> None:
        """One or the other. tf2onnx adds up both, times 0 or 1, so that a missing value's NaN would reach all."""
        node.type = "Where"

    def as_order(context: Any, node: Any, name: str, args: Any) -> None:
        """Which of two is less. tf2onnx compares integers as float32, which takes neighbours above 2^24, the keys of
        texts among them, for one another. And it counts the steps of a loop in 64 bits, whose end (of a GRU on Keras 3)
        has 32.
        """
        kind = context.get_dtype(node.input[0])
        if kind in (onnx.TensorProto.INT32, onnx.TensorProto.INT64):
            for given in list(node.input):
                context.insert_new_node_on_input(node, "Cast", given, to=onnx.TensorProto.INT64)
            node.type = _ORDERS[node.type]
        else:
            of_tf2onnx[node.type](context, node)

    def as_sums(context: Any, node: Any, name: str, args: Any) -> None:
        """Sums or means of a table's rows by segment, zeros of a segment without any, as of a user without an event:
        tf2onnx reckons the last segment of all, and fails where no row is asked for.
        """
        (table, rows, segments, count), output = node.input, node.output[0]
        kind, integer = context.get_dtype(output), onnx.TensorProto.INT64
        number = tf2onnx.utils.map_onnx_to_numpy_type(kind)

        def constant(what: str, values: Any, dtype: Any = np.int64) -> Any:
            return context.make_const(f"{name}/{what}", np.asarray(values, dtype)).output[0]

        def made(operation: str, *given: Any, dtype: int = kind, **attributes: Any) -> Any:
            return context.make_node(operation, list(given), attr=attributes, dtypes=[dtype]).output[0]

        def summed(values: Any, width: Any) -> Any:
            size = made("Concat", many, width, dtype=integer, axis=0)
            return made("ScatterND", made("Expand", zero, size), places, values, reduction="add")

        zero, one = (constant(f"number_{value}", value, number) for value in (0, 1))
        many = made("Reshape", made("Cast", count, dtype=integer, to=integer), constant("one_size", [1]), dtype=integer)
        segment = made("Cast", segments, dtype=integer, to=integer)
        places = made("Unsqueeze", segment, constant("last", [-1]), dtype=integer)
        width = made("Shape", table, dtype=integer, start=1)
        result = summed(made("Gather", table, rows), width)
        if "Sum" not in node.type:
            ones = made("Expand", one, made("Shape", places, dtype=integer))
            of_each = made("Max", summed(ones, constant("single", [1])), one)
            result = made("Div", result, made("Sqrt", of_each) if "Sqrt" in node.type else of_each)
        context.replace_all_inputs(output, result)
        context.remove_node(node.name)

    handlers: dict[str, Any] = {
        **{f"SparseSegment{what}WithNumSegments": (as_sums, []) for what in ("Sum", "Mean", "SqrtN")},
        _HASHED: (as_labels, []),
        "Log1p": (as_logarithm, []),
        "Erfc": (as_error_function, []),
        "Bucketize": (as_count, []),
        "SelectV2": (as_choice, []),
        "Equal": (as_label, []),
        "NotEqual": (as_label, []),
        **{order: (as_order, []) for order in _ORDERS},
    }
    function = tf.function(serve)
    with portable(), _said_nothing("tf2onnx"):
        model, _ = tf2onnx.convert.from_function(
            function,
            input_signature=[dict(specs)],
            opset=_OPSET,
            custom_op_handlers=handlers,
        )
        _take_sizes_as_they_are(onnx, model.graph)
        _keep_constants(model, function.get_concrete_function(dict(specs)))  # the one that was converted
    if model.ByteSize() > _MOST_BYTES:
        raise StoreError(
            "The model's tables take more than 2 GB, which no ONNX file holds. Take it apart: kar_aug.models.split."
        )
    missing = {node.op_type: node.name for node in _nodes(model.graph) if not _exists(onnx, node)}
    if missing:
        raise _lacking("ONNX", missing, layers)
    further = {each.name for each in model.graph.input} - set(specs)
    if further:
        raise StoreError(f"The ONNX model would ask for {', '.join(sorted(further))} as well. Export a SavedModel.")
    path = folder / FILES[ONNX]
    path.write_bytes(model.SerializeToString())
    return path


def _keep_constants(model: Any, traced: Any) -> None:
    """Put the tensors into an ONNX model that its layers were called with: tf2onnx takes them for inputs."""
    from onnx import numpy_helper

    captured = {inner.name: outer for outer, inner in traced.graph.captures if outer.dtype != tf.resource}
    for given in [each for each in model.graph.input if each.name in captured]:
        value = captured[given.name]
        values = np.asarray(value.numpy(), object if value.dtype == tf.string else None)
        model.graph.initializer.append(numpy_helper.from_array(values, given.name))
        model.graph.input.remove(given)


def _take_sizes_as_they_are(onnx: Any, graph: Any) -> None:
    """Let a size of 0 that is reckoned when the model runs, as of a history without an event, be none: `Reshape` takes
    it for "as before" unless it is told. Other zeros are tf2onnx's own, and none are reckoned.
    """
    reckoned = {output for node in graph.node if node.op_type == "Cast" for output in node.output}
    for node in graph.node:
        if node.op_type == "Reshape" and node.input[1] in reckoned:
            node.attribute.append(onnx.helper.make_attribute("allowzero", 1))


def _text(value: Any) -> str:
    """Of a constant's, as whatever it is kept."""
    return value.decode() if isinstance(value, bytes) else str(value)


def _nodes(graph: Any) -> list[Any]:
    """All of a graph, those of its loops and branches among them."""
    inner = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    return [*graph.node, *(node for each in inner for node in _nodes(each))]


def _exists(onnx: Any, node: Any) -> bool:
    return bool(onnx.defs.has(node.op_type, node.domain))


def table_of_hashes(texts: Sequence[str]) -> Any:
    """A table from texts to their hashes, -1 for others, such as TFLite has; None where there are none."""
    known = sorted(set(texts))
    if not known:
        return None
    content = tf.lookup.KeyValueTensorInitializer(tf.constant(known), tf.constant(keys_of(known), tf.int64))
    return tf.lookup.StaticHashTable(content, -1)


def write_tflite(saved_model: Path, layers: Mapping[str, str], folder: Path) -> Path:
    """Write a SavedModel that was traced in a `portable` block as a TFLite model, with the same signature.

    Args:
        layers: see `write_onnx`.

    Raises:
        StoreError: The model has operations that TFLite has not.
    """
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    try:
        with contextlib.redirect_stdout(io.StringIO()), quiet_stderr():  # it writes the graph there, from C++ too
            content = converter.convert()
    except Exception as error:  # of many kinds
        said = ((re.search(r"'tf\.(\w+)' op", line), line) for line in str(error).splitlines())
        missing = {name[1]: "/".join(re.findall(r'"([^"@]*)@', line)) for name, line in said if name}
        if missing:
            raise _lacking("TFLite", missing, layers) from error
        raise StoreError(
            f"TFLite has not what the model needs ({type(error).__name__}). Export a SavedModel."
        ) from error
    path = folder / FILES[TFLITE]
    path.write_bytes(content)
    return path


def _lacking(runtime: str, missing: Mapping[str, str], layers: Mapping[str, str]) -> StoreError:
    """The error of operations that a runtime has not, by their nodes' names, "model/layer_1/Node"."""
    said, theirs = [], set()
    for operation, node in sorted(missing.items()):
        # Keras numbers a layer's name anew where it is called again.
        parts = [name for part in node.split("/") for name in (part, re.sub(r"_\d+$", "", part)) if name in layers]
        theirs |= set(parts[-1:])
        said.append(f"{operation} (of layer {parts[-1]!r}, {layers[parts[-1]]})" if parts else operation)
    instead = "Let another layer do what that one does, or do it before the model, or export" if theirs else "Export"
    return StoreError(f"{runtime} has no operations {', '.join(said)}, which the model has. {instead} a SavedModel.")


@contextlib.contextmanager
def _said_nothing(name: str) -> Iterator[None]:
    """Nothing of a library's warnings: what is wrong is told by what it made."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
