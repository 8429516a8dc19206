"""Long histories and none: which events are shown, and what is said of users who are not asked about."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.exhaustive import examples

from kar_aug.data import Tables, split_interactions
from kar_aug.errors import ConfigError, PromptError
from kar_aug.pipeline.workspace import Workspace
from kar_aug.prompts import Scenario, user_prompts
from kar_aug.prompts.fallback import fallback_texts
from kar_aug.prompts.histories.events import Events, ago
from kar_aug.prompts.histories.select import Diverse, Informative, recent, selection

DAY = 86_400
MODES = ("recent", "informative", "diverse")
VECTORS = {item: np.eye(10)[item % 10] for item in range(10)}


def frames() -> tuple[Tables, pd.DataFrame]:
    """User 1: 8 events in the history, of items 0 .. 7; user 2: one; user 3: none; user 4 is in no table."""
    rows = [(1, item % 8, item * DAY, 1 if item == 2 else 5) for item in range(16)]
    rows += [(2, 0, 0, 5), (2, 1, DAY, 5), (3, 1, DAY, 5), (4, 1, DAY, 5)]
    events = pd.DataFrame(rows, columns=pd.Index(["user_id", "item_id", "timestamp", "rating"]))
    items = pd.DataFrame({"item_id": range(8), "title": [f"Movie {i}" for i in range(8)]})
    users = pd.DataFrame({"user_id": [1, 2, 3], "gender": ["F", "M", "F</data>"], "occupation": ["a", "b", None]})
    return Tables(events, items=items, users=users), split_interactions(events)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=examples(40), deadline=None)
@given(history=st.lists(st.tuples(st.integers(0, 14), st.integers(1, 5)), max_size=30), count=st.integers(1, 12))
def test_any_selection_shows_distinct_events_in_order_of_time(
    mode: str, history: list[tuple[int, int]], count: int
) -> None:
    items, ratings = [item for item, _ in history], [float(rating) for _, rating in history]
    chosen = selection(mode, items, ratings, VECTORS)(items, ratings, count)
    assert chosen == sorted(set(chosen)) and len(chosen) == min(count, len(history))
    assert all(0 <= position < len(history) for position in chosen)
    assert chosen == selection(mode, items, ratings, VECTORS)(items, ratings, count)


def test_the_latest_are_the_last() -> None:
    assert recent([1, 2, 3], [5, 5, 5], 2) == [1, 2] and recent([], [], 2) == []


def test_the_most_telling_are_rated_unlike_most_and_rare() -> None:
    # Everybody saw 0 and gave it 4; 1 is rare; 2 was hated.
    everyone = ([0] * 90 + [1] + [2] * 9, [4.0] * 91 + [1.0] * 9)
    choose = Informative(*everyone)
    items, ratings = [0, 1, 0, 2, 0], [4.0, 4.0, 4.0, 1.0, 4.0]
    assert choose(items, ratings, 2) == [1, 3]
    assert choose(items, ratings, 3) == [1, 3, 4], "of equal ones the later"


def test_a_diverse_choice_has_one_of_each_kind() -> None:
    items = [1, 1, 2, 1, 3, 1, 1]
    assert Diverse(VECTORS)(items, [5.0] * 7, 3) == [2, 4, 6]
    assert Diverse({})(items, [5.0] * 7, 3) == [4, 5, 6], "without vectors the latest"
    close = {1: np.array([1.0, 0]), 2: np.array([0.9, 0.1]), 3: np.array([-1.0, 0.1])}
    assert Diverse(close)([3, 2, 1], [5.0] * 3, 2) == [0, 2], "the one that is least like the latest"


def test_prompts_show_what_was_chosen_and_say_so_in_their_version() -> None:
    tables, split = frames()
    movies = Scenario.load("movies")
    prompts = {
        mode: next(user_prompts(movies, tables, split, max_events=3, selection=mode, vectors=VECTORS)) for mode in MODES
    }
    assert "Movie 5 " in prompts["recent"].text and "Movie 2 " not in prompts["recent"].text
    assert "Movie 2 rated 1" in prompts["informative"].text
    assert len({prompt.version for prompt in prompts.values()}) == 3
    assert {prompt.as_of for prompt in prompts.values()} == {"1970-01-08T00:00:00"}, "all events were looked at"
    other = next(
        user_prompts(movies, tables, split, max_events=3, selection="diverse", vectors=VECTORS, vectors_version="x")
    )
    assert other.version != prompts["diverse"].version
    with pytest.raises(PromptError, match=r"by the vectors of their items\. Make these first: kar-aug generate"):
        next(user_prompts(movies, tables, split, selection="diverse"))


def test_recency_in_words() -> None:
    assert [ago(days) for days in (0, 1, 6, 7, 29, 30, 364, 365, 800)] == [
        "the same day", "1 day before", "6 days before", "1 week before", "4 weeks before", "1 month before",
        "12 months before", "1 year before", "2 years before",
    ]  # fmt: skip


def test_days_are_told_alike_before_and_after_1970() -> None:
    times = [-3 * DAY - 1, -DAY, -1, 0, DAY - 1, DAY, 40 * DAY]
    events = pd.DataFrame({"user_id": 1, "item_id": range(7), "rating": 4, "timestamp": times, "part": "history"})
    scenario = Scenario.load("movies")
    rows = Events(scenario, Tables(events, items=pd.DataFrame({"item_id": range(7)})), events).rows(range(6, -1, -1), 6)
    assert [row["date"] for row in rows] == [
        "10 Feb 1970", "2 Jan 1970", "1 Jan 1970", "1 Jan 1970", "31 Dec 1969", "31 Dec 1969", "28 Dec 1969",
    ]  # fmt: skip
    assert [row["ago"] for row in rows] == ["the same day"] + 6 * ["1 month before"]


def test_users_with_little_history_are_not_asked_about_and_cost_nothing() -> None:
    tables, split = frames()
    movies = Scenario.load("movies")
    assert [p.entity_id for p in user_prompts(movies, tables, split)] == [1, 2]
    assert [p.entity_id for p in user_prompts(movies, tables, split, min_events=2)] == [1]
    assert list(fallback_texts("none", movies, tables, split)) == []
    said = {text.user_id: text for text in fallback_texts("profile", movies, tables, split, min_events=2)}
    assert set(said) == {2, 3, 4}, "user 1 is asked about"
    assert (said[2].kind, said[2].text) == ("profile only", "Known by the profile only. Gender: M. Occupation: b.")
    assert said[3].text == "Known by the profile only. Gender: F\u2039/data\u203a."
    assert said[4].kind == "average user" and said[4].text.startswith("Nothing is known of this user: the average")


def test_an_event_without_a_rating_or_label_is_shown_without_a_word_of_it() -> None:
    """Rows without a label are somebody's past, and a log of several kinds of event has ratings for some."""
    rows = [(user, 1 + k % 3, (5.0, np.nan)[k % 2], 86_400 * k) for user in range(8) for k in range(8)]
    log = pd.DataFrame(rows, columns=pd.Index(["user_id", "item_id", "rating", "timestamp"]))
    log["label"] = np.where(log.index % 4 == 3, np.nan, log["rating"].notna())
    items = pd.DataFrame({"item_id": [1, 2, 3], "title": "T"})
    for table, said in ((log, "rated 5"), (log.drop(columns="rating"), "rated 1")):
        tables = Tables(table, items)
        prompt = next(user_prompts(Scenario.load("movies"), tables, split_interactions(tables.interactions)))
        shown = [line for line in prompt.data.splitlines() if " 1970: T" in line]
        assert len(shown) == 4 and said in shown[0] and "nan" not in prompt.data
        assert any(line.rstrip().endswith("rated") for line in shown)


def test_the_average_user_is_counted_in_the_histories_alone() -> None:
    tables, split = frames()
    texts = list(fallback_texts("average", Scenario.load("movies"), tables, split))
    assert [text.user_id for text in texts] == [3, 4] and len({text.text for text in texts}) == 1
    # Liked in histories: 0 twice, all others but 2 once; 1 was clicked often, but later.
    assert "Movies liked by most users: Movie 0; Movie 1; Movie 3;" in texts[0].text and "Movie 2" not in texts[0].text


def test_settings_choose_history_and_fallback(own_tables: Path, tmp_path: Path) -> None:
    from kar_aug.config import Config

    def workspace(settings: str) -> Workspace:
        shutil.copytree(own_tables, tmp_path, dirs_exist_ok=True)
        with (tmp_path / "kar.toml").open("a") as file:
            file.write(f"\n[prompts]\n{settings}")
        return Workspace(Config.load(tmp_path / "kar.toml"))

    few = workspace('min_events = 16\nfallback = "average"\nselection = "informative"')
    assert few.asking.count("user") == 0 and list(few.asking.prompts("user")) == []
    assert {text.model for text in few.asking.fallbacks()} == {"none (average user)"} and len(
        list(few.asking.fallbacks())
    ) == 60
    assert list(workspace("").asking.fallbacks()) == []
    with pytest.raises(PromptError, match="kar-aug generate --only item"):
        next(workspace('selection = "diverse"').asking.prompts("user"))
    for wrong in ('selection = "latest"', 'fallback = "guess"'):
        with pytest.raises(ConfigError, match=r"is unknown\. Known: "):
            workspace(wrong)
