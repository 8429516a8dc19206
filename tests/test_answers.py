"""What counts as an answer, whoever served it: every body is kept, read in all forms, and read again by later runs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.jobs import KEY, prompts
from test_structured import GOOD, SCHEMA

from kar_aug.cache import Answer, Link, Status, TextCache
from kar_aug.cache.texts.verify import verify
from kar_aug.config import LanguageModel
from kar_aug.errors import GenerationError
from kar_aug.generate import Progress, generate
from kar_aug.generate.answers import read_answer
from kar_aug.generate.choices import no_completion
from kar_aug.generate.questions import Question
from kar_aug.prompts import Prompt
from kar_aug.testing import ChatServer, completion, echo

pytestmark = pytest.mark.usefixtures("short_pauses")


def read(body: bytes, **changes: Any) -> tuple[str, str]:
    """Status and text of a body."""
    (prompt,) = prompts(1)
    answer = read_answer(body, Question.of(LanguageModel("test-model"), prompt), None, **changes)
    assert answer.raw == body
    return str(answer.status), answer.text


def without(body: bytes, *path: Any, put: Any = None) -> bytes:
    """A body with something else at a place in it; without it, if there is nothing to put there."""
    document = json.loads(body)
    place = document
    for name in path[:-1]:
        place = place[name]
    if put is None:
        del place[path[-1]]
    else:
        place[path[-1]] = put
    return json.dumps(document).encode()


PARTS = [{"type": "thinking", "thinking": [{"text": "Hm"}]}, {"type": "text", "text": "A "}, {"text": "film."}, "!"]


@pytest.mark.parametrize(
    ("content", "finish", "expected"),
    [
        (PARTS, "stop", ("ok", "A film.!")),
        ("<think>Hm, a film?</think>\n\nA comedy.", "stop", ("ok", "A comedy.")),
        ("Hm, a film?\n</think>\n\nA comedy.", "stop", ("ok", "A comedy.")),
        ("[THINK]Hm[/THINK]A comedy.", "stop", ("ok", "A comedy.")),
        ("<|START_THINKING|>Hm<|END_THINKING|>A comedy.", "stop", ("ok", "A comedy.")),
        ("<seed:think>Hm</seed:think>A comedy.", "stop", ("ok", "A comedy.")),
        ("<think>a</think>One <think>b</think>two.", "stop", ("ok", "One two.")),
        ("<think>Hm, a film? I would", "length", ("empty", "")),
        ("<think>Hm, a film? I would", "stop", ("empty", "")),
        ("A comedy. <think>Or was it", "stop", ("unfinished", "A comedy.")),
        ("A comedy. <think>Or was it", "length", ("truncated", "A comedy.")),
        ("In <reasoning> we trust", "stop", ("ok", "In <reasoning> we trust")),
        ({"type": "text", "text": "A film."}, "stop", ("ok", "A film.")),
        ([{"type": "refusal", "refusal": "I cannot."}], "stop", ("refused", "I cannot.")),
        (5, "stop", ("malformed", "")),
    ],
)
def test_an_answer_is_its_text_without_the_reasoning(content: Any, finish: str, expected: tuple[str, str]) -> None:
    assert read(completion(content, finish)) == expected


@pytest.mark.parametrize(
    ("reasons", "status"),
    [
        (
            ("stop", "STOP", "end_turn", "eos", "eos_token", "stop_sequence", "COMPLETE", "FINISH_REASON_STOP", None),
            "ok",
        ),
        (("length", "max_tokens", "MAX_TOKENS", "model_length", "FinishReason.MAX_TOKENS"), "truncated"),
        (("content_filter", "SAFETY", "RECITATION", "refusal", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII"), "refused"),
        (("content_filter: PROHIBITED_CONTENT", "ERROR_TOXIC", "IMAGE_SAFETY"), "refused"),
        (("error", "ERROR", "tool_calls", "insufficient_system_resource", "OTHER", "whatever", 7), "unfinished"),
    ],
)
def test_every_providers_finish_reason_means_one_of_four(reasons: tuple[Any, ...], status: str) -> None:
    assert {reason: read(completion("A film.", reason))[0] for reason in reasons} == dict.fromkeys(reasons, status)


CHOICE = ("choices", 0)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (without(completion("A fi"), *CHOICE, "error", put={"code": 502}), "unfinished"),
        (without(completion("A fi"), "error", put={"message": "overloaded"}), "unfinished"),
        (without(completion("", "content_filter"), *CHOICE, "message"), "refused"),
        (without(completion(""), *CHOICE, "message"), "empty"),
        (without(completion(None), *CHOICE, "message", put="x"), "empty"),
        (without(completion(""), "choices", put=[]), "malformed"),
        (completion("").replace(b'"choices": [', b'"choices": null, "other": ['), "malformed"),
        (without(without(completion(""), "choices"), "promptFeedback", put={"blockReason": "SAFETY"}), "refused"),
        (completion("A film.")[:-30], "malformed"),
        (b'data: {"choices": [{"delta": {"content": "A film."}}]}\n\ndata: [DONE]\n\n', "malformed"),
        (completion(None, reasoning_content="The film is a comedy."), "empty"),
    ],
)
def test_what_holds_no_whole_answer_says_so(body: bytes, status: str) -> None:
    assert read(body)[0] == status and no_completion(body) is None, "and it may have been paid for"


USED = {"input_tokens": 7, "output_tokens": 30, "output_tokens_details": {"reasoning_tokens": 20}, "total_tokens": 37}
GEMINI = {"promptTokenCount": 7, "candidatesTokenCount": 10, "thoughtsTokenCount": 20, "totalTokenCount": 37}


def of_responses(text: str, **changes: Any) -> dict[str, Any]:
    parts = [{"type": "output_text", "text": text, "annotations": []}]
    output = [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
        {"type": "message", "role": "assistant", "status": "completed", "content": parts},
    ]
    whole = {"object": "response", "model": "test-model", "status": "completed", "error": None, "output": output}
    return {**whole, "incomplete_details": None, "usage": USED, **changes}


def of_gemini(text: str, reason: str = "STOP", **changes: Any) -> dict[str, Any]:
    parts = [{"text": "Hm.", "thought": True}, {"text": text}]
    candidate = {"content": {"role": "model", "parts": parts}, "finishReason": reason, "index": 0}
    return {"candidates": [candidate], "usageMetadata": GEMINI, "modelVersion": "test-model-001", **changes}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (of_responses("A film."), ("ok", "A film.")),
        (
            of_responses("A fi", status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
            ("truncated", "A fi"),
        ),
        (of_responses("", status="incomplete", incomplete_details={"reason": "content_filter"}), ("refused", "")),
        (
            of_responses("A fi", status="failed", error={"code": "server_error", "message": "No."}),
            ("unfinished", "A fi"),
        ),
        (of_responses("A fi", model="other"), ("wrong_model", "A fi")),
        (of_gemini("A film."), ("ok", "A film.")),
        (of_gemini("A fi", "MAX_TOKENS"), ("truncated", "A fi")),
        (of_gemini("", candidates=[{"finishReason": "MAX_TOKENS", "content": {"role": "model"}}]), ("empty", "")),
        (of_gemini("", "PROHIBITED_CONTENT"), ("refused", "")),
        (of_gemini("A film.", modelVersion="other-001"), ("wrong_model", "A film.")),
        ({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 7}}, ("refused", "")),
        (
            {"message": {"role": "assistant", "content": "A film.", "thinking": "Hm."}, "done_reason": "stop"},
            ("ok", "A film."),
        ),
        (
            {"message": {"content": [{"type": "text", "text": "A fi"}]}, "finish_reason": "MAX_TOKENS"},
            ("truncated", "A fi"),
        ),
    ],
)
def test_what_a_gateway_passes_on_in_its_providers_own_form_is_read(
    document: dict[str, Any], expected: tuple[str, str]
) -> None:
    body = json.dumps(document).encode()
    assert read(body) == expected and no_completion(body) is None


@pytest.mark.parametrize("document", [of_responses("A film."), of_gemini("A film.")])
def test_an_answer_in_another_form_is_knowledge_and_counts_what_it_cost(
    cache: TextCache, document: dict[str, Any]
) -> None:
    with saying(json.dumps(document).encode()) as server:
        done = ask(server, cache, 8)
        assert (done.asked, done.complete, done.prompt_tokens, done.completion_tokens) == (8, True, 56, 240)
    assert {knowledge.text for knowledge in cache.knowledge("item")} == {"A film."}


def test_a_wrong_byte_costs_its_character_and_no_answer() -> None:
    body = completion("caf\\u00e9").replace(b"\\\\u00e9", b"\xe9")
    assert read(body) == ("ok", "caf\ufffd")


@pytest.mark.parametrize(
    ("served", "asked"),
    [
        ("meta/llama", "meta/llama:nitro"), ("llama", "llama:floor"), ("gemini-1.5-pro-001", "gemini-1.5-pro"),
        ("gpt-35-turbo", "gpt-3.5-turbo"), ("gemini-2.5-pro-preview-03-25", "gemini-2.5-pro-preview"),
    ],
)  # fmt: skip
def test_variants_of_a_name_are_one_model(served: str, asked: str) -> None:
    question = Question("k", asked, [{"role": "user", "content": "?"}], {})
    assert read_answer(completion("A film.", model=served), question, None).status == "ok"


# What a job makes of them


def ask(server: ChatServer, cache: TextCache, asked: int | list[Prompt], **changes: Any) -> Progress:
    options = {name: changes.pop(name) for name in ("retry_failed", "on_note") if name in changes}
    model = LanguageModel(**{"model": "test-model", "base_url": server.base_url, "concurrency": 4, **changes})
    return generate(prompts(asked) if isinstance(asked, int) else asked, cache, model, key=KEY, **options)


def saying(body: bytes) -> ChatServer:
    return ChatServer(lambda server, request, number: (200, {}, body))


@pytest.mark.parametrize(
    "body", [completion("A fi", tokens=(7, 3))[:-30], completion("A film.", "who_knows", tokens=(7, 3))]
)
def test_what_was_paid_for_is_kept_asked_once_and_again_only_when_told(cache: TextCache, body: bytes) -> None:
    with saying(body) as server:
        done = ask(server, cache, 3)
        assert (done.asked, done.failed, done.complete, server.answered) == (3, 0, False, 3)
        assert {answer.raw for answer in cache.answers()} == {body} and not list(cache.knowledge("item"))
        again = ask(server, cache, 3)
        assert (again.cached, again.complete, server.answered) == (3, False, 3)
        server.behaviour = echo
        assert ask(server, cache, 3, retry_failed=True).complete and len(list(cache.knowledge("item"))) == 3


def test_a_page_or_an_error_with_status_200_is_kept_says_its_words_and_is_asked_again(cache: TextCache) -> None:
    page = b"<!DOCTYPE html><html><head><title>Open&nbsp;WebUI</title></head></html>"
    with saying(page) as server:
        with pytest.raises(GenerationError, match=r"200 with a web page: Open WebUI.*Check --base-url.*/v1"):
            ask(server, cache, 1000)
        assert len(server.requests) <= 8 and cache.failures() == []
        assert page in {answer.raw for answer in cache.answers()}, "also what is none"
        server.behaviour = echo
        assert ask(server, cache, 3).asked == 3 and len(list(cache.knowledge("item"))) == 3


def test_a_server_whose_answers_cannot_be_read_is_not_paid_on(cache: TextCache) -> None:
    with saying(completion("A film.", "who_knows")) as server:
        with pytest.raises(GenerationError, match=r"gave 5 answers in a row.*'who_knows'"):
            ask(server, cache, 1000, concurrency=64)
        assert server.answered <= 16 and cache.counts()["unfinished"] == server.answered, "of 1,000"


def test_each_kind_is_told_by_name_once_with_the_setting_that_mends_it_and_counted(cache: TextCache) -> None:
    bodies = [completion(None, "length", reasoning_content="Well"), completion("A fi", "length"), completion("A film.")]
    long = [Prompt("item", i, ({"role": "user", "content": f"film {i} " * 300},), "v1") for i in range(6)]
    notes: list[str] = []
    with ChatServer(lambda server, request, number: (200, {}, bodies[number % 3])) as server:
        done = ask(server, cache, long, on_note=notes.append)
    for words in ("reasoning used up max_tokens = 512", "cut off by max_tokens = 512", "num_ctx"):
        assert sum(words in note for note in notes) == 1 and words in str(done)
    assert done.no_knowledge == {"empty": 2, "truncated": 2} and "no knowledge: 2 empty, 2 truncated" in str(done)
    flags = [flag.kind for flag in verify(cache)]
    assert flags.count("cut_prompt") == 6 and flags.count("empty") == flags.count("truncated") == 2


# Read again


def store(cache: TextCache, body: bytes, status: Status, schema: Any = None) -> Prompt:
    """An answer as another version, or other settings, have judged it."""
    (prompt,) = (Prompt("item", 0, ({"role": "user", "content": "?"},), "v1", schema=schema),)
    question = Question.of(LanguageModel("test-model"), prompt)
    link: Link = question.links[0]
    answer = Answer(question.key, status, "", "test-model", question.messages, 7, 3, cost=0.5, raw=body)
    cache.put(answer, [] if status == Status.INVALID else [link])
    return prompt


@pytest.mark.parametrize(
    ("body", "before", "schema", "after"),
    [
        (completion([{"text": "A film."}]), Status.MALFORMED, None, "A film."),
        (completion("<think>{</think>" + GOOD), Status.INVALID, SCHEMA, GOOD),
        (completion("A film.", "end_turn"), Status.UNFINISHED, None, "A film."),
        (completion("A film.", model="other"), Status.WRONG_MODEL, None, "A film."),
    ],
)
def test_stored_answers_are_judged_again_by_every_run_at_no_cost(
    cache: TextCache, body: bytes, before: Status, schema: Any, after: str
) -> None:
    prompt = store(cache, body, before, schema)
    served = "other" if before == Status.WRONG_MODEL else None
    with ChatServer() as server:
        done = ask(server, cache, [prompt], served_model=served)
        assert (done.cached, done.judged, done.complete, server.requests) == (1, 1, True, [])
        assert [knowledge.text for knowledge in cache.knowledge("item")] == [after] and cache.spent() == 0.5
        assert ask(server, cache, [prompt], served_model=served).judged == 0


def test_what_a_person_took_out_of_the_knowledge_stays_out(cache: TextCache) -> None:
    prompt = store(cache, completion("A film."), Status.REFUSED)
    with ChatServer() as server:
        done = ask(server, cache, [prompt])
    assert (done.cached, done.judged) == (1, 0) and not list(cache.knowledge("item"))
