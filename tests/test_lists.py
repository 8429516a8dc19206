"""Lists: made, read from a log, padded, and judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.small_tables import ITEMS

from kar_aug.compare.list_metrics import of_lists, ranked
from kar_aug.compare.reranking import Reranking
from kar_aug.config import CompareConfig, Config, DataConfig
from kar_aug.data import Tables, split_interactions
from kar_aug.data.building import build_samples
from kar_aug.data.kar_lists import kar_lists
from kar_aug.data.lists import Lists, impressions, with_scores
from kar_aug.data.samples import Samples
from kar_aug.data.split import PARTS
from kar_aug.datasets import mind
from kar_aug.errors import ConfigError, DataError
from kar_aug.pipeline.workspace import Workspace

USERS, LISTS = 8, 6


def log(**columns: Any) -> pd.DataFrame:
    """Six impressions a user, of 1 to 6 items; the odd ones have no click."""
    rows = [
        (user, 1 + (user + 3 * place + number) % 8, float(place == number % 3 and number % 2 == 0),
         1000 * number + user, f"{user}/{number}", place + 1)
        for user in range(USERS)
        for number in range(LISTS)
        for place in range(number + 1)
    ]  # fmt: skip
    names = ["user_id", "item_id", "label", "timestamp", "impression_id", "position"]
    return pd.DataFrame(rows, columns=pd.Index(names)).assign(**columns)


def samples(frame: pd.DataFrame, **inputs: Any) -> Samples:
    split = impressions(split_interactions(frame, history=0, validation=0.2, test=0.2))
    return build_samples(Tables(frame, ITEMS), split, item_features=["genres"], lists=True, **inputs)


def shown(lists: Lists, number: int) -> list[Any]:
    """The items of a list as a model reads them."""
    places = lists.read(np.asarray([number]), {"item"})["item"][0]
    return [lists.samples.vocabulary["item"][place] for place in places if place]


@pytest.mark.parametrize("longest", [2, 5, 9])
def test_metrics_are_those_of_scikit_learn(longest: int) -> None:
    from sklearn.metrics import average_precision_score, ndcg_score  # see test_compare

    random = np.random.default_rng(longest)
    label, score = random.integers(0, 2, (40, longest)), random.normal(size=(40, longest))
    label[:, 0] = 1
    for row, scores, ours in zip(label, score, of_lists(label, score, "NDCG", 5), strict=True):
        assert ours == pytest.approx(ndcg_score([row], [scores], k=5))
    for row, scores, ours in zip(label, score, of_lists(label, score, "MAP", longest), strict=True):
        assert ours == pytest.approx(average_precision_score(row, scores))


def test_metrics_by_hand_of_padded_lists_ties_and_no_click() -> None:
    label = np.asarray([[0, 1, 1, -1], [0, 0, 0, 0], [1, -1, -1, -1], [0, 0, 0, 1]])
    score = np.asarray([[0.5, 0.5, 0.1, 9.0], [1, 2, 3, 4], [-np.inf, 5, 5, 5], [0, -np.inf, -np.inf, -np.inf]])
    np.testing.assert_array_equal(ranked(label, score)[0], [0, 1, 1, -1])  # the tie as before, the padding last
    np.testing.assert_allclose(of_lists(label, score, "MAP", 2), [1 / 2, 0, 1, 0])
    np.testing.assert_allclose(of_lists(label, score, "MAP", 7), [(1 / 2 + 2 / 3) / 2, 0, 1, 1 / 4])
    np.testing.assert_allclose(of_lists(label, score, "MRR", 3), [1 / 2, 0, 1, 0])
    np.testing.assert_allclose(of_lists(label, score, "HR", 1), [0, 0, 1, 0])
    np.testing.assert_allclose(of_lists(label, score, "CLICK", 3), [2, 0, 1, 0])


def test_a_list_is_padded_read_at_its_first_moment_and_one_item_is_none() -> None:
    lists = Lists(samples(log()), most=4)
    assert lists.size == 4 and sorted(set(lists.lengths)) == [2, 3, 4, 5, 6] and lists.singles == USERS
    label, _ = lists.labels(np.arange(len(lists)))
    np.testing.assert_array_equal((label >= 0).sum(axis=1), np.minimum(lists.lengths, 4))
    short = int(np.flatnonzero(lists.lengths == 2)[0])
    read = lists.read(np.asarray([short]))
    shapes = {name: read[name].shape for name in ("item_id", "genres", "hist_item_id")}
    assert shapes == {"item_id": (1, 4), "genres": (1, 4, 3), "hist_item_id": (1, 50)}
    assert (read["item_id"][0, 2:] == 0).all() and (read["item_id"][0, :2] > 0).all()
    assert (read["hist_item_id"] > 0).sum() == 1, "the one item of the list before, and none of its own"
    told = " ".join(lists.told())
    assert f"{USERS} of one item are left out" in told and f"of {2 * USERS} the first 4 items are ranked" in told


def test_what_was_not_read_stays_behind_and_what_is_in_no_list_has_no_score() -> None:
    lists = Lists(samples(log()), most=4)
    scores = lists.by_sample("train", np.ones((len(lists.of("train")), 4), np.float32))
    single = sum(1 for part in lists.samples.part if part == 1) / sum(range(1, LISTS + 1))
    assert np.isnan(scores).sum() == single and np.isneginf(scores).sum() == 3 * single


def test_the_order_is_that_of_scores_then_of_positions_and_else_drawn() -> None:
    by_score = log(initial_score=lambda frame: np.where(frame["position"] == 2, 1.0, 0.0))
    lists = Lists(samples(by_score), most=6)
    whole = int(np.flatnonzero(lists.lengths == 6)[0])
    frame = by_score[by_score["impression_id"] == f"{_user(lists, whole)}/5"]
    by_position = frame["item_id"].tolist()
    assert shown(lists, whole) == [by_position[1], by_position[0], *by_position[2:]], "ties of scores by position"
    assert "initial_score" in {feature.name for feature in lists.features}
    unordered = Lists(samples(log().drop(columns="position")), most=6)
    drawn = [shown(unordered, n) for n in np.flatnonzero(unordered.lengths == 6)]
    assert any(a != b for a, b in zip(drawn, [shown(Lists(samples(log()), 6), n) for n in range(9)], strict=False))


def test_an_infinite_score_stands_first_and_a_missing_one_last() -> None:
    scores = {1: np.nan, 2: -1.0, 3: np.inf, 4: -np.inf}
    by_score = log(initial_score=lambda frame: [scores.get(place, 0.5) for place in frame["position"]])
    lists = Lists(samples(by_score), most=6)
    whole = int(np.flatnonzero(lists.lengths == 6)[0])
    frame = by_score[by_score["impression_id"] == f"{_user(lists, whole)}/5"].set_index("position")
    assert shown(lists, whole)[:4] == frame["item_id"].loc[[3, 5, 6, 2]].tolist()
    assert set(shown(lists, whole)[4:]) == set(frame["item_id"].loc[[1, 4]])
    assert np.isfinite(lists.read(np.asarray([whole]), {"initial_score"})["initial_score"]).all()


def _user(lists: Lists, number: int) -> Any:
    first = lists.members(np.asarray([number]), 1)[0, 0]
    return lists.samples.vocabulary["user"][lists.samples.places["user"][lists.samples.rows[first]]]


def test_positions_are_no_features() -> None:
    with pytest.raises(DataError, match="says where an item stood in its list"):
        samples(log(), context=("position",))
    with pytest.raises(DataError, match="says where an item stood in its list"):
        samples(log(initial_score=0.5), numeric={"initial_score": "standard"})


def test_an_impression_of_two_users_is_refused_and_so_is_a_log_without_any() -> None:
    with pytest.raises(DataError, match="impression_id '1' is of 8 users"):
        samples(log().assign(impression_id="1"))
    with pytest.raises(DataError, match=r"impression_id 0 is of 8 users.*the user's and the impression's together"):
        samples(log(impression_id=lambda frame: frame["timestamp"] // 1000))
    with pytest.raises(DataError, match='lists = "kar"'):
        samples(log().drop(columns="impression_id"))


@pytest.mark.parametrize("later", [0, 900])
def test_an_item_that_a_list_names_twice_is_ranked_once_where_it_was_shown(
    later: int, caplog: pytest.LogCaptureFixture
) -> None:
    clicks = log()[log()["label"] > 0].assign(position=np.nan, timestamp=lambda frame: frame["timestamp"] + later)
    apart = pd.concat([log(label=0.0), clicks], ignore_index=True)  # a row for what was shown, another for the click
    lists, expected = Lists(samples(apart), most=6), Lists(samples(log()), most=6)
    everything = np.arange(len(expected))
    np.testing.assert_array_equal(lists.labels(everything)[0], expected.labels(everything)[0])
    assert [shown(lists, n) for n in everything] == [shown(expected, n) for n in everything]
    assert f"{len(clicks)} rows name an item that stands in their list already" in caplog.text


def test_what_was_shown_and_clicked_in_the_history_is_one_event_of_it() -> None:
    clicks = log()[log()["label"] > 0].assign(position=np.nan)
    apart = pd.concat([log(label=0.0), clicks], ignore_index=True)  # a row for what was shown, another for the click
    names = ["user_id", "item_id", "label", "part", "impression_id"]
    of_each = [
        impressions(split_interactions(frame, history=6, validation=0.2, test=0.2)).query("part == 'history'")[names]
        for frame in (apart, log())
    ]
    assert len(of_each[1]) >= 6 * USERS
    for told in of_each:
        assert not told.duplicated(["impression_id", "item_id"]).any()
    clicked = [set(told[told["label"] > 0]["impression_id"]) for told in of_each]
    assert clicked[0] <= clicked[1] and clicked[0]


def test_one_sample_leaves_what_was_clicked_where_it_was_shown(tmp_path: Path) -> None:
    clicks = log()[log()["label"] > 0].assign(position=np.nan)
    ITEMS.to_csv(tmp_path / "items.csv", index=False)
    found = []
    for name, frame in {"apart": pd.concat([log(label=0.0), clicks]), "once": log()}.items():
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
        data = {"interactions": f"{name}.csv", "items": "items.csv", "lists": "impressions", "one_sample": True}
        config = Config(DataConfig(**data, history=0, validation=0.2, test=0.2), folder=tmp_path, workdir=name)
        lists = Lists(Workspace(config).samples, most=6)
        everything = np.arange(len(lists))
        found.append((lists.labels(everything)[0].tolist(), [shown(lists, n) for n in everything]))
    assert found[0] == found[1]


def test_lists_that_the_split_cuts_are_said(caplog: pytest.LogCaptureFixture) -> None:
    late = log(timestamp=lambda frame: frame["timestamp"] + 2000 * (frame["position"] > 1))
    split = split_interactions(late, protocol="temporal", history_share=0.3, validation=0.2, test=0.2)
    several = split[split["impression_id"].duplicated(keep=False)].groupby("impression_id")["part"].nunique()
    impressions(split)
    assert f"{(several > 1).sum()} of {USERS * LISTS} lists are cut in two by the split" in caplog.text
    caplog.clear()
    impressions(split_interactions(log(), protocol="temporal", history_share=0.3, validation=0.2, test=0.2))
    assert not caplog.text


def test_an_empty_text_is_no_list() -> None:
    some = log(impression_id=lambda frame: frame["impression_id"].where(frame["user_id"] % 4 > 0, ""))
    lists = Lists(samples(some), most=6)
    assert len(lists) + lists.singles == LISTS * USERS * 3 // 4


def test_a_log_of_lists_without_a_label_for_what_was_not_clicked_says_how_to_give_one(tmp_path: Path) -> None:
    frame = log(click=lambda frame: frame["label"].where(frame["label"] > 0))
    frame.to_parquet(tmp_path / "log.parquet")
    chosen = {"interactions": "log.parquet", "lists": "impressions", "history": 0, "validation": 0.2, "test": 0.2}
    with pytest.raises(DataError, match=r'holds only clicks .* label = "click == 1"'):
        _ = Workspace(Config(DataConfig(**chosen, label="click"), workdir=str(tmp_path), folder=tmp_path)).samples
    said = Workspace(Config(DataConfig(**chosen, label="click == 1"), workdir=str(tmp_path), folder=tmp_path))
    assert len(Lists(said.samples, most=6)) == USERS * (LISTS - 1)


def ratings(users: int = 6, events: int = 23, items: int = 40) -> pd.DataFrame:
    random = np.random.default_rng(0)
    item = np.concatenate([random.permutation(items)[:events] for _ in range(users)])
    rating = random.integers(1, 6, users * events)
    frame = {"user_id": np.repeat(np.arange(users), events), "item_id": item, "rating": rating}
    return pd.DataFrame({**frame, "timestamp": np.tile(np.arange(events) * 60, users)})


def test_kars_lists_hold_the_next_four_among_ten_and_nothing_the_user_had_met() -> None:
    split = split_interactions(ratings(), history=8, validation=0.2, test=0.2)
    found = kar_lists(split, seed=3)
    assert found["impression_id"].isna().sum() == (split["part"] == "history").sum()
    for _, rows in found.dropna(subset=["impression_id"]).groupby("impression_id"):
        met, drawn = rows[~rows["drawn"]], rows[rows["drawn"]]
        assert len(rows) == 10 and 1 <= len(met) <= 4 and rows["item_id"].is_unique
        assert sorted(rows["position"]) == list(range(1, 11)) and rows["part"].nunique() == 1
        assert not drawn["label"].any() and drawn["rating"].isna().all()
        assert (drawn["timestamp"] == met["timestamp"].min()).all()
        before = split[(split["user_id"] == rows["user_id"].iloc[0]) & (split["timestamp"] <= met["timestamp"].min())]
        assert not set(drawn["item_id"]) & set(before["item_id"])
    positions = found.loc[~found["drawn"], "position"].dropna().astype(int)
    assert set(positions) == set(range(1, 11)), "what was met stands anywhere"
    pd.testing.assert_frame_equal(kar_lists(split, seed=3), found)
    assert found[["user_id", "moment"]].apply(tuple, axis=1).is_monotonic_increasing
    with pytest.raises(DataError, match="has lists of its own"):
        kar_lists(found)


def test_a_synthetic_list_is_read_before_its_first_event() -> None:
    split = kar_lists(split_interactions(ratings(), history=8, validation=0.2, test=0.2))
    made = build_samples(Tables(ratings(), ITEMS.assign(item_id=range(8))), split, lists=True)
    lists = Lists(made, 10)
    everything = np.arange(len(lists))
    read = lists.read(everything, {"item", "hist_item"})
    label, _ = lists.labels(everything)
    for items, past, clicked in zip(read["item"], read["hist_item"], label, strict=True):
        assert not set(items[clicked > 0]) & set(past[past > 0]), "the past has no item of the list"


@pytest.mark.parametrize(
    ("wrong", "chosen", "reason"),
    [
        ({"position": "top"}, {}, r"'position' is to be read as a number, and holds 'top', which is none\. Mend it"),
        ({"initial_score": "0,512"}, {}, r"holds '0,512', which is none\. Of 1,234\.5 in text files"),
        (
            {"position": [{"at": 1}] * 64},
            {},
            r"interactions: 'position' holds structs \(at\), which are no values\. Say",
        ),
        ({"impression_id": [{"no": 1}] * 64}, {}, r"interactions: 'impression_id' holds structs \(no\)"),
        ({"impression_id": [[1, 2]] * 64}, {}, r"impression_id '1\|2' is of 8 users"),
        ({}, {"numeric": {"position": "log"}}, r"context, numeric: 'position' says where an item stood"),
        (
            {},
            {"context": ["place"]},
            r"no column 'place'\. They have: user_id, item_id, timestamp, label, impression_id$",
        ),
    ],
)
def test_columns_of_lists_that_cannot_be_read_are_named(wrong: Any, chosen: Any, reason: str) -> None:
    users, times = np.repeat(range(8), 8), np.tile(np.repeat(range(4), 2), 8)
    log = pd.DataFrame({"user_id": users, "item_id": range(64), "timestamp": times, "label": [0, 1] * 32})
    log = log.assign(**{"impression_id": [f"{u}:{t}" for u, t in zip(users, times, strict=True)], **wrong})
    split = split_interactions(Tables(log).interactions, history=2, validation=0.3, test=0.3)
    with pytest.raises(DataError, match=reason):
        build_samples(Tables(log), impressions(split), lists=True, **chosen)


BEHAVIORS = (
    "1\tU1\t11/15/2019 9:55:12 AM\tN1 N2\tN3-1 N1-0\n"
    "2\tU2\t11/15/2019 10:00:00 PM\t\tN2-0 N3-0 N1-1\n"
    "3\tU1\t11/14/2019 8:00:00 AM\tN1 N2\tN2-0\n"
)
NEWS = "".join(f'N{n}\tnews\tworld\tTitle "{n}\tText {n}\thttps://x\t[]\t[]\n' for n in (1, 2, 3))


def test_mind_is_read_with_what_was_clicked_before(tmp_path: Path) -> None:
    (tmp_path / "behaviors.tsv").write_text(BEHAVIORS)
    (tmp_path / "news.tsv").write_text(NEWS)
    tables = mind(path=tmp_path)
    events = tables.interactions
    before = events[events["impression_id"].isna()]
    assert before["item_id"].tolist() == ["N1", "N2"] and before["label"].all()
    assert before["timestamp"].max() < pd.Timestamp("2019-11-14 08:00") and before["timestamp"].is_monotonic_increasing
    second = events[events["impression_id"] == "2"]
    assert second["item_id"].tolist() == ["N2", "N3", "N1"] and second["label"].tolist() == [0, 0, 1]
    assert second["position"].tolist() == [1, 2, 3] and str(second["timestamp"].iloc[0]) == "2019-11-15 22:00:00"
    assert tables.items["title"].tolist() == ['Title "1', 'Title "2', 'Title "3']
    for name, text in (("behaviors.tsv", BEHAVIORS), ("news.tsv", NEWS)):
        (tmp_path / name).write_text(text, newline="\r\n")
    pd.testing.assert_frame_equal(mind(path=tmp_path).interactions, events)
    pd.testing.assert_frame_equal(mind(path=tmp_path).items, tables.items)
    (tmp_path / "news.tsv").write_text(NEWS.replace('Title "2', "Title\r2"), newline="\r\n")
    assert mind(path=tmp_path).items["title"].tolist() == ['Title "1', "Title\r2", 'Title "3'], "one line, one news"
    (tmp_path / "news.tsv").write_text("id\tCategory\tsub\ttitle\tabstract\turl\te\te\n" + NEWS)
    with pytest.raises(DataError, match=r"news\.tsv: line 1 names columns\. The files have no head: delete that line"):
        mind(path=tmp_path)
    (tmp_path / "news.tsv").write_text(NEWS)
    for said, wrong, reason in (
        ("N3-1 N1-0", "N3 N1", "does not say whether it was clicked"),
        ("PM\t\tN2", "PM\tN2", "impression 2: nothing was shown. A row has five columns"),
        ("1\tU1", "id\tuser\ttime\tbefore\tshown\n1\tU1", r"doesn't match format .*p\". The files have no head"),
    ):
        (tmp_path / "behaviors.tsv").write_text(BEHAVIORS.replace(said, wrong, 1))
        with pytest.raises(DataError, match=reason):
            mind(path=tmp_path)
    with pytest.raises(DataError, match="not downloaded"):
        mind()


@pytest.mark.parametrize(
    ("said", "task", "reason"),
    [
        ({"lists": "kar", "negatives": 2}, "ctr", "draws its own"),
        ({"lists": "impressions", "negatives": 2}, "ctr", "what was shown together"),
        ({"lists": "impressions", "weight": "dwell"}, "ctr", "ranked and judged as wholes"),
        ({"lists": "impressions", "item_ids": False}, "rerank", "tells items from padding by their ids"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(said: dict[str, Any], task: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        Config(DataConfig(dataset="movielens-100k", **said), compare=CompareConfig(task=task))
    assert replace(DataConfig(dataset="movielens-100k"), lists="kar").list_length == 30


@pytest.mark.parametrize("inputs", [{"context": ("price",)}, {"numeric": {"price": "standard"}}])
def test_what_is_read_once_for_a_list_must_be_the_same_in_it(inputs: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"'price' of interactions differs within \d+ of 48 lists") as refused:
        samples(log(price=np.arange(21 * USERS)), **inputs)
    assert refused.value.column == "price"
    one_a_list = log(price=lambda frame: frame["timestamp"] % 7)
    assert "price" in {feature.name for feature in samples(one_a_list, **inputs).features}


def test_the_hour_of_a_made_list_is_that_of_its_first_event_and_other_contexts_point_at_what_was_met() -> None:
    frame = ratings().assign(price=np.arange(len(ratings())), timestamp=lambda frame: frame["timestamp"] * 60)
    split = kar_lists(split_interactions(frame, history=8, validation=0.2, test=0.2))
    tables = Tables(frame, ITEMS.assign(item_id=range(8)))
    assert "hour" in build_samples(tables, split, lists=True, context=("hour",)).columns
    with pytest.raises(DataError, match="'price' of interactions differs"):
        build_samples(tables, split, lists=True, context=("price",))


def test_a_part_without_a_list_is_named() -> None:
    made = samples(log())
    group = np.where(made.part == PARTS.index("test"), -1, made.group)
    with pytest.raises(DataError, match=r"The test part has no list of two items or more.*\[data\] test larger"):
        Lists(replace(made, group=group), most=4)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_model_that_diverged_is_not_the_initial_order(wrong: float) -> None:
    objective, made = Reranking("softmax", "MAP@7", 4, synthetic=False), samples(log())
    scores = np.zeros((len(objective.read(made).of("validation")), 4), np.float32)
    assert 0 <= objective.judge(made, "validation")(scores) <= 1
    scores[0, 0] = wrong
    with pytest.raises(ValueError, match="the training has diverged"):
        objective.judge(made, "validation")(scores)


def test_a_slice_of_lists_has_those_in_which_something_of_its_kind_was_clicked() -> None:
    made = samples(log())
    objective, test = Reranking("softmax", "MAP@7", 4, synthetic=False), made.of("test")
    clicked, everything = made.label[test] > 0, np.ones(len(test), bool)
    perfect, reverse = (sign * made.label[test] for sign in (1, -1))
    whole, missed, none = objective.within(made, [everything, ~clicked, ~everything], [perfect, reverse])
    lists = objective.read(made)
    with_click = np.concatenate([(label > 0).any(axis=1) for _, label in lists.blocks("test")])
    assert whole.fewest == with_click.sum() > 0 and whole.share == with_click.mean() < 1
    assert whole.values[0] == 1 > whole.values[1] > 0, "lists without a click are in no slice"
    assert missed.fewest == none.fewest == 0
    alone, second = (clicked & (np.cumsum(clicked) == number) for number in (1, 2))
    of_none, of_one = objective.within(made, [alone, second], [perfect])
    assert (of_none.fewest, of_one.fewest) == (0, 1), "the first click is in a list of one, which is none"


def test_blocks_are_as_small_as_is_wanted_and_hold_all_lists_in_their_order() -> None:
    lists = Lists(samples(log()), most=4)
    (whole, _), *none = lists.blocks("train")
    small = [members for members, _ in lists.blocks("train", rows=10)]
    assert not none and len(small) > 1 and all(members.size <= 10 for members in small)
    assert [row[row >= 0].tolist() for members in small for row in members] == [row[row >= 0].tolist() for row in whole]


def test_an_order_that_knows_the_clicks_is_a_leak_and_a_drawn_one_is_none() -> None:
    from kar_aug.audit.lists import places

    clicked_first = log(label=lambda frame: (frame["position"] == 1).astype(float))
    leak = places(samples(clicked_first))
    assert leak.result == "LEAK" and "100% of clicked items stand before" in leak.leaks[0].text
    assert places(samples(clicked_first.drop(columns="position"))).result == "ok"


def test_scores_of_a_file_order_lists_and_those_of_other_lists_are_refused() -> None:
    split = impressions(split_interactions(log(), history=0, validation=0.2, test=0.2))
    scores = log()[["impression_id", "item_id"]].assign(initial_score=lambda frame: frame["item_id"] * 0.1)
    found = with_scores(split, scores, "scores.parquet")
    np.testing.assert_allclose(found["initial_score"], found["item_id"] * 0.1)
    with pytest.raises(DataError, match="holds no item of these lists"):
        with_scores(split, scores.assign(impression_id="other"), "scores.parquet")


@pytest.mark.parametrize(
    ("own", "file", "written"),
    [
        (lambda n: n.astype(float), "scores.csv", lambda n: n.astype(str)),
        (lambda n: n, "scores.csv", lambda n: n.astype(str) + ".0"),
        (lambda n: n, "scores.parquet", lambda n: n.astype(float)),
        (lambda n: "0" + n.astype(str), "scores.csv", lambda n: "0" + n.astype(str)),
        (lambda n: n.astype(str), "scores.parquet", lambda n: n),
    ],
    ids=["floats", "floats in text", "floats in parquet", "zeros", "integers for text"],
)
def test_scores_are_found_however_their_ids_are_written(
    own: Callable[[pd.Series], pd.Series], file: str, written: Callable[[pd.Series], pd.Series],
    tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    number = pd.Series(log()["impression_id"].factorize()[0] + 12)
    frame = log(impression_id=own(number), item_id=own(log()["item_id"]))
    scores = log(impression_id=written(number), item_id=written(log()["item_id"]), initial_score=0.5)
    scores = scores[["impression_id", "item_id", "initial_score"]].iloc[: len(scores) // 2]
    scores.to_csv(tmp_path / file, index=False) if file.endswith("csv") else scores.to_parquet(tmp_path / file)
    frame.to_parquet(tmp_path / "log.parquet")
    chosen = {"interactions": "log.parquet", "lists": "impressions", "initial_scores": file, "history": 0}
    config = Config(DataConfig(**chosen, validation=0.2, test=0.2), workdir=str(tmp_path), folder=tmp_path)
    assert Workspace(config).data.split["initial_score"].notna().mean() == 0.5
    assert f"{file} scores 50.0% of the items in lists" in caplog.text
