"""Beside a peer, on exactly the same rows: kar-aug's DeepFM and DIN, and FuxiCTR's, on MovieLens-1M.

    python benchmarks/peers.py --environment .kar/fuxictr --seeds 0

What is needed stands at the top of benchmarks/peers.toml. FuxiCTR gets a virtual environment of its own, which is made
if it is not there, and reads what kar-aug wrote for it: the samples, as codes, and the items' vectors, for its
`pretrained_emb` (benchmarks/peers_fuxictr.py). Both have the same inputs, batches, widths, learning rate and epochs at
most, penalise the squares of embeddings alike, stop by the AUC of the same validation part, and are given one core, one
after the other. Where they differ is what each does by itself: FuxiCTR lowers the learning rate where validation does
not rise (unless told not to: "constant rate"), and penalises nothing by itself ("no penalty"); kar-aug drops 5% of the
ids at random.

Rows a second are of a whole training, by seconds of the processor: building, all epochs, and validation after each. The
rows stand in `runs.jsonl` of the folder; what is there is not trained again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

FUXICTR = "fuxictr==2.3.10"
HERE = Path(__file__).parent
PARTS = ("train", "validation", "test")
VECTORS = 64
THEIRS = ("plain", "plain, no penalty", "plain, constant rate", "vectors, by pretrained_emb")
OURS = {
    "plain": ("", ()),
    "vectors, by fields": ("fields", ("item",)),
    "vectors, by similarity": ("similarity", ("item",)),
    "vectors, by attention": ("attention", ("item",)),
    "vectors, by events": ("events", ("item",)),
}


def prepared(config: Path, folder: Path) -> Any:
    """The experiment; and, written for the peer, its samples as codes and the vectors of items."""
    from kar_aug import Project
    from kar_aug.compare.experiment import Experiment

    experiment = Experiment(Project.open(config).workspace)
    if (folder / "task.json").exists():
        return experiment
    samples, settings = experiment.samples(0), experiment.config.training
    folder.mkdir(parents=True, exist_ok=True)
    names = [feature.name for feature in samples.features]
    for part in PARTS:
        rows = samples.of(part)
        inputs = samples.read(rows, names)
        arrays: dict[str, Any] = {name: values.astype(np.int32) for name, values in inputs.items()}
        np.savez(folder / f"{part}.npz", label=samples.label[rows], **arrays)
    codes, vectors = _vectors(experiment, samples)
    np.savez(folder / "vectors.npz", key=codes, value=vectors)
    task = {
        "features": [
            {"name": f.name, "size": f.vocabulary_size, "length": f.length, "shares": f.embedding, "told": f.sequence}
            for f in samples.features
        ],
        "settings": {
            "batch_size": settings.batch_size,
            "learning_rate": settings.learning_rate,
            "epochs": settings.epochs,
            "patience": settings.patience,
            "embedding_dim": settings.embedding_dim,
            "hidden_units": list(settings.hidden_units),
            "dropout": settings.dropout,
            "l2_embedding": settings.l2_embedding,
            "vectors": VECTORS,
        },
    }
    (folder / "task.json").write_text(json.dumps(task, indent=1))
    return experiment


def _vectors(experiment: Any, samples: Any) -> tuple[Any, Any]:
    """Codes of items, (items,), and what is known of them, centred and reduced to 64 numbers, (items, 64)."""
    from sklearn.decomposition import PCA

    from kar_aug.compare import Arm

    arm = Arm("DeepFM", "item", ("item",), "hybrid-expert", "similarity")
    matrix, known = experiment.tables(arm, 0)["item"].matrix()
    codes = samples.columns["item_id"].values[: len(known)]
    trained = known & (codes > 1)  # 0 is missing, 1 whatever training did not see: no item of its own
    reduced = PCA(VECTORS, random_state=0).fit_transform(np.asarray(matrix[trained], np.float32))
    return codes[trained], (reduced / reduced.std()).astype(np.float32)


def train(experiment: Any, backbone: str, way: str, seed: int) -> dict[str, Any]:
    """One of ours, in this process."""
    from kar_aug.compare import Arm
    from kar_aug.compare.objectives import CLICKS
    from kar_aug.compare.training import tested
    from kar_aug.compare.training import train as trained

    injection, entities = OURS[way]
    arm = Arm(backbone, "item", entities, "hybrid-expert", injection) if injection else Arm(backbone)
    samples, tables = experiment.samples(seed), experiment.tables(arm, seed) if injection else {}
    before = time.process_time()
    done = trained(arm, seed, samples, tables, experiment.config.training)
    seconds = time.process_time() - before
    count = sum(int(np.prod(weight.shape)) for weight in done.model.trainable_weights)
    auc = CLICKS.evaluate(samples, tested(done.model, samples, CLICKS))["auc"]
    return {"curve": list(done.curve), "auc": float(auc), "seconds": seconds, "parameters": count}


def theirs(python: Path, folder: Path, backbone: str, way: str, seed: int) -> dict[str, Any]:
    """One of FuxiCTR's, in its own environment."""
    command = [python, HERE / "peers_fuxictr.py", folder, backbone, way, str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"FuxiCTR's {backbone} ({way}) ended with {done.returncode}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def environment(path: Path) -> Path:
    """The Python of FuxiCTR's environment, made if it is not there."""
    python = path / "bin" / "python"
    if not python.exists():
        venv.create(path, with_pip=True)
        constraints = HERE.parent / "constraints.txt"
        subprocess.run(
            [str(python), "-m", "pip", "install", "-q", "-c", str(constraints), FUXICTR, "torch"], check=True
        )
    return python


class Runs:
    """What is trained already, one JSON line a run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def has(self, **key: Any) -> bool:
        return any(all(row[name] == value for name, value in key.items()) for row in self.rows)

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def show(rows: Sequence[dict[str, Any]], count: int) -> None:
    """A line a way, means over its seeds."""
    from kar_aug.cli.progress import table

    lines = []
    for backbone, library, way in dict.fromkeys((row["backbone"], row["library"], row["way"]) for row in rows):
        runs = [r for r in rows if (r["backbone"], r["library"], r["way"]) == (backbone, library, way)]
        aucs = [run["auc"] for run in runs]
        epochs = sum(len(run["curve"]) for run in runs)
        speed = count * epochs / sum(run["seconds"] for run in runs)
        deviation = f"{np.std(aucs, ddof=1):.4f}" if len(aucs) > 1 else ""
        lines.append((backbone, library, way, str(len(runs)), f"{np.mean(aucs):.4f}", deviation,
                      f"{epochs / len(runs):.1f}", f"{speed:,.0f}", f"{runs[0]['parameters']:,}"))  # fmt: skip
    heads = ("backbone", "library", "", "seeds", "test AUC", "sd", "epochs", "rows a CPU second", "parameters")
    table("The same rows of MovieLens-1M", heads, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=HERE / "peers.toml")
    parser.add_argument("--folder", type=Path, default=Path(".kar/peers"), help="of what is written")
    parser.add_argument("--environment", type=Path, default=Path(".kar/fuxictr"), help="FuxiCTR's own")
    parser.add_argument("--backbones", nargs="+", default=["DeepFM", "DIN"], choices=["DeepFM", "DIN"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    options = parser.parse_args()
    python = environment(options.environment)
    for name in ("OMP", "MKL", "OPENBLAS", "TF_NUM_INTRAOP", "TF_NUM_INTEROP"):
        os.environ[f"{name}_{'' if name.startswith('TF') else 'NUM_'}THREADS"] = "1"
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    experiment = prepared(options.config, options.folder)
    runs = Runs(options.folder / "runs.jsonl")
    for seed in options.seeds:
        for backbone in options.backbones:
            for library, ways in {"FuxiCTR": THEIRS, "kar-aug": OURS}.items():
                for way in ways:
                    key = {"library": library, "backbone": backbone, "way": way, "seed": seed}
                    if not runs.has(**key):
                        print(*key.values(), sep=", ", file=sys.stderr, flush=True)
                        row = (
                            theirs(python, options.folder, backbone, way, seed)
                            if library == "FuxiCTR"
                            else train(experiment, backbone, way, seed)
                        )
                        runs.add(key | row)
    show(runs.rows, len(experiment.samples(0).of("train")))


if __name__ == "__main__":
    main()
