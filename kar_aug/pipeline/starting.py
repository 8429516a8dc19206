"""The kar.toml that a person begins with: what was guessed of the files, each guess with what was seen above it."""

from __future__ import annotations

import json
import math
import os
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from kar_aug._helpers.files import write_atomic
from kar_aug._helpers.printed import Printed
from kar_aug._helpers.toml import edited
from kar_aug.data.guessing import GENERAL, Guess, Guessed, guess
from kar_aug.errors import ConfigError
from kar_aug.prompts.fitting import Shown, fitted
from kar_aug.prompts.scenario import Scenario, scenario_text

DEFAULT = "kar.toml"
_WIDTH = 118
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_DATA = re.compile(r"^\[data\]\n.*?(?=^\[)", re.MULTILINE | re.DOTALL)
_OF_MOVIES = re.compile(r"^(dataset|user_features|item_features) = .*$", re.MULTILINE)
_OWN = "or your own tables (Parquet, CSV, JSON lines), which kar-aug init --data FILES looks at:"
_SCENARIO = re.compile(r'^scenario = "movies".*$', re.MULTILINE)
# What remains to be said once the files are named.
_FURTHER = """
# history = 30                           # first events of a user: for the prompt, never for training; under "user"
# history_share = 0.4                    # under "temporal" instead: share of all events, the earliest
# history_length = 50                    # how many of the latest events a model reads
# seed = 1                               # draws other users for each part
# sample_users = 10000                   # so many users alone, for a first look; also kar-aug --sample 10000 STAGE
"""


@dataclass(frozen=True)
class Started(Printed):
    """A kar.toml that was written.

    Args:
        path: of it.
        scenario: the file of a scenario beside it; None where one of kar-aug's fits as it is.
        guess: what it says, and why.
    """

    path: Path
    scenario: Path | None
    guess: Guess

    def __str__(self) -> str:
        said = [f"{name if name in self.guess.files else 'not used'}: {seen}" for name, seen in self.guess.said.items()]
        if self.scenario is not None:
            said.append(f"Wrote {self.scenario}: factors, fields and templates, to edit.")
            if self.scenario.stem == self.guess.scenario[0] == GENERAL:
                items = self.guess.words.get("items", "things")
                said.append(
                    f"No name says what the items are: put factors by which {items} are chosen in place of its own."
                )
        if self.guess.unsaid is not None:
            said.append(f"label: {self.guess.unsaid}.")
        said.append(f"Wrote {self.path}. Next: {command(self.path, 'check')}")
        if self.guess.open:
            said.append(f"Commented out, to fill in: {', '.join(self.guess.open)}")
        return "\n".join(said)


def template(scenario: str | None = None) -> str:
    """A kar.toml with every setting explained, for a public data set of movies; for another scenario without any data,
    which are to be filled in.
    """
    content = files("kar_aug").joinpath("cli", "template.toml").read_text(encoding="utf-8")
    if scenario in (None, "movies"):
        return content
    data = _OF_MOVIES.sub(lambda line: f"# {line[0]}", _found(_DATA, content))
    data = data.replace("remove, and name your own tables (Parquet, CSV, JSON lines) instead:", _OWN, 1)
    return _DATA.sub(lambda _: data, content, count=1)


def _found(pattern: re.Pattern[str], content: str) -> str:
    found = pattern.search(content)
    assert found is not None
    return found[0]


def command(path: str | Path, stage: str) -> str:
    """What is typed to run a stage by the settings file at `path`."""
    return f"kar-aug {stage}" if Path(path) == Path(DEFAULT) else f"kar-aug -c {path} {stage}"


def start(
    paths: Sequence[Path | str],
    output: Path | str = "kar.toml",
    *,
    scenario: str | None = None,
    named: Mapping[str, str] | None = None,
    force: bool = False,
) -> Started:
    """Look at files, and write a kar.toml in which [data] is filled in, and a scenario beside it where none fits.

    Args:
        paths: files and folders, see `kar_aug.data.guessing.guess`.
        output: the file to write.
        scenario: one of kar-aug's, to be written beside it; if None, it is guessed, and written only where the files
            have other columns than it shows, or another scale of ratings.
        named: as of `guess`: {"user": "borrower"}.
        force: write over files that are there.

    Raises:
        ConfigError: A file is there.
        DataError: Which of the files are the interactions cannot be told, or one cannot be read.
        PromptError: There is no such scenario.

    Example:
        >>> print(start(["interactions.parquet", "items.csv"], "guessed.toml", force=True))
        interactions: interactions.parquet (1,800 rows: user_id, item_id, rating, timestamp)
        items: items.csv (40 rows: item_id, title, genres)
        Wrote guessed.toml. Next: kar-aug -c guessed.toml check
    """
    output = Path(output)
    _check_free(output, force=force)
    found = guess(paths, named)
    name = scenario or found.scenario[0]
    content = _scenario_text(name, found)
    if scenario is None and content == scenario_text(name):
        write_atomic(output, settings(found, output.parent, name))
        return Started(output, None, found)
    beside = output.with_name(f"{name}.toml")
    _check_free(beside, force=force)
    write_atomic(beside, content)
    write_atomic(output, settings(found, output.parent, beside.name))
    return Started(output, beside, found)


def _check_free(path: Path, *, force: bool) -> None:
    if path.exists() and not force:
        raise ConfigError(f"{path} is there already. Name another with --output, or give --force.", path=path)


def _scenario_text(name: str, found: Guess) -> str:
    """A scenario of kar-aug that shows what the tables have, in words for their scale of ratings."""
    content = scenario_text(name)
    told = Scenario.load(name)
    if name == GENERAL and found.words:
        content = edited(content, lambda scenario: scenario["words"].update(found.words))
        told = replace(told, words={**told.words, **found.words})
    return _fitted(_scaled(content, told, found.scale), told, found)


def _fitted(content: str, told: Scenario, found: Guess) -> str:
    """The scenario for other columns, where it knows not all of them, or needs one that is not there."""
    users, items, events, kind = (found.shown[part] for part in ("users", "items", "events", "kind"))
    needs = set(told.item.get("required", ()))
    is_known = {*items} <= {*told.item["fields"]} and {*users} <= {*told.user["fields"]} and needs <= {*items}
    if not items or (is_known and not events and not kind):
        return content
    shown = Shown(
        users=_in_order(users, told.user["fields"]),
        items=_in_order(items, told.item["fields"]),
        history=found.shown["history"],
        events=events,
        kind=kind[0] if kind else None,
        required=next(iter(found.shown["required"]), None),
        numbers=frozenset(found.shown["numbers"]),
    )
    things = told.words["items"]
    return fitted(content, shown, f"{things[:1].upper()}{things[1:]} in order of time:")


def _in_order(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """Those that the scenario knows first, as it has them."""
    return [*(name for name in known if name in names), *(name for name in names if name not in known)]


def _scaled(content: str, told: Scenario, scale: tuple[float, float]) -> str:
    """A scenario whose words are for ratings of a scale."""
    low, high = scale
    if told.ratings.low <= low and high <= told.ratings.high and (high > 1) == (told.ratings.high > 1):
        return content
    verb = told.words["verb"]
    words = [f"not {verb}", verb] if scale == (0, 1) else list(told.ratings.words)
    ends = {"low": math.floor(low), "high": math.ceil(high), "words": words}

    def edit(scenario: dict[str, Any]) -> None:
        scenario["ratings"] = {**scenario.get("ratings", {}), **ends}

    return edited(content, edit)


def settings(found: Guess, folder: Path, scenario: str) -> str:
    """A whole kar.toml.

    Args:
        folder: that it will lie in.
        scenario: what it names.
    """
    name, why = found.scenario
    line = f"scenario = {_value(scenario)}"
    said = f"{_comment(why)}\n{line}" if scenario in (name, f"{name}.toml") else line
    content = _DATA.sub(lambda _: f"{_data(found, folder)}\n\n", template(), count=1)
    return _SCENARIO.sub(lambda _: said, content, count=1)


def _data(found: Guess, folder: Path) -> str:
    """The section [data] with its tables."""
    lines = ["[data]", "# Guessed by kar-aug init --data. See what models read of it: kar-aug inspect --data"]
    for table, seen in found.said.items():
        if table not in found.files:
            lines.append(_comment(f"not used: {seen}"))
            continue
        lines += [_comment(seen), f"{table} = {_value(_relative(found.files[table], folder))}"]
    if "users" not in found.files:
        lines.append('# users = "..."  # no file of users was found: user_id, and any columns')
    sections: dict[tuple[str, ...], list[str]] = {(): []}
    for each in found.settings:
        sections.setdefault(each.name[:-1], []).extend(_setting(each))
    lines += [*sections.pop(()), *_FURTHER.strip().splitlines()]
    for name, inside in sections.items():
        lines += ["", f"[{'.'.join(map(_key, ('data', *name)))}]", *inside]
    return "\n".join(lines)


def _setting(each: Guessed) -> Iterator[str]:
    name = _key(each.name[-1])
    if each.name[0] == "columns" and each.value == each.name[-1]:
        yield _comment(f"{each.value}, which is called so: {each.why}")
        return
    yield _comment(each.why)
    if not each.is_sure:
        yield f"# {name} = {_value(each.value)}"
    elif each.reasons or each.left_out:
        yield f"{name} = ["
        yield from _entries(each)
        yield "]"
    else:
        yield f"{name} = {_value(each.value)}"


def _entries(each: Guessed) -> Iterator[str]:
    """Each feature below what was seen of it, then the columns that are none."""
    for feature in each.value:
        yield _comment(each.reasons[feature], "    ")
        yield f"    {_value(feature)},"
    for column, why in each.left_out.items():
        yield _comment(f"left out: {column}: {why}", "    ")


def _comment(text: str, indent: str = "") -> str:
    """Text as lines of a comment."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    lead = f"{indent}# "
    return textwrap.fill(plain, _WIDTH, initial_indent=lead, subsequent_indent=lead, break_long_words=False)


def _value(value: Any) -> str:
    """As TOML writes it."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{_key(name)} = {_value(each)}' for name, each in value.items())} }}"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _value(name)


def _relative(path: Path, folder: Path) -> str:
    """A path as seen from the folder of kar.toml, where there is a way."""
    try:
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:  # another drive of Windows
        return path.resolve().as_posix()
