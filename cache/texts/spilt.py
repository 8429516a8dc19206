"""Answers that a cache could not take, as a file of JSON lines that `kar-aug cache import` brings in.

They were paid for: each line holds all of an answer, its response as it came, and whose it is.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shlex
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kar_aug.cache.texts.cache import Answer, Link, TextCache
from kar_aug.cache.texts.incoming import Brought, Incoming, bring
from kar_aug.errors import StoreError

_FORMAT = 1
_MARK = "kar_aug_answer"  # in each line: of which format it is


class Spill:
    """Where the answers of one job go that its cache does not take.

    Args:
        beside: the cache's file; where nothing can be written beside it, or it is none, it is the folder for temporary
            files.

    Attributes:
        path: of the file; None before the first answer.
        kept, lost: how many answers are in it, and how many could not be written there either.
    """

    def __init__(self, beside: Path | None) -> None:
        self.path: Path | None = None
        self.kept = self.lost = 0
        name = f"{beside.stem if beside else 'answers'}-not-stored-{uuid.uuid4().hex[:8]}.jsonl"
        folders = [beside.parent] if beside else []
        self._places = [folder / name for folder in (*folders, Path(tempfile.gettempdir()))]

    def add(self, answers: Sequence[tuple[Answer, Sequence[Link]]]) -> None:
        """Write answers, and whose they are; durable when this returns."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        content = b"".join(_line(answer, links, now) for answer, links in answers)
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


def _appended(path: Path, content: bytes) -> bool:
    """Whether a file has the content at its end now; else it is as it was."""
    size = path.stat().st_size if path.exists() else None
    try:
        with path.open("ab") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
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
        StoreError: A line of it is no answer.
    """
    return bring(_read(path), cache)


def _line(answer: Answer, links: Sequence[Link], now: str) -> bytes:
    document = {
        _MARK: _FORMAT,
        **answer.__dict__,
        "messages": list(answer.messages),
        "parameters": None if answer.parameters is None else dict(answer.parameters),
        "created": answer.created or now,
        "raw": base64.b64encode(answer.raw).decode(),
        "links": [list(link) for link in links],
    }
    return json.dumps(document).encode() + b"\n"


def _read(path: Path) -> Iterator[Incoming]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield _incoming(json.loads(line))
            except (ValueError, LookupError, TypeError, RecursionError):
                raise StoreError(f"{path}, line {number}: this is no answer.", path=path, row=number) from None


def _incoming(document: dict[str, Any]) -> Incoming:
    if document.pop(_MARK) > _FORMAT:
        raise StoreError("It was written by a newer kar-aug. Upgrade kar-aug: pip install -U kar-aug")
    links = [Link(*link) for link in document.pop("links")]
    answer = Answer(**{**document, "raw": base64.b64decode(document["raw"])})
    return answer, [(link, answer.created) for link in links]
