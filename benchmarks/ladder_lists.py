"""Re-ranking on MovieLens-1M by Keras 3 on JAX, as fast as one device can: benchmarks/rerank.py with ten times the
lists, all seeds and controls of a model at once.

    python benchmarks/ladder_lists.py --prepare FOLDER --arrays lists.npz                with all of kar-aug installed
    KERAS_BACKEND=jax TF_USE_LEGACY_KERAS=0 python benchmarks/ladder_lists.py --train --arrays lists.npz --output lists

FOLDER is that of benchmarks/ml1m.py. The first step makes lists, inputs and vectors as benchmarks/rerank.py does, and
writes them as one compact file, each event once; it checks that what is read of that file is what `compare` reads. The
second needs Keras 3, JAX, and of kar-aug's extras `[cli]`, but no TensorFlow. What is trained are `compare`'s own
re-rankers, and settings, losses and metrics are `compare`'s too: 5% of ids unknown, the epoch chosen by MAP@7 on
validation, the test part read once.

Such small models leave a large device idle. So all seeds, and where vectors enter those with text, metadata and
shuffled vectors too, are trained side by side (`jax.vmap` over weights, tables, order and dropout), each with its own
best epoch and its own end. All lists lie on the device, and an epoch is one call, a scan. One thing differs from
`compare`: lists that do not fill a batch are left out of an epoch, others each time.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

PREDICTED = 2048  # lists at a time
BACKBONES = ("PRM", "MIR", "SetRank", "DLCM")
VECTORS = ("text", "metadata", "shuffled")
FALLEN = 0.1  # below the median seed, relative, of which a table warns
DECIDES, SHOWN = "MAP@7", ("MAP@7", "NDCG@7", "HR@1", "HR@2", "NDCG@2")
# What each way to enter reads: keys of the samples.
KEYS: Mapping[str, tuple[str, ...]] = {
    "plain": (),
    "similarity": ("item", "past_item", "past_value"),
    "fields": ("user", "item"),
}
Array = npt.NDArray[Any]


class Family(NamedTuple):
    """Arms whose models are one function, of different weights and tables."""

    backbone: str
    base: str
    way: str

    @property
    def vectors(self) -> tuple[str, ...]:
        """Those that its arms differ by."""
        return VECTORS if self.way != "plain" else ("",)

    def arm(self, vectors: str) -> str:
        """As the tables call it."""
        return f"{self.base}, {self.way}" + (f": {vectors}" if vectors else "")

    def __str__(self) -> str:
        return f"{self.backbone}, {self.base}, {self.way}"


def families(backbones: Sequence[str]) -> list[Family]:
    """In the order in which they are trained. As fields vectors enter KAR's base alone: see benchmarks/rerank.py."""
    first = [("fair", "plain"), ("fair", "similarity"), ("kar", "plain"), ("kar", "similarity")]
    return [
        *(Family(backbone, *each) for backbone in backbones for each in first),
        *(Family(backbone, "kar", "fields") for backbone in backbones),
    ]


# Preparing, with pandas and all


def prepare(folder: Path, path: Path, users: int | None) -> None:
    """Write the arrays of the lists that benchmarks/rerank.py makes of MovieLens-1M."""
    import rerank

    with tempfile.TemporaryDirectory() as scratch:
        given = ["--data", str(folder), "--log", "ml-1m", "--output", scratch]
        options = rerank.arguments().parse_args(given + (["--users", str(users)] if users else []))
        arrays: dict[str, Any] = {}
        said: dict[str, Any] = {"features": {}, "told": {}}
        for base, project in rerank.projects(options):
            _add(arrays, said, base, project)
    arrays["said"] = np.frombuffer(json.dumps(said).encode(), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, lists: {said['lists']}")


def _add(arrays: dict[str, Any], said: dict[str, Any], base: str, project: Any) -> None:
    """What a base reads; lists and vectors, which are the same for all, of the last base."""
    from kar_aug.compare import Arm
    from kar_aug.compare.experiment import Experiment
    from kar_aug.data.features import HIST, PAST
    from kar_aug.data.split import PARTS

    experiment = Experiment(project.workspace)
    samples, objective = experiment.samples(0), experiment.objective
    lists, events = objective.read(samples), samples.sequences[PAST]
    everything = np.arange(len(lists))
    members = lists.members(everything, lists.size)
    first = np.where(members < 0, len(samples), members).min(axis=1)  # what is said once is said at the first moment
    row = samples.rows[first]
    found = {
        "label": np.where(members < 0, -1, samples.label[np.maximum(members, 0)]).astype(np.int8),
        "item": (samples.places["item"][samples.rows[np.maximum(members, 0)]] * (members >= 0)).astype(np.int16),
        "user": samples.places["user"][row].astype(np.int16),
        "part": samples.part[first].astype(np.int8),
        "moment": samples.timestamps[row].astype(np.int32),
        "first": events.first[row].astype(np.int32),
        "stop": events.stop[row].astype(np.int32),
        "event/item": samples.places["item"][events.kept].astype(np.int16),
        "event/seconds": samples.timestamps[events.kept].astype(np.int32),
    }
    for name, values in found.items():  # all bases are tried on the same lists, at the same moments
        assert name not in arrays or np.array_equal(arrays[name], values), name
    arrays.update(found)
    wanted = [f for f in samples.features if base == "fair" or lists.is_of_items(f)]
    wanted += [f for f in samples.keys if any(f.name in names for names in KEYS.values())]
    told = {}
    for feature in wanted:
        if not feature.sequence:
            told[feature.name] = "item" if lists.is_of_items(feature) else "user"
        else:
            told[feature.name] = "event"
            assert (samples.sequences[feature.sequence].kept == events.kept).all(), feature.name
        if feature.is_key and not feature.is_number:
            continue  # a place itself
        column = samples.columns[feature.name]
        if feature.sequence and column.told is not None:
            told[feature.name] = "event's item"
            arrays[f"{base}/{feature.name}"] = column.told.values.astype(np.int16)
        elif feature.name == f"{HIST}_since":
            told[feature.name] = "since"
        else:
            values = column.values[: len(events.kept)] if feature.sequence else column.values
            arrays[f"{base}/{feature.name}"] = values.astype(np.float32 if feature.is_number else np.int16)
    said["features"][base], said["told"][base] = [asdict(each) for each in wanted], told
    arm = Arm("PRM", "both", ("user", "item"), "hybrid-expert", "similarity")
    for name, addition in {"text": "both", "metadata": "metadata"}.items():
        for entity, table in experiment.tables(replace(arm, knowledge=addition), 0).items():
            arrays[f"vectors/{name}/{entity}"], arrays[f"known/{name}/{entity}"] = table.matrix()
    said["settings"] = {**asdict(experiment.training), "loss": experiment.config.loss}
    said["guessing"] = objective.judge(samples, "validation").guessing
    said["rivals"] = {each.name: dict(each.metrics) for each in objective.rivals(samples, Path(), "")}
    said["lists"] = {name: len(lists.of(name)) for name in PARTS if len(lists.of(name))}
    for name, values in inputs_of(arrays, said, base).items():
        assert np.array_equal(values, lists.read(everything, [name])[name].reshape(values.shape)), (base, name)


# What the arrays say


def inputs_of(arrays: Mapping[str, Array], said: Mapping[str, Any], base: str) -> dict[str, Array]:
    """What models read of all lists: (lists, size), (lists, size, length) of items; (lists, any) of all else."""
    from kar_aug.data.samples import since_code

    item, user = arrays["item"], arrays["user"]
    found = {}
    for each in said["features"][base]:
        name, kind, length = each["name"], said["told"][base][each["name"]], each["length"]
        column = arrays.get(f"{base}/{name}")
        if kind == "item":
            values = item if column is None else column[item]
            there = (item > 0).reshape(*item.shape, *[1] * (values.ndim - 2))
        elif kind == "user":
            values = (user if column is None else column[user])[:, np.newaxis]
            there = np.ones(1, bool)
        else:
            start = np.maximum(arrays["first"], arrays["stop"] - length)
            at = start[:, np.newaxis] + np.arange(length)
            there = at < arrays["stop"][:, np.newaxis]
            at = np.where(there, at, 0)
            if kind == "since":
                values = since_code((arrays["moment"][:, np.newaxis] - arrays["event/seconds"][at]).astype(np.float64))
            elif kind == "event's item" or column is None:
                values = arrays["event/item"][at] if column is None else column[arrays["event/item"][at]]
                values = values if values.ndim == 2 else values[..., : each["values"]]
            else:
                values = column[at]
            there = there.reshape(*there.shape, *[1] * (values.ndim - 2))
        found[name] = values * there.astype(values.dtype)
    return found


class Data(NamedTuple):
    """What a training reads, on the host."""

    arrays: Mapping[str, Array]
    said: Mapping[str, Any]
    most: int | None = None  # lists of a part

    @property
    def size(self) -> int:
        """Items of a list."""
        return int(self.arrays["item"].shape[1])

    def of(self, part: str) -> Array:
        """Its lists."""
        from kar_aug.data.split import PARTS

        return np.flatnonzero(self.arrays["part"] == PARTS.index(part))[: self.most].astype(np.int32)

    def labels(self, part: str) -> Array:
        """(lists, size), -1 after the last item."""
        return self.arrays["label"][self.of(part)].astype(np.float32)


@functools.cache
def opened(path: Path) -> Data:
    """The arrays of a file; once a process."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file}
    return Data(arrays, json.loads(bytes(arrays.pop("said"))))


class Packed(NamedTuple):
    """All lists as a base reads them, on the device: a row a list, so that a batch is gathered at once."""

    whole: Any  # (lists, columns), of categories and places
    numbers: Any  # (lists, columns)
    labels: Any  # (lists, size)


class Layout(NamedTuple):
    """Where in a row of `Packed` an input is: its first column, its shape."""

    is_number: bool
    first: int
    shape: tuple[int, ...]


def packed(data: Data, base: str) -> tuple[Packed, dict[str, Layout]]:
    """All lists, and where what is in a row."""
    import jax

    inputs = inputs_of(data.arrays, data.said, base)
    groups: dict[bool, list[Array]] = {False: [], True: []}
    layout, columns = {}, {False: 0, True: 0}
    for name, values in inputs.items():
        flat = values.reshape(len(values), -1)
        kind = values.dtype == np.float32
        layout[name] = Layout(kind, columns[kind], values.shape[1:])
        groups[kind].append(flat)
        columns[kind] += flat.shape[1]
    whole = np.concatenate(groups[False], axis=1)
    assert whole.max() < 2**15
    numbers = np.concatenate(groups[True], axis=1)
    return Packed(*map(jax.device_put, (whole.astype(np.int16), numbers, data.arrays["label"]))), layout


# Models


def tables_of(data: Data, vectors: str, seed: int) -> dict[str, Any]:
    """What a layer looks up; shuffled ones as `compare` draws them for a seed."""
    from kar_aug import KnowledgeTable

    found = {}
    for entity in ("user", "item"):
        stored = "text" if vectors == "shuffled" else vectors
        matrix, known = data.arrays[f"vectors/{stored}/{entity}"], data.arrays[f"known/{stored}/{entity}"]
        if vectors == "shuffled":
            covered = np.flatnonzero(known)
            matrix = matrix.copy()
            matrix[covered] = matrix[np.random.default_rng([seed, 1]).permutation(covered)]
        found[entity] = KnowledgeTable.from_array(matrix, known)
    return found


def build(family: Family, vectors: str, seed: int, data: Data) -> Any:
    """A model as `compare` builds it."""
    import keras

    from kar_aug import KnowledgeAugmentation
    from kar_aug.backbones import Settings
    from kar_aug.backbones.protocol import nothing
    from kar_aug.backbones.reranking import ListFeatures
    from kar_aug.data.features import Feature
    from kar_aug.registry import INJECTIONS, RERANKERS

    keras.utils.set_random_seed(seed)
    given = data.said["settings"]
    width = given["embedding_dim"]
    settings = Settings(width, tuple(given["hidden_units"]), given["dropout"], given["l2_embedding"], seed)
    features = [Feature(**each) for each in data.said["features"][family.base]]
    features = [feature for feature in features if not feature.is_key or feature.name in KEYS[family.way]]
    told = data.said["told"][family.base]
    of_items = [feature for feature in features if told[feature.name] == "item"]
    listed = ListFeatures(of_items, [feature for feature in features if feature not in of_items], data.size)
    augmentation, injection = None, nothing
    if vectors:
        augmentation = KnowledgeAugmentation(
            tables_of(data, vectors, seed),
            shared_experts=given["shared_experts"],
            dedicated_experts=given["dedicated_experts"],
            expert_units=(given["expert_hidden"], width),
        )
        injection = INJECTIONS.load(family.way)()
    name = family.backbone if family.base == "fair" else f"kar:{family.backbone}"
    return RERANKERS.load(name)(listed, settings, augmentation, injection)


def begun(path: Path, family: Family, vectors: str, seed: int) -> Any:
    """The state with which a training begins, as arrays: asked of processes that have no device."""
    import jax
    import keras
    from stateless import initial

    data = opened(path)
    optimizer = keras.optimizers.Adam(data.said["settings"]["learning_rate"])
    return jax.tree.map(np.asarray, initial(build(family, vectors, seed, data), optimizer))


def without_device() -> None:
    """Before JAX is imported by a process that makes states."""
    os.environ["JAX_PLATFORMS"] = "cpu"


# Training


class Functions(NamedTuple):
    """Of a family, compiled, for all its trainings side by side: the first axis of states, orders and scores."""

    epoch: Any  # lists, states, orders (.., steps, batch), numbers to draw by (..,) -> states, losses (.., steps)
    predict: Any  # lists, states, rows (PREDICTED,) -> scores (.., PREDICTED, size)
    better: Any  # which (..,), states, states -> the former where so
    parameters: int


def reader(layout: Mapping[str, Layout]) -> Callable[[Packed, Any, str], Any]:
    """A function that gives an input of some lists."""

    def read(rows: tuple[Any, Any], name: str) -> Any:
        at = layout[name]
        stop = at.first + int(np.prod(at.shape))
        values = rows[at.is_number][:, at.first : stop].reshape(-1, *at.shape)
        return values.astype("float32" if at.is_number else "int32")

    return read


def functions(
    family: Family, data: Data, lists: Packed, layout: Mapping[str, Layout], side_by_side: int, loops: bool = False
) -> Functions:
    """Build, trace and compile: what is trained differs by its states alone.

    Args:
        side_by_side: how many trainings.
        loops: whether a recurrent layer stays a loop. Within the scan of an epoch a device would start the kernels of
            such a loop one by one.
    """
    import jax
    import jax.numpy as jnp
    import keras
    from stateless import either, initial, prediction, training_step

    from kar_aug.backbones.reranking import LOSSES
    from kar_aug.data.encodings import FIRST, UNKNOWN

    given = data.said["settings"]
    model = build(family, family.vectors[0], 0, data)
    for layer in model.layers:
        if isinstance(layer, keras.layers.GRU):
            layer.unroll = not loops
    optimizer = keras.optimizers.Adam(given["learning_rate"])
    one = initial(model, optimizer)
    loss = LOSSES[given["loss"]]
    step = training_step(model, optimizer, lambda labels, scores: jnp.mean(loss(labels, scores)))
    predicted, read = prediction(model), reader(layout)
    names = [tensor.name for tensor in model.inputs]
    ids = [
        each["name"] for each in data.said["features"][family.base] if "item_id" in (each["embedding"], each["name"])
    ]

    def inputs(lists: Packed, rows: Any) -> dict[str, Any]:
        found = lists.whole[rows], lists.numbers[rows]
        return {name: read(found, name) for name in names}

    def epoch(lists: Packed, state: Any, order: Any, number: Any) -> tuple[Any, Any]:
        def of_batch(state: Any, given_: tuple[Any, Any]) -> tuple[Any, Any]:
            rows, key = given_
            found = inputs(lists, rows)
            for place, name in enumerate(name for name in names if name in ids):
                drawn = jax.random.uniform(jax.random.fold_in(key, place), found[name].shape)
                forgotten = (drawn < given["unknown_share"]) & (found[name] >= FIRST)
                found[name] = jnp.where(forgotten, UNKNOWN, found[name])
            return step(state, [found[name] for name in names], lists.labels[rows])

        keys = jax.random.split(jax.random.key(number), len(order))
        return jax.lax.scan(of_batch, state, (order, keys))

    def predict(lists: Packed, state: Any, rows: Any) -> Any:
        found = inputs(lists, rows)
        return predicted(state, [found[name] for name in names])

    def shaped(shape: Sequence[int], dtype: Any) -> Any:
        return jax.ShapeDtypeStruct((side_by_side, *shape), dtype)

    states = jax.tree.map(lambda value: shaped(value.shape, value.dtype), one)
    batch = given["batch_size"]
    orders, rows = shaped((len(data.of("train")) // batch, batch), "int32"), jax.ShapeDtypeStruct((PREDICTED,), "int32")
    all_ = (None, 0, 0, 0)
    return Functions(
        jax.jit(jax.vmap(epoch, all_), donate_argnums=1).lower(lists, states, orders, shaped((), "uint32")).compile(),
        jax.jit(jax.vmap(predict, (None, 0, None))).lower(lists, states, rows).compile(),
        jax.jit(either).lower(shaped((), "bool"), states, states).compile(),
        int(sum(np.prod(variable.shape) for variable in model.trainable_variables)),
    )


def train(
    family: Family,
    lanes: Sequence[tuple[str, int]],
    states: Any,
    run: Functions,
    lists: Packed,
    data: Data,
    threads: Any,
) -> list[dict[str, Any]]:
    """Test metrics at the best epoch of each training of a family, side by side.

    Args:
        lanes: (vectors, seed) of each of `states`.
    """
    import jax
    import jax.numpy as jnp

    from kar_aug.compare.list_metrics import of_lists
    from kar_aug.compare.patience import is_over

    started, given = time.perf_counter(), data.said["settings"]
    batch, train_lists = given["batch_size"], data.of("train")

    def scores(states: Any, part: str) -> Array:
        rows = data.of(part)
        padded = np.pad(rows, (0, -len(rows) % PREDICTED)).reshape(-1, PREDICTED)
        found = [run.predict(lists, states, some) for some in padded]
        return np.concatenate([np.asarray(each) for each in found], axis=1)[:, : len(rows)]

    def judged(found: Array, labels: Array, metric: str) -> list[float]:
        name, _, scope = metric.partition("@")
        means = threads.map(lambda each: float(of_lists(labels, each, name, int(scope)).mean()), found)
        return list(means)

    curves: list[list[float]] = [[] for _ in lanes]
    best, seconds, validation = jax.tree.map(jnp.copy, states), [], data.labels("validation")

    def over(curve: list[float]) -> bool:
        return len(curve) >= given["epochs"] or is_over(curve, data.said["guessing"], given["patience"])

    for number in range(given["epochs"]):
        going = [not over(curve) for curve in curves]
        if not any(going):
            break
        order_of = {seed: np.random.default_rng([seed, 11, number]).permutation(train_lists) for _, seed in lanes}
        orders = np.stack([order_of[seed] for _, seed in lanes])
        orders = orders[:, : orders.shape[1] // batch * batch].reshape(len(lanes), -1, batch)
        drawn_by = np.asarray([seed * 100 + number for _, seed in lanes], np.uint32)
        before = time.perf_counter()
        states, losses = run.epoch(lists, states, orders, drawn_by)
        finite = np.isfinite(np.asarray(losses)).all(axis=1)
        seconds.append(time.perf_counter() - before)
        values = judged(scores(states, "validation"), validation, DECIDES)
        values = [
            value if whole else 0.0 for value, whole in zip(values, finite, strict=True)
        ]  # diverged: worth nothing
        for curve, value, goes in zip(curves, values, going, strict=True):
            if goes:
                curve.append(value)
        which = [goes and curve[-1] >= max(curve) for curve, goes in zip(curves, going, strict=True)]
        best = run.better(np.asarray(which), states, best)
    tested = scores(best, "test")
    metrics = {metric: judged(tested, data.labels("test"), metric) for metric in SHOWN}
    return [
        {
            "backbone": family.backbone,
            "arm": family.arm(vectors),
            "seed": seed,
            "test": {metric: values[lane] for metric, values in metrics.items()},
            "validation": curves[lane],
            "parameters": run.parameters,
            "seconds_of_all": time.perf_counter() - started,
            "seconds_of_an_epoch_of_all": min(seconds),
            "side_by_side": len(lanes),
        }
        for lane, (vectors, seed) in enumerate(lanes)
    ]


# The tables


def pairs(backbone: str) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
    """(arm, what it is set against), each with its backbone, as in results/rerank.md."""
    found = [("fair, plain", "kar, plain")]
    for base, way in (("kar", "fields"), ("kar", "similarity"), ("fair", "similarity")):
        ours = f"{base}, {way}: text"
        found += [(ours, f"{base}, plain"), (ours, f"{base}, {way}: shuffled"), (ours, f"{base}, {way}: metadata")]
        found += [(ours, "fair, plain")] if base == "kar" else []
    return (((backbone, ours), (backbone, theirs)) for ours, theirs in found)


def fallen(runs: list[dict[str, Any]]) -> Iterator[str]:
    """The seeds that ended far below the others of their arm: a training failed, and its arm's mean says little."""
    for run in runs:
        alike = [r for r in runs if (r["backbone"], r["arm"]) == (run["backbone"], run["arm"])]
        usual, own = float(np.median([r["test"][DECIDES] for r in alike])), run["test"][DECIDES]
        if own < (1 - FALLEN) * usual:
            yield f"{run['backbone']}, {run['arm']}: seed {run['seed']} has {own:.4f}, the median seed {usual:.4f}."


def report(runs: list[dict[str, Any]], head: str, rivals: Mapping[str, Mapping[str, float]]) -> str:
    """Levels, and differences seed by seed, a column a backbone."""
    from kar_aug.compare.statistics import holm, paired_t

    of: dict[tuple[str, str], dict[int, Any]] = {}
    for run in runs:
        of.setdefault((run["backbone"], run["arm"]), {})[run["seed"]] = run["test"]
    backbones = list(dict.fromkeys(run["backbone"] for run in runs))
    ways = [(base, way) for base in ("kar", "fair") for way in KEYS if way != "fields" or base == "kar"]
    arms = [Family("", *each).arm(vectors) for each in ways for vectors in Family("", *each).vectors]
    arms = [arm for arm in arms if any((backbone, arm) in of for backbone in backbones)]

    def told(backbone: str, arm: str, metric: str) -> str:
        values = [each[metric] for each in of.get((backbone, arm), {}).values()]
        sd = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
        return f"{np.mean(values):.4f}{sd}" if values else ""

    lines = [
        head,
        "",
        f"Test {DECIDES}, mean ± standard deviation over seeds.",
        "",
    ]
    lines += [f"| arm | {' | '.join(backbones)} |", "|" + " --- |" * (len(backbones) + 1)]
    lines += [f"| {name} |" + f" {known[DECIDES.lower()]:.4f} |" * len(backbones) for name, known in rivals.items()]
    lines += [f"| {arm} | {' | '.join(told(backbone, arm, DECIDES) for backbone in backbones)} |" for arm in arms]
    lines += ["", "| plain arm | backbone | " + " | ".join(SHOWN[1:]) + " |", "|" + " --- |" * (len(SHOWN) + 1)]
    for arm in (arm for arm in arms if arm.endswith("plain")):
        for backbone in (backbone for backbone in backbones if (backbone, arm) in of):
            lines.append(f"| {arm} | {backbone} | {' | '.join(told(backbone, arm, each) for each in SHOWN[1:])} |")
    lines += ["", *fallen(runs)]
    found, p_values = {}, []
    for ours, theirs in (pair for backbone in backbones for pair in pairs(backbone)):
        seeds = sorted(of.get(ours, {}).keys() & of.get(theirs, {}).keys())
        if len(seeds) > 1:
            left, right = (np.asarray([of[arm][seed][DECIDES] for seed in seeds]) for arm in (ours, theirs))
            found[ours, theirs] = left.mean() / right.mean() - 1, int((left > right).sum()), len(seeds)
            p_values.append(paired_t((left - right).tolist()))
    corrected = dict(zip(found, holm(p_values), strict=True))
    lines += [
        "",
        f"Relative difference of the means of {DECIDES}, seeds in which it is positive, and p of a t-test paired",
    ]
    lines += [f"by seed, corrected by Holm for all {len(found)} comparisons:", ""]
    lines += [f"| arm | over | {' | '.join(backbones)} |", "|" + " --- |" * (len(backbones) + 2)]
    for (_, ours), (_, theirs) in pairs(""):
        cells = []
        for backbone in backbones:
            pair = ((backbone, ours), (backbone, theirs))
            known = pair in found
            relative, positive, seeds = found.get(pair, (0.0, 0, 0))
            cells.append(f"{relative:+.1%}, {positive} of {seeds}, {corrected[pair]:.2g}" if known else "")
        if any(cells):
            lines.append(f"| {ours} | {theirs} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", type=Path, metavar="FOLDER", help="write the arrays")
    parser.add_argument("--users", type=int, help="so many of them, drawn; all by default")
    parser.add_argument("--train", action="store_true", help="train the arms")
    parser.add_argument("--arrays", type=Path, required=True, help="the .npz between the two steps")
    parser.add_argument("--output", type=Path, help="a path without ending: OUTPUT.md and OUTPUT.json are written")
    parser.add_argument("--backbones", nargs="+", choices=BACKBONES, default=[*BACKBONES])
    parser.add_argument("--families", nargs="+", metavar="BASE,WAY", help='some of them, "fair,plain" and so on')
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument(
        "--processes", type=int, default=max(1, (os.cpu_count() or 2) * 3 // 4), help="that make states"
    )
    parser.add_argument(
        "--compilers", type=int, default=max(1, (os.cpu_count() or 2) // 3), help="families that are compiled at once"
    )
    parser.add_argument(
        "--loops", action="store_true", help="compile recurrent layers as loops: sooner, and slower then"
    )
    parser.add_argument("--epochs", type=int, help="at most; as benchmarks/rerank.py has it by default")
    parser.add_argument("--lists", type=int, help="of each part, to try it out")
    parser.add_argument("--seconds", type=float, default=300, help="after which no further family is begun")
    options = parser.parse_args()
    if options.prepare is not None:
        prepare(options.prepare, options.arrays, options.users)
    if options.train:
        trained(options)


def trained(options: argparse.Namespace) -> None:
    """Train all families, and write down each when it is done."""
    started = time.perf_counter()
    # To try kernels out for each product takes longer to compile than all trainings take.
    os.environ.setdefault("XLA_FLAGS", "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false")
    wanted = families(options.backbones)
    if options.families:
        wanted = [each for each in wanted if f"{each.base},{each.way}" in options.families]
    lanes = {family: [(v, seed) for v in family.vectors for seed in options.seeds] for family in wanted}
    spawned = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(options.processes, spawned, without_device) as processes,
        ThreadPoolExecutor(options.compilers) as compilers,
        ThreadPoolExecutor(os.cpu_count()) as threads,
    ):
        states = {f: [processes.submit(begun, options.arrays, f, *lane) for lane in lanes[f]] for f in wanted}
        _train_each(options, started, lanes, states, compilers, threads)
        for pool in (processes, compilers):
            pool.shutdown(wait=False, cancel_futures=True)


def _train_each(
    options: argparse.Namespace,
    started: float,
    lanes: Mapping[Family, Sequence[tuple[str, int]]],
    states: Mapping[Family, Sequence[Future[Any]]],
    compilers: ThreadPoolExecutor,
    threads: ThreadPoolExecutor,
) -> None:
    import jax
    import keras

    jax.config.update("jax_default_matmul_precision", "highest")  # float32, not what tensor cores make of it
    data = opened(options.arrays)._replace(most=options.lists)
    data.said["settings"].update({"epochs": options.epochs} if options.epochs else {})
    lists = {base: packed(data, base) for base in dict.fromkeys(family.base for family in lanes)}
    compiled = {
        family: compilers.submit(functions, family, data, *lists[family.base], len(lanes[family]), options.loops)
        for family in lanes
    }
    given = data.said["settings"]
    head = (
        f"{jax.devices()[0].device_kind}, JAX {jax.__version__}, Keras {keras.__version__}: lists "
        f"{ {part: len(data.of(part)) for part in data.said['lists']} }, "
        f"loss {given['loss']}, batches of {given['batch_size']} lists, rate {given['learning_rate']}, float32."
    )
    runs: list[dict[str, Any]] = []
    for family in lanes:
        if time.perf_counter() - started > options.seconds:
            break
        try:
            first = [future.result() for future in states[family]]
            run = compiled[family].result()
            ready = time.perf_counter() - started
            side_by_side = jax.tree.map(lambda *each: jax.device_put(np.stack(each)), *first)
            found = train(family, lanes[family], side_by_side, run, lists[family.base][0], data, threads)
        except Exception:  # the others are worth having
            print(f"{family} FAILED\n{traceback.format_exc()}", flush=True)
            continue
        runs += found
        took = time.perf_counter() - started
        told = {
            arm: np.mean([r["test"][DECIDES] for r in found if r["arm"] == arm]) for arm in {r["arm"] for r in found}
        }
        print(
            f"{took:5.0f} s (ready at {ready:.0f})  {family}: {len(found)} side by side, "
            f"{max(len(r['validation']) for r in found)} epochs of {found[0]['seconds_of_an_epoch_of_all']:.2f} s; "
            + ", ".join(f"{arm} {level:.4f}" for arm, level in sorted(told.items())),
            flush=True,
        )
        if options.output is not None:
            whole = f"{head} {len(runs)} trainings in {took:.0f} s of clock, compiling included."
            options.output.with_suffix(".json").write_text(json.dumps({"head": whole, "runs": runs}, indent=1))
            options.output.with_suffix(".md").write_text(report(runs, whole, data.said["rivals"]))
    print(report(runs, head, data.said["rivals"]))


if __name__ == "__main__":
    main()
