"""KAR's second task on MovieLens: synthetic lists, KAR's base that is blind to who asks, and a fair one.

    python benchmarks/rerank.py --data FOLDER [--log ml-100k] [--backbones PRM,MIR] [--seeds 5] [--users 300]

FOLDER is that of benchmarks/ml1m.py: movies and item_knowledge_*.parquet of MovieLens-1M, and for `--log ml-1m` its
ratings and users. MovieLens-100K is fetched; its movies are those of MovieLens-1M with the same title and year. Texts
become vectors by TF-IDF and a truncated SVD of 64 numbers, in seconds: no encoder is needed, and none is measured.

What is known of a user is no language model's text here, as there is none: a stand-in, the mean of the vectors of what
stands in the user's history, each as often as its rating is above the mean. Its control has metadata for texts.

Two comparisons are made of the same lists: the base "kar" (`inputs = "kar"`, "kar:PRM": items alone) and the base
"fair" (profile, the last rated events). Trained is what the book of runs in --output does not have yet: a run that was
stopped goes on. Printed are the tables of results/rerank.md. What is written holds rows of the data: keep it out of
version control.
"""

from __future__ import annotations

import argparse
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from ml1m import read, texts
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from kar_aug import Project, VectorStore, Watch
from kar_aug.cache import StoreSpec
from kar_aug.compare import Arm, Comparison
from kar_aug.compare.objectives import Reranking
from kar_aug.compare.statistics import bootstrap, estimate, holm, paired_t
from kar_aug.data import Tables
from kar_aug.datasets import movielens_100k

WIDTH = 64
SHOWN = ("MAP@7", "NDCG@7", "HR@1", "HR@2", "NDCG@2")
DECIDES = SHOWN[0]
# Base -> (the inputs of [data], what stands before a model's name).
BASES: Mapping[str, tuple[str, str]] = {"kar": ("kar", "kar:"), "fair": ("full", "")}
Numbers = npt.NDArray[np.float64]
Of = tuple[str, Arm]  # (a base, an arm over it)


def tables_of(log: str, folder: Path, output: Path) -> tuple[Tables, pd.DataFrame]:
    """The log, and (item_id, text) of its items."""
    known = texts(folder)["ml-1m"]
    if log == "ml-1m":
        return read(folder), known
    tables = movielens_100k(output / "data")
    theirs = pd.read_parquet(folder / "movies.parquet", columns=["item_id", "title"])
    text_of = known.merge(theirs, on="item_id").assign(key=lambda frame: frame["title"].map(normalised))
    text_of = text_of.drop_duplicates("key").set_index("key")["text"]
    found = tables.items.assign(text=tables.items["title"].map(normalised).map(text_of)).dropna(subset=["text"])
    rated = tables.interactions["item_id"].isin(found["item_id"]).mean()
    print(f"Texts for {len(found):,} of {len(tables.items):,} movies, of {rated:.1%} of the ratings.")
    return tables, found[["item_id", "text"]]


def normalised(title: str) -> str:
    """A title and its year, whatever its case, accents, other names in brackets, and place of the article."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    year = re.search(r"\((\d{4})\)\s*$", plain)
    name = re.sub(r"\(.*?\)", " ", plain)
    name = re.sub(r"^(.*?), (the|a|an|la|le|les|il|das|der|die|el)\s*$", r"\2 \1", name.strip())
    return re.sub(r"[^a-z0-9]+", " ", name).strip() + f" {year[1] if year else ''}"


def vectors_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Unit vectors of (item_id, text), by item."""
    found = TfidfVectorizer(sublinear_tf=True, min_df=3, stop_words="english").fit_transform(frame["text"])
    reduced = TruncatedSVD(WIDTH, random_state=0).fit_transform(found)
    return pd.DataFrame(_unit(reduced), index=frame["item_id"].tolist())


def of_users(history: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    """The stand-in for what would be said of users: vectors of what they rated, weighted by the rating."""
    known = history[history["item_id"].isin(items.index)]
    weight = (known["rating"] - known["rating"].mean()).to_numpy(np.float64)
    weighted = items.loc[known["item_id"]].to_numpy() * weight[:, np.newaxis]
    summed = pd.DataFrame(weighted).groupby(known["user_id"].to_numpy()).sum()
    return pd.DataFrame(_unit(summed.to_numpy()), index=summed.index.tolist())


def _unit(rows: Numbers) -> Numbers:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9))


def write(path: Path, vectors: pd.DataFrame, what: str) -> None:
    """Write a store, unless it is there: that of today would be the same."""
    if path.exists():
        return
    with VectorStore.writer(path, StoreSpec(f"tf-idf, svd {WIDTH}: {what}", WIDTH)) as writer:
        writer.append(vectors.index.tolist(), ["k"] * len(vectors), vectors.to_numpy())


def settings(options: argparse.Namespace, base: str) -> dict[str, Any]:
    """The kar.toml of a base."""
    inputs, prefix = BASES[base]
    injections = options.injections.split(",")
    features = ["age", "gender", "occupation"]
    numeric = {"age": "buckets"} if options.log == "ml-100k" else {}
    return {
        "workdir": str(options.output),
        "data": {
            "user_features": [name for name in features if name not in numeric],
            "item_features": ["genres", "year"],
            **({"numeric": numeric} if inputs == "full" and numeric else {}),
            "inputs": inputs,
            "lists": "kar",
            **({"sample_users": options.users} if options.users else {}),
            **({"history_length": options.events} if inputs == "full" else {}),
            "past_length": options.events,
            "validation": 0.15,
            "test": 0.25,
        },
        "compare": {
            "task": "rerank",
            "backbones": [f"{prefix}{name}" for name in options.backbones.split(",")],
            "controls": [name for name in options.controls.split(",") if name],
            "knowledge": options.knowledge.split(","),
            # KAR's own way over KAR's base alone: it brought click models nothing (results/ladder.md).
            "injections": [name for name in injections if base == "kar" or name != "fields"],
            "loss": options.loss,
            "metric": DECIDES,
            "seeds": options.seeds,
            "epochs": options.epochs,
            "jobs": 1,
            "batch_size": 256,
            "learning_rate": options.rate,
            "embedding_dim": options.width,
            "patience": options.patience,
        },
    }


def per_list(comparison: Comparison, arm: Arm, metric: str) -> Numbers:
    """A metric of each test list, (seeds, lists)."""
    objective, samples = comparison.objective, comparison.experiment.samples(0)
    assert isinstance(objective, Reranking)
    lists = objective.read(samples)
    predictions = (comparison.prediction(arm, run.seed) for run in comparison.runs[arm])
    return np.stack([objective.per_list(lists, "test", each, metric) for each in predictions])


def projects(options: argparse.Namespace) -> Iterator[tuple[str, Project]]:
    """Each base, and its project with all vectors."""
    tables, text = tables_of(options.log, options.data, options.output)
    about = tables.items["title"].fillna("") + " " + tables.items["genres"].fillna("").str.replace("|", " ")
    stores = {"knowledge": vectors_of(text), "metadata": vectors_of(tables.items[["item_id"]].assign(text=about))}
    frames = {"interactions": tables.interactions, "items": tables.items, "users": tables.users}
    for base in options.bases.split(","):
        project = Project(settings(options, base), **frames, watch=Watch(on_note=print))
        space = project.workspace
        split = space.data.split
        history = split[split["part"] == "history"]
        for what, vectors in stores.items():
            path = {"knowledge": space.store_path, "metadata": space.metadata_path}[what]
            write(path("item"), vectors, f"{what}, items")
            write(path("user"), of_users(history, vectors), f"{what}, users")
        yield base, project


def compared(options: argparse.Namespace) -> dict[str, Comparison]:
    """Both bases, trained."""
    found = {}
    for base, project in projects(options):
        done = project.compare(unaudited=True)
        done.write(options.output / f"{base}.html", reproduce="python benchmarks/rerank.py")
        found[base] = done.comparison
        for sentence in done.comparison.objective.told(done.comparison.experiment.samples(0)):
            print(sentence)
    first, *others = (each.clicked(0) for each in found.values())
    assert all(np.array_equal(first, other) for other in others), "all bases are tested on the same lists"
    return found


def levels(found: Mapping[str, Comparison]) -> Iterator[str]:
    """The table of arms, in Markdown."""
    yield f"| base | arm | {' | '.join(SHOWN)} | sd of {DECIDES} |"
    yield "|" + " --- |" * (len(SHOWN) + 3)
    for rival in next(iter(found.values())).rivals:
        known = (f"{rival.metrics[each.lower()]:.4f}" if each.lower() in rival.metrics else "" for each in SHOWN)
        yield f"| | {rival.name} | {' | '.join(known)} | |"
    for base, comparison in found.items():
        for arm in comparison.arms:
            of_seeds = [per_list(comparison, arm, each).mean(axis=1) for each in SHOWN]
            means = " | ".join(f"{each.mean():.4f}" for each in of_seeds)
            yield f"| {base} | {arm.name} | {means} | {estimate(of_seeds[0]).sd:.4f} |"


def gains(found: Mapping[str, Comparison]) -> Iterator[str]:
    """The table of differences, in Markdown."""
    wanted = list(_pairs(found))
    values = {of: per_list(found[of[0]], of[1], DECIDES) for pair in wanted for of in pair}
    apart = [values[ours] - values[theirs] for ours, theirs in wanted]
    p_values = holm([paired_t(each.mean(axis=1)) for each in apart])
    yield f"| arm | over | {DECIDES} | relative | half of 95% (seeds) | 95% (lists drawn anew) | p (seeds, Holm) |"
    yield "|" + " --- |" * 7
    for (ours, theirs), each, p in zip(wanted, apart, p_values, strict=True):
        seeds, lists, level = estimate(each.mean(axis=1)), bootstrap(each.mean(axis=0)), values[theirs].mean()
        yield (
            f"| {ours[0]}: {ours[1].name} | {theirs[0]}: {theirs[1].name} | {seeds.mean:+.4f} | "
            f"{seeds.mean / level:+.2%} | {seeds.half:.4f} | {lists.low:+.4f} to {lists.high:+.4f} | {p:.2g} |"
        )


def _pairs(found: Mapping[str, Comparison]) -> Iterator[tuple[Of, Of]]:
    """(an arm, what it is set against), each with its base: the fair base against the blind one; knowledge against its
    own base, against controls that enter the same way, and over the blind base against the fair one.
    """
    for base, comparison in found.items():
        for arm in comparison.arms:
            fair, is_blind = Arm(arm.backbone.removeprefix("kar:")), base == "kar" and "fair" in found
            if arm.is_base and is_blind:
                yield ("fair", fair), (base, arm)
            if not arm.has_knowledge:
                continue
            yield (base, arm), (base, arm.base)
            for other in comparison.arms:
                if other.addition.kind == "control" and replace(other, knowledge=arm.knowledge) == arm:
                    yield (base, arm), (base, other)
            if is_blind:
                yield (base, arm), ("fair", fair)


def arguments() -> argparse.ArgumentParser:
    """What can be asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path(".kar/rerank"))
    parser.add_argument("--log", default="ml-100k", choices=["ml-100k", "ml-1m"])
    parser.add_argument("--users", type=int, help="so many of them, drawn; all by default")
    parser.add_argument("--backbones", default="PRM,MIR,SetRank,DLCM")
    parser.add_argument("--bases", default=",".join(BASES))
    parser.add_argument("--knowledge", default="both", help="some of item and both")
    parser.add_argument("--injections", default="fields,similarity")
    parser.add_argument("--controls", default="metadata,shuffled")
    parser.add_argument("--events", type=int, default=20, help="of the past, that the fair base and similarity read")
    parser.add_argument("--loss", default="softmax")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument(
        "--patience", type=int, default=2, help="epochs without a better validation that end a training"
    )
    parser.add_argument("--rate", type=float, default=0.004)
    parser.add_argument("--width", type=int, default=16, help="of embeddings")
    return parser


def main(given: Sequence[str] | None = None) -> None:
    options = arguments().parse_args(given)
    options.output.mkdir(parents=True, exist_ok=True)
    found = compared(options)
    for line in [*levels(found), "", *gains(found)]:
        print(line)
    seconds = [run.train_seconds for each in found.values() for runs in each.runs.values() for run in runs]
    print(json.dumps({"trainings": len(seconds), "seconds a training": round(float(np.median(seconds)), 1)}))


if __name__ == "__main__":
    main()
