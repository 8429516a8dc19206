"""kar.toml as frozen dataclasses: one section a stage, checked when read."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from kar_aug._helpers.servers.addresses import checked
from kar_aug._helpers.settings import check, check_choices, check_known, read_section, read_value, setting
from kar_aug.errors import ConfigError
from kar_aug.registry import (
    ADAPTORS,
    BACKBONES,
    BLIND,
    CONTROLS,
    DATASETS,
    ENCODERS,
    INJECTIONS,
    PROTOCOLS,
    RERANKERS,
    SELECTIONS,
)

# Whom knowledge is about.
ENTITIES = ("user", "item")
# The base_url that means: serve the small local model in this process.
LOCAL = "local"
# An arm without knowledge, and the kinds of arms with it: whom it is about.
BASE = "base"
KNOWLEDGE: Mapping[str, tuple[str, ...]] = {"user": ("user",), "item": ("item",), "both": ("user", "item")}
FALLBACKS = ("none", "profile", "average")
LONG_TEXTS = ("average", "cut")
TABLES = ("interactions", "items", "users")
ID_TYPES = ("integer", "string")
LISTS = ("impressions", "kar")
TASKS = ("ctr", "rerank")
AUDITED_USERS = 50  # that a fairness audit asks about, if not told otherwise
LOSSES = ("softmax", "bce", "listmle", "attention-rank")
_LIST_METRIC = re.compile(r"(MAP|NDCG|MRR|HR|CLICK)@[1-9]\d*")
_UNITS = {"MB": 1 << 20, "GB": 1 << 30}
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 7 * 86400}
_DURATION = re.compile(rf"\s*(\d+(?:\.\d+)?)\s*({'|'.join(_SECONDS)})s?\s*")
_BYTES = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(MB|GB)\s*", re.IGNORECASE)
# Models of OpenAI that think before they answer.
_REASONING = re.compile(r"(o\d|gpt-5)(\b|-)")
_NO_DATA = (
    "[data] names no data yet. Let your files be looked at: kar-aug init --data FILES --force (and --scenario NAME to "
    'keep one); it fills in what follows. Or by hand: interactions = "log.csv", with the columns user_id, item_id, '
    'timestamp, and rating or label (label = "event == \'buy\'" where neither says it; columns = { user_id = "uid" } '
    'where yours are called otherwise); items = "items.csv" and users = "users.csv", with what prompts and models may '
    'read; item_features = ["genre"]. Or a public data set: dataset = "movielens-100k".'
)
# Parameters of a request that bound the tokens of its answer.
FEWEST_STEPS = 50  # of an epoch, for a model that is to leave chance
_SMALLEST_BATCH, _LARGEST_BATCH = 32, 1024
_LONGEST = ("max_tokens", "max_completion_tokens", "max_output_tokens")


@dataclass(frozen=True)
class DataConfig:
    """[data]: the tables and their split.

    Args:
        dataset: a public data set by name, or None and the paths of the user's own tables.
        path: where the public data set lies (archive, folder or file), relative to kar.toml; downloaded if not given.
        interactions, items, users: Parquet, CSV, JSON lines or Arrow files, or folders of parts of the first three
            kinds, relative to kar.toml (see `kar_aug.data.reading`).
        columns: what the files call a column, by our name for it: { user_id = "uid", timestamp = "ts" }; for one table
            alone under its name: { items = { item_id = "article" } }. "genres.name" takes a key of structs.
        id_type: "integer" or "string", where ids are to be these. In a CSV file '001' is 1, unless they are strings.
        separator, encoding: of text files; told from their content if not given.
        thousands: of text files, what stands between the digits of numbers: "," of "1,234.5". A column that is not
            written so throughout stays text.
        shown, clicked: columns of lists, where a row of the interactions is an impression: the items that it showed,
            and those of them that were clicked.
        item_columns: columns of the interactions that are of the item, where there is no table of items: it is made of
            them.
        user_features, item_features: columns of the tables that the CTR model reads, as categories. Also
            "attributes.country": what was answered by the recipe "attributes" (see `kar_aug.pipeline.workspace`).
            Of items also "codes": their semantic ids, piece by piece (`kar-aug codes`).
        context: columns of the interactions that are known when an impression is made; "hour" and "weekday" are made
            from the timestamp where there are no such columns.
        numeric: columns of any table that are read as numbers: "standard", "log" or "minmax", or as quantile "buckets".
        label: what a click is, as a column of 0 and 1 or an expression over the interactions: "event == 'buy'".
        samples: an expression that is true of the rows that are samples; all others are events of the past. For logs of
            several kinds of event: "event == 'view'".
        conversion_window: "1 day": a sample is a click if its label says so, or that of a later event of the same user
            and item within so long. Whether a view becomes a purchase.
        one_sample: whether of samples of the same user, item and moment one alone is left, a click if there is one; the
            others are events of the past. For logs in which a view and its purchase are two rows.
        weight: a column of the interactions: how much a row counts in training and metrics.
        negatives: items drawn for each click, for logs that hold clicks only.
        lists: which lists are ranked again, under [compare] task = "rerank": "impressions", what a log says was shown
            together (impression_id; ordered by initial_score or position); "kar", lists that are made, of 4 of a user's
            next items and 6 random ones, and are called synthetic wherever they appear.
        initial_scores: a file of impression_id, item_id and initial_score, by which lists are ordered before: what
            `Project.list_scores` writes of any click model, or a ranker of your own.
        list_length: so many items of a list are ranked, those behind them stay there.
        inputs: "full" reads all that is named here; "kar" what KAR's authors read, to be set beside their numbers: the
            item, the first of its first category's values, the latest events with both and their ratings.
        events: the earlier events that a model reads: "all", or "clicks" alone.
        event_features: what it reads of each beside its item: columns of interactions or items, "label" (whether it was
            a click), and "since" (how long ago). If not given: the rating, or the label in a log that has none, the
            item_features and since.
        event_values: where events have several values in a cell (genres), so many of the first are read of each, and
            averaged. 1 reads the first alone.
        sequences: further sequences of events: { views = "event == 'view'" }.
        user_ids: whether the user's id is read. If not given, not under "user", where nobody is tested on who was
            trained on.
        item_ids: whether the item's id is read, of the candidate and of earlier events. Without it a model knows an
            item by its features, and by knowledge, alone: new ones as well as any.
        fewest: an id with fewer training events than this is read as an unknown one.
        protocol: "user" splits users, as KAR does; "temporal" splits time, the same for all users.
        history: most events of a user that the prompt may see, and no model is trained on; under "user".
        history_share: share of all events in the span that prompts may see; under "temporal".
        click_above: a rating above this is a click.
        history_length: how many of the latest events a model reads; 50 if not given, and 5 for inputs = "kar".
        past_length: how many of the latest events knowledge compares the candidate with, where an injection does that.
        validation, test: shares of the users; under "temporal" of all events.
        sample_users: so many users alone, for a first look: always the same, and among those of a larger number.
        seed: draws the users of each part; under "user".
        memory: what a process may take for itself, about, while a long log is read, split and prepared: "512 MB". What
            is longer lies in files of the workdir meanwhile. Changes what it takes, and never what comes out.
    """

    dataset: str | None = setting(None, among=DATASETS)
    path: str | None = None
    interactions: str | None = None
    items: str | None = None
    users: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    id_type: str | None = setting(None, among=ID_TYPES)
    separator: str | None = None
    encoding: str | None = None
    thousands: str | None = None
    shown: str | None = None
    clicked: str | None = None
    item_columns: tuple[str, ...] = ()
    user_features: tuple[str, ...] = ()
    item_features: tuple[str, ...] = ()
    context: tuple[str, ...] = ()
    numeric: Mapping[str, str] = field(default_factory=dict)
    label: str | None = None
    samples: str | None = None
    conversion_window: str | None = None
    one_sample: bool = False
    weight: str | None = None
    negatives: int = setting(0, least=0)
    lists: str | None = setting(None, among=LISTS)
    initial_scores: str | None = None
    list_length: int = setting(30, least=2)
    inputs: str = setting("full", among=("full", "kar"))
    events: str = setting("all", among=("all", "clicks"))
    event_features: tuple[str, ...] | None = None
    event_values: int = setting(8, least=1)
    sequences: Mapping[str, str] = field(default_factory=dict)
    user_ids: bool | None = None
    item_ids: bool = True
    fewest: int = setting(1, least=1)
    protocol: str = setting("user", among=PROTOCOLS)
    history: int = setting(30, least=0)
    history_share: float = setting(0.4, least=0.001, most=0.9)
    click_above: float = 3
    history_length: int | None = setting(None, least=0)
    past_length: int = setting(200, least=0)
    validation: float = setting(0.1, least=0.001, most=0.9)
    test: float = setting(0.1, least=0.001, most=0.9)
    seed: int = setting(0, least=0)
    sample_users: int | None = setting(None, least=1)
    memory: str = "1 GB"

    def __post_init__(self) -> None:
        check("data", self)
        if self.bytes < _UNITS["MB"]:
            raise ConfigError(f'[data] memory must be "512 MB", "2 GB" or the like, not {self.memory!r}.')
        if self.dataset is None and self.interactions is None:
            raise ConfigError(_NO_DATA)
        if self.dataset is not None and self.interactions is not None:
            raise ConfigError("[data] needs either dataset = ... or interactions = ..., and not both.")
        own = ("columns", "id_type", "separator", "encoding", "thousands", "shown", "clicked", "item_columns")
        for name, needs in (("path", "dataset"), *((name, "interactions") for name in own)):
            if getattr(self, name) and getattr(self, needs) is None:
                raise ConfigError(f"[data] {name} goes with {needs} = ... only.")
        of_tables = {name: own for name, own in self.columns.items() if name in TABLES and isinstance(own, Mapping)}
        shared = {name: theirs for name, theirs in self.columns.items() if name not in of_tables}
        for names in (shared, *of_tables.values()):
            if not all(isinstance(name, str) for name in names.values()):
                raise ConfigError('[data] columns must hold names of columns: { user_id = "uid", timestamp = "ts" }')
            if len(set(names.values())) < len(names):
                raise ConfigError("[data] columns names one column of yours twice.")
        if self.conversion_window is not None and not self.window:
            raise ConfigError(
                f'[data] conversion_window must be "1 day", "12 hours" or the like, not {self.conversion_window!r}.'
            )
        if self.conversion_window is not None and self.label is None:
            raise ConfigError("[data] conversion_window goes with label = ... only: what is it that follows a sample?")
        if "label" in (self.event_features or ()) and (self.samples is not None or self.conversion_window is not None):
            raise ConfigError(
                "[data] event_features: the label of an earlier event may be what became of it only later, by samples "
                'or conversion_window. What the event said by itself is its "rating": name that.'
            )
        if (self.shown is None) != (self.clicked is None):
            raise ConfigError("[data] shown and clicked go together: the items of an impression, and those clicked.")
        if self.item_columns and self.items:
            raise ConfigError("[data] item_columns makes a table of items, and items = ... names one: give either.")
        if self.lists is not None and self.negatives:
            raise ConfigError(
                "[data] negatives are drawn for clicks. Lists hold what was shown together, and "
                'lists = "kar" draws its own: leave one out.'
            )
        if self.lists is not None and self.weight is not None:
            raise ConfigError(
                "[data] weight says how much a row counts, and lists are ranked and judged as wholes: leave one out."
            )
        if self.separator == "":
            raise ConfigError('[data] separator must be what stands between two cells: ";"')
        if self.thousands is not None and not (len(self.thousands) == 1 and not self.thousands.isalnum()):
            raise ConfigError('[data] thousands must be what stands between the digits of numbers: "," of "1,234.5"')
        if self.encoding is not None and not _is_encoding(self.encoding):
            raise ConfigError(f"[data] encoding {self.encoding!r} is unknown. Usual ones: utf-8, cp1252, gb18030.")
        for name in ("numeric", "sequences"):
            if not all(isinstance(value, str) for value in getattr(self, name).values()):
                example = {"numeric": 'price = "log"', "sequences": "views = \"event == 'view'\""}[name]
                raise ConfigError(f"[data] {name} must hold texts: {{ {example} }}")

    @property
    def window(self) -> float | None:
        """What `conversion_window` says, in seconds; 0 where it says nothing."""
        if self.conversion_window is None:
            return None
        said = _DURATION.fullmatch(self.conversion_window)
        return float(said[1]) * _SECONDS[said[2]] if said else 0

    @property
    def bytes(self) -> int:
        """What `memory` says; 0 where it says nothing."""
        said = _BYTES.fullmatch(self.memory)
        return int(float(said[1]) * _UNITS[said[2].upper()]) if said else 0


@dataclass(frozen=True)
class PromptConfig:
    """[prompts]: what is asked about whom.

    Args:
        scenario: a scenario of kar-aug by name, or the path of a .toml file.
        user_recipe, item_recipe: how to ask about users, and items: recipes by name, or paths of .toml files. "kar" is
            the scenario's own question.
        leave_out: columns of users or items that no prompt shows, though the scenario would: ["gender", "age"].
        max_events: how many of a user's history events a prompt shows.
        selection: which of the events, where there are more: "recent"; "informative" (rated unlike most, of rare
            items); "diverse" (a cover of the taste by the items' vectors); "summarised" (the latest, after summaries of
            all before, which are asked for first: see `kar_aug.prompts.histories.summaries`). Or "blocks", under
            "temporal": all events of the log, max_events at a time, so that what is known of a user grows, and each
            sample is given what was known before it: see `kar_aug.prompts.histories.blocks`.
        unfinished_block: with "blocks", whether the last one is asked about before it is full, and again when it has
            grown.
        min_events: users with a shorter history are not asked about.
        fallback: what is said of users below min_events, at no cost: "none"; "profile"; "average" (what most users
            like).
        max_users, max_items: ask about so many only, those with most history first; all if not given.
        whole_catalogue: whether items are asked about, too, that have no event at all: a comparison reads nothing of
            them, and a model that serves may.
        user_clusters, item_clusters: ask also about so many groups of users, or items, and give each entity its group's
            knowledge (see `kar_aug.pipeline.workspace.groups`).
        cluster_by: what groups have in common: "interactions" of the histories, or "vectors" of the items' own
            knowledge, and of what users clicked.
        own_share: of an entity's own vector, beside its group's; 0 is the group's alone.
    """

    scenario: str = "movies"
    user_recipe: str = "kar"
    item_recipe: str = "kar"
    leave_out: tuple[str, ...] = ()
    max_events: int = setting(30, least=1)
    selection: str = setting("recent", among=SELECTIONS, was="history")
    unfinished_block: bool = False
    min_events: int = setting(1, least=1)
    fallback: str = setting("none", among=FALLBACKS)
    max_users: int | None = setting(None, least=0)
    max_items: int | None = setting(None, least=0)
    whole_catalogue: bool = False
    user_clusters: int | None = setting(None, least=1)
    item_clusters: int | None = setting(None, least=1)
    cluster_by: str = setting("interactions", among=("interactions", "vectors"))
    own_share: float = setting(0.5, least=0, most=1)

    def __post_init__(self) -> None:
        check("prompts", self)
        if self.selection != "blocks":
            if self.unfinished_block:
                raise ConfigError('[prompts] unfinished_block goes with selection = "blocks" only.')
        elif self.user_clusters is not None or self.fallback != "none":
            raise ConfigError(
                '[prompts] selection = "blocks" knows since when each text may be used, which nobody can say of '
                "user_clusters and fallback: leave them out."
            )


@dataclass(frozen=True)
class LanguageModel:
    """[generate]: which model to ask, where, how fast and for how much. An API key is never part of it.

    Args:
        model: its name at the server.
        base_url: of an OpenAI-compatible server (vLLM, Ollama, llama.cpp ...); OpenAI itself if not given;
            "local" serves a small model in this process. A query in it ("?api-version=...") goes with each request; a
            user and a password are sent as basic authentication, in place of the API key.
        api_key_env: the environment variable that holds the key.
        api_key_file: a file that holds the key and nothing else; read instead of the environment.
        served_model: what the server calls the model in its answers, where that is another name. An answer by any
            other model is kept apart, and stops the job.
        max_tokens: longest answer.
        temperature, seed: sampling parameters; part of an answer's key, as `max_tokens` is.
        extra: further parameters of a request, such as reasoning_effort; part of the key too.
        omit: parameters that the server does not take ("seed"; "response_format": answers are checked by their schema
            all the same).
        service_tier: "flex" asks OpenAI for the same answers at half the price, later; "priority" sooner, at up to
            twice the price, which the limits reckon with.
        concurrency: most requests in flight; fewer when the server asks to slow down.
        rpm, tpm: most requests and tokens a minute.
        timeout: seconds until a request counts as lost.
        tries: how often one question is asked before it is listed as failed.
        give_up_after: seconds without any answer after which the job stops.
        accept_truncated: whether answers cut off by `max_tokens` count as knowledge.
        replace_imported: whether entities whose knowledge is a text that was imported are asked about, too; the answer
            takes its place.
        delete_batch_files: whether what was uploaded for a batch, and its results, are deleted at the provider when the
            answers are stored.
        max_cost: US dollars that all that is asked of this model may cost: other runs and jobs, batches that run and
            requests that were lost included.
        max_requests: requests that one run may send.
        prices: a file of prices over those of kar-aug.
        cache: where answers are kept: a path, or a postgresql:// URL; in the workdir if not given.
    """

    model: str = "gpt-4o-mini"
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    api_key_file: str | None = None
    served_model: str | None = None
    max_tokens: int = setting(512, least=1)
    temperature: float = setting(0.0, least=0, most=2)
    seed: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)
    omit: tuple[str, ...] = ()
    service_tier: str | None = setting(None, among=("auto", "default", "flex", "priority"))
    concurrency: int = setting(16, least=1)
    rpm: float | None = setting(None, least=0.001)
    tpm: float | None = setting(None, least=0.001)
    timeout: float = setting(120.0, least=0.001)
    tries: int = setting(5, least=1)
    give_up_after: float = setting(600.0, least=0.001)
    accept_truncated: bool = False
    replace_imported: bool = False
    delete_batch_files: bool = True
    max_cost: float | None = setting(None, least=0)
    max_requests: int | None = setting(None, least=1)
    prices: str | None = None
    cache: str | None = None

    def __post_init__(self) -> None:
        check("generate", self)
        if self.base_url is not None and self.base_url != LOCAL:
            _check_address("[generate] base_url", self.base_url)
        for name in ("model", "messages", "stream", "n"):
            if name in self.extra:
                raise ConfigError(f"[generate] extra must not hold {name!r}: kar-aug sets it.")
        if self.max_cost is not None and longest_answer(self.parameters) is None:
            raise ConfigError(
                "[generate] max_cost needs to know how long an answer can be, and no request says it. "
                "Name a limit that your server takes: extra = { max_completion_tokens = 512 }"
            )
        try:
            json.dumps(dict(self.extra), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"[generate] extra must hold what JSON takes, texts, numbers, lists and tables: {error}.",
                setting="[generate] extra",
            ) from None

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """The sampling parameters, as sent and as hashed. Reasoning models take other names, and no temperature."""
        if _REASONING.match(self.model.rsplit("/", 1)[-1]):
            named: dict[str, Any] = {"max_completion_tokens": self.max_tokens, "seed": self.seed}
        else:
            named = {"max_tokens": self.max_tokens, "temperature": float(self.temperature), "seed": self.seed}
        return {name: value for name, value in (named | dict(self.extra)).items() if name not in self.omit}


def longest_answer(parameters: Mapping[str, Any]) -> int | None:
    """Tokens of the longest answer that a request with these parameters can have; of several limits the largest, since
    servers differ in which they follow. None if there is none.
    """
    limits = [parameters[name] for name in _LONGEST if name in parameters]
    if not limits or not all(isinstance(limit, int) and limit >= 1 for limit in limits):
        return None
    return max(limits)


def _check_address(setting: str, url: str) -> None:
    try:
        checked(url)
    except ValueError as error:
        raise ConfigError(f"{setting} {error}", setting=setting) from None


def _is_encoding(name: str) -> bool:
    try:
        return "".encode(name) is not None
    except LookupError:
        return False


def encoder_name(encoder: str) -> str:
    """The name of an encoder in full: without a kind it is a sentence-transformers name or folder.

    Raises:
        ConfigError: There is no such kind, or nothing after it.
    """
    kind, colon, _ = encoder.partition(":")
    if not colon or len(kind) == 1:  # a letter before a colon is a drive of Windows
        return f"sentence-transformers:{encoder}"
    if encoder not in ENCODERS:
        kinds = ", ".join(f"{name}NAME" for name in ENCODERS)
        raise ConfigError(f"[encode] encoder {encoder!r} is unknown. Say a name, or a kind and a name: {kinds}.")
    return encoder


@dataclass(frozen=True)
class EncodeConfig:
    """[encode]: how texts become vectors, and how these are stored.

    Args:
        encoder: a sentence-transformers name or folder, or "kind:name" of another kind (see `kar_aug.encode.encoders`).
        dtype: "float16" or "float32", in which vectors are stored.
        base_url: of the embeddings endpoint, for "openai:" encoders; OpenAI itself if not given.
        rpm, tpm: most requests and tokens a minute of such an endpoint.
        give_up_after: seconds without any answer of it after which the stage stops.
        max_cost: US dollars that all embeddings by this model may cost: other runs, and requests that were lost,
            included. Prices are those of [generate] prices.
        long_texts: "average" splits texts beyond the encoder's window and averages the pieces, "cut" drops the rest.
        truncate_dim: keep the first so many numbers of a vector, for encoders trained for that.
        pca: reduce vectors to so many numbers.
    """

    encoder: str = "sentence-transformers/all-MiniLM-L6-v2"
    dtype: str = setting("float16", among=("float16", "float32"))
    base_url: str | None = None
    rpm: float | None = setting(None, least=0.001)
    tpm: float | None = setting(None, least=0.001)
    give_up_after: float = setting(600.0, least=0.001)
    max_cost: float | None = setting(None, least=0)
    long_texts: str = setting("average", among=LONG_TEXTS)
    truncate_dim: int | None = setting(None, least=1)
    pca: int | None = setting(None, least=1)

    def __post_init__(self) -> None:
        check("encode", self)
        kind, colon, _ = encoder_name(self.encoder).partition(":")
        for name in ("base_url", "rpm", "tpm", "max_cost"):
            if getattr(self, name) is not None and kind + colon in ENCODERS.names() and kind != "openai":
                raise ConfigError(f"[encode] {name} is for encoders that begin with 'openai:' only.")
        if self.base_url is not None:
            _check_address("[encode] base_url", self.base_url)
        if self.truncate_dim is not None and self.pca is not None:
            raise ConfigError("[encode] takes truncate_dim or pca, not both.")


@dataclass(frozen=True)
class CodesConfig:
    """[codes]: how vectors become semantic ids, for the injection "codes" (see `kar_aug.codes`).

    Args:
        levels: codes an item, coarse to fine.
        size: codes a level.
        seed: of the centres that k-means starts with.
    """

    levels: int = setting(3, least=1)
    size: int = setting(256, least=2, most=65_535)
    seed: int = setting(0, least=0)

    def __post_init__(self) -> None:
        check("codes", self)


@dataclass(frozen=True)
class TrainingConfig:
    """How one model is built and trained: that part of [compare] which decides a result.

    Args:
        keras: "2" for Keras 2's API, "3" for Keras 3: on which backbones are trained that do not say it themselves.
            Those of DeepCTR do: "2".
        embedding_dim: of the features, and the width of an augmented vector.
        shared_experts, dedicated_experts, expert_hidden: of the adaptor; experts are expert_hidden -> embedding_dim.
        hidden_units: widths of a backbone's deep part.
        dropout: after each layer of the deep part.
        l2_embedding: weight of the squared embeddings in the loss.
        unknown_share: of the ids in a batch, those that are read as unknown ones, so that these are worth something.
        learning_rate: of Adam.
        batch_size: samples, or lists, a step. 1,024 if not given; of a small log 512, 256, ... 32, so that an epoch has
            50 steps: in a few a model hardly leaves chance.
        epochs: at most; the best by validation AUC is kept.
        patience: epochs without a better validation AUC after which training stops.
    """

    keras: str = setting("2", among=("2", "3"))
    embedding_dim: int = setting(32, least=1)
    shared_experts: int = setting(2, least=0)
    dedicated_experts: int = setting(3, least=0)
    expert_hidden: int = setting(128, least=1)
    hidden_units: tuple[int, ...] = (128, 64)
    dropout: float = setting(0.2, least=0, most=0.99)
    l2_embedding: float = setting(1e-5, least=0)
    unknown_share: float = setting(0.05, least=0, most=0.9)
    learning_rate: float = setting(0.001, least=1e-12)
    batch_size: int | None = setting(None, least=1)
    epochs: int = setting(10, least=1)
    patience: int = setting(2, least=1)

    def __post_init__(self) -> None:
        check("compare", self)
        if self.shared_experts + self.dedicated_experts == 0 or min((1, *self.hidden_units)) < 1:
            raise ConfigError("[compare] needs at least one expert, and hidden_units of at least 1.")

    def batch(self, rows: int) -> int:
        """Samples, or lists, a step, of so many to train on: what fits them, if nothing is given."""
        return self.batch_size or fitting_batch(rows)

    def fitted(self, rows: int) -> TrainingConfig:
        """These settings with that batch."""
        return replace(self, batch_size=self.batch(rows))


def fitting_batch(rows: int) -> int:
    """The largest batch, of powers of two between 32 and 1,024, that leaves an epoch of so many rows 50 steps.

    Source:
        Measured: benchmarks/results/defaults.md.
    """
    size = _LARGEST_BATCH
    while size > _SMALLEST_BATCH and rows < FEWEST_STEPS * size:
        size //= 2
    return size


@dataclass(frozen=True)
class CompareConfig(TrainingConfig):
    """[compare]: the arms, and how they are trained; the same for all of them.

    Args:
        task: "ctr", whether an item is clicked; "rerank", in which order the items of a list are shown ([data] lists).
        backbones: names of `kar_aug.registry.BACKBONES`: DeepFM, DIN, FiBiNET; "deepctr:AutoInt", any other of
            DeepCTR's; "my_models:two_tower", a function of your own (see `kar_aug.backbones.protocol`). Each is trained
            as it is, and with all that follows. Under "rerank" those of `RERANKERS`: DLCM, PRM, SetRank, MIR, which all
            are trained if none is named; "kar:PRM", the same without any input of the user.
        knowledge: some of "user", "item" and "both".
        controls: some of "metadata" (the fields that a prompt shows, through the same encoder), "shuffled" (the
            vectors, each given to another id), "random" (vectors of the same lengths), "bigger" (the plain
            backbone, its deep part widened until it has as many parameters) and "collaborative" (items by the training
            part's behaviour; every arm with vectors of items is then trained with these beside its own, too).
        adaptors: each is combined with each of `knowledge`; the first is that of the controls too.
        injections: combined likewise, for knowledge of items, and of the controls too. "fields": the item's vector, as
            in KAR. "events": those of the items that the user clicked before as well: averaged into one field more
            (DeepFM, where item and events then meet in the second order, and others), or compared by the attention
            (DIN). "similarity", "state", "attention", "retrieval": frozen vectors compare the candidate with what the
            user liked and disliked before (`[data] past_length`); "state" with sums that can be kept for a user.
            "user-similarity": with what is known of the user. "codes": no vector, but semantic ids as sparse features
            (`kar-aug codes`). Joined by "+", one arm has several.
        stores: name -> vector stores of other texts, an arm each: { item = "folder" }, or a folder alone for items.
        seeds: how often each arm is trained, with other initial weights and order of data.
        vary_split: whether each seed also draws the users of train, validation and test anew.
        tune: trials an arm of the search for learning rate, regularisation and dropout; 0 searches nothing.
        jobs: processes that train side by side, each on one core; one a core if not given.
        loss: of the task "rerank": "softmax", "bce", "listmle" or "attention-rank" (see
            `kar_aug.backbones.reranking.losses`).
        metric: of the task "rerank", by which epochs are chosen and arms are compared: "MAP@7", or NDCG, MRR, HR or
            CLICK at any place.
        check_vectors: whether all vectors are compared with their checksums before trainings and exports, a second for
            some hundred megabytes.
        The rest is that of `TrainingConfig`.
    """

    task: str = setting("ctr", among=TASKS)
    backbones: tuple[str, ...] = ("DeepFM", "DIN", "FiBiNET")
    knowledge: tuple[str, ...] = setting(("both",), among=tuple(KNOWLEDGE))
    controls: tuple[str, ...] = setting(("metadata", "shuffled"), among=CONTROLS)
    adaptors: tuple[str, ...] = setting(("hybrid-expert",), among=ADAPTORS)
    injections: tuple[str, ...] = setting(("fields",), among=INJECTIONS, words={"history": "events"})
    stores: Mapping[str, Any] = field(default_factory=dict)
    seeds: int = setting(5, least=1)
    vary_split: bool = False
    tune: int = setting(0, least=0)
    jobs: int | None = setting(None, least=1)
    loss: str = setting("softmax", among=LOSSES)
    metric: str = "MAP@7"
    check_vectors: bool = True

    def __post_init__(self) -> None:
        if self.task == "rerank" and self.backbones == CompareConfig.backbones:
            object.__setattr__(self, "backbones", RERANKERS.names()[:4])
        check_choices("compare", "backbones", self.backbones, RERANKERS if self.task == "rerank" else BACKBONES)
        if self.task == "rerank":  # and those that are to see no user: "kar:PRM"
            seeing = tuple({name.removeprefix(BLIND): None for name in self.backbones})  # "PRM" beside "kar:PRM"
            check_choices("compare", "backbones", seeing, RERANKERS)
        super().__post_init__()
        if not _LIST_METRIC.fullmatch(self.metric):
            raise ConfigError(
                f'[compare] metric must be "MAP@7", or NDCG, MRR, HR or CLICK like this: {self.metric!r}.'
            )
        if not self.backbones or not self.adaptors or not self.injections:
            raise ConfigError("[compare] needs at least one backbone, one adaptor and one injection.")
        if self.controls and not self.knowledge:
            raise ConfigError("[compare] controls imitate knowledge: name some in knowledge = [...]")
        for name in self.stores:
            if name in (BASE, *KNOWLEDGE, *CONTROLS):
                raise ConfigError(f"[compare.stores] {name!r} is an arm already. Choose another name.")
            self.store_folders(name)

    @property
    def training(self) -> TrainingConfig:
        """Of these, what decides the result of a training."""
        return TrainingConfig(**{rule.name: getattr(self, rule.name) for rule in fields(TrainingConfig)})

    def store_folders(self, name: str) -> dict[str, str]:
        """Folders of one of `stores`, by "user" and "item"."""
        given = self.stores[name]
        folders = {"item": given} if isinstance(given, str) else given
        if (
            not isinstance(folders, Mapping)
            or not folders
            or not set(folders) <= {"user", "item"}
            or not all(isinstance(folder, str) for folder in folders.values())
        ):
            raise ConfigError(f"[compare.stores] {name} must be a folder, or {{ user = folder, item = folder }}.")
        return {source: str(folders[source]) for source in ENTITIES if source in folders}


@dataclass(frozen=True)
class Config:
    """A whole kar.toml. `workdir` is where every stage writes; `folder` is what relative paths start from."""

    data: DataConfig
    prompts: PromptConfig = field(default_factory=PromptConfig)
    generate: LanguageModel = field(default_factory=LanguageModel)
    encode: EncodeConfig = field(default_factory=EncodeConfig)
    codes: CodesConfig = field(default_factory=CodesConfig)
    compare: CompareConfig = field(default_factory=CompareConfig)
    workdir: str = ".kar"
    folder: Path = Path()

    def __post_init__(self) -> None:
        if self.prompts.selection == "blocks" and self.data.protocol == "user":
            raise ConfigError(
                '[prompts] selection = "blocks" goes with [data] protocol = "temporal": under "user" all samples come '
                "after all that is asked about, and there is one version of each user."
            )
        if self.compare.task == "rerank" and self.data.lists is None:
            raise ConfigError(
                '[compare] task = "rerank" orders lists. Say which: [data] lists = "impressions", what the log says '
                'was shown together; or "kar", synthetic ones of any log.'
            )
        if self.compare.task == "rerank" and not self.data.item_ids:
            raise ConfigError(
                '[compare] task = "rerank" tells items from padding by their ids: leave out [data] item_ids = false.'
            )

    @classmethod
    def load(cls, path: Path | str, changes: Mapping[str, Any] | None = None) -> Self:
        """Read a kar.toml; `changes` (section -> name -> value, None ignored; or workdir) go over what it says.

        Raises:
            ConfigError: The file is not there, is not TOML, or says something unknown or of a wrong type.
        """
        path = Path(path)
        try:
            content = path.read_text(encoding="utf-8-sig")  # Windows editors put a mark in front
        except (FileNotFoundError, IsADirectoryError):
            raise ConfigError(f"{path}: there is no such file. Make one with: kar-aug init", path=path) from None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} cannot be read: {error}", path=path) from None
        return cls.parse(content, str(path), path.parent, changes)

    @classmethod
    def parse(cls, content: str, name: str, folder: Path, changes: Mapping[str, Any] | None = None) -> Self:
        """The same for the content of a file."""
        try:
            document = tomllib.loads(content)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{name} is not valid TOML: {error}") from None
        return cls.of(document, name, folder, changes)

    @classmethod
    def of(
        cls,
        document: Mapping[str, Any],
        name: str = "the settings",
        folder: Path = Path(),
        changes: Mapping[str, Any] | None = None,
    ) -> Self:
        """The same for sections as dicts: `{"data": {"interactions": "log.parquet"}, "workdir": ".kar"}`."""
        _make_importable(folder)
        try:
            document = _changed(document, changes or {})
            check_known(document, [*_SECTIONS, "workdir"], "at the top level")
            sections: dict[str, Any] = {
                section: read_section(kind, section, document) for section, kind in _SECTIONS.items()
            }
            workdir = read_value("workdir", str, document.get("workdir", ".kar"))
            return cls(**sections, workdir=workdir, folder=folder)
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}", path=name, setting=error.setting) from None

    def path(self, name: str) -> Path:
        """A path of kar.toml, relative to its folder."""
        return self.folder / name

    @property
    def work(self) -> Path:
        """The folder that every stage writes to."""
        return self.folder / self.workdir

    def as_dict(self) -> dict[str, Any]:
        """Sections as plain data."""
        return {section: asdict(getattr(self, section)) for section in _SECTIONS}


def _changed(document: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The document with other values in its sections; None changes nothing."""
    changed = dict(document)
    for section, values in changes.items():
        if values is None:
            continue
        if not isinstance(values, Mapping):  # workdir, which stands in no section
            changed[section] = values
            continue
        table = changed.get(section, {})
        if not isinstance(table, Mapping):
            raise ConfigError(f"{section} must be a section: [{section}]")
        changed[section] = {**table, **{key: value for key, value in values.items() if value is not None}}
    return changed


def _make_importable(folder: Path) -> None:
    """ "my_models:two_tower" may be a file beside kar.toml. Last: nothing there hides an installed package."""
    if (path := str(folder.resolve())) not in sys.path:
        sys.path.append(path)


_SECTIONS: dict[str, type] = {
    "data": DataConfig,
    "prompts": PromptConfig,
    "generate": LanguageModel,
    "encode": EncodeConfig,
    "codes": CodesConfig,
    "compare": CompareConfig,
}
