"""KAR's second task on MovieLens: synthetic lists, KAR's base that is blind to who asks beside the fair one.

    python benchmarks/rerank.py --data FOLDER [--users 300] [--backbones kar:PRM,PRM] [--seeds 1] [--epochs 4]

FOLDER is that of benchmarks/ml1m.py: ratings, movies, users and item_knowledge_*.parquet of MovieLens-1M. Texts become
vectors by TF-IDF and a truncated SVD of 64 numbers, in seconds: no encoder is needed, and none is measured. What is
written holds rows of the data: keep the output out of version control. Printed are the table and what it says.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from ml1m import read, texts
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from kar_aug import Project, VectorStore, Watch
from kar_aug.cache import StoreSpec
from kar_aug.cli.stages import print_results

WIDTH = 64


def vectors(path: Path, frame: pd.DataFrame) -> None:
    """Write the vectors of (item_id, text)."""
    found = TfidfVectorizer(sublinear_tf=True, min_df=3, stop_words="english").fit_transform(frame["text"])
    reduced = TruncatedSVD(WIDTH, random_state=0).fit_transform(found)
    reduced /= np.maximum(np.linalg.norm(reduced, axis=1, keepdims=True), 1e-9)
    with VectorStore.writer(path, StoreSpec(f"tf-idf, svd {WIDTH}", WIDTH)) as writer:
        writer.append(frame["item_id"].tolist(), ["k"] * len(frame), reduced)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path(".kar/rerank"))
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--backbones", default="kar:PRM,PRM")
    parser.add_argument("--controls", default="shuffled,metadata")
    parser.add_argument("--inputs", default="kar", choices=["kar", "full"])
    parser.add_argument("--loss", default="bce")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    tables = read(options.data)
    settings = {
        "workdir": str(options.output),
        "data": {
            "user_features": ["gender", "age", "occupation"],
            "item_features": ["genres", "year"],
            "inputs": options.inputs,
            "lists": "kar",
            "sample_users": options.users,
            "history_length": 20,
            "past_length": 50,
            "validation": 0.15,
            "test": 0.25,
        },
        "compare": {
            "task": "rerank",
            "backbones": options.backbones.split(","),
            "controls": [name for name in options.controls.split(",") if name],
            "knowledge": ["item"],
            "loss": options.loss,
            "seeds": options.seeds,
            "epochs": options.epochs,
            "jobs": options.jobs,
            "batch_size": 128,
            "learning_rate": 0.002,
            "patience": 2,
        },
    }
    frames = {"interactions": tables.interactions, "items": tables.items, "users": tables.users}
    project = Project(settings, **frames, watch=Watch(on_note=print))
    about = tables.items["title"] + " " + tables.items["genres"].str.replace("|", " ")
    vectors(project.workspace.store_path("item"), texts(options.data)["ml-1m"])
    vectors(project.workspace.metadata_path("item"), tables.items[["item_id"]].assign(text=about.fillna("")))
    done = project.compare(unaudited=True)
    print_results(done, done.comparison.objective.title)
    done.write(options.output / "report.html", reproduce="python benchmarks/rerank.py")


if __name__ == "__main__":
    main()
