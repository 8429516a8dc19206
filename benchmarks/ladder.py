"""The ladder on MovieLens-1M by Keras 3 on JAX, as fast as one device can: what which vectors are worth, and where.

    python benchmarks/ladder.py --prepare benchmarks/ml-1m.toml --plots benchmarks/ml-1m-plots.toml --arrays ladder.npz
    KERAS_BACKEND=jax TF_USE_LEGACY_KERAS=0 python benchmarks/ladder.py --train --arrays ladder.npz --output ladder

The first step, with all of kar-aug installed, reads what a kar.toml says how to make: samples, and vectors of items (a
language model's text, metadata, human plots, behaviour; shuffled ones are drawn anew for each seed), and writes them
as one compact file (benchmarks/ladder_samples.py). The second needs Keras 3, JAX, and of kar-aug's extras `[cli]` with
scikit-learn, but no TensorFlow. A batch is gathered on the device, an epoch is one call, a scan, and all seeds of an
arm are trained in it side by side: as small a model as this leaves a device idle between two kernels. Inputs, models
and training are those of `compare` (benchmarks/plain_models.py): 5% of ids unknown, dropout 0.2, the epoch of each
seed chosen on validation, the test part read once. One thing differs: rows that do not fill a batch are left out of an
epoch, others each time.

An arm is "plain", or "KIND: VECTORS", or "KIND: VECTORS + VECTORS": KIND one of `compare`'s injections.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ladder_samples import Arrays, features_of, opened, prepare, reader, tables_of

BATCH, PREDICTED, RATE, EPOCHS, PATIENCE, GUESSING = 4096, 4096, 0.002, 10, 2, 0.5
UNKNOWN_SHARE, UNKNOWN_IDS = 0.05, ("item_id", "user_id")
TEXTS = ("text", "metadata", "plots", "shuffled")
BEHAVIOUR = ("collaborative", "metadata + collaborative", "text + collaborative")
ARMS = (
    "plain",
    *(f"similarity: {name}" for name in (*TEXTS, *BEHAVIOUR)),
    *(f"attention: {name}" for name in (*TEXTS, *BEHAVIOUR)),
    *(f"fields: {name}" for name in TEXTS),
)
# What an injection looks up beside the candidate.
KEYS = {"fields": (), "codes": ("hist_item",), "similarity+codes": ("hist_item", "past_item", "past_value")}
PAST = ("past_item", "past_value")
SLICES = {"training ratings of the item": (0, 1, 20, 100, 500), "earlier events of the user": (0, 50, 200)}


class Functions(NamedTuple):
    """An arm's, jitted: they serve all seeds, whose weights and tables are in the state."""

    epoch: Any
    predict: Any


def build(backbone: str, arm: str, arrays: Arrays, seed: int, options: Any) -> tuple[list[Any], Any]:
    """What a model reads, and the model."""
    import keras
    from plain_models import BACKBONES

    from kar_aug import KnowledgeAugmentation
    from kar_aug.backbones import Settings
    from kar_aug.backbones.protocol import nothing
    from kar_aug.registry import INJECTIONS

    keras.utils.set_random_seed(seed)
    kind, _, vectors = arm.partition(": ")
    features = features_of(arrays.on_host, options.history, options.past)
    if options.without_ids:
        features = [each for each in features if each.is_key or (each.embedding or each.name) != "item_id"]
    read = [feature for feature in features if not feature.is_key]
    settings = Settings(32, (128, 64), dropout=0.2, l2_embedding=1e-5, seed=seed)
    if not vectors:
        return read, BACKBONES[backbone](read, settings, None, nothing)
    wanted = ("item", *KEYS.get(kind, PAST))
    read += [feature for feature in features if feature.is_key and feature.name in wanted]
    augmentation = KnowledgeAugmentation(tables_of(arrays.on_host, vectors.split(" + "), seed))
    return read, BACKBONES[backbone](read, settings, augmentation, INJECTIONS.load(kind)())


def functions(model: Any, optimizer: Any, arrays: Arrays, features: list[Any]) -> Functions:
    """An epoch, and predictions, of all seeds at once: what a state holds has the seeds as its first axis."""
    import jax
    import jax.numpy as jnp
    from stateless import prediction, training_step

    from kar_aug.data.encodings import FIRST, UNKNOWN

    step, predicted, read = training_step(model, optimizer), prediction(model), reader(arrays.on_host, features)
    ids = [feature.name for feature in features if (feature.embedding or feature.name) in UNKNOWN_IDS]

    def of_batch(on_device: Mapping[str, Any], state: Any, rows: Any, key: Any) -> tuple[Any, Any]:
        inputs = read(on_device, rows)
        for number, name in enumerate(ids):
            drawn = jax.random.uniform(jax.random.fold_in(key, number), inputs[name].shape)
            forgotten = (drawn < UNKNOWN_SHARE) & (inputs[name] >= FIRST)
            inputs[name] = jnp.where(forgotten, UNKNOWN, inputs[name])
        return step(state, inputs, on_device["label"][rows][:, None])

    of_batches = jax.vmap(of_batch, in_axes=(None, 0, 0, 0))

    def epoch(on_device: Mapping[str, Any], state: Any, rows: Any, keys: Any) -> tuple[Any, Any]:
        def next_step(state: Any, given: tuple[Any, Any]) -> tuple[Any, Any]:
            rows, number = given
            return of_batches(on_device, state, rows, jax.vmap(jax.random.fold_in, (0, None))(keys, number))

        return jax.lax.scan(next_step, state, (rows, jnp.arange(len(rows))))

    def predict(on_device: Mapping[str, Any], state: Any, rows: Any) -> Any:
        def of_rows(some: Any) -> Any:
            inputs = read(on_device, some)
            return jax.vmap(lambda state: predicted(state, inputs)[:, 0])(state)

        return jax.lax.map(of_rows, rows)  # (blocks, seeds, rows of a block)

    return Functions(jax.jit(epoch, donate_argnums=1), jax.jit(predict))


def train(
    backbone: str, arm: str, seeds: Sequence[int], arrays: Arrays, made: dict[str, Functions], options: Any
) -> Iterator[dict[str, Any]]:
    """Of each seed its test AUC at its best epoch, and how long all took."""
    import jax
    import jax.numpy as jnp
    import keras
    from stateless import either, initial

    from kar_aug.compare.metrics import auc
    from kar_aug.compare.patience import is_over

    started = time.perf_counter()
    built = [build(backbone, arm, arrays, seed, options) for seed in seeds]
    states = [initial(model, keras.optimizers.Adam(RATE)) for _, model in built]
    state = jax.tree.map(lambda *each: jnp.stack(each), *states)
    features, model = built[0]
    # Models of arms that differ by the content of their tables alone are the same function.
    graph = json.dumps([backbone, arm.partition(":")[0], [list(each.shape) for each in jax.tree.leaves(state)]])
    if graph not in made:
        optimizer = keras.optimizers.Adam(RATE)
        optimizer.build(model.trainable_variables)
        made[graph] = functions(model, optimizer, arrays, features)
    run = made[graph]
    before_training = time.perf_counter() - started

    def predicted(state: Any, part: str) -> Any:
        """(seeds, rows of a part)."""
        rows = arrays.rows[part][: options.rows]
        padded = np.pad(rows, (0, -len(rows) % PREDICTED)).reshape(-1, PREDICTED)
        found = np.asarray(run.predict(arrays.on_device, state, jnp.asarray(padded)))
        return found.swapaxes(0, 1).reshape(len(seeds), -1)[:, : len(rows)]

    curves: list[list[float]] = [[] for _ in seeds]
    best, seconds = jax.tree.map(jnp.copy, state), []

    def over(curve: list[float]) -> bool:
        return len(curve) >= options.epochs or is_over(curve, GUESSING, PATIENCE)

    while going := [number for number, curve in enumerate(curves) if not over(curve)]:
        number = max(map(len, curves))
        orders = [
            np.random.default_rng([s, 11, number]).permutation(arrays.rows["train"])[: options.rows] for s in seeds
        ]
        whole = np.stack([order[: len(order) // BATCH * BATCH].reshape(-1, BATCH) for order in orders], axis=1)
        keys = jnp.stack([jax.random.key(seed * 100 + number) for seed in seeds])
        before = time.perf_counter()
        state, losses = run.epoch(arrays.on_device, state, jnp.asarray(whole), keys)
        losses = np.asarray(losses)
        seconds.append(time.perf_counter() - before)
        assert np.isfinite(losses).all(), f"{backbone}, {arm}: the loss is not finite"
        labels, better = arrays.labels["validation"][: options.rows], np.zeros(len(seeds), bool)
        for place, prediction in enumerate(predicted(state, "validation")):
            if place in going:
                curves[place].append(auc(labels, prediction))
                better[place] = curves[place][-1] >= max(curves[place])
        best = either(better, state, best)
    found = predicted(best, "test")
    for seed, curve, prediction in zip(seeds, curves, found, strict=True):
        yield {
            "backbone": backbone,
            "arm": arm,
            "seed": seed,
            **tested(arrays, prediction, options.rows),
            "validation_auc": curve,
            "parameters": int(sum(np.prod(variable.shape) for variable in model.trainable_variables)),
            "seconds": (time.perf_counter() - started) / len(seeds),
            "seconds_to_build": before_training / len(seeds),
            "samples_per_second": whole.size / min(seconds),
        }


def tested(arrays: Arrays, prediction: Any, most: int | None) -> dict[str, Any]:
    """What predictions of the test part are worth, and within which rows."""
    from kar_aug.compare.metrics import auc, gauc

    rows, label = arrays.rows["test"][:most], arrays.labels["test"][:most]
    of_rows = arrays.of_rows(rows)
    found = {"test_auc": auc(label, prediction), "gauc": gauc(label, prediction, of_rows["user"]), "slices": {}}
    for name, starts in SLICES.items():
        for start, stop in zip(starts, (*starts[1:], np.inf), strict=True):
            chosen = (of_rows[name] >= start) & (of_rows[name] < stop)
            if chosen.any() and 0 < label[chosen].mean() < 1:
                value = {"rows": int(chosen.sum()), "auc": auc(label[chosen], prediction[chosen])}
                found["slices"][f"{name}: {start:,}" + ("" if np.isinf(stop) else f" to {stop - 1:,.0f}")] = value
    return found


# The tables


def report(runs: list[dict[str, Any]], head: str) -> str:
    """Of each backbone: by arm mean and standard deviation, differences seed by seed, and slices."""
    lines = [head]
    for backbone in dict.fromkeys(run["backbone"] for run in runs):
        of_backbone = [run for run in runs if run["backbone"] == backbone]
        by_arm = {
            arm: {run["seed"]: run for run in of_backbone if run["arm"] == arm}
            for arm in dict.fromkeys(run["arm"] for run in of_backbone)
        }
        lines += ["", f"## {backbone}", "", *_levels(by_arm), "", *_differences(by_arm), "", *_slices(by_arm)]
    return "\n".join(lines) + "\n"


ByArm = Mapping[str, Mapping[int, Any]]


def _levels(by_arm: ByArm) -> Iterator[str]:
    yield "| arm | parameters | seeds | test AUC | sd | GAUC | thousand samples/s |"
    yield "|" + " --- |" * 7
    for name, of_arm in by_arm.items():
        aucs, gaucs, speeds = (
            [run[key] for run in of_arm.values()] for key in ("test_auc", "gauc", "samples_per_second")
        )
        parameters = next(iter(of_arm.values()))["parameters"]
        yield (
            f"| {name} | {parameters:,} | {len(aucs)} | {np.mean(aucs):.4f} | {_sd(aucs)} | {np.mean(gaucs):.4f} | "
            f"{np.median(speeds) / 1e3:,.0f} |"
        )


def _differences(by_arm: ByArm) -> Iterator[str]:
    """Paired by seed; p corrected by Holm for all of the table."""
    from kar_aug.compare.statistics import holm, paired_t

    rows, p_values = [], []
    for left, right in _pairs(by_arm):
        seeds = sorted(by_arm[left].keys() & by_arm[right].keys())
        apart = [[by_arm[left][s][key] - by_arm[right][s][key] for s in seeds] for key in ("test_auc", "gauc")]
        if len(seeds) > 1:
            rows.append((left, right, *apart))
            p_values.append(paired_t(apart[0]))
    yield "| arm | over | AUC | sd | p (paired t, Holm) | GAUC |"
    yield "|" + " --- |" * 6
    for (left, right, aucs, gaucs), p in zip(rows, holm(p_values), strict=True):
        yield f"| {left} | {right} | {np.mean(aucs):+.4f} | {_sd(aucs)} | {p:.2g} | {np.mean(gaucs):+.4f} |"


def _pairs(by_arm: ByArm) -> Iterator[tuple[str, str]]:
    """Each arm over plain; a text over the other vectors that enter in the same place; and what is beside behaviour."""
    for arm in by_arm:
        kind, _, vectors = arm.partition(": ")
        others = [f"{kind}: {name}" for name in TEXTS[1:]] if vectors == "text" else []
        if vectors == "text + collaborative":
            others = [f"{kind}: {name}" for name in BEHAVIOUR[:2]]
        if vectors == "metadata + collaborative":
            others = [f"{kind}: collaborative"]
        for other in ["plain", *others]:
            if vectors and other in by_arm:
                yield arm, other


def _slices(by_arm: ByArm) -> Iterator[str]:
    """AUC of plain within some rows, and what each arm has over it there."""
    if "plain" not in by_arm:
        return
    plain, others = by_arm["plain"], [arm for arm in by_arm if arm != "plain"]
    yield f"| rows | test rows | plain | {' | '.join(others)} |"
    yield "|" + " --- |" * (3 + len(others))
    for name, value in next(iter(plain.values()))["slices"].items():
        cells = [f"{np.mean([run['slices'][name]['auc'] for run in plain.values()]):.4f}"]
        for arm in others:
            seeds = by_arm[arm].keys() & plain.keys()
            gains = [by_arm[arm][s]["slices"][name]["auc"] - plain[s]["slices"][name]["auc"] for s in seeds]
            cells.append(f"{np.mean(gains):+.4f}" if gains else "")
        yield f"| {name} | {value['rows']:,} | {' | '.join(cells)} |"


def _sd(values: Sequence[float]) -> str:
    return f"{np.std(values, ddof=1):.4f}" if len(values) > 1 else ""


def plot(runs: list[dict[str, Any]], path: Path) -> None:
    """What each arm has over plain, a dot a backbone, with the standard deviation over seeds."""
    from matplotlib.figure import Figure

    backbones, arms = (list(dict.fromkeys(run[key] for run in runs)) for key in ("backbone", "arm"))
    arms.remove("plain")
    auc = {(run["backbone"], run["arm"], run["seed"]): run["test_auc"] for run in runs}
    figure = Figure((8, 0.32 * len(arms) + 1.2), layout="constrained")
    axes = figure.subplots()
    for number, backbone in enumerate(backbones):
        for place, arm in enumerate(arms):
            seeds = [seed for name, of, seed in auc if (name, of) == (backbone, arm)]
            gains = [auc[backbone, arm, seed] - auc[backbone, "plain", seed] for seed in seeds]
            if gains:
                shift = 0.2 * (number - (len(backbones) - 1) / 2)
                style = {"fmt": "osd^v"[number], "color": f"C{number}", "capsize": 2, "markersize": 4}
                label = backbone if place == 0 else None
                axes.errorbar(np.mean(gains), place + shift, xerr=np.std(gains), label=label, **style)
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.set_yticks(range(len(arms)), arms)
    axes.invert_yaxis()
    axes.set_xlabel("test AUC over the plain backbone")
    axes.grid(axis="x", alpha=0.3)
    axes.legend()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", type=Path, metavar="KAR.TOML", help="write the arrays")
    parser.add_argument("--plots", type=Path, metavar="KAR.TOML", help="whose vectors of items are the arms' plots")
    parser.add_argument("--protocol", choices=["user", "temporal"], help="another one than the kar.toml's")
    parser.add_argument("--train", action="store_true", help="train the arms")
    parser.add_argument("--arrays", type=Path, help="the .npz between the two steps")
    parser.add_argument("--output", type=Path, help="a path without ending: OUTPUT.md and OUTPUT.json are written")
    parser.add_argument("--plot", type=Path, nargs="+", metavar="JSON", help="draw what was written before as OUTPUT")
    parser.add_argument("--backbones", nargs="+", default=["DeepFM", "DIN", "FiBiNET"])
    parser.add_argument("--arms", nargs="+", default=[*ARMS])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--together", type=int, default=5, help="seeds that are trained side by side")
    parser.add_argument("--history", type=int, default=50, help="events that the backbone reads")
    parser.add_argument("--past", type=int, default=200, help="events that a candidate is compared with")
    parser.add_argument("--without-ids", action="store_true", help="no model has an embedding of items' ids")
    parser.add_argument("--cold", type=float, default=0.0, help="share of the items that no model is trained on")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="at most")
    parser.add_argument("--rows", type=int, help="of each part, to try it out")
    parser.add_argument("--seconds", type=float, default=540, help="after which no further arm is begun")
    options = parser.parse_args()
    if options.plot is not None:
        plot([run for path in options.plot for run in json.loads(path.read_text())["runs"]], options.output)
        return
    if options.prepare is not None:
        prepare(options.prepare, options.arrays, options.protocol, options.plots)
    if not options.train:
        return
    import jax
    import keras

    started, arrays, made = time.perf_counter(), opened(options.arrays, options.cold), {}
    head = (
        f"{jax.devices()[0].device_kind}, JAX {jax.__version__}, Keras {keras.__version__}: {options.arrays.stem}, "
        f"the last {options.history} events, compared with the last {options.past}, batches of {BATCH}, float32"
        f"{', no ids of items' if options.without_ids else ''}"
        f"{f', {options.cold:.0%} of the items cold' if options.cold else ''}. "
        f"{options.together} seeds side by side."
    )
    runs: list[dict[str, Any]] = []
    for backbone in options.backbones:
        for first in range(0, len(options.seeds), options.together):
            for arm in options.arms:
                if time.perf_counter() - started > options.seconds:
                    continue
                seeds = options.seeds[first : first + options.together]
                found = [*train(backbone, arm, seeds, arrays, made, options)]
                runs += found
                aucs = ", ".join(f"{run['test_auc']:.4f}" for run in found)
                print(
                    f"{time.perf_counter() - started:5.0f} s  {backbone}, {arm}: test {aucs}; up to "
                    f"{max(len(run['validation_auc']) for run in found)} epochs, "
                    f"{found[0]['samples_per_second'] / 1e3:,.0f} thousand samples/s, built in "
                    f"{found[0]['seconds_to_build'] * len(found):.1f} s",
                    flush=True,
                )
                if options.output is not None:
                    options.output.with_suffix(".json").write_text(json.dumps({"head": head, "runs": runs}, indent=1))
                    options.output.with_suffix(".md").write_text(report(runs, head))
    print(report(runs, head))


if __name__ == "__main__":
    main()
