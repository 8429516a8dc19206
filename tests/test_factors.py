"""Factors: a language model proposes, merged and ranked; an expert decides; the scenario says who decided what."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from kar_aug.cli import main
from kar_aug.errors import PromptError
from kar_aug.generate.factors import Proposal, merge, with_factors
from kar_aug.prompts import Scenario, scenario_names, scenario_text
from kar_aug.testing import ChatServer, completion

SAID = [["Genre", "the directors", "mood"], ["director", "genre", "Soundtrack."], ["genre", "mood", "cast"]]


def says(_: ChatServer, request: dict[str, Any], number: int) -> Any:
    return 200, {}, completion(json.dumps({"factors": SAID[request["seed"] % 3]}), model=request["model"])


def test_spellings_are_one_factor_ranked_by_samples_then_by_place() -> None:
    assert merge(SAID) == [
        Proposal("genre", 3, 4 / 3),
        Proposal("the directors", 2, 1.5),
        Proposal("mood", 2, 2.5),
        Proposal("cast", 1, 3),
        Proposal("soundtrack", 1, 3),
    ]
    assert merge([["", "x" * 99, "class", "gas"], ["类型", "👻"]]) == [
        Proposal("类型", 1, 1), Proposal("class", 1, 1), Proposal("gas", 1, 2)
    ] or [p.factor for p in merge([["class", "gas"]])] == ["class", "gas"]  # fmt: skip


@pytest.mark.parametrize("name", scenario_names())
def test_the_factors_of_every_scenario_can_be_replaced_and_nothing_else_is(name: str) -> None:
    text = scenario_text(name)
    changed = with_factors(
        text, ['a "quoted" one', "类型"], [Proposal("类型", 2, 1.0)], by="Ann", model="m", samples=2, day="2026-01-31"
    )
    before, after = tomllib.loads(text), tomllib.loads(changed)
    (record,) = after.pop("decisions")
    assert after | {"factors": before["factors"]} == before and after["factors"] == ['a "quoted" one', "类型"]
    assert (record["decided_by"], record["proposed_by"], record["votes"]) == ("Ann", "m", {"类型": 2})
    assert (record["kept"], record["added"], record["left_out"]) == (["类型"], ['a "quoted" one'], [])


def test_comments_line_ends_and_all_else_of_a_file_stay_byte_for_byte() -> None:
    before = '\ufeff# mine\r\n"factors" = '
    after = (
        '   # tail\r\nlanguage = "English"  \r\n\r\n[user]\r\nprompt = """\r\nfactors = ["of a template"]\r\n"""\r\n'
        "  # the end\r\n"
    )
    content = before + '[\r\n  "genre", # ]\r\n  """it\'s""",\r\n]' + after
    changed = with_factors(content, ["mood"], [], by="Ann", model="m", samples=1, day="2026-01-31")
    assert changed.startswith(before + '[\r\n    "mood",\r\n]' + after + "\r\n[[decisions]]")
    assert changed.count("\n") == changed.count("\r\n")


@pytest.mark.parametrize(
    "decisions", ['[[decisions]]\nday = "1"\n[user]\n[[decisions]]\nday = "2"\n', 'decisions = "mine"']
)
def test_a_file_that_would_be_put_in_another_order_is_left_alone(decisions: str) -> None:
    content = f'factors = ["a"]\n{decisions}'
    with pytest.raises(PromptError, match="by hand"):
        with_factors(content, ["b"], [], by="Ann", model="m", samples=1, day="2026-01-31")


def run(folder: Path, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    done = CliRunner().invoke(main, ["factors", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_an_expert_decides_and_the_scenario_says_who(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    editor = folder / "editor.sh"
    editor.write_text('#!/bin/sh\nsed -i -e "/^mood/d" -e "\\$a pacing" "$1"\n')
    editor.chmod(0o755)
    monkeypatch.setenv("EDITOR", str(editor))
    monkeypatch.setenv("VISUAL", str(editor))
    with ChatServer(says) as server:
        options = ("--scenario", "books", "--samples", "3", "--top", "3", "--base-url", server.base_url)
        run(folder, *options, "--edit", "--by", "Ann", monkeypatch=monkeypatch)
        assert sorted(r["seed"] for r in server.requests) == [0, 1, 2] and len(server.requests) == 3
        own = Scenario.load(folder / "books.toml")
        assert own.factors == ("genre", "the directors", "pacing")
        (record,) = tomllib.loads((folder / "books.toml").read_text())["decisions"]
        assert record["decided_by"] == "Ann" and record["added"] == ["pacing"]
        assert record["left_out"] == ["mood", "cast", "soundtrack"]
        (folder / "books.toml").write_bytes((folder / "books.toml").read_bytes().replace(b"\n", b"\r\n"))
        options = ("--scenario", "books.toml", *options[2:])
        run(folder, *options, "--no-edit", "--by", "nobody", monkeypatch=monkeypatch)
        assert len(server.requests) == 3, "samples are kept like every answer"
    again = Scenario.load(folder / "books.toml")
    assert again.factors == ("genre", "the directors", "mood")
    assert len(tomllib.loads((folder / "books.toml").read_text())["decisions"]) == 2
    assert b"\n" not in (folder / "books.toml").read_bytes().replace(b"\r\n", b""), "lines end as they did"
