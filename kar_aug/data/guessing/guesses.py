"""What was guessed: settings of [data], each with what was seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EACH_ROW = "item_id == item_id"  # a label that is true of each row


@dataclass(frozen=True)
class Guessed:
    """A setting.

    Args:
        name: ("protocol",), or ("columns", "items", "item_id") within a table of its own.
        value: as TOML has it. Of a list of features, `reasons` says why of each.
        why: what was seen.
        is_sure: whether it is a guess; else nothing was found, and `value` is an example of what to fill in.
        reasons: entry of the list -> why.
        left_out: column that is none of the entries -> why.
    """

    name: tuple[str, ...]
    value: Any
    why: str
    is_sure: bool = True
    reasons: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Guess:
    """What some files are.

    Args:
        files: "interactions", "items", "users" -> the file, or the folder of Parquet files.
        settings: of [data], in the order in which they should stand, but for the files.
        scenario: that of kar-aug's which fits, and why; "general", if no name of a file or a column speaks of another.
        words: "item", "items", "verb" -> what their owner calls them, as far as the names of columns tell.
        scale: the least and the largest rating; 0 and 1 of clicks.
        shown: table ("users", "items"), "history" (items, told of each event) or "events" -> the columns that prompts
            may show, under our names; "required" -> that of the items which each of them should have; "kind" -> that of
            the kinds of event; "numbers" -> which of all these are numbers.
        said: what was seen of each of `files`; of those that are none of the tables, likewise, under their own names.
    """

    files: Mapping[str, Path]
    settings: Sequence[Guessed]
    scenario: tuple[str, str]
    words: Mapping[str, str]
    scale: tuple[float, float]
    said: Mapping[str, str]
    shown: Mapping[str, Sequence[str]]

    @property
    def open(self) -> list[str]:
        """What could not be guessed, and is to be filled in."""
        return [".".join(each.name) for each in self.settings if not each.is_sure]

    @property
    def unsaid(self) -> str | None:
        """What was seen where no column says what a click is, and each row is taken for one; None where one does."""
        return next((s.why for s in self.settings if s.name == ("label",) and s.value == EACH_ROW), None)

    def value(self, *name: str) -> Any:
        """The value of a setting that was guessed; None if it was not."""
        return next((each.value for each in self.settings if each.name == name and each.is_sure), None)
