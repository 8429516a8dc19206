"""A project's text cache: what is stored, whether it can be trusted, and moving it about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from kar_aug._helpers.printed import Printed
from kar_aug._helpers.targets import file_to_write, folder_to_write
from kar_aug.cache import Batch, BatchBook, Spending, TextCache, VectorStore, merge
from kar_aug.cache.texts.cache import DamagedAnswer, is_of_groups
from kar_aug.cache.texts.imported import Imported, import_texts
from kar_aug.cache.texts.incoming import Brought
from kar_aug.cache.texts.parquet import export_parquet, export_shards, import_parquet, parquet_files, shard_paths
from kar_aug.cache.texts.spilt import import_spilt, is_spilt
from kar_aug.cache.texts.status import FLAGS
from kar_aug.cache.texts.verify import Flag, exclude, verify, vocabularies
from kar_aug.data.reading import is_table
from kar_aug.data.tables import their_names
from kar_aug.errors import StoreError
from kar_aug.pipeline.costs import Costs
from kar_aug.pipeline.forgetting import forget_again
from kar_aug.pipeline.workspace import ENTITIES, Workspace
from kar_aug.pipeline.workspace.at_work import at_work
from kar_aug.pipeline.workspace.passed_on import ANSWERS, note

_LANGUAGES = {"english": "en", "german": "de", "french": "fr", "spanish": "es", "italian": "it", "portuguese": "pt"}
_LANGUAGES |= {"dutch": "nl", "chinese": "zh", "japanese": "ja", "korean": "ko", "arabic": "ar", "russian": "ru"}
_NO_ANSWERS = ("failed", "prompt_tokens", "completion_tokens")  # among what the cache counts


class Answers:
    """What `kar-aug cache` does."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def stats(self) -> Stats:
        """Count answers, tokens and dollars."""
        with self._open(reading=True) as cache:
            names = map(self._workspace.paths.knowledge, ENTITIES)
            linked = {name: cache.count_linked(name) for name in names}
            spent = Costs(cache.ledger.history()).by_model
            return Stats(cache.name, cache.counts(), linked, cache.usage(), BatchBook(cache).batches(), spent)

    def export(self, path: Path | str, *, messages: bool = True, shards: int | None = None) -> int:
        """Write all answers into a Parquet file; how many they are.

        Args:
            messages: whether with the prompts, which show rows of the data.
            shards: so many files instead, by the answers' keys, in the folder `path`.

        Raises:
            ConfigError: `path` is no path.
            StoreError: Some are damaged; all others are in the file. Or there can be none.
        """
        path = file_to_write(path) if shards is None else folder_to_write(path)
        damaged: list[DamagedAnswer] = []
        work = self._workspace.config.work
        with at_work(work, "export"), self._open(reading=True) as cache:
            # Before: an export that is killed has left some of them.
            for file in [path] if shards is None else shard_paths(path, shards):
                note(work, ANSWERS, file)
            if shards is None:
                rows = export_parquet(cache, path, messages=messages, on_damage=damaged.append)
            else:
                rows = export_shards(cache, path, shards, messages=messages, on_damage=damaged.append)
        _require_none(damaged, f"are not in {path}, where all others are")
        return rows

    def import_texts(self, path: Path | str, *, text: str = "text", author: str | None = None) -> Imported:
        """Make a table's texts the knowledge of its items or users: see `kar_aug.cache.texts.imported`.

        Args:
            path: Parquet or CSV, with item_id or user_id, or what [data] columns calls it, and a column of texts.
            text: that column.
            author: who wrote them, as reports say; the file's name if None.
        """
        known = {entity: self._workspace.data.tables.ids(entity) for entity in ENTITIES}
        columns = self._workspace.config.data.columns
        names = {e: theirs for e in ENTITIES if (theirs := their_names(columns, f"{e}s").get(f"{e}_id")) is not None}
        with self._open() as cache:
            done = import_texts(Path(path), cache, known, text=text, author=author, called=names)
            forget_again(self._workspace, cache)
            return done

    def import_answers(self, where: Path | str) -> Brought:
        """Bring in the answers of a Parquet file that `export` wrote, or of a folder of such, of a file of JSON lines
        that a job wrote whose cache took no answers, or of another cache. What is newer here stays.

        Raises:
            StoreError: There is no such file, or it is none of these; or some of it are damaged, and all others are in.
        """
        with self._open() as cache:
            try:
                return self._bring(where, cache)
            finally:
                forget_again(self._workspace, cache)

    def _bring(self, where: Path | str, cache: TextCache) -> Brought:
        damaged: list[DamagedAnswer] = []
        if "://" not in str(where) and Path(where).is_dir():
            return _brought(import_parquet(path, cache) for path in parquet_files(Path(where)))
        if str(where).endswith(".parquet"):
            return import_parquet(Path(where), cache)
        if "://" not in str(where) and not Path(where).is_file():
            raise StoreError(f"{where}: there is no such file.")
        if "://" not in str(where) and is_spilt(Path(where)):
            return import_spilt(Path(where), cache)
        with TextCache(where, reading=True) as other:
            done = merge(other, cache, damaged.append)
        _require_none(damaged, f"were left out; {done}")
        return done

    def verify(self, exclude_kinds: Sequence[str] = ()) -> Verified:
        """Flag answers that are damaged, empty, refused, cut off, duplicated, in another language, or plainly wrong.

        Args:
            exclude_kinds: take answers flagged so out of the knowledge; they count as refused.
        """
        language = _LANGUAGES.get(self._workspace.asking.scenario.language.lower())
        with self._open(reading=not exclude_kinds) as cache:
            flags = list(verify(cache, metadata=_Metadata(self._workspace), language=language))
            answers = sum(count for status, count in cache.counts().items() if status not in _NO_ANSWERS)
            exclude(cache, {flag.key for flag in flags if flag.kind in exclude_kinds})
        return Verified(answers, flags, excluded=tuple(exclude_kinds))

    def verify_vectors(self) -> Iterator[SoundStore]:
        """Compare the vectors with their checksums, store by store.

        Raises:
            StoreError: Some are damaged.
        """
        for entity in ENTITIES:
            if self._workspace.paths.store(entity).exists():
                store = VectorStore.open(self._workspace.paths.store(entity))
                yield SoundStore(entity, len(store), store.verify())

    def superseded(self) -> int:
        """How many answers a newer prompt has superseded, or were never anybody's."""
        with self._open(reading=True) as cache:
            return cache.count_superseded()

    def prune(self) -> int:
        """Delete these; how many they were."""
        with self._open() as cache:
            return cache.prune()

    def _open(self, *, reading: bool = False) -> TextCache:
        return self._workspace.paths.open_cache(reading=reading)


def _brought(parts: Iterable[Brought]) -> Brought:
    done = Brought(0, 0)
    for part in parts:
        done = Brought(done.new + part.new, done.kept + part.kept)
    return done


def _require_none(damaged: Sequence[DamagedAnswer], what: str) -> None:
    if damaged:
        first = damaged[0]
        raise StoreError(
            f"{len(damaged):,} damaged answers {what}. The first is {first.key} ({first.why}). All of them: "
            "kar-aug cache verify"
        )


@dataclass(frozen=True)
class Stats(Printed):
    """What a text cache holds.

    Args:
        counts: of each status, and tokens.
        linked: knowledge -> how many entities have an answer.
        usage: model, tier, answers, prompt tokens, completion tokens, US dollars (None where no price is known), of the
            answers that are stored.
        spent: what each model cost in all: see `kar_aug.pipeline.costs`.
    """

    name: str
    counts: Mapping[str, int]
    linked: Mapping[str, int]
    usage: Sequence[tuple[str, str, int, int, int, float | None]]
    running: Sequence[Batch]
    spent: Sequence[Spending] = ()

    @property
    def frame(self) -> pd.DataFrame:
        """The usage, a row a model and tier."""
        columns = ["model", "tier", "answers", "prompt_tokens", "completion_tokens", "us_dollars"]
        return pd.DataFrame(self.usage, columns=pd.Index(columns))

    def __str__(self) -> str:
        return "\n".join([self.name, *(f"  {status}: {count:,}" for status, count in self.counts.items())])


@dataclass(frozen=True)
class Verified(Printed):
    """What is wrong with so many answers, by rules that a person can read; `excluded` are the kinds of flags whose
    answers were taken out of the knowledge.
    """

    answers: int
    flags: Sequence[Flag]
    excluded: Sequence[str] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Flags of each kind."""
        counted = Counter(flag.kind for flag in self.flags)
        return {kind: counted[kind] for kind in FLAGS}

    @property
    def frame(self) -> pd.DataFrame:
        """A row a flag: kind, source, entity_id, detail, key."""
        rows = [(flag.kind, flag.knowledge, flag.entity_id, flag.detail, flag.key) for flag in self.flags]
        return pd.DataFrame(rows, columns=pd.Index(["kind", "source", "entity_id", "detail", "key"]))

    def require_sound(self) -> None:
        """Raise StoreError if answers are damaged."""
        if damaged := self.counts["damaged"]:
            out = (
                "They are taken out"
                if "damaged" in self.excluded
                else "Take them out: kar-aug cache verify --exclude damaged"
            )
            raise StoreError(
                f"{damaged:,} answers are damaged. {out}; ask for them again: kar-aug generate --retry-failed"
            )

    def __str__(self) -> str:
        found = ", ".join(f"{count:,} {kind}" for kind, count in self.counts.items() if count)
        return f"{self.answers:,} answers: {found or 'no flags'}"


class SoundStore(NamedTuple):
    """A store whose vectors fit their checksums."""

    entity: str
    vectors: int
    bytes: int


def holds_texts(where: str) -> bool:
    """Whether it is a table that `Answers.export` did not write."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if Path(where).is_dir():
        parts = parquet_files(Path(where))
        return not parts or holds_texts(str(parts[0]))
    if not where.lower().endswith(".parquet"):
        return is_table(where) and not is_spilt(Path(where))
    try:
        return "key" not in pq.read_schema(where).names
    except (pa.ArrowException, OSError):
        return False  # which is said where it is read


class _Metadata:
    """The row of an entity, with the values that the scenario lets a prompt show."""

    def __init__(self, workspace: Workspace) -> None:
        self._rows: dict[str, Mapping[Any, Mapping[str, Any]]] = {}
        items = workspace.data.tables.items
        shown = [name for name in ("title", "year", *workspace.asking.scenario.item["fields"]) if name in items]
        frame = items.set_index("item_id")[list(dict.fromkeys(shown))]
        self._rows["item"] = frame.to_dict("index")  # type: ignore[assignment]
        self._vocabularies = vocabularies({str(name): frame[name].tolist() for name in frame})

    def __call__(self, knowledge: str, entity_id: int | str) -> Mapping[str, Any]:
        if is_of_groups(knowledge):
            return {}
        row = self._rows.get(knowledge.partition(":")[0], {}).get(entity_id)
        return {} if row is None else {**row, **self._vocabularies}
