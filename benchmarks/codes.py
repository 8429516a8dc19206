"""Semantic ids: what they cost, what they keep, and what they are worth to a model, each with one command.

    python benchmarks/codes.py --data FOLDER                     the proof on MovieLens-1M: its report, then trainings
    python benchmarks/codes.py --data FOLDER --users 1500 --seeds 1    a smaller one
    python benchmarks/codes.py --rows 100000 1000000             seconds and memory of codes for so many vectors

FOLDER is that of benchmarks/ml1m.py, which says what it holds. Tables, texts, vectors, codes and trainings lie in .kar
and are made where they are missing, so that a run that was stopped goes on. The trainings are those of
benchmarks/ml-1m.toml (DeepFM on all inputs): plain, item knowledge as codes and as dense injections, and the controls
in each place; with ids of items among the inputs, and without. "random" codes are what a hash of the id would be.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

TOML, WORK = Path(__file__).with_name("ml-1m.toml"), Path(__file__).parents[1] / ".kar" / "ml-1m"
INJECTIONS = ("codes", "fields", "similarity", "similarity+codes")
DIMENSION, CHUNK, HEAPS = 384, 100_000, 20_000


# MovieLens-1M


def prove(options: argparse.Namespace) -> None:
    """All of it, and the tables as Markdown."""
    from kar_aug import Project
    from kar_aug.cli.progress import Terminal

    if not (WORK / "items.parquet").exists():
        here = Path(__file__).with_name("ml1m.py")
        subprocess.run([sys.executable, here, "--data", options.data, "--output", WORK], check=True)
    compare = {"stores": {}, "jobs": 1} | {n: getattr(options, n) for n in ("injections", "controls", "seeds")}
    project = Project.open(TOML, watch=Terminal(), compare=compare, codes={"size": options.size})
    if not project.workspace.store_path("item").exists():
        project.cache.import_texts(WORK / "ml-1m.parquet", author="DeepSeek")
        project.encode()
    for stored in project.codes().stores:
        print("\n".join(["", stored.title, *stored.report.sentences, *_markdown(_columns(), stored.report.rows)]))
    for among in options.ids:
        settings = replace(project.config.data, item_ids=among == "with", sample_users=options.users)
        title = (
            f"{among.capitalize()} ids of items; {options.users or 'all'} users, {options.seeds} seeds, "
            f"{options.cold:.0%} of the items cold"
        )
        asked = Project(replace(project.config, data=settings), watch=Terminal())
        if options.cold:
            log = WORK / f"cold-{options.cold}.parquet"
            with_cold_items(asked, options.cold).to_parquet(log)
            settings = replace(settings, interactions=str(log.resolve()))
            asked = Project(replace(project.config, data=settings), watch=Terminal())
        print("\n".join(["", title, *_results(asked)]), flush=True)


def with_cold_items(project: Any, share: float) -> pd.DataFrame:
    """The log, in which some items, drawn, have no sample to train on or to choose an epoch by: events with them are
    somebody's past alone. What models read of the past, and what they are tested on, is as it was.

    With ids of items among the inputs a model still learns what such an id says of those whose past it is in.
    """
    split = project.workspace.data.split
    items = np.sort(split["item_id"].unique())
    drawn = items[np.random.default_rng(0).random(len(items)) < share]
    hidden = split["item_id"].isin(drawn) & split["part"].isin(["train", "validation"])
    return split.assign(label=split["label"].mask(hidden)).drop(columns=["part", "moment"])


def _results(project: Any) -> Iterator[str]:
    from kar_aug.compare import by_slice

    done = project.compare().comparison
    rows = []
    for arm in done.arms:
        auc, gauc = done.estimate(arm), done.estimate(arm, "gauc")
        gain = "" if arm.is_base else f"{np.mean(done.gains(arm, arm.base)):+.4f}"
        rows.append((arm.name, f"{auc.mean:.4f}", f"{auc.sd:.4f}", gain, f"{gauc.mean:.4f}"))
    yield from _markdown(("arm", "test AUC", "sd", "over plain", "GAUC"), rows)
    yield ""
    slices = [
        (
            arm.name,
            f"{each.group}: {each.label}",
            f"{each.share:.1%}",
            f"{each.base.mean:.4f}",
            f"{each.gain.mean:+.4f}",
        )
        for arm in done.arms
        if not arm.is_base
        for each in by_slice(done, arm)
        if "item" in each.group
    ]
    yield from _markdown(("arm", "rows", "share", "plain AUC", "gain"), slices)


def _columns() -> tuple[str, ...]:
    from kar_aug.codes.report import COLUMNS

    return COLUMNS


def _markdown(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (columns, ("---",) * len(columns), *rows)]


# Vectors of any number


def measure(rows: int, folder: Path) -> tuple[str, ...]:
    """Make a store, codes for it, bring them up to date with a hundredth more, and look at them; each in seconds."""
    from kar_aug.cache import StoreSpec, VectorStore
    from kar_aug.codes import SemanticIds, report

    random = np.random.default_rng(0)
    heaps = random.standard_normal((HEAPS, DIMENSION), np.float32)
    heaps += 2 * heaps[random.integers(0, 200, HEAPS)]  # heaps of heaps, as kinds of things have kinds

    def append(first: int, count: int) -> VectorStore:
        with VectorStore.writer(folder / "items", StoreSpec("drawn", DIMENSION)) as writer:
            for start in range(first, first + count, CHUNK):
                size = min(CHUNK, first + count - start)
                drawn = heaps[random.integers(0, HEAPS, size)] + random.standard_normal((size, DIMENSION), np.float32)
                drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
                writer.append(list(range(start, start + size)), ["key"] * size, drawn)
        return VectorStore.open(folder / "items")

    store = append(0, rows)
    before = _memory()
    begun, cpu = time.perf_counter(), time.process_time()
    codes = SemanticIds.make(store)
    made, made_cpu, peak = time.perf_counter() - begun, time.process_time() - cpu, _memory()
    store = append(rows, rows // 100)
    begun = time.perf_counter()
    codes = codes.update(store)
    updated, begun = time.perf_counter() - begun, time.perf_counter()
    told = report(codes, store)
    size = sum(path.stat().st_size for path in codes.path.iterdir()) / 1e6
    last = told.levels[-1]
    seconds = (f"{made:.0f} ({made_cpu:.0f})", f"{updated:.1f}", f"{time.perf_counter() - begun:.0f}")
    kept = (f"{told.unique:.1%}", f"{last.neighbours:.1%}", f"{last.left:.1%}")
    return (f"{rows:,}", *seconds, f"{before:,} to {peak:,}", f"{size:,.1f}", *kept)


def _memory() -> int:
    """The most that this process took so far, in megabytes, the store's mapped pages among it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def scale(numbers: list[int]) -> None:
    """A row a number of vectors, each in a process of its own, so that its memory is its own."""
    columns = (
        "vectors", "make, s (CPU s)", "1% more, s", "report, s", "peak MB before and after", "bundle, MB",
        "codes alone", "neighbours with all codes", "distance left",
    )  # fmt: skip
    print("\n".join(_markdown(columns, [])))
    for rows in numbers:
        subprocess.run([sys.executable, __file__, "--one", str(rows)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder with MovieLens-1M and its texts")
    parser.add_argument("--size", type=int, default=32, help="codes a level: some thousand movies need few")
    parser.add_argument("--users", type=int, help="so many alone")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--injections", nargs="+", default=[*INJECTIONS])
    parser.add_argument("--controls", nargs="+", default=["metadata", "shuffled", "random"])
    parser.add_argument(
        "--ids", nargs="+", choices=["with", "without"], default=["with", "without"], help="of items, among the inputs"
    )
    parser.add_argument("--cold", type=float, default=0.0, help="share of the items that no model is trained on")
    parser.add_argument("--rows", type=int, nargs="+", help="vectors to make codes for")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        folder = Path(tempfile.mkdtemp(prefix="codes-"))
        try:
            print("\n".join(_markdown((), [measure(options.one, folder)])[2:]), flush=True)
        finally:
            shutil.rmtree(folder)
    if options.rows:
        scale(options.rows)
    if options.data:
        prove(options)


if __name__ == "__main__":
    main()
