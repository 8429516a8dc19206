"""`kar-aug prompts`, and recipes from asking to comparing, as a user meets them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.commands import kar_aug, refused

from kar_aug.cache import TextCache, VectorStore
from kar_aug.config import Config
from kar_aug.pipeline.workspace import Workspace
from kar_aug.prompts import scenario_text
from kar_aug.testing import ChatServer


def test_prompts_are_shown_with_their_tokens_by_any_recipe(folder: Path) -> None:
    done = kar_aug(folder, "prompts", "--user", "42", "--recipe", "three-step")
    assert "Step 3: Which ten other movies" in done.stdout and "[system]" in done.stdout
    assert "user:three-step 42 (version " in done.stderr and " tokens)" in done.stderr
    both = kar_aug(folder, "prompts", "--no-factors")
    assert "Describe this movie." in both.stdout and "Describe the user's preferences." in both.stdout
    tags = kar_aug(folder, "prompts", "--recipe", "tags")
    assert "Give ten tags" in tags.stdout and "Gender" not in tags.stdout, "a recipe of items asks about no user"
    (folder / "mine.toml").write_text('name = "mine"\n[item]\nsystem = "S"\nprompt = "{{ data }} What?"\n')
    assert "</data> What?" in kar_aug(folder, "prompts", "--item", "3", "--recipe", "mine.toml").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--user", "42", "--recipe", "tags"], "The recipe 'tags' asks about items only"),
        (["--recipe", "tagz"], "There is no recipe 'tagz'"),
        (["--stats", "--user", "1"], "--stats is about all prompts"),
        (["--item", "3", "--diff", "bookz"], "There is no scenario 'bookz'"),
        (["--recipe", "tags", "--no-factors"], "exclude each other"),
    ],
)
def test_wrong_wishes_are_one_line(folder: Path, arguments: list[str], message: str) -> None:
    assert message in refused(kar_aug(folder, "prompts", *arguments))


def test_the_tokens_of_all_prompts_are_counted_and_what_was_shortened(folder: Path) -> None:
    done = kar_aug(folder, "prompts", "--stats", "--recipe", "tags")
    assert "item:tags" in done.stdout and " 40 " in done.stdout and "nothing was shortened" in done.stderr
    text = (
        scenario_text("movies")
        .replace("tokens = 100000", "tokens = 260")
        .replace("characters = 2000", "characters = 12")
    )
    (folder / "small.toml").write_text(text)
    with (folder / "kar.toml").open("a") as file:
        file.write('[prompts]\nscenario = "small.toml"\nmax_users = 7\n')
    done = kar_aug(folder, "prompts", "--stats")
    assert re.search(r"user +7 ", done.stdout) and re.search(r"user +history +7", done.stdout), done.stdout
    assert re.search(r"item +title +40", done.stdout)


def test_two_versions_of_a_prompt_are_laid_side_by_side(folder: Path, chat_server: ChatServer) -> None:
    (folder / "movies.toml").write_text(scenario_text("movies").replace("Describe this movie by", "Describe it by"))
    done = kar_aug(folder, "prompts", "--item", "3", "--diff", "movies.toml")
    removed, added = (re.search(rf"^\{sign} Describe .*", done.stdout, re.MULTILINE) for sign in "-+")
    assert removed and "Describe it by" in removed[0] and added and "Describe this movie by" in added[0]
    assert "Title" not in done.stdout and re.search(
        r"version \w{12} -> \w{12}, \d+ -> \d+ tokens \(\+\d+\)", done.stderr
    )
    assert "Nothing was asked about item 3" in refused(kar_aug(folder, "prompts", "--item", "3", "--diff", "asked"))
    kar_aug(folder, "generate", "--base-url", chat_server.base_url, "--only", "item")
    same = kar_aug(folder, "prompts", "--item", "3", "--diff", "asked")
    assert "the model sees the same" in same.stderr and same.stdout.strip() == ""


def test_recipes_are_asked_and_encoded_side_by_side(folder: Path, chat_server: ChatServer) -> None:
    for recipe in ("kar", "tags"):
        done = kar_aug(folder, "generate", "--base-url", chat_server.base_url, "--item-recipe", recipe)
        assert done.returncode == 0, done.stderr
    assert chat_server.answered == 60 + 40 + 40, "users are asked once, items by each recipe"
    with TextCache(folder / ".kar/answers.sqlite") as cache:
        assert cache.count_linked("item") == cache.count_linked("item:tags") == 40 and cache.count_superseded() == 0
    assert "Give ten tags" in kar_aug(folder, "inspect", "--item", "3", "--item-recipe", "tags").stdout
    assert kar_aug(folder, "encode", "--item-recipe", "tags").returncode == 0
    assert len(VectorStore.open(folder / ".kar/vectors/item-tags")) == 40
    assert not (folder / ".kar/vectors/item").exists()
    assert "kar-aug encode" in refused(kar_aug(folder, "compare")), "there is no vector by the scenario's own question"
    chosen = Workspace(Config.load(folder / "kar.toml", {"prompts": {"item_recipe": "tags"}}))
    assert {name: store.path.name for name, store in chosen.paths.stores().items()} == {
        "user_id": "user",
        "item_id": "item-tags",
    }
