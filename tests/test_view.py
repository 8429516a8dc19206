"""The page of all answers: one file, searched in a real browser where there is one."""

from __future__ import annotations

import html
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest

from kar_aug import Project
from kar_aug.cache import Answer, Link, StoreSpec, TextCache, VectorStore, answer_key

HOSTILE = "</script><img src=x onerror=\"document.title='taken'\"><b>bold</b> \u202e"


@pytest.fixture
def project(own_tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Answers about 3,000 items, one that is hostile, and one that failed; vectors of three."""
    monkeypatch.chdir(shutil.copytree(own_tables, tmp_path / "project"))
    with TextCache(".kar/answers.sqlite") as cache:
        answers = []
        for item in range(3000):
            messages = [{"role": "user", "content": f"Tell me of {item}. {HOSTILE if item == 5 else ''}"}]
            key = answer_key("m", messages, {})
            text = {5: HOSTILE, 6: "As an AI, I cannot say."}.get(item, f"Said of number {item}; needle{item}.")
            answers.append(
                (Answer(key, "ok", text, "m", messages, 7, 3, cost=0.25, parameters={}), [Link("item", item, key, "v")])
            )
        cache.put_many(answers)
        cache.fail("f", "the server said <no>", 3, link=Link("user", 3, "f", "v"))
    with VectorStore.writer(".kar/vectors/item", StoreSpec("e", 2)) as writer:
        writer.append([4, 5, 6], ["a", "b", "c"], np.array([[1.0, 0.1], [1.0, 0.0], [0.0, 1.0]]))
    return Project.open("kar.toml")


def browsed(browser: Any, page: Path, width: int = 1280, **state: str) -> str:
    """What a browser makes of the page, at an address that says what is shown."""
    shown, said = browser.new_page(viewport={"width": width, "height": 844}), []
    shown.on("console", lambda message: said.append(message.text))
    shown.on("pageerror", lambda error: said.append(str(error)))
    shown.goto(f"{page.as_uri()}#{urlencode(state)}")
    shown.wait_for_selector('body[data-ready="1"]')
    dom = str(shown.content())
    shown.close()
    assert said == []
    return dom


def part(dom: str, name: str) -> str:
    """The text of a part of the page."""
    found = re.search(rf'id="{name}".*?</(?:section|span)>', dom, re.DOTALL)
    assert found is not None
    return html.unescape(re.sub("<[^>]*>", " ", found.group()))


def test_the_page_is_one_file_whose_data_are_packed(project: Project, tmp_path: Path) -> None:
    done = project.view(tmp_path / "answers.html")
    text = done.path.read_text()
    assert (done.rows, done.answers) == (3001, 3000)
    assert "needle17" not in text and "onerror" not in text and "default-src 'none'" in text
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    project.forget(items=["5"])
    assert not done.path.exists(), "it held the item's prompt"


def test_a_browser_shows_few_rows_and_finds_words_in_all_texts(browser: Any, project: Project, tmp_path: Path) -> None:
    page = project.view(tmp_path / "answers.html").path
    dom = browsed(browser, page)
    assert "3,001 of 3,001" in dom and len(re.findall('class="row"', dom)) < 60, "only those that are seen"
    dom = browsed(browser, page, words="needle1234", texts="1", open="item 1234")
    assert "1 of 3,001" in dom and "Said of number 1234; needle1234." in part(dom, "entry")
    assert "0.250000" in part(dom, "entry")
    dom = browsed(browser, page, 390, flag="refusal", open="item 6")
    assert "1 of 3,001" in dom and "As an AI" in part(dom, "entry")


def test_words_that_no_title_has_are_looked_for_in_answers_only_if_that_is_asked_for(
    browser: Any, project: Project, tmp_path: Path
) -> None:
    page = project.view(tmp_path / "answers.html").path
    assert "0 of 3,001: look also in prompts and answers" in browsed(browser, page, words="needle1234")
    assert "look also in" not in part(browsed(browser, page, words="nowheretobefound", texts="1"), "said")


def test_hostile_text_is_text(browser: Any, project: Project, tmp_path: Path) -> None:
    page = project.view(tmp_path / "answers.html").path
    dom = browsed(browser, page, open="item 5")
    assert "<b>" not in dom and "taken" not in re.findall("<title>(.*?)</title>", dom)[0]
    entry = part(dom, "entry")
    assert HOSTILE.replace("\u202e", "\\u202e") in entry, "to be read as it was written"
    assert "Movie 4 (1954) (" in entry, "the nearest by the vectors"
    failed = browsed(browser, page, status="failed", open="user 3")
    assert "the server said <no>" in part(failed, "entry")
