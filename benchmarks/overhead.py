"""What knowledge costs on TensorFlow, in training and in serving, beside what any two fields cost. On both Keras APIs.

    TF_USE_LEGACY_KERAS=1 python benchmarks/overhead.py --backbones DeepFM FiBiNET       DeepCTR's models
    TF_USE_LEGACY_KERAS=0 python benchmarks/overhead.py --backbones plain_models:deepfm  DeepFM in plain Keras

Models of three sizes (`benchmarks/skewed.py`), synthetic rows with the skew of MovieLens-1M, and of each

    plain               as it is
    two further fields  with two more ordinary embeddings of the same ids: the honest floor
    d=384, d=64         KnowledgeAugmentation of users and items, hybrid experts; and its products in bfloat16
    d=384, mlp          one expert a source in place of five: adaptor="mlp"
    d=384, 1 step in 8  the experts learn in every eighth step, `prestore(model)` in the others; its tables are brought
                        up to date then: the mean of such steps, from those of both and of making the tables
    prestored           the model of d=384 after `prestore`

A training step is measured whole: `tf.data` input, forward, backward, Adam. All take turns at the same batches; ratios
are of medians. With --cpu it is the seconds of all threads, for a machine that has other work. With --profile it is
said in which operations a step of plain, of two further fields and of d=384 spends its time.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import platform
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import tensorflow as tf
from skewed import FURTHER, HEAVIEST, HEAVY, ITEMS, KEYS, LIGHT, USERS, rows, take_turns

from kar_aug import KnowledgeAugmentation, PrestoredAugmentation, prestore
from kar_aug._helpers.keras import IS_KERAS_3, keras
from kar_aug.backbones.protocol import nothing
from kar_aug.models.find import knowledge_layers
from kar_aug.models.graph import input_name
from kar_aug.registry import BACKBONES, INJECTIONS

MODELS = {"light": LIGHT, "heavy": HEAVY, "heaviest": HEAVIEST}
ROWS = 65_536
OF_KERAS = "keras" if IS_KERAS_3 else "tf-keras"
OF_KNOWLEDGE: dict[str, dict[str, Any]] = {
    "d=384": {"dimension": 384},
    "d=384, bfloat16": {"dimension": 384, "dtype": "mixed_bfloat16"},
    "d=384, mlp": {"dimension": 384, "adaptor": "mlp"},
    "d=64": {"dimension": 64},
    "d=64, bfloat16": {"dimension": 64, "dtype": "mixed_bfloat16"},
}
VARIANTS = ("plain", "two further fields", *OF_KNOWLEDGE)
EVERY = 8
SELDOM = f"d=384, 1 step in {EVERY}"
SERVED = ("plain", "two further fields", "d=384", "prestored")


def build(backbone: str, size: str, variant: str, random: np.random.Generator) -> Any:
    """A model, compiled."""
    features, settings = MODELS[size]
    if variant in OF_KNOWLEDGE:
        options = dict(OF_KNOWLEDGE[variant])
        dimension = options.pop("dimension")
        tables = {
            name: random.normal(size=(n, dimension)).astype("float16") for name, n in (("user", USERS), ("item", ITEMS))
        }
        augmentation = KnowledgeAugmentation(tables, **options)
        read, injection = [*features, *KEYS], INJECTIONS.load("fields")()
    else:
        read, augmentation, injection = [*features, *(FURTHER if variant != "plain" else [])], None, nothing
    model = BACKBONES.load(backbone)(read, settings, augmentation, injection)
    model.compile("adam", "binary_crossentropy", jit_compile=False)
    return model


def given(model: Any, everything: dict[str, Any], count: int) -> dict[str, Any]:
    """The first rows of what a model reads."""
    return {
        input_name(tensor): tf.constant(everything[input_name(tensor)][:count, : tensor.shape[1]])
        for tensor in model.inputs
    }


def training(model: Any, everything: dict[str, Any], batch: int) -> Callable[[], Any]:
    """One step of training, with its input."""
    inputs = given(model, everything, ROWS)
    label = tf.cast(everything["gender"] % 2, "float32")

    def gather(at: Any) -> Any:
        return {name: tf.gather(values, at) for name, values in inputs.items()}, tf.gather(label, at)

    numbers = tf.data.Dataset.range(ROWS).repeat().shuffle(ROWS, seed=0).batch(batch)
    dataset = numbers.map(gather).prefetch(2)
    model.fit(dataset.take(1), verbose=0)  # which makes the function of a step
    return partial(model.train_function, iter(dataset))


def measure(
    backbone: str, size: str, variants: list[str], batch: int, seconds: float, *, profile: bool, cpu: bool = False
) -> list[list[str]]:
    """A row a variant: what it is, samples a second and time against plain in training, and in serving."""
    random = np.random.default_rng(0)
    everything = rows(random, ROWS)
    built = {variant: build(backbone, size, variant, random) for variant in variants}
    train = {name: training(model, everything, batch) for name, model in built.items()}
    built["prestored"] = prestore(built["d=384"])
    built["prestored"].compile("adam", "binary_crossentropy", jit_compile=False)
    train["prestored"] = training(built["prestored"], everything, batch)
    turns = partial(take_turns, seconds=seconds, clock=time.process_time if cpu else time.perf_counter)
    trained = turns(train)
    (renewed,) = turns({"tables": partial(renew, built["d=384"], built["prestored"])}).values()
    trained[SELDOM] = (trained["d=384"] + renewed + (EVERY - 1) * trained["prestored"]) / EVERY
    if profile:
        for name in ("plain", "two further fields", "d=384"):
            said(f"{backbone}, {size}, {name}", train[name])
    predict = {
        name: partial(tf.function(built[name]), given(built[name], everything, batch), training=False)
        for name in SERVED
    }
    served = turns(predict)
    found = []
    for name in (*variants, SELDOM, "prestored"):
        row = [backbone.partition(":")[0], size, name]
        for times in (trained, served):
            there = name in times
            row += [f"{batch / times[name] / 1e3:.1f}", f"{times[name] / times['plain']:.2f}"] if there else ["", ""]
        floor = served["two further fields"]
        found.append([*row, f"{served[name] / floor:.2f}" if name in served else ""])
    return found


def renew(model: Any, serving: Any) -> None:
    """Bring the augmented vectors that were prestored up to date."""
    (layer,) = knowledge_layers(model, (KnowledgeAugmentation,))
    serving.get_layer(f"{layer.name}_prestored").set_weights(PrestoredAugmentation.of(layer).get_weights())


def said(what: str, step: Callable[[], Any], steps: int = 10) -> None:
    """Print what operations a step spends most of its time in, by TensorFlow's own profiler."""
    import collections
    import glob
    import tempfile

    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        for _ in range(steps):
            step()
        tf.profiler.experimental.stop()
        space = xplane_pb2.XSpace()
        with open(glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)[0], "rb") as file:
            space.ParseFromString(file.read())
    taken: collections.Counter[str] = collections.Counter()
    for plane in space.planes:
        kinds = {number: meta.name for number, meta in plane.event_metadata.items()}
        for line in plane.lines:
            for event in line.events:
                name = kinds[event.metadata_id]
                if ":" in name and "::" not in name:  # "gradients/MatMul:MatMul"
                    taken[name.rpartition(":")[2]] += event.duration_ps
    print(f"\n{what}: milliseconds a step, of all threads")
    for name, picoseconds in taken.most_common(14):
        print(f"  {picoseconds / 1e9 / steps:7.2f}  {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=["DeepFM", "FiBiNET"])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["light", "heavy"])
    parser.add_argument("--without", nargs="+", choices=VARIANTS[3:], default=[], help="rows that are left out")
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--seconds", type=float, default=2.0, help="of measurement for each model of a table")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--cpu", action="store_true", help="seconds of all threads in place of the clock's")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}, ", end="")
    print(f"TensorFlow {tf.__version__}, {OF_KERAS} {version(OF_KERAS)}, batch {options.batch}.")
    print("Thousands of samples a second.\n")
    print("| backbone | model | with | training | time / plain | serving | time / plain | time / two further fields |")
    print("|" + " --- |" * 8, flush=True)
    for backbone in options.backbones:
        for size in options.models:
            variants = [name for name in VARIANTS if name not in options.without]
            how = {"profile": options.profile, "cpu": options.cpu}
            for row in measure(backbone, size, variants, options.batch, options.seconds, **how):
                print(f"| {' | '.join(row)} |", flush=True)
            keras.backend.clear_session()


if __name__ == "__main__":
    main()
