"""Requests and responses as files of JSON lines, in the form of OpenAI's Batch API, which other providers take too.

A request's `custom_id` is the key of its answer, so that responses are matched in any order, today or in another run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kar_aug._batched import batched
from kar_aug._files import atomic_path
from kar_aug.cache import Answer, TextCache
from kar_aug.config import LanguageModel
from kar_aug.errors import GenerationError
from kar_aug.generate.cost import Price, Prices
from kar_aug.generate.progress import Progress
from kar_aug.generate.questions import BATCH, Survey
from kar_aug.generate.server import Asked, Passing, read_answer, without_keys
from kar_aug.generate.structured import INVALID, TWICE, is_repair, parameters_of, sent
from kar_aug.prompts import Prompt

MOST_REQUESTS, MOST_BYTES = 50_000, 200_000_000  # of one file, by OpenAI's documentation
_ONCE = "the answer does not fit the schema: --export-jsonl writes the question that asks for another"
_EXPIRED = ("batch_expired", "batch_cancelled")


@dataclass(frozen=True)
class Response:
    """One line of a response file. `body` is the response as it came, None if there is none; then `reason` says why."""

    key: str
    body: bytes | None
    reason: str = ""
    permanent: bool = False


def request_line(key: str, model: str, messages: Sequence[Mapping[str, Any]], parameters: Mapping[str, Any]) -> bytes:
    """One request, in ASCII, so that no title of any item can end the line."""
    body = {"model": model, "messages": list(messages), **sent(parameters)}
    line = {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(line, ensure_ascii=True).encode() + b"\n"


def read_responses(lines: Iterable[bytes | str], name: str) -> Iterator[Response | str]:
    """The responses in a file; a line that is none comes as a sentence that says so, and where."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
            key = document["custom_id"]
            if not isinstance(key, str):
                raise TypeError
            yield _response(key, document)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            yield f"{name}, line {number}: no response with a custom_id"


def _response(key: str, document: Mapping[str, Any]) -> Response:
    error, response = document.get("error"), document.get("response")
    if isinstance(error, dict) and not response:
        expired = error.get("code") in _EXPIRED
        return Response(key, None, "the batch expired" if expired else _words(error))
    if not isinstance(response, dict):
        return Response(key, None, "the batch gave no response")
    status, body = response.get("status_code", 200), response.get("body")
    if status == 200:
        return Response(key, json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    permanent = isinstance(status, int) and 400 <= status < 500 and status not in (408, 409, 429)
    inner = body.get("error") if isinstance(body, dict) else None
    words = f": {_words(inner)}" if isinstance(inner, dict) else ""
    return Response(key, None, f"the server answered {status}{words}", permanent)


def _words(error: Mapping[str, Any]) -> str:
    return without_keys(str(error.get("message") or error.get("code") or "an error"))[:200]


def answer_of(response: Response, asked: Asked, price: Price | None, *, served_model: str | None, tier: str) -> Answer:
    """The answer in a response.

    Raises:
        Passing: There is none in it.
    """
    if response.body is None:
        raise Passing(response.reason)
    return read_answer(response.body, response.key, asked, price, served_model=served_model, tier=tier)


def export_jsonl(
    prompts: Iterable[Prompt], cache: TextCache, model: LanguageModel, path: Path, *, retry_failed: bool = False
) -> tuple[list[Path], Progress]:
    """Write the requests that have no answer yet, for a provider that takes files. Nothing is sent, or claimed.

    Args:
        path: of the file; where one would be larger than OpenAI takes, numbered files beside it.

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
                prompt = question.prompt
                yield request_line(question.key, model.model, prompt.messages, parameters_of(model, prompt))

    files: list[Path] = []
    for number, part in enumerate(chunks(lines())):
        target = path if number == 0 else path.with_stem(f"{path.stem}-{number + 1}")
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
) -> Progress:
    """Bring the responses of files into the cache. Every answer is kept, also one that no prompt asks for any more.

    Args:
        prompts: all of them, as they were exported: they say what was asked, and whose the answers are.
        tier: what the provider charged by.
        on_note: called with a sentence for every line that is no response.

    Raises:
        GenerationError: A file cannot be read.
    """
    price = (prices or Prices()).of(model.model)
    # Where each response stands, so that not all of them are in memory.
    where: dict[str, tuple[Path, int]] = {}
    for path in paths:
        for position, line in _lines(path):
            for response in read_responses([line], str(path)):
                if isinstance(response, str):
                    on_note(f"{path}, byte {position}: no response with a custom_id")
                elif response.body is not None or response.key not in where:  # an answer outweighs an error
                    where[response.key] = (path, position)
    progress = Progress()
    survey = Survey(cache, model, progress)
    for batch in batched(prompts, BATCH):
        answers, misfits = [], []
        for question in survey.look(batch):
            if question.status == INVALID:
                progress.skipped += 1
            elif question.status is not None:
                progress.cached += 1
                cache.link([question.link])
                where.pop(question.key, None)
            elif question.key in where:
                response = _at(*where[question.key])
                try:
                    asked = Asked(model.model, question.prompt.messages, parameters_of(model, question.prompt))
                    answer = answer_of(response, asked, price, served_model=model.served_model, tier=tier)
                    answers.append((answer, [] if answer.status == INVALID else [question.link]))
                    if answer.status == INVALID:
                        misfits.append(question)
                    else:
                        progress.asked += 1
                except Passing as failure:
                    progress.count_failure(failure.reason)
                    cache.fail(question.key, failure.reason, 1, permanent=response.permanent, link=question.link)
        cache.put_many(_merged(answers))
        for answer, _ in answers:
            progress.cost += answer.cost or 0.0
            where.pop(answer.key, None)
        for question in misfits:
            final = is_repair(question.prompt.messages)
            progress.count_failure(TWICE if final else _ONCE)
            if final:
                cache.fail(question.key, TWICE, 2, permanent=True, link=question.link)
    survey.end()
    _keep_unasked(where, cache, model, price, tier, on_note)
    return progress


def _merged(answers: list[tuple[Answer, list[Any]]]) -> list[tuple[Answer, list[Any]]]:
    """One row an answer, where several entities of the batch share it."""
    merged: dict[str, tuple[Answer, list[Any]]] = {}
    for answer, links in answers:
        merged.setdefault(answer.key, (answer, []))[1].extend(links)
    return list(merged.values())


def _keep_unasked(
    where: Mapping[str, tuple[Path, int]],
    cache: TextCache,
    model: LanguageModel,
    price: Price | None,
    tier: str,
    on_note: Callable[[str], None],
) -> None:
    """Answers that no prompt asks for were paid for like the others: they are kept, as nobody's knowledge."""
    kept = 0
    for key, (path, position) in where.items():
        response = _at(path, position)
        if response.body is not None and key not in cache:
            try:
                asked = Asked(model.model, [], model.parameters)
                cache.put(answer_of(response, asked, price, served_model=model.served_model, tier=tier))
                kept += 1
            except Passing:
                continue
    if kept:
        on_note(f"{kept:,} answers match no prompt of this data and model; they are kept, and are nobody's knowledge")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            position = 0
            for line in file:
                if line.strip():
                    yield position, line
                position += len(line)
    except OSError as error:
        raise GenerationError(f"{path} cannot be read: {error.strerror}.") from None


def _at(path: Path, position: int) -> Response:
    with path.open("rb") as file:
        file.seek(position)
        response = next(read_responses([file.readline()], str(path)))
    assert isinstance(response, Response)  # it was one when the file was read first
    return response
