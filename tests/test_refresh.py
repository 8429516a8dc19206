"""What changes is asked, and only that; what it replaces stays until it is pruned."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from support.jobs import KEY

from kar_aug.cache import TextCache
from kar_aug.config import LanguageModel
from kar_aug.data import Tables, split_interactions
from kar_aug.errors import GenerationError
from kar_aug.generate import Progress, estimate, generate
from kar_aug.prompts import Prompt, Scenario, item_prompts, user_prompts
from kar_aug.testing import ChatServer, completion, echo

DAY = 86_400
ITEMS = pd.DataFrame({"item_id": range(6), "title": [f"Movie {i}" for i in range(6)], "genres": "Drama", "year": 1996})
USERS = pd.DataFrame({"user_id": range(3), "gender": "F", "age": [20, 30, 40]})
EVENTS = pd.DataFrame(
    [(user, item, DAY * (10 * user + item), 4) for user in range(3) for item in range(4)],
    columns=pd.Index(["user_id", "item_id", "timestamp", "rating"]),
)


def everything(events: pd.DataFrame = EVENTS, items: pd.DataFrame = ITEMS, users: pd.DataFrame = USERS) -> list[Prompt]:
    tables = Tables(events, items, users)
    split = split_interactions(events, history=3)
    scenario = Scenario.load("movies")
    return [*user_prompts(scenario, tables, split), *item_prompts(scenario, tables, split)]


@pytest.fixture
def cache(where: Path | str) -> Iterator[TextCache]:
    with TextCache(where) as cache:
        yield cache


def ask(server: ChatServer, cache: TextCache, asked: list[Prompt]) -> Progress:
    return generate(asked, cache, LanguageModel("test-model", server.base_url), key=KEY)


def found(progress: Progress) -> tuple[int, int, int, int]:
    return progress.new, progress.changed, progress.unchanged, progress.gone


def test_only_the_item_whose_text_changed_is_asked(chat_server: ChatServer, cache: TextCache) -> None:
    assert found(ask(chat_server, cache, everything())) == (9, 0, 0, 0)
    changed = ITEMS.assign(genres=["Comedy", *ITEMS["genres"][1:]])
    done = ask(chat_server, cache, everything(items=changed))
    assert found(done) == (0, 1, 8, 0) and (done.asked, done.cached) == (1, 8)
    assert "Comedy" in chat_server.requests[-1]["messages"][-1]["content"] and chat_server.answered == 10
    texts = {k.entity_id: k.text for k in cache.knowledge("item")}
    assert "Comedy" in texts[0] and len(texts) == 6
    assert found(ask(chat_server, cache, everything())) == (0, 1, 8, 0) and chat_server.answered == 10, "back for free"


def test_only_the_user_whose_history_grew_is_asked_and_its_time_moves(
    chat_server: ChatServer, cache: TextCache
) -> None:
    def users(events: pd.DataFrame) -> list[Prompt]:
        history = events.assign(part="history", label=1)
        return list(user_prompts(Scenario.load("movies"), Tables(events, ITEMS, USERS), history))

    ask(chat_server, cache, users(EVENTS[EVENTS["item_id"] < 3]))
    before = {k.entity_id: k.as_of for k in cache.knowledge("user")}
    done = ask(chat_server, cache, users(EVENTS[(EVENTS["item_id"] < 3) | (EVENTS["user_id"] == 1)]))
    assert found(done) == (0, 1, 2, 0) and done.asked == 1
    after = {k.entity_id: k.as_of for k in cache.knowledge("user")}
    assert after[1] == "1970-01-14T00:00:00" != before[1] and {**after, 1: before[1]} == before


def test_entities_without_a_prompt_any_more_are_gone_and_keep_their_answers(
    chat_server: ChatServer, cache: TextCache
) -> None:
    ask(chat_server, cache, everything())
    fewer = everything(items=ITEMS[ITEMS["item_id"] < 4])
    model = LanguageModel("test-model", chat_server.base_url)
    assert found(estimate(fewer, cache, model).found) == (0, 0, 7, 2)
    assert found(ask(chat_server, cache, fewer)) == (0, 0, 7, 2)
    assert len(list(cache.knowledge("item"))) == 6 and cache.prune() == 0
    only_users = [prompt for prompt in fewer if prompt.knowledge == "user"]
    assert found(ask(chat_server, cache, only_users)) == (0, 0, 3, 0), "items were not looked at: they are not gone"


def test_another_model_is_a_change_of_all(chat_server: ChatServer, cache: TextCache) -> None:
    ask(chat_server, cache, everything())
    done = generate(everything(), cache, LanguageModel("other", chat_server.base_url), key=KEY)
    assert found(done) == (0, 9, 0, 0) and {k.model for k in cache.knowledge("item")} == {"other"}
    assert cache.count_superseded() == 9 == cache.prune() and cache.counts()["ok"] == 9


def test_an_entity_keeps_its_old_answer_until_the_new_one_is_there(cache: TextCache) -> None:
    changed = everything(items=ITEMS.assign(genres="Comedy"))
    with ChatServer() as server:
        ask(server, cache, everything())
        server.behaviour = lambda server, request, number: (401, {}, b"{}")
        with pytest.raises(GenerationError):
            ask(server, cache, changed)
        assert all("Drama" in k.text for k in cache.knowledge("item")) and cache.prune() == 0
        server.behaviour = lambda server, request, number: (
            (400, {}, b"{}") if "Movie 2" in request["messages"][-1]["content"] else echo(server, request, number)
        )
        assert ask(server, cache, changed).asked == 5
        texts = {k.entity_id: k.text for k in cache.knowledge("item")}
        assert "Drama" in texts[2] and sum("Comedy" in text for text in texts.values()) == 5
        assert cache.prune() == 5, "the old answers of those that have new ones"
        assert "Drama" in {k.entity_id: k.text for k in cache.knowledge("item")}[2]


def test_every_row_of_knowledge_says_where_it_comes_from(chat_server: ChatServer, cache: TextCache) -> None:
    ask(chat_server, cache, everything())
    versions = Scenario.load("movies").versions
    for source in ("user", "item"):
        for knowledge in cache.knowledge(source):
            assert (knowledge.prompt_version, knowledge.model) == (versions[source], "test-model")
            assert knowledge.created.startswith("20") and (knowledge.as_of is None) == (source == "item")


def test_pruning_never_takes_what_is_in_use(cache: TextCache) -> None:
    with ChatServer(lambda server, request, number: (200, {}, completion("The same for all."))) as server:
        ask(server, cache, everything())
    assert cache.prune() == 0 and len(list(cache.knowledge("item"))) == 6
