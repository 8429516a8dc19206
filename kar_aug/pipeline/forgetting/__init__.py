"""Forgetting users and items: whatever a project keeps of them is deleted, and they are left out from then on.

ids       whom somebody means by an id as it was typed
files     copies in files: answers that were exported, or that a cache did not take; requests
trained   groups, prepared samples, and what was trained on them
prices    what is asked about them, and what it costs to ask anew where prompts showed them
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from kar_aug._helpers.printed import Printed
from kar_aug.cache import TextCache, VectorStore
from kar_aug.cache.texts.forgetting import (
    Taken,
    Whom,
    forget_entities,
    forget_questions,
    linked_entities,
    refuse_jobs,
)
from kar_aug.cache.texts.spilt import spilt_files
from kar_aug.cache.vectors.files import MANIFEST
from kar_aug.cache.vectors.forgetting import forget_vectors, vectors_of
from kar_aug.codes import SemanticIds
from kar_aug.codes.files import MANIFEST as CODES
from kar_aug.errors import KarError, StoreError
from kar_aug.online.publishing import open_place
from kar_aug.pipeline.coding import is_coded_as_it_is
from kar_aug.pipeline.forgetting import trained
from kar_aug.pipeline.forgetting.files import is_their_answer, keys_of_requests, without_lines, without_rows
from kar_aug.pipeline.forgetting.ids import Id, all_forms
from kar_aug.pipeline.forgetting.prices import asked_anew, keys_asked
from kar_aug.pipeline.workspace import ENTITIES, Workspace
from kar_aug.pipeline.workspace.at_work import nobody_at_work
from kar_aug.pipeline.workspace.forgotten import ForgottenIds
from kar_aug.pipeline.workspace.frames import rewritten
from kar_aug.pipeline.workspace.passed_on import ANSWERS, MODEL, PAGE, REQUESTS, VECTORS, PassedOn, passed_on

FAIRNESS = "fairness.json"  # see kar_aug.pipeline.fairness


@dataclass
class Forgotten(Printed):
    """What was deleted, or would be.

    Args:
        counts: by kind: "answers", "vectors", "trainings", ...
        elsewhere: sentences: what was sent or published, which nobody can delete from here, with when and where.
        follows: sentences: what is to be made anew because of it, and what that costs.
        dry_run: whether nothing was changed.
    """

    counts: Counter[str] = field(default_factory=Counter)
    elsewhere: list[str] = field(default_factory=list)
    follows: list[str] = field(default_factory=list)
    dry_run: bool = False

    @property
    def frame(self) -> pd.DataFrame:
        """A row a kind: what, count."""
        rows = [(what, count) for what, count in self.counts.items() if count]
        return pd.DataFrame(rows, columns=pd.Index(["what", "count"]))

    def __str__(self) -> str:
        found = ", ".join(f"{count:,} {what}" for what, count in self.counts.items() if count)
        done = "would be deleted" if self.dry_run else "deleted"
        lines = [f"{done}: {found}" if found else "nothing is kept of them"]
        return "\n".join([*lines, *(f"not in our hands: {sentence}" for sentence in self.elsewhere), *self.follows])


def forget(workspace: Workspace, ids: Mapping[str, Collection[Id]], *, dry_run: bool = False) -> Forgotten:
    """Delete what a project keeps of some users and items: see `kar_aug.Project.forget`.

    The list of those who are left out is written first, so that whatever runs meanwhile does not take them in again;
    the answers go last, so that a call that was killed knows, when it is made again, what is theirs.

    Args:
        ids: "user", "item" -> ids; a number and its digits are the same.

    Raises:
        StoreError: A job or a comparison is running, a store or file is being written or read by others, or is damaged.
    """
    done = Forgotten(dry_run=dry_run)
    work = workspace.config.work
    listed = ForgottenIds.read(work)
    with ExitStack() as stack:
        if not dry_run:
            stack.enter_context(nobody_at_work(work))
        cache = _open(workspace, stack)
        if cache is not None and not dry_run:
            refuse_jobs(cache)
        wanted = {entity: all_forms(workspace, entity, some) for entity, some in ids.items() if some}
        searches = [_Search(workspace, cache, entity, some, listed) for entity, some in wanted.items()]
        for search in searches:
            listed = listed.with_ids(search.whom.entity, search.whom.ids)
        if dry_run:
            done.follows += asked_anew(workspace, [each.whom for each in searches if each.exists], listed)
        elif searches:
            listed = listed.with_questions(_questions(workspace, cache, searches, done))
            listed.write(work)
        for search in searches:
            search.take_away(done, listed)
    return done


def _questions(
    workspace: Workspace, cache: TextCache | None, searches: Sequence[_Search], done: Forgotten
) -> Collection[str]:
    """The keys of what was asked about them: answers that come late are told by them. Of requests that were given away,
    and that nobody has answered, all but those that are asked about others today: an answer to one that is nobody's may
    be theirs.
    """
    keys = set().union(*(search.taken.keys for search in searches))
    found = [search for search in searches if search.may_exist]
    sent = [each for each in passed_on(workspace.config.work) if each.what == REQUESTS] if found else []
    if not sent:
        return keys
    open_ = {key for each in sent if (path := Path(each.where)).exists() for key in keys_of_requests(path)}
    open_ -= set(() if cache is None else cache.answered(open_))
    try:
        theirs, others = keys_asked(workspace, [search.whom for search in found])
    except (KarError, OSError) as error:
        done.follows.append(
            "an answer that comes late is told by the exported requests that are still there, and by nothing else: the "
            f"prompts cannot be rendered ({error})"
        )
        return keys | open_
    return (keys | theirs | open_) - others


def forget_again(workspace: Workspace, cache: TextCache) -> int:
    """Take those away who are on the list and came back: with the answers of another cache, or of a file; and answers
    about them that are nobody's.

    Returns:
        How many of them there were.
    """
    listed, count = ForgottenIds.read(workspace.config.work), 0
    for entity in ENTITIES if listed else ():
        if back := listed.among(entity, linked_entities(cache, entity)):
            forget_entities(cache, Whom(entity, back), named=listed.of_question)
            count += len(back)
    if listed.questions:
        count += forget_questions(cache, listed.of_question)
    return count


def unforget(workspace: Workspace, ids: Mapping[str, Collection[Id]]) -> int:
    """Take users and items off the list; how many were on it. What was deleted is not restored."""
    listed, count = ForgottenIds.read(workspace.config.work), 0
    for entity, some in ids.items():
        on_it = {str(id) for id in listed.among(entity, all_forms(workspace, entity, some))}
        listed, count = listed.without_ids(entity, on_it), count + len(on_it)
    if count:
        listed.write(workspace.config.work)
    return count


class _Search:
    """Where the ids of one entity are, found before anything is changed."""

    def __init__(
        self, workspace: Workspace, cache: TextCache | None, entity: str, ids: Collection[Id], listed: ForgottenIds
    ) -> None:
        self.workspace, self.cache, self.work = workspace, cache, workspace.config.work
        self.group_files, groups, others_groups = trained.groups_of(self.work, entity, ids)
        self.whom = Whom(entity, ids, groups, others_groups)
        self.of_groups = trained.stores_of_groups(self.work, entity, groups)
        self.taken = Taken() if cache is None else forget_entities(cache, self.whom, dry_run=True)
        self.stores = {path: count for path in self._all_stores() if (count := vectors_of(path, self._ids_in(path)))}
        self.codes = {path: count for path in self._all_codes() if (count := self._coded(path))}
        self.prepared, known = trained.prepared_with(self.work, self.whom)
        others = trained.data_of_trainings(self.work) - set(known)
        found = bool(self.taken.found or self.stores or self.codes or self.prepared or listed.among(entity, ids))
        in_tables = self._in_tables()
        self.exists = found or bool(in_tables)  # an id that was mistyped takes nothing with it
        self.may_exist = self.exists or in_tables is None
        # Of what was trained on data that are not there any more nobody can tell whether they were in.
        if not self.exists:
            others = set()
        self.data = {data for data, is_in in known.items() if is_in} | others

    def take_away(self, done: Forgotten, listed: ForgottenIds) -> None:
        """Delete it all. The ledger calls their questions as the list does, so that an answer that comes again costs
        nothing again.
        """
        self._trainings(done)
        self._groups(done)
        current = {path for path in self.codes if path.exists() and _is_of_its_store(path)}
        for path, count in self.stores.items():
            done.counts["vectors"] += count
            if not done.dry_run and path.exists():  # else it went with what was trained
                forget_vectors(path, self._ids_in(path))
        for path, count in self.codes.items():
            done.counts["semantic ids"] += count
            if not done.dry_run and path.exists():
                store = path.with_suffix("")
                left = VectorStore.open(store) if path in current else None
                SemanticIds.open(path).without(self._ids_in(store), left)
        self._copies(done)
        if self.cache is not None and not done.dry_run:
            self.taken = forget_entities(self.cache, self.whom, named=listed.of_question)
        taken = self.taken
        done.counts["answers"] += taken.answers - taken.nobodys
        done.counts["superseded answers, whose nobody knows"] += taken.nobodys
        done.counts["links to answers that others have too"] += taken.shared
        done.counts["failures"] += taken.failures
        done.counts["requests in batches"] += taken.requests
        done.counts["lines of the ledger without their question"] += taken.ledger
        if not done.dry_run:  # last: they say which answers and vectors of groups are theirs
            for path in self.group_files:
                path.unlink(missing_ok=True)
        done.elsewhere += [
            f"batch {name} of {when[:10]} holds requests about them: cancel it, or delete its files, at the provider"
            for name, when in taken.batches
        ]
        done.elsewhere += [
            f"asked of {model} from {first} to {last}: whoever serves it may have kept it"
            for model, first, last in taken.asked
        ]

    def _trainings(self, done: Forgotten) -> None:
        done.counts["prepared data sets"] += len(self.prepared)
        done.counts["lists of groups"] += len(self.group_files)
        done.counts["trainings with their predictions and models"] += trained.discard_trained(
            self.work, self.data, dry_run=done.dry_run
        )
        if not done.dry_run:
            if self.exists:
                (self.work / FAIRNESS).unlink(missing_ok=True)  # values of attributes, of however few users
            trained.discard_prepared(self.work, self.prepared)
        done.counts["rows of data frames' copies"] += rewritten(
            self.workspace.config, self.whom.entity, self.whom.ids, dry_run=done.dry_run
        )

    def _groups(self, done: Forgotten) -> None:
        """Groups are drawn anew without them: what others' vectors have of the old ones goes, too."""
        if not self.group_files:
            return
        done.counts["stores of vectors of groups"] += len(self.of_groups)
        if not done.dry_run:
            for path in self.of_groups:
                shutil.rmtree(path)
        done.follows.append(
            f"groups of {self.whom.entity}s are drawn anew, and asked about: until kar-aug generate and kar-aug encode "
            "have run, there are no vectors of them to compare"
        )

    def _copies(self, done: Forgotten) -> None:
        for path in () if self.cache is None else spilt_files(self.cache):
            try:
                gone = without_lines(path, self.whom, self.taken.keys, dry_run=done.dry_run)
                done.counts["answers beside the cache"] += gone
            except OSError as error:
                done.elsewhere.append(f"{path}, which may hold answers about them: {error.strerror or error}")
        for each in passed_on(self.work):
            if each.entity in (None, self.whom.entity):
                self._copy(each, done)

    def _copy(self, each: PassedOn, done: Forgotten) -> None:
        """What was written elsewhere, where it can be reached."""
        path, keys = Path(each.where), self.taken.keys
        if "://" not in each.where and not path.exists():
            return  # somebody deleted it, or moved it to where nobody here knows
        try:
            if each.what == ANSWERS:
                rows = without_rows(path, is_their_answer(self.whom, keys), dry_run=done.dry_run)
                done.counts["exported answers"] += rows
            elif each.what == REQUESTS:
                done.counts["exported requests"] += self._requests(path, dry_run=done.dry_run)
            elif each.what == VECTORS:
                done.counts["published vectors"] += self._published(each, done)
            elif each.what == PAGE and self.exists:  # `kar-aug view` makes it again
                done.counts["pages of answers"] += 1
                if not done.dry_run:
                    path.unlink()
            elif each.what == MODEL:
                done.elsewhere.append(f"{each}: it may hold vectors of them. Export it anew: kar-aug export")
        except (KarError, OSError, ValueError) as error:
            done.elsewhere.append(f"{each}: {error}")

    def _requests(self, path: Path, *, dry_run: bool) -> int:
        """Requests that were exported, and how many of them go. They say whose they are by the keys of their answers: a
        file with some that nobody has answered yet goes whole, and `generate --export-jsonl` writes it again. So it
        does where the tables that would know a mistyped id cannot be read.
        """
        asked = keys_of_requests(path)
        answered = set() if self.cache is None else set(self.cache.answered(asked))
        if not self.may_exist or set(asked) <= answered | set(self.taken.keys):
            return without_lines(path, self.whom, self.taken.keys, dry_run=dry_run)
        if not dry_run:
            path.unlink()
        return len(asked)

    def _published(self, each: PassedOn, done: Forgotten) -> int:
        if each.masked:
            done.elsewhere.append(f"{each}: its password is not kept. Bring it up to date: kar-aug vectors export")
            return 0
        place: Any = open_place(each.where, f"{self.whom.entity}_id", each.kind)
        if not hasattr(place, "forget"):
            done.elsewhere.append(f"{each}: places of this kind cannot be told to. Bring it up to date")
            return 0
        count: int = place.forget(self.whom.ids, dry_run=done.dry_run)
        return count

    def _all_stores(self) -> Iterator[Path]:
        """The folders of vectors that may be of this entity."""
        for manifest in sorted((self.work / "vectors").rglob(MANIFEST)):
            if self._ids_in(manifest.parent):
                yield manifest.parent

    def _all_codes(self) -> Iterator[Path]:
        """The folders of semantic ids, which lie beside these."""
        for manifest in sorted((self.work / "vectors").rglob(CODES)):
            yield manifest.parent

    def _coded(self, path: Path) -> int:
        """How many of them have semantic ids there."""
        ids = self._ids_in(path.with_suffix(""))
        return int((SemanticIds.open(path).digits_of(ids) >= 0).sum())

    def _ids_in(self, path: Path) -> list[Id]:
        """Under which ids a store may have them."""
        name, other = path.name, next(each for each in ENTITIES if each != self.whom.entity)
        if path in self.of_groups:
            return []  # they go whole
        begins = name.startswith((other, f"metadata-{other}", f"collaborative-{other}"))
        if begins or (path.parent.name == "augmented" and name.endswith(f"-{other}")):
            return []
        return [*self.whom.ids]

    def _in_tables(self) -> bool | None:
        """Whether one of them is; None where the tables cannot be read."""
        try:
            return not set(self.whom.ids).isdisjoint(self.workspace.data.all_tables().ids(self.whom.entity))
        except (KarError, OSError):
            return None


def _is_of_its_store(codes: Path) -> bool:
    """Whether semantic ids are of all that the store beside them holds."""
    try:
        return is_coded_as_it_is(codes.with_suffix(""))
    except StoreError:  # it is gone, or damaged
        return False


def _open(workspace: Workspace, stack: ExitStack) -> TextCache | None:
    """The text cache, if there is one."""
    where = workspace.paths.cache
    if isinstance(where, Path) and not where.exists():
        return None
    return stack.enter_context(workspace.paths.open_cache())
