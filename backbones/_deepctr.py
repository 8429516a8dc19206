"""DeepCTR, imported quietly, and the one mechanism by which augmented vectors enter its models.

A DeepCTR model is a function that builds a Keras graph out of a few named steps (`get_linear_logit`,
`input_from_feature_columns` ...). `rebuild` runs that very function with some of these names bound to steps of ours,
which call the original and add knowledge. So a backbone without augmentation *is* DeepCTR's model, one with it differs
in exactly the steps listed in its file, and nothing of DeepCTR is copied or patched.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kar_aug._keras import IS_KERAS_3, keras
from kar_aug.errors import ConfigError, MissingDependencyError
from kar_aug.layers import HistoryPooling, KnowledgeAugmentation

if IS_KERAS_3:
    raise ConfigError(
        "DeepCTR 0.9.4 does not work on Keras 3: set the environment variable TF_USE_LEGACY_KERAS=1 before TensorFlow "
        "is imported, and install tf-keras."
    )


def _import_quietly() -> None:
    """Import DeepCTR without the version check by which it starts a thread and calls the network."""
    if "deepctr" in sys.modules:
        return
    silent = types.ModuleType("deepctr.utils")
    silent.check_version = lambda version: None  # type: ignore[attr-defined]
    sys.modules["deepctr.utils"] = silent
    try:
        import deepctr  # noqa: F401
    except ImportError:
        raise MissingDependencyError("deepctr", "online") from None
    finally:
        del sys.modules["deepctr.utils"]  # the real module can still be imported


_import_quietly()


def custom_objects() -> dict[str, Any]:
    """DeepCTR's layers by name, which `keras.models.load_model` must be told."""
    from deepctr.layers import custom_objects as layers

    return dict(layers)


def rebuild(model_function: Callable[..., Any], steps: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    """`model_function` with the named steps that it calls replaced.

    Args:
        steps: name in the function's module -> function of (original step, *arguments of the call).
    """
    scope = dict(model_function.__globals__)
    for name, value in scope.items():  # functions of the same file call the steps too
        if isinstance(value, types.FunctionType) and value.__globals__ is model_function.__globals__:
            scope[name] = _in_scope(value, scope)
    for name, step in steps.items():
        scope[name] = _around(scope[name], step)
    return _in_scope(model_function, scope)


def _in_scope(function: Any, scope: dict[str, Any]) -> Any:
    """`function` with other globals."""
    return types.FunctionType(function.__code__, scope, function.__name__, function.__defaults__, function.__closure__)


def _around(original: Callable[..., Any], step: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return step(original, *args, **kwargs)

    return call


def augmented_vectors(
    augmentation: KnowledgeAugmentation, inputs: Mapping[str, Any], history: Sequence[str] = ()
) -> list[Any]:
    """The augmented vectors of a model's id inputs: one (batch, width) tensor a source, and one more for each source
    in `history`: the mean over the clicked items, whose ids are the input `hist_` + its name."""
    check_history(augmentation, history)
    missing = [name for name in (*augmentation.sources, *map(clicked, history)) if name not in inputs]
    if missing:
        raise ValueError(
            f"There is knowledge of {missing[0]!r}, but the model has no such input. It has: {', '.join(inputs)}"
        )
    ids = {name: inputs[name] for name in augmentation.sources}
    for name in history:
        ids[name] = keras.layers.Concatenate(axis=1)([inputs[name], inputs[clicked(name)]])
    vectors = augmentation(ids)
    pooled = []
    for name in history:
        vectors[name], mean = HistoryPooling()([ids[name], vectors[name]])
        pooled.append(mean)
    return [*vectors.values(), *pooled]


def clicked(name: str) -> str:
    """DeepCTR's name for the history of an id input."""
    return "hist_" + name


def check_history(augmentation: KnowledgeAugmentation, history: Sequence[str], known: Sequence[str] = ()) -> None:
    """Raise ValueError unless there is knowledge of all sources in `history`, and `known`, if any, has them too."""
    for name in history:
        if name not in augmentation.sources or (known and name not in known):
            raise ValueError(f"`history` must name sources that have a history. Received: {name!r}")


def as_fields(vectors: Sequence[Any], embeddings: Sequence[Any]) -> list[Any]:
    """Augmented vectors as further fields beside `embeddings`: (batch, 1, width) each.

    Raises:
        ValueError: They are not as wide as the embeddings, so that they cannot interact with them.
    """
    width, dimension = vectors[0].shape[-1], embeddings[0].shape[-1]
    if width != dimension:
        raise ValueError(
            f"Augmented vectors are {width} wide but the fields' embedding_dim is {dimension}. "
            f"Give the augmentation expert_units=(..., {dimension})."
        )
    return [keras.layers.Reshape((1, width))(vector) for vector in vectors]


def check_choices(name: str, chosen: Sequence[str], known: Sequence[str]) -> None:
    """Raise ValueError unless every chosen word is known and there is at least one."""
    if not chosen or not set(chosen) <= set(known):
        raise ValueError(f"`{name}` must be some of {tuple(known)}. Received: {tuple(chosen)}")
