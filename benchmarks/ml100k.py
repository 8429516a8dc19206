"""What which vectors are worth on MovieLens-100K, and where they enter: every table of results/ml-100k.md.

    python benchmarks/ml100k.py --data FOLDER [--parts DeepFM codes] [--output FOLDER]

FOLDER is that of benchmarks/ml1m.py, of which movies.parquet and item_knowledge_*.parquet are read: a strong model's
texts about the movies of MovieLens-1M are those of MovieLens-100K's movies of the same title and year. None of it is
part of this project. MovieLens-100K is fetched as kar-aug fetches it. Texts, vectors, codes and trainings lie in
.kar/ml-100k and are made where they are missing, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

TOML = Path(__file__).with_name("ml-100k.toml")
TABLES = Path(__file__).parents[1] / ".kar" / "ml-100k" / "tables"
_WORDS_IN_FRONT = re.compile(r"^(.*), (the|a|an|le|la|les|l'|il|el|das|der|die)$")

# Part: comparisons that are one table and one family of tests, each by what it has other than ml-100k.toml. All share
# their trainings: an arm is trained once a split and seed. Stores are named by the first, by which tables are made.
_TEXTS, _OF_USERS = ["metadata", "shuffled"], "../.kar/ml-100k/vectors/metadata-user"
_CODES = {"compare": {"injections": ["codes", "fields", "similarity"], "controls": _TEXTS}}
_FIRST = {"compare": {"controls": _TEXTS}}
PARTS: Mapping[str, Sequence[Mapping[str, Mapping[str, Any]]]] = {
    "texts": (_FIRST,),
    "DeepFM": (
        _FIRST,
        {"compare": {"injections": ["similarity", "fields"], "controls": ["metadata"]}},
        {"compare": {"controls": ["collaborative"]}},
    ),
    "more of DeepFM": (
        {"compare": {"controls": [], "stores": {"metadata of users": {"user": _OF_USERS}}}},
        {"compare": {"injections": ["similarity", "fields", "attention"], "controls": [*_TEXTS, "collaborative"]}},
    ),
    "codes": (_CODES,),
    "codes without ids": ({**_CODES, "data": {"item_ids": False}},),
    "DIN": ({"compare": {"controls": _TEXTS, "backbones": ["DIN"]}},),
    "FiBiNET": ({"compare": {"controls": _TEXTS, "backbones": ["FiBiNET"]}},),
    "splits": ({"compare": {"controls": _TEXTS, "vary_split": True}},),
    "temporal": ({"compare": {"controls": _TEXTS, "seeds": 2}, "data": {"protocol": "temporal"}},),
}


# Texts of one edition for another


def texts_for(items: pd.DataFrame, data: Path) -> pd.DataFrame:
    """(item_id, text) of the movies that MovieLens-1M has under the same title and year, each once."""
    movies = pd.read_parquet(data / "movies.parquet")
    texts = pd.read_parquet(next(iter(sorted(data.glob("item_knowledge_*.parquet")))))
    known = movies.merge(texts[["item_id", "text"]], on="item_id")
    known = known[known["text"].str.strip() != ""]
    known = known.assign(key=known["title"].map(title_and_year)).drop_duplicates("key", keep=False)
    return items.assign(key=items["title"].map(title_and_year))[["item_id", "key"]].merge(
        known[["key", "text"]], on="key"
    )


def title_and_year(title: str) -> tuple[str, str]:
    """What two spellings of a title have in common, and its year: "Postino, Il (The Postman) (1994)"."""
    year = (re.findall(r"\((\d{4})\)\s*$", title) or [""])[0]
    name = re.sub(r"\([^)]*\)", "", title).strip().lower()
    name = _WORDS_IN_FRONT.sub(r"\2 \1", name)
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", " ", plain).strip(), year


def prepare(data: Path) -> None:
    """Texts and vectors of movies, and what prompts show of users as vectors."""
    from kar_aug import Project
    from kar_aug.cli.progress import Terminal
    from kar_aug.encode import Texts, encode
    from kar_aug.pipeline.encoding import open_encoder

    project = Project.open(TOML, watch=Terminal())
    workspace = project.workspace
    items = workspace.data.tables.items
    texts = texts_for(items, data)
    print(f"{len(texts):,} of {len(items):,} movies have a text of MovieLens-1M's movie of the same title and year.")
    path = workspace.config.work / "texts.parquet"
    texts.to_parquet(path, index=False)
    project.cache.import_texts(path, author="DeepSeek")
    print(project.encode())
    encoder = open_encoder(workspace, None)
    encode(Texts(partial(workspace.asking.metadata, "user")), workspace.metadata_path("user"), encoder)
    project.codes()


# Trainings and tables


def run(name: str, seeds: int | None, output: Path) -> None:
    """Train what is missing of a part; its tables as Markdown, and its plot."""
    from kar_aug import Project
    from kar_aug.cli.progress import Terminal
    from kar_aug.report.plots import intervals
    from kar_aug.report.tables import markdown

    found = []
    for changes in PARTS[name]:
        compare = {"seeds": seeds} if seeds else {}
        project = Project.open(TOML, watch=Terminal(), **{**changes, "compare": {**changes["compare"], **compare}})
        if "collaborative" in project.config.compare.controls:
            project.encode(collaborative=True)
        found.append(project.compare().comparison)
    done = replace(found[0], runs={arm: runs for each in found for arm, runs in each.runs.items()})
    file = output / name.replace(" ", "-").lower()
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = " / ".join(f"{count:,}" for count in done.rows.values())
    told = f"# {name}: {rows} rows of train / validation / test, {done.seeds} seeds\n\n{markdown(done)}\n"
    file.with_suffix(".md").write_text(told + "\n".join(by_slices(done)) + "\n")
    for picture in intervals(done).values():  # of the one backbone
        file.with_suffix(".svg").write_text(picture)
    print(file.with_suffix(".md").read_text())


def by_slices(comparison: Any) -> Iterator[str]:
    """What each arm has more than its plain backbone, by how cold the item and how long the history is."""
    from kar_aug.compare import by_slice

    found = {arm: by_slice(comparison, arm) for arm in comparison.arms if not arm.is_base}
    yield f"| test rows | | share | plain | {' | '.join(arm.name for arm in found)} |"
    yield "|" + " --- |" * (4 + len(found))
    for slices in zip(*found.values(), strict=False):
        first = slices[0]
        if first.group in ("training rows of the item", "earlier events of the user"):
            gains = " | ".join(f"{each.gain.mean:+.4f} ± {each.gain.half:.4f}" for each in slices)
            yield f"| {first.group} | {first.label} | {first.share:.1%} | {first.base.mean:.4f} | {gains} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="where the texts are; not needed once they are vectors")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=[*PARTS])
    parser.add_argument("--seeds", type=int, help="fewer, or more, than a part has")
    parser.add_argument("--output", type=Path, default=TABLES, help="for tables and plots of the parts")
    options = parser.parse_args()
    if options.data is not None:
        prepare(options.data)
    for name in options.parts:
        run(name, options.seeds, options.output)


if __name__ == "__main__":
    main()
