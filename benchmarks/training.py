"""What knowledge costs in training and serving: samples a second, side by side in one run.

    TF_USE_LEGACY_KERAS=1 python benchmarks/training.py        the whole table, half an hour on two cores
    TF_USE_LEGACY_KERAS=1 python benchmarks/training.py --backbones DeepFM --dimensions 384 --batch-sizes 4096
    TF_USE_LEGACY_KERAS=1 python benchmarks/training.py --injections     what each injection costs, and no more

Ids are those of a MovieLens-1M (6,040 users, 3,706 items), drawn with its skew of activity and popularity; vectors are
random. Six models take turns at the same batches:

    plain         the backbone as DeepCTR has it
    naive         vectors joined to each row by tf.data before batching; each expert and gate a Dense layer
    naive batch   the same model, vectors joined batch by batch: the kindest form of it
    layer         KnowledgeAugmentation
    bfloat16      the same, its products in bfloat16: KnowledgeAugmentation(..., dtype="mixed_bfloat16")
    prestored     prestore(layer), inference only

A training step is measured whole, with its tf.data input. Ratios are of medians. The last table sets the adaptor,
forward and backward, against the matrix products that its first layer cannot do without.

With --injections (and names: of these alone) the backbone reads 50 events and their ratings, as a strong base does, and
each injection brings the knowledge of items in its way, "similarity" and its like by the same 50 events (--past: by so
many). Training and serving read rows of as many users; a request asks for candidates of one (--candidates), in
milliseconds.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import platform
from collections import OrderedDict
from collections.abc import Iterator
from functools import partial
from typing import Any
from unittest import mock

import deepctr.models
import numpy as np
import tensorflow as tf
from deepctr.feature_column import SparseFeat, VarLenSparseFeat
from skewed import take_turns

from kar_aug import KnowledgeAugmentation, backbones, prestore
from kar_aug._helpers.keras import keras
from kar_aug.backbones import Settings
from kar_aug.backbones.protocol import nothing
from kar_aug.data.features import Feature
from kar_aug.layers import HybridExpertAdaptor
from kar_aug.registry import BACKBONES, INJECTIONS

USERS, ITEMS, WIDTH, HISTORY = 6040, 3706, 32, 20
SIZES = {"user_id": USERS, "item_id": ITEMS, "gender": 3, "age": 8, "occupation": 22, "genre": 19}
SOURCES = ("user_id", "item_id")
ROWS = 100_000


class Naive:
    """Vectors as inputs of the model, one an example; experts and gates as separate Dense layers."""

    def __init__(self, dimension: int) -> None:
        self.sources, self.width = list(SOURCES), WIDTH
        self.inputs = {f"{s}_vector": keras.Input((dimension,), name=f"{s}_vector") for s in SOURCES}
        shared = [self._expert() for _ in range(2)]
        self.experts = {s: shared + [self._expert() for _ in range(3)] for s in SOURCES}
        self.gates = {s: keras.layers.Dense(5, "softmax") for s in SOURCES}

    @staticmethod
    def _expert() -> Any:
        return keras.Sequential([keras.layers.Dense(128, "relu"), keras.layers.Dense(WIDTH, "relu")])

    def __call__(self, ids: dict[str, Any]) -> dict[str, Any]:
        fields = {}
        for source in ids:
            vector = self.inputs[f"{source}_vector"]
            outputs = keras.layers.Lambda(lambda e: tf.stack(e, axis=1))([e(vector) for e in self.experts[source]])
            gate = keras.layers.Reshape((1, 5))(self.gates[source](vector))
            fields[source] = keras.layers.Flatten()(keras.layers.Dot((2, 1))([gate, outputs]))
        return fields


def build(backbone: str, augmentation: Any = None) -> Any:
    columns = [SparseFeat(name, size, WIDTH) for name, size in SIZES.items()]
    history = SparseFeat("hist_item_id", ITEMS, WIDTH, embedding_name="item_id")
    columns.append(VarLenSparseFeat(history, maxlen=HISTORY, combiner="mean"))
    arguments = [columns, ["item_id"]] if backbone == "DIN" else [columns, columns]
    scope = getattr(deepctr.models, backbone).__globals__
    own = scope["build_input_features"]
    further = augmentation.inputs if isinstance(augmentation, Naive) else {}
    with mock.patch.dict(scope, build_input_features=lambda c: OrderedDict([*own(c).items(), *further.items()])):
        model = getattr(backbones, backbone)(*arguments, augmentation=augmentation)
    model.compile("adam", "binary_crossentropy")
    return model


def samples(random: np.random.Generator) -> dict[str, Any]:
    """Rows whose users' activity is log-normal, as MovieLens's is, and whose items' popularity follows Zipf."""
    activity = random.lognormal(0, 1.1, USERS)
    popularity = 1 / (np.arange(ITEMS) + 30)
    rows = {name: random.integers(0, size, ROWS) for name, size in SIZES.items()}
    rows["user_id"] = random.choice(USERS, ROWS, p=activity / activity.sum())
    rows["item_id"] = random.choice(ITEMS, ROWS, p=popularity / popularity.sum())
    rows["hist_item_id"] = random.choice(ITEMS, (ROWS, HISTORY), p=popularity / popularity.sum())
    return {name: values.astype("int32") for name, values in rows.items()}


def batches(rows: dict[str, Any], batch_size: int, vectors: dict[str, Any] | None, by_row: bool) -> Iterator[Any]:
    """Endless shuffled batches of (inputs, label)."""
    rows = {name: tf.constant(values) for name, values in rows.items()}
    label = tf.cast(rows["gender"] % 2, "float32")

    def gather(at: Any) -> Any:
        inputs = {name: tf.gather(values, at) for name, values in rows.items()}
        for source, table in (vectors or {}).items():
            inputs[f"{source}_vector"] = tf.gather(table, inputs[source])
        return inputs, tf.gather(label, at)

    numbers = tf.data.Dataset.range(ROWS).repeat().shuffle(ROWS, seed=0)
    joined = numbers.map(gather).batch(batch_size) if by_row else numbers.batch(batch_size).map(gather)
    return iter(joined.prefetch(2))


def by_injection(
    backbone: str,
    dimension: int,
    batch_size: int,
    past: int,
    candidates: int,
    seconds: float,
    chosen_alone: list[str] | None = None,
) -> None:
    """Print a row an injection: its training and its serving beside those of the plain backbone."""
    random, history = np.random.default_rng(0), 50
    features = [Feature(name, size) for name, size in SIZES.items()]
    features.append(Feature("hist_item_id", ITEMS, length=history, embedding="item_id", sequence="hist"))
    features.append(Feature("hist_rating", 7, length=history, sequence="hist"))
    keys = {"item": Feature("item", ITEMS, is_key=True)}
    keys["hist_item"] = Feature("hist_item", ITEMS, length=history, is_key=True)
    of_past = {"past_item": ITEMS, "past_value": 0}
    keys |= {name: Feature(name, size, length=past, is_key=True) for name, size in of_past.items()}
    popularity = 1 / (np.arange(ITEMS) + 30)
    rows = samples(random)
    for name in ("hist_item_id", "past_item"):
        length = past if name == "past_item" else history
        events = random.choice(ITEMS, (ROWS, length), p=popularity / popularity.sum())
        rows[name] = (events * (np.arange(length) < random.geometric(1 / length, (ROWS, 1)))).astype("int32")
    rows |= {"item": rows["item_id"], "hist_item": rows["hist_item_id"]}
    rows["hist_rating"] = (rows["hist_item_id"] > 0) * random.integers(2, 7, (ROWS, history), "int32")
    rows["past_value"] = (rows["past_item"] > 0) * random.integers(1, 6, (ROWS, past)).astype("float32")
    wanted: dict[str, tuple[str, ...]] = {"plain": (), "fields": ("item",), "events": ("item", "hist_item")}
    wanted |= dict.fromkeys(["similarity", "state", "attention", "retrieval"], ("item", "past_item", "past_value"))
    if chosen_alone is not None:
        wanted = {name: wanted[name] for name in ("plain", *chosen_alone)}
    train, predict, ask = {}, {}, {}
    for name, chosen in wanted.items():
        table = random.normal(size=(ITEMS, dimension)).astype("float16")
        augmentation = None if name == "plain" else KnowledgeAugmentation({"item": table})
        injection = nothing if augmentation is None else INJECTIONS.load(name)()
        read = [*features, *(keys[key] for key in chosen)]
        model = BACKBONES.load(backbone)(read, Settings(embedding_dim=WIDTH), augmentation, injection)
        model.compile("adam", "binary_crossentropy")
        some = {feature.name: rows[feature.name] for feature in read}
        train[name] = partial(model.make_train_function(), batches(some, batch_size, None, False))
        served = prestore(model) if augmentation in model.layers else model
        function = tf.function(served)
        inputs = {key: tf.constant(values[:batch_size]) for key, values in some.items()}
        predict[name] = partial(function, inputs, training=False)
        ask[name] = partial(function, of_one_user(some, candidates), training=False)
    trained, served, asked = take_turns(train, seconds), take_turns(predict, seconds / 2), take_turns(ask, seconds / 2)
    for name in wanted:
        cells = [f"{batch_size / times[name] / 1e3:.1f}" for times in (trained, served)]
        cells.append(f"{asked[name] * 1e3:.2f}")
        ratios = [f"{times[name] / times['plain']:.2f}" for times in (trained, served, asked)]
        told = " | ".join(f"{cell} | {ratio}" for cell, ratio in zip(cells, ratios, strict=True))
        print(f"| {backbone} | {name} | {past} | {told} |", flush=True)


def of_one_user(rows: dict[str, Any], candidates: int) -> dict[str, Any]:
    """The first rows as a request has them: all but the item is the same, that of the first user."""
    of_items = {name: name in ("item_id", "item", "genre") for name in rows}
    some = {name: values[:candidates] for name, values in rows.items()}
    return {
        name: tf.constant(values if of_items[name] else np.broadcast_to(values[:1], values.shape))
        for name, values in some.items()
    }


def adaptor_floor(dimension: int, distinct: int, seconds: float) -> tuple[float, float]:
    """FLOP/s of the adaptor, and of plain products of the first layer's sizes, forward and backward."""
    adaptor = HybridExpertAdaptor(["source"])
    adaptor.build({"source": (None, dimension)})
    vectors = tf.random.normal((distinct, dimension))
    kernel, slope = tf.random.normal((dimension, 5 * 128)), tf.random.normal((distinct, 5 * 128))

    @tf.function
    def ours() -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(adaptor.adapt("source", vectors)[0])
        return tape.gradient(loss, adaptor.trainable_weights)

    @tf.function
    def plain() -> Any:
        return tf.matmul(vectors, kernel), tf.matmul(vectors, slope, transpose_a=True)

    taken = take_turns({"adaptor": ours, "plain": plain}, seconds)
    first = 4 * distinct * dimension * 5 * 128  # forward, and the kernel's gradient; none for the frozen vectors
    rest = 4 * distinct * dimension * 5 + 6 * distinct * 5 * 128 * WIDTH
    return (first + rest) / taken["adaptor"], first / taken["plain"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=["DeepFM", "DIN", "FiBiNET"])
    parser.add_argument("--dimensions", nargs="+", type=int, default=[128, 384, 1024])
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[256, 1024, 4096, 16384])
    parser.add_argument("--seconds", type=float, default=1.0, help="of measurement for each model of a row")
    parser.add_argument(
        "--injections", nargs="*", help="the table by injection instead of the others: of all, or of those named"
    )
    parser.add_argument("--past", type=int, default=50, help="events that an injection compares")
    parser.add_argument("--candidates", type=int, default=100, help="of one user, in a request")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, {len(tf.config.list_physical_devices('GPU'))} GPUs, Python")
    print(f"{platform.python_version()}, TensorFlow {tf.__version__}, DeepCTR {deepctr.__version__}\n")
    if options.injections is not None:
        print("Thousands of samples a second, milliseconds a request; time against that of plain.\n")
        print("| backbone | injection | events | training | against plain | serving | against plain |", end="")
        print(f" request of {options.candidates} | against plain |")
        print("|" + " --- |" * 9)
        for backbone in options.backbones:
            for batch_size in options.batch_sizes:
                chosen = options.injections or None
                sizes = (options.dimensions[0], batch_size, options.past, options.candidates)
                by_injection(backbone, *sizes, options.seconds, chosen)
                keras.backend.clear_session()
        return
    print("Thousands of samples a second. Overhead: plain / layer.\n")
    print("| backbone | d | batch | plain | naive | naive batch | layer | bfloat16 | layer / naive |", end="")
    print(" layer / naive batch | overhead | in bfloat16 | serving: plain | layer | prestored | plain / prestored |")
    print("|" + " --- |" * 16)
    random = np.random.default_rng(0)
    rows = samples(random)
    for backbone in options.backbones:
        for dimension in options.dimensions:
            table = {s: random.normal(size=(SIZES[s], dimension)).astype("float16") for s in SOURCES}
            layer = build(backbone, KnowledgeAugmentation(table))
            bfloat16 = build(backbone, KnowledgeAugmentation(table, dtype="mixed_bfloat16"))
            plain, naive, serving = build(backbone), build(backbone, Naive(dimension)), prestore(layer)
            vectors = {source: tf.constant(values.astype("float32")) for source, values in table.items()}
            for batch_size in options.batch_sizes:
                ways = {
                    "plain": (plain, batches(rows, batch_size, None, False)),
                    "naive": (naive, batches(rows, batch_size, vectors, True)),
                    "naive batch": (naive, batches(rows, batch_size, vectors, False)),
                    "layer": (layer, batches(rows, batch_size, None, False)),
                    "bfloat16": (bfloat16, batches(rows, batch_size, None, False)),
                }
                train = {name: partial(m.make_train_function(), rows_of) for name, (m, rows_of) in ways.items()}
                taken = take_turns(train, options.seconds)
                inputs = next(ways["plain"][1])[0]
                served = {"plain": plain, "layer": layer, "prestored": serving}
                predict = {name: partial(tf.function(m), inputs, training=False) for name, m in served.items()}
                serve = take_turns(predict, options.seconds / 2)
                cells = [f"{batch_size / taken[name] / 1e3:.1f}" for name in ways]
                cells += [f"{taken[name] / taken['layer']:.2f}" for name in ("naive", "naive batch")]
                cells += [f"{taken[name] / taken['plain']:.2f}" for name in ("layer", "bfloat16")]
                cells += [f"{batch_size / serve[name] / 1e3:.1f}" for name in served]
                cells += [f"{serve['prestored'] / serve['plain']:.2f}"]
                print(f"| {backbone} | {dimension} | {batch_size} | {' | '.join(cells)} |", flush=True)
            keras.backend.clear_session()
    print("\nThe adaptor of one source, GFLOP/s.\n\n| d | distinct ids | adaptor | plain products | share |")
    print("| --- | --- | --- | --- | --- |")
    for dimension in options.dimensions:
        for distinct in (256, 1024, 4096):
            ours, floor = adaptor_floor(dimension, distinct, options.seconds)
            print(
                f"| {dimension} | {distinct} | {ours / 1e9:.0f} | {floor / 1e9:.0f} | {ours / floor:.0%} |", flush=True
            )


if __name__ == "__main__":
    main()
