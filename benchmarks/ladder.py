"""The ladder on MovieLens-1M by Keras 3 on JAX, as fast as one device can: what which vectors are worth, and where.

    python benchmarks/ladder.py --prepare benchmarks/ml-1m.toml --arrays ladder.npz     with all of kar-aug installed
    KERAS_BACKEND=jax TF_USE_LEGACY_KERAS=0 python benchmarks/ladder.py --train --arrays ladder.npz --output ladder

The first step reads what `benchmarks/ml-1m.toml` says how to make: samples, and vectors of items (a language model's
text, metadata, behaviour; shuffled ones are drawn anew for each seed), and writes them as one compact file. The second
needs Keras 3, JAX, and of kar-aug's extras `[cli]` with scikit-learn, but no TensorFlow. All events lie on the device,
each once: a batch and its earlier events are gathered there, and an epoch is one call, a scan. Inputs, model and
training are those of `compare`'s DeepFM (benchmarks/plain_deepfm.py): 5% of ids unknown, dropout 0.2, the epoch
chosen on validation, the test part read once. One thing differs: rows that do not fill a batch are left out of an
epoch, others each time.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

BATCH, PREDICTED, RATE, EPOCHS, PATIENCE, UNKNOWN_SHARE = 4096, 8192, 0.002, 10, 2, 0.05
# Arm: how vectors enter, and which.
ARMS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "plain": ("", ()),
    "fields: text": ("fields", ("text",)),
    "fields: metadata": ("fields", ("metadata",)),
    "fields: shuffled": ("fields", ("shuffled",)),
    "similarity: shuffled": ("similarity", ("shuffled",)),
    "similarity: metadata": ("similarity", ("metadata",)),
    "similarity: text": ("similarity", ("text",)),
    "similarity: collaborative": ("similarity", ("collaborative",)),
    "similarity: collaborative + metadata": ("similarity", ("metadata", "collaborative")),
    "similarity: collaborative + text": ("similarity", ("text", "collaborative")),
}


# Preparing, with pandas and all


def prepare(config: Path, path: Path) -> None:
    """Write the arrays of a kar.toml's samples and vectors."""
    from kar_aug import Project
    from kar_aug.compare import Arm
    from kar_aug.compare.experiment import Experiment
    from kar_aug.data.features import HIST, PAST

    experiment = Experiment(Project.open(config).workspace)
    samples = experiment.samples(0)
    events = samples.sequences[PAST]
    assert (events.kept == np.arange(len(samples.timestamps))).all(), "the sequence must be of all events"
    assert (samples.sequences[HIST].first == events.first).all() and (samples.weight == 1).all()
    arrays: dict[str, Any] = {
        "rows": samples.rows.astype(np.int32),
        "label": samples.label.astype(np.uint8),
        "part": samples.part,
        "first": events.first.astype(np.int32),
        "stop": events.stop.astype(np.int32),
        "seconds": samples.timestamps.astype(np.int32),
        "place/user": samples.places["user"].astype(np.int16),
        "place/item": samples.places["item"].astype(np.int16),
    }
    told = {}
    for feature in (*samples.features, *samples.keys):
        column = samples.columns.get(feature.name)
        if feature.name.endswith("_since") or (feature.is_key and not feature.is_number):
            told[feature.name] = ""
        elif feature.sequence and column is not None and column.told is not None:
            told[feature.name] = f"{column.told.entity}"
            arrays[f"column/{feature.name}"] = column.told.values.astype(np.int16)
        elif feature.sequence and column is not None:
            told[feature.name] = "event"
            values = column.values[: len(samples.timestamps)]
            arrays[f"column/{feature.name}"] = values if feature.is_number else values.astype(np.int16)
        elif column is not None:
            told[feature.name] = column.entity
            arrays[f"column/{feature.name}"] = column.values.astype(np.int16)
    for name, arm in {"text": "item", "metadata": "metadata", "collaborative": "collaborative"}.items():
        table = experiment.tables(Arm("DeepFM", arm, ("item",), "hybrid-expert", "similarity"), 0)["item"]
        matrix, known = table.matrix()
        arrays[f"vectors/{name}"] = matrix.astype(np.float16)
        arrays[f"known/{name}"] = known
    features = [{**asdict(feature), "told": told[feature.name]} for feature in (*samples.features, *samples.keys)]
    arrays["features"] = np.frombuffer(json.dumps(features).encode(), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {len(samples):,} samples of {len(samples.timestamps):,} events")


# What a batch is, gathered on the device


def features_of(arrays: Mapping[str, Any], history: int, past: int) -> list[Any]:
    """The model's inputs, with as many earlier events as are wanted."""
    from kar_aug.data.features import Feature

    lengths = {"hist": history, "past": past}
    found = []
    for each in json.loads(bytes(arrays["features"])):
        each.pop("told")
        each["length"] = lengths.get(each["sequence"], each["length"])
        found.append(Feature(**each))
    return found


def reader(arrays: Mapping[str, Any], features: list[Any]) -> Callable[[Mapping[str, Any], Any], dict[str, Any]]:
    """A function of the arrays on the device and rows of events, (batch,), that gives a model's inputs."""
    import jax.numpy as jnp

    from kar_aug.data.encodings import FIRST, MISSING
    from kar_aug.data.samples import _SINCE_MOST, _SINCE_UNIT

    told = {each["name"]: each["told"] for each in json.loads(bytes(arrays["features"]))}

    def of_event(feature: Any, on_device: Mapping[str, Any], rows: Any, there: Any, moment: Any) -> Any:
        """The values of a feature at events, (batch,) or (batch, length)."""
        kind = told[feature.name]
        if feature.name.endswith("_since"):
            minutes = (moment - on_device["seconds"][rows]).astype("float32") / _SINCE_UNIT
            code = jnp.minimum(jnp.log2(1 + jnp.maximum(minutes, 0)), _SINCE_MOST).astype("int32") + FIRST
            return jnp.where(there, code, MISSING)
        if not kind:
            values = on_device["place/user" if feature.name == "user" else "place/item"][rows]
        else:
            column = on_device[f"column/{feature.name}"]
            values = column[rows] if kind == "event" else column[on_device[f"place/{kind}"][rows]]
        dtype = "float32" if feature.is_number else "int32"
        return values.astype(dtype) * there.astype(dtype) if feature.sequence else values.astype(dtype)

    def read(on_device: Mapping[str, Any], rows: Any) -> dict[str, Any]:
        found = {}
        moment, stop = on_device["seconds"][rows][:, None], on_device["stop"][rows]
        for feature in features:
            if not feature.sequence:
                values = of_event(feature, on_device, rows, None, None)
                found[feature.name] = values if feature.length else values[:, None]
                continue
            start = jnp.maximum(on_device["first"][rows], stop - feature.length)
            at = start[:, None] + jnp.arange(feature.length)
            there = at < stop[:, None]
            found[feature.name] = of_event(feature, on_device, jnp.where(there, at, 0), there, moment)
        return found

    return read


# Training


class Functions(NamedTuple):
    """An arm's, jitted: they serve all seeds, whose weights and tables are in the state."""

    epoch: Any
    predict: Any


class Arrays(NamedTuple):
    """What a training reads."""

    on_host: Mapping[str, Any]
    on_device: Mapping[str, Any]
    rows: Mapping[str, Any]  # part -> rows of events, on the host
    labels: Mapping[str, Any]


def opened(path: Path) -> Arrays:
    import jax

    from kar_aug.data.split import PARTS

    with np.load(path) as file:
        host = {name: file[name] for name in file}
    names = ("first", "stop", "seconds", "place/user", "place/item")
    device = {name: jax.device_put(host[name]) for name in host if name in names or name.startswith("column/")}
    parts = {name: host["part"] == PARTS.index(name) for name in PARTS}
    label_of_row = np.zeros(len(host["seconds"]), np.float32)
    label_of_row[host["rows"]] = host["label"]
    device["label"] = jax.device_put(label_of_row)
    return Arrays(
        host,
        device,
        {name: host["rows"][chosen] for name, chosen in parts.items()},
        {name: host["label"][chosen] for name, chosen in parts.items()},
    )


def tables_of(arrays: Mapping[str, Any], sources: tuple[str, ...], seed: int) -> dict[str, Any]:
    """What the layer looks up: "item", and what stands beside it."""
    from kar_aug import KnowledgeTable

    found = {}
    for number, name in enumerate(sources):
        stored = "text" if name == "shuffled" else name
        vectors, known = arrays[f"vectors/{stored}"], arrays[f"known/{stored}"]
        if name == "shuffled":
            covered = np.flatnonzero(known)
            vectors = vectors.copy()
            vectors[covered] = vectors[np.random.default_rng([seed, 1]).permutation(covered)]
        found[f"item.{name}" if number else "item"] = KnowledgeTable.from_array(vectors, known)
    return found


def build(arm: str, arrays: Arrays, seed: int, history: int, past: int) -> tuple[list[Any], Any]:
    """What a model reads, and the model."""
    import keras
    from plain_deepfm import deepfm

    from kar_aug import KnowledgeAugmentation
    from kar_aug.backbones import Settings
    from kar_aug.backbones.protocol import nothing
    from kar_aug.registry import INJECTIONS

    keras.utils.set_random_seed(seed)
    kind, sources = ARMS[arm]
    features = features_of(arrays.on_host, history, past)
    read = [feature for feature in features if not feature.is_key]
    settings = Settings(32, (128, 64), dropout=0.2, l2_embedding=1e-5, seed=seed)
    if not kind:
        return read, deepfm(read, settings, None, nothing)
    wanted = ("item",) if kind == "fields" else ("item", "past_item", "past_value")
    read += [feature for feature in features if feature.is_key and feature.name in wanted]
    augmentation = KnowledgeAugmentation(tables_of(arrays.on_host, sources, seed))
    return read, deepfm(read, settings, augmentation, INJECTIONS.load(kind)())


def functions(model: Any, optimizer: Any, arrays: Arrays, features: list[Any]) -> Functions:
    """An epoch, and predictions."""
    import jax
    import jax.numpy as jnp
    from stateless import prediction, training_step

    from kar_aug.data.encodings import FIRST, UNKNOWN

    step, predicted, read = training_step(model, optimizer), prediction(model), reader(arrays.on_host, features)
    ids = [feature.name for feature in features if (feature.embedding or feature.name) == "item_id"]

    def of_batch(on_device: Mapping[str, Any], state: Any, given: tuple[Any, Any]) -> tuple[Any, Any]:
        rows, key = given
        inputs = read(on_device, rows)
        for number, name in enumerate(ids):
            drawn = jax.random.uniform(jax.random.fold_in(key, number), inputs[name].shape)
            forgotten = (drawn < UNKNOWN_SHARE) & (inputs[name] >= FIRST)
            inputs[name] = jnp.where(forgotten, UNKNOWN, inputs[name])
        return step(state, inputs, on_device["label"][rows][:, None])

    def epoch(on_device: Mapping[str, Any], state: Any, rows: Any, key: Any) -> tuple[Any, Any]:
        keys = jax.random.split(key, len(rows))
        return jax.lax.scan(lambda state, given: of_batch(on_device, state, given), state, (rows, keys))

    def predict(on_device: Mapping[str, Any], state: Any, rows: Any) -> Any:
        return jax.lax.map(lambda some: predicted(state, read(on_device, some))[:, 0], rows)

    return Functions(jax.jit(epoch, donate_argnums=1), jax.jit(predict))


def train(arm: str, seed: int, arrays: Arrays, made: dict[str, Functions], options: Any) -> dict[str, Any]:
    """Test AUC at the best epoch, and how long it took."""
    import jax
    import jax.numpy as jnp
    import keras
    from stateless import initial

    from kar_aug.compare.metrics import auc

    started = time.perf_counter()
    features, model = build(arm, arrays, seed, options.history, options.past)
    optimizer = keras.optimizers.Adam(RATE)
    state = initial(model, optimizer)
    # Models of arms that differ by the content of their tables alone are the same function.
    graph = json.dumps([[list(value.shape) for value in group] for group in state])
    if graph not in made:
        made[graph] = functions(model, optimizer, arrays, features)
    run = made[graph]

    def predicted(state: Any, part: str) -> Any:
        rows = arrays.rows[part][: options.rows]
        padded = np.pad(rows, (0, -len(rows) % PREDICTED)).reshape(-1, PREDICTED)
        return np.asarray(run.predict(arrays.on_device, state, jnp.asarray(padded))).ravel()[: len(rows)]

    curve: list[float] = []
    best, seconds = None, []
    while len(curve) < options.epochs and len(curve) - 1 - (int(np.argmax(curve)) if curve else 0) < PATIENCE:
        order = np.random.default_rng([seed, 11, len(curve)]).permutation(arrays.rows["train"])[: options.rows]
        whole = order[: len(order) // BATCH * BATCH].reshape(-1, BATCH)
        before = time.perf_counter()
        state, losses = run.epoch(arrays.on_device, state, jnp.asarray(whole), jax.random.key(seed * 100 + len(curve)))
        losses = np.asarray(losses)
        seconds.append(time.perf_counter() - before)
        assert np.isfinite(losses).all(), f"{arm}, seed {seed}: the loss is not finite"
        curve.append(auc(arrays.labels["validation"][: options.rows], predicted(state, "validation")))
        if curve[-1] >= max(curve):
            best = jax.tree.map(jnp.copy, state)
    return {
        "arm": arm,
        "seed": seed,
        "test_auc": auc(arrays.labels["test"][: options.rows], predicted(best, "test")),
        "validation_auc": curve,
        "parameters": int(sum(np.prod(variable.shape) for variable in model.trainable_variables)),
        "seconds": time.perf_counter() - started,
        "samples_per_second": len(whole) * BATCH / min(seconds),
    }


# The table


def report(runs: list[dict[str, Any]], head: str) -> str:
    """By arm mean and standard deviation, and differences from plain and from metadata, seed by seed."""
    from kar_aug.compare.statistics import holm, paired_t

    by_arm = {name: {run["seed"]: run for run in runs if run["arm"] == name} for name in ARMS}
    by_arm = {name: of_arm for name, of_arm in by_arm.items() if of_arm}
    pairs = [(name, "plain") for name in by_arm if name != "plain"]
    pairs += [("similarity: text", f"similarity: {other}") for other in ("metadata", "shuffled")]
    pairs += [(f"similarity: collaborative + {name}", "similarity: collaborative") for name in ("metadata", "text")]
    pairs += [("similarity: collaborative + text", "similarity: collaborative + metadata")]
    lines = [head, "", "| arm | seeds | test AUC | sd | thousand samples/s |", "|" + " --- |" * 5]
    for name, of_arm in by_arm.items():
        aucs, speed = [run["test_auc"] for run in of_arm.values()], [r["samples_per_second"] for r in of_arm.values()]
        sd = f"{np.std(aucs, ddof=1):.4f}" if len(aucs) > 1 else ""
        lines.append(f"| {name} | {len(aucs)} | {np.mean(aucs):.4f} | {sd} | {np.median(speed) / 1e3:,.0f} |")
    rows, p_values = [], []
    for left, right in pairs:
        seeds = sorted(by_arm.get(left, {}).keys() & by_arm.get(right, {}).keys())
        if len(seeds) > 1:
            differences = [by_arm[left][seed]["test_auc"] - by_arm[right][seed]["test_auc"] for seed in seeds]
            rows.append((left, right, float(np.mean(differences)), float(np.std(differences, ddof=1))))
            p_values.append(paired_t(differences))
    lines += ["", "| arm | over | difference | sd | p (paired t, Holm) |", "|" + " --- |" * 5]
    for (left, right, mean, sd), p in zip(rows, holm(p_values), strict=True):
        lines.append(f"| {left} | {right} | {mean:+.4f} | {sd:.4f} | {p:.2g} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", type=Path, metavar="KAR.TOML", help="write the arrays")
    parser.add_argument("--train", action="store_true", help="train the arms")
    parser.add_argument("--arrays", type=Path, required=True, help="the .npz between the two steps")
    parser.add_argument("--output", type=Path, help="a path without ending: OUTPUT.md and OUTPUT.json are written")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=[*ARMS])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--history", type=int, default=50, help="events that the backbone reads")
    parser.add_argument("--past", type=int, default=200, help="events that a candidate is compared with")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="at most")
    parser.add_argument("--rows", type=int, help="of each part, to try it out")
    parser.add_argument("--seconds", type=float, default=540, help="after which no further training is begun")
    options = parser.parse_args()
    if options.prepare is not None:
        prepare(options.prepare, options.arrays)
    if not options.train:
        return
    import jax
    import keras

    started, arrays, made = time.perf_counter(), opened(options.arrays), {}
    head = (
        f"{jax.devices()[0].device_kind}, JAX {jax.__version__}, Keras {keras.__version__}: MovieLens-1M, DeepFM of "
        f"the last {options.history} events, compared with the last {options.past}, batches of {BATCH}, float32."
    )
    runs: list[dict[str, Any]] = []
    for seed in options.seeds:  # seed by seed, so that what is cut off are seeds, and not arms
        for arm in options.arms:
            if time.perf_counter() - started > options.seconds:
                continue
            runs.append(train(arm, seed, arrays, made, options))
            run = runs[-1]
            print(
                f"{time.perf_counter() - started:5.0f} s  {arm}, seed {seed}: test {run['test_auc']:.4f}, "
                f"{len(run['validation_auc'])} epochs, {run['samples_per_second'] / 1e3:,.0f} thousand samples/s",
                flush=True,
            )
            if options.output is not None:
                options.output.with_suffix(".json").write_text(json.dumps({"head": head, "runs": runs}, indent=1))
                options.output.with_suffix(".md").write_text(report(runs, head))
    print(report(runs, head))


if __name__ == "__main__":
    main()
