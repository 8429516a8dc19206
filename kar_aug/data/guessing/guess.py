"""From files to settings of [data]."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from kar_aug.data.features import is_name_of_layer
from kar_aug.data.guessing.clicks import Clicks, clicks, expression
from kar_aug.data.guessing.features import Use, is_of, tells_item, use, use_in_events
from kar_aug.data.guessing.guesses import Guess, Guessed
from kar_aug.data.guessing.roles import Head, Roles, found_files, roles
from kar_aug.data.guessing.seen import Seen, columns_of
from kar_aug.data.guessing.showing import fields, of_events, short
from kar_aug.data.guessing.words import GROUPS, IDS, NAMELESS, SCENARIOS, plural, words
from kar_aug.data.inputs import RATING, SINCE, Inputs
from kar_aug.data.outcomes import FORETOLD, foretold
from kar_aug.data.place import Place
from kar_aug.data.times import seconds, times
from kar_aug.errors import DataError

_DAY, _HOUR = 86_400, 3600
_FEW_MOMENTS, _FEW_USERS = 10, 50  # below which each user's past is too short, or users are too few, to split by
_ROWS_A_GROUP = 1.2  # of what was shown at once, on average, at least
_CONTRADICTORY = 0.01  # share of rows beside one that says the opposite
_WEEKS = 14  # days in which weekdays come again
_NAMES = ("name", "headline", "product_name", "item_name")  # of what scenarios call a title
GENERAL = "general"


def guess(paths: Sequence[Path | str], named: Mapping[str, str] | None = None) -> Guess:
    """What some files are; at most 100,000 rows of each are looked at.

    Args:
        paths: files that `kar_aug.data.reading` reads, folders of such, or folders of Parquet files.
        named: "user", "item" or "time" -> the column that holds their ids, or says when, where its name does not tell.

    Raises:
        DataError: A file cannot be read; or which are the interactions cannot be told: the message lists what was seen.
    """
    files = found_files([Path(path) for path in paths])
    for path in files:
        if not path.exists():
            raise DataError(f"{path}: there is no such file or folder.", path=path)
    heads = [Head.read(path, named or {}) for path in files]
    for entity, column in (named or {}).items():
        if not any(column in map(head.called, head.columns) or column in head.columns for head in heads):
            raise DataError(f"--{entity} {column}: no file has this column. Seen: {'; '.join(h.said for h in heads)}.")
    found = roles(heads)
    said = {table: head.said for table, head in found.tables.items()}
    said |= {head.path.name: f"{head.said}: {why}" for head, why in found.unused}
    files_of = {table: head.path for table, head in found.tables.items()}
    guesser = _Guesser(found)
    settings = guesser.settings()
    called = _words(guesser.keys["item"].values(), settings)
    scenario = _scenario(heads, called.get("item"))
    return Guess(files_of, settings, scenario, called, guesser.clicks.scale, said, guesser.shown())


class _Guesser:
    """Makes settings one by one."""

    def __init__(self, found: Roles) -> None:
        self.tables, self.keys, self.why = dict(found.tables), {**found.keys}, found.why
        self.events = found.tables["interactions"]
        self.time = next(iter(self.events.times), None)
        taken = {self.keys[entity]["interactions"] for entity in self.keys} | ({self.time} if self.time else set())
        self.clicks: Clicks = clicks(self.events.columns, taken)
        self.seconds = self._seconds()
        self.group = self._group()
        self.taken = taken | self.clicks.columns | ({self.group} if self.group else set())
        self.in_the_log = [] if "items" in self.tables else self._columns_of_items()
        if self.in_the_log:
            self._take_items_apart()
        self.uses: dict[str, dict[str, Use]] = {table: self._uses(table) for table in self.tables}

    def settings(self) -> list[Guessed]:
        """All of them, in the order in which they should stand."""
        return [
            *self._impressions(),
            *self._items(),
            *self._id_type(),
            *self._thousands(),
            *(each for each in self.clicks.settings if each.name[0] != "columns"),
            *(self._outcomes() or self._one_sample()),
            self._protocol(),
            *self._features(),
            *self._event_features(),
            *self._columns(),
            *self._numbers(),
            *(
                Guessed(("sequences", name), expression, "a history of these events alone, beside that of all")
                for name, expression in self.clicks.sequences.items()
            ),
        ]

    # What prompts show

    def shown(self) -> dict[str, list[str]]:
        """See `Guess.shown`."""
        title, found = self._title(), {table: fields(self._columns_of(table), self.uses[table]) for table in self.uses}
        items = {name: self._columns_of("items")[name] for name in found.get("items", ())}
        if title is not None:
            items = {title: self.tables["items"].columns[title], **items}
        texts = [name for name, seen in items.items() if seen.kind == "text"]
        required = title or ("title" if "title" in items else min(texts, key=lambda n: items[n].missing, default=None))
        items = {name: items[name] for name in sorted(items, key=lambda name: name != required)}
        # What is known of a whole impression says nothing of one of its items.
        events = [] if self.events.impressions else of_events(self.events.columns, self.uses["interactions"])
        events = [name for name in events if name not in items and name not in ("title", "date", "rating")]
        kind = [self.clicks.kind] if self.clicks.kind and self.clicks.sequences else []
        numbers = [
            name
            for columns in ({**self._columns_of("users")}, items, self.events.columns)
            for name, seen in columns.items()
            if seen.kind in ("integer", "number")
        ]
        told = {"users": found.get("users", []), "items": [*items], "history": short(items), "events": events}
        told |= {"kind": kind, "required": [required] if required else [], "numbers": numbers}
        return {part: ["title" if name == title else name for name in names] for part, names in told.items()}

    def _columns_of(self, table: str) -> Mapping[str, Seen]:
        return self.tables[table].columns if table in self.tables else {}

    # Columns of the interactions

    def _impressions(self) -> list[Guessed]:
        """Which columns say what an impression showed."""
        if self.events.impressions is None:
            return []
        why = ("a row is an impression: each item that it showed becomes one", "and these of them are the clicks")
        return [
            Guessed((setting,), name, said)
            for setting, name, said in zip(("shown", "clicked"), self.events.impressions, why, strict=True)
        ]

    def _seconds(self) -> npt.NDArray[np.float64] | None:
        if self.time is None:
            return None
        return seconds(times(self.events.columns[self.time].cells, Place(str(self.events.path), self.time)))

    def _group(self) -> str | None:
        """The column of what was shown at once: several rows each, all of one user."""
        user = self.events.columns[self.keys["user"]["interactions"]].cells
        for name, seen in self.events.columns.items():
            told = words(name)
            is_named = bool(set(told) & GROUPS) and told[-1] in IDS and seen.kind in ("integer", "text")
            several = is_named and len(seen.there) > _ROWS_A_GROUP * seen.distinct
            if several and user.groupby(seen.cells).nunique().max() == 1:
                return name
        return None

    def _columns(self) -> list[Guessed]:
        """What the files call our columns, where it is something else."""
        found: dict[str, dict[str, str]] = {table: {} for table in self.tables}
        why: dict[str, str] = {}
        for entity, keys in self.keys.items():
            for table, name in keys.items():
                found[table][f"{entity}_id"] = name
            why[f"{entity}_id"] = self._said_of_ids(entity)
        if self.time is not None and self.seconds is not None:
            first, last = np.nanmin(self.seconds), np.nanmax(self.seconds)
            others = [name for name in self.events.times if name != self.time]
            why["timestamp"] = f"from {_date(first)} to {_date(last)}" + (
                f"; not {', '.join(others)}" if others else ""
            )
            found["interactions"]["timestamp"] = self.time
        for each in self.clicks.settings:
            if each.name[0] == "columns":
                found["interactions"][each.name[1]], why[each.name[1]] = each.value, each.why
        if self.group is not None:
            count = self.events.columns[self.group].distinct
            why["impression_id"] = (
                f'{count:,} values, each of one user: for GAUC, and for models that order lists: lists = "impressions" '
                'above, position or initial_score = "..." here, and [compare] task = "rerank"'
            )
            found["interactions"]["impression_id"] = self.group
        if (title := self._title()) is not None:
            found["items"]["title"], why["title"] = title, "what scenarios call it"
        for table, head in self.tables.items():
            found[table] = {ours: head.called(name) for ours, name in found[table].items()}
        for table, name, theirs in self._of_structs():
            if theirs not in found[table].values():
                found[table][name] = theirs
                why[name] = (
                    "a key of structs" if is_name_of_layer(theirs) else "no layer of TensorFlow can be called so"
                )
        columns = {table: list(map(head.called, head.columns)) for table, head in self.tables.items()}
        settings = _called(found, columns, why)
        if self.time is None:
            seen = ", ".join(name for name in self.events.columns if name not in self.taken)
            settings.insert(
                0, Guessed(("columns", "timestamp"), "...", f"which says when? One of: {seen}", is_sure=False)
            )
        return settings

    def _of_structs(self) -> Iterable[tuple[str, str, str]]:
        """(table, name, what the file calls it) of the columns under keys of structs that anything reads."""
        read = {name for uses in self.uses.values() for name, each in uses.items() if each.when != "never"}
        read |= {name for names in self.shown().values() for name in names} | self.clicks.columns
        for table, head in self.tables.items():
            yield from ((table, name, theirs) for name, theirs in head.keys.items() if name in read)

    def _items(self) -> list[Guessed]:
        """What to do where no file is the items."""
        if self.in_the_log:
            title = self._title()
            names = ["title" if name == title else name for name in self.in_the_log]
            why = (
                "no file of items was found; an item has one value in each of these columns: they make a table of items"
            )
            return [Guessed(("item_columns",), names, why)]
        if "items" in self.tables:
            return []
        why = "no file of items was found, so that prompts can show nothing of them"
        return [Guessed(("items",), "items.parquet", why, is_sure=False)]

    def _columns_of_items(self) -> list[str]:
        """Columns of the log that say the same of an item in each of its rows."""
        ids = self.events.columns[self.keys["item"]["interactions"]].cells
        others = {name: seen for name, seen in self.events.columns.items() if name not in self.taken}
        return [name for name, seen in others.items() if seen.distinct > 1 and is_of(ids, seen)]

    def _take_items_apart(self) -> None:
        """The items of the log as a table of their own, without a file."""
        key = self.keys["item"]["interactions"]
        log = pd.DataFrame({name: self.events.columns[name].cells for name in (key, *self.in_the_log)})
        items = log.groupby(key, as_index=False).first()
        rest = {name: seen for name, seen in self.events.columns.items() if name not in self.in_the_log}
        self.events = replace(self.events, columns=rest)
        self.tables |= {"interactions": self.events, "items": Head(self.events.path, columns_of(items), len(items))}
        self.keys["item"] = {**self.keys["item"], "items": key}

    def _said_of_ids(self, entity: str) -> str:
        seen = self.events.columns[self.keys[entity]["interactions"]]
        gaps = f"; missing in {seen.missing:.1%}: leave these rows out" if seen.missing else ""
        in_table = self.why.get((f"{entity}s", entity))
        return f"{seen.distinct:,} {entity}s: {seen.examples()}{gaps}" + (f"; {in_table}" if in_table else "")

    def _title(self) -> str | None:
        items = self.tables.get("items")
        if items is None or "title" in items.columns:
            return None
        # In {"event": {"id": 7, "name": "Aida"}} the name beside the id is meant.
        inside = items.called(self.keys["item"]["items"]).rpartition(".")[0]
        beside = {f"{inside}.{name}" for name in ("title", *_NAMES)} if inside else set()
        return next((n for n in items.columns if n.lower() in _NAMES or items.called(n).lower() in beside), None)

    def _id_type(self) -> list[Guessed]:
        for keys in self.keys.values():
            columns = {table: self.tables[table].columns[name] for table, name in keys.items()}
            zeros = any(_padded(seen.there) for seen in columns.values() if seen.kind == "text")
            if len({seen.kind == "text" for seen in columns.values()}) > 1 or zeros:
                said = "; ".join(f"{name} of {table}: {columns[table].examples()}" for table, name in keys.items())
                why = "zeros in front would be lost in numbers" if zeros else "numbers in one table, text in another"
                return [Guessed(("id_type",), "string", f"{why}. {said}")]
        return []

    def _thousands(self) -> list[Guessed]:
        for table, head in self.tables.items():
            if head.thousands is not None:
                mark, name, example = head.thousands
                return [Guessed(("thousands",), mark, f"stands between digits: {name} of {table}, {example}")]
        return []

    def _outcomes(self) -> list[Guessed]:
        """Whether what is foreseen follows another event of its user and item, as a purchase does a view."""
        if self.clicks.kind is None or self.clicks.clicked is None or self.seconds is None:
            return []
        user, item = (
            pd.factorize(self.events.columns[self.keys[entity]["interactions"]].cells)[0] for entity in ("user", "item")
        )
        clicked = self.clicks.clicked
        counts = np.array(foretold(user, item, self.seconds, clicked))
        told, others = counts / np.maximum(1, [clicked.sum(), (~clicked).sum()])
        if told - others < FORETOLD:
            return []
        kinds = self.events.columns[self.clicks.kind].cells[~clicked].value_counts()
        shown = expression(self.clicks.kind, kinds.index[0])
        why = f"{told:.0%} of what is foreseen comes within a day of another event of its user and item"
        return [
            Guessed(("samples",), shown, f"{why}: what becomes of these is learnt, and all others are a past"),
            Guessed(("conversion_window",), "1 day", "how soon; those of the log's last day are no samples yet"),
        ]

    def _one_sample(self) -> list[Guessed]:
        """Whether rows of one moment say the opposite of each other."""
        if self.clicks.clicked is None or self.seconds is None:
            return []
        keys = {entity: self.events.columns[self.keys[entity]["interactions"]].cells for entity in self.keys}
        rows = pd.DataFrame({**keys, "time": self.seconds, "clicked": self.clicks.clicked})
        clicked = rows.groupby([*keys, "time"], sort=False)["clicked"]
        share = float((clicked.transform("max") != clicked.transform("min")).mean())
        if share < _CONTRADICTORY:
            return []
        seen = f"{share:.1%} of the rows stand beside one of the same user, item and moment with the other label"
        return [Guessed(("one_sample",), True, f"{seen}: the click is learnt from, the others are events of the past")]

    # How to split

    def _protocol(self) -> Guessed:
        user = self.events.columns[self.keys["user"]["interactions"]].cells
        moments = pd.DataFrame(
            {"user": user, "time": self.seconds if self.seconds is not None else np.arange(len(user))}
        )
        each = moments.drop_duplicates()["user"].value_counts()
        half = f"half of the {len(each):,} users have {int(each.median())} moments or fewer"
        if self.seconds is not None and (each.median() < _FEW_MOMENTS or len(each) < _FEW_USERS):
            why = f'{half}: time is cut at the same moments for all. "user" would test on other users than it trains on'
            return Guessed(("protocol",), "temporal", why)
        why = (
            f'{half}: enough to test on other users than are trained on, as KAR does. "temporal" tests on later events'
        )
        return Guessed(("protocol",), "user", why)

    # What models read

    def _uses(self, table: str) -> dict[str, Use]:
        head, keys = self.tables[table], {keys.get(table) for keys in self.keys.values()}
        keys |= {self._title()} if table == "items" else set()
        if table != "interactions":
            return {name: use(seen) for name, seen in head.columns.items() if name not in keys}
        uses = {
            name: use_in_events(seen, self.clicks.clicked, is_rated=self.clicks.is_rated)
            for name, seen in head.columns.items()
            if name not in self.taken
        }
        user = head.columns[self.keys["user"]["interactions"]]
        for name in [name for name, each in uses.items() if each.when == "earlier"]:
            if 2 * head.columns[name].distinct > user.distinct and is_of(user.cells, head.columns[name]):
                uses[name] = Use("never", f"{uses[name].why.split(';')[0]}; one value a user: it names them")
        if self.clicks.only:
            item = head.columns[self.keys["item"]["interactions"]].cells
            for name in [name for name, each in uses.items() if each.when == "now"]:
                seen = head.columns[name]
                if is_of(item, seen):
                    why = f"{uses[name].why}; one value an item, which items that are drawn do not have"
                elif tells_item(item, seen):
                    why = f"{uses[name].why}; it says which item was clicked, beside those that are drawn"
                else:
                    continue
                uses[name] = Use("earlier", why, uses[name].scale)
        return uses

    def _features(self) -> Iterable[Guessed]:
        """The lists of features. A name is there once."""
        named: set[str] = set()
        said = {
            "user_features": ("users", "columns of the users table"),
            "item_features": ("items", "columns of the items table, of which those a model is to learn from"),
            "context": ("interactions", "columns of the interactions that are known when an impression is made"),
        }
        for setting, (table, why) in said.items():
            if table not in self.tables:
                continue
            taken = {name for name, each in self.uses[table].items() if each.when == "now"} & named
            for name in taken:
                self.uses[table][name] = Use(
                    "never", "another table has a feature of this name: rename one to have both"
                )
            chosen = {name: each.why for name, each in self.uses[table].items() if each.when == "now"}
            left_out = {name: each.why for name, each in self.uses[table].items() if each.when != "now"}
            if table == "interactions":
                chosen = self._of_time() | chosen
            named |= set(chosen)
            # Categories first: the first is what inputs = "kar" reads.
            names = sorted(chosen, key=lambda name: self._scale(table, name) is not None)
            yield Guessed((setting,), names, why, reasons=chosen, left_out=left_out)

    def _of_time(self) -> dict[str, str]:
        """Hour and weekday, where they can tell something."""
        if self.seconds is None:
            return {}
        known = self.seconds[np.isfinite(self.seconds)]
        days = (known.max() - known.min()) / _DAY if len(known) else 0
        found = {}
        if len(np.unique(known % _DAY // _HOUR)) > 1 and days >= 1:
            found["hour"] = "of the timestamp"
        if days >= _WEEKS:
            found["weekday"] = f"of the timestamp, over {days:,.0f} days"
        return {name: why for name, why in found.items() if name not in self.events.columns}

    def _scale(self, table: str, name: str) -> str | None:
        return self.uses[table][name].scale if name in self.uses[table] else None

    def _event_features(self) -> list[Guessed]:
        """What is told of earlier events, if it is more than what is told anyway; and how many values of each."""
        told: dict[str, str] = {}
        if self.clicks.rating is not None:
            told[RATING] = "of the event"
        items = self.uses.get("items", {})
        told |= {name: "of its item" for name, each in items.items() if each.when == "now" and each.scale is None}
        if (
            self.clicks.rating is None
            and self.clicks.clicked is not None
            and not (self.clicks.kind or self.clicks.only)
        ):
            told["label"] = "whether it was a click"
        usual = set(told)
        if self.clicks.kind is not None and self.clicks.sequences:
            told[self.clicks.kind] = "which of the kinds of event it was"
        for name, each in self.uses["interactions"].items():
            if each.when == "earlier" or (each.when == "now" and self._tells_of_item(name)):
                told.setdefault(name, each.why)
        if set(told) == usual:
            return self._event_values(told)
        why = "what is told of each earlier event beside its item"
        features = Guessed(("event_features",), [*told, SINCE], why, reasons=told | {SINCE: "how long ago it was"})
        return [features, *self._event_values(told)]

    def _event_values(self, told: Iterable[str]) -> list[Guessed]:
        """How many values in a cell are read of what is told of events, where there are several."""
        columns = {**self._columns_of("items"), **self.events.columns}
        lists = [columns[name] for name in told if name in columns and columns[name].kind == "list"]
        if not lists:
            return []
        seen = ", ".join(f"{each.name} has up to {each.longest}" for each in lists)
        why = f"of several values that an event has in a cell so many of the first are read: {seen}. 1 trains faster"
        return [Guessed(("event_values",), Inputs().event_values, why)]

    def _tells_of_item(self, name: str) -> bool:
        item = self.events.columns[self.keys["item"]["interactions"]].cells
        return "price" in words(name) or is_of(item, self.events.columns[name])

    def _numbers(self) -> list[Guessed]:
        return [
            Guessed(("numeric", name), each.scale, f"{table}: {each.why}")
            for table, uses in self.uses.items()
            for name, each in uses.items()
            if each.when == "now" and each.scale is not None
        ]


def _called(
    found: Mapping[str, Mapping[str, str]], columns: Mapping[str, Sequence[str]], why: Mapping[str, str]
) -> list[Guessed]:
    """The names of our columns: for all tables, where none of them has another column of that name."""
    pairs = {pair for names in found.values() for pair in names.items()}
    shared, own = [], []
    for ours, theirs in sorted(pairs, key=lambda pair: [*why].index(pair[0])):
        fits = all(found[table].get(ours) == theirs for table in found if theirs in columns[table])
        alone = sum(other == ours for other, _ in pairs) == 1
        if fits and alone:
            shared.append(Guessed(("columns", ours), theirs, why[ours]))
            continue
        for table in found:
            if found[table].get(ours) == theirs and ours != theirs:
                own.append(Guessed(("columns", table, ours), theirs, why[ours]))
    return [*shared, *sorted(own, key=lambda each: each.name)]


def _padded(ids: pd.Series) -> bool:
    """Whether all look like whole numbers, and some begin with a zero that a number would lose."""
    texts = ids.astype(str)
    return bool(texts.str.fullmatch(r"\d+").all() and texts.str.match("0[0-9]").any())


def _date(second: float) -> str:
    return str(pd.to_datetime(second, unit="s").strftime("%Y-%m-%d %H:%M"))


def _scenario(heads: Sequence[Head], item: str | None) -> tuple[str, str]:
    """The scenario that names of files and columns speak of, and why. Where the ids are of things that none speaks of,
    recipes or lessons, one word is not enough: theirs have authors, too.
    """
    told = dict.fromkeys(word for head in heads for name in (head.path.name, *head.columns) for word in words(name))
    scores = {name: sum(word in told for word in speaks) for name, speaks in SCENARIOS.items()}
    best = max(scores, key=lambda name: scores[name])
    is_known = item is None or any(item in speaks for speaks in SCENARIOS.values())
    if scores[best] < (1 if is_known else 2):
        return GENERAL, "no name of a file or column speaks of another: edit its factors, see docs/scenarios.md"
    spoken = ", ".join(word for word in told if word in SCENARIOS[best])
    return best, f"names of files and columns speak of it: {spoken}"


def _words(keys: Iterable[str], settings: Sequence[Guessed]) -> dict[str, str]:
    """What the things are called by the columns of their ids, and what is done with them by that of the label."""
    found: dict[str, str] = {}
    nouns = [word for key in keys for word in words(key) if word not in IDS and word not in NAMELESS]
    if nouns:
        found |= {"item": nouns[0], "items": plural(nouns[0])}
    label = next((each.value for each in settings if each.name in (("label",), ("columns", "label"))), "")
    done = [word for word in words(str(label)) if word.endswith("ed")]
    return found | ({"verb": done[-1]} if done else {})
