"""A project: every stage of one kar.toml as a method, with results to print, to look at and to go on with."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from kar_aug._helpers.formats import FORMATS, SAVED_MODEL, VECTORS
from kar_aug._helpers.targets import file_to_write
from kar_aug.audit import Audit
from kar_aug.audit import audit as run_audit
from kar_aug.config import AUDITED_USERS, Config
from kar_aug.errors import ConfigError
from kar_aug.generate.jsonl import MOST_REQUESTS
from kar_aug.inspect import Inspection
from kar_aug.inspect import inspect as look_at
from kar_aug.inspect.view import View, write_view
from kar_aug.online import Checked, Published
from kar_aug.pipeline import (
    checking,
    coding,
    comparing,
    costs,
    encoding,
    factors,
    fairness,
    forgetting,
    generation,
    preparation,
    vectors,
)  # fmt: skip
from kar_aug.pipeline.answers import Answers
from kar_aug.pipeline.checking import Outlook
from kar_aug.pipeline.coding import Coded
from kar_aug.pipeline.comparing import Compared
from kar_aug.pipeline.costs import Costs
from kar_aug.pipeline.encoding import Encoded
from kar_aug.pipeline.factors import Proposed
from kar_aug.pipeline.fairness import Fairness
from kar_aug.pipeline.forgetting import Forgotten
from kar_aug.pipeline.generation import DryRun, Exported, Generated, Job, Status
from kar_aug.pipeline.notebook import NotebookWatch, in_notebook
from kar_aug.pipeline.preparation import Prepared
from kar_aug.pipeline.prompting import Prompts
from kar_aug.pipeline.watch import SILENT, Watch
from kar_aug.pipeline.workspace import ENTITIES, Workspace
from kar_aug.pipeline.workspace.at_work import at_work
from kar_aug.pipeline.workspace.forgotten import ForgottenIds
from kar_aug.pipeline.workspace.frames import Table, config_of, with_kept_frames
from kar_aug.pipeline.workspace.passed_on import PAGE, note
from kar_aug.registry import ASKING_ENGINES, ENCODING_ENGINES


class Project:
    """The stages of a kar.toml, or of the same settings as a dict, in Python.

    Each stage can be stopped at any moment and called again: it does only what is missing. Nothing is printed, but that
    a notebook shows how far a stage is; results print well, and have data frames. Tables and scenario are read once:
    open the project again when they changed.

    Args:
        settings: sections as dicts, `{"data": {...}, "generate": {...}, "workdir": ".kar"}`; paths in them are relative
            to the current folder. Or a `Config`.
        interactions, items, users: the tables, as DataFrames or as paths of Parquet or CSV files. A DataFrame is kept
            as Parquet in the workdir.
        watch: hears of the stages' progress. If not given, nobody does; in a notebook, the page: `watch=Watch()` is
            silent there, too.

    Raises:
        ConfigError: The settings say something unknown, of a wrong type or out of range.
        DataError: A DataFrame holds what Parquet cannot.

    Example:
        >>> project = Project.open("kar.toml")  # doctest: +SKIP
        >>> project.generate(); project.encode(); print(project.audit())  # doctest: +SKIP
        >>> print(project.compare().verdicts)  # doctest: +SKIP
    """

    def __init__(
        self,
        settings: Mapping[str, Any] | Config,
        *,
        interactions: Table | None = None,
        items: Table | None = None,
        users: Table | None = None,
        watch: Watch | None = None,
    ) -> None:
        given = {"interactions": interactions, "items": items, "users": users}
        tables = {name: table for name, table in given.items() if table is not None}
        config = settings if isinstance(settings, Config) else config_of(settings, tables)
        if isinstance(settings, Config) and tables:
            raise TypeError("A `Config` names its tables itself: give them there, or the settings as a dict.")
        self.workspace = Workspace(config)
        self.watch = watch or (NotebookWatch() if in_notebook() else SILENT)
        self._left_out = ForgottenIds.read(config.work).fingerprint

    @classmethod
    def open(cls, path: Path | str = "kar.toml", *, watch: Watch | None = None, **changes: Any) -> Self:
        """The project of a kar.toml.

        Args:
            changes: sections, whose values go over the file's: `generate={"model": "gpt-4o"}, compare={"seeds": 5}`; or
                `workdir="elsewhere"`.

        Raises:
            ConfigError: The file is not there, is not TOML, or says something unknown or of a wrong type.
        """
        return cls(Config.load(path, changes), watch=watch)

    @property
    def config(self) -> Config:
        """The settings."""
        return self.workspace.config

    # What is asked

    def prompts(self, entity: str, *, recipe: str | None = None) -> Prompts:
        """The prompts about users, or items: what the language model will be asked.

        Args:
            entity: "user" or "item".
            recipe: how to ask, instead of what the settings say: a name, or a .toml file.

        Raises:
            ConfigError: The recipe does not ask about these.
        """
        _entities(entity)
        if recipe is None:
            return Prompts(self.workspace, entity, self.watch)
        asks = self.asks(recipe)
        if entity not in asks:
            raise ConfigError(f"The recipe {recipe!r} asks about {' and '.join(asks)}s only.")
        by_recipe: dict[str, Any] = {f"{entity}_recipe": recipe}
        workspace = self.workspace.changed(prompts=replace(self.config.prompts, **by_recipe))
        return Prompts(workspace, entity, self.watch)

    def asks(self, recipe: str) -> tuple[str, ...]:
        """The entities that a recipe asks about: "user", "item" or both."""
        return tuple(self.workspace.paths.recipe(recipe).sections)

    def factors(self, *, samples: int = 5) -> Proposed:
        """Ask the language model for the factors that decide preference; `.decide(...)` writes some into the scenario.

        Args:
            samples: how often the model is asked.
        """
        return factors.propose_factors(self.workspace, samples=samples)

    # Asking

    def generate(
        self,
        only: str | None = None,
        *,
        retry_failed: bool = False,
        shard: tuple[int, int] = (1, 1),
        batch: bool = False,
        wait: bool = True,
        most_requests: int = MOST_REQUESTS,
        poll_seconds: float = 30.0,
        forget_batches: Sequence[str] = (),
        engine: str | None = None,
        address: str | None = None,
        workers: int | None = None,
    ) -> Generated:
        """Ask the language model about users and items; answers that are there already are not asked for again.

        Args:
            only: "user" or "item"; both if None.
            retry_failed: ask again what was rejected, refused or answered with nothing.
            shard: the share of this process, (2, 8) for the second of eight; each with its own cache.
            batch: use the Batch API.
            wait: with `batch`, whether to stay until it is over; the same call later collects.
            most_requests, poll_seconds: of one batch, and between two looks at the batches.
            forget_batches: batches that the server does not know any more, whose prompts are to be asked again.
            engine: "ray" or "spark", whose workers ask instead of this process; see `kar_aug.engines`.
            address: of the engine's cluster: "auto", "ray://head:10001"; of Spark, its master.
            workers: how many of the engine's ask at a time; one a core if None.

        Returns:
            What was done; `complete` says whether every prompt was answered.

        Raises:
            LimitReached: The next request would cross max_cost or max_requests.
            GenerationError: The server cannot be reached, refuses one request after the other, or answered no prompt.
            KeyboardInterrupt: Ctrl-C came; the requests in flight were finished and stored first.
        """
        job = self._job(only, shard, retry_failed)
        if engine is not None:
            if batch or forget_batches:
                raise ConfigError("The Batch API is one process's: leave out batch, or engine.")
            with self._at_work("generate"):  # the workers have the rows; without an engine the cache's claims say it
                job = self._job(only, shard, retry_failed)
                done: Generated = ASKING_ENGINES.load(engine)(job, self.watch, address=address, workers=workers)
            return done
        if not batch:
            if forget_batches:
                raise ConfigError("forget_batches goes with batch = True: plain requests leave the batches alone.")
            return generation.ask(job, self.watch)
        return generation.ask_in_batches(
            job,
            self.watch,
            most_requests=most_requests,
            wait=wait,
            poll_seconds=poll_seconds,
            forget=forget_batches,
        )

    def dry_run(
        self, only: str | None = None, *, retry_failed: bool = False, shard: tuple[int, int] = (1, 1)
    ) -> DryRun:
        """What `generate` would ask, in tokens and US dollars. Nothing is sent."""
        return generation.dry_run(self._job(only, shard, retry_failed))

    def status(self, only: str | None = None, *, shard: tuple[int, int] = (1, 1)) -> Status:
        """What is answered, what failed and why, and which batches run. Nothing is sent."""
        return generation.status(self._job(only, shard))

    def export_requests(
        self,
        path: Path | str,
        only: str | None = None,
        *,
        retry_failed: bool = False,
        shard: tuple[int, int] = (1, 1),
    ) -> Exported:
        """Write what `generate` would ask into a file of JSON lines, for providers that take files."""
        path = file_to_write(path)
        with self._at_work("export"):
            return generation.export_requests(self._job(only, shard, retry_failed), path)

    def import_responses(
        self, *paths: Path | str, only: str | None = None, shard: tuple[int, int] = (1, 1)
    ) -> Generated:
        """Bring in files of responses, in the form of the Batch API."""
        with self._at_work("import"):
            return generation.import_responses(self._job(only, shard), [Path(path) for path in paths], self.watch)

    def cost(self) -> Costs:
        """What was spent by day, model and recipe, and what can be spent by what is on its way."""
        return costs.costs(self.workspace)

    def _job(self, only: str | None, shard: tuple[int, int], retry_failed: bool = False) -> Job:
        self._look_who_was_forgotten()
        return Job(self.workspace, _entities(only), shard, retry_failed)

    @property
    def cache(self) -> Answers:
        """The stored answers: count, verify, prune, export and import them."""
        return Answers(self.workspace)

    # What is made of the answers

    def encode(
        self,
        *,
        collaborative: bool = False,
        engine: str | None = None,
        address: str | None = None,
        workers: int | None = None,
        num_gpus: float = 0.0,
    ) -> Encoded:
        """Turn the answers into knowledge vectors; those that are up to date stay.

        Args:
            collaborative: make vectors of the training part's behaviour instead, which the control "collaborative" has.
            engine: "ray", whose actors hold the encoder, each with `num_gpus`.
            address, workers: as in `generate`.

        Raises:
            EncodingError: There is no knowledge at all.
            LimitReached: The endpoint's next request would cross [encode] max_cost.
            StoreError: A store was made with another encoder, prompt version or language model.
        """
        with self._at_work("encode"):
            if engine is None or collaborative:
                return encoding.encode(self.workspace, self.watch, collaborative=collaborative)
            by_engine = ENCODING_ENGINES.load(engine)
            done: Encoded = by_engine(self.workspace, self.watch, address=address, workers=workers, num_gpus=num_gpus)
            return done

    def codes(self, *, anew: bool = False) -> Coded:
        """Turn the vectors into semantic ids, which the injection "codes" reads; items that have some keep theirs.

        Args:
            anew: fit new codebooks, which moves all codes: models that were trained with the old ones read noise.

        Raises:
            StoreError: There are no vectors; or they are of another version than the codebooks, or [codes] says others.
            EncodingError: There are fewer vectors than codes a level.
            MissingDependencyError: scikit-learn is not installed.
        """
        with self._at_work("codes"):
            done = coding.make_codes(self.workspace, self.watch, anew=anew)
            # The same tables; samples that were read have the codes of before.
            self.workspace = self.workspace.changed()
            return done

    def check(self) -> Outlook:
        """What a run will do and cost, and every trap that is sure to fail later. Nothing is sent, nothing trained."""
        return checking.check(self.workspace, self.watch)

    def prepare(self) -> Prepared:
        """Make what models read, in a folder that all trainings share; the first stage that needs it does so, too.

        Raises:
            DataError: The data cannot be read or split; or it is of others' code, and nobody can tell when it changes.
        """
        with self._at_work("prepare"):
            return preparation.prepare(self.workspace)

    def audit(self) -> Audit:
        """Look for leaks: anything by which knowledge or features know what a comparison tests on."""
        return run_audit(self.workspace)

    def audit_fairness(self, attributes: Sequence[str], *, users: int = AUDITED_USERS) -> Fairness:
        """Ask about some users with and without sensitive attributes, by the same histories; how far texts, vectors
        and, where a model was trained, predictions move. Answers go into the cache, and count in the budget, like all
        others.

        Args:
            attributes: columns of the users.
            users: how many to ask about: each once, and once more for each value of each attribute.
        """
        with self._at_work("audit"):
            workspace = comparing.with_what_is_known(self.workspace, self.watch)
            return fairness.audit_fairness(workspace, attributes, self.watch, users=users)

    def compare(self, *, unaudited: bool = False) -> Compared:
        """Train each backbone with and without knowledge, and with controls; what was trained before is not again.

        Args:
            unaudited: compare though the audit may find leaks.

        Raises:
            LeakageError: The audit found leaks.
            StoreError: Vectors are missing.
        """
        with self._at_work("compare"):
            return comparing.compare(self.workspace, self.watch, unaudited=unaudited)

    def list_scores(self, output: Path | str, arm: str | None = None, *, seed: int = 0) -> Path:
        """Write what a compared model of clicks says of all lists ([data] lists), as `[data] initial_scores` reads it:
        the initial ranker of a re-ranking. Each item is judged at its list's first moment.

        Of the training part these are scores of rows that the model was trained on: they are surer than those of the
        test part.

        Args:
            output: a Parquet file of impression_id, item_id and initial_score.
            arm: its name in the tables of results; the plain first backbone if None.

        Raises:
            ConfigError: There are no lists, or the task is no task of clicks.
            StoreError: `compare` trained no such model on this data.
        """
        output = file_to_write(output)
        with self._at_work("export"):
            return comparing.list_scores(self.workspace, output, arm, seed)

    def export(
        self, output: Path | str, backbone: str | None = None, *, seed: int = 0, arm: str | None = None,
        format: str = SAVED_MODEL,  # noqa: A002 - what the command calls it
    ) -> Path:  # fmt: skip
        """Write a compared model as a SavedModel with prestored vectors, which TensorFlow alone can serve, and which is
        fed with raw ids and raw values.

        Args:
            output: the folder to write, or an older export to be replaced; assets.extra/kar_aug.json in it says what a
                request holds.
            backbone: which of the compared models; the first of the settings if None.
            seed: which of its trainings.
            arm: instead of the backbone with the fullest knowledge, the one that tables of results call so: the plain
                backbone ("DeepFM"), or one with knowledge ("DeepFM + item knowledge (similarity)").
            format: or "onnx" or "tflite", one file in the folder, which is fed likewise, with the notes beside it.
                TFLite has not all operations (none of a GRU, say).

        Raises:
            ValueError: There is no such format.
            ConfigError: `output` is no path.
            MissingDependencyError: For "onnx", tf2onnx is not installed.
            StoreError: There is no such training on this data and knowledge, or something else is in the folder.
        """
        if format not in FORMATS:
            raise ValueError(f"`format` must be one of {', '.join(FORMATS)}. Received: {format!r}")
        with self._at_work("export"):
            compare = self.config.compare
            if arm is not None:
                return comparing.export(self.workspace, output, "", seed, arm, format)
            backbone = backbone or compare.backbones[0]
            workspace = self.workspace.changed(compare=replace(compare, backbones=(backbone,)))
            return comparing.export(workspace, output, backbone, seed, kind=format)

    def export_vectors(
        self, where: Path | str, *, entity: str = "item", what: str = "raw", backbone: str | None = None,
        arm: str | None = None, seed: int = 0, kind: str | None = None, whole: bool = False,
    ) -> Published:  # fmt: skip
        """Bring a place up to date with the vectors of users, or items: what is new or changed is written, what is gone
        is taken away.

        Args:
            where: a folder of Parquet files, a .parquet, .lance or .faiss, or a redis:// URL.
            what: "raw", as they were encoded, or "augmented", as the experts of a trained model made them: of
                `backbone` (the first of the settings if None), or of `arm`, by its name in the tables of results.
            kind: of the place: a name of `kar_aug.registry.PLACES`, by default what `where` says.
            whole: write all, also what is there already.

        Raises:
            StoreError: There are no such vectors, or the place cannot be read or written.
        """
        with self._at_work("export"):
            by = self._experts(what, backbone, arm, seed)
            return vectors.export_vectors(self.workspace, entity, where, augmented_by=by, kind=kind, whole=whole)

    def check_vectors(
        self, where: Path | str, *, entity: str = "item", what: str = "raw", backbone: str | None = None,
        arm: str | None = None, seed: int = 0, kind: str | None = None,
    ) -> Checked:  # fmt: skip
        """Compare a place with the vectors, number by number; the arguments are those of `export_vectors`."""
        return vectors.check_vectors(
            self.workspace, entity, where, augmented_by=self._experts(what, backbone, arm, seed), kind=kind
        )

    def _experts(
        self, what: str, backbone: str | None, arm: str | None, seed: int
    ) -> tuple[str, int, str | None] | None:
        if what not in VECTORS:
            raise ValueError(f"`what` must be one of {VECTORS}. Received: {what!r}")
        return None if what == "raw" else (backbone or self.config.compare.backbones[0], seed, arm)

    def view(self, path: Path | str = "answers.html", *, prompts: bool = True) -> View:
        """Write all answers, with prompts, flags, costs and neighbours, as one page to read and search in a browser.

        Args:
            prompts: whether with the prompts, which show rows of the data.

        Raises:
            ConfigError: `path` is no path.
            StoreError: No file can be written there.
        """
        path = file_to_write(path)
        with self._at_work("view"):
            note(self.config.work, PAGE, path)  # before: a call that is killed may have written it
            return write_view(self.workspace, path, self.cache.verify().flags, prompts=prompts)

    def forget(
        self, users: Collection[int | str] = (), items: Collection[int | str] = (), *, dry_run: bool = False
    ) -> Forgotten:
        """Delete all that is kept of some users and items, and leave them out from now on.

        What goes: prompts and answers, those of earlier prompts included; vectors of every generation; failures,
        requests in batches, answers beside the cache; rows of answers, requests and vectors that were exported or
        published to where this process can write; copies of data frames. SQLite files are written anew, so that nothing
        is left in free pages or journals. What was made of many and cannot be taken apart goes whole where a user was
        in it, and is made again when it is needed: groups with their answers, prepared samples, trained models with
        their predictions, vectors of behaviour.

        What stays: an answer to a question that another has with the very same words, as it says nothing of one that it
        does not say of the other; only the link to it goes. Titles of a forgotten item in the prompts of users who had
        it, which are these users' history. What was paid, without whom or what for. The project's own tables, which are
        yours to mend.

        From then on `generate`, `encode` and `compare` leave these ids out, though tables, other caches or files that
        are imported still hold them, until `unforget`: a right to be forgotten that ends with the next run is none.
        The workdir's forgotten.json keeps a keyed hash of each id for that, and of each question that was asked about
        them: an answer that is brought in later is dropped, and only what it cost is written down. Projects with
        another workdir have lists of their own, also where they share a cache.

        Beyond reach, and listed: what providers of models were sent, and when; addresses whose password is not kept;
        exported models; and, unlisted, what you copied yourself, backups, and blocks that a file system keeps of
        deleted files. A call that was stopped is to be made again: it goes on.

        Args:
            dry_run: only find out what would go.

        Raises:
            StoreError: A job, a comparison or an export is running, or another process writes a store of vectors.
        """
        done = forgetting.forget(self.workspace, _whom(users, items), dry_run=dry_run)
        self._read_anew()
        return done

    def unforget(self, users: Collection[int | str] = (), items: Collection[int | str] = ()) -> int:
        """Let users and items in again, who must be asked about anew. Returns how many had been forgotten."""
        count = forgetting.unforget(self.workspace, _whom(users, items))
        self._read_anew()
        return count

    @contextmanager
    def _at_work(self, what: str) -> Iterator[None]:
        """Nobody is forgotten while the block runs; and who was before is not in the tables."""
        with at_work(self.config.work, what):
            self._look_who_was_forgotten()
            yield

    def _look_who_was_forgotten(self) -> None:
        """Another process may have forgotten somebody since the tables were read."""
        if ForgottenIds.read(self.config.work).fingerprint != self._left_out:
            self._read_anew()

    def _read_anew(self) -> None:
        self.workspace = Workspace(with_kept_frames(self.config))
        self._left_out = ForgottenIds.read(self.config.work).fingerprint

    @property
    def inspect(self) -> Inspection:
        """What there is so far: `.item(50)`, `.vectors()`, `.nearest("Fargo (1996)")`."""
        return look_at(self.workspace)


def _whom(users: Collection[int | str], items: Collection[int | str]) -> dict[str, Collection[int | str]]:
    """Ids by entity. A single text is one id, and not its letters.

    Raises:
        TypeError: A single number: ids come in a list.
    """
    return {entity: [ids] if isinstance(ids, str) else [*ids] for entity, ids in (("user", users), ("item", items))}


def _entities(only: str | None) -> tuple[str, ...]:
    """Those that are meant; both if none are named.

    Raises:
        ValueError: There is no such entity.
    """
    if only is None:
        return ENTITIES
    if only not in ENTITIES:
        raise ValueError(f"An entity is 'user' or 'item'. Received: {only!r}")
    return (only,)
