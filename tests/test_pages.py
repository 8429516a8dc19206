"""Pages lead where they say: links, headings, commands and options, settings and messages that they quote are there.

Python on them runs in `test_docs`; that the site builds without a warning is `make docs`.
"""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import click
import pytest

import kar_aug
from kar_aug import errors
from kar_aug.cli import main

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/results/*.md")
    for path in ROOT.glob(pattern)
    if path.name != "recipes-answers.md"  # what a model said
)
CARDS = ROOT / "docs" / "benchmarks.md"
PUBLIC = (
    "backbones",
    "cache",
    "codes",
    "data",
    "datasets",
    "encode",
    "generate",
    "layers",
    "models",
    "online",
    "prompts",
    "testing",
)


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def prose(path: Path) -> str:
    """A page without its code."""
    return re.sub(r"^```.*?^```$|`[^`\n]*`", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def fenced(path: Path, *languages: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [block for language, block in found if language in languages]


def anchors(path: Path) -> set[str]:
    """The ids of a page's headings, as MkDocs and GitHub make them."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.replace("`", "")).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_to_files_and_headings_that_are_there(page: Path) -> None:
    for target in re.findall(r"\]\((?!\w+:)([^)\s]+)\)", prose(page)):
        place, _, heading = target.partition("#")
        there = (page.parent / place).resolve() if place else page
        assert there.exists() and there.is_relative_to(ROOT), target
        assert not heading or heading in anchors(there), target


def test_the_site_shows_every_page_of_docs_and_every_card() -> None:
    shown = set(re.findall(r": ([\w/.-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")} < shown
    cards = {named(path) for path in (ROOT / "benchmarks/results").glob("*.md")}
    assert cards < shown and cards == set(re.findall(r"\.\./(benchmarks/results/[\w-]+\.md)\)", CARDS.read_text()))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_and_their_options_exist(page: Path) -> None:
    lines = [line for block in fenced(page, "", "bash") for line in block.splitlines()]
    for words in (line.partition("#")[0].split() for line in lines if re.match(r"(\w+=\S+ )?kar-aug ", line)):
        given = iter(words[words.index("kar-aug") + 1 :])
        command: click.Command = main
        for word in given:
            known = {option: each for each in command.params for option in (*each.opts, *each.secondary_opts)}
            if word.startswith("-"):
                option = known[word.partition("=")[0]]
                if "=" not in word and isinstance(option, click.Option) and not option.is_flag:
                    next(given)
            elif isinstance(command, click.Group) and word != "|":
                command = command.commands[word]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_toml_is_toml(page: Path) -> None:
    for block in fenced(page, "toml"):
        tomllib.loads(block)


def test_every_error_has_a_line_and_every_message_that_is_quoted_is_one() -> None:
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    kinds = [
        name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.KarError)
    ]
    assert all(f"| `{name}` | " in page for name in kinds if name != "KarError")
    folders = ("kar_aug", "backbones", "prompts", "cache")
    code = "".join(path.read_text(encoding="utf-8") for name in folders for path in (ROOT / name).rglob("*.py"))
    code = re.sub(r"([\"'])\n\s*f?[\"']", "", code)  # a message over several lines
    quoted = re.findall(r'\*\*"(.*?)"\*\*', page)
    assert len(quoted) > 20
    for message in quoted:
        assert all(part.strip() in code for part in message.split("…")), message


def test_every_public_name_has_a_place_in_the_reference() -> None:
    shown = re.findall(r"^::: (\S+)$", "".join(p.read_text() for p in (ROOT / "docs/api").glob("*.md")), re.MULTILINE)
    known = {name.rpartition(".")[2] for name in shown} | {"__version__"}
    assert set(kar_aug.__all__) <= known
    for package in PUBLIC:
        assert public(package) <= known, package


def public(package: str) -> set[str]:
    """What a package's `__all__` says; read and not imported, as some import TensorFlow."""
    folder = ROOT / package if (ROOT / package).exists() else ROOT / "kar_aug" / package
    for node in ast.parse((folder / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    raise AssertionError(f"{package} has no __all__")
