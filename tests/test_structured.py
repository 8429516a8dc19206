"""Answers as JSON: asked for by a schema, checked, asked for once more, and never paid for twice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from kar_aug.cache import TextCache
from kar_aug.cli import main
from kar_aug.config import Config, LanguageModel
from kar_aug.errors import DataError, PromptError
from kar_aug.generate import estimate, export_jsonl, generate, generate_batches, import_jsonl, question_key
from kar_aug.generate.intake import TWICE
from kar_aug.generate.questions import Question
from kar_aug.generate.structured import parameters_of
from kar_aug.pipeline.workspace import Workspace
from kar_aug.prompts import Prompt, Recipe
from kar_aug.prompts.schema import answer_fault, read_json
from kar_aug.testing import ChatServer, completion
from kar_aug.testing.batches import BatchServer, Line, Outcome, answered

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["country", "themes"],
    "properties": {"country": {"type": "string"}, "themes": {"type": "array", "items": {"type": "string"}}},
}
GOOD = '{"country": "Japan", "themes": ["childhood", "ghosts"]}'
BAD = '{"country": 7, "themes": []}'


def asked(count: int) -> list[Prompt]:
    return [Prompt("item:a", i, ({"role": "user", "content": f"item {i}"},), "v1", schema=SCHEMA) for i in range(count)]


def model(server: ChatServer | BatchServer | None = None, **changes: Any) -> LanguageModel:
    base_url = server.base_url if server else "http://127.0.0.1:1/v1"
    return LanguageModel(**{"model": "test-model", "base_url": base_url, "concurrency": 3, **changes})


def learns(*_: Any) -> Any:
    """A server's behaviour: what fits comes at the second try only."""
    request = _[1]
    return 200, {}, completion(GOOD if len(request["messages"]) > 1 else BAD)


def texts(cache: TextCache) -> dict[int | str, str]:
    return {k.entity_id: k.text for k in cache.knowledge("item:a")}


def test_the_server_gets_the_schema_and_an_answer_that_fits_is_knowledge(cache: TextCache) -> None:
    with ChatServer(lambda *_: (200, {}, completion(f"```json\n{GOOD}\n```"))) as server:
        assert generate(asked(4), cache, model(server), key="k").asked == 4
        form = server.requests[0]["response_format"]
        assert form["type"] == "json_schema" and form["json_schema"]["schema"] == SCHEMA
        assert generate(asked(4), cache, model(server), key="k").cached == 4 and len(server.requests) == 4
    assert read_json(texts(cache)[0])["country"] == "Japan"


def test_an_answer_that_does_not_fit_is_kept_and_asked_for_once_more_with_its_fault(cache: TextCache) -> None:
    with ChatServer(learns) as server:
        done = generate(asked(5), cache, model(server), key="k")
        assert (done.asked, done.failed, done.requests, done.done) == (5, 0, 10, 5)
        assert (done.prompt_tokens, cache.counts()["prompt_tokens"]) == (70, 70), "both answers are paid for"
        again = next(r["messages"] for r in server.requests if len(r["messages"]) > 1)
        assert again[1] == {"role": "assistant", "content": BAD}
        assert "country: 7 is not of type 'string'" in again[2]["content"] and '"themes"' in again[2]["content"]
        assert texts(cache) == dict.fromkeys(range(5), GOOD)
        assert cache.prune() == 0, "the first answers are nobody's, but they save asking again"
        assert generate(asked(5), cache, model(server), key="k").cached == 5 and len(server.requests) == 10
        assert estimate(asked(5), cache, model(server)).questions == 0


def test_two_answers_that_do_not_fit_are_a_failure_with_its_reason(cache: TextCache) -> None:
    with ChatServer(lambda *_: (200, {}, completion("Japan, I think"))) as server:
        done = generate(asked(3), cache, model(server), key="k")
        assert (done.asked, done.failed, done.requests, done.reasons) == (0, 3, 6, {TWICE: 3})
        assert [f.reason for f in cache.failures()] == [TWICE] * 3 and texts(cache) == {}
        assert cache.counts()["invalid"] == 6, "what was paid for is kept"
        again = generate(asked(3), cache, model(server), key="k")
        assert (again.skipped, again.requests) == (3, 0)
        server.behaviour = lambda *_: (200, {}, completion(GOOD))
        retried = generate(asked(3), cache, model(server), key="k", retry_failed=True)
        assert (retried.asked, retried.requests, cache.failures()) == (3, 3, [])
    assert len(texts(cache)) == 3


def test_a_server_that_does_not_know_response_format_is_not_sent_it_and_answers_are_checked(cache: TextCache) -> None:
    with ChatServer(learns) as server:
        plain = model(server, omit=("response_format",))
        assert generate(asked(2), cache, plain, key="k").asked == 2
        assert all({"response_format", "answer_schema"}.isdisjoint(request) for request in server.requests)
        assert len(server.requests) == 4 and texts(cache) == dict.fromkeys(range(2), GOOD)


def test_the_schema_is_part_of_the_key_and_free_text_keeps_its_own() -> None:
    (prompt,) = asked(1)
    other = replace(prompt, schema={**SCHEMA, "title": "another"})
    free = replace(prompt, schema=None)
    keys = {question_key(m, p) for m in (model(), model(omit=("response_format",))) for p in (prompt, other, free)}
    assert len(keys) == 5, "without a schema there is nothing to omit"
    assert parameters_of(model(), free.schema) == model().parameters


def test_second_questions_that_were_paid_for_are_not_asked_again() -> None:
    """The keys of answers, pinned: whoever changes them makes every user pay twice."""
    (prompt,) = asked(1)
    keys = [Question.of(m, prompt).repaired(BAD).key for m in (model(), model(omit=("response_format",)))]
    assert keys == ["186610b8ef91d051e0cbd81ebd59c224", "369f6ca231e317d78e914f035cabefda"]


def test_equal_questions_of_several_entities_are_mended_together(cache: TextCache) -> None:
    same = [Prompt("item:a", i, ({"role": "user", "content": "same"},), "v1", schema=SCHEMA) for i in range(300)]
    with ChatServer(learns) as server:
        done = generate(same, cache, model(server), key="k")
        assert (done.requests, done.asked, done.cached, done.failed) == (2, 1, 299, 0)
    assert len(texts(cache)) == 300


def test_a_batch_asks_once_more_in_a_batch(cache: TextCache) -> None:
    def learns_too(lines: list[Line]) -> Outcome:
        return "completed", [answered(line, GOOD if len(line["body"]["messages"]) > 1 else BAD) for line in lines], []

    with BatchServer(learns_too) as server:
        notes: list[str] = []
        done = generate_batches(
            asked(4), cache, model(server), key="k", poll_seconds=0.02, on_note=notes.append
        )  # fmt: skip
        assert (done.asked, done.failed, done.elsewhere, len(server.batches)) == (4, 0, 0, 2)
        assert any("4 answers do not fit" in note for note in notes)
        assert texts(cache) == dict.fromkeys(range(4), GOOD)


def test_files_of_requests_carry_the_schema_and_the_second_question(cache: TextCache, tmp_path: Path) -> None:
    def respond(text: str) -> Path:
        (file,), _ = export_jsonl(asked(2), cache, model(), tmp_path / "ask.jsonl")
        lines = []
        for line in map(json.loads, file.read_text().splitlines()):
            assert line["body"]["response_format"]["json_schema"]["schema"] == SCHEMA
            body = json.loads(completion(text))
            lines.append({"custom_id": line["custom_id"], "response": {"status_code": 200, "body": body}})
        (tmp_path / "said.jsonl").write_text("\n".join(map(json.dumps, lines)))
        return tmp_path / "said.jsonl"

    first = import_jsonl(asked(2), [respond(BAD)], cache, model())
    assert (first.asked, first.failed) == (0, 2) and "--export-jsonl" in next(iter(first.reasons))
    assert import_jsonl(asked(2), [respond(GOOD)], cache, model()).asked == 2
    assert texts(cache) == dict.fromkeys(range(2), GOOD) and cache.failures() == []


@given(st.text(max_size=60), st.sampled_from([GOOD, BAD, "", "{" * 2000, '{"country": NaN}', "[1]"]))
def test_whatever_is_answered_it_fits_or_a_sentence_says_why_not(around: str, text: str) -> None:
    fault = answer_fault(around + text, SCHEMA)
    assert fault is None or (fault and len(fault) <= 200 and "\n" not in fault)
    if text == GOOD and "{" not in around:
        assert fault is None


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ('type = "array"', 'must be of type "object"'),
        ('type = "object"\n[item.schema.properties]\na = { type = "string" }', "additionalProperties = false"),
        (
            'type = "object"\nadditionalProperties = false\nrequired = []\n[item.schema.properties]\n'
            'a = { type = "string" }',
            "required must name every property: a",
        ),
        (
            'type = "object"\nadditionalProperties = false\nrequired = ["a"]\n[item.schema.properties]\n'
            'a = { type = "object" }',
            "'a' must be one of string",
        ),
    ],
)
def test_a_schema_that_servers_would_refuse_is_found_when_read(tmp_path: Path, schema: str, message: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(f'name = "own"\n[item]\nsystem = "S"\nprompt = "{{{{ data }}}} What?"\n[item.schema]\n{schema}\n')
    with pytest.raises(PromptError, match=r"line 5, item\.schema: ") as raised:
        Recipe.load(path)
    assert message in str(raised.value)


@pytest.mark.slow
def test_what_was_said_as_json_becomes_features_of_the_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (folder / "kar.toml").read_text()
    (folder / "kar.toml").write_text(
        text.replace(
            'item_features = ["genres"]', 'item_features = ["genres", "attributes.country", "attributes.themes"]'
        )
    )
    with pytest.raises(DataError, match="--item-recipe attributes"):
        _ = Workspace(Config.load(folder / "kar.toml")).samples

    def says(_: ChatServer, request: dict[str, Any], number: int) -> Any:
        said = {
            "creator": "X",
            "country": ("Japan ", "UNKNOWN")[number % 2],
            "language": "",
            "themes": ["A|b", "幽霊 👻", "الرسالة"],
        }
        return 200, {}, completion(json.dumps(said), model=request["model"])

    with ChatServer(says) as server:
        monkeypatch.chdir(folder)
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        what = ["--only", "item", "--item-recipe", "attributes"]
        arguments = ["generate", *what, "--base-url", server.base_url, "--concurrency", "1"]
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 0, done.output
    samples = Workspace(Config.load(folder / "kar.toml")).samples
    sizes = {f.name: (f.vocabulary_size, f.length) for f in samples.features}
    assert sizes["attributes.country"] == (3, None), "what is missing, what is unknown, and japan"
    assert sizes["attributes.themes"] == (5, 3)
    assert set(samples.read(samples.of("train"))["attributes.country"].tolist()) == {0, 2}
