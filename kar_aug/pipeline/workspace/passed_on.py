"""What left a project's workdir: a line for each file or place that was written elsewhere, so that whoever forgets a
user knows where copies are.

A line says when, what, where and of whom. Of an address with a password the password is not kept.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from kar_aug._helpers.servers.addresses import masked

_log = logging.getLogger("kar_aug")
FILE = "passed-on.jsonl"
ANSWERS, REQUESTS, VECTORS, MODEL, PAGE = "answers", "requests", "vectors", "model", "page"


@dataclass(frozen=True)
class PassedOn:
    """Something that was written elsewhere.

    Args:
        what: ANSWERS (Parquet), REQUESTS (JSON lines), VECTORS, MODEL or PAGE.
        where: the file, folder or address; absolute where it is a path.
        entity: "user" or "item", where it holds of one kind only.
        kind: of a place of vectors (see `kar_aug.registry.PLACES`), where its address does not say it.
        masked: whether the address has lost its password here.
    """

    when: str
    what: str
    where: str
    entity: str | None = None
    kind: str | None = None
    masked: bool = False

    def __str__(self) -> str:
        of_whom = f" of {self.entity}s" if self.entity else ""
        return f"{self.what}{of_whom} in {self.where}, last written on {self.when[:10]}"


def note(work: Path, what: str, where: Path | str, *, entity: str | None = None, kind: str | None = None) -> None:
    """Write down that something was written elsewhere. Where the workdir takes nothing, one line says so instead: what
    was written is there all the same.
    """
    address = str(where) if "://" in str(where) else str(Path(where).absolute())
    shown = masked(address)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    line = PassedOn(now, what, shown, entity, kind, shown != address)
    try:
        work.mkdir(parents=True, exist_ok=True)
        with (work / FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(line)) + "\n")
    except OSError as error:
        _log.warning(
            "%s cannot be written (%s), so that kar-aug forget will not know of %s.", work / FILE, error.strerror, shown
        )


def passed_on(work: Path) -> list[PassedOn]:
    """What was written elsewhere, each place once, as it was written last. A line that is none is passed over."""
    return list({(each.what, each.where, each.entity): each for each in _lines(work / FILE)}.values())


def _lines(path: Path) -> Iterator[PassedOn]:
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            yield PassedOn(**json.loads(line))
        except (ValueError, TypeError):
            continue
