"""The samples of a kar.toml as one compact file, and batches of them gathered on a device: what `ladder.py` trains on.

All events lie there once, by user and time, so that the earlier events of a row are a range of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

VECTORS = ("text", "metadata", "collaborative")  # the store of items, and the controls that have vectors of their own
CODES = 32  # a level, of three: some thousand movies need few


def prepare(config: Path, path: Path, protocol: str | None, plots: Path | None) -> None:
    """Write the arrays of a kar.toml's samples, and vectors of items.

    Args:
        protocol: another one than the kar.toml's.
        plots: the kar.toml of human texts about the same items, encoded.
    """
    from kar_aug import Project, VectorStore
    from kar_aug.codes import SemanticIds
    from kar_aug.compare import Arm
    from kar_aug.compare.experiment import Experiment
    from kar_aug.data.features import HIST, PAST

    project = Project.open(config, data={"protocol": protocol} if protocol else {})
    project.encode(collaborative=True)
    experiment = Experiment(project.workspace)
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
    tables = {
        name: experiment.tables(
            Arm("DeepFM", name.replace("text", "item"), ("item",), "hybrid-expert", "similarity"), 0
        )
        for name in VECTORS
    }
    found = {name: of_arm["item"] for name, of_arm in tables.items()}
    vocabulary = samples.vocabulary["item"]
    if plots is not None:
        found["plots"] = VectorStore.open(Project.open(plots).workspace.store_path("item")).align(vocabulary)
    for name, table in found.items():
        matrix, known = table.matrix()
        arrays[f"vectors/{name}"], arrays[f"known/{name}"] = matrix.astype(np.float16), known
    codes = SemanticIds.make(VectorStore.open(experiment.workspace.store_path("item")), levels=3, size=CODES)
    arrays["codes/text"] = codes.codes_of(vocabulary).astype(np.uint8)
    features = [{**asdict(feature), "told": told[feature.name]} for feature in (*samples.features, *samples.keys)]
    arrays["features"] = np.frombuffer(json.dumps(features).encode(), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {len(samples):,} samples of {len(samples.timestamps):,} events")


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


class Arrays(NamedTuple):
    """What a training reads. `rows`, `labels`: by part, on the host."""

    on_host: Mapping[str, Any]
    on_device: Mapping[str, Any]
    rows: Mapping[str, Any]
    labels: Mapping[str, Any]
    cold: Any

    def of_rows(self, rows: Any) -> dict[str, Any]:
        """Of some rows, (rows,) each: the user, how often the item was rated in training, and earlier events."""
        host = self.on_host
        trained = np.bincount(host["place/item"][self.rows["train"]], minlength=len(self.cold))
        return {
            "user": host["place/user"][rows],
            "training ratings of the item": trained[host["place/item"][rows]],
            "earlier events of the user": (host["stop"] - host["first"])[rows],
        }


def opened(path: Path, cold: float = 0.0) -> Arrays:
    """The arrays of a file.

    Args:
        cold: share of the items, drawn, that no model is trained on: their rows are left out of training and
            validation, their ids are unknown ones everywhere, and no behaviour is known of them.
    """
    import jax

    from kar_aug.data.encodings import UNKNOWN
    from kar_aug.data.split import PARTS

    with np.load(path) as file:
        host = {name: file[name] for name in file}
    is_cold = np.random.default_rng(0).random(len(host["known/text"])) < cold
    for feature in json.loads(bytes(host["features"])):
        if (feature["embedding"] or feature["name"]) == "item_id" and not feature["is_key"]:
            host[f"column/{feature['name']}"][is_cold] = UNKNOWN
    host["known/collaborative"] &= ~is_cold
    names = ("first", "stop", "seconds", "place/user", "place/item")
    device = {name: jax.device_put(host[name]) for name in host if name in names or name.startswith("column/")}
    parts = {name: host["part"] == PARTS.index(name) for name in PARTS}
    for name in ("train", "validation"):
        parts[name] &= ~is_cold[host["place/item"][host["rows"]]]
    label_of_row = np.zeros(len(host["seconds"]), np.float32)
    label_of_row[host["rows"]] = host["label"]
    device["label"] = jax.device_put(label_of_row)
    return Arrays(
        host,
        device,
        {name: host["rows"][chosen] for name, chosen in parts.items()},
        {name: host["label"][chosen] for name, chosen in parts.items()},
        is_cold,
    )


def tables_of(arrays: Mapping[str, Any], sources: Sequence[str], seed: int) -> dict[str, Any]:
    """What the layer looks up: "item", and what stands beside it. Shuffled vectors, and codes, are drawn by seed."""
    from kar_aug import KnowledgeTable
    from kar_aug.cache.vectors.table import RowCodes

    found = {}
    for number, name in enumerate(sources):
        stored = "text" if name == "shuffled" else name
        vectors, known, codes = arrays[f"vectors/{stored}"], arrays[f"known/{stored}"], arrays["codes/text"]
        if name == "shuffled":
            covered = np.flatnonzero(known)
            order = np.arange(len(vectors))
            order[covered] = np.random.default_rng([seed, 1]).permutation(covered)
            vectors, codes = vectors[order], codes[order]
        table = KnowledgeTable.from_array(vectors, known)
        if stored == "text":
            table = replace(table, codes=RowCodes(codes, CODES))
        found[f"item.{name}" if number else "item"] = table
    return found
