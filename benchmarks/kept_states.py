"""The candidate against kept sums over a user's events, beside a comparison with each: what both tell, and cost.

    python benchmarks/kept_states.py

In two made-up worlds a row is a candidate and up to 50 rated events of a user whom no other row knows, and the model
reads nothing but what an injection makes of them, by text vectors of 64 numbers:

    tastes   what a user likes is a direction in a space of 12 that texts tell of, with noise
    genres   he likes half of 40 genres, and texts are alike within a genre alone

Then requests of 100 candidates of one user are timed, a SavedModel each, at histories of several lengths; and how long
the states of a million events take.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from kar_aug import KnowledgeAugmentation, export
from kar_aug._helpers.keras import keras
from kar_aug.backbones.protocol import key_of
from kar_aug.compare.metrics import auc
from kar_aug.layers import KnowledgeState
from kar_aug.models import UserStates, states_as_inputs
from kar_aug.registry import INJECTIONS

ITEMS, DIMENSION, EVENTS, ROWS, CANDIDATES = 4_000, 64, 50, 20_000, 100
LENGTHS, REQUESTS = (50, 200, 1_000), 200
Worth = Callable[[Any, Any], Any]


def world(name: str, random: Any) -> tuple[Any, Worth]:
    """Text vectors of items, and what (rows, events) items are worth to (rows,) users, drawn anew for each row."""
    if name == "tastes":
        known = random.normal(size=(ITEMS, 12))
        texts = known @ random.normal(size=(12, DIMENSION)) + random.normal(size=(ITEMS, DIMENSION))
        return texts, lambda users, items: np.einsum("rd,red->re", users[:, :12], known[items]) / np.sqrt(12)
    genre = random.integers(0, 40, ITEMS)
    texts = 2 * random.normal(size=(40, DIMENSION))[genre] + random.normal(size=(ITEMS, DIMENSION))
    return texts, lambda users, items: np.sign(np.take_along_axis(users, genre[items], axis=1))


def samples(worth: Worth, random: Any, rows: int = ROWS) -> tuple[dict[str, Any], Any]:
    users, items = random.normal(size=(rows, 40)), random.integers(1, ITEMS, (rows, EVENTS + 1))
    rating = np.clip(np.rint(3 + 1.2 * worth(users, items) + 0.7 * random.normal(size=items.shape)), 1, 5)
    there = np.arange(EVENTS) < random.integers(0, EVENTS + 1, (rows, 1))
    given = {"item": items[:, :1], "past_item": items[:, 1:] * there}
    given = {name: values.astype("int32") for name, values in given.items()}
    return given | {"past_value": (rating[:, 1:] * there).astype("float32")}, (rating[:, 0] >= 4).astype("float32")


def model_of(texts: Any, injection: str, length: int = EVENTS) -> Any:
    inputs = {
        "item": keras.Input((1,), name="item", dtype="int32"),
        "past_item": keras.Input((length,), name="past_item", dtype="int32"),
        "past_value": keras.Input((length,), name="past_value"),
    }
    augmentation = KnowledgeAugmentation({key_of("item"): texts.astype("float32")}, expert_units=(4, 4))
    told = INJECTIONS.load(injection)()(augmentation, inputs).dense
    hidden = keras.layers.Dense(32, "relu")(told[0] if len(told) == 1 else keras.layers.Concatenate()(told))
    return keras.Model(inputs, keras.layers.Dense(1, "sigmoid")(hidden))


def trained(injection: str, name: str, seed: int) -> float:
    """The AUC on users of whom nothing was trained."""
    random = np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)
    texts, worth = world(name, random)
    (rows, label), (further, of_further) = samples(worth, random), samples(worth, random)
    model = model_of(texts, injection)
    model.compile(keras.optimizers.Adam(0.003), "binary_crossentropy")
    model.fit(rows, label, epochs=6, batch_size=256, verbose=0)
    return float(auc(of_further, model.predict(further, batch_size=2_000, verbose=0)[:, 0]))


def milliseconds(model: Any, request: dict[str, Any]) -> float:
    """The median of a request to the model as TensorFlow alone serves it."""
    with tempfile.TemporaryDirectory() as folder:
        served = tf.saved_model.load(str(export(model, f"{folder}/model"))).signatures["serving_default"]
        request, taken = {name: tf.constant(values) for name, values in request.items()}, []
        for _ in range(REQUESTS + 20):
            begun = time.perf_counter()
            served(**request)["ctr"].numpy()
            taken.append(time.perf_counter() - begun)
    return 1_000 * float(np.median(taken[20:]))


def request_times(texts: Any, length: int) -> list[float]:
    random = np.random.default_rng(0)
    shared = {"item": random.integers(1, ITEMS, (CANDIDATES, 1)).astype("int32")}
    events = np.tile(random.integers(1, ITEMS, length), (CANDIDATES, 1)).astype("int32")
    request = shared | {"past_item": events, "past_value": (1 + events % 5).astype("float32")}
    of_events = model_of(texts, "state", length)
    kept = states_as_inputs(of_events)
    layer = next(each for each in kept.layers if isinstance(each, KnowledgeState))
    states = UserStates(layer)
    states.add(["u"] * length, events[0], 1 + events[0] % 5)
    of_states = shared | {"item_state": np.tile(states.of(["u"]), (CANDIDATES, 1))}
    np.testing.assert_allclose(kept(of_states), of_events(request), atol=1e-5)
    return [
        milliseconds(model_of(texts, "similarity", length), request),
        milliseconds(of_events, request),
        milliseconds(kept, of_states),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", choices=["told", "cost"], help="half of it")
    options = parser.parse_args()
    if options.only != "cost":
        print("| injection | tastes, test AUC | genres, test AUC |\n| --- | --- | --- |")
        for injection in ("state", "similarity", "similarity+state"):
            found = [[trained(injection, name, seed) for seed in range(options.seeds)] for name in ("tastes", "genres")]
            print(
                f"| {injection} | {' | '.join(', '.join(f'{each:.4f}' for each in of) for of in found)} |", flush=True
            )
    if options.only == "told":
        return
    texts, _ = world("tastes", np.random.default_rng(0))
    print(f"\n| ms a request, {CANDIDATES} candidates | similarity | state, of events | state, kept |")
    print("| --- | --- | --- | --- |")
    for length in LENGTHS:
        times = " | ".join(f"{each:.2f}" for each in request_times(texts, length))
        print(f"| {length:,} events | {times} |", flush=True)
    random, count = np.random.default_rng(0), 1_000_000
    states, users, items = UserStates(KnowledgeState(texts)), *random.integers(1, ITEMS, (2, count))
    begun = time.perf_counter()
    states.add(users, items, np.ones(count))
    print(f"\n{count:,} events of {len(states.users):,} users summed in {time.perf_counter() - begun:.1f} s")


if __name__ == "__main__":
    main()
