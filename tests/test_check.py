"""kar-aug check: one screen of what a run will do and cost, and each trap that is sure to fail later; and --sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from support.logs import shop

from kar_aug.cache import StoreSpec, VectorStore
from kar_aug.cli import main
from kar_aug.errors import ConfigError, DataError
from kar_aug.pipeline.checking import Outlook
from kar_aug.pipeline.project import Project
from kar_aug.pipeline.starting import start
from kar_aug.pipeline.watch import Watch
from kar_aug.prompts.scenario import scenario_text
from kar_aug.testing import ChatServer

DAY = 86_400


def log(rows: int = 600, **columns: object) -> pd.DataFrame:
    random = np.random.default_rng(0)
    frame = {
        "user_id": random.integers(0, 40, rows),
        "item_id": random.integers(0, 30, rows),
        "timestamp": np.arange(rows) * DAY / 10 + 10**9,
        "label": random.integers(0, 2, rows),
    }
    return pd.DataFrame({**frame, **columns})


def items(**columns: object) -> pd.DataFrame:
    return pd.DataFrame({"item_id": range(30), "title": [f"Thing {i}" for i in range(30)], **columns})


def outlook(tmp_path: Path, interactions: pd.DataFrame, things: pd.DataFrame, **sections: dict[str, object]) -> Outlook:
    settings = {"workdir": str(tmp_path / "work"), "prompts": {"scenario": "e-commerce"}, **sections}
    return Project(settings, interactions=interactions, items=things).check()


def test_a_run_without_traps_says_what_it_will_do_and_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    done = outlook(tmp_path, log(6000), items(), compare={"backbones": ["DeepFM"], "seeds": 3})
    assert [stage for stage, _ in done.steps] == ["log", "split", "read", "ask", "encode", "train"]
    said = dict(done.steps)
    assert said["log"] == "6,000 events of 40 users with 30 items"
    assert said["ask"].startswith("gpt-4o-mini about 40 users and 30 items: 70 requests, ") and "$0.0" in said["ask"]
    assert said["train"].startswith("4 models with 3 seeds: 12 trainings, of 10 epochs at most (DeepFM, DeepFM + know")
    assert not done.faults and "first look" not in said["train"]
    more = dict(outlook(tmp_path, log(6000), items(), compare={"backbones": ["DIN", "DeepFM"], "seeds": 3}).steps)
    assert more["train"].endswith("for a first look: kar-aug compare --backbone DIN --seeds 2")


def test_where_nothing_tells_of_items_it_is_a_table_that_lacks(tmp_path: Path) -> None:
    settings = {"workdir": str(tmp_path / "work"), "prompts": {"scenario": "e-commerce"}}
    (fault,) = Project(settings, interactions=log(6000)).check().faults
    assert fault.text.startswith("histories in prompts show none of their fields")
    assert fault.text.endswith('[data] items = "items.csv", or item_columns = [...]'), fault.text


def test_a_batch_that_leaves_an_epoch_few_steps_is_said_with_one_that_fits(tmp_path: Path) -> None:
    many = log(6000, user_id=np.arange(6000) % 40)
    said, fitting = (outlook(tmp_path, many, items(), compare=each).traps for each in ({"batch_size": 1024}, {}))
    assert any("an epoch of 3,840 rows has 4 steps" in trap.text and "out, and it is 64" in trap.text for trap in said)
    assert not any("steps" in trap.text for trap in fitting)


def test_of_lists_it_says_how_many_there_are_and_whether_anything_orders_them(tmp_path: Path) -> None:
    lists = {"impression_id": np.arange(600) // 6, "user_id": np.arange(600) // 6 % 40, "position": np.arange(600) % 6}
    lists |= {"timestamp": np.arange(600) // 6 * DAY / 2 + 10**9}
    settings = {"data": {"lists": "impressions", "protocol": "temporal"}, "compare": {"task": "rerank"}}
    done = outlook(tmp_path, log(**lists), items(), **settings)
    assert dict(done.steps)["lists"] == "40 of train, 10 of validation, 10 of test"
    assert not done.faults and not any("is chance" in trap.text for trap in done.traps)
    drawn = outlook(tmp_path, log(**lists).drop(columns="position"), items(), **settings)
    assert any("neither position nor initial_score" in trap.text for trap in drawn.traps)


@pytest.mark.parametrize(("known", "unread"), [(["item"], "users"), (["user"], "items"), (["item", "user"], None)])
def test_knowledge_that_no_model_reads_is_not_to_be_paid_for(
    tmp_path: Path, known: list[str], unread: str | None
) -> None:
    done = outlook(tmp_path, log(), items(), compare={"knowledge": known})
    said = [trap.text for trap in done.traps if "no model reads" in trap.text]
    assert len(said) == (unread is not None) and all(f"said of {unread}, " in each for each in said)


def test_a_scenario_about_other_things_than_the_tables_hold_is_named(tmp_path: Path) -> None:
    def seen(scenario: str, column: str = "item_id", **columns: object) -> list[str]:
        log().rename(columns={"item_id": column}).to_csv(tmp_path / "log.csv", index=False)
        items(**columns).rename(columns={"item_id": column}).to_csv(tmp_path / "catalogue.csv", index=False)
        files = {"interactions": str(tmp_path / "log.csv"), "items": str(tmp_path / "catalogue.csv")}
        names = {"columns": {"item_id": column}} if column != "item_id" else {}
        project = Project({"workdir": str(tmp_path), "data": files | names, "prompts": {"scenario": scenario}})
        return [str(trap) for trap in project.check().traps if "the scenario" in str(trap)]

    (said,) = seen("movies", "episode_guid", host="Ada", year=2020)
    assert said.startswith("! the scenario movies asks about movies, and files and columns speak of episode. kar-aug ")
    (said,) = seen("movies", host="Ada")
    assert "asks about movies, and no file or column speaks of them" in said
    assert not seen("general", "episode_guid")
    assert not seen("movies", "movie_id") and not seen("movies", genres="Drama") and not seen("movies", year=1999)
    assert not seen("e-commerce", "article_guid", price=3, brand="Any"), "an article may be one of a shop"
    mine = tmp_path / "movies.toml"
    mine.write_text(scenario_text("movies").replace("You know movies well", "You know podcasts well"), "utf-8")
    assert not seen(str(mine), "episode_guid"), "its owner has looked at it"


def test_of_a_large_log_it_says_beforehand_that_it_takes_long_and_how_to_look_at_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kar_aug.pipeline.checking._LARGE", 1_000)
    (tmp_path / "log").mkdir()
    log().to_parquet(tmp_path / "log" / "part.parquet")
    items().to_parquet(tmp_path / "items.parquet")
    said: list[str] = []
    for sample in ({}, {"sample_users": 10}):
        data = {"interactions": str(tmp_path / "log"), "items": str(tmp_path / "items.parquet"), **sample}
        Project({"workdir": str(tmp_path), "data": data}, watch=Watch(on_note=said.append)).check()
    assert len(said) == 1 and said[0].startswith("The log has 0 MB") and "kar-aug --sample 10000 check" in said[0]


def test_what_many_prompts_cost_is_estimated_by_some_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    lengths = np.random.default_rng(0).integers(0, 9, 6000)
    titles = [f"Thing {'of some length ' * length}{i}" for i, length in enumerate(lengths)]
    many = pd.DataFrame({"item_id": range(6000), "title": titles})
    settings = {"workdir": str(tmp_path), "prompts": {"scenario": "e-commerce", "whole_catalogue": True}}
    project = Project(settings, interactions=log(6000), items=many)
    exact = project.dry_run().estimate
    steps = project.check().steps
    (said,) = [text for stage, text in steps if stage == "ask"]
    assert f"about 40 users and 6,000 items: {exact.questions:,} requests, " in said, said
    thousands = float(said.partition(" requests, ")[2].partition(" thousand")[0].replace(",", ""))
    assert thousands == pytest.approx((exact.prompt_tokens + exact.most_completion_tokens) / 1e3, rel=0.01)
    assert ("", "estimated by 2,040 of the prompts; kar-aug generate --dry-run counts all") in steps


@pytest.mark.parametrize(
    ("interactions", "things", "sections", "trap"),
    [
        (log(label=1), items(), {}, "only clicks"),
        (log(label=0), items(), {}, "no clicks"),
        (
            log(),
            items().assign(item_id=range(1000, 1030)),
            {},
            "0% of the items of the log are in the table of ",
        ),
        (log(), items().drop(columns="title"), {}, "needs the title of an item, and there is no such column"),
        (log(), items(made=[{"by": "x"}] * 30), {"data": {"item_features": ["made"]}}, "holds structs"),
        (log(), items(), {"data": {"label": "event == 'buy'"}}, "cannot be evaluated"),
        (
            log().drop(columns="label").assign(event="view"),
            items(),
            {},
            "There are: user_id, item_id, timestamp",
        ),
    ],
)
def test_what_is_sure_to_fail_is_said_before_it_costs(
    interactions: pd.DataFrame, things: pd.DataFrame, sections: dict[str, dict[str, object]], trap: str, tmp_path: Path
) -> None:
    done = outlook(tmp_path, interactions, things, **sections)
    assert any(trap in each.text for each in done.faults), str(done)
    assert dict(done.steps)["train"], "all else is looked at, too"


def test_books_are_not_asked_about_as_movies_unsaid(tmp_path: Path) -> None:
    moments = [(user, k) for user in range(12) for k in range(12)]
    reviews = pd.DataFrame(
        {
            "user_id": [f"u{user}" for user, _ in moments],
            "parent_asin": [f"B{(user + k) % 9}" for user, k in moments],
            "rating": [1.0 + 4 * (k % 2) for _, k in moments],
            "timestamp": [(10**9 + k * DAY) * 1000 for _, k in moments],
        }
    )
    books = pd.DataFrame({"parent_asin": [f"B{number}" for number in range(9)], "title": [None, *"abcdefgh"]})
    for name, rows in (("reviews.jsonl", reviews), ("meta_Books.jsonl", books)):
        rows.to_json(tmp_path / name, orient="records", lines=True)
    read = {"dataset": "amazon-books", "path": str(tmp_path / "reviews.jsonl")}
    settings = {"workdir": str(tmp_path / "work"), "data": read}
    (said,) = [trap.text for trap in Project(settings).check().faults if "movies" in trap.text]
    assert said.endswith('amazon-books is of books: [prompts] scenario = "books"')
    project = Project({**settings, "prompts": {"scenario": "books"}})
    assert not [trap for trap in project.check().faults if "movies" in trap.text]
    with pytest.raises(ConfigError, match="Item 'B0' is not asked about: its title is empty"):
        project.prompts("item").of("B0")


def test_rows_that_say_the_opposite_of_each_other_are_told_and_one_is_left(tmp_path: Path) -> None:
    twice = pd.concat([log(), log().head(300).assign(label=lambda frame: 1 - frame["label"])])
    (trap,) = [each for each in outlook(tmp_path, twice, items()).traps if "other label" in each.text]
    assert "one_sample = true" in trap.text and " of the samples stand beside" in trap.text
    kept = Project({"workdir": str(tmp_path), "data": {"one_sample": True}}, interactions=twice, items=items())
    split = kept.workspace.data.split
    samples = split[split["part"].isin(["train", "validation", "test"])]
    assert not samples.duplicated(["user_id", "item_id", "moment"]).any()
    assert samples.groupby(["user_id", "item_id", "moment"])["label"].max().mean() > 0.6, "the click is left"
    assert (split["part"] == "unlabelled").any() and len(split) == len(twice), "the others are events of the past"


def test_missing_semantic_ids_are_said_with_the_command_that_makes_them(tmp_path: Path) -> None:
    chosen = {"injections": ["codes"], "knowledge": ["item"], "controls": ["shuffled"]}
    settings = {"workdir": str(tmp_path), "compare": chosen, "codes": {"levels": 2, "size": 4}}
    project = Project(settings, interactions=log(), items=items())
    of_all = settings | {"data": {"item_features": ["codes"]}, "compare": {"knowledge": ["item"]}}
    in_all_models = Project(of_all, interactions=log(), items=items())
    (trap,) = [trap for trap in in_all_models.check().traps if "all models are to read semantic ids" in trap.text]
    assert trap.kind == "warning" and "kar-aug encode, then kar-aug codes" in trap.text

    def said() -> list[str]:
        return [trap.text.split(", and ")[1] for trap in project.check().traps if "semantic ids" in trap.text]

    assert said() == ["there are none of items: kar-aug codes makes them, once kar-aug encode has run"]
    with VectorStore.writer(project.workspace.store_path("item"), StoreSpec("made", 3)) as writer:
        writer.append(list(range(30)), ["made"] * 30, np.random.default_rng(0).normal(size=(30, 3)))
    assert said() == ["there are none of items: kar-aug codes makes them"]
    assert "Make them with: kar-aug codes" in str(in_all_models.check())
    project.codes()
    assert "codes.level_1, codes.level_2, codes.prefix_2;" in dict(in_all_models.check().steps)["read"]
    twice = Project(settings | {"data": {"item_features": ["codes"]}}, interactions=log(), items=items())
    assert "such arms read the same twice" in str(twice.check()) and "the same twice" not in str(in_all_models.check())
    assert not said() and dict(project.check().steps)["codes"].startswith("semantic ids of vectors, 2 levels of 4")
    with VectorStore.writer(project.workspace.store_path("item"), StoreSpec("made", 3)) as writer:
        writer.append([30], ["made"], np.ones((1, 3)))
    earlier = "semantic ids of items are those of an earlier state of the vectors"
    assert [earlier in trap.text for trap in project.check().traps if "semantic ids" in trap.text] == [True]
    project.codes()
    assert not [trap for trap in project.check().traps if "semantic ids" in trap.text]


def test_codes_that_are_told_of_events_are_missing_and_no_fault(tmp_path: Path) -> None:
    told = {"item_features": ["codes"], "event_features": ["codes", "label"]}
    project = Project(
        {"workdir": str(tmp_path), "data": told, "codes": {"levels": 2, "size": 4}, "prompts": {"scenario": "general"}},
        interactions=log(),
    )
    assert "of earlier events: item_id, label" in dict(project.check().steps)["read"]
    assert [trap for trap in project.check().traps if "all models are to read semantic ids" in trap.text]
    with VectorStore.writer(project.workspace.store_path("item"), StoreSpec("made", 3)) as writer:
        writer.append(list(range(30)), ["made"] * 30, np.random.default_rng(0).normal(size=(30, 3)))
    project.codes()
    assert "events: item_id, codes.level_1, codes.level_2, codes.prefix_2, label" in dict(project.check().steps)["read"]
    assert [trap for trap in project.check().traps if "models know ids and semantic ids alone" in trap.text]


def test_a_column_that_no_layer_can_be_called_after_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    named = {"context": ["dev ice"], "item_features": ["Größe"], "event_features": ["Größe", "was it"]}
    read, size = log(**{"dev ice": "web", "was it": "seen"}), items(**{"Größe": 3})
    (trap,) = [each for each in outlook(tmp_path, read, size, data=named).traps if "no layer" in each.text]
    assert trap.kind == "fault" and "after 'Größe', 'dev ice', 'was it': letters" in trap.text
    assert '[data] columns = { Groesse = "Größe" }' in trap.text


def test_items_without_events_and_a_missing_key_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    more = pd.concat([items(), items().assign(item_id=lambda frame: frame["item_id"] + 100)])
    said = str(outlook(tmp_path, log(), more))
    assert "not about 30 items without any event" in said and "set OPENAI_API_KEY" in said


def test_the_command_is_one_screen_and_its_exit_code_says_whether_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shop(tmp_path))
    start(["events.csv"])
    done = CliRunner().invoke(main, ["check"])
    lines = done.output.splitlines()
    assert done.exit_code == 0, done.output
    assert len(lines) <= 24 and max(map(len, lines)) <= 118
    sampled = CliRunner().invoke(main, ["--sample", "20", "check"])
    assert " of 20 users, by sample_users, with " in sampled.output
    Path("kar.toml").write_text(Path("kar.toml").read_text().replace('= "e-commerce.toml"', '= "books"'))
    refused = CliRunner().invoke(main, ["check"])
    assert refused.exit_code == 1 and "x the scenario books needs the title" in refused.output


def test_answers_about_some_users_are_there_when_all_are_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    with ChatServer() as server:
        for count, requests in ((10, 40), (20, 50), (None, 70), (10, 70)):
            settings = {
                "workdir": str(tmp_path),
                "data": {"sample_users": count} if count else {},
                "generate": {"base_url": server.base_url, "model": "any"},
                "prompts": {"scenario": "e-commerce"},
            }
            project = Project(settings, interactions=log(3000), items=items())
            assert project.generate().complete
            assert len(server.requests) == requests
            assert project.workspace.tables.interactions["user_id"].nunique() == (count or 40)
            assert not project.audit().leaks


def test_a_part_of_one_class_by_one_sample_is_put_down_to_it(tmp_path: Path) -> None:
    rows = [(user, (3 * user + k) % 60, 86_400 * k, label) for user in range(30) for k in range(20) for label in (0, 1)]
    log = pd.DataFrame(rows, columns=pd.Index(["user_id", "item_id", "timestamp", "label"]))
    log.to_parquet(tmp_path / "log.parquet")
    settings = '[data]\ninteractions = "log.parquet"\none_sample = true\n'
    (tmp_path / "kar.toml").write_text(settings)
    with pytest.raises(DataError, match=r"since .data. one_sample made events of the past of the"):
        Project.open(tmp_path / "kar.toml").workspace.data.split  # noqa: B018
    (tmp_path / "kar.toml").write_text(f"{settings}negatives = 2\n")
    assert Project.open(tmp_path / "kar.toml").workspace.data.split["drawn"].any()
