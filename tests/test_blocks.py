"""Histories in blocks: a log that grows asks about what is new, and no sample is told of what came at its time."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kar_aug import Project
from kar_aug.audit import Finding
from kar_aug.cache import Link, VectorStore
from kar_aug.config import Config
from kar_aug.errors import ConfigError, LeakageError
from kar_aug.prompts.histories.blocks import block_of, owner
from kar_aug.testing import OpenAIServer

USERS, ITEMS, SIZE = 12, 24, 4  # more items than a column of twenty values could stand for
HOUR = 3600
KNOWLEDGE = f"user:kar:blocks-{SIZE}"


def write_log(rounds: int) -> None:
    """Each user has one event a round, of another item each time; all at other times, but for users 0 and 1."""
    turn, user = np.divmod(np.arange(rounds * USERS), USERS)
    random = np.random.default_rng(0)
    items = np.stack([random.permutation(ITEMS) for _ in range(USERS)])
    ratings = random.integers(1, 6, (USERS, ITEMS))
    frame = pd.DataFrame({"user_id": user, "item_id": items[user, turn], "rating": ratings[user, turn]})
    frame["timestamp"] = 800_000_000 + 12 * HOUR * turn + HOUR * np.maximum(user, 1)
    frame.to_parquet("interactions.parquet")


def title(item: int) -> str:
    """A word of its own for each item, which no number could follow."""
    return "".join(chr(97 + (7 * item + 5 * place) % 26) for place in range(6))


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: OpenAIServer) -> Path:
    """Sixteen rounds: four blocks of four events a user."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-key-0123456789")
    monkeypatch.chdir(tmp_path)
    pd.DataFrame({"item_id": np.arange(ITEMS), "title": [title(item) for item in range(ITEMS)]}).to_csv(
        "items.csv", index=False
    )
    pd.DataFrame({"user_id": np.arange(USERS), "gender": "F"}).to_csv("users.csv", index=False)
    write_log(16)
    Path("kar.toml").write_text(f"""
[data]
interactions = "interactions.parquet"
items = "items.csv"
users = "users.csv"
protocol = "temporal"
history_share = 0.1
test = 0.3
[prompts]
selection = "blocks"
max_events = {SIZE}
max_items = 0
[generate]
model = "test-model"
base_url = "{server.base_url}"
[encode]
encoder = "openai:hash"
base_url = "{server.base_url}"
[compare]
backbones = ["DeepFM"]
knowledge = ["user"]
controls = []
seeds = 1
epochs = 1
embedding_dim = 4
expert_hidden = 4
hidden_units = [4]
batch_size = 32
jobs = 1
""")
    return tmp_path


def opened(**prompts: Any) -> Project:
    return Project(Config.load(Path("kar.toml"), {"prompts": prompts}))


def made(**prompts: Any) -> Project:
    """All asked and encoded."""
    project = opened(**prompts)
    assert project.generate("user").complete
    project.encode()
    return opened(**prompts)


def asked(server: OpenAIServer) -> list[str]:
    return [request["messages"][-1]["content"] for request in server.chat.requests]


def store_of(project: Project, entity: str = "user") -> VectorStore:
    return VectorStore.open(project.workspace.paths.store(entity))


def test_a_log_that_grows_asks_about_new_blocks_only_and_appends_their_versions(
    folder: Path, server: OpenAIServer
) -> None:
    store = store_of(made())
    assert len(server.chat.requests) == 4 * USERS and store.versions == 4 * USERS and len(store) == USERS
    files = {path: path.read_bytes() for path in store.path.glob("*-part.*")}
    write_log(19)  # three events more: no block is full
    assert store_of(made()).versions == 4 * USERS and len(server.chat.requests) == 4 * USERS
    write_log(20)
    again = store_of(made())
    assert len(server.chat.requests) == 5 * USERS and again.versions == 5 * USERS
    assert all(path.read_bytes() == content for path, content in files.items() if path.exists())
    assert str(opened().inspect.user(3).link).count("3 5"), "the last that was asked"
    new = asked(server)[4 * USERS :]
    assert all(text.count(" rated ") == SIZE and "Gender" not in text for text in new)
    assert not opened().audit().leaks


def test_a_version_is_what_was_said_of_all_blocks_up_to_its_own(folder: Path) -> None:
    project = made()
    with project.workspace.open_cache() as cache:
        blocks = {text.entity_id: text for text in cache.knowledge(KNOWLEDGE)}
        versions = [text for text in project.workspace.asking.knowledge(cache, KNOWLEDGE) if text.entity_id == 3]
    said = [blocks[block_of(3, number)] for number in range(1, 5)]
    assert [version.as_of for version in versions] == [block.as_of for block in said]
    assert versions[2].text == "\n\n".join(block.text for block in said[:3])


def test_the_last_block_waits_until_it_is_full_unless_it_is_wanted_at_once(folder: Path, server: OpenAIServer) -> None:
    write_log(18)
    assert store_of(made()).versions == 4 * USERS
    store = store_of(made(unfinished_block=True))
    assert len(server.chat.requests) == 5 * USERS and store.versions == 5 * USERS
    write_log(19)
    grown = store_of(made(unfinished_block=True))
    assert len(server.chat.requests) == 6 * USERS, "it is asked again when it has grown"
    assert grown.versions == 5 * USERS, "and the version that it was is none any more"


@pytest.mark.slow
def test_compare_gives_each_sample_what_was_known_before_it_and_the_report_tells_by_age(
    folder: Path, server: OpenAIServer
) -> None:
    from support.training import step_by_step

    from kar_aug.compare.experiment import Experiment

    made()
    write_log(20)
    project = made()
    with step_by_step():
        compared = project.compare()
    (arm,) = [arm for arm in compared.comparison.arms if not arm.is_base]
    experiment: Experiment = compared.comparison.experiment
    samples, table = experiment.samples_of(arm, 0), experiment.tables(arm, 0)["user"]
    given, known = table.matrix()
    codes = samples.read(np.arange(len(samples)), {"user"})["user"]
    with project.workspace.open_cache() as cache:
        versions = list(project.workspace.asking.knowledge(cache, KNOWLEDGE))
    encoder = {text.text: text for text in versions}
    vectors = dict(zip(encoder, server_vectors(list(encoder)), strict=True))
    none = 0
    for sample, code in enumerate(codes.tolist()):
        row = samples.rows[sample]
        user, time = samples.vocabulary["user"][samples.places["user"][row]], samples.timestamps[row]
        before = [text for text in versions if text.entity_id == user and seconds(text.as_of) < time]
        assert known[code] == bool(before)
        if before:
            expected = vectors[max(before, key=lambda text: seconds(text.as_of)).text]
            np.testing.assert_allclose(given[code], expected, atol=1e-3)
        else:
            none += 1
    assert none and compared.comparison.coverage(arm)["user"] == 1.0
    page = compared.write().read_text()
    assert "age of the user&#39;s knowledge (0.0% of the rows have none)" in page and "under a week" in page
    served, serving = experiment.served_tables(arm, 0), store_of(project)
    assert served is not None and not served["user"].matrix()[1][0]
    assert (served["user"].matrix()[0][1:] == serving.gather(samples.vocabulary["user"][1:])).all()
    assert (project.export("served") / "saved_model.pb").exists()


def seconds(as_of: str | None) -> float:
    return pd.Timestamp(as_of or "").timestamp()


def server_vectors(texts: list[str]) -> Any:
    from kar_aug.testing import HashEncoder

    return HashEncoder(8).encode(texts)


def test_clean_knowledge_is_proved_for_each_sample_that_has_some(folder: Path) -> None:
    done = made().audit()
    results = {check.name: check for check in done.checks}
    told = results["samples come after all that they are told of their user"]
    assert told.result == "ok" and told.count > 50 and not done.unproved
    assert results["prompts of blocks show nothing after them"].count == 4 * USERS


def of_items() -> Project:
    """Two versions of each item, of the fourth and of the ninth round, as somebody made them of texts of their own."""
    text = Path("kar.toml").read_text()
    for former, now in (
        ('"user"', '"item"'),
        ("controls = []", 'controls = ["collaborative"]'),
        ("max_items = 0", ""),
        ('selection = "blocks"', ""),
    ):
        text = text.replace(former, now)
    Path("kar.toml").write_text(text)
    project = opened()
    assert project.generate("item").complete
    project.encode()
    project.encode(collaborative=True)
    paths, store = project.workspace.paths, VectorStore.open(project.workspace.paths.store("item"))
    keys, vectors = store.keys, store.gather(range(ITEMS))
    shutil.rmtree(store.path)
    with VectorStore.writer(paths.vectors(paths.knowledge("item")), store.spec) as writer:
        for turn in (3, 9):
            until = [pd.Timestamp(800_000_000 + 12 * HOUR * turn, unit="s").isoformat()] * ITEMS
            writer.append(list(range(ITEMS)), [keys[item] for item in range(ITEMS)], vectors + turn, versions=until)
    return opened()


@pytest.mark.slow
def test_compare_gives_samples_and_their_earlier_events_what_was_known_of_items_before_each(
    folder: Path, step_by_step: None
) -> None:
    from kar_aug.compare.experiment import Experiment

    project = of_items()
    compared = project.compare()
    experiment: Experiment = compared.comparison.experiment
    arm = next(arm for arm in compared.comparison.arms if arm.beside)
    samples, tables = experiment.samples_of(arm, 0), experiment.tables(arm, 0)
    (given, known), (beside, _) = tables["item"].matrix(), tables["item.collaborative"].matrix()
    store, (behaviour,) = store_of(project, "item"), experiment.stores(arm.companion, "item").values()
    read = samples.read(np.arange(len(samples)), {"item", "past_item"})
    events = samples.sequences["past"].before(samples.rows)
    plain = experiment.samples(0)
    met = plain.read(np.arange(len(samples)), {"past_item"})["past_item"]
    ids = samples.vocabulary["item"]
    earlier = 0
    for sample, row in enumerate(samples.rows):
        asked = [(read["item"][sample], ids[samples.places["item"][row]], samples.timestamps[row])]
        when = samples.timestamps[: row + 1][samples.places["user"][: row + 1] == samples.places["user"][row]]
        for code, place in zip(read["past_item"][sample], met[sample], strict=True):
            if place:
                earlier += 1
                own = (samples.places["item"] == place) & (samples.places["user"] == samples.places["user"][row])
                (time,) = samples.timestamps[own]
                assert time in when
                asked.append((code, ids[place], time))
        for code, item, time in asked:
            expected, there = store.gather([item], [time]), store.coverage([item], [time])
            assert known[code] == bool(there)
            if there:
                np.testing.assert_array_equal(given[code], expected[0])
                np.testing.assert_array_equal(beside[code], behaviour.gather([item])[0])
    assert earlier and events is not None and not known[0]
    assert "age of the item&#39;s knowledge" in compared.write().read_text()
    served = experiment.served_tables(arm, 0)
    assert served is not None and (served["item"].matrix()[0][1:] == store.gather(ids[1:])).all()
    assert (served["item.collaborative"].matrix()[0][1:] == behaviour.gather(ids[1:])).all()


def test_a_version_of_an_item_that_saw_more_than_it_says_is_found(folder: Path) -> None:
    project = of_items()
    checks = {check.name: check for check in project.audit().checks}
    told = checks["samples come after all that they are told of their item"]
    assert told.result == "ok" and told.count > 50
    later = pd.Timestamp(800_000_000 + 12 * HOUR * 14, unit="s").isoformat()
    name = project.workspace.paths.knowledge("item")
    with project.workspace.open_cache() as cache:
        cache.link([cache.linked(name, [5])[5]._replace(as_of=later)])
    (reached,) = leaks()
    assert reached.kind == "as-of" and reached.count and reached.example.startswith("item 5: what is said to be known")


def relink(change: Callable[[Link], Link], block: str) -> None:
    """Falsify what is stored beside an answer."""
    with opened().workspace.open_cache() as cache:
        cache.link([change(cache.linked(KNOWLEDGE, [block])[block])])


def leaks() -> list[Finding]:
    found = opened().audit().leaks
    with pytest.raises(LeakageError, match="See them with: kar-aug audit"):
        opened().compare()
    return found


def test_an_as_of_time_that_was_falsified_is_found_and_so_are_the_samples_that_it_reaches(folder: Path) -> None:
    project = made()
    with project.workspace.open_cache() as cache:
        earlier = cache.linked(KNOWLEDGE, [block_of(3, 2)])[block_of(3, 2)].as_of
    relink(lambda link: link._replace(as_of=earlier), block_of(3, 3))  # as if the third block ended with the second
    project.encode()
    told, reached = leaks()
    assert told.kind == reached.kind == "as-of" and told.count == 1 and told.example.startswith("block 3 of user 3")
    assert reached.count == SIZE and reached.example.startswith("user 3: what is said to be known as of")


def test_a_vector_that_stands_under_an_earlier_time_is_found(folder: Path) -> None:
    project = made()
    store = store_of(project)
    ids, times = store.versions_of([3])
    rows = store.rows(ids, times)
    with VectorStore.writer(store.path, store.spec) as writer:
        writer.append(ids[1:2], store.keys_at(rows[2:3]), store.vectors_at(rows[2:3]), versions=times[1:2])
    (reached,) = leaks()
    assert reached.kind == "as-of" and reached.count == SIZE


def test_a_prompt_that_shows_a_later_event_is_found(folder: Path) -> None:
    project = made()
    timeline = project.workspace.data.timeline
    (prompt,) = [p for p in project.workspace.asking.prompts("user") if owner(p.entity_id) == (3, 2)]
    late = timeline[timeline["user_id"] == 3].iloc[2 * SIZE]
    text = prompt.messages[-1]["content"].replace("</data>", f"{title(late.item_id)}\n</data>")
    planted = replace(prompt, messages=(prompt.messages[0], {"role": "user", "content": text}))
    with project.workspace.open_cache() as cache:
        answer = cache.get(cache.linked(KNOWLEDGE, [prompt.entity_id])[prompt.entity_id].key)
        assert answer is not None
        link = Link(KNOWLEDGE, prompt.entity_id, "planted", prompt.version, prompt.as_of)
        cache.put(replace(answer, key="planted", messages=planted.messages), [link])
    (shown,) = leaks()
    assert shown.kind == "prompt" and shown.count == 1 and f"item {late.item_id}" in shown.example


def test_a_user_who_is_forgotten_leaves_no_block_and_no_version(folder: Path) -> None:
    project = made()
    done = project.forget(users=[3])
    assert done.counts["answers"] == 4 and done.counts["vectors"]
    store = store_of(project)
    assert 3 not in store.ids and len(store) == USERS - 1
    with project.workspace.open_cache() as cache:
        assert all(owner(text.entity_id)[0] != 3 for text in cache.knowledge(KNOWLEDGE))


def test_an_online_store_has_the_last_version_with_its_own_time(folder: Path) -> None:
    project = made()
    project.export_vectors("online.parquet", entity="user")
    rows = pd.read_parquet("online.parquet").set_index("user_id").sort_index()
    last = project.workspace.data.timeline.groupby("user_id")["timestamp"].max()
    just_after = pd.to_datetime(last, unit="s", utc=True) + pd.Timedelta(1, "us")
    assert rows["event_timestamp"].tolist() == just_after.tolist()
    assert project.check_vectors("online.parquet", entity="user").current == USERS


def test_what_has_no_time_does_not_go_with_versions(folder: Path) -> None:
    with pytest.raises(ConfigError, match="leave them out"):
        opened(fallback="average")
    with pytest.raises(ConfigError, match='protocol = "temporal"'):
        Config.load(Path("kar.toml"), {"data": {"protocol": "user"}})
    text = Path("kar.toml").read_text().replace('selection = "blocks"', 'history = "blocks"')
    assert Config.parse(text, "kar.toml", folder).prompts.selection == "blocks", "as the setting was called before"
