"""Requests and responses as files of JSON lines, in the form of OpenAI's Batch API, which other providers take too.

A request's `custom_id` is the key of its answer, so that responses are matched in any order, today or in another run.
Responses are also read in the form of Anthropic's message batches: a `result` of the type succeeded, errored, expired
or canceled.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kar_aug._helpers.batched import batched
from kar_aug._helpers.files import atomic_path
from kar_aug._helpers.servers.words import without_keys, words_of
from kar_aug.cache import Answer, TextCache
from kar_aug.config import LanguageModel
from kar_aug.generate.cost import Prices
from kar_aug.generate.faults import Expired, Fault, Passing, of_status
from kar_aug.generate.forms import is_one
from kar_aug.generate.intake import BATCH, Intake, Survey
from kar_aug.generate.line_files import as_lines
from kar_aug.generate.progress import Progress
from kar_aug.generate.questions import Question
from kar_aug.generate.structured import sent
from kar_aug.prompts import Prompt

MOST_REQUESTS, MOST_BYTES = 50_000, 200_000_000  # of one file, by OpenAI's documentation
_ONCE = "the answer does not fit the schema: --export-jsonl writes the question that asks for another"
_SHOWN = 200  # characters of a server's own words
_KEY = re.compile(rb'"custom_id"\s*:\s*"([\w-]+)"')  # one of ours, which holds no other characters
_EXPIRED = ("batch_expired", "batch_cancelled")
_NOT_SENT = {"expired": "the batch expired", "canceled": "the batch was cancelled"}  # results of Anthropic's
# What Anthropic calls errors, by the statuses that it gives them elsewhere.
_STATUSES = {
    "invalid_request_error": 400, "authentication_error": 401, "billing_error": 402, "permission_error": 403,
    "not_found_error": 404, "request_too_large": 413, "rate_limit_error": 429, "api_error": 500,
    "timeout_error": 504, "overloaded_error": 529,
}  # fmt: skip


@dataclass(frozen=True)
class Response:
    """One line of a response file. `body` is the response as it came, None if there is none; then `fault` says why. Of
    a line that is `torn`, it is the line.
    """

    key: str
    body: bytes | None
    fault: Fault | None = None
    torn: bool = False

    @property
    def worth(self) -> int:
        """Which of several with one key counts: a whole answer before one that breaks off, this before an error."""
        return 0 if self.body is None else 1 if self.torn else 2


@dataclass(frozen=True)
class Nobodys:
    """A line of a response file that names no question, and `where` it stands. It may be somebody's answer, unless it
    can be read and has no response.
    """

    line: bytes
    where: str

    def __str__(self) -> str:
        return f"{self.where}: no response with a custom_id"

    @property
    def may_be_an_answer(self) -> bool:
        """Whether somebody's answer, which is paid for, may be in it."""
        try:
            document = json.loads(self.line)
        except (ValueError, RecursionError):
            return True
        return isinstance(document, dict) and response_to("", self.line).body is not None


def request_line(key: str, model: str, messages: Sequence[Mapping[str, Any]], parameters: Mapping[str, Any]) -> bytes:
    """One request, in ASCII, so that no title of any item can end the line."""
    body = {"model": model, "messages": list(messages), **sent(parameters)}
    line = {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(line, ensure_ascii=True).encode() + b"\n"


def read_responses(lines: Iterable[bytes | str], name: str) -> Iterator[Response | Nobodys]:
    """The responses in a file, and the lines that name no question. A line that cannot be read, but tells its question,
    is that one's response as it is: it was paid for.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
            key = document["custom_id"]
            if not isinstance(key, str) or "\0" in key:
                raise TypeError
            key.encode()  # half a character is in no key, and no database takes it
            yield _response(key, document)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raw = line.encode() if isinstance(line, str) else line
            if told := _KEY.search(raw):
                yield Response(told[1].decode(), raw, torn=True)
            else:
                yield Nobodys(raw, f"{name}, line {number}")


def response_to(key: str, line: bytes) -> Response:
    """The response in a line that does not name its question, which is known otherwise."""
    try:
        return _response(key, json.loads(line))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Response(key, line, torn=True)


def _response(key: str, document: Mapping[str, Any]) -> Response:
    if isinstance(result := document.get("result"), dict) and isinstance(result.get("type"), str):
        return _result(key, result)
    error, response = document.get("error"), document.get("response")
    if isinstance(error, dict) and not response:
        expired = error.get("code") in _EXPIRED
        return Response(key, None, Expired("the batch expired") if expired else Passing(_words(error)))
    if not isinstance(response, dict):
        return Response(key, None, Passing("the batch gave no response"))
    status, body = response.get("status_code", 200), response.get("body")
    if isinstance(status, str) and status.isdecimal():
        status = int(status[:4])
    if body is None and is_one(response):  # of Fireworks
        body = response
    if isinstance(body, str):  # JSON as a text: of some gateways
        with contextlib.suppress(ValueError, RecursionError):
            body = json.loads(body)
    is_error = isinstance(status, int) and status >= 400
    if status == 200 or (not is_error and isinstance(body, dict) and is_one(body)):
        return Response(key, json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    words = without_keys(words_of(body))[:_SHOWN]
    reason = f"the server answered {status}{': ' if words else ''}{words}"
    return Response(key, None, of_status(status, reason) if is_error else Passing(reason))


def _result(key: str, result: Mapping[str, Any]) -> Response:
    """One of Anthropic's."""
    kind = result["type"]
    if kind == "succeeded":
        return Response(key, json.dumps(result.get("message"), ensure_ascii=False).encode("utf-8", "surrogatepass"))
    if kind in _NOT_SENT:
        return Response(key, None, Expired(_NOT_SENT[kind]))
    error = result.get("error")
    within = error.get("error") if isinstance(error, dict) else None
    error = within if isinstance(within, dict) else error if isinstance(error, dict) else {}
    status = _STATUSES.get(str(error.get("type")))
    return Response(key, None, Passing(_words(error)) if status is None else of_status(status, _words(error)))


def _words(error: Mapping[str, Any]) -> str:
    return without_keys(words_of(error) or "an error")[:_SHOWN]


def answer_of(response: Response, question: Question, intake: Intake, *, tier: str) -> Answer:
    """The answer in a response.

    Raises:
        Fault: There is none in it.
    """
    if response.body is None:
        raise response.fault or Passing("the batch gave no response")
    return intake.read(question, response.body, tier=tier)


def export_jsonl(
    prompts: Iterable[Prompt],
    cache: TextCache,
    model: LanguageModel,
    path: Path,
    *,
    retry_failed: bool = False,
    on_file: Callable[[Path], None] = lambda file: None,
) -> tuple[list[Path], Progress]:
    """Write the requests that have no answer yet, for a provider that takes files. Nothing is sent, or claimed.

    Args:
        path: of the file; where one would be larger than OpenAI takes, numbered files beside it.
        on_file: called with each file before it is written.

    Returns:
        The files, and what was found.
    """
    progress = Progress()
    questions = Survey(cache, model, progress, retry_failed=retry_failed).open(prompts)
    seen: set[str] = set()

    def lines() -> Iterator[bytes]:
        for question in questions:
            if question.key not in seen:
                seen.add(question.key)
                yield request_line(question.key, question.model, question.messages, question.parameters)

    files: list[Path] = []
    for number, part in enumerate(chunks(lines())):
        target = path if number == 0 else path.with_stem(f"{path.stem}-{number + 1}")
        on_file(target)
        with atomic_path(target) as temporary, temporary.open("wb") as file:
            file.writelines(part)
        files.append(target)
    progress.requests = len(seen)
    return files, progress


def chunks(
    lines: Iterable[bytes], *, most_requests: int = MOST_REQUESTS, most_bytes: int = MOST_BYTES
) -> Iterator[list[bytes]]:
    """Lines in groups that one file may hold."""
    group: list[bytes] = []
    size = 0
    for line in lines:
        if group and (len(group) == most_requests or size + len(line) > most_bytes):
            yield group
            group, size = [], 0
        group.append(line)
        size += len(line)
    if group:
        yield group


def import_jsonl(
    prompts: Iterable[Prompt],
    paths: Sequence[Path],
    cache: TextCache,
    model: LanguageModel,
    *,
    prices: Prices | None = None,
    tier: str = "batch",
    on_note: Callable[[str], None] = lambda sentence: None,
    forgotten: Callable[[str], str | None] = lambda key: None,
) -> Progress:
    """Bring the responses of files into the cache. Every answer is kept, also one that no prompt asks for any more; but
    none that is about somebody who was forgotten.

    Args:
        prompts: all of them, as they were exported: they say what was asked, and whose the answers are.
        tier: what the provider charged by.
        on_note: called with a sentence for every line that is no response.
        forgotten: of the key of a question that no prompt asks, what the ledger calls it where it was about such a one;
            None where it was not.

    Raises:
        GenerationError: A file cannot be read; or, when all is stored, some answers are another model's.
    """
    with contextlib.ExitStack() as stack:
        lines = {path: stack.enter_context(as_lines(path)) for path in paths}
        return _import(prompts, lines, cache, model, prices or Prices(), tier, on_note, forgotten)


def _import(
    prompts: Iterable[Prompt],
    paths: Mapping[Path, Path],
    cache: TextCache,
    model: LanguageModel,
    prices: Prices,
    tier: str,
    on_note: Callable[[str], None],
    forgotten: Callable[[str], str | None],
) -> Progress:
    """The same, given for each file one that holds its lines."""
    # Where each response stands, so that not all of them are in memory.
    where: dict[str, tuple[Path, int]] = {}
    worth: dict[str, int] = {}
    for path, lines in paths.items():
        for position, line in _lines(lines):
            for response in read_responses([line], str(path)):
                if isinstance(response, Nobodys):
                    on_note(str(Nobodys(line, f"{path}, byte {position}")))
                elif response.worth >= worth.get(response.key, 0):
                    where[response.key], worth[response.key] = (lines, position), response.worth
    progress = Progress()
    intake = Intake(cache, model, progress, prices, on_note=on_note)
    for batch in batched(prompts, BATCH):
        answers = []
        for question in intake.open(batch, though_rejected=True):
            if question.key in where:
                try:
                    answers.append((question, answer_of(_at(*where[question.key]), question, intake, tier=tier)))
                except Fault as fault:
                    intake.failed(question, fault, 1)
                else:
                    del where[question.key]
        for question in intake.take(answers):
            intake.postponed(question, _ONCE)
    intake.end()
    named = {key: name for key in where if (name := forgotten(key)) is not None}
    if dropped := _drop({key: where.pop(key) for key in named}, named, model, intake, tier):
        on_note(f"{dropped:,} answers may be about users or items that were forgotten: they are not kept")
    if kept := _keep_unasked(where, cache, model, intake, tier):
        on_note(f"{kept:,} answers match no prompt of this data and model; they are kept, and are nobody's knowledge")
    if intake.hopeless is not None:
        raise intake.hopeless
    return progress


def _drop(
    where: Mapping[str, tuple[Path, int]], named: Mapping[str, str], model: LanguageModel, intake: Intake, tier: str
) -> int:
    """Keep nothing of these answers but what they cost. Returns how many there are."""
    dropped = 0
    for key, place in where.items():
        if (body := _at(*place).body) is not None:
            intake.charge(Question(key, model.model, [], model.parameters), body, named[key], tier=tier)
            dropped += 1
    return dropped


def _keep_unasked(
    where: Mapping[str, tuple[Path, int]], cache: TextCache, model: LanguageModel, intake: Intake, tier: str
) -> int:
    """Answers that no prompt asks for were paid for like the others: they are kept, as nobody's knowledge. Returns how
    many.
    """
    kept = 0
    for keys in batched(where, BATCH):
        answers = []
        for key in set(keys) - cache.answered(keys).keys():
            question = Question(key, model.model, [], model.parameters)
            with contextlib.suppress(Fault):
                answers.append((question, answer_of(_at(*where[key]), question, intake, tier=tier)))
        intake.store(answers)
        kept += len(answers)
    return kept


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        position = 0
        for line in file:
            if line.strip():
                yield position, line
            position += len(line)


def _at(path: Path, position: int) -> Response:
    with path.open("rb") as file:
        file.seek(position)
        response = next(read_responses([file.readline()], str(path)))
    assert isinstance(response, Response)  # it was one when the file was read first
    return response
