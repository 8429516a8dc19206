"""Answers that a cache could not take, as a file of JSON lines that `kar-aug cache import` brings in.

They were paid for: each line holds all of an answer, its response as it came, and whose it is.
"""

from __future__ import annotations

import base64
import contextlib
import glob
import hashlib
import json
import os
import shlex
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kar_aug._helpers.files import sync_folder
from kar_aug.cache.texts.cache import Answer, Link, TextCache
from kar_aug.cache.texts.incoming import Brought, Incoming, bring
from kar_aug.cache.texts.status import STATUSES
from kar_aug.errors import StoreError

_FORMAT = 1
_MARK = "kar_aug_answer"  # in each line: of which format it is


class Spill:
    """Where the answers of one job go that its cache does not take.

    Args:
        cache: the file is beside the cache's; where nothing can be written there, or the cache is none, in the folder
            for temporary files.
        owner: of the job, as the ledger knows it: what answers cost is reserved already.

    Attributes:
        path: of the file; None before the first answer.
        kept, lost: how many answers are in it, and how many could not be written there either.
    """

    def __init__(self, cache: TextCache, owner: str = "") -> None:
        self.path: Path | None = None
        self._owner = owner
        self.kept = self.lost = 0
        self._places = [folder / f"{name}-{uuid.uuid4().hex[:8]}.jsonl" for folder, name in _places(cache)]

    def add(self, answers: Sequence[tuple[Answer, Sequence[Link]]]) -> None:
        """Write answers, and whose they are; durable when this returns."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        content = b"".join(_line(answer, links, self._owner, now) for answer, links in answers)
        for path in [self.path] if self.path else self._places:
            if _appended(path, content):
                self.path = path
                self.kept += len(answers)
                return
        self.lost += len(answers)

    def __str__(self) -> str:
        said = []
        if self.path is not None:
            said.append(
                f"{self.kept:,} answers that it did not take are in {self.path}: "
                f"kar-aug cache import {shlex.quote(str(self.path))}"
            )
        if self.lost:
            said.append(f"{self.lost:,} could not be written there either, and are lost.")
        return " ".join(said)


def spilt_files(cache: TextCache) -> Iterator[Path]:
    """Files of answers that this cache did not take, and no other: in the folder for temporary files, which all
    projects share, they are called by where the cache lies.
    """
    for folder, name in _places(cache):
        yield from sorted(folder.glob(f"{glob.escape(name)}-*.jsonl"))


def _places(cache: TextCache) -> list[tuple[Path, str]]:
    """The folders for such files, and how their names begin there."""
    file = cache.database.file
    where = cache.name if file is None else str(file.resolve())
    digits = hashlib.sha256(where.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    stem = "answers" if file is None else file.stem
    temporary = Path(tempfile.gettempdir()), f"{stem}-{digits}-not-stored"
    return [temporary] if file is None else [(file.parent, f"{stem}-not-stored"), temporary]


def _appended(path: Path, content: bytes) -> bool:
    """Whether a file has the content at its end now; else it is as it was."""
    size = path.stat().st_size if path.exists() else None
    try:
        with path.open("ab") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if size is None:
            sync_folder(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True) if size is None else os.truncate(path, size)
        return False
    return True


def is_spilt(path: Path) -> bool:
    """Whether it is such a file."""
    try:
        with path.open("rb") as file:
            document = json.loads(file.readline())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and _MARK in document


def import_spilt(path: Path, cache: TextCache) -> Brought:
    """Bring the answers of such a file into a cache: see `kar_aug.cache.texts.incoming`.

    Raises:
        StoreError: A line of it is no answer: the last, say, of a job that was killed in writing it. The others are in
            the cache then.
    """
    wrong: list[int] = []
    brought = bring(_read(path, wrong), cache)
    if wrong:
        raise StoreError(
            f"{path}, line {wrong[0]}: this is no answer ({len(wrong):,} such lines). Of the others, {brought}.",
            path=path,
            row=wrong[0],
        )
    return brought


def _line(answer: Answer, links: Sequence[Link], owner: str, now: str) -> bytes:
    document = {
        _MARK: _FORMAT,
        **answer.__dict__,
        "messages": list(answer.messages),
        "parameters": None if answer.parameters is None else dict(answer.parameters),
        "created": answer.created or now,
        "raw": base64.b64encode(answer.raw).decode(),
        "links": [list(link) for link in links],
        "owner": owner,
    }
    return json.dumps(document).encode() + b"\n"


def _read(path: Path, wrong: list[int]) -> Iterator[Incoming]:
    """The answers; the numbers of lines that are none go into `wrong`."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield _incoming(json.loads(line))
            except (ValueError, LookupError, TypeError, RecursionError):
                wrong.append(number)


def _incoming(document: dict[str, Any]) -> Incoming:
    if document.pop(_MARK) > _FORMAT:
        raise StoreError("It was written by a newer kar-aug. Upgrade kar-aug: pip install -U kar-aug")
    links = [Link(*link) for link in document.pop("links")]
    owner = document.pop("owner", "")
    answer = Answer(**{**document, "raw": base64.b64decode(document["raw"])})
    if not (_storable(answer, links) and isinstance(owner, str)):
        raise TypeError
    return Incoming(answer, [(link, answer.created) for link in links], owner)


def _storable(answer: Answer, links: Sequence[Link]) -> bool:
    """Whether every part is what it is in answers."""
    words = (answer.key, answer.text, answer.model, answer.created, answer.served_model, answer.tier)
    counts = (answer.prompt_tokens, answer.completion_tokens)
    numbers = (answer.seconds, 0 if answer.cost is None else answer.cost)
    return (
        answer.status in STATUSES
        and all(isinstance(word, str) for word in (*words, *(word for link in links for word in (link[0], *link[2:4]))))
        and all(isinstance(count, int) and 0 <= count < 2**31 for count in counts)
        and all(isinstance(number, int | float) for number in numbers)
        and all(isinstance(link.entity_id, int | str) for link in links)
        and isinstance(answer.messages, list)
        and all(isinstance(message, dict) for message in answer.messages)
        and isinstance(answer.parameters, dict | None)
    )
