"""DeepCTR, imported quietly, and the one mechanism by which knowledge enters its models.

A DeepCTR model is a function that builds a Keras graph out of a few named steps (`get_linear_logit`,
`input_from_feature_columns` ...). `rebuild` runs that very function with some of these names bound to steps of ours,
which call the original and add knowledge. So a backbone without augmentation *is* DeepCTR's model, one with it differs
in exactly the steps listed in its file, and nothing of DeepCTR is copied or patched.

Knowledge has three places in a model: "linear", a linear term of it; "dense", values of the deep part; "fields", fields
beside the embeddings, which need vectors as wide as these.
"""

from __future__ import annotations

import logging
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from kar_aug._helpers.keras import IS_KERAS_3, keep_as_written, keras, tensors_behind
from kar_aug.backbones.embedding import key_input
from kar_aug.backbones.protocol import Injected, Injection, Settings, events_of
from kar_aug.data.features import Feature
from kar_aug.errors import ConfigError, MissingDependencyError
from kar_aug.registry import INJECTIONS

PLACES = ("linear", "dense", "fields")
_FORMER_PLACES = {"dnn": "dense", "fm": "fields"}
_log = logging.getLogger("kar_aug")


def deepctr_models() -> Any:
    """The module `deepctr.models`, imported without the check of its version, which starts a thread that calls the
    network.

    Raises:
        ConfigError: This process runs Keras 3.
        MissingDependencyError: DeepCTR is not installed.
    """
    if IS_KERAS_3:
        raise ConfigError(
            "DeepCTR 0.9.4 does not work on Keras 3: set the environment variable TF_USE_LEGACY_KERAS=1 before "
            "TensorFlow is imported, and install tf-keras."
        )
    if "deepctr" not in sys.modules:
        silent = types.ModuleType("deepctr.utils")
        silent.check_version = lambda version: None  # type: ignore[attr-defined]
        sys.modules["deepctr.utils"] = silent
        try:
            import deepctr
        except ImportError:
            raise MissingDependencyError("deepctr", "online") from None
        finally:
            del sys.modules["deepctr.utils"]  # the real module can still be imported
        keep_as_written("deepctr")
    import deepctr.models

    return deepctr.models


def deepctr_columns(features: Sequence[Feature], settings: Settings, *, numbers: bool = True) -> list[Any]:
    """The features as DeepCTR's columns. Here, and nowhere else, a `Feature` becomes one.

    Args:
        numbers: whether those that are numbers are among them: not every part of every model takes them.
    """
    deepctr_models()
    read = [feature for feature in features if not feature.is_key and (numbers or not feature.is_number)]
    return [_column(feature, settings.embedding_dim, settings.seed + i) for i, feature in enumerate(read)]


def _column(feature: Feature, embedding_dim: int, seed: int) -> Any:
    from deepctr.feature_column import DenseFeat, SparseFeat, VarLenSparseFeat

    if feature.is_number:
        return DenseFeat(feature.name, 1)
    column = SparseFeat(
        feature.name,
        feature.vocabulary_size,
        embedding_dim,
        embedding_name=feature.embedding or feature.name,
        embeddings_initializer=keras.initializers.RandomNormal(0.0, 0.0001, seed=seed),  # DeepCTR's, but for the seed
    )
    if feature.length is None:
        return column
    if feature.values == 1:
        return VarLenSparseFeat(column, maxlen=feature.length, combiner="mean")
    several = _several_values()(column, maxlen=feature.length, combiner="mean")
    several.values = feature.values
    return several


@cache
def _several_values() -> Any:
    """DeepCTR's column of a sequence, of events that have `values` values each."""
    from deepctr.feature_column import VarLenSparseFeat

    return type("SeveralValues", (VarLenSparseFeat,), {"values": 1})


def with_events(features: Sequence[Feature]) -> list[str]:
    """What is told of earlier events and of the candidate too: what DeepCTR calls its `history_feature_list`."""
    single = [feature.name for feature in features if feature.length is None]
    told = [feature.name for feature in features if feature.length is not None]
    return [name for name in single if events_of(name) in told]


def told_of_events(features: Sequence[Feature]) -> list[str]:
    """What is told of earlier events, be it told of the candidate or not."""
    return [f.name.removeprefix(events_of("")) for f in features if f.name.startswith(events_of("")) and not f.is_key]


def options(settings: Settings) -> dict[str, Any]:
    """The settings as most of DeepCTR's models call them."""
    return {
        "dnn_hidden_units": settings.hidden_units,
        "dnn_dropout": settings.dropout,
        "l2_reg_embedding": settings.l2_embedding,
        "seed": settings.seed,
    }


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


def with_keys(features: Sequence[Feature]) -> Callable[..., Any]:
    """The step `build_input_features`: the model has inputs for the keys among some features, too."""

    def step(original: Any, *args: Any, **kwargs: Any) -> Any:
        inputs = original(*args, **kwargs)
        for key in (feature for feature in features if feature.is_key):
            inputs[key.name] = key_input(key)
        return inputs

    return step


class Knowledge:
    """What an injection brings into one model, made once its inputs are there.

    Args:
        injection: by name, or itself.
        history: former way to say which sources' events count: `injection=Events(history)`.
    """

    def __init__(self, augmentation: Any, injection: Injection | str, history: Sequence[str] = ()) -> None:
        if history:
            _log.warning("history=%s is called injection=Events(%s) now.", list(history), list(history))
            injection = INJECTIONS.load("events")(history)
        self._augmentation = augmentation
        self._injection: Injection = INJECTIONS.load(injection)() if isinstance(injection, str) else injection
        self._injected: Injected | None = None

    def of(self, inputs: Mapping[str, Any]) -> Injected:
        """For a model with these inputs; every step of its function asks for the same."""
        if self._injected is None:
            self._injected = self._injection(self._augmentation, inputs)
        return self._injected

    def is_read_by(self, model: Any) -> bool:
        """Whether anything of it is on the way to the model's outputs."""
        injected, used = self._injected or Injected(), tensors_behind(model.outputs)
        return any(id(tensor) in used for tensor in (*injected.vectors(), *injected.dense))


def as_fields(vectors: Sequence[Any], embeddings: Sequence[Any]) -> list[Any]:
    """Augmented vectors as further fields beside `embeddings`: (batch, 1, width) each.

    Raises:
        ValueError: They are not as wide as the embeddings, so that they cannot interact with them.
    """
    dimension = embeddings[0].shape[-1]
    for width in (vector.shape[-1] for vector in vectors):
        if width != dimension:
            raise ValueError(
                f"Augmented vectors are {width} wide but the fields' embedding_dim is {dimension}. "
                f"Give the augmentation expert_units=(..., {dimension})."
            )
    return [keras.layers.Reshape((1, dimension))(vector) for vector in vectors]


def places(inject: Sequence[str]) -> tuple[str, ...]:
    """Places in today's words.

    Raises:
        ValueError: There is none, or no such place.
    """
    for former in [place for place in inject if place in _FORMER_PLACES]:
        _log.warning("inject: %r is called %r now.", former, _FORMER_PLACES[former])
    named = tuple(_FORMER_PLACES.get(place, place) for place in inject)
    if not named or not set(named) <= set(PLACES):
        raise ValueError(f"`inject` must be some of {PLACES}. Received: {tuple(inject)}")
    return named
