"""A fairness audit: what sensitive attributes in prompts change, after FaiRLLM (arXiv:2305.07609).

A sample of users is asked about with the same histories: once neutrally, without the attributes; then with one
attribute, once for each of its values, whichever is the user's own. How far texts and vectors move from the neutral
ones is what the attribute does; where they move further for one value than for another, its group is treated otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kar_aug._helpers.batched import batched
from kar_aug._helpers.files import write_atomic
from kar_aug._helpers.printed import Printed
from kar_aug._helpers.tensorflow import choose_keras
from kar_aug.audit.similarity import cosine, jaccard, serp, snsr, snsv, words
from kar_aug.cache import TextCache, VectorStore
from kar_aug.cache.vectors.reduction import reduced
from kar_aug.config import AUDITED_USERS, LanguageModel
from kar_aug.errors import ConfigError, GenerationError, MissingDependencyError, StoreError
from kar_aug.generate import estimate, question_key
from kar_aug.generate import generate as run_generate
from kar_aug.generate.intake import accepted
from kar_aug.pipeline.bill import open_bill
from kar_aug.pipeline.encoding import open_encoder
from kar_aug.pipeline.generation import DryRun, Job, served
from kar_aug.pipeline.watch import SILENT, Watch
from kar_aug.pipeline.workspace import Workspace
from kar_aug.prompts import Prompt
from kar_aug.prompts.entities import users_with_history

FILE = "fairness.json"
KNOWLEDGE = "audit"  # the kind, of these questions: their answers are nobody's knowledge
MEASURES = ("jaccard", "serp", "cosine")
COLUMNS = (
    "attribute", "value", "users", "words in common", "words, first ones most", "vectors' cosine", "predictions"
)  # fmt: skip
_VALUES = 8  # of an attribute, the most frequent ones
_ENCODED = 64
_NEUTRAL = ("", "")
Variant = tuple[str, str]  # an attribute and its value


@dataclass(frozen=True)
class Moved:
    """How alike texts and vectors are to the neutral ones, where prompts say this value; means over users.

    Args:
        shift: of the predicted click probability, mean over these users' samples; None where no model was trained.
    """

    attribute: str
    value: str
    users: int
    jaccard: float
    serp: float
    cosine: float
    shift: float | None = None

    @property
    def cells(self) -> tuple[str, ...]:
        """As a table shows them."""
        means = (f"{getattr(self, name):.3f}" for name in MEASURES)
        shift = "" if self.shift is None else f"{self.shift:+.4f}"
        return (self.attribute, self.value, f"{self.users:,}", *means, shift)


@dataclass(frozen=True)
class Fairness(Printed):
    """What attributes in prompts change.

    Args:
        sampled: how many users were looked at.
        shown: attribute -> how many of their ordinary prompts show it.
        moved: a row a value of an attribute.
        others: what two different users' neutral texts have in common: how much is much.
        model, encoder, arm: by which all this is; arm is the trained model that predicted, "" if there is none.
    """

    sampled: int
    shown: Mapping[str, int]
    moved: Sequence[Moved]
    others: Moved
    model: str
    encoder: str
    arm: str = ""

    @property
    def frame(self) -> pd.DataFrame:
        """A row a value: attribute, value, users, jaccard, serp, cosine, shift."""
        return pd.DataFrame([asdict(each) for each in self.moved])

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The cells of `COLUMNS`: a row a value, and what different users have in common; none where nothing was
        asked.
        """
        return [each.cells for each in (*self.moved, self.others)] if self.moved else []

    @property
    def gaps(self) -> pd.DataFrame:
        """A row an attribute and measure: SNSR, the largest gap among values, and SNSV, how they scatter; for
        predictions of their shifts.
        """
        rows: list[tuple[str, str, float, float, str]] = []
        for attribute in self.shown:
            for name in MEASURES:
                by_value = {each.value: getattr(each, name) for each in self.moved if each.attribute == attribute}
                if by_value:
                    least = min(by_value, key=lambda value, of=by_value: of[value])  # type: ignore[misc]
                    rows.append((attribute, name, snsr(by_value), snsv(by_value), least))
            shifts = {e.value: e.shift for e in self.moved if e.attribute == attribute and e.shift is not None}
            if shifts:
                most = max(shifts, key=lambda value, of=shifts: abs(of[value]))  # type: ignore[misc]
                rows.append((attribute, "predictions", snsr(shifts), snsv(shifts), most))
        return pd.DataFrame(rows, columns=pd.Index(["attribute", "measure", "snsr", "snsv", "moved_most"]))

    @property
    def sentences(self) -> list[str]:
        """What it says, a line an attribute."""
        lines = []
        for attribute, count in self.shown.items():
            if not count:
                lines.append(f"{attribute}: no prompt shows it")
                continue
            said = [
                f"{row.measure} {row.snsr:.3f} (SNSV {row.snsv:.3f}, {row.moved_most!r} moves most)"
                for row in self.gaps[self.gaps["attribute"] == attribute].itertuples()
            ]
            gap = f"; largest gap among values (SNSR): {', '.join(said)}" if said else "; no answer to compare"
            lines.append(f"{attribute}: {count:,} of {self.sampled:,} prompts show it{gap}")
        return lines

    def write(self, work: Path) -> None:
        """Keep it, for reports."""
        write_atomic(work / FILE, json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, work: Path) -> Fairness | None:
        """The one that was kept last; None if there is none that can be read."""
        try:
            document = json.loads((work / FILE).read_text(encoding="utf-8"))
            moved = [Moved(**each) for each in document.pop("moved")]
            return cls(**{**document, "moved": moved, "others": Moved(**document["others"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def __str__(self) -> str:
        return "\n".join([*(" ".join(row) for row in self.rows), *self.sentences])


def audit_fairness(
    workspace: Workspace, attributes: Sequence[str], watch: Watch = SILENT, *, users: int = AUDITED_USERS
) -> Fairness:
    """Ask, encode and compare; what was asked before is not again. Where a model was trained with knowledge of users,
    it predicts by each of the texts. Where no prompt shows any of the attributes, that is the result: nothing is asked,
    and what an earlier audit found stays in the report.

    Raises:
        ConfigError: The users have no such attribute.
        GenerationError: No prompt was answered.
        LimitReached: max_cost or max_requests; what was answered is stored.
    """
    variants = _Variants(workspace, attributes, users)
    job = Job(workspace)
    if not variants.count:
        return Fairness(len(variants.rows), variants.shown, [], _among_others({}, {}), job.model.model, "")
    with workspace.paths.open_cache() as cache:
        with served(job.model) as (model, key), watch.bar("fairness", variants.count) as show:
            run_generate(
                variants.prompts(),
                cache,
                model,
                key=key,
                prices=job.prices(),
                on_progress=lambda p: show(p.done, ""),
                on_note=watch.note,
            )
        texts = variants.texts(cache, job.model)
    if not texts[_NEUTRAL]:
        raise GenerationError("No neutral prompt was answered: there is nothing to compare with.")
    with open_bill(workspace) as bill:
        encoder = open_encoder(workspace, bill)
        vectors = _encoded(encoder, [text for of_variant in texts.values() for text in of_variant.values()])
    arm, shifts = _shifts(workspace, variants, texts, vectors)
    moved = [
        replace(_moved(variant, texts[variant], texts[_NEUTRAL], vectors), shift=shifts.get(variant))
        for variant in variants.named
        if texts[variant]
    ]
    others = _among_others(texts[_NEUTRAL], vectors)
    done = Fairness(len(variants.rows), variants.shown, moved, others, job.model.model, encoder.name, arm)
    done.write(workspace.config.work)
    return done


def dry_run(
    workspace: Workspace, attributes: Sequence[str], *, users: int = AUDITED_USERS
) -> tuple[DryRun, Mapping[str, int]]:
    """What that would ask and cost; and how many prompts show each attribute. Nothing is sent."""
    variants, job = _Variants(workspace, attributes, users), Job(workspace)
    with workspace.paths.open_cache(reading=True) as cache:
        found = estimate(variants.prompts(), cache, job.model, prices=job.prices())
    return DryRun(job.model, found, 0), variants.shown


class _Variants:
    """The prompts of some users, neutral and with each value of each attribute."""

    def __init__(self, workspace: Workspace, attributes: Sequence[str], users: int) -> None:
        if workspace.paths.in_versions("user"):
            raise ConfigError(
                'A fairness audit asks about whole histories, and [prompts] selection = "blocks" shows no attribute: '
                "nothing could move."
            )
        if not attributes:
            raise ConfigError("A fairness audit needs to know of which attributes, columns of the users: gender,age")
        self._workspace = workspace
        table = workspace.asking.tables.users
        for name in attributes:
            if name not in workspace.data.tables.users:
                has = ", ".join(map(str, workspace.data.tables.users.columns[1:])) or "none"
                raise ConfigError(f"The users have no attribute {name!r}. They have: {has}")
        self._audited = [name for name in attributes if name in table]  # of the others, nothing is shown
        histories = users_with_history(workspace.data.split_with_samples, workspace.config.prompts.min_events)
        asked = table[table["user_id"].isin(histories[: workspace.config.prompts.max_users])]
        chosen = np.random.default_rng(0).permutation(len(asked))[:users]
        self.rows = asked.iloc[np.sort(chosen)]
        if self.rows.empty:
            raise ConfigError("No user with a history has a row in the users table, and so no attribute.")
        counted = {name: self._shown(name) for name in self._audited}
        self.shown = {name: counted.get(name, 0) for name in attributes}
        frequent = {name: table[name].dropna().value_counts().index for name in self._audited if counted[name]}
        self._values = {name: values[:_VALUES].tolist() for name, values in frequent.items()}

    @property
    def named(self) -> list[Variant]:
        """All but the neutral one."""
        return [(name, str(value)) for name, values in self._values.items() for value in values]

    @property
    def count(self) -> int:
        """Of prompts."""
        return len(self.rows) * (1 + len(self.named)) if self._values else 0

    def prompts(self) -> Iterator[Prompt]:
        """All of them; none where no prompt shows any attribute."""
        for _, _, prompt in self._rendered():
            yield prompt

    def texts(self, cache: TextCache, model: LanguageModel) -> dict[Variant, dict[str, str]]:
        """The answers: variant -> user -> text."""
        keys = {(variant, user): question_key(model, prompt) for variant, user, prompt in self._rendered()}
        said = cache.texts(list(keys.values()), accept=accepted(model))
        found: dict[Variant, dict[str, str]] = {variant: {} for variant in (_NEUTRAL, *self.named)}
        for (variant, user), key in keys.items():
            if key in said:
                found[variant][user] = said[key]
        return found

    def _rendered(self) -> Iterator[tuple[Variant, str, Prompt]]:
        neutral = self.rows.drop(columns=self._audited)
        tables = [(_NEUTRAL, neutral)] if self._values else []
        for name, values in self._values.items():
            tables += [((name, str(value)), neutral.assign(**{name: value})) for value in values]
        for variant, rows in tables:
            said = "=".join(variant) if variant != _NEUTRAL else "neutral"
            for prompt in self._workspace.asking.prompts_as_if(rows):
                user = repr(prompt.entity_id)
                yield variant, user, replace(prompt, knowledge=KNOWLEDGE, entity_id=f"{user} {said}")

    def _shown(self, name: str) -> int:
        """How many ordinary prompts are others without an attribute."""
        asking = self._workspace.asking
        without = {p.entity_id: p.messages for p in asking.prompts_as_if(self.rows.drop(columns=[name]))}
        return sum(p.messages != without[p.entity_id] for p in asking.prompts_as_if(self.rows))


def _shifts(
    workspace: Workspace,
    variants: _Variants,
    texts: Mapping[Variant, Mapping[str, str]],
    vectors: Mapping[str, npt.NDArray[Any]],
) -> tuple[str, dict[Variant, float]]:
    """The model of the first backbone that knows users, and by how much its predictions move; none where there is no
    such model on today's data, or where users' vectors are mixed with those of groups.
    """
    named = {repr(id): id for id in variants.rows["user_id"].tolist()}
    whole = [user for user in named if all(user in of for of in texts.values())]
    if not whole or workspace.paths.groups("user") is not None or not (workspace.config.work / "runs").exists():
        return "", {}
    choose_keras()  # before anything imports it
    from kar_aug.compare.substituting import predict_with

    try:
        store = VectorStore.open(workspace.paths.store("user"))
        given = {v: reduced(store, np.stack([vectors[of[user]] for user in whole])) for v, of in texts.items()}
        by_name = {" ".join(variant): matrix for variant, matrix in given.items()}
        backbone = workspace.config.compare.backbones[0]
        found = predict_with(workspace, backbone, [named[user] for user in whole], by_name)
    except (StoreError, MissingDependencyError):
        return "", {}
    neutral = found.by_name[" ".join(_NEUTRAL)]
    return found.arm, {v: float((found.by_name[" ".join(v)] - neutral).mean()) for v in variants.named if len(neutral)}


def _encoded(encoder: Any, texts: Sequence[str]) -> dict[str, npt.NDArray[np.float32]]:
    """A vector each different text."""
    different = list(dict.fromkeys(texts))
    found: dict[str, npt.NDArray[np.float32]] = {}
    for some in batched(different, _ENCODED):
        found.update(zip(some, np.asarray(encoder.encode(some), np.float32), strict=True))
    return found


def _moved(
    variant: Variant, texts: Mapping[str, str], neutral: Mapping[str, str], vectors: Mapping[str, npt.NDArray[Any]]
) -> Moved:
    pairs = [(texts[user], neutral[user]) for user in texts if user in neutral]
    return Moved(*variant, len(pairs), *_means(pairs, vectors))


def _among_others(neutral: Mapping[str, str], vectors: Mapping[str, npt.NDArray[Any]]) -> Moved:
    """Each user's neutral text beside the next one's."""
    texts = list(neutral.values())
    pairs = list(zip(texts, [*texts[1:], *texts[:1]], strict=True)) if len(texts) > 1 else []
    return Moved("another user", "", len(pairs), *_means(pairs, vectors))


def _means(pairs: Sequence[tuple[str, str]], vectors: Mapping[str, npt.NDArray[Any]]) -> tuple[float, float, float]:
    """Of each measure."""
    if not pairs:
        return 0.0, 0.0, 0.0
    split = [(words(text), words(other)) for text, other in pairs]
    found = [
        [jaccard(*both) for both in split],
        [serp(*both) for both in split],
        [cosine(vectors[text], vectors[other]) for text, other in pairs],
    ]
    one, two, three = (float(np.mean(values)) for values in found)
    return one, two, three
