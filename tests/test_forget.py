"""Forgetting a user: nothing of hers is in any file afterwards, and no later run takes her in again."""

from __future__ import annotations

import json
import shutil
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from kar_aug import Project, VectorStore
from kar_aug._helpers.files import atomic_path
from kar_aug.cache import Answer, BatchBook, Claims, Link, Order, Request, TextCache, answer_key
from kar_aug.cache.texts.forgetting import Whom, forget_entities
from kar_aug.cache.texts.spilt import Spill
from kar_aug.cli import main
from kar_aug.compare.book import BOOK
from kar_aug.errors import StoreError
from kar_aug.pipeline.workspace.at_work import at_work
from kar_aug.pipeline.workspace.forgotten import ForgottenIds
from kar_aug.pipeline.workspace.passed_on import passed_on
from kar_aug.testing import ChatServer, completion

# An encoder beside kar.toml that needs no model: of each text other numbers.
ENCODER = """
import hashlib
import numpy as np
class Hashed:
    name, dimension = "hashed", 16
    def encode(self, texts):
        seeds = [int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) for text in texts]
        return np.stack([np.random.default_rng(seed).normal(size=16) for seed in seeds]).astype("float32")
def load(options):
    return Hashed()
"""
MARKER = "Zebrakeeper"  # what user 7 is, and nobody else: in her row, her prompt and her answer
PRICES = '[models]\n"test-model" = { prompt = 1000, completion = 2000 }\n'


def answer(server: ChatServer, request: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
    asked = request["messages"][-1]["content"]
    return 200, {}, completion(f"An answer of its own, {MARKER if MARKER in asked else hash(asked)}.")


@pytest.fixture
def folder(own_tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose user 7 has an occupation of her own."""
    project = Path(shutil.copytree(own_tables, tmp_path / "project"))
    users = pd.read_csv(project / "users.csv")
    users["occupation"] = [MARKER if user == 7 else "clerk" for user in users["user_id"]]
    users.to_csv(project / "users.csv", index=False)
    (project / "hashed.py").write_text(ENCODER)
    (project / "prices.toml").write_text(PRICES)
    settings = (project / "kar.toml").read_text()
    settings = settings.replace("max_tokens = 16", 'max_tokens = 16\nprices = "prices.toml"')
    settings = settings.replace(
        'user_features = ["gender"]', 'user_features = ["gender", "occupation"]\nuser_ids = true'
    )
    (project / "kar.toml").write_text(settings + '[encode]\nencoder = "hashed:load"\n')
    monkeypatch.chdir(project)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    return project


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(answer) as server:
        yield server


def project(server: ChatServer, **changes: Any) -> Project:
    prompts = {"max_items": 3, **changes.pop("prompts", {})}
    return Project.open("kar.toml", generate={"base_url": server.base_url}, prompts=prompts, **changes)


def kar_aug(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["forget", *arguments])


def files(*folders: Path) -> Iterator[tuple[Path, bytes]]:
    for folder in folders:
        yield from ((path, path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file())


def holding(what: bytes, *folders: Path) -> list[str]:
    """The files in which these bytes are."""
    return [path.name for path, content in files(*folders) if what in content]


def traces(folder: Path) -> list[bytes]:
    """What tells of user 7: her marker, her answer as it came (packed), and her vector's own bytes."""
    with TextCache(folder / ".kar" / "answers.sqlite") as cache:
        raw = cache.of_entity("user", 7)
    assert raw is not None and MARKER in raw.text and MARKER in str(raw.messages)
    vector = VectorStore.open(folder / ".kar/vectors/user").gather([7])
    return [MARKER.encode(), zlib.compress(raw.raw), vector.tobytes(), raw.key.encode()]


def test_no_file_holds_anything_of_a_forgotten_user(folder: Path, server: ChatServer) -> None:
    work, out = folder / ".kar", folder / "out"
    first = project(server, prompts={"max_events": 5})
    first.generate()  # answers that the next prompts supersede, and an encoding of them
    first.encode()
    opened = project(server)
    opened.generate()
    shutil.rmtree(work / "vectors")  # of another prompt version: not what this is about
    opened.encode()
    opened.prepare()
    opened.cache.export(out / "answers.parquet")
    opened.export_vectors(out / "served", entity="user")
    left_by_a_killed_writer = work / "vectors/user/00077-part.ids.npy"
    shutil.copy(work / "vectors/user/00000-part.ids.npy", left_by_a_killed_writer)
    spent, told = opened.cost().by_model[0], traces(folder)
    kept = VectorStore.open(work / "vectors/user").gather([8])
    assert all(holding(trace, work) for trace in told) and holding(MARKER.encode(), out)
    with sqlite3.connect(work / "answers.sqlite") as connection:
        links = connection.execute("SELECT count(*) FROM knowledge").fetchone()[0]

    shown = kar_aug("--user", "7", "--dry-run")
    assert shown.exit_code == 0 and "Would be deleted" in shown.output, shown.output
    assert all(holding(trace, work) for trace in told), "nothing was deleted"
    assert kar_aug("--user", "7").exit_code == 1, "nobody said yes"
    assert all(holding(trace, work) for trace in told)

    done = kar_aug("--user", "7", "--yes")
    assert done.exit_code == 0, done.output
    for trace in told:
        assert holding(trace, work, out) == []
    assert not left_by_a_killed_writer.exists()
    assert not (work / "answers.sqlite-wal").exists() or not (work / "answers.sqlite-wal").stat().st_size
    counts = {line[:-6].strip(): line[-6:].strip() for line in done.output.splitlines()}
    assert counts["answers"] == "1" and counts["superseded answers, whose nobody knows"] == "60", done.output
    assert counts["published vectors"] == "1" and "asked of test-model" in done.output
    with sqlite3.connect(work / "answers.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM knowledge").fetchone()[0] == links - 1
    np.testing.assert_array_equal(VectorStore.open(work / "vectors/user").gather([8]), kept)
    with pytest.raises(StoreError):
        VectorStore.open(work / "vectors/user").gather([7])
    after = project(server)
    assert after.cost().by_model[0] == spent, "money is remembered"
    assert after.check_vectors(out / "served", entity="user").sound

    again = kar_aug("--user", "7", "--yes")
    assert again.exit_code == 0 and "nothing is kept of them" in again.output


def test_a_later_run_leaves_the_user_out_until_she_is_let_in_again(folder: Path, server: ChatServer) -> None:
    opened = project(server)
    opened.generate()
    shutil.copy(".kar/answers.sqlite", "backup.sqlite")
    opened.forget(users=[7])
    asked = server.answered
    assert 7 not in opened.workspace.tables.ids("user") and 8 in opened.workspace.tables.ids("user")
    opened.generate()
    opened.cache.import_answers("backup.sqlite")
    opened.encode()
    assert server.answered == asked, "neither she nor anybody else is asked about"
    assert holding(MARKER.encode(), folder / ".kar") == [], "also where a backup had brought her back"

    assert kar_aug("--user", "7", "--unforget").exit_code == 0
    back = project(server)
    back.generate()
    assert server.answered == asked + 1 and 7 in back.workspace.tables.ids("user")


def test_an_answer_that_others_share_stays_theirs_and_one_of_her_group_goes(folder: Path, server: ChatServer) -> None:
    with TextCache(folder / ".kar" / "answers.sqlite") as cache:
        for kind, text, users in (("user", "shared", [7, 8]), ("user:profile", "hers", [7])):
            key = answer_key("m", [], {"text": text})
            cache.put(Answer(key, "ok", text, "m", []), [Link(kind, user, key, "v") for user in users])
        part = answer_key("m", [], {"text": "part"})
        cache.put(Answer(part, "ok", "a part of her past", "m", []), [Link("history", "7 1.1", part, "v")])
        cache.fail("f", "it said no", 3, link=Link("user", 7, "f", "v"))
        group = answer_key("m", [], {"text": "group"})
        cache.put(Answer(group, "ok", "of both", "m", []), [Link("user:kar:collective-2", 1, group, "v")])
        spilt = answer_key("m", [], {"text": "spilt"})
        spill = Spill(cache)
        for user in (7, 8):
            late = Answer(f"{spilt}{user}", "ok", f"spilt of {user}", "m", [])
            spill.add([(late, [Link("user", user, late.key, "v")])])
    (folder / ".kar/clusters").mkdir()
    groups = pd.DataFrame({"cluster": [0, 1, 1], "id": [9, 7, 8]})
    groups.to_parquet(folder / ".kar/clusters/user-2-interactions-abc.parquet")
    done = project(server).forget(users=["7"])
    assert holding(b"spilt of 7", folder / ".kar") == [] and len(holding(b"spilt of 8", folder / ".kar")) == 1
    assert not list((folder / ".kar/clusters").iterdir())
    assert done.counts["answers"] == 3 and done.counts["answers beside the cache"] == 1
    assert done.counts["links to answers that others have too"] == 1
    assert done.counts["failures"] == 1
    with TextCache(folder / ".kar" / "answers.sqlite") as cache:
        hers, theirs = cache.of_entity("user", 7), cache.of_entity("user", 8)
        assert hers is None and theirs is not None and theirs.text == "shared"
        assert cache.counts()["ok"] == 1 and cache.failures() == []


def test_a_batch_at_the_server_goes_on_without_the_user_and_is_named(folder: Path, server: ChatServer) -> None:
    questions = {
        user: {"model": "m", "messages": [{"content": f"of {user} {MARKER}"}], "parameters": {}} for user in (7, 8)
    }
    with TextCache(folder / ".kar" / "answers.sqlite") as cache:
        requests = [Request(str(user), q, (Link("user", user, str(user), "v"),)) for user, q in questions.items()]
        book = BatchBook(cache)
        batch = book.prepare(requests, None, [Order(r.key, "m", 1.0) for r in requests])
        book.note(batch.marker, batch_id="batch_17", state="running")
    done = project(server).forget(users=[7])
    assert done.counts["requests in batches"] == 1 and any("batch_17" in sentence for sentence in done.elsewhere)
    with TextCache(folder / ".kar" / "answers.sqlite") as cache:
        assert [request.key for request in BatchBook(cache).requests(batch.marker)] == ["8"]
        assert cache.spent("m") == 2.0, "what was sent may be charged"
    assert holding(b"of 7 ", folder / ".kar") == []


def test_while_a_job_runs_it_is_refused_in_one_line(folder: Path, server: ChatServer) -> None:
    with TextCache(folder / ".kar" / "answers.sqlite") as cache, Claims(cache):
        refused = kar_aug("--user", "7", "--yes")
        assert not (folder / ".kar/forgotten.json").exists()
    assert refused.exit_code == 2
    assert [line for line in refused.output.splitlines() if "a job is running" in line], refused.output


def test_while_a_comparison_runs_it_is_refused_and_afterwards_it_is_not(folder: Path, server: ChatServer) -> None:
    with at_work(folder / ".kar", "compare"):
        refused = kar_aug("--user", "7", "--yes")
        assert not (folder / ".kar/forgotten.json").exists()
        assert kar_aug("--user", "7", "--dry-run").exit_code == 0
    assert refused.exit_code == 2 and "compare is running" in refused.output, refused.output
    (folder / ".kar/at-work/compare-1-left").touch()  # by a process that was killed
    assert kar_aug("--user", "7", "--yes").exit_code == 0
    assert [path.name for path in (folder / ".kar/at-work").iterdir() if path.name[0] != "."] == []


def test_what_writes_copies_is_waited_for_and_has_said_where_before_it_writes(
    folder: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, refused = project(server), []
    opened.generate(only="user")

    def somebody_is_forgotten(path: Path) -> Any:
        noted = {Path(each.where).name for each in passed_on(folder / ".kar")}
        refused.append((path.name, path.name in noted, kar_aug("--user", "7", "--yes").exit_code))
        return atomic_path(path)

    for module in ("kar_aug.generate.jsonl", "kar_aug.cache.texts.parquet", "kar_aug.inspect.view"):
        monkeypatch.setattr(f"{module}.atomic_path", somebody_is_forgotten)
    opened.export_requests("requests.jsonl", only="item")
    opened.cache.export("answers.parquet")
    opened.cache.export("shards", shards=1)
    opened.view("page.html")
    names = ["requests.jsonl", "answers.parquet", "00000-of-00001.parquet", "page.html"]
    assert refused == [(name, True, 2) for name in names]
    assert kar_aug("--user", "7", "--yes").exit_code == 0


ENGINE = """
from kar_aug import Project
from kar_aug.errors import StoreError
def generate(job, watch, *, address, workers):
    try:
        Project(job.workspace.config).forget(users=[7])
    except StoreError as error:
        return f"{error} {7 in job.workspace.tables.ids('user')}"
"""


def test_while_an_engine_asks_it_is_refused_and_the_engine_has_nobody_who_was_forgotten_before(
    folder: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "in_threads.py").write_text(ENGINE)
    monkeypatch.syspath_prepend(str(folder))
    opened = project(server)
    assert "generate is running" in str(opened.generate(engine="in_threads:generate"))
    project(server).forget(users=[7])
    assert str(opened.generate(engine="in_threads:generate")).endswith("False")


def test_a_project_that_was_open_leaves_out_whom_another_process_forgot(folder: Path, server: ChatServer) -> None:
    open_before = project(server)
    assert 7 in open_before.workspace.tables.ids("user")
    project(server).forget(users=[7])
    open_before.prepare()
    assert 7 not in open_before.workspace.tables.ids("user")


def test_answers_that_come_after_the_user_was_forgotten_are_dropped_and_counted(
    folder: Path, server: ChatServer
) -> None:
    opened, sent = project(server), folder / "requests.jsonl"
    opened.export_requests(sent, only="user")
    requests = [json.loads(line) for line in sent.read_text().splitlines()]
    said = folder / "responses.jsonl"
    with said.open("wb") as file:
        for request in requests:
            hers = MARKER in str(request["body"]["messages"])
            body = json.loads(completion(f"about {MARKER if hers else request['custom_id']}"))
            line = {"custom_id": request["custom_id"], "response": {"status_code": 200, "body": body}}
            file.write(json.dumps(line).encode() + b"\n")
    sent.rename(folder / "moved.jsonl")  # where nobody here knows
    opened.forget(users=[7])
    for _ in range(2):
        result = CliRunner().invoke(main, ["generate", "--import-jsonl", str(said), "--only", "user"])
        assert result.exit_code == 0 and "1 answers may be about users or items that were forgotten" in " ".join(
            result.output.split()
        ), result.output
        assert holding(MARKER.encode(), folder / ".kar") == []
        with TextCache(folder / ".kar" / "answers.sqlite") as cache:
            assert cache.counts()["ok"] == len(requests) - 1
        assert sum(each.requests for each in project(server).cost().rows) == len(requests), "what it cost is remembered"


def responses_to(requests: Path, to: Path) -> Path:
    """What a provider says to a file of requests."""
    lines = []
    for request in map(json.loads, requests.read_text().splitlines()):
        body = json.loads(completion(f"about {request['custom_id']}"))
        lines.append(json.dumps({"custom_id": request["custom_id"], "response": {"status_code": 200, "body": body}}))
    to.write_text("\n".join(lines))
    return to


def test_answers_that_were_imported_and_forgotten_cost_nothing_when_they_come_again(
    folder: Path, server: ChatServer
) -> None:
    opened, sent = project(server), folder / "requests.jsonl"
    opened.export_requests(sent, only="user")
    said = responses_to(sent, folder / "responses.jsonl")
    opened.import_responses(said, only="user")
    spent = opened.cost().by_model[0]
    opened.forget(users=[7])
    opened.import_responses(said, only="user")
    assert opened.cost().by_model[0] == spent


def test_open_questions_about_others_stay_theirs(folder: Path, server: ChatServer) -> None:
    opened, sent = project(server), folder / "requests.jsonl"
    opened.export_requests(sent)
    asked = {line["custom_id"]: MARKER in str(line) for line in map(json.loads, sent.read_text().splitlines())}
    opened.forget(users=[7])
    listed = ForgottenIds.read(folder / ".kar")
    assert {key: listed.of_question(key) is not None for key in asked} == asked and any(asked.values())


def test_she_is_forgotten_though_prompts_cannot_be_rendered_any_more(folder: Path, server: ChatServer) -> None:
    opened = project(server)
    opened.generate(only="user")
    opened.export_requests(folder / "requests.jsonl", only="item")
    (folder / "users.csv").rename(folder / "moved.csv")
    done = project(server).forget(users=[7])
    assert done.counts["answers"] == 1 and "the prompts cannot be rendered" in str(done)
    assert ForgottenIds.read(folder / ".kar").holds("user", 7)


@pytest.mark.parametrize("by", ["interactions", "vectors"])
def test_to_forget_who_was_exported_draws_no_groups(by: str, folder: Path, server: ChatServer) -> None:
    project(server).export_requests(folder / "requests.jsonl")
    done = project(server, prompts={"user_clusters": 3, "cluster_by": by}).forget(users=[7])
    assert done.counts["exported requests"] and not (folder / ".kar/clusters").exists()


def test_files_in_the_temporary_folder_are_told_by_where_their_cache_lies(
    folder: Path, server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "temporary"
    shared.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(shared))
    for work in (folder / ".kar", tmp_path / "other"):
        with TextCache(work / "answers.sqlite") as cache:
            spill = Spill(cache)
            spill._places = spill._places[1:]  # a disk that is full
            spill.add([(Answer("k", "ok", f"spilt of {work.name}", "m", []), [Link("user", 7, "k", "v")])])
    assert len(list(shared.iterdir())) == 2
    assert project(server).forget(users=[7]).counts["answers beside the cache"] == 1
    assert holding(b"spilt of", shared) == [next(shared.iterdir()).name] and holding(b"spilt of other", shared)
    (folder / ".kar/answers-not-stored-1.jsonl").mkdir()  # which cannot be read
    assert "may hold answers about them" in str(project(server).forget(users=[7]))


def test_vectors_mixed_with_groups_that_are_drawn_anew_go_and_it_is_said(folder: Path, server: ChatServer) -> None:
    groups = {"max_events": 5, "user_clusters": 3, "min_events": 1}
    opened = project(server, prompts=groups)
    opened.generate("user")
    opened.encode()
    mixed = opened.workspace.paths.store("user")
    assert 8 in VectorStore.open(mixed).ids
    done = project(server, prompts=groups).forget(users=[7])
    assert not mixed.exists() and done.counts["stores of vectors of groups"] == 2
    assert any("drawn anew" in sentence for sentence in done.follows)
    with TextCache(folder / ".kar" / "answers.sqlite") as cache:
        assert cache.count_linked("user:kar:collective-3") == 0, "no number is another group's"
    after = project(server, prompts=groups)
    after.generate("user")
    after.encode()
    assert 8 in VectorStore.open(mixed).ids and 7 not in VectorStore.open(mixed).ids


def test_what_forgetting_an_item_costs_is_said_before(folder: Path, server: ChatServer) -> None:
    opened = project(server)
    opened.generate()
    liked = str(opened.workspace.tables.interactions["item_id"].value_counts().index[0])
    (said,) = opened.forget(items=[liked], dry_run=True).follows
    asked = server.answered
    opened.forget(items=[liked])
    opened.generate()
    assert server.answered > asked + 1 and f"asks {server.answered - asked:,} more questions, at most $" in said


def test_what_was_trained_on_the_user_goes_and_what_was_not_stays(folder: Path, server: ChatServer) -> None:
    runs = folder / ".kar" / "runs"
    opened = project(server)
    opened.prepare()
    mine = opened.workspace.data_fingerprint
    runs.mkdir()
    with sqlite3.connect(runs / BOOK) as book:
        book.execute("CREATE TABLE runs (identity TEXT, data TEXT)")
        book.execute("CREATE TABLE predictions (identity TEXT, prediction BLOB)")
        for identity, data in (("aa", mine), ("bb", "gone")):
            book.execute("INSERT INTO runs VALUES (?, ?)", (identity, data))
            book.execute("INSERT INTO predictions VALUES (?, ?)", (identity, f"numbers of {identity}".encode()))
    book.close()
    (runs / "aa.keras").write_text(MARKER)
    (runs / f"inputs-{mine}.json").write_text(MARKER)
    assert opened.forget(users=["nobody"]).counts.total() == 0 and (runs / "aa.keras").exists()
    done = opened.forget(users=[7])
    assert done.counts["trainings with their predictions and models"] == 2, "of unknown data nobody can tell"
    assert done.counts["prepared data sets"] == 1
    assert holding(MARKER.encode(), runs, folder / ".kar/prepared") == [] and holding(b"numbers of", runs) == []


def test_copies_of_data_frames_lose_the_rows(folder: Path) -> None:
    log = pd.read_parquet("interactions.parquet").rename(columns={"user_id": "uid"})
    users = pd.read_csv("users.csv").rename(columns={"user_id": "uid"})

    def of_frames() -> Project:
        settings = {"data": {"columns": {"user_id": "uid"}}, "workdir": "frames"}
        return Project(settings, interactions=log, items=pd.read_csv("items.csv"), users=users)

    opened = of_frames()
    assert holding(MARKER.encode(), folder / "frames")
    done = opened.forget(users=[7])
    assert done.counts["rows of data frames' copies"] == 31
    assert holding(MARKER.encode(), folder / "frames") == [] and 7 not in opened.workspace.tables.ids("user")
    again = of_frames()
    assert holding(MARKER.encode(), folder / "frames") == [] and 7 not in again.workspace.tables.ids("user")
    again.unforget(users=[7])
    assert 7 in of_frames().workspace.tables.ids("user")


@pytest.mark.parametrize("wanted", ["7", 7.0, "007", " 7"])
def test_ids_in_copies_are_told_as_the_tables_reading_tells_them(folder: Path, wanted: Any) -> None:
    log = pd.read_parquet("interactions.parquet")
    users = pd.read_csv("users.csv")
    count = int((log["user_id"] == 7).sum()) + 1
    forms: dict[str, tuple[pd.DataFrame, dict[str, Any]]] = {
        "decimals": (log.assign(user_id=log["user_id"].astype(float)), {}),
        "padded": (log.assign(user_id=log["user_id"].map("{:03}".format)), {"id_type": "integer"}),
        "structs": (
            log.assign(who=[{"id": user} for user in log["user_id"]]).drop(columns="user_id"),
            {"columns": {"interactions": {"user_id": "who.id"}}},
        ),
    }
    for name, (frame, data) in forms.items():
        settings = {"data": data, "workdir": name}
        opened = Project(settings, interactions=frame, items=pd.read_csv("items.csv"), users=users)
        assert opened.forget(users=[wanted]).counts["rows of data frames' copies"] == count, name
        again = Project(settings, interactions=frame, items=pd.read_csv("items.csv"), users=users)
        assert again.forget(users=[7]).counts.total() == 0, f"{name}: nothing came back"


def test_an_item_goes_out_of_the_lists_of_what_was_shown(folder: Path) -> None:
    moments = range(1_000, 1_200)
    log = pd.DataFrame({"user_id": [n % 9 for n in moments], "timestamp": moments})
    log["seen"] = [[n % 7, 7 + n % 5] if n % 2 else [3] for n in moments]
    log["hit"] = [[cell[0]] if n % 3 else [] for n, cell in zip(moments, log["seen"], strict=True)]
    settings = {"data": {"shown": "seen", "clicked": "hit"}, "workdir": "lists"}
    items = pd.DataFrame({"item_id": range(12), "title": [f"t{n}" for n in range(12)]})
    opened = Project(settings, interactions=log, items=items)
    assert 3 in opened.workspace.tables.ids("item")
    done = opened.forget(items=["3"])
    assert done.counts["rows of data frames' copies"] == sum(3 in cell for cell in log["seen"]) + 1
    (kept,) = (folder / "lists/tables").glob("interactions-*.parquet")
    left = pd.read_parquet(kept)
    assert not any(3 in cell for name in ("seen", "hit") for cell in left[name]) and len(left) < len(log)
    assert 3 not in Project(settings, interactions=log, items=items).workspace.tables.ids("item")


def test_zeros_before_an_id_of_text_are_part_of_it(tmp_path: Path) -> None:
    log = pd.DataFrame({"user_id": ["7", "007", "8"] * 30, "item_id": ["a", "b"] * 45, "timestamp": range(90)})
    log["label"] = log.index % 2
    opened = Project({"workdir": str(tmp_path / "w")}, interactions=log)
    opened.forget(users=["007"])
    assert opened.workspace.tables.ids("user") == ["7", "8"]


def test_the_list_names_nobody(tmp_path: Path) -> None:

    listed = ForgottenIds().with_ids("user", ["anna@example.org", 42])
    listed.write(tmp_path)
    assert "anna" not in (tmp_path / "forgotten.json").read_text()
    read = ForgottenIds.read(tmp_path)
    assert read.holds("user", "42") and read.holds("user", 42) and not read.holds("item", 42)
    assert not read.without_ids("user", [42]).holds("user", 42)
    (tmp_path / "forgotten.json").write_text(json.dumps({"key": 1}))
    with pytest.raises(StoreError, match="who was forgotten"):
        ForgottenIds.read(tmp_path)


def test_requests_that_nobody_has_answered_go_and_an_id_that_was_mistyped_takes_nothing(
    folder: Path, server: ChatServer
) -> None:
    opened, out = project(server), folder / "requests.jsonl"
    opened.export_requests(out)
    assert MARKER in out.read_text()
    assert opened.forget([999_999], dry_run=True).counts.total() == opened.forget([999_999]).counts.total() == 0
    assert MARKER in out.read_text(), "there is no such user"
    assert opened.forget("7", dry_run=True).counts["exported requests"] and MARKER in out.read_text()
    opened.forget("7")  # one id, and not the letters of one
    assert not out.exists() and opened.unforget(["7", "999999"]) == 2


def test_exported_requests_go_where_no_table_can_say_whose_they_are(folder: Path, server: ChatServer) -> None:
    opened, out = project(server), folder / "requests.jsonl"
    opened.export_requests(out)
    Path("users.csv").rename("elsewhere.csv")
    done = project(server).forget("7", dry_run=True)
    assert done.counts["exported requests"] and MARKER in out.read_text()
    assert project(server).forget("7").counts == done.counts and not out.exists()


def test_a_thousand_users_are_forgotten_at_once(tmp_path: Path) -> None:
    with TextCache(tmp_path / "answers.sqlite") as cache:
        cache.put_many(
            (Answer(str(i), "ok", "text", "m", ()), [Link("history", f"{i} 0-5 ab", str(i), "v")]) for i in range(1_200)
        )
        taken = forget_entities(cache, Whom("user", range(1_000)))
        assert taken.links == 1_000 and cache.counts()["ok"] == 200
