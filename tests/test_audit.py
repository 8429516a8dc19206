"""Each kind of leak is planted in clean data and found; the clean data pass."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from support.every_kind import READ, tables

from kar_aug.audit import Finding, audit, inputs, require_clean, split
from kar_aug.cache import Answer, Link, StoreSpec, VectorStore, answer_key, text_key
from kar_aug.cli import main
from kar_aug.config import Config
from kar_aug.data import split_interactions
from kar_aug.data.building import build_samples
from kar_aug.data.encodings import Categories
from kar_aug.errors import LeakageError
from kar_aug.pipeline.comparing import Compared, compare
from kar_aug.pipeline.workspace import Workspace
from kar_aug.prompts import Prompt
from kar_aug.prompts.scenario import scenario_text

Edit = Callable[[str], str]


def all_the_time(own_tables: Path, folder: Path) -> Path:
    """A copy of the user's own data in which all users are there all the time."""
    shutil.copytree(own_tables, folder)
    frame = pd.read_parquet(own_tables / "interactions.parquet").sample(frac=0.8, random_state=1)
    turn = frame.groupby("user_id").cumcount()
    frame["timestamp"] = 800_000_000 + 3600 * (turn * frame["user_id"].nunique() + frame["user_id"])
    frame.to_parquet(folder / "interactions.parquet")
    return folder


@pytest.fixture
def folder(own_tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Such a copy, to plant leaks in."""
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(all_the_time(own_tables, tmp_path / "project"))
    return tmp_path / "project"


@pytest.fixture(scope="module")
def known(own_tables: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By protocol a workdir with knowledge of everybody, asked by today's prompts, and its vectors."""
    found = {}
    for protocol in ("user", "temporal"):
        opened = load(all_the_time(own_tables, tmp_path_factory.mktemp("known") / protocol), protocol=protocol)
        for source in ("user", "item"):
            answer(opened, source)
            encode(opened, source)
        found[protocol] = opened.config.work
    return found


@pytest.fixture(params=["user", "temporal"])
def workspace(folder: Path, known: dict[str, Path], request: pytest.FixtureRequest) -> Workspace:
    """With knowledge of everybody, and its vectors."""
    opened = load(folder, protocol=request.param)
    shutil.copytree(known[request.param], opened.config.work)
    return opened


def load(folder: Path, **data: Any) -> Workspace:
    return Workspace(Config.load(folder / "kar.toml", {"data": data}))


def again(workspace: Workspace) -> Workspace:
    """The same, read anew."""
    return Workspace(workspace.config)


def answer(workspace: Workspace, source: str, edit: Callable[[Prompt], Prompt] = lambda prompt: prompt) -> None:
    """Store an answer to each prompt, or to what `edit` makes of it."""
    answered = []
    for prompt in map(edit, workspace.asking.prompts(source)):
        key = answer_key("m", prompt.messages, {})
        found = Answer(key, "ok", f"About {prompt.entity_id}: {key}", "m", prompt.messages)
        answered.append((found, [Link(source, prompt.entity_id, key, prompt.version, prompt.as_of)]))
    with workspace.open_cache() as cache:
        cache.put_many(answered)


def encode(workspace: Workspace, source: str) -> None:
    """Store a vector for each answer."""
    with workspace.open_cache() as cache:
        texts = list(cache.knowledge(source))
    with VectorStore.writer(workspace.store_path(source), StoreSpec("e", 2)) as writer:
        keys = [text_key(text.text) for text in texts]
        latest = max((text.as_of for text in texts if text.as_of), default=None)
        writer.append([text.entity_id for text in texts], keys, np.ones((len(texts), 2)), as_of=latest)


def said(prompt: Prompt, text: str, **changes: Any) -> Prompt:
    """The prompt with another text in its last message."""
    return replace(prompt, messages=(prompt.messages[0], {"role": "user", "content": text}), **changes)


def leaks(workspace: Workspace) -> list[Finding]:
    """What is found, all of which has compare refuse."""
    try:
        assert not require_clean(again(workspace)).leaks
        return []
    except LeakageError as error:
        refused = error
    assert "See them with: kar-aug audit" in str(refused)
    return list(refused.findings)


def the_leak(workspace: Workspace) -> Finding:
    """The only one."""
    found = leaks(workspace)
    assert len(found) == 1, found
    return found[0]


def first_sample(workspace: Workspace, user: int) -> Any:
    """A user's first sample, of an item that the user's history does not have."""
    rows = workspace.data.split[workspace.data.split["user_id"] == user]
    seen = rows.loc[rows["part"] == "history", "item_id"]
    return rows[(rows["part"] != "history") & ~rows["item_id"].isin(seen)].iloc[0]


def test_clean_data_pass_and_everything_was_looked_at(workspace: Workspace) -> None:
    done = audit(workspace)
    assert done.leaks == [] and done.unproved == []
    counts = {check.name: check.count for check in done.checks}
    asked = len(list(workspace.asking.prompts("user")))
    samples = (workspace.data.split["part"] != "history").sum()
    assert counts["prompts show nothing of their user's samples"] == asked > 0
    assert counts["samples come after their user's history"] == counts["earlier events are earlier"]
    assert counts["samples are the split's"] == samples
    assert counts["vectors of items encode these texts"] == 40
    assert 0 < counts["samples come after the knowledge of their user"] <= samples
    assert done.verdict == f"no leak found by {len(done.checks)} checks"
    assert require_clean(again(workspace)) == done


def test_an_as_of_time_that_a_sample_does_not_follow(workspace: Workspace) -> None:
    user = next(workspace.asking.prompts("user")).entity_id
    assert isinstance(user, int)
    when = pd.to_datetime(first_sample(workspace, user)["timestamp"], unit="s").isoformat()

    def edit(prompt: Prompt) -> Prompt:
        return replace(prompt, as_of=when) if prompt.entity_id == user else prompt

    answer(workspace, "user", edit)
    found = the_leak(workspace)
    assert found.kind == "as-of" and f"user {user}: the knowledge is of {when}" in found.example, found


def test_knowledge_of_an_item_that_is_younger_than_samples_about_it(workspace: Workspace) -> None:
    answer(
        workspace,
        "item",
        lambda prompt: replace(prompt, as_of="2030-01-01T00:00:00") if prompt.entity_id == 3 else prompt,
    )
    found = the_leak(workspace)
    about = (workspace.data.split["item_id"] == 3) & (workspace.data.split["part"] != "history")
    assert found.kind == "as-of" and found.count == about.sum()


def test_an_item_of_a_sample_in_the_prompt_of_its_user(workspace: Workspace) -> None:
    user = next(workspace.asking.prompts("user")).entity_id
    assert isinstance(user, int)
    item = first_sample(workspace, user)["item_id"]

    def edit(prompt: Prompt) -> Prompt:
        shown = f"{prompt.messages[1]['content']}\nAlso: MOVIE {item}, ({1950 + item})."
        return said(prompt, shown) if prompt.entity_id == user else prompt

    answer(workspace, "user", edit)
    encode(workspace, "user")
    found = the_leak(workspace)
    assert found.kind == "prompt" and found.count == 1
    assert found.example == f"user {user}: item {item} of a sample, 'movie {item} {1950 + item}'"


def test_a_rating_of_a_sample_in_the_prompt_of_its_user(workspace: Workspace) -> None:
    """The item was rated twice: once in the history, and otherwise later."""
    frame = workspace.tables.interactions.copy()
    user = next(workspace.asking.prompts("user")).entity_id
    rows = frame[frame["user_id"] == user].index
    frame.loc[rows[0], ["item_id", "rating"]] = [7, 1]
    frame.loc[rows[1:-1][frame.loc[rows[1:-1], "item_id"] == 7], "item_id"] = 8
    frame.loc[rows[-1], ["item_id", "rating"]] = [7, 5]
    frame.to_parquet(workspace.config.path("interactions.parquet"))
    opened = again(workspace)
    if first_sample(opened, int(str(user)))["part"] == "history":
        pytest.skip("no such user")
    answer(opened, "user")
    encode(opened, "user")
    assert leaks(opened) == []

    def edit(prompt: Prompt) -> Prompt:
        text = prompt.messages[1]["content"]
        assert prompt.entity_id != user or "Movie 7 (1957) rated 1" in text
        return said(prompt, text.replace("Movie 7 (1957) rated 1", "Movie 7 (1957) rated 5"))

    answer(opened, "user", lambda prompt: edit(prompt) if prompt.entity_id == user else prompt)
    encode(opened, "user")
    found = the_leak(opened)
    assert found.kind == "prompt" and "the rating 5 of a sample of item 7" in found.example


def test_a_shorter_history_than_the_prompts_saw(folder: Path) -> None:
    generous = load(folder, history=10)
    answer(generous, "user")
    encode(generous, "user")
    kinds = {finding.kind for finding in leaks(load(folder, history=5))}
    assert kinds == {"as-of", "prompt"}


def test_prompts_of_the_one_protocol_leak_under_the_other(folder: Path) -> None:
    answer(load(folder, protocol="user"), "user")
    kinds = {finding.kind for finding in leaks(load(folder, protocol="temporal", history_share=0.05))}
    assert kinds == {"as-of", "prompt"}


def test_vectors_of_older_answers_whose_prompts_saw_samples(folder: Path) -> None:
    generous, strict = load(folder, history=10), load(folder, history=5)
    answer(generous, "user")
    encode(generous, "user")
    answer(strict, "user")
    found = the_leak(strict)
    assert found.kind == "vectors" and "Run: kar-aug encode" in found.text
    encode(strict, "user")
    assert leaks(strict) == []


def test_a_users_row_that_names_a_later_item(workspace: Workspace) -> None:
    later = {
        user: first_sample(workspace, user)["item_id"]
        for user in workspace.data.split.query("part != 'history'")["user_id"]
    }
    users = workspace.tables.users.assign(
        occupation=lambda frame: [
            f"fan of Movie {later[u]} ({1950 + later[u]})" if u in later else "" for u in frame["user_id"]
        ]
    )
    users.to_csv(workspace.config.path("users.csv"), index=False)
    opened = again(workspace)
    answer(opened, "user")
    encode(opened, "user")
    found = the_leak(opened)
    assert found.kind == "prompt" and found.count == len(list(opened.asking.prompts("user")))


def test_a_users_row_that_has_a_town_in_common_with_a_later_item(folder: Path) -> None:
    items, users = pd.read_csv(folder / "items.csv"), pd.read_csv(folder / "users.csv")
    items.assign(genres=[f"Town {item % 13}" for item in items["item_id"]]).to_csv(folder / "items.csv", index=False)
    users.assign(occupation=[f"Town {7 * user % 13}" for user in users["user_id"]]).to_csv(
        folder / "users.csv", index=False
    )
    shown = scenario_text("movies").replace('item_fields = ["title"]', 'item_fields = ["title", "genres"]')
    (folder / "towns.toml").write_text(shown)
    opened = Workspace(Config.load(folder / "kar.toml", {"prompts": {"scenario": "towns.toml"}}))
    for source in ("user", "item"):
        answer(opened, source)
        encode(opened, source)
    assert leaks(opened) == []


@pytest.mark.parametrize("source", ["user", "item"])
@pytest.mark.parametrize("statistic", ["count", "mean", "log", "bins", "words"])
def test_a_column_computed_with_the_test_part(workspace: Workspace, source: str, statistic: str) -> None:
    if workspace.config.data.protocol == "user" and source == "user":
        pytest.skip("a user is tested on, or not")
    found = the_leak(with_column(workspace, source, statistic, workspace.tables.interactions))
    assert found.kind == "statistic" and f"{source}s: 'popular' follows " in found.text


@pytest.mark.parametrize("statistic", ["count", "mean", "log", "bins", "words"])
def test_a_column_computed_without_the_test_part_is_clean(workspace: Workspace, statistic: str) -> None:
    before = workspace.data.split[workspace.data.split["part"] != "test"]
    assert leaks(with_column(workspace, "item", statistic, before)) == []


def with_column(workspace: Workspace, source: str, statistic: str, events: pd.DataFrame) -> Workspace:
    """A feature `popular` of the items or users, computed from these events."""
    frame = getattr(workspace.tables, f"{source}s")
    groups = events.groupby(f"{source}_id")["rating"]
    counts = groups.size().reindex(frame[f"{source}_id"]).fillna(0)
    column = {
        "count": counts,
        "mean": groups.mean().round(2).reindex(frame[f"{source}_id"]),
        "log": np.log1p(counts),
        "bins": counts > counts.median(),
        "words": pd.Series(np.where(counts > counts.quantile(0.6), "hit", "niche"), counts.index),
    }[statistic]
    values = column.to_numpy()
    frame.assign(popular=values.astype(int) if statistic == "bins" else values).to_csv(
        workspace.config.path(f"{source}s.csv"), index=False
    )
    data = replace(workspace.config.data, **{f"{source}_features": ("popular",)})
    return Workspace(replace(workspace.config, data=data))


def test_a_feature_that_is_the_label(workspace: Workspace) -> None:
    """Items that everybody clicks, or nobody does, and a column that says which."""
    frame = workspace.tables.interactions
    frame.assign(rating=np.where(frame["item_id"] % 2, 5, 1)).to_parquet(workspace.config.path("interactions.parquet"))
    items = workspace.tables.items
    items.assign(genres=np.where(items["item_id"] % 2, "x", "y")).to_csv(
        workspace.config.path("items.csv"), index=False
    )
    assert "label" in {finding.kind for finding in leaks(workspace)}


def test_a_user_who_is_both_trained_and_tested_on(workspace: Workspace) -> None:
    parts = workspace.data.split.copy()
    samples = parts.index[parts["part"] != "history"]
    parts.loc[samples[:50:2], "part"] = "test"
    check = split.parts_apart(parts, workspace.config.data.protocol)
    assert check.leaks and check.leaks[0].kind == "part"
    assert inputs.samples_are_the_split(workspace.samples, parts).leaks[0].count > 0


@pytest.mark.parametrize("tie", [False, True], ids=["later", "tied"])
def test_a_history_that_is_not_before_the_samples(workspace: Workspace, tie: bool) -> None:
    parts = workspace.data.split.copy()
    user = parts.loc[parts["part"] != "history", "user_id"].iloc[0]
    rows = parts.index[parts["user_id"] == user]
    parts.loc[rows[-1], "part"] = "history"
    if tie:
        parts.loc[rows[-1], "timestamp"] = parts.loc[rows[-2], "timestamp"]
        parts.loc[rows[:-2], "part"] = "history"
    found = split.history_before_samples(parts).leaks[0]
    assert found.kind == "history" and f"user {user}" in found.example


def test_an_earlier_event_that_is_the_sample_itself(workspace: Workspace) -> None:
    samples, split_ = workspace.samples, workspace.data.split
    assert inputs.earlier_events(samples, split_).leaks == ()
    events = samples.sequences["hist"]
    first_time = ~split_.duplicated(["user_id", "item_id"]).to_numpy()
    own = next(row for row in samples.rows[::-1] if first_time[row])
    stop = events.stop.copy()
    stop[own] = own + 1
    knowing = replace(samples, sequences={**samples.sequences, "hist": replace(events, stop=stop)})
    found = inputs.earlier_events(knowing, split_).leaks[0]
    assert found.kind == "history" and found.count == 1


def test_those_who_read_too_much_are_counted_one_by_one(workspace: Workspace) -> None:
    samples, split_ = workspace.samples, workspace.data.split
    events = samples.sequences["hist"]
    more = np.random.default_rng(0).integers(0, 3, len(events.stop))
    late = replace(events, stop=np.minimum(events.stop + more, len(events.kept)))
    knowing = replace(samples, sequences={**samples.sequences, "hist": late})
    begins = split_.groupby(["user_id", "item_id"])["moment"].min().to_dict()
    users, moments, items = split_["user_id"].to_numpy(), split_["moment"].to_numpy(), samples.vocabulary["item"]
    reads = knowing.read(np.arange(len(samples)), {"hist_item"})["hist_item"]
    wrong = [
        any(begins.get((users[row], items[place]), moments[row]) >= moments[row] for place in read if place)
        for row, read in zip(samples.rows, reads, strict=True)
    ]
    assert 0 < sum(wrong) < len(samples)
    assert inputs.earlier_events(knowing, split_).leaks[0].count == sum(wrong)


def test_an_earlier_event_of_somebody_else(workspace: Workspace) -> None:
    samples = workspace.samples
    events = samples.sequences["hist"]
    shifted = replace(events, first=events.first - 1, stop=np.maximum(events.stop - 1, events.first))
    others = replace(samples, sequences={**samples.sequences, "hist": shifted})
    assert inputs.earlier_events(others, workspace.data.split).leaks[0].kind == "history"


def test_vocabularies_and_scales_that_were_fitted_on_all_parts(folder: Path) -> None:
    items = pd.read_csv(folder / "items.csv")
    items.assign(price=np.arange(len(items)) ** 2.0).to_csv(folder / "items.csv", index=False)
    opened = load(folder)
    tables, parts = opened.data.feature_tables, opened.data.split.copy()
    tested = parts.loc[parts["part"] == "test", "item_id"].unique()[:5]
    parts.loc[parts["item_id"].isin(tested), "part"] = "test"  # five that nobody is trained on
    everything = parts.assign(part="train")
    found = {}
    for name, fitted_on in (("all", everything), ("training", parts)):
        built = build_samples(tables, fitted_on, item_features=("genres",), numeric={"price": "standard"})
        found[name] = {finding.text for finding in inputs.fitted_on_training(built, parts).leaks}
    assert found["training"] == set()
    assert {text.split("'")[1] for text in found["all"]} >= {"item_id", "price"}


def test_sequences_of_some_events_are_told_with_what_all_of_them_show(workspace: Workspace) -> None:
    tables, parts = workspace.data.feature_tables, workspace.data.split
    for settings in ({"events": "clicks"}, {"sequences": {"liked": "rating > 3", "disliked": "rating < 3"}}):
        built = build_samples(tables, parts, **settings)
        assert not inputs.fitted_on_training(built, parts).leaks, settings
    everything = parts.assign(part="train", rating=np.arange(len(parts)) % 9)
    built = build_samples(tables, everything, events="clicks")
    assert inputs.fitted_on_training(built, parts).leaks, "ratings that the parts do not show"


@pytest.mark.parametrize("name", ["hist_studios", "hist_tags"])
def test_values_of_events_of_which_there_are_several_are_fitted_on_the_training_part(name: str) -> None:
    given = tables(int)
    parts = split_interactions(given.interactions, protocol="temporal", validation=0.2, test=0.3)
    built = build_samples(given, parts, replace(READ, event_features=("studios", "tags"), context=(), numeric={}))
    assert not inputs.fitted_on_training(built, parts).leaks
    known = built.encodings[name]
    assert isinstance(known, Categories)
    more = replace(built, encodings={**built.encodings, name: Categories((*known.values, "later"))})
    assert [leak.text for leak in inputs.fitted_on_training(more, parts).leaks] == [
        f"The feature {name!r} was fitted on more than the training part."
    ]


def test_ids_numbered_by_popularity_in_all_rows(workspace: Workspace) -> None:
    by_count = workspace.data.split["item_id"].value_counts().index.tolist()
    before = workspace.data.split.loc[workspace.data.split["part"] != "test", "item_id"].value_counts().index.tolist()
    found = {}
    for name, order in (("all", by_count), ("before", before)):
        vocabulary: dict[str, list[Any]] = {**workspace.samples.vocabulary, "item": [None, *order]}
        found[name] = inputs.vocabularies(replace(workspace.samples, vocabulary=vocabulary), workspace.data.split).leaks
    assert found["before"] == () and found["all"][0].kind == "statistic"


def test_texts_without_prompt_and_as_of_time_are_unproved_not_clean(workspace: Workspace) -> None:
    with workspace.open_cache() as cache:
        for source in ("user", "item"):
            key = answer_key("somebody", [], {"of": source})
            cache.put(Answer(key, "ok", "A text.", "somebody", []), [Link(source, 1, key, "imported", None)])
    for source in ("user", "item"):
        encode(workspace, source)
    done = audit(again(workspace))
    assert done.leaks == [] and {finding.kind for finding in done.unproved} == {"as-of", "prompt"}
    assert "cannot be proved clean" in require_clean(again(workspace)).verdict


def test_vectors_of_texts_that_nobody_stored_are_unproved(folder: Path) -> None:
    opened = load(folder)
    for source in ("user", "item"):
        with VectorStore.writer(opened.store_path(source), StoreSpec("e", 2)) as writer:
            writer.append(
                [1, 2], ["k", "l"], np.ones((2, 2)), as_of="1990-01-01T00:00:00" if source == "user" else None
            )
    done = audit(opened)
    assert done.leaks == [] and [(f.kind, f.count) for f in done.unproved] == [("vectors", 2)], "users' are old enough"


def test_where_an_order_is_given_equal_times_are_no_leak(folder: Path) -> None:
    """Every event of a user has the same time: only the order tells."""
    frame = pd.read_parquet(folder / "interactions.parquet")
    frame["order"] = frame.groupby("user_id").cumcount()
    frame["timestamp"] = 800_000_000
    frame.to_parquet(folder / "interactions.parquet")
    opened = load(folder)
    answer(opened, "user")
    encode(opened, "user")
    assert leaks(opened) == []
    answer(opened, "user", lambda prompt: replace(prompt, as_of="2000-01-01T00:00:00"))
    assert the_leak(opened).kind == "as-of"


def kar_aug(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_of_knowledge_that_no_arm_reads_a_leak_is_none(workspace: Workspace) -> None:
    answer(workspace, "user", lambda prompt: replace(prompt, as_of="2030-01-01T00:00:00"))
    with pytest.raises(LeakageError, match="their user's knowledge"):
        require_clean(workspace)
    assert require_clean(workspace, ["item"]).leaks == []
    answer(workspace, "item", lambda prompt: replace(prompt, as_of="2030-01-01T00:00:00"))
    with pytest.raises(LeakageError, match="their item's knowledge"):
        require_clean(workspace, ["item"])


@pytest.mark.slow
@pytest.mark.usefixtures("step_by_step")
def test_compare_audits_what_its_arms_read(folder: Path) -> None:
    settings = (folder / "kar.toml").read_text().replace("[data]", "[data]\nevent_features = []")
    (folder / "kar.toml").write_text(settings.replace("epochs = 2", "epochs = 1"))
    opened = load(folder)
    for source in ("user", "item"):
        answer(opened, source)
        encode(opened, source)
    answer(opened, "user", lambda prompt: replace(prompt, as_of="2030-01-01T00:00:00"))

    def compared(knowledge: str) -> Compared:
        changes = {"compare": {"knowledge": [knowledge], "controls": []}}
        return compare(Workspace(Config.load(folder / "kar.toml", changes)))

    with pytest.raises(LeakageError, match="their user's knowledge"):
        compared("user")
    audited = compared("item").audited
    assert audited is not None and audited.leaks == []


@pytest.mark.usefixtures("step_by_step")
def test_the_command_explains_and_compare_refuses(folder: Path) -> None:
    settings = (folder / "kar.toml").read_text()  # the fewer inputs, the sooner a model is built
    (folder / "kar.toml").write_text(
        settings.replace("[data]", "[data]\nevent_features = []").replace("epochs = 2", "epochs = 1")
    )
    opened = load(folder)
    for source in ("user", "item"):
        answer(opened, source)
        encode(opened, source)
    done = kar_aug("audit")
    assert done.exit_code == 0 and "no leak found by" in done.output, done.output
    for source in ("user", "item"):
        answer(opened, source, lambda prompt: replace(prompt, as_of="2030-01-01T00:00:00"))
    done = kar_aug("audit")
    assert done.exit_code == 1, done.output
    samples = (opened.data.split["part"] != "history").sum()
    assert f"leak: {samples} samples are not later than the as-of time of their user's knowledge." in done.output
    assert "for example user 0: the knowledge is of 2030-01-01T00:00:00+00:00" in done.output
    refused = kar_aug("compare")
    assert refused.exit_code == 2 and "Traceback" not in refused.output
    assert "The comparison would be worthless" in refused.output and "kar-aug audit" in refused.output
    assert not (folder / ".kar/report.html").exists()
    done = kar_aug("compare", "--unaudited")
    assert done.exit_code == 0, done.output
    assert "the comparison ran with --unaudited" in (folder / ".kar/report.html").read_text()
    assert "The comparison ran with --unaudited" in (folder / ".kar/results.md").read_text()
