"""Whether the cheaper ways to train with knowledge come to the same AUC: MovieLens-1M, some hundred thousand ratings.

    TF_USE_LEGACY_KERAS=1 python benchmarks/equal_auc.py --data FOLDER

FOLDER is that of benchmarks/ml1m.py. What a language model said of each movie is encoded by TF-IDF and an SVD into 384
numbers, 64 of them by PCA; a user is the mean of the movies that they liked in the training part. The model, a DeepFM
of two ids, has little else to learn from; the rows of both parts are drawn at random. In "1 step in 8" the experts
learn in every eighth step alone; between them `prestore(model)` learns, whose tables are brought up to date then.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from ml1m import read, texts
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import roc_auc_score

from kar_aug import KnowledgeAugmentation, PrestoredAugmentation, prestore
from kar_aug._helpers.keras import keras
from kar_aug.backbones import Settings
from kar_aug.backbones.protocol import nothing
from kar_aug.data.features import Feature
from kar_aug.registry import BACKBONES, INJECTIONS

BATCH, EVERY = 4096, 8
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "d=384": {"dimension": 384},
    "d=384, 1 step in 8": {"dimension": 384, "every": EVERY},
    "d=384, mlp": {"dimension": 384, "adaptor": "mlp"},
    "d=64": {"dimension": 64},
}


class Log:
    """Some rows, and what is known of users and movies.

    Args:
        train, test: rows of each part.
    """

    def __init__(self, data: Path, train: int, test: int) -> None:
        tables = read(data)
        rows = tables.interactions.sample(train + test, random_state=0)
        users = {id: place for place, id in enumerate(tables.users["user_id"])}
        items = {id: place for place, id in enumerate(tables.items["item_id"])}
        self.sizes = {"user": len(users), "item": len(items)}
        self.ids = {
            "user": rows["user_id"].map(users).to_numpy("int32"),
            "item": rows["item_id"].map(items).to_numpy("int32"),
        }
        self.label = (rows["rating"].to_numpy() > 3).astype("float32")
        self.train, self.test = slice(0, train), slice(train, train + test)
        said = texts(data)["ml-1m"].set_index("item_id")["text"].reindex(list(items)).fillna("")
        weighted = TfidfVectorizer(sublinear_tf=True, min_df=3, stop_words="english").fit_transform(said)
        movies = TruncatedSVD(384, random_state=0).fit_transform(weighted).astype("float32")
        self.vectors = {384: self._of_both(movies), 64: self._of_both(PCA(64, random_state=0).fit_transform(movies))}

    def _of_both(self, movies: Any) -> dict[str, Any]:
        """Vectors of length 1 of movies, and the means of what each user liked."""
        movies = movies / np.maximum(np.linalg.norm(movies, axis=1, keepdims=True), 1e-6)
        liked = self.label[self.train] > 0
        users = np.zeros((self.sizes["user"], movies.shape[1]), "float32")
        np.add.at(users, self.ids["user"][self.train][liked], movies[self.ids["item"][self.train][liked]])
        users = users / np.maximum(np.linalg.norm(users, axis=1, keepdims=True), 1e-6)
        return {"user": users.astype("float16"), "item": movies.astype("float16")}

    def part(self, rows: slice, names: list[str]) -> dict[str, Any]:
        """Inputs of some rows, by name."""
        return {name: self.ids[name.removesuffix("_id")][rows][:, np.newaxis] for name in names}


def trained_auc(log: Log, variant: str, seed: int, epochs: int) -> tuple[float, float]:
    """AUC on the test part, and seconds of training."""
    options = dict(VARIANTS[variant])
    every, dimension = options.pop("every", 1), options.pop("dimension", None)
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    features = [Feature(f"{name}_id", size) for name, size in log.sizes.items()]
    augmentation, injection = None, nothing
    if dimension is not None:
        augmentation, injection = KnowledgeAugmentation(log.vectors[dimension], **options), INJECTIONS.load("fields")()
        features += [Feature(name, size, is_key=True) for name, size in log.sizes.items()]
    names = [feature.name for feature in features]
    settings = Settings(32, (256, 128), seed=seed)
    model = BACKBONES.load("DeepFM")(features, settings, augmentation, injection)
    models = [model] if every == 1 else [model, prestore(model)]
    for each in models:
        each.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy", jit_compile=False)
    inputs, label = log.part(log.train, names), log.label[log.train]
    random, started, step = np.random.default_rng(seed), time.perf_counter(), 0
    for _ in range(epochs):
        order = random.permutation(len(label))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            learning = models[0 if step % every == 0 else 1]
            learning.train_on_batch({name: values[chosen] for name, values in inputs.items()}, label[chosen])
            if every > 1 and learning is model:
                tables = PrestoredAugmentation.of(augmentation).get_weights()
                models[1].get_layer(f"{augmentation.name}_prestored").set_weights(tables)
            step += 1
    seconds = time.perf_counter() - started
    asked = {name: tf.constant(values) for name, values in log.part(log.test, names).items()}
    return float(roc_auc_score(log.label[log.test], np.asarray(model(asked, training=False)))), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--train", type=int, default=250_000, help="rows")
    parser.add_argument("--test", type=int, default=50_000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    log = Log(options.data, options.train, options.test)
    print("| with | test AUC, seed by seed | mean | seconds of training |\n| --- | --- | --- | --- |", flush=True)
    for variant in VARIANTS:
        found = [trained_auc(log, variant, seed, options.epochs) for seed in range(options.seeds)]
        aucs, seconds = np.asarray(found).T
        each = ", ".join(f"{auc:.4f}" for auc in aucs)
        print(
            f"| {variant} | {each} | {aucs.mean():.4f} ± {aucs.std(ddof=1):.4f} | {np.median(seconds):.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
