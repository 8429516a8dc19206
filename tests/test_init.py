"""kar-aug init --data: what it makes of files as people have them, and that kar-aug can go on from there."""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
import tomllib
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from support.exhaustive import table
from support.logs import news, reviews, shop

from kar_aug.cli import main
from kar_aug.config import Config, DataConfig
from kar_aug.data.guessing import guess
from kar_aug.data.guessing.words import rank_as_id, words
from kar_aug.errors import DataError
from kar_aug.pipeline.project import Project
from kar_aug.pipeline.starting import start

LOGS = {"news": news, "shop": shop, "reviews": reviews}
SMALL = {
    "backbones": ["DeepFM"], "knowledge": [], "controls": [], "seeds": 1, "epochs": 1, "embedding_dim": 4,
    "hidden_units": [8], "jobs": 1, "batch_size": 1024,
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_warnings_about_units(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "kar_aug")


def started(name: str, folder: Path) -> Config:
    LOGS[name](folder)
    return Config.load(start([folder], folder / "kar.toml").path)


def guessed(tmp_path: Path, log: pd.DataFrame, **tables: pd.DataFrame) -> DataConfig:
    """[data] as it is guessed of an interactions table, log.csv, and further ones."""
    for name, frame in {"log": log, **tables}.items():
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    return Config.load(start([tmp_path], tmp_path / "kar.toml", force=True).path).data


def plays(rows: int = 400) -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "uid": random.integers(0, 60, rows),
            "track_id": random.integers(0, 50, rows),
            "ts": np.sort(random.integers(1_600_000_000, 1_600_000_000 + 90 * 86_400, rows)),
        }
    )


def init(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["init", *map(str, arguments)])


# Three unlike logs


def test_news_impressions(tmp_path: Path) -> None:
    data = started("news", tmp_path).data
    assert (data.interactions, data.items, data.users) == ("behaviors.parquet", "articles.parquet", None)
    assert data.columns == {"item_id": "article_id", "timestamp": "impression_time", "label": "clicked"}
    assert data.label is None and data.negatives == 0 and data.protocol == "temporal"
    assert data.context == ("hour", "device_type", "is_subscriber", "gender", "position")
    assert data.item_features == ("category", "category_str", "topics", "premium", "sentiment_score")
    assert data.numeric == {"position": "buckets", "sentiment_score": "standard"}
    assert {"read_time", "scroll_percentage", "since"} < set(data.event_features or ())


def test_of_several_values_of_an_event_it_says_how_many_there_are_and_are_read(tmp_path: Path) -> None:
    log = plays().rename(columns={"uid": "listener", "track_id": "episode_guid"})
    log["note"] = np.where(log.index % 3, "again", "boring")
    topics = [["space", "cooking", "history"][: 1 + number % 3] for number in range(50)]
    pd.DataFrame({"episode_guid": range(50), "topics": topics}).to_parquet(tmp_path / "episodes.parquet")
    data = guessed(tmp_path, log)
    assert data.columns == {"user_id": "listener", "item_id": "episode_guid", "timestamp": "ts"}
    assert data.context == ("hour", "weekday"), "a note is written afterwards"
    assert "{% if event.note %}" in (tmp_path / "general.toml").read_text(), "it is told of earlier events, in prompts"
    assert data.event_features is None and data.item_features == ("topics",) and data.event_values == 8
    assert "topics has up to 3. 1 trains faster\nevent_values = 8\n" in (tmp_path / "kar.toml").read_text()


def test_a_shop_log_of_views_carts_and_purchases(tmp_path: Path) -> None:
    config = started("shop", tmp_path)
    data = config.data
    assert data.columns == {"item_id": "product_id", "timestamp": "event_time"} and data.items is None
    assert data.label == "event_type == 'purchase'"
    assert dict(data.sequences) == {f"{kind}s": f"event_type == '{kind}'" for kind in ("view", "cart", "purchase")}
    assert data.item_columns == data.item_features == ("category_id", "category_code", "brand")
    assert data.context == ("hour", "weekday", "price"), "which changes between rows of an item"
    assert data.numeric == {"price": "log"} and "event_type" in (data.event_features or ())
    assert config.prompts.scenario == "e-commerce.toml"
    ratings = tomllib.loads((tmp_path / "e-commerce.toml").read_text())["ratings"]
    assert ratings == {"low": 0, "high": 1, "words": ["not bought", "bought"]}
    said = (tmp_path / "kar.toml").read_text()
    assert re.search(r"# event_type has 3 values: view 86.\d%, cart 8.\d%, purchase 5.\d%", said)


def test_ratings_with_texts(tmp_path: Path) -> None:
    config = started("reviews", tmp_path)
    data = config.data
    assert data.columns["item_id"] == "parent_asin", "the ids that the items table has, and not asin"
    assert data.columns["details_Manufacturer"] == "details.Manufacturer" and "images_large" not in data.columns
    assert data.item_features == ("store", "categories", "details_Manufacturer", "price") and data.numeric == {
        "price": "log"
    }
    assert data.click_above == 3 and data.protocol == "user" and data.context == ("hour", "weekday")
    assert data.event_features == (
        "rating", "store", "categories", "details_Manufacturer", "verified_purchase", "since",
    )  # fmt: skip
    assert config.prompts.scenario == "e-commerce.toml"
    prompt = Project.open(tmp_path / "kar.toml").prompts("user").of().text
    assert re.search(r"- \w.*, \w.* \((hated|disliked|found average|liked|loved)\); text: \w+ \w+", prompt)


def test_things_of_no_scenario_are_called_what_their_columns_call_them(tmp_path: Path) -> None:
    users, times = [user for user in range(60) for _ in range(30)], range(0, 60 * 30 * 900, 900)
    rows = [
        (user, 7 * place % 40, place % 3 == 0, moment)
        for place, (user, moment) in enumerate(zip(users, times, strict=True))
    ]
    plays = pd.DataFrame(rows, columns=["listener_id", "property_id", "completed", "at"]).astype({"completed": int})
    plays.assign(at=pd.to_datetime("2024-01-01") + pd.to_timedelta(plays["at"], unit="s")).to_parquet(
        tmp_path / "plays.parquet"
    )
    pd.DataFrame({"property_id": range(40), "name": [f"Tale {n}" for n in range(40)]}).to_csv(
        tmp_path / "tales.csv", index=False
    )
    done = start([tmp_path], tmp_path / "kar.toml")
    assert done.scenario == tmp_path / "general.toml" and "by which properties are chosen" in str(done)
    project = Project.open(tmp_path / "kar.toml")
    told = project.prompts("user").of().text
    assert "how people choose properties" in told and "History in order of time" in told
    assert re.search(r"- Tale \d+ \(not completed\)", told) and re.search(r"- Tale \d+ \(completed\)", told)
    assert "Describe this property by kind" in project.prompts("item").of().text


@pytest.mark.slow
@pytest.mark.usefixtures("step_by_step")
@pytest.mark.parametrize("name", table(LOGS, "shop"))
def test_what_is_written_is_inspected_audited_and_compared(name: str, tmp_path: Path) -> None:
    started(name, tmp_path)
    project = Project.open(tmp_path / "kar.toml", compare=SMALL)
    assert len(project.inspect.data().features) == len(project.workspace.samples.features)
    assert not project.audit().leaks
    auc = project.compare().table()["auc"]
    assert len(auc) == 1 and 0 < auc[0] < 1


# Which file, and which column


def test_every_feature_and_every_column_left_out_stands_below_what_was_seen(tmp_path: Path) -> None:
    news(tmp_path)
    found = start([tmp_path], tmp_path / "kar.toml")
    lines = found.path.read_text().splitlines()
    for name in ('"topics"', '"position"', 'protocol = "temporal"', 'label = "clicked"', 'position = "buckets"'):
        place = next(number for number, line in enumerate(lines) if line.strip().rstrip(",") == name)
        assert lines[place - 1].strip().startswith("# "), name
    for left_out in ("body: free text", "url: addresses", "image_ids: ids", "total_inviews: counted over all"):
        assert any(f"# left out: {left_out}" in line for line in lines), left_out
    assert max(map(len, lines[: lines.index("[prompts]")])) <= 120


def test_an_items_table_that_calls_the_ids_otherwise(tmp_path: Path) -> None:
    tracks = pd.DataFrame(
        {"id": range(50), "name": [f"Song {i % 9}" for i in range(50)], "genre": ["pop", "rock"] * 25}
    )
    data = guessed(tmp_path, plays(), tracks=tracks)
    assert data.items == "tracks.csv" and data.item_features == ("genre",)
    assert data.columns == {
        "user_id": "uid", "timestamp": "ts", "title": "name", "interactions": {"item_id": "track_id"},
        "items": {"item_id": "id"},
    }  # fmt: skip
    workspace = Project.open(tmp_path / "kar.toml").workspace
    assert workspace.tables.items["title"][3] == "Song 3" and len(workspace.samples)


def test_plays_alone_are_clicks_beside_which_items_are_drawn(tmp_path: Path) -> None:
    log = plays().assign(device=lambda frame: np.where(frame["uid"] % 2, "web", "app"))
    log["artist"] = "A" + (log["track_id"] % 7).astype(str)
    data = guessed(tmp_path, log)
    assert data.negatives == 4 and data.context == ("hour", "weekday", "device")
    assert data.item_features == data.item_columns == ("artist",), "which items that are drawn have, too"
    samples = Project.open(tmp_path / "kar.toml").workspace.samples
    assert 0.15 < samples.label.mean() < 0.25


def test_a_column_that_knows_the_click_tells_of_earlier_events_alone(tmp_path: Path) -> None:
    log = plays(2000).assign(clicked=lambda frame: (np.arange(len(frame)) % 5 == 0).astype(int))
    log["outcome"] = np.where(log["clicked"], "open", "closed")
    log["place"], log["skipped"] = np.arange(len(log)) % 3, np.arange(len(log)) % 7 % 2
    data = guessed(tmp_path, log)
    assert "place" in data.context
    for known_after in ("outcome", "skipped"):
        assert known_after not in data.context and known_after in (data.event_features or ())


def test_columns_of_a_log_that_are_of_its_items_make_a_table(tmp_path: Path) -> None:
    started("shop", tmp_path)
    project = Project.open(tmp_path / "kar.toml")
    items, log = project.workspace.tables.items, pd.read_csv(tmp_path / "events.csv")
    first = log.sort_values("event_time", kind="stable").drop_duplicates("product_id").set_index("product_id")
    assert set(items["item_id"]) == set(first.index) and "brand" not in project.workspace.tables.interactions
    assert (items.set_index("item_id")["brand"].dropna() == first["brand"].dropna().sort_index()).all()
    assert project.prompts("item").of(int(items["item_id"][0])).text.count("Brand: ") <= 1
    assert re.search(r"- \w.* \(view\)\n", project.prompts("user").of().text), "what it was, and not: not bought"


def test_ids_with_zeros_in_front_stay_text(tmp_path: Path) -> None:
    log = plays()
    log["track_id"] = log["track_id"].map("{:04}".format)
    assert guessed(tmp_path, log).id_type == "string"
    assert Project.open(tmp_path / "kar.toml").workspace.tables.ids("item")[:2] == ["0000", "0001"]


@pytest.mark.parametrize(("one", "wanted"), [("1,234.5", ","), ("1.234,5", "."), ("1234.5", None)])
def test_numbers_whose_thousands_stand_apart_are_numbers(one: str, wanted: str | None, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    plays().to_csv(tmp_path / "logs/log.csv", index=False, sep=";")
    tracks = pd.DataFrame({"track_id": range(60), "title": "Song", "price": [one, *map(str, range(20, 79))]})
    tracks.to_csv(tmp_path / "logs/tracks.csv", index=False, sep=";")
    start([tmp_path / "logs"], tmp_path / "kar.toml")
    data = Config.load(tmp_path / "kar.toml").data
    assert data.thousands == wanted and "price" in data.numeric
    assert Project.open(tmp_path / "kar.toml").workspace.tables.items["price"].max() == 1234.5


@pytest.mark.parametrize(
    ("ratings", "above"),
    [([1, 2, 3, 4, 5], 3), ([0.5, 2, 3, 5], 3), ([1, 5, 6, 10], 6), ([0, 0.5, 1], 0.5), ([1, 5], 1)],
)
def test_a_click_is_above_the_middle_of_the_scale(ratings: list[float], above: float, tmp_path: Path) -> None:
    log = plays().assign(rating=lambda frame: np.resize(ratings, len(frame)))
    assert guessed(tmp_path, log).click_above == above


def test_rows_without_a_rating_are_no_clicks(tmp_path: Path) -> None:
    log = plays().assign(rating=lambda frame: np.resize([1, 4, 5, np.nan], len(frame)))
    assert guessed(tmp_path, log).label == "rating > 4"
    assert len(Project.open(tmp_path / "kar.toml").workspace.samples)
    kinds = guessed(tmp_path, log.assign(event=np.resize(["view", "buy", "rate"], len(log))))
    assert kinds.label == "event == 'buy'" and "rating" in (kinds.event_features or ())
    assert len(Project.open(tmp_path / "kar.toml").workspace.samples)


def test_a_name_that_two_tables_have_is_a_feature_once(tmp_path: Path) -> None:
    users = pd.DataFrame({"uid": range(60), "country": ["de", "dk", "se"] * 20})
    tracks = pd.DataFrame({"track_id": range(50), "country": ["us", "uk"] * 25})
    data = guessed(tmp_path, plays(), users=users, tracks=tracks)
    assert data.user_features == ("country",) and data.item_features == () and data.users == "users.csv"
    assert len(Project.open(tmp_path / "kar.toml").workspace.samples)


def test_an_hour_that_is_always_the_same_is_no_context(tmp_path: Path) -> None:
    assert guessed(tmp_path, plays().assign(ts=lambda log: log["ts"] // 86_400 * 86_400 + 7_500)).context == (
        "weekday",
    )


def test_times_that_are_not_found_are_left_to_fill_in(tmp_path: Path) -> None:
    plays().drop(columns="ts").assign(step=1, stars=[1, 5] * 200).to_csv(tmp_path / "log.csv", index=False)
    found = start([tmp_path / "log.csv"], tmp_path / "kar.toml")
    assert found.guess.open == ["items", "columns.timestamp"]
    assert "Commented out, to fill in: items, columns.timestamp" in str(found)
    assert '# timestamp = "..."' in found.path.read_text()


def test_the_moment_is_taken_where_parts_lie_in_folders_by_day(tmp_path: Path) -> None:
    submitted = pd.to_datetime(plays()["ts"], unit="s")
    log = plays().drop(columns="ts").assign(submitted=submitted, stars=[1, 5] * 200)
    for day, rows in log.groupby(submitted.dt.date):
        (tmp_path / "log" / f"day={day}").mkdir(parents=True)
        rows.to_parquet(tmp_path / "log" / f"day={day}" / "part.parquet", index=False)
    data = Config.load(start([tmp_path], tmp_path / "kar.toml").path).data
    assert data.columns["timestamp"] == "submitted" and "hour" in data.context


def test_a_folder_of_parts_is_one_table_and_a_folder_of_tables_is_not(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    for part in range(3):
        plays().assign(clicked=[0, 1] * 200).to_parquet(tmp_path / "log" / f"part-{part}.parquet", index=False)
    tracks = pd.DataFrame({"track_id": range(50), "title": [f"Song {track}" for track in range(50)]})
    tracks.to_csv(tmp_path / "tracks.csv", index=False)
    found = start([tmp_path / "log", tmp_path / "tracks.csv"], tmp_path / "kar.toml")
    data = Config.load(found.path).data
    assert (data.interactions, data.items) == ("log", "tracks.csv") and "log (1,200 rows" in str(found)
    tracks.to_parquet(tmp_path / "log" / "tracks.parquet", index=False)
    for part in (1, 2):
        (tmp_path / "log" / f"part-{part}.parquet").unlink()
    data = Config.load(start([tmp_path / "log"], tmp_path / "kar.toml", force=True).path).data
    assert (data.interactions, data.items) == ("log/part-0.parquet", "log/tracks.parquet")


def test_a_time_of_another_name_is_taken_where_there_is_one_alone(tmp_path: Path) -> None:
    log = plays().rename(columns={"ts": "gesehen"})
    log["gesehen"] = pd.to_datetime(log["gesehen"], unit="s").dt.strftime("%d.%m.%Y %H:%M")
    assert guessed(tmp_path, log).columns["timestamp"] == "gesehen"


def test_columns_that_only_a_person_can_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plays().rename(columns={"uid": "wer", "track_id": "was", "ts": "wann"}).to_csv("log.csv", index=False)
    assert "--user and --item name them" in init("--data", "log.csv").output
    pd.DataFrame({"episode_id": range(50)}).to_csv("episodes.csv", index=False)
    half = init("--data", "log.csv", "--data", "episodes.csv", "--user", "wer").output
    assert "log.csv has users in 'wer', and no column that is called as if it held items. If one does, name it" in half
    found = init("--data", "log.csv", "--user", "who", "--item", "was")
    assert found.exit_code == 2 and "--user who: no file has this column" in found.output
    assert init("--data", "log.csv", "--user", "wer", "--item", "was", "--time", "wann").exit_code == 0
    columns = Config.load("kar.toml").data.columns
    assert columns == {"user_id": "wer", "item_id": "was", "timestamp": "wann"}
    assert "--user is of the files that --data names" in init("--user", "wer", "--force").output


def test_a_yes_is_a_click(tmp_path: Path) -> None:
    log = plays().assign(applied=["yes", "no", "no", "no"] * 100)
    data = guessed(tmp_path, log)
    assert data.label == "applied == 'yes'" and data.negatives == 0 and "applied" not in data.context


@pytest.mark.parametrize(
    ("kinds", "wanted"), [("view apply", "apply"), ("view apply hire", "hire"), ("play complete", "complete")]
)
def test_of_kinds_of_events_the_one_that_matters_most_is_foreseen(kinds: str, wanted: str, tmp_path: Path) -> None:
    log = plays(480)
    data = guessed(tmp_path, log.assign(event=kinds.split() * (len(log) // len(kinds.split()))))
    assert data.label == f"event == '{wanted}'"


def test_what_was_heard_to_its_end_is_a_click_where_nothing_else_says_it(tmp_path: Path) -> None:
    log = plays().assign(completed=[0, 1, 0, 0] * 100, listened_seconds=range(400))
    data = guessed(tmp_path, log)
    assert data.columns["label"] == "completed" and data.negatives == 0 and "completed" not in data.context
    assert data.event_features == ("label", "listened_seconds", "since"), "a past says what was heard to its end"
    assert guessed(tmp_path, log.assign(rating=[1, 2, 4, 5] * 100)).columns == {
        "user_id": "uid",
        "item_id": "track_id",
        "timestamp": "ts",
    }


@pytest.mark.parametrize(("no", "yes"), [(False, True), (0, 1), ("no", "yes")])
def test_what_was_skipped_is_no_click(no: object, yes: object, tmp_path: Path) -> None:
    log = plays().rename(columns={"uid": "username", "track_id": "spotify_track_uri"})
    log["spotify_track_uri"] = "spotify:track:" + log["spotify_track_uri"].astype(str)
    data = guessed(tmp_path, log.assign(skipped=[no, yes, yes, yes] * 100))
    assert data.negatives == 0 and "skipped" not in data.context
    assert data.columns["user_id"] == "username" and data.columns["item_id"] == "spotify_track_uri"
    assert 0.15 < Project.open(tmp_path / "kar.toml").workspace.samples.label.mean() < 0.35
    assert guessed(tmp_path, log.assign(skipped=[no, yes] * 200, rating=[1, 2, 4, 5] * 100)).label is None


def test_what_says_which_item_was_bought_is_no_context_of_those_that_are_drawn(tmp_path: Path) -> None:
    random, log = np.random.default_rng(1), plays(2000)
    log["paid_eur"] = ((3.0 + log["track_id"]) * random.choice([1, 0.95, 0.9], len(log))).round(2)
    log = log.assign(shop_id=random.integers(0, 40, len(log)), order_number=random.integers(0, 90, len(log)))
    data = guessed(tmp_path, log)
    assert data.negatives == 4 and "paid_eur" not in {*data.context, *data.numeric}
    assert "paid_eur" in (data.event_features or ()), "of an earlier event it tells nothing that is to be foreseen"
    assert "shop_id" in data.context and "shop_id" not in data.numeric, "an id is no number, however many there are"
    assert data.numeric["order_number"] == "standard", "which says how many came before, and not how many there are"
    rated = guessed(tmp_path, log.assign(clicked=random.integers(0, 2, len(log))))
    assert "paid_eur" in rated.numeric, "what was shown and not clicked has its own"


def test_that_a_reading_was_ok_is_a_click_where_nothing_else_says_it(tmp_path: Path) -> None:
    assert guessed(tmp_path, plays().assign(ok=[0, 1] * 200)).columns["label"] == "ok"


def test_what_a_click_could_be_stands_where_nothing_says_it(tmp_path: Path) -> None:
    guessed(tmp_path, plays().assign(listened_seconds=range(400)))
    assert '"listened_seconds > 199.5"' in " ".join((tmp_path / "kar.toml").read_text(encoding="utf-8").split())
    guessed(tmp_path, plays().assign(gemocht=["ja", "nein"] * 200))
    assert "\"gemocht == 'ja'\"" in (tmp_path / "kar.toml").read_text(encoding="utf-8")


def test_what_may_have_come_of_an_event_is_no_context_of_it(tmp_path: Path) -> None:
    accepted = pd.Series([True, False, None, False] * 100)
    data = guessed(tmp_path, plays().assign(signed=accepted))
    assert data.columns["label"] == "signed" and data.negatives == 0 and "signed" not in data.context
    assert "25.0% say neither" in " ".join((tmp_path / "kar.toml").read_text(encoding="utf-8").split())
    data = guessed(tmp_path, plays().assign(sold_out=accepted, device=["phone", "desk"] * 200))
    assert data.negatives == 4 and data.context == ("hour", "weekday", "device"), "a device is known before"
    assert data.event_features[-2:] == ("sold_out", "since")
    assert 'over columns ("sold_out")' in " ".join((tmp_path / "kar.toml").read_text(encoding="utf-8").split()).replace(
        "# ", ""
    )


@pytest.mark.parametrize("name", ["time_on_page", "readTime", "progress_pct", "exit_reason", "bounced", "reason_end"])
def test_what_is_known_when_a_visit_is_over_is_no_context(name: str, tmp_path: Path) -> None:
    random, log = np.random.default_rng(1), plays(1000)
    data = guessed(tmp_path, log.assign(clicked=random.integers(0, 2, 1000), **{name: random.integers(0, 9, 1000)}))
    assert name not in {*data.context, *data.numeric} and name in (data.event_features or ())


def test_what_comes_of_some_clicks_alone_is_no_context(tmp_path: Path) -> None:
    random, log = np.random.default_rng(1), plays(2000)
    clicked = random.random(len(log)) < 0.25
    log = log.assign(clicked=clicked * 1, applied=clicked & (random.random(len(log)) < 0.2), device="web")
    log["device"] = random.choice(["web", "ios"], len(log))
    data = guessed(tmp_path, log)
    assert "device" in data.context and "applied" not in data.context
    assert "applied" in (data.event_features or ()), "a past application says what was wanted"
    said = " ".join((tmp_path / "kar.toml").read_text().replace("#", "").split())
    assert "each of the rows with True is a click, so it may come of one" in said


def test_keys_of_structs_are_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(2)
    recipes = [
        {"id": n, "name": f"Soup {n}", "food": {"fat": n % 7, "kind": "ab"[n % 2]}, "author": {"name": f"c{n % 9}"}}
        for n in range(60)
    ]
    log = [
        {
            "user": {"id": f"u{n % 40}", "nick": f"Nick{n % 40}"}, "recipe_id": int(random.integers(60)),
            "stars": int(random.integers(1, 6)), "submitted": f"2024-01-{1 + n // 40:02d}T10:00:00Z",
        }
        for n in range(1000)
    ]  # fmt: skip
    for name, rows in {"recipes": recipes, "reviews": log}.items():
        pd.DataFrame(rows).to_json(f"{name}.jsonl", orient="records", lines=True)
    done = init("--data", "reviews.jsonl", "recipes.jsonl")
    assert done.exit_code == 0 and "user.id, user.nick, recipe_id" in done.output, done.output
    config = Config.load("kar.toml")
    assert config.data.columns["user_id"] == "user.id"
    assert config.data.item_features == ("food_fat", "food_kind", "author_name")
    assert config.data.columns["food_fat"] == "food.fat"
    assert "user_nick" not in (config.data.event_features or ()), "a name is an id"
    assert config.prompts.scenario == "general.toml", "authors are of more than books"
    project = Project.open("kar.toml")
    assert re.search(r"Food kind: [ab]\b", project.prompts("item").of().text)
    assert init("--data", "reviews.jsonl", "recipes.jsonl", "--user", "user.nick", "--force").exit_code == 0
    assert Config.load("kar.toml").data.columns["user_id"] == "user.nick"


def test_columns_get_names_that_models_can_be_built_with(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    log = plays().rename(columns={"uid": "Visitor ID"})
    more = {"Device Type": random.choice(["tablet", "phone"], len(log)), "clicked?": random.integers(0, 2, len(log))}
    log.assign(**more).to_csv(tmp_path / "log.csv", index=False)
    dishes = pd.DataFrame({"track_id": range(50), "Küche": np.resize(["süß", "scharf"], 50), "Zeit (min)": range(50)})

    def started_with(items: pd.DataFrame) -> tuple[Project, list[str]]:
        items.to_csv(tmp_path / "dishes.csv", index=False)
        project = Project.open(start([tmp_path], tmp_path / "kar.toml", force=True).path)
        return project, [trap.text for trap in project.check().faults if "no layer of TensorFlow" in trap.text]

    project, faults = started_with(dishes)
    data = project.config.data
    assert "Device_Type" in data.context and data.item_features == ("Kueche", "Zeit_min") and not faults
    theirs = {"user_id": "Visitor ID", "Device_Type": "Device Type", "Kueche": "Küche", "Zeit_min": "Zeit (min)"}
    assert theirs.items() <= data.columns.items()
    assert "Kueche: süß" in project.prompts("item").of(0).text
    project, (fault,) = started_with(dishes.rename(columns={"Küche": "種類"}))
    assert "種類" in project.config.data.item_features, "what cannot be written in Latin letters stays, and is said"
    assert 'columns = { feature = "種類" }' in fault


def test_that_no_scenario_speaks_of_the_items_is_said(tmp_path: Path) -> None:
    plays().rename(columns={"track_id": "item_id"}).to_csv(tmp_path / "log.csv", index=False)
    pd.DataFrame({"item_id": range(50), "title": [f"Talk {i}" for i in range(50)]}).to_csv(tmp_path / "items.csv")
    said = "No name says what the items are"
    assert said in str(start([tmp_path], tmp_path / "kar.toml"))
    assert said not in str(start([tmp_path], tmp_path / "kar.toml", scenario="music", force=True))


def test_files_of_nothing_are_said_and_not_used(tmp_path: Path) -> None:
    pd.DataFrame({"country": ["de"], "population": [1]}).to_csv(tmp_path / "countries.csv", index=False)
    guessed(tmp_path, plays())
    assert "# not used: countries.csv (1 rows: country, population)" in (tmp_path / "kar.toml").read_text()


def test_of_several_files_those_that_fit_best_are_taken(tmp_path: Path) -> None:
    log = plays().assign(rating=lambda frame: np.resize([1, 3, 5], len(frame)))
    tracks = pd.DataFrame({"track_id": range(50), "genre": ["pop", "rock"] * 25, "rating": np.arange(50) / 10})
    links = pd.DataFrame({"track_id": range(50), "isrc": range(1000, 1050)})
    data = guessed(tmp_path, log, tags=plays().assign(tag="funny"), tracks=tracks, links=links)
    assert (data.interactions, data.items) == ("log.csv", "tracks.csv")
    said = (tmp_path / "kar.toml").read_text()
    assert "log.csv says what was liked" in said and "tracks.csv rather seems to be the items" in said
    assert data.item_features == ("genre",), "a mean rating knows what is tested on"


def test_two_tables_of_items_are_one_line_that_lists_both(tmp_path: Path) -> None:
    for name in ("tracks", "songs"):
        pd.DataFrame({"track_id": range(50)}).to_csv(tmp_path / f"{name}.csv", index=False)
    plays().to_csv(tmp_path / "log.csv", index=False)
    with pytest.raises(DataError, match=r"Two files could be the items: songs\.csv \(.*; tracks\.csv \("):
        guess([tmp_path])


def test_only_the_first_rows_are_looked_at(tmp_path: Path) -> None:
    pd.concat([plays(50_000)] * 3).to_csv(tmp_path / "log.csv", index=False)
    assert "the first 100,000 rows" in guess([tmp_path / "log.csv"]).said["interactions"]


@pytest.mark.parametrize(
    ("name", "entity", "rank"),
    [
        ("user_id", "user", 0), ("userId", "user", 1), ("visitorid", "user", 1), ("reviewerID", "user", 1),
        ("is_sso_user", "user", None), ("user_session", "user", None), ("asin", "item", 1), ("movieId", "item", 1),
        ("parent_asin", "item", 2), ("display_article_id", "item", 2), ("product_name", "item", None),
        ("category_id", "item", None), ("uid_hash", "user", 1), ("creative_hash", "item", 1), ("u_hash", "item", None),
        ("username", "user", 3), ("customer_name", "user", 3), ("track_uri", "item", 3), ("image_url", "item", None),
    ],
)  # fmt: skip
def test_names_that_are_those_of_ids(name: str, entity: str, rank: int | None) -> None:
    assert rank_as_id(name, entity) == rank
    assert words("unixReviewTime") == ("unix", "review", "time")


def test_columns_of_any_type_are_looked_at(tmp_path: Path) -> None:
    number, rows = np.arange(400), 400
    log = plays().assign(
        clicked=number % 7 < 3,
        nothing=None,
        flag=pd.array(np.resize([True, False, None], rows), dtype="boolean"),
        day=[dt.date(2020, 1, 1 + i % 28) for i in number],
        price=[Decimal(int(i) % 50) / 2 for i in number],
        raw=[b"ab"] * rows,
        nested=[[[1]]] * rows,
        details=[{"a": 1}] * rows,
        shelf=pd.Categorical(np.resize(list("xyz"), rows)),
        endless=np.where(number % 3 == 0, np.inf, number / 7),
        level=pd.array(np.where(number % 4, number % 5, None), dtype="Int64"),
        span=pd.to_timedelta(number, unit="s"),
        **{"two words": np.resize(list("ab"), rows), "a\nb": np.resize(list("ab"), rows), "it's": "one"},
    )
    log.to_parquet(tmp_path / "log.parquet")
    project = Project.open(start([tmp_path], tmp_path / "kar.toml").path)
    context = project.config.data.context
    assert {"flag", "shelf", "price", "endless", "level", "two_words", "a_b"} < set(context)
    assert {"two_words": "two words", "a_b": "a\nb"}.items() <= project.config.data.columns.items()
    assert not {"nothing", "day", "raw", "nested", "details", "it's"} & set(context)
    assert len(project.inspect.data().features) and not project.audit().leaks


def test_what_nested_json_holds_under_keys_is_looked_at(tmp_path: Path) -> None:
    log = plays(2000).assign(uid=lambda frame: frame["uid"].map("{:06d}".format))
    random = np.random.default_rng(1)
    shows = [
        {
            "show": {"id": f"S-{i}", "name": f"Aida {i}"},
            "venue": {"city": "Graz" if i % 3 else "Wien", "geo": {"lat": 47.1}},
            "tags": [{"name": "opera"}, {"name": "late" if i % 2 else "early"}],
            "by.day": {"a.b": i},
            "sold": {f"d{i}": i},
        }
        for i in range(50)
    ]
    events = [
        {
            "at": pd.Timestamp(row.ts, unit="s").isoformat() + "Z",
            "who": {"customer": {"no": row.uid}},
            "show": {"id": f"S-{row.track_id}"},
            "ctx": {"device": ("web", "app")[row.ts % 2], "nothing": None},
            "ctx_device": "taken",
            "result": {"bought": bool(random.random() < 0.3)},
        }
        for row in log.itertuples()
    ]
    for name, rows in (("shows", shows), ("log", events)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    project = Project.open(start([tmp_path], tmp_path / "kar.toml").path)
    data = project.config.data
    assert data.columns["user_id"] == "who.customer.no" and data.columns["item_id"] == "show.id"
    assert data.columns["title"] == "show.name" and data.columns["label"] == "result.bought"
    assert data.item_features == ("venue_city", "tags_name") and data.columns["tags_name"] == "tags.name"
    assert data.context == ("hour", "weekday"), "a name that another column has is no key's"
    assert "venue_geo_lat" not in data.columns and not {"sold", "nothing"} & set(data.columns), "which nothing reads"
    assert list(project.workspace.tables.items["tags_name"].iloc[0]) == ["opera", "early"]
    assert {"venue_city", "hist_tags_name"} <= {feature.name for feature in project.workspace.samples.features}
    assert "Aida 0" in project.prompts("item").of("S-0").text
    named = guess([tmp_path], {"user": "who.customer.no", "item": "show.id", "time": "at"})
    assert [each.value for each in named.settings] == [each.value for each in guess([tmp_path]).settings]


def test_impressions_whose_items_stand_in_lists(tmp_path: Path) -> None:
    news(tmp_path)
    flat = pd.read_parquet(tmp_path / "behaviors.parquet")
    of_one = ["impression_id", "user_id", "impression_time", "device_type"]
    rows = flat.groupby(of_one, as_index=False, sort=False).agg(article_ids_inview=("article_id", list))
    clicked = flat[flat["clicked"] == 1].groupby("impression_id")["article_id"].agg(list)
    rows["article_ids_clicked"] = rows["impression_id"].map(clicked)  # missing, where nothing was clicked
    rows.to_parquet(tmp_path / "behaviors.parquet")
    data = Config.load(start([tmp_path], tmp_path / "kar.toml").path).data
    assert (data.shown, data.clicked) == ("article_ids_inview", "article_ids_clicked")
    assert {"device_type", "position"} < set(data.context) and data.item_features[:1] == ("category",)
    read = Project.open(tmp_path / "kar.toml").workspace.tables.interactions
    assert read["item_id"].tolist() == flat["article_id"].tolist()
    assert read["position"].tolist() == flat["position"].tolist()
    wanted = [set(clicked.get(i, ())) for i in flat["impression_id"]]
    assert read["label"].tolist() == [float(a in liked) for a, liked in zip(flat["article_id"], wanted, strict=True)]


# What cannot be told


def test_lists_and_times_by_other_names(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    shown = [[f"N{n}" for n in random.choice(20, 4, replace=False)] for _ in range(200)]
    log = pd.DataFrame({"user_id": random.integers(0, 20, 200), "impression_items": shown})
    log["clicked_items"] = [cell[: n % 2] for n, cell in enumerate(shown)]
    log["time"] = 1_700_000_000 + np.arange(200)
    log["session_seconds"] = random.gamma(2, 30, 200)
    log.to_parquet(tmp_path / "behaviors.parquet")
    data = Config.load(start([tmp_path], tmp_path / "kar.toml").path).data
    assert (data.shown, data.clicked) == ("impression_items", "clicked_items")
    assert "session_seconds" in (data.event_features or ()), "no id is a fraction, and it is over when it is known"

    bought = pd.DataFrame({"customer_id": random.integers(0, 20, 200), "article_id": random.integers(0, 30, 200)})
    bought["t_dat"] = [f"2020-09-{1 + n % 28:02}" for n in range(200)]
    (tmp_path / "shop").mkdir()
    assert guessed(tmp_path / "shop", bought).columns["timestamp"] == "t_dat"


def test_two_logs_are_one_line_that_lists_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop(tmp_path))
    plays().assign(liked=1).to_csv("plays.csv", index=False)
    done = init("--data", ".")
    assert done.exit_code == 2 and not Path("kar.toml").exists()
    (line,) = done.stderr.splitlines()
    assert line.startswith("kar-aug: 2 files could be the interactions: events.csv (4,500 rows: event_time, event_type")
    assert "; plays.csv (400 rows: uid, track_id, ts, liked)" in line


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet"])
def test_parts_of_one_log_are_told_from_two_logs(tmp_path: Path, ending: str) -> None:
    def write(folder: Path) -> None:
        for part in range(2):
            path = folder / f"plays-{part}.{ending}"
            plays().to_parquet(path) if ending == "parquet" else plays().to_csv(path, index=False)

    write(tmp_path)
    (tmp_path / "notes.md").touch()
    with pytest.raises(DataError, match=r"parts of one log, put them into a folder of their own"):
        start([tmp_path], tmp_path / "kar.toml")
    for part in range(2):
        (tmp_path / f"plays-{part}.{ending}").unlink()
    (tmp_path / "plays").mkdir()
    write(tmp_path / "plays")
    for given in (tmp_path, tmp_path / "plays"):
        found = start([given], tmp_path / "kar.toml", force=True)
        assert Config.load(found.path).data.interactions == "plays" and "800 rows" in str(found)


@pytest.mark.parametrize("name", ["initial_score", "ranker_score", "predicted_score"])
def test_what_a_ranker_said_is_no_rating(name: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    log = plays().assign(clicked=random.integers(0, 2, 400), **{name: random.integers(0, 6, 400)})
    data = guessed(tmp_path, log)
    assert "rating" not in data.columns and data.columns["label"] == "clicked"
    assert guessed(tmp_path, log.rename(columns={name: "score"})).columns["rating"] == "score"


def test_no_column_of_users(tmp_path: Path) -> None:
    plays().rename(columns={"uid": "who"}).to_csv(tmp_path / "log.csv", index=False)
    said = r"no column is called as if it held users.*Seen: log\.csv \(400 rows: who, track_id, ts"
    with pytest.raises(DataError, match=said):
        guess([tmp_path])


def test_impressions_with_several_items_in_a_cell(tmp_path: Path) -> None:
    frame = pd.DataFrame({"user_id": [1, 2], "article_ids": [[1, 2], [3]], "time": ["2024-01-01", "2024-01-02"]})
    page = frame.rename(columns={"article_ids": "article_ids_inview"}).assign(article_id=[None, 7.0])
    for each, column in ((frame, "article_ids"), (page, "article_ids_inview")):
        each.to_parquet(tmp_path / "behaviors.parquet")
        with pytest.raises(
            DataError, match=rf"behaviors\.parquet holds several items in a cell of '{column}'.*explode"
        ):
            guess([tmp_path])


def test_a_folder_without_tables(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no table in it"):
        guess([tmp_path])


# The command


def test_the_command_writes_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(news(tmp_path))
    done = init("--data", "articles.parquet", "behaviors.parquet")
    assert done.exit_code == 0 and Path("kar.toml").exists()
    before = Path("kar.toml").read_text()
    assert init("--data", ".").exit_code == 2 and Path("kar.toml").read_text() == before
    assert init("--data", ".", "--force").exit_code == 0
    assert init("behaviors.parquet", "--output", "other.toml").exit_code == 2, "files are named after --data"


def test_the_settings_file_of_the_command_line_is_written_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(news(tmp_path))
    done = CliRunner().invoke(main, ["-c", "mine.toml", "init", "--data", "."])
    assert Path("mine.toml").exists() and not Path("kar.toml").exists()
    assert "Wrote mine.toml. Next: kar-aug -c mine.toml check" in done.output
    assert "Next: kar-aug check" in init("--data", ".", "--force").output


def test_of_orders_and_their_lines_in_two_files_it_is_said_how_they_are_joined(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    orders = pd.DataFrame({"order_id": range(300), "user_id": random.integers(0, 30, 300), "hour": 9})
    orders.to_csv(tmp_path / "orders.csv", index=False)
    lines = {"order_id": random.integers(0, 300, 900), "product_id": random.integers(0, 50, 900)}
    pd.DataFrame(lines).to_csv(tmp_path / "lines.csv", index=False)
    with pytest.raises(DataError, match=r"lines.csv has no users, and orders.csv has them in 'user_id'.*on=\"order_id"):
        guess([tmp_path])


def test_a_scenario_of_the_users_choice_stands_beside_their_own_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(news(tmp_path))
    (tmp_path / "settings").mkdir()
    assert init("--data", ".", "--scenario", "books", "--output", "settings/kar.toml").exit_code == 0
    config = Config.load("settings/kar.toml")
    assert config.data.dataset is None and config.data.interactions == "../behaviors.parquet"
    assert config.prompts.scenario == "books.toml"
    assert 'words = ["not read", "read"]' in Path("settings/books.toml").read_text()
    assert Project.open("settings/kar.toml").prompts("user").workspace.tables.items["title"].notna().all()


def test_nothing_is_written_where_the_scenario_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(news(tmp_path))
    assert init("--data", ".", "--scenario", "bookz").exit_code == 2
    assert not list(tmp_path.glob("*.toml"))
