"""What a run will do and cost, and every trap that is sure to fail later, before anything is sent or trained."""

from __future__ import annotations

import importlib.util
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

import numpy as np
import pandas as pd

from kar_aug._helpers.counting import counted
from kar_aug._helpers.printed import Printed
from kar_aug.config import FEWEST_STEPS, LOCAL, encoder_name, fitting_batch
from kar_aug.data.contradictions import contradictory
from kar_aug.data.features import without_a_layer
from kar_aug.data.guessing.clicks import expression
from kar_aug.data.guessing.words import ENTITY, NAMELESS, SCENARIOS, words
from kar_aug.data.lists import POSITION, SCORE, Lists
from kar_aug.data.outcomes import FORETOLD, foretold
from kar_aug.data.split import PARTS, distinct, is_sample
from kar_aug.data.times import seconds
from kar_aug.errors import KarError
from kar_aug.generate import Estimate
from kar_aug.inspect.inputs import DataView
from kar_aug.pipeline.coding import arms_read_codes, is_coded, is_coded_as_it_is, stores_to_code
from kar_aug.pipeline.generation import Job, dry_run
from kar_aug.pipeline.watch import SILENT, Watch
from kar_aug.pipeline.workspace import ENTITIES, Workspace
from kar_aug.pipeline.workspace.code_features import is_code
from kar_aug.pipeline.workspace.data import Data
from kar_aug.prompts import Scenario

FAULT, WARNING = "fault", "warning"
_FEW = 0.5  # share of ids of the log that are in the table about them
_MANY = 12  # trainings: more take hours on a small machine
_CLASHES = 0.01  # share of rows that stand beside one that says the opposite
_LARGE = 100 * 2**20  # bytes of a log: 10 million rows of Parquet, a minute of a core
_RENDERED = 2_000  # prompts of users, and of items, by which all are estimated: of more, rendering takes minutes
_CLIENTS = {"openai:": "openai", "model2vec:": "model2vec", "openvino:": "openvino", "transformers:": "transformers"}


@dataclass(frozen=True)
class Trap(Printed):
    """What will go wrong, or may: `kind` is "fault" (sure to fail, or to be worth nothing) or "warning"."""

    kind: str
    text: str

    def __str__(self) -> str:
        return f"{'x' if self.kind == FAULT else '!'} {self.text}"


@dataclass(frozen=True)
class Outlook(Printed):
    """What a run will do and cost.

    Args:
        steps: (stage, what it will do), in order; as far as it can be said.
        traps: what will go wrong, the surest first.
    """

    steps: Sequence[tuple[str, str]]
    traps: Sequence[Trap]

    @property
    def faults(self) -> list[Trap]:
        """Those that are sure."""
        return [trap for trap in self.traps if trap.kind == FAULT]

    @property
    def frame(self) -> pd.DataFrame:
        """The traps, a row each: kind, text."""
        return pd.DataFrame([(trap.kind, trap.text) for trap in self.traps], columns=pd.Index(["kind", "text"]))

    def __str__(self) -> str:
        width = max((len(stage) for stage, _ in self.steps), default=0)
        return "\n".join([*(f"{stage:<{width}}  {text}" for stage, text in self.steps), *map(str, self.traps)])


def check(workspace: Workspace, watch: Watch = SILENT) -> Outlook:
    """Look ahead. The tables are read and what models read is prepared; nothing is sent, and nothing trained."""
    if (size := _size(workspace)) > _LARGE and not workspace.config.data.sample_users:
        watch.note(
            f"The log has {size / 2**20:,.0f} MB: to read and prepare it whole takes minutes. What is prepared is kept "
            "for the stages that follow. A first look at some users: kar-aug --sample 10000 check"
        )
    steps: list[tuple[str, str]] = []
    traps: list[Trap] = []
    workspace = _as_it_can_be_read(workspace, traps)
    found = _tried(workspace, _data, steps, traps)
    if found:
        _tried(workspace, _listed, steps, traps)
        _tried(workspace, _asked, steps, traps)
        _tried(workspace, _hurried, steps, traps)
        _tried(workspace, _named, steps, traps)
    _tried(workspace, _encoded, steps, traps)
    _tried(workspace, _coded, steps, traps)
    _tried(workspace, _trained, steps, traps)
    return Outlook(steps, sorted(traps, key=lambda trap: trap.kind))


def _as_it_can_be_read(workspace: Workspace, traps: list[Trap]) -> Workspace:
    """The same without semantic ids among the features of items, where these are not made yet: the stages before make
    them, and all else can be looked at.
    """
    data = workspace.config.data
    try:
        awaited = workspace.data.awaited_codes
        in_all = not awaited and workspace.data.codes is not None
    except KarError:  # of a table, which is said where tables are looked at
        return workspace
    if in_all and arms_read_codes(workspace):
        traps.append(
            Trap(
                WARNING,
                '[data] item_features = "codes" gives all models the semantic ids that [compare] injections = '
                '"codes" adds: such arms read the same twice. Leave one out',
            )
        )
    if not awaited:
        return workspace
    traps.append(Trap(WARNING, f"all models are to read semantic ids of items ([data] item_features): {awaited}"))
    read = tuple(name for name in data.item_features if not is_code(name))
    told = data.event_features and tuple(name for name in data.event_features if not is_code(name))
    return workspace.changed(data=replace(data, item_features=read, event_features=told))


def _size(workspace: Workspace) -> int:
    """Bytes of the log's files; 0 where there are none."""
    name = workspace.config.data.interactions
    path = None if name is None else workspace.config.path(name)
    if path is None or not path.exists():
        return 0
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _tried(
    workspace: Workspace,
    look: Callable[[Workspace, list[tuple[str, str]]], Iterator[Trap]],
    steps: list[tuple[str, str]],
    traps: list[Trap],
) -> bool:
    """Whether a part could be looked at; what it raises is a trap itself."""
    try:
        traps.extend(look(workspace, steps))
    except KarError as error:
        traps.append(Trap(FAULT, str(error)))
        return False
    return True


def _data(workspace: Workspace, steps: list[tuple[str, str]]) -> Iterator[Trap]:
    """The tables, their split, and what models read."""
    data, settings = workspace.data, workspace.config.data
    tables = data.tables
    log = tables.interactions
    users, items = log["user_id"].nunique(), log["item_id"].nunique()
    some = ", by sample_users," if settings.sample_users else ""
    steps.append(("log", f"{len(log):,} events of {users:,} users{some} with {items:,} items"))
    yield from _unmatched(data)
    split = data.split
    counts = split["part"].value_counts()
    clicked = split.loc[is_sample(split), "label"].mean()
    parts = ", ".join(f"{counts[part]:,} {part}" for part in PARTS if counts.get(part, 0))
    drawn = f", {int(split['drawn'].sum()):,} of them drawn" if "drawn" in split else ""
    steps.append(("split", f'by "{settings.protocol}": {parts}{drawn}; {clicked:.1%} of the samples are clicks'))
    yield from _contradictions(split)
    yield from _foretold(data)
    view = DataView(data)
    features = [feature.name for feature in data.samples.features if not feature.sequence]
    steps.append(("read", f"{', '.join(features)}; of earlier events: {', '.join(_told(workspace))}"))
    for warning in view.warnings:
        yield Trap(WARNING, warning)


def _listed(workspace: Workspace, steps: list[tuple[str, str]]) -> Iterator[Trap]:
    """The lists that models order, where samples stand in lists."""
    settings = workspace.config.data
    if settings.lists is None:
        return
    told = Lists(workspace.samples, settings.list_length).told()
    steps.append(("lists", "; ".join([*told, *(["synthetic"] if settings.lists == "kar" else [])])))
    if not {POSITION, SCORE} & set(workspace.data.split):
        yield Trap(
            WARNING,
            f"the log says neither {POSITION} nor {SCORE}: lists are put into an order that is drawn, and the initial "
            "order, which models are set against, is chance. [data] columns names the column of either",
        )


def _told(workspace: Workspace) -> list[str]:
    """What is read of earlier events, by the sequences' names."""
    features = [feature for feature in workspace.samples.features if feature.sequence]
    names = dict.fromkeys(feature.name.removeprefix(f"{feature.sequence}_") for feature in features)
    return [*names] or ["nothing"]


def _unmatched(data: Data) -> Iterator[Trap]:
    """Ids of the log that are not in the table about them."""
    tables = data.tables
    read = "ids" if data.codes is None else "ids and semantic ids"
    for entity in ENTITIES:
        table = tables.users if entity == "user" else tables.items
        if table.empty:
            if entity == "item":
                yield Trap(
                    WARNING, f"there is no table of items: nothing is asked about items, and models know {read} alone"
                )
            continue
        ids = pd.Series(tables.interactions[f"{entity}_id"].unique())
        known = ids.isin(table[f"{entity}_id"])
        if known.mean() < _FEW:
            kind = WARNING if known.any() else FAULT
            example = ids[~known].iloc[0]
            there = table[f"{entity}_id"].iloc[0]
            yield Trap(
                kind,
                f"{known.mean():.0%} of the {entity}s of the log are in the table of {entity}s: {example} is not, and "
                f"{there} is. Are they the same kind of id? [data] columns",
            )


def _contradictions(split: pd.DataFrame) -> Iterator[Trap]:
    """Rows of the same user, item and moment with another label: a model reads the same of both."""
    clash = contradictory(split)
    share = clash.sum() / max(1, int(is_sample(split).sum()))
    if share >= _CLASHES:
        row = split.iloc[int(np.argmax(clash))]
        yield Trap(
            WARNING,
            f"{share:.0%} of the samples stand beside one of the same user, item and moment with the other label (user "
            f"{row['user_id']}, item {row['item_id']}): no model can tell them apart. [data] one_sample = true keeps "
            "the click, and makes the others events of the past",
        )


def _foretold(data: Data) -> Iterator[Trap]:
    """Clicks that the same user's event with the same item came just before: the step before a purchase."""
    split, room = data.split, data.room
    user, item = (distinct(split[f"{entity}_id"], room)[1] for entity in ENTITIES)
    sample, counts, clicks = is_sample(split, room), np.zeros(2), 0
    for block in room.blocks_of_users(user):
        clicked = (split["label"].iloc[block] > 0).to_numpy() & sample[block]
        counts += foretold(user[block], item[block], seconds(split["timestamp"].iloc[block]), clicked)
        clicks += int(clicked.sum())
    told, others = counts / np.maximum(1, [clicks, len(split) - clicks])
    if told - others >= FORETOLD:
        yield Trap(
            WARNING,
            f"{told:.0%} of the clicks come within a day of another event of the same user and item, and {others:.0%} "
            "of the other events: a model sees the step before, and learns to tell kinds of rows apart. Say which rows "
            f'are samples, and that a click is what follows them: [data] samples = "{_of_steps_before(data)}", '
            'conversion_window = "1 day"',
        )


def _of_steps_before(data: Data) -> str:
    """An expression that is true of the commonest events that are no clicks, if the label is of a kind of event."""
    said = re.fullmatch(r"\s*(\w+)\s*==[^=]*", data.config.label or "")
    column = said[1] if said is not None else ""
    kinds = data.split.loc[data.split["label"] <= 0, column].value_counts() if column in data.split else pd.Series()
    return expression(column, kinds.index[0]) if len(kinds) else "event == 'view'"


def _asked(workspace: Workspace, steps: list[tuple[str, str]]) -> Iterator[Trap]:
    """What the language model is asked, and for how much."""
    model, asking = workspace.config.generate, workspace.asking
    yield from _another_world(workspace)
    yield from _unshown(workspace)
    done = _Estimate(workspace)
    whom = {e: f"blocks of {e}s' histories" if workspace.paths.in_versions(e) else f"{e}s" for e in ENTITIES}
    about = " and ".join(f"{asking.count(entity):,} {whom[entity]}" for entity in ENTITIES)
    known = f", {done.known:,} answered or equal to others" if done.known else ""
    steps.append(
        ("ask", f"{model.model} about {about}{known}: {done.questions:,} requests, {_price(model.base_url, done)}")
    )
    if done.is_of_some:
        steps.append(("", f"estimated by {done.rendered:,} of the prompts; kar-aug generate --dry-run counts all"))
    if asking.without_events:
        steps.append(("", f"not about {asking.without_events:,} items without any event ([prompts] whole_catalogue)"))
    yield from _one_sided(workspace)
    needs_key = model.base_url != LOCAL and not model.api_key_file and not os.environ.get(model.api_key_env)
    if needs_key and done.questions:
        yield Trap(WARNING, f"generate needs a key for {model.model}: set {model.api_key_env}")
    yield from _without(("openai",) if done.questions else (), "generate", "offline")


def _one_sided(workspace: Workspace) -> Iterator[Trap]:
    """Knowledge of users, or items, that is paid for and that no model reads, or that is read and not there."""
    from kar_aug.compare.arms import arms

    with workspace.paths.open_cache(reading=True) as cache:
        there = [entity for entity in ENTITIES if cache.count_linked(workspace.paths.knowledge(entity))]
    read = {entity for arm in arms(workspace.config.compare) for entity in arm.entities}
    for entity, other in zip(ENTITIES, reversed(ENTITIES), strict=True):
        if read == {other} and workspace.asking.count(entity):
            yield Trap(
                WARNING,
                f"[compare] knowledge: no model reads what is said of {entity}s, and generate asks about them, too: "
                f"kar-aug generate --only {other} does not",
            )
        elif {entity, other} == read and there == [entity]:
            yield Trap(
                WARNING,
                f"there is knowledge of {entity}s alone so far: generate asks about the others, too; without, compare "
                f'takes "{entity}" in place of "both"',
            )


class _Estimate:
    """What a dry run would count, told from some of the users and items where there are many: every so many-th in the
    order in which they are asked about, from the longest history, or the most popular item, to the last.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._found: list[tuple[float, Estimate]] = []
        for entity in ENTITIES:
            count = workspace.asking.count(entity)
            one_by_one = not workspace.paths.in_versions(entity) and not workspace.paths.groups(entity)
            every = max(1, count // _RENDERED) if one_by_one else 1
            done = dry_run(Job(workspace, (entity,), every=every))
            self._found.append((count / math.ceil(count / every) if every > 1 else 1, done.estimate))
        self.is_of_some = any(weight > 1 for weight, _ in self._found)
        self.rendered = sum(found.found.total for _, found in self._found)

    def _sum(self, count: Callable[[Estimate], float | None]) -> float | None:
        counts = [(weight, count(found)) for weight, found in self._found]
        return None if any(each is None for _, each in counts) else sum(weight * (each or 0) for weight, each in counts)

    @cached_property
    def known(self) -> int:
        """Prompts that are answered, or equal to others."""
        return round(self._sum(lambda found: found.found.cached) or 0)

    @cached_property
    def questions(self) -> int:
        """Requests to be sent."""
        return round(self._sum(lambda found: found.questions) or 0)

    @cached_property
    def tokens(self) -> float:
        """Asked, and answered at most."""
        return self._sum(lambda found: found.prompt_tokens + found.most_completion_tokens) or 0

    def cost(self, *, likely: bool = False) -> float | None:
        """As `Estimate.cost`."""
        return self._sum(lambda found: found.cost(likely=likely))


def _price(base_url: str | None, done: _Estimate) -> str:
    tokens = f"{done.tokens / 1e3:,.0f} thousand tokens at most"
    if base_url == LOCAL:
        return f"{tokens}, on this machine"
    most, likely = done.cost(), done.cost(likely=True)
    if most is None:
        return f"{tokens}, whose price is not known ([generate] prices)"
    return f"{tokens}, ${most:,.2f} at most" + (f", likely ${likely:,.2f}" if likely is not None else "")


def _unshown(workspace: Workspace) -> Iterator[Trap]:
    """What a scenario shows that the tables have not."""
    scenario, tables = workspace.asking.scenario, workspace.tables
    has = {"user": tables.users, "item": tables.items}
    needed = [name for name in scenario.item.get("required", []) if name not in tables.items]
    if needed and len(tables.items):
        yield Trap(
            FAULT,
            f"the scenario {scenario.name} needs the {' and '.join(needed)} of an item, and there is no such column: "
            f"none would be asked about. {_HELP}",
        )
    for entity, fields in (("item", scenario.item["fields"]), ("user", scenario.user.get("item_fields", []))):
        what = "prompts about items show" if entity == "item" else "histories in prompts show"
        missing = [name for name in fields if name not in has["item"]]
        is_asked = entity == "user" or len(tables.items)
        if fields and len(missing) == len(fields) and is_asked:
            remedy = _HELP if len(tables.items.columns) > 1 else _NO_ITEMS
            yield Trap(FAULT, f"{what} none of their fields: items have no {', '.join(missing)}. {remedy}")
    events = [name for name in scenario.user.get("event_fields", []) if name not in tables.interactions]
    if events:
        yield Trap(WARNING, f"histories in prompts show no {', '.join(events)}: the log has no such column. {_HELP}")


def _another_world(workspace: Workspace) -> Iterator[Trap]:
    """Whether a scenario of ours, as it is, asks about other things than there are: of a public data set it is known
    what is in it, of other data files and columns speak.
    """
    scenario, settings = workspace.asking.scenario, workspace.config.data
    if public := settings.dataset:
        if public in _OTHER_THINGS and workspace.config.prompts.scenario == _OF_MOVIES:
            there = _OTHER_THINGS[public]
            yield Trap(
                FAULT,
                f"the scenario {_OF_MOVIES} would ask about movies, and {public} is of {there}: [prompts] "
                f'scenario = "{there}"',
            )
        return
    if scenario.name not in SCENARIOS or scenario.item["system"] != Scenario.load(scenario.name).item["system"]:
        return
    items, log = workspace.tables.items, workspace.tables.interactions
    renamed = [own.values() for own in (settings.columns, *settings.columns.values()) if isinstance(own, Mapping)]
    names = [settings.interactions, settings.items, *chain(*renamed), *log, *items]
    told = dict.fromkeys(word for name in names if isinstance(name, str) for word in words(name))
    things = [word for word in told if word in ENTITY["item"] and word not in NAMELESS]
    fields = [name for name in scenario.item["fields"] if name not in scenario.item.get("required", [])]
    shows = any(name in items for name in fields)
    if len(items) and not SCENARIOS[scenario.name] & set(told) and (things or not shows):
        speak = f"files and columns speak of {', '.join(things)}" if things else "no file or column speaks of them"
        yield Trap(
            WARNING,
            f"the scenario {scenario.name} asks about {scenario.words['items']}, and {speak}. {_HELP}; "
            'scenario = "general" asks about anything',
        )


_OF_MOVIES = "movies"  # the default
_OTHER_THINGS = {"amazon-books": "books", "mind": "news"}  # public data sets, and what is in them: a scenario's name
_NO_ITEMS = (
    'There is no table of items, nor columns of the log that are: [data] items = "items.csv", or item_columns = [...]'
)
_HELP = "kar-aug init --data FILES writes a scenario for the columns that are there, or [data] columns names them"


def _encoded(workspace: Workspace, steps: list[tuple[str, str]]) -> Iterator[Trap]:
    name = workspace.config.encode.encoder
    steps.append(("encode", f"texts and prompts' metadata by {name}"))
    by_kind = {"sentence-transformers:": "sentence_transformers", **_CLIENTS}
    packages = [package for kind, package in by_kind.items() if encoder_name(name).startswith(kind)]
    yield from _without(packages, "encode", "offline")


def _coded(workspace: Workspace, steps: list[tuple[str, str]]) -> Iterator[Trap]:
    """Semantic ids, where an injection reads them: those of stores that there are, and of those that encode makes."""
    from kar_aug.compare.arms import arms

    reading = [arm for arm in arms(workspace.config.compare) if arm.reads_codes]
    if not reading:
        return
    settings = workspace.config.codes
    steps.append(("codes", f"semantic ids of vectors, {settings.levels} levels of {settings.size}: kar-aug codes"))
    entities = dict.fromkeys(entity for arm in reading for entity in arm.entities)
    stores = list(stores_to_code(workspace))
    uncoded = [title for path, title in stores if not is_coded(path)]
    bare = [f"{entity}s" for entity in entities if not workspace.paths.store(entity).exists()]
    if uncoded or bare:
        encoded = ", once kar-aug encode has run" if bare else ""
        yield Trap(
            WARNING,
            f'[compare] injections = "codes" reads semantic ids, and there are none of {", ".join([*bare, *uncoded])}: '
            f"kar-aug codes makes them{encoded}",
        )
    earlier = [title for path, title in stores if is_coded(path) and not is_coded_as_it_is(path)]
    if earlier:
        yield Trap(
            WARNING,
            f"the semantic ids of {', '.join(earlier)} are those of an earlier state of the vectors, which compare and "
            "export refuse: kar-aug codes brings them up to date",
        )


def _named(workspace: Workspace, _: list[tuple[str, str]]) -> Iterator[Trap]:
    """Whether layers can be called after the features."""
    odd = without_a_layer(workspace.samples.features)
    if odd:  # which Keras 3 may run on something else
        yield Trap(FAULT if workspace.config.compare.keras == "2" else WARNING, f"no model can be built: {odd}")


def _trained(workspace: Workspace, steps: list[tuple[str, str]]) -> Iterator[Trap]:
    from kar_aug.compare.arms import arms

    settings = workspace.config.compare
    found = arms(settings)
    names = ", ".join(arm.name for arm in found[:4]) + (", ..." if len(found) > 4 else "")
    tuned = f", each after {settings.tune} trials" if settings.tune else ""
    count = len(found) * settings.seeds
    trainings = f"{count:,} trainings{tuned}, of {settings.epochs} epochs at most"
    first = f"; for a first look: kar-aug compare --backbone {settings.backbones[0]} --seeds 2" if count > _MANY else ""
    steps.append(("train", f"{len(found)} models with {counted(settings.seeds, 'seed')}: {trainings} ({names}){first}"))
    yield from _without(("tensorflow", "deepctr"), "compare", "online")


def _hurried(workspace: Workspace, _: list[tuple[str, str]]) -> Iterator[Trap]:
    """Whether a click model makes so few steps that it stays near where it began: benchmarks/results/defaults.md."""
    settings, rows = workspace.config.compare, len(workspace.samples.of("train"))
    given, fit = settings.batch_size, fitting_batch(rows)
    if settings.task == "ctr" and given is not None and given > fit and given * FEWEST_STEPS > rows:
        yield Trap(
            WARNING,
            f"[compare] batch_size {given:,}: an epoch of {rows:,} rows has {-(-rows // given)} steps, in which a "
            f"model hardly leaves chance. Leave it out, and it is {fit}",
        )


def _without(packages: Sequence[str], stage: str, extra: str) -> Iterator[Trap]:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            yield Trap(WARNING, f"{stage} needs the package {package}: pip install 'kar-aug[{extra}]'")
