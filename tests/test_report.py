"""The report: one file that needs nothing else, looked at in a real browser where there is one."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from support.workspaces import LEARNING, opened

from kar_aug._helpers.keras import IS_KERAS_3

if IS_KERAS_3:
    pytest.skip("DeepCTR works on the legacy API only", allow_module_level=True)

from kar_aug.cli.stages import print_results
from kar_aug.compare import Comparison, compare
from kar_aug.pipeline.comparing import Compared
from kar_aug.report import Example, Section, write_report, write_tables


@pytest.fixture(scope="module")
def comparison(own_tables: Path, trained: Path) -> Comparison:
    return compare(opened(own_tables, trained, **LEARNING, controls=["metadata"], seeds=2))


@pytest.fixture
def report(comparison: Comparison, tmp_path: Path) -> Path:
    path = tmp_path / "report.html"
    audit = Section("Leakage audit", "Nothing leaks.", ("check", "found"), [("ids fitted on test rows", "none <0>")])
    about = {"language model": "<m>", "cost of the knowledge": "1.50 US dollars"}
    write_report(comparison, path, knowledge=about, reproduce="kar-aug compare", title="T", sections=[audit])
    return path


def test_what_drives_a_terminal_or_turns_writing_is_escaped_in_the_example(
    comparison: Comparison, tmp_path: Path
) -> None:
    escapes = "\x1b]0;owned\x07\u202egnp.\ud83d <b>"
    example = Example(escapes, [("user", escapes), ("answer", escapes)], escapes, "e", [(escapes, "0.99")])
    write_report(comparison, tmp_path / "r.html", knowledge={}, reproduce=escapes, title=escapes, example=example)
    html = (tmp_path / "r.html").read_text()
    assert html.count("\\x1b]0;owned\\x07\\u202egnp.\\ud83d &lt;b&gt;") >= 5 and html.count("<svg") == 4
    assert not {"\x1b", "\x07", "\u202e"} & set(html)


class _References(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        named = [v for name, v in attributes if name in ("src", "href", "data", "xlink:href") and v]
        self.found += [value for value in named if not value.startswith(("#", "data:"))]


def test_the_report_is_one_file_with_all_its_parts(comparison: Comparison, report: Path) -> None:
    html = report.read_text()
    references = _References()
    references.feed(html)
    assert references.found == []
    assert (
        html.count("<svg") == 4
        and "DeepFM + metadata text" in html
        and "&lt;m&gt;" in html
        and "none &lt;0&gt;" in html
    )
    parts = ["Test AUC", "Tests", "Learning curves", "Calibration", "Which experts are used", "Data and knowledge"]
    places = [html.index(f"<h2>{part}</h2>") for part in [*parts, "Leakage audit", "How to make this again"]]
    assert places == sorted(places) and html.index("shown to beat") < places[0], "the verdict comes first"
    assert f"{comparison.estimate(comparison.arms[0]).mean:.4f}" in html and "1.50 US dollars" in html


def test_of_many_pairs_the_sentence_on_all_is_not_hidden_by_each(
    comparison: Comparison, own_tables: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    compared = Compared(opened(own_tables, trained), comparison, None, {}, dollars=None)

    def told() -> tuple[str, str, str]:
        print_results(compared, "Test AUC")
        write_tables(comparison, tmp_path)
        write_report(comparison, tmp_path / "r.html", knowledge={}, reproduce="", title="T")
        return capsys.readouterr().out, (tmp_path / "results.md").read_text(), (tmp_path / "r.html").read_text()

    pair, folded = "DeepFM + knowledge beats DeepFM + metadata text: ", "<summary>2 pairs of models, each by itself"
    terminal, results, page = told()
    assert pair in terminal and f"\n- {pair}" in results and "<details>" not in results
    assert f"<details open>{folded}" in page
    monkeypatch.setattr("kar_aug.report.FEW_PAIRS", 1)
    monkeypatch.setattr("kar_aug.report.tables.FEW_PAIRS", 1)
    terminal, results, page = told()
    assert pair not in terminal and "The report has each of 2 pairs of models by itself." in terminal
    assert "shown to beat" in terminal
    assert f"<details>{folded}" in results and f"\n- {pair}" in results and f"<details>{folded}" in page


def test_tables_for_machines_and_for_pull_requests(comparison: Comparison, tmp_path: Path) -> None:
    write_tables(comparison, tmp_path)
    csv = (tmp_path / "results.csv").read_text().splitlines()
    assert len(csv) == 1 + 3 * 2 and csv[0].startswith("arm,backbone,knowledge,adaptor,injection,beside,seed,auc")
    results, _, gain = (tmp_path / "results.md").read_text().partition("What the gain is made of: DeepFM, fields")
    table = [line for line in results.splitlines() if line.startswith("|")]
    assert (
        len(table) == 2 + 2 + 3
        and "| gradient boosting |" in table[3]
        and len({line.count("|") for line in table}) == 1
    )
    rungs = [line.split(" | ")[0] for line in gain.splitlines() if line.startswith("|")][2:]
    assert rungs == ["| the plain backbone", "| what metadata says", "| what the language model adds"]


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_a_browser_shows_it_without_errors_requests_or_sideways_scrolling(
    browser: Any, report: Path, width: int
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 844})
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    assert said == [] and [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    cut = "nodes => nodes.filter(node => node.scrollWidth > node.clientWidth).length"
    assert page.locator(".slices .wide").count() and page.locator(".slices .wide").evaluate_all(cut) == 0
    assert page.locator("svg").first.bounding_box()["width"] > 300
    page.close()
