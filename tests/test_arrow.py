"""Stages as functions on record batches: the same as on one machine, nothing asked twice, no row that raises."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from support.jobs import prompts

from kar_aug import Project
from kar_aug.arrow import Ask, Encode, Gather, Render, prompt_batch
from kar_aug.arrow.rows import rows_of
from kar_aug.cache import StoreSpec, VectorStore
from kar_aug.cache.vectors.forgetting import forget_vectors
from kar_aug.config import LanguageModel
from kar_aug.engines.asking import Asking
from kar_aug.engines.stopping import Flag
from kar_aug.errors import ConfigError, DataError, GenerationError, LimitReached, StoreError
from kar_aug.generate.intake import Found
from kar_aug.testing import ChatServer, completion


def static_model(folder: Path) -> Path:
    model2vec = pytest.importorskip("model2vec")
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["[UNK]", "a", "film", "war", "about", "movie"]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    vectors = np.random.default_rng(0).standard_normal((len(words), 8)).astype(np.float32)
    model2vec.StaticModel(vectors, tokenizer, config={"normalize": False}).save_pretrained(folder)
    return folder


@pytest.fixture
def project(folder: Path, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    return Project.open(folder / "kar.toml", generate={"base_url": chat_server.base_url, "concurrency": 8})


def asked(server: ChatServer) -> Counter[str]:
    return Counter(request["messages"][-1]["content"] for request in server.requests)


def copy_of(function: Any) -> Any:
    """As a worker gets it."""
    return pickle.loads(pickle.dumps(function))


def test_prompts_of_rows_are_those_that_generate_asks(project: Project) -> None:
    for entity in ("user", "item"):
        render = copy_of(Render(project, entity, items=project.workspace.asking.tables.items))
        rows = rows_of(project.workspace, entity)
        batches = [batch for some in rows for batch in (some.slice(0, 7), some.slice(7))]
        made = pa.Table.from_batches([render(batch) for batch in batches])
        one_machine = pa.Table.from_batches([prompt_batch(project.prompts(entity))])
        assert made.sort_by("entity_id").equals(one_machine.sort_by("entity_id"))


def test_a_batch_gets_its_answers_and_a_second_time_asks_nothing(project: Project, chat_server: ChatServer) -> None:
    batch = prompt_batch(prompts(300)).append_column("mine", pa.array(range(300)))
    ask = copy_of(Ask(project))
    first = ask(batch)
    assert isinstance(first, pa.RecordBatch)
    assert first.column("mine").to_pylist() == list(range(300)), "rows keep their order and columns"
    assert set(first.column("status").to_pylist()) == {"ok"} and all(first.column("new").to_pylist())
    assert first.column("text")[7].as_py() == "About: entity 7" and len(chat_server.requests) == 300
    again = copy_of(ask)(pa.Table.from_batches([batch]))
    assert isinstance(again, pa.Table) and not any(again.column("new").to_pylist())
    assert again.column("text").to_pylist() == first.column("text").to_pylist()
    assert len(chat_server.requests) == 300
    done = Project.open(project.config.path("kar.toml")).cache.stats()
    assert done.counts["ok"] == 300


def refusing_some(server: ChatServer, request: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
    text = request["messages"][-1]["content"]
    if text.endswith("3"):
        return 400, {}, json.dumps({"error": {"message": "too long"}}).encode()
    return 200, {}, completion("" if text.endswith("4") else text)


def test_a_wrong_row_is_a_status(project: Project, chat_server: ChatServer) -> None:
    chat_server.behaviour = refusing_some
    rows = prompt_batch(prompts(10)).to_pylist()
    rows[0]["messages"], rows[1]["entity_id"], rows[2]["messages"] = "no JSON", "B00X", None
    done = Ask(project)(pa.RecordBatch.from_pylist(rows)).to_pylist()
    assert [row["status"] for row in done] == ["bad row"] * 2 + ["no prompt", "rejected", "empty"] + ["ok"] * 5
    assert "too long" in done[3]["reason"] and "JSONDecodeError" in done[0]["reason"] and done[4]["text"] is None
    with pytest.raises(DataError, match="'version'"):
        Ask(project)(pa.RecordBatch.from_pylist(rows).drop_columns(["version"]))


def asked_before(project: Project, chat_server: ChatServer) -> tuple[pa.RecordBatch, Ask]:
    """Prompts of which one was rejected and one came to nothing, and what asks those again."""
    chat_server.behaviour = refusing_some
    batch = prompt_batch(prompts(10))
    Ask(project)(batch)
    time.sleep(1.1)  # moments are whole seconds
    return batch, Ask(project, retry_failed=True)


def test_a_task_that_is_tried_again_does_not_pay_again_for_what_came_to_nothing(
    project: Project, chat_server: ChatServer
) -> None:
    batch, again = asked_before(project, chat_server)
    for _ in range(2):
        done = copy_of(again)(batch).to_pylist()
        assert [row["status"] for row in done[3:6]] == ["rejected", "empty", "ok"]
        assert len(chat_server.requests) == 12, "the rejected and the empty one, once more"


def test_of_two_copies_of_a_task_that_looked_at_the_same_time_one_pays_again(
    project: Project, chat_server: ChatServer
) -> None:
    batch, again = asked_before(project, chat_server)
    one, other = copy_of(again), copy_of(again)
    look = one._retried

    def look_before_the_other_has_asked(before: Sequence[Found]) -> set[int]:
        found = look(before)
        assert len(found) == 2 and other(batch).column("status")[4].as_py() == "empty"
        return found

    one._retried = look_before_the_other_has_asked
    assert one(batch).column("status").to_pylist()[3:6] == ["rejected", "empty", "ok"]
    assert asked(chat_server)["entity 4"] == 2, "before, and once more by one of the copies"


def test_rows_that_a_machine_cannot_read_stop_the_run_and_say_what_to_do(project: Project, tmp_path: Path) -> None:
    flag = Flag(tmp_path / "stopped")
    files = pa.Table.from_pylist([{"path": str(tmp_path / "gone.parquet"), "entity": ""}])
    (row,) = Asking({}, Ask(project), copy_of(flag))(files).to_pylist()
    assert row["status"] == "stopped" and "need the workdir" in row["reason"]
    assert isinstance(flag.why, GenerationError) and "gone.parquet" in str(flag.why)


def test_a_new_file_in_place_of_the_cache_is_opened(project: Project, chat_server: ChatServer) -> None:
    ask, batch = Ask(project), prompt_batch(prompts(5))
    ask(batch)
    first = ask.opened
    assert ask(batch) and ask.opened is first
    first.cache.close()
    for file in Path(ask._cache).parent.glob(f"{Path(ask._cache).name}*"):
        file.rename(file.with_name(f"old-{file.name}"))
    assert all(copy_of(ask)(batch).column("new").to_pylist()) and len(chat_server.requests) == 10


def test_a_file_of_another_machine_is_no_cache(project: Project) -> None:
    ask = copy_of(Ask(project))
    ask._machine = "the driver's"
    with pytest.raises(ConfigError, match="postgresql://"):
        ask(prompt_batch(prompts(1)))
    assert not Path(ask._cache).exists()


def test_who_was_forgotten_is_neither_shown_nor_asked(project: Project, chat_server: ChatServer) -> None:
    items = project.workspace.asking.tables.items
    (rows,) = rows_of(project.workspace, "user")
    joined, user = rows.slice(0, 5), rows.column("user_id")[0].as_py()
    events = joined.column("events").to_pylist()
    item, title = next((e["item_id"], items.set_index("item_id").title[e["item_id"]]) for e in events[1])
    before = Render(project, "user", items=items)(joined)
    assert title in before.column("messages")[1].as_py()
    project.forget(users=[user], items=[item])
    after = Render(project, "user", items=items)(joined)
    assert after.column("status").to_pylist()[0] == "forgotten" and after.column("messages")[0].as_py() is None
    assert title not in after.column("messages")[1].as_py()
    assert copy_of(Ask(project))(before.slice(0, 1)).column("status").to_pylist() == ["forgotten"]
    assert not chat_server.requests


def test_ids_are_read_as_the_settings_say_and_a_seller_of_an_item_is_no_user(project: Project) -> None:
    text = Project.open(project.config.path("kar.toml"), data={"id_type": "string"})
    (rows,) = rows_of(project.workspace, "item")
    sellers = pa.array([7] * rows.num_rows)
    made = Render(text, "item")(rows.append_column("user_id", sellers))
    assert sorted(map(json.loads, made.column("entity_id").to_pylist())) == sorted(
        map(str, rows.column("item_id").to_pylist())
    )


def test_rows_that_are_all_refused_end_no_job_and_a_refusing_server_does(
    project: Project, chat_server: ChatServer
) -> None:
    chat_server.behaviour = lambda *_: (400, {}, json.dumps({"error": {"message": "no such model"}}).encode())
    ask, batch = Ask(project), prompt_batch(prompts(20))
    for _ in range(2):
        assert set(ask(batch).column("status").to_pylist()) == {"failed"}
    with pytest.raises(Exception, match="no such model"):
        ask(batch)


def test_workers_with_the_same_rows_at_the_same_time_ask_once(project: Project, chat_server: ChatServer) -> None:
    chat_server.latency = 0.02
    batch = prompt_batch(prompts(60))
    folder = project.config.path("kar.toml")
    program = (
        "from pathlib import Path; from kar_aug import Project; from kar_aug.arrow import Ask, prompt_batch\n"
        "from support.jobs import prompts\n"
        f"project = Project.open(Path({str(folder)!r}), generate={{'base_url': {chat_server.base_url!r}}})\n"
        "print(set(Ask(project)(prompt_batch(prompts(60))).column('status').to_pylist()))"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program], cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True
    )
    with ThreadPoolExecutor(3) as pool:
        for done in pool.map(copy_of(Ask(project, workers=2)), [batch] * 3):
            assert set(done.column("status").to_pylist()) == {"ok"}
    assert other.communicate(timeout=60)[0].strip() == "{'ok'}"
    assert set(asked(chat_server).values()) == {1} and len(chat_server.requests) == 60


def test_one_budget_holds_for_all_workers(project: Project, chat_server: ChatServer, tmp_path: Path) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text('date = "2026-01-01"\n[models."test-model"]\nprompt = 0.0\ncompletion = 1000000.0\n')
    limited = project.workspace.changed(
        generate=LanguageModel(
            "test-model", chat_server.base_url, max_tokens=3, max_cost=60.0, prices=str(prices), concurrency=8
        )
    )
    with ThreadPoolExecutor(2) as pool:  # 3 dollars an answer
        halves = [prompt_batch(list(prompts(40))[start : start + 20]) for start in (0, 20)]
        ends = [pool.submit(Ask(limited, workers=2), half) for half in halves]
        assert any(isinstance(end.exception(), LimitReached) for end in ends)
    assert len(chat_server.requests) == 20


def test_a_share_of_the_limits_is_each_workers(project: Project) -> None:
    workspace = project.workspace.changed(generate=LanguageModel(concurrency=10, rpm=600.0, tpm=90_000.0))
    share = Ask(workspace, workers=3)._model
    assert (share.concurrency, share.rpm, share.tpm) == (3, 200.0, 30_000.0)
    for wrong in ({"max_requests": 5}, {"base_url": "local"}):
        with pytest.raises(ConfigError):
            Ask(project.workspace.changed(generate=LanguageModel(**wrong)))  # type: ignore[arg-type]


@pytest.fixture
def bell() -> Iterator[threading.Event]:
    BELLS["it"] = threading.Event()
    yield BELLS["it"]
    BELLS.clear()


BELLS: dict[str, threading.Event] = {}


def is_rung() -> bool:
    return BELLS["it"].is_set()


def test_a_stopped_worker_keeps_what_is_in_flight_and_asks_no_more(
    project: Project, chat_server: ChatServer, bell: threading.Event
) -> None:
    chat_server.latency = 0.05

    def ringing(server: ChatServer, request: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        if number == 30:
            bell.set()
        return 200, {}, completion("A film.")

    chat_server.behaviour = ringing
    ask = copy_of(Ask(project, is_stopped=is_rung))
    done = Counter(ask(prompt_batch(prompts(400))).column("status").to_pylist())
    assert set(done) == {"ok", "stopped"} and done["ok"] == len(chat_server.requests) < 400
    assert set(ask(prompt_batch(prompts(5, "another {}"))).column("status").to_pylist()) == {"stopped"}
    assert done["ok"] == len(chat_server.requests)


def test_wrong_rows_of_users_and_items_are_told_apart(project: Project) -> None:
    items = project.workspace.asking.tables.items
    (users,) = rows_of(project.workspace, "user")
    rows = users.slice(0, 4).to_pylist()
    rows[0]["events"], rows[1]["user_id"], rows[2]["events"][0]["timestamp"] = [], None, None
    done = Render(project, "user", items=items)(pa.RecordBatch.from_pylist(rows, schema=users.schema)).to_pylist()
    assert [row["status"] for row in done] == ["no prompt", "bad row", "bad row", None]
    assert "id is empty" in done[1]["reason"] and "timestamp is empty" in done[2]["reason"]
    with pytest.raises(ConfigError, match="all rows at once"):
        Render(Project.open(project.config.path("kar.toml"), prompts={"selection": "diverse"}), "user")


def test_what_items_are_may_come_with_the_events(project: Project) -> None:
    items = project.workspace.asking.tables.items
    (users,) = rows_of(project.workspace, "user")
    titles = items.set_index("item_id")[["title", "genres"]].to_dict("index")
    rows = users.slice(0, 5).to_pylist()
    for row in rows:
        row["events"] = [{**event, **titles[event["item_id"]]} for event in row["events"]]
    assert (
        Render(project, "user")(pa.RecordBatch.from_pylist(rows)).to_pylist()
        == Render(project, "user", items=items)(users.slice(0, 5)).to_pylist()
    )


def test_texts_are_encoded_and_vectors_gathered(project: Project, tmp_path: Path) -> None:
    encoder = static_model(tmp_path / "static")
    own = Project.open(project.config.path("kar.toml"), encode={"encoder": f"model2vec:{encoder}"})
    batch = pa.RecordBatch.from_pylist([{"text": text} for text in ("a film", None, "a film", "war")])
    done = copy_of(Encode(own))(batch)
    vectors = done.column("vector").to_pylist()
    assert vectors[1] is None and vectors[0] == vectors[2] != vectors[3] and done.column("text_key")[1].as_py() is None
    with VectorStore.writer(tmp_path / "store", StoreSpec("e", len(vectors[0]))) as writer:
        writer.append([10, 20], ["k", "k"], np.array([vectors[0], vectors[3]]))
    found = copy_of(Gather({"item_id": tmp_path / "store"}))(pa.RecordBatch.from_pydict({"item_id": [20, 5, None]}))
    assert found.column("item_id_vector").to_pylist() == [vectors[3], None, None]
    forget_vectors(tmp_path / "store", [20])
    again = copy_of(Gather({"item_id": tmp_path / "store"}))(pa.RecordBatch.from_pydict({"item_id": [10, 20]}))
    assert again.column("item_id_vector").to_pylist() == [vectors[0], None], "an engine's process lives on"


def test_shards_hold_an_answer_at_the_same_place_and_come_together_again(
    project: Project, tmp_path: Path, chat_server: ChatServer
) -> None:
    parts = [prompt_batch(list(prompts(60))[start::2]) for start in (0, 1)]
    folders = []
    for number, part in enumerate(parts):  # two machines with a cache each
        settings = {"base_url": chat_server.base_url, "cache": str(tmp_path / f"{number}.sqlite")}
        own = Project.open(project.config.path("kar.toml"), generate=settings)
        Ask(own)(part)
        folders.append(tmp_path / f"shards-{number}")
        assert own.cache.export(folders[-1], shards=4) == 30
    names = sorted(path.name for path in folders[0].iterdir())
    assert names == [f"0000{number}-of-00004.parquet" for number in range(4)]
    done = [project.cache.import_answers(folder) for folder in folders]
    assert [each.new for each in done] == [30, 30]
    assert not any(Ask(project)(prompt_batch(prompts(60))).column("new").to_pylist()), "nothing is asked again"
    with pytest.raises(StoreError, match="no shard of 8"):
        project.cache.export(folders[0], shards=8)
