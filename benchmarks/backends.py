"""What knowledge costs a Keras 3 model on JAX or torch, on a GPU say: training and serving, samples a second.

    KERAS_BACKEND=jax   TF_USE_LEGACY_KERAS=0 python benchmarks/backends.py --output backends-jax
    KERAS_BACKEND=torch TF_USE_LEGACY_KERAS=0 python benchmarks/backends.py --output backends-torch

Two models, "light" (4 fields, no history) and "heavy" (8 fields, 50 events mean-pooled, three layers of 400), at
batches of 4,096, each

    plain               as it is
    two further fields  with two more ordinary embeddings: what any two fields cost, the honest floor
    fields 384, 64      KnowledgeAugmentation of users and items, vectors of 384 numbers, or reduced to 64
    prestored           the same after `prestore`: tables of augmented vectors; inference only
    similarity          the candidate against 50 rated events, in vectors of 64 numbers

Data are synthetic, with the skew of MovieLens-1M, and are on the device before the clock runs. Each number is the
median of `--blocks` blocks of steps, the device waited for at the end of each. On JAX a step is one jitted call, and
"scanned" is all steps of a block in one call, which a host cannot slow down. Needs Keras 3, NumPy, and JAX or torch.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from plain_models import deepfm
from skewed import FURTHER, HEAVIEST, ITEMS, KEYS, LIGHT, PAST, USERS, rows

from kar_aug import KnowledgeAugmentation, prestore
from kar_aug.backbones.protocol import nothing
from kar_aug.data.features import Feature
from kar_aug.registry import INJECTIONS

BACKEND = keras.backend.backend()
BATCH, BATCHES = 4096, 8
MODELS = {"light": LIGHT, "heavy": HEAVIEST}
VARIANTS = ("plain", "two further fields", "fields 384", "fields 64", "similarity")


def build(model: str, variant: str, random: np.random.Generator) -> tuple[list[Feature], Any]:
    """A model, and what it reads."""
    features, settings = MODELS[model]
    kind, _, dimension = variant.partition(" ")
    if variant == "two further fields":
        return [*features, *FURTHER], deepfm([*features, *FURTHER], settings)
    if variant == "plain":
        return features, deepfm(features, settings)
    width = int(dimension or 64)
    sources = {"user": USERS, "item": ITEMS} if kind == "fields" else {"item": ITEMS}
    tables = {name: random.normal(size=(size, width)).astype("float16") for name, size in sources.items()}
    read = [*features, *(KEYS if kind == "fields" else [KEYS[1], *PAST])]
    injection = INJECTIONS.load(kind)() if kind != "plain" else nothing
    return read, deepfm(read, settings, KnowledgeAugmentation(tables), injection)


# How each backend trains and predicts: each gives functions that run so many steps, and wait for the device.
Run = Callable[[int], None]


def on_jax(model: Any, batches: list[Any], *, training: bool) -> dict[str, Run]:
    import jax
    import jax.numpy as jnp
    from stateless import initial, prediction, training_step

    batches = [jax.device_put(batch) for batch in batches]
    stacked = jax.tree.map(lambda *each: jnp.stack(each), *batches)
    optimizer = keras.optimizers.Adam()
    state = initial(model, optimizer)
    kept = [state]
    if not training:
        predict = jax.jit(prediction(model))

        def predict_each(steps: int) -> None:
            for number in range(steps):
                found = predict(state, batches[number % BATCHES][0])
            jax.block_until_ready(found)

        return {"serving": predict_each}
    one = training_step(model, optimizer)
    step = jax.jit(one, donate_argnums=0)

    def each(steps: int) -> None:
        state = kept[0]
        for number in range(steps):
            state, loss = step(state, *batches[number % BATCHES])
        kept[0] = state
        jax.block_until_ready((state, loss))

    def of_scan(state: Any, number: Any) -> Any:
        inputs, labels = jax.tree.map(lambda values: values[number % BATCHES], stacked)
        return one(state, inputs, labels)

    scan = jax.jit(lambda state, numbers: jax.lax.scan(of_scan, state, numbers), donate_argnums=0)

    def scanned(steps: int) -> None:
        kept[0], losses = scan(kept[0], jnp.arange(steps))
        jax.block_until_ready((kept[0], losses))
        assert np.isfinite(np.asarray(losses)).all()

    return {"training": each, "scanned": scanned}


def on_torch(model: Any, batches: list[Any], *, training: bool) -> dict[str, Run]:
    import torch

    torch.set_float32_matmul_precision("high")  # as JAX does by itself
    ready = [keras.tree.map_structure(keras.ops.convert_to_tensor, batch) for batch in batches]
    model.compile(keras.optimizers.Adam(), "binary_crossentropy")

    def wait() -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    def each(steps: int) -> None:
        for number in range(steps):
            model.train_step(ready[number % BATCHES])
        wait()

    def predict_each(steps: int) -> None:
        with torch.no_grad():
            for number in range(steps):
                model(ready[number % BATCHES][0], training=False)
        wait()

    return {"training": each} if training else {"serving": predict_each}


def measured(run: Run, steps: int, blocks: int) -> tuple[float, float]:
    """Samples a second, and the seconds that the first block took more: compilation."""
    started = time.perf_counter()
    run(steps)
    first = time.perf_counter() - started
    taken = []
    for _ in range(blocks):
        started = time.perf_counter()
        run(steps)
        taken.append(time.perf_counter() - started)
    return BATCH * steps / float(np.median(taken)), first - float(np.median(taken))


def device() -> str:
    if BACKEND == "jax":
        import jax

        return f"{jax.devices()[0].device_kind}, JAX {jax.__version__}"
    import torch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "CPU"
    return f"{name}, torch {torch.__version__}"


COLUMNS = ("training", "scanned", "serving")


def table(found: list[dict[str, Any]], head: str) -> str:
    """Of all rows: thousands of samples a second, and time against that of plain."""
    columns = [name for name in COLUMNS if any(name in row for row in found)]
    lines = [head, "", f"| model | with | {' | '.join(f'{name} | time / plain' for name in columns)} |"]
    lines.append("|" + " --- |" * (2 + 2 * len(columns)))
    for row in found:
        plain = next(each for each in found if each["model"] == row["model"])
        cells = [row["model"], row["with"]]
        for name in columns:
            there = name in row and name in plain
            cells += [f"{row[name] / 1e3:,.0f}", f"{plain[name] / row[name]:.2f}"] if there else ["", ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="a path without ending: OUTPUT.md and OUTPUT.json are written")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=[*MODELS])
    parser.add_argument("--with", nargs="+", choices=VARIANTS, default=[*VARIANTS], dest="variants")
    parser.add_argument("--steps", type=int, default=40, help="of a block")
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--bfloat16", action="store_true", help="products in bfloat16, of the whole model")
    parser.add_argument("--seconds", type=float, default=170, help="after which nothing more is begun")
    options = parser.parse_args()
    started = time.perf_counter()
    if options.bfloat16:
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    run_on = {"jax": on_jax, "torch": on_torch}[BACKEND]
    random = np.random.default_rng(0)
    everything = rows(random, BATCH * BATCHES)
    labels = (random.random((BATCH * BATCHES, 1)) < 0.5).astype("float32")
    precision = "mixed_bfloat16" if options.bfloat16 else "float32 (products in TF32 where the device has it)"
    head = (
        f"{device()}, Keras {keras.__version__}, Python {platform.python_version()}, batch {BATCH}, {precision}; "
        f"medians of {options.blocks} blocks of {options.steps} steps. Thousands of samples a second."
    )
    found: list[dict[str, Any]] = []

    def measure(row: dict[str, Any], model: Any, batches: list[Any], *, training: bool) -> None:
        for name, run in run_on(model, batches, training=training).items():
            if time.perf_counter() - started < options.seconds:
                row[name], row[f"{name}_compile_seconds"] = measured(run, options.steps, options.blocks)

    def write() -> None:
        if options.output is not None:
            options.output.with_suffix(".md").write_text(table(found, head))
            options.output.with_suffix(".json").write_text(json.dumps({"head": head, "rows": found}, indent=1))

    for name in options.models:
        for variant in options.variants:
            features, model = build(name, variant, random)
            starts = range(0, BATCH * BATCHES, BATCH)
            wanted = {feature.name: everything[feature.name] for feature in features}
            batches = [
                ({key: values[i : i + BATCH] for key, values in wanted.items()}, labels[i : i + BATCH]) for i in starts
            ]
            row: dict[str, Any] = {"model": name, "with": variant}
            found.append(row)
            for training in (True, False):
                measure(row, model, batches, training=training)
            write()
            if variant.startswith("fields"):
                found.append({"model": name, "with": f"{variant}, prestored"})
                measure(found[-1], prestore(model), batches, training=False)
                write()
            print(f"{time.perf_counter() - started:5.0f} s  {name}, {variant}", flush=True)
    print(table(found, head))


if __name__ == "__main__":
    main()
