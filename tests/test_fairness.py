"""Attributes left out of prompts, and what they change where they are shown."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from test_forget import ENCODER

from kar_aug import ConfigError, Project
from kar_aug.audit.similarity import cosine, jaccard, serp, snsr, snsv, words
from kar_aug.cache import TextCache
from kar_aug.cli import main
from kar_aug.pipeline.fairness import Fairness
from kar_aug.testing import ChatServer, completion


def biased(server: ChatServer, request: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
    """Of women it says something else; what is asked neutrally and of men is answered alike."""
    asked = request["messages"][-1]["content"]
    return 200, {}, completion("likes romance and tears" if "Gender: F" in asked else "likes war and drama films")


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(biased) as server:
        yield server


@pytest.fixture
def folder(own_tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    project = Path(shutil.copytree(own_tables, tmp_path / "project"))
    users = pd.read_csv(project / "users.csv")
    users.assign(shoe_size=40 + users["user_id"] % 4).to_csv(project / "users.csv", index=False)
    (project / "hashed.py").write_text(ENCODER)
    settings = (project / "kar.toml").read_text()
    (project / "kar.toml").write_text(settings + '[encode]\nencoder = "hashed:load"\n')
    monkeypatch.chdir(project)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    return project


def project(server: ChatServer | None = None, **prompts: Any) -> Project:
    generate = {"base_url": server.base_url} if server else {}
    return Project.open("kar.toml", generate=generate, prompts=prompts)


def test_an_attribute_that_is_left_out_is_in_no_prompt(folder: Path) -> None:
    ordinary, without = project().prompts("user"), project(leave_out=["gender"]).prompts("user")
    shown = {p.entity_id: p for p in ordinary}
    for prompt in without:
        before = shown[prompt.entity_id]
        assert "Gender: " in before.text and "Gender" not in prompt.text
        assert prompt.version != before.version
    assert len(list(without)) == len(shown)
    assert "Genres" not in project(leave_out=["genres"]).prompts("item").of().text
    for wrong, why in (("shoes", "shows no"), ("title", "asks about nothing without")):
        with pytest.raises(ConfigError, match=why):
            project(leave_out=[wrong]).prompts("item").of()


def test_what_an_attribute_changes_is_measured_and_reported(folder: Path, server: ChatServer) -> None:
    opened = project(server)
    planned = CliRunner().invoke(main, ["audit", "--attributes", "gender,shoe_size", "--users", "6", "--dry-run"])
    assert planned.exit_code == 0 and "gender: 6 prompts show it" in planned.output, planned.output
    assert "18 to ask of 18" in planned.output and server.answered == 0, "6 users, neutral, F and M"

    done = opened.audit_fairness(["gender", "shoe_size"], users=6)
    assert server.answered == 18 and done.shown == {"gender": 6, "shoe_size": 0}
    found = done.frame.set_index("value")
    assert found.loc["M", ["jaccard", "serp"]].tolist() == [1, 1] and found.loc["M", "cosine"] == pytest.approx(1)
    # likes, romance, and, tears beside likes, war, and, drama, films
    assert found.loc["F", "jaccard"] == pytest.approx(2 / 7) and found.loc["F", "serp"] == pytest.approx((4 + 2) / 10)
    assert found.loc["F", "cosine"] < 0.9
    gap = done.gaps.set_index("measure").loc["jaccard"]
    assert gap["snsr"] == pytest.approx(5 / 7) and gap["snsv"] == pytest.approx(5 / 14) and gap["moved_most"] == "F"
    assert any(sentence == "shoe_size: no prompt shows it" for sentence in done.sentences)
    assert Fairness.read(folder / ".kar") == done, "for the report"

    opened.audit_fairness(["gender"], users=6)
    assert server.answered == 18, "nothing is asked twice"
    assert opened.cost().rows[0].knowledge == "audit"
    with TextCache(folder / ".kar" / "answers.sqlite") as cache:
        (asked, *_), *_ = cache.links_of([answer.key for answer in cache.answers()]).values()
    gone = opened.forget(users=[str(asked.entity_id).split()[0]])
    assert gone.counts["answers"] == 3 and not (folder / ".kar" / "fairness.json").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("step_by_step")
def test_a_trained_model_says_what_its_predictions_do(folder: Path, server: ChatServer) -> None:
    opened = project(server)
    opened.generate("user")
    opened.encode()
    assert opened.audit_fairness(["gender"], users=4).arm == "", "nothing is trained yet"
    fast = {"knowledge": ["user"], "epochs": 1}
    trained = Project.open("kar.toml", compare=fast, generate={"base_url": server.base_url})
    trained.compare()
    done = trained.audit_fairness(["gender"], users=4)
    assert "DeepFM" in done.arm
    shifts = done.frame.set_index("value")["shift"]
    assert shifts["M"] == pytest.approx(0, abs=1e-6), "the same text, the same vector"
    assert abs(shifts["F"]) > 1e-6
    gap = done.gaps.set_index("measure").loc["predictions"]
    assert gap["snsr"] == pytest.approx(abs(shifts["F"] - shifts["M"])) and gap["moved_most"] == "F"
    report = trained.compare().write(folder / "report.html").read_text()
    assert "Fairness audit" in report and "4 of 4 prompts show it" in report


def test_an_attribute_that_no_prompt_shows_is_said_to_be_so(folder: Path) -> None:
    shown = CliRunner().invoke(main, ["audit", "--attributes", "shoe_size", "--users", "2"])
    assert shown.exit_code == 0 and shown.output.split() == ["shoe_size:", "no", "prompt", "shows", "it"], shown.output


def test_attributes_that_nobody_has_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="no attribute 'creed'"):
        project().audit_fairness(["creed"])
    done = CliRunner().invoke(main, ["audit", "--attributes", " , "])
    assert done.exit_code == 2 and "of which attributes" in done.output


def test_the_measures_by_hand() -> None:
    assert words("A war, a WAR film.") == ["a", "war", "film"]
    assert jaccard([], []) == serp([], []) == 1 and serp(["a"], []) == 0
    assert serp(["a", "b", "c"], ["c", "a"]) == pytest.approx((3 + 1) / 6)
    assert (
        cosine(np.array([1.0, 0]), np.array([1.0, 1])) == pytest.approx(0.5**0.5)
        and cosine(np.zeros(2), np.ones(2)) == 0
    )
    assert snsr({"F": 0.2, "M": 0.6}) == pytest.approx(0.4) and snsv({"F": 0.2, "M": 0.6}) == pytest.approx(0.2)
