"""Who is left out of everything: the users and items that `kar-aug forget` took away, whatever the tables still hold.

The list is a file of the workdir. It holds no id, but a keyed hash of each. Whoever has the file and a list of ids can
tell who is on it, as somebody must be able to who is to keep them out; the file alone names nobody. Of what was asked
about them it holds such hashes, too: an answer that comes late says by the key of its question alone whose it is.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kar_aug._helpers.files import write_atomic
from kar_aug.data import Tables
from kar_aug.data.room import Room, among
from kar_aug.errors import StoreError

FILE = "forgotten.json"
_QUESTIONS = "questions"
_COLUMNS = {"user": "user_id", "item": "item_id"}


@dataclass(frozen=True)
class ForgottenIds:
    """The list. An id counts as the same whether it is a number or its digits: 42 and "42".

    Args:
        key: of the hashes, drawn when the list begins.
        hashes: "user", "item" -> those of the ids.
        questions: those of the keys of questions about them, and of some that may have been.
    """

    key: str = ""
    hashes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    questions: frozenset[str] = frozenset()

    @classmethod
    def read(cls, work: Path) -> ForgottenIds:
        """That of a workdir; empty if there is none.

        Raises:
            StoreError: It cannot be read. Nobody may go on then as if nobody were on it.
        """
        path = work / FILE
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            hashes = {entity: frozenset(map(str, document[entity])) for entity in _COLUMNS}
            questions = frozenset(map(str, document.get(_QUESTIONS, ())))
            return cls(str(document["key"]), {entity: some for entity, some in hashes.items() if some}, questions)
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{path} cannot be read ({error}): it says who was forgotten. Restore it from a copy; or write it anew "
                "by deleting it and forgetting the same ids again.",
                path=path,
            ) from None

    def write(self, work: Path) -> None:
        """Keep it."""
        lists = {entity: sorted(self.hashes.get(entity, ())) for entity in _COLUMNS}
        lists |= {_QUESTIONS: sorted(self.questions)} if self.questions else {}
        write_atomic(work / FILE, json.dumps({"key": self.key, **lists}, indent=1))

    def __bool__(self) -> bool:
        return any(self.hashes.values())

    @property
    def fingerprint(self) -> str:
        """16 hex digits over who is on it."""
        content = [self.key, {entity: sorted(some) for entity, some in sorted(self.hashes.items())}]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    def holds(self, entity: str, id: Any) -> bool:
        """Whether a user, or an item, is on it."""
        return entity in self.hashes and self._hash(entity, id) in self.hashes[entity]

    def among(self, entity: str, ids: Collection[Any]) -> list[Any]:
        """Those of the ids that are on it."""
        return [id for id in ids if self.holds(entity, id)]

    def with_ids(self, entity: str, ids: Collection[Any]) -> ForgottenIds:
        """The list with these on it, too."""
        listed = self if self.key else replace(self, key=secrets.token_hex(16))
        return listed._changed(entity, listed.hashes.get(entity, frozenset()) | listed._hashes(entity, ids))

    def without_ids(self, entity: str, ids: Collection[Any]) -> ForgottenIds:
        """The list without these."""
        return self._changed(entity, self.hashes.get(entity, frozenset()) - self._hashes(entity, ids))

    def with_questions(self, keys: Collection[str]) -> ForgottenIds:
        """The list with the keys of these questions, too."""
        return replace(self, questions=self.questions | self._hashes(_QUESTIONS, keys))

    def of_question(self, key: str) -> str | None:
        """The hash of a question's key; None if it is not on the list."""
        digits = self._hash(_QUESTIONS, key) if self.questions else None
        return digits if digits in self.questions else None

    def leave_out(self, tables: Tables, room: Room) -> Tables:
        """The tables without the rows of those who are on it."""
        if not self:
            return tables
        return replace(
            tables,
            interactions=self.rows_left(tables.interactions, room),
            items=self.rows_left(tables.items, room),
            users=self.rows_left(tables.users, room),
        )

    def rows_left(self, frame: pd.DataFrame, room: Room) -> pd.DataFrame:
        """A table without those rows."""
        left = np.ones(len(frame), bool)
        for entity, column in _COLUMNS.items():
            if column in frame and (gone := self.among(entity, frame[column].unique().tolist())):
                left &= ~room.filled(len(frame), bool, _are_among(frame[column], gone))
        return room.rows(frame, left)

    def _changed(self, entity: str, hashes: frozenset[str]) -> ForgottenIds:
        return replace(self, hashes={**self.hashes, entity: hashes})

    def _hashes(self, entity: str, ids: Collection[Any]) -> frozenset[str]:
        return frozenset(self._hash(entity, id) for id in ids)

    def _hash(self, entity: str, id: Any) -> str:
        words = f"{entity} {id}".encode("utf-8", "surrogatepass")
        return hashlib.blake2b(words, key=bytes.fromhex(self.key), digest_size=16).hexdigest()


def _are_among(column: pd.Series, ids: Collection[Any]) -> Any:
    are_they = among([*dict.fromkeys(ids)])
    return lambda block: are_they(column.iloc[block])
