"""The stages as the command line runs them: the library's functions with progress, nothing more."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kar_aug._tensorflow import choose_keras
from kar_aug.cache import Knowledge, VectorStore
from kar_aug.cli.progress import bar, notes, results, table
from kar_aug.config import EncodeConfig
from kar_aug.errors import ConfigError
from kar_aug.pipeline.workspace import SOURCES, Workspace
from kar_aug.registry import CONTROLS

if TYPE_CHECKING:
    from kar_aug.report import Section


def encode(workspace: Workspace) -> None:
    """Bring the vector stores up to date."""
    from kar_aug.encode import Texts, load_encoder

    config = workspace.config.encode
    with _quiet_loading():
        encoder = load_encoder(config.encoder, long_texts=config.long_texts, base_url=config.base_url)
    for name, dimension in (("truncate_dim", config.truncate_dim), ("pca", config.pca)):
        if dimension is not None and dimension >= encoder.dimension:
            raise ConfigError(f"[encode] {name} must be below the {encoder.dimension} numbers of {encoder.name}.")
    clustered = [source for source in SOURCES if len(workspace.knowledge_names(source)) > 1]
    if config.pca is not None and clustered:
        raise ConfigError("[encode] pca is fitted to one store, and groups have their own: use truncate_dim.")
    with workspace.open_cache() as cache:
        names = {source: workspace.knowledge_names(source) for source in SOURCES}
        texts_of = {n: Texts(partial(workspace.knowledge, cache, n)) for source in SOURCES for n in names[source]}
        some = [name for name, texts in texts_of.items() if next(iter(texts), None) is not None]
        for name in some or names[SOURCES[0]]:  # without any, the first says what to do
            title = f"{name}s" if name in SOURCES else name
            _encode_texts(title, texts_of[name], workspace.vectors_path(name), encoder, config)
    known = [source for source in SOURCES if any(name in some for name in names[source])]
    for source in SOURCES:
        if source not in known:
            notes.print(f"  {source}s: no knowledge, nothing to encode")
        elif source in clustered:
            _mix(workspace, source)
    for name in workspace.config.compare.controls:
        control = CONTROLS.load(name)()
        for source in known if control.needs_encoding else ():
            texts = Texts(partial(control.texts, workspace, source))
            _encode_texts(f"{source}s' {name}", texts, control.folder(workspace, source), encoder, config)


def _mix(workspace: Workspace, source: str) -> None:
    """Give each entity its group's vector, mixed with its own."""
    from kar_aug.pipeline.groups import mix

    own, groups = map(workspace.vectors_path, workspace.knowledge_names(source))
    clusters = workspace.clusters(source)
    assert clusters is not None  # only then there is knowledge of groups
    if not groups.exists():
        raise ConfigError(f"Groups of {source}s have no knowledge yet. Run kar-aug generate with the same settings.")
    mixed = mix(
        VectorStore.open(own) if own.exists() else None,
        VectorStore.open(groups),
        clusters.of,
        workspace.store_path(source),
        own_share=workspace.config.prompts.own_share,
    )
    notes.print(f"  {source}s: {len(mixed)} vectors mixed with those of {len(clusters.members)} groups", markup=False)


def _encode_texts(title: str, texts: Iterable[Knowledge], path: Path, encoder: Any, config: EncodeConfig) -> None:
    from kar_aug.encode import encode as run

    total = sum(1 for _ in texts)
    done = 0
    with bar(f"vectors of {title}", total) as show:

        def count(rows: int) -> None:
            nonlocal done
            done += rows
            show(done, "")

        split = getattr(encoder, "split", 0)
        store = run(
            texts,
            path,
            encoder,
            dtype=config.dtype,
            truncate_dim=config.truncate_dim,
            pca=config.pca,
            on_progress=count,
        )
    long = getattr(encoder, "split", 0) - split
    notes.print(
        f"  {title}: {len(store)} vectors of {store.spec.dimension} by {encoder.name}"
        + (f"; {long} texts were longer than its window: averaged over their pieces" if long else ""),
        markup=False,
        soft_wrap=True,
    )


def audit(workspace: Workspace) -> bool:
    """Print what was checked and found; whether there is no leak."""
    from kar_aug.audit import REMEDIES
    from kar_aug.audit import audit as run

    done = run(workspace)
    rows: list[tuple[str, ...]] = [
        (check.name, f"{check.count:,} {check.unit}", _result(check)) for check in done.checks
    ]
    table("Audit", ("checked", "on", "result"), rows)
    for kind, findings in (("leak", done.leaks), ("cannot be proved", done.unproved)):
        for finding in findings:
            results.print(f"  {kind}: {finding.text}", markup=False, soft_wrap=True)
            if finding.example:
                results.print(f"    for example {finding.example}", markup=False, soft_wrap=True)
    for kind in dict.fromkeys(finding.kind for finding in done.leaks):
        results.print(f"  what to do ({kind}): {REMEDIES[kind]}", markup=False, soft_wrap=True)
    results.print(f"  {done.verdict}", markup=False, soft_wrap=True)
    return not done.leaks


def _result(check: Any) -> str:
    if check.leaks:
        return "LEAK"
    return "unproved" if check.unproved else "ok" if check.count else "nothing"


def _audited(workspace: Workspace, unaudited: bool) -> Section:
    """What the report says of the audit; refuses to go on where there are leaks."""
    from kar_aug.audit import require_clean
    from kar_aug.report import Section

    if unaudited:
        return Section("Leakage audit", "None: the comparison ran with --unaudited. It proves nothing.")
    done = require_clean(workspace)
    rows = [(check.name, f"{check.count:,} {check.unit}", _result(check)) for check in done.checks]
    text = f"{done.verdict}. " + " ".join(f"Cannot be proved: {finding.text}" for finding in done.unproved)
    return Section("Leakage audit", text, ("checked", "on", "result"), rows)


def compare(workspace: Workspace, report: Path, *, reproduce: str, title: str, unaudited: bool = False) -> None:
    """Train and test the arms, print the table, write the report and the tables beside it.

    Args:
        unaudited: train though there may be leaks.

    Raises:
        LeakageError: The audit found leaks.
    """
    choose_keras()  # before anything imports it
    from kar_aug.compare import Comparison, Event, headlines, leading
    from kar_aug.compare import compare as run
    from kar_aug.report import TERMINAL, rows, write_report, write_tables

    audited = _audited(workspace, unaudited)
    provenance = _provenance(workspace)
    total = done = 0
    comparison: Comparison
    with contextlib.ExitStack() as stack:
        show: Any = None

        def start(units: int, finished: int) -> None:
            nonlocal show, total, done
            total, done = units, finished
            show = stack.enter_context(bar("models", total))
            show(done, "")

        def progress(event: Event) -> None:
            nonlocal done
            done += event.done
            show(done, f"{event.arm.name}, {event.unit}, epoch {event.epoch}: validation AUC {event.auc:.4f}")

        comparison = run(workspace, on_start=start, on_event=progress)
    table(title, TERMINAL, rows(comparison, TERMINAL))
    for sentence in [*headlines(comparison), *(verdict.text for verdict in leading(comparison))]:
        results.print(f"  {sentence}", markup=False, soft_wrap=True)
    write_tables(comparison, report.parent)
    write_report(
        comparison,
        report,
        knowledge=provenance,
        reproduce=reproduce,
        title=title,
        sections=[audited],
        maps=_vector_maps(workspace),
    )
    results.print(f"Report: {report}; beside it results.csv and results.md", markup=False, soft_wrap=True)


def export(workspace: Workspace, backbone: str, seed: int, output: Path) -> None:
    """Write a trained model for serving."""
    choose_keras()  # before anything imports it
    from kar_aug.compare import export_model

    export_model(workspace, backbone, seed, output)
    results.print(f"SavedModel: {output}", markup=False, soft_wrap=True)


@contextlib.contextmanager
def _quiet_loading() -> Iterator[None]:
    """Loading an encoder prints bars of its own."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    yield


def _vector_maps(workspace: Workspace) -> dict[str, Any]:
    """The items' vectors, coloured by the first feature of the items that the models read."""
    from kar_aug.data.features import SEPARATOR
    from kar_aug.inspect.vector_map import vector_map

    items, features = workspace.feature_tables.items, workspace.config.data.item_features
    path = workspace.store_path("item")
    if not features or not path.exists():
        return {}
    first = items[features[0]].fillna("").astype(str).str.split(SEPARATOR).str[0]
    label = dict(zip(items["item_id"].tolist(), first.tolist(), strict=True))
    return {f"Knowledge of items, by {features[0]}": vector_map(VectorStore.open(path), label)}


def inspect_vectors(workspace: Workspace, item: str | None) -> None:
    """Print what the vector stores hold; with an item, its nearest neighbours."""
    from kar_aug.inspect.nearest import find, nearest, norms, titles

    if item is not None:
        store = VectorStore.open(workspace.store_path("item"))
        named = titles(workspace.tables.items, "item_id")
        id = find(named, item)
        rows: list[tuple[str, ...]] = [
            (named.get(other, str(other)), f"{cosine:.3f}") for other, cosine in nearest(store, id)
        ]
        table(f"Nearest to {named[id]} by {store.spec.encoder}", ("title", "cosine, centred"), rows)
        return
    found: list[tuple[str, ...]] = []
    for column, store in workspace.stores().items():
        events, ids = workspace.split[column].tolist(), workspace.tables.ids(column.removesuffix("_id"))
        low, middle, high = np.quantile(norms(store), [0, 0.5, 1]) if len(store) else (0, 0, 0)
        found.append(
            (
                column.removesuffix("_id"),
                f"{len(store):,}",
                f"{store.spec.dimension} {store.spec.dtype}",
                f"{store.coverage(events):.1%}",
                f"{store.coverage(ids):.1%}",
                f"{low:.3f} / {middle:.3f} / {high:.3f}",
            )
        )
    columns = ("source", "vectors", "dimension", "coverage of events", "of ids", "norms: least / median / most")
    table("Vectors", columns, found)
    for column, store in workspace.stores().items():
        described = {**asdict(store.spec), "as_of": store.manifest.as_of, "generation": store.manifest.generation}
        told = ", ".join(f"{name} {_plain(value)}" for name, value in described.items() if value not in ("", (), None))
        results.print(
            f"{column.removesuffix('_id')}s: {told}, fingerprint {store.fingerprint}", markup=False, soft_wrap=True
        )


def _plain(value: object) -> str:
    return " + ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _provenance(workspace: Workspace) -> dict[str, str]:
    """How the knowledge was made, and what it cost."""
    with workspace.open_cache() as cache:
        counts, usage = cache.counts(), cache.usage()
    stores = [VectorStore.open(path) for source in SOURCES if (path := workspace.store_path(source)).exists()]
    models = sorted({model for store in stores for model in store.spec.language_models})
    recipes = {source: workspace.knowledge_source(source) for source in SOURCES}
    asked = {"recipes": ", ".join(recipes.values())} if tuple(recipes.values()) != SOURCES else {}
    priced = [cost for *_, cost in usage if cost is not None]
    return {
        "language model": ", ".join(models),
        **asked,
        "encoder": ", ".join(sorted({store.spec.encoder for store in stores})),
        "answers": f"{counts['ok']:,} whole, {counts['truncated']:,} cut off, {counts['failed']:,} failed",
        "tokens": f"{counts['prompt_tokens']:,} asked, {counts['completion_tokens']:,} answered",
        "cost of the knowledge": f"{sum(priced):,.2f} US dollars" if priced else "no price is known for this model",
    }
