"""Whether a project's knowledge pays: the trainings, what they say, and the report; then a model for serving."""

from __future__ import annotations

import html
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kar_aug._helpers.formats import SAVED_MODEL, folder_for_model
from kar_aug._helpers.printed import Printed
from kar_aug._helpers.tensorflow import choose_keras
from kar_aug.audit import Audit, require_clean
from kar_aug.cache import VectorStore
from kar_aug.data.cells import values_of
from kar_aug.errors import ConfigError
from kar_aug.inspect import inspect as look_at
from kar_aug.pipeline.fairness import COLUMNS, Fairness
from kar_aug.pipeline.watch import SILENT, Show, Watch
from kar_aug.pipeline.workspace import ENTITIES, Workspace
from kar_aug.pipeline.workspace.passed_on import MODEL, note

if TYPE_CHECKING:  # they need what the offline half does not
    from kar_aug.compare import Comparison, Event, Verdict
    from kar_aug.report import Example, Section

_LOOKED_AT = 100  # items that are looked through for an example
_IN_ALL_MODELS = "All models read semantic ids of items, the plain ones too ([data] item_features)"
_UNAUDITED = "The comparison ran with --unaudited. It proves nothing."


class Verdicts(Printed, tuple["Verdict", ...]):
    """What decides: the fullest knowledge of each backbone against it, against controls and other stores. Printed, a
    sentence each.
    """

    @property
    def frame(self) -> pd.DataFrame:
        """A row a verdict: model, against, beats_it, the gain in AUC with half its 95% interval, seeds, p-values."""
        rows = [
            {
                "model": each.arm.name,
                "against": each.against.name,
                "beats_it": each.word,
                "gain": each.gain.mean,
                "half_interval": each.gain.half,
                "up": each.up,
                "seeds": each.seeds,
                "p": each.t,
                "wilcoxon": each.wilcoxon,
                **_over_rows(each),
            }
            for each in self
        ]
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        return "\n".join(each.text for each in self)


def _over_rows(verdict: Verdict) -> dict[str, float]:
    """What says whether other test rows would show it: DeLong's p-value, or what came of drawing lists anew."""
    if verdict.lists is None:
        return {"delong": verdict.delong}
    return {"bootstrap": verdict.lists.p, "low": verdict.lists.low, "high": verdict.lists.high}


@dataclass(frozen=True)
class Compared(Printed):
    """The trained arms, and what they say.

    Args:
        comparison: all runs, with their predictions.
        audited: the audit before; None where it was left out.
        provenance: how the knowledge was made and what it cost, label -> value.
        dollars: what it cost; None where no price is known.
    """

    workspace: Workspace
    comparison: Comparison
    audited: Audit | None
    provenance: Mapping[str, str]
    dollars: float | None = None

    @property
    def price(self) -> list[str]:
        """What the knowledge cost beside what it brings, a sentence; none where no price is known."""
        if self.dollars is None:
            return []
        over_plain = [v for v in self.verdicts if v.against.is_base]
        gains = [v for v in over_plain if v.word == "yes"]
        shares = [f"{_money(self.dollars / v.gain.mean / 1000)} for each +0.001 of {v.arm.name}" for v in gains]
        none = "no plain model is worth a gain over it" if any(v.weakness for v in over_plain) else "no gain was shown"
        told = "; ".join(shares) or f"{none} that it would be the price of"
        return [f"The knowledge cost {_money(self.dollars)} US dollars: {told}."]

    @property
    def verdicts(self) -> Verdicts:
        """Which gain is real."""
        from kar_aug.compare import leading

        return Verdicts(leading(self.comparison))

    @property
    def doubts(self) -> list[str]:
        """What to know before any number is read: which backbones are too weak for a gain to mean anything."""
        from kar_aug.compare import doubts

        return doubts(self.comparison)

    @property
    def conclusions(self) -> list[str]:
        """What gains are made of, and which are real: a sentence for each way that knowledge enters."""
        from kar_aug.compare import conclusions

        return conclusions(self.comparison)

    @property
    def headlines(self) -> list[str]:
        """The doubts, then the conclusions."""
        from kar_aug.compare import headlines

        return headlines(self.comparison)

    def table(self) -> pd.DataFrame:
        """A row a run: arm, seed, metrics of the test part, settings, fingerprints."""
        return self.comparison.table()

    def write(
        self, report: Path | str | None = None, *, title: str | None = None, reproduce: str = "kar-aug compare"
    ) -> Path:
        """Write the report as one HTML file, and beside it results.csv and results.md.

        Args:
            report: the file; report.html in the workdir if None.
            reproduce: the command that makes it again, as the report says.
        """
        from kar_aug.report import write_report, write_tables

        report = Path(self.workspace.config.work / "report.html" if report is None else report)
        read_by_all = [] if self.workspace.data.codes is None else [f"{_IN_ALL_MODELS}: gains are over these."]
        unaudited = [_UNAUDITED] if self.audited is None else []
        write_tables(self.comparison, report.parent, remarks=[*unaudited, *read_by_all])
        write_report(
            self.comparison,
            report,
            knowledge=self.provenance,
            reproduce=reproduce,
            title=title or self.comparison.objective.title,
            sections=[_section(self.audited), *_fairness(self.workspace)],
            maps=_vector_maps(self.workspace),
            price=self.price,
            example=_example(self.workspace),
        )
        return report

    def __str__(self) -> str:
        return "\n".join([*self.headlines, *(each.text for each in self.verdicts)])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """In a notebook the report itself: a page of its own within the page."""
        with tempfile.TemporaryDirectory() as folder:
            page = self.write(Path(folder) / "report.html").read_text("utf-8")
        frame = f'<iframe sandbox srcdoc="{html.escape(page)}" style="width: 100%; height: 40em; border: 0"></iframe>'
        return {"text/plain": str(self), "text/html": frame}


def compare(workspace: Workspace, watch: Watch = SILENT, *, unaudited: bool = False) -> Compared:
    """Train and test every arm with every seed; what was trained before is not trained again.

    Args:
        unaudited: train though there may be leaks.

    Raises:
        LeakageError: The audit found leaks.
        StoreError: Vectors are missing; the message says which command makes them.
    """
    choose_keras()  # before anything imports it
    from kar_aug.compare import compare as run
    from kar_aug.compare.arms import arms

    workspace = with_what_is_known(workspace, watch)
    read = {entity for arm in arms(workspace.config.compare) for entity in arm.entities}
    if workspace.data.codes is not None:
        read |= {"item"}
        watch.note(f"{_IN_ALL_MODELS}: what is shown is what knowledge brings beside them.")
    audited = None if unaudited else require_clean(workspace, [entity for entity in ENTITIES if entity in read])
    provenance, dollars = _provenance(workspace)
    with ExitStack() as stack:
        config = workspace.config.compare
        bar = _TrainingBar(watch, stack, "AUC" if config.task == "ctr" else config.metric)
        comparison = run(workspace, on_start=bar.start, on_event=bar.progress)
    return Compared(workspace, comparison, audited, provenance, dollars)


def with_what_is_known(workspace: Workspace, watch: Watch = SILENT) -> Workspace:
    """The same, with knowledge of items alone in place of "both" where nothing is known of users; and so for users."""
    wanted, paths = workspace.config.compare.knowledge, workspace.paths
    known = [entity for entity in ENTITIES if paths.store(entity).exists()]
    if "both" not in wanted or len(known) != 1:
        return workspace
    (entity,) = known
    (other,) = set(ENTITIES) - {entity}
    with paths.open_cache(reading=True) as cache:
        if any(map(cache.count_linked, paths.all_knowledge(other))):
            return workspace  # it is to be encoded
    watch.note(f'There is knowledge of {entity}s alone: it is compared in place of "both" ([compare] knowledge)')
    names = dict.fromkeys(entity if name == "both" else name for name in wanted)
    return workspace.changed(compare=replace(workspace.config.compare, knowledge=tuple(names)))


class _TrainingBar:
    """A bar of all trainings, open from the moment at which it is known how many there are."""

    def __init__(self, watch: Watch, stack: ExitStack, metric: str) -> None:
        self._watch, self._stack, self._metric = watch, stack, metric
        self._show: Show = lambda done, note: None
        self._done = 0

    def start(self, units: int, finished: int) -> None:
        self._done = finished
        self._show = self._stack.enter_context(self._watch.bar("models", units))
        self._show(finished, "")

    def progress(self, event: Event) -> None:
        self._done += event.done
        where = f"{event.arm.name}, {event.unit}, epoch {event.epoch}"
        self._show(self._done, f"{where}: validation {self._metric} {event.auc:.4f}")


def export(
    workspace: Workspace, output: Path | str, backbone: str, seed: int = 0, arm: str | None = None,
    kind: str = SAVED_MODEL,
) -> Path:  # fmt: skip
    """Write a trained model as a SavedModel with prestored vectors, or in another format, fed with raw ids and raw
    values.

    Args:
        arm: its name in the tables of results; the backbone's with the fullest knowledge if None.

    Raises:
        ConfigError: `output` is no path.
        StoreError: `compare` trained none on this data and knowledge, or `output` is no folder for it.
    """
    folder_for_model(output)  # now, and not once all is read
    choose_keras()  # before anything imports it
    from kar_aug.compare import export_model

    workspace = with_what_is_known(workspace)
    note(workspace.config.work, MODEL, output)  # before: a call that is killed leaves some of it
    export_model(workspace, backbone, seed, Path(output), arm, kind)
    return Path(output)


def list_scores(workspace: Workspace, output: Path | str, arm: str | None = None, seed: int = 0) -> Path:
    """Write what a trained click model says of all lists: see `Project.list_scores`."""
    compare = workspace.config.compare
    if workspace.config.data.lists is None or compare.task != "ctr":
        raise ConfigError(
            'Lists are scored by a model of clicks: [data] lists = ..., and [compare] task = "ctr" for the models that '
            "do it."
        )
    choose_keras()  # before anything imports it
    from kar_aug.compare.scoring import score_lists

    score_lists(workspace, arm or compare.backbones[0], seed, Path(output))
    return Path(output)


def _money(dollars: float) -> str:
    return f"{dollars:,.2f}" if dollars >= 1 else f"{dollars:.4f}"


def _section(audited: Audit | None) -> Section:
    """What the report says of the audit."""
    from kar_aug.report import Section

    if audited is None:
        return Section("Leakage audit", f"None: {_UNAUDITED[0].lower()}{_UNAUDITED[1:]}")
    text = f"{audited.verdict}. " + " ".join(f"Cannot be proved: {finding.text}" for finding in audited.unproved)
    return Section("Leakage audit", text, ("checked", "on", "result"), audited.rows)


def _fairness(workspace: Workspace) -> list[Section]:
    """What the report says of the last fairness audit, if there was one."""
    from kar_aug.report import Section

    done = Fairness.read(workspace.config.work)
    if done is None:
        return []
    text = f"Texts by {done.model}, vectors by {done.encoder}; 1 where nothing changed. {'. '.join(done.sentences)}."
    return [Section("Fairness audit", text, COLUMNS, done.rows)]


def _vector_maps(workspace: Workspace) -> dict[str, Any]:
    """The items' vectors, coloured by the first feature of the items that the models read."""
    from kar_aug.inspect.vector_map import vector_map

    items, features = workspace.data.feature_tables.items, workspace.data.inputs.item_features
    path = workspace.paths.store("item")
    if not features or not path.exists():
        return {}
    first = [next(iter(values_of(cell)), "") for cell in items[features[0]]]
    label = dict(zip(items["item_id"].tolist(), first, strict=True))
    return {f"Knowledge of items, by {features[0]}": vector_map(VectorStore.open(path), label)}


def _example(workspace: Workspace) -> Example | None:
    """What is known of the item with most training events that has a vector: its prompt, answer and neighbours. Of
    vectors that came without texts there is none: some items are looked at, and not all of a catalogue.
    """
    from kar_aug.report import Example

    path, samples = workspace.paths.store("item"), workspace.samples
    if not path.exists():
        return None
    having = set(VectorStore.open(path).ids)
    events = np.bincount(samples.places["item"][samples.rows[samples.of("train")]])
    common = [samples.vocabulary["item"][place] for place in np.argsort(-events, kind="stable") if events[place]]
    for item in islice((item for item in common if item in having), _LOOKED_AT):
        known = look_at(workspace).item(item)
        if known.answer is not None:
            near = look_at(workspace).nearest(item)
            rows = [(title, f"{cosine:.3f}") for _, title, cosine in near.rows]
            return Example(near.title, known.messages, known.summary, near.encoder, rows)
    return None


def _provenance(workspace: Workspace) -> tuple[dict[str, str], float | None]:
    """How the knowledge was made, and what it cost, in words and in US dollars."""
    paths = workspace.paths
    with paths.open_cache(reading=True) as cache:
        counts, usage = cache.counts(), cache.usage()
    stores = [VectorStore.open(path) for entity in ENTITIES if (path := paths.store(entity)).exists()]
    models = sorted({model for store in stores for model in store.spec.language_models})
    knowledge = tuple(paths.knowledge(entity) for entity in ENTITIES)
    asked = {"recipes": ", ".join(knowledge)} if knowledge != ENTITIES else {}
    priced = [cost for *_, cost in usage if cost is not None]
    told = {
        "language model": ", ".join(models),
        **asked,
        "encoder": ", ".join(sorted({store.spec.encoder for store in stores})),
        "answers": f"{counts['ok']:,} whole, {counts['truncated']:,} cut off, {counts['failed']:,} failed",
        "tokens": f"{counts['prompt_tokens']:,} asked, {counts['completion_tokens']:,} answered",
        "cost of the knowledge": f"{sum(priced):,.2f} US dollars" if priced else "no price is known for this model",
        **({} if (codes := workspace.data.codes) is None else {"semantic ids": f"{_IN_ALL_MODELS} ({codes.version})"}),
    }
    return told, sum(priced) if priced else None
