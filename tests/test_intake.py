"""An answer means the same however it came: by requests, in batches, in files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_structured import BAD, GOOD, SCHEMA

from kar_aug.cache import Status, TextCache
from kar_aug.config import LanguageModel
from kar_aug.errors import GenerationError, Hopeless
from kar_aug.generate import Progress, export_jsonl, generate, generate_batches, import_jsonl
from kar_aug.generate.cost import Prices
from kar_aug.generate.intake import TWICE, Intake, accepted
from kar_aug.prompts import Prompt
from kar_aug.testing import ChatServer, completion
from kar_aug.testing.batches import BatchServer, Line, Outcome
from kar_aug.testing.chat import counted, tokens_of

Saying = Callable[[dict[str, Any]], tuple[int, bytes]]  # what a request's body is answered with
Ask = Callable[[list[Prompt], TextCache, Saying, Path], Progress]
REFUSAL = json.dumps({"error": {"message": "too long"}}).encode()


def by_requests(prompts: list[Prompt], cache: TextCache, say: Saying, folder: Path) -> Progress:
    with ChatServer(lambda _, request, number: (lambda s: (s[0], {}, s[1]))(say(request))) as server:
        model = LanguageModel("test-model", server.base_url, concurrency=1, tries=1)
        return generate(prompts, cache, model, key="k")


def line(request: Line, say: Saying) -> Line:
    status, body = say(request["body"])
    answer = json.loads(counted(body, request["body"]["messages"]))
    return {"custom_id": request["custom_id"], "response": {"status_code": status, "body": answer}}


def in_batches(prompts: list[Prompt], cache: TextCache, say: Saying, folder: Path) -> Progress:
    def outcome(requests: list[Line]) -> Outcome:
        return "completed", [line(request, say) for request in requests], []

    with BatchServer(outcome) as server:
        model = LanguageModel("test-model", server.base_url)
        return generate_batches(prompts, cache, model, key="k", poll_seconds=0.01)


def in_files(prompts: list[Prompt], cache: TextCache, say: Saying, folder: Path) -> Progress:
    """Out and in again, until there is nothing more to ask; the counts are those of all rounds."""
    model, counts, done = LanguageModel("test-model"), Progress(), Progress()
    for number in range(3):
        files, _ = export_jsonl(prompts, cache, model, folder / f"ask-{number}.jsonl")
        if files:
            requests = map(json.loads, files[0].read_text().splitlines())
            said = folder / f"said-{number}.jsonl"
            said.write_text("".join(json.dumps(line(request, say)) + "\n" for request in requests))
            done = import_jsonl(prompts, [said], cache, model)
            counts.asked += done.asked
            counts.prompt_tokens += done.prompt_tokens
    counts.failed, counts.reasons = done.failed, done.reasons
    return counts


TRANSPORTS = pytest.mark.parametrize("ask", [by_requests, in_batches, in_files])


@TRANSPORTS
def test_servers_for_tests_count_the_tokens_of_what_they_read(
    ask: Any, cache: TextCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kar_aug.testing.chat.tokens_of", tokens_of)
    done = ask([about("a long film " * 200)], cache, lambda request: (200, completion("A film. ")), tmp_path)
    (answer,) = cache.answers()
    assert (answer.prompt_tokens, answer.completion_tokens) == (600, 2) and not answer.prompt_was_cut
    assert done.asked == 1


def about(subject: str, entity: int = 0, *, schema: bool = False) -> Prompt:
    return Prompt("item", entity, ({"role": "user", "content": subject},), "v1", schema=SCHEMA if schema else None)


def owned(cache: TextCache) -> dict[int | str, str]:
    """Whose answers are which, whatever their status."""
    links = cache.linked("item", range(100))
    return {id: f"{answer.status}: {answer.text}" for id, link in links.items() if (answer := cache.get(link.key))}


@TRANSPORTS
@pytest.mark.parametrize(
    ("body", "stored"),
    [
        (completion("A film."), "ok: A film."),
        (completion("A fi", "length"), "truncated: A fi"),
        (completion(None, refusal="I cannot."), "refused: I cannot."),
        (completion("Some", "content_filter"), "refused: Some"),
        (completion("  "), "empty: "),
    ],
)
def test_a_status_is_given_and_linked_alike(
    cache: TextCache, tmp_path: Path, ask: Ask, body: bytes, stored: str
) -> None:
    done = ask([about("a"), about("a", 1), about("b", 2)], cache, lambda request: (200, body), tmp_path)
    assert owned(cache) == dict.fromkeys(range(3), stored)
    assert (done.asked, done.failed, done.prompt_tokens) == (2, 0, 14), "one of equal questions is asked"


@TRANSPORTS
def test_what_does_not_fit_is_nobodys_and_asked_once_more_alike(cache: TextCache, tmp_path: Path, ask: Ask) -> None:
    def say(request: dict[str, Any]) -> tuple[int, bytes]:
        never = request["messages"][0]["content"] == "never"
        return 200, completion(GOOD if len(request["messages"]) == 3 and not never else BAD)

    prompts = [about("in the end", id, schema=True) for id in range(2)] + [about("never", 2, schema=True)]
    done = ask(prompts, cache, say, tmp_path)
    assert owned(cache) == dict.fromkeys(range(2), f"ok: {GOOD}")
    assert cache.counts() | {"ok": 1, "invalid": 3, "failed": 1} == cache.counts()
    assert [(f.reason, f.attempts, f.permanent, f.entity_id) for f in cache.failures()] == [(TWICE, 2, True, 2)]
    assert (done.asked, done.failed, done.reasons) == (1, 1, {TWICE: 1})


@TRANSPORTS
@pytest.mark.parametrize(("status", "permanent"), [(400, True), (422, True), (500, False), (408, False), (425, False)])
def test_a_refusal_is_for_good_or_not_alike(
    cache: TextCache, tmp_path: Path, short_pauses: None, ask: Ask, status: int, permanent: bool
) -> None:
    def say(request: dict[str, Any]) -> tuple[int, bytes]:
        return (200, completion("Fine.")) if request["messages"][0]["content"] == "good" else (status, REFUSAL)

    prompts = [about("good", 9), about("bad"), about("bad", 1)]
    done = ask(prompts, cache, say, tmp_path)
    assert owned(cache) == {9: "ok: Fine."} and done.failed == 2
    (failure,) = cache.failures()
    assert failure.permanent == permanent and failure.reason.startswith(f"the server answered {status}")


@TRANSPORTS
def test_another_model_is_said_when_what_is_paid_for_is_stored(cache: TextCache, tmp_path: Path, ask: Ask) -> None:
    with pytest.raises(
        Hopeless, match=r"was asked for 'test-model' and answered as 'tiny'\. If .*read again, at no cost"
    ) as told:
        ask([about("a"), about("b", 1)], cache, lambda request: (200, completion("Hm.", model="tiny")), tmp_path)
    assert set(owned(cache).values()) == {"wrong_model: Hm."} and list(cache.knowledge("item")) == []
    assert told.value.key in {link.key for link in cache.linked("item", [0, 1]).values()}


def test_what_counts_as_knowledge_is_the_users_choice() -> None:
    assert accepted(LanguageModel()) == ("ok",)
    assert accepted(LanguageModel(accept_truncated=True)) == (Status.OK, Status.TRUNCATED)


def test_an_intake_without_claims_asks_nothing(cache: TextCache) -> None:
    intake = Intake(cache, LanguageModel("m"), Progress(), Prices())
    (question,) = intake.open([about("a"), about("a", 1)])
    assert [link.entity_id for link in question.links] == [0, 1]
    with pytest.raises(ValueError, match="without claims"):
        intake.claim([question])


def test_errors_of_a_job_carry_what_they_are_about(cache: TextCache, short_pauses: None) -> None:
    with ChatServer(lambda *_: (401, {}, b"{}")) as server, pytest.raises(GenerationError) as raised:
        generate([about("a")], cache, LanguageModel("test-model", server.base_url), key="k")
    assert isinstance(raised.value, Hopeless)
    (question,) = Intake(cache, LanguageModel("test-model"), Progress(), Prices()).open([about("a")])
    assert raised.value.key == question.key
