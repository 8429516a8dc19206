"""`kar-aug cache` as a user meets it."""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result

from kar_aug.cache import StoreSpec, TextCache, VectorStore
from kar_aug.cli import main
from kar_aug.errors import StoreError
from kar_aug.pipeline.project import Project
from kar_aug.testing import ChatServer, completion


@pytest.fixture
def folder(own_tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(own_tables, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-key-0123456789")
    monkeypatch.setenv("COLUMNS", "160")
    return tmp_path / "project"


def kar_aug(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def answered(folder: Path, server: ChatServer) -> None:
    assert kar_aug("generate", "--only", "item", "--base-url", server.base_url).exit_code == 0


def test_stats_count_answers_tokens_and_dollars(folder: Path, chat_server: ChatServer) -> None:
    (folder / "prices.toml").write_text('[models]\n"test-model" = { prompt = 1000, completion = 2000 }\n')
    text = (folder / "kar.toml").read_text()
    (folder / "kar.toml").write_text(text.replace("max_tokens = 16", 'max_tokens = 16\nprices = "prices.toml"'))
    answered(folder, chat_server)
    done = kar_aug("cache", "stats")
    assert done.exit_code == 0
    # 40 answers of 7 and 3 tokens: 40 * (7 * 1000 + 3 * 2000) / 10^6 dollars
    assert all(found in done.output for found in ("test-model", "280", "120", "0.5200"))
    done = kar_aug("cost")
    day = datetime.now(UTC).date().isoformat()
    assert done.exit_code == 0 and all(found in done.output for found in (day, "item", "280", "120", "0.5200"))
    assert "test-model: 40 requests, $0.5200 settled, $0.0000 reserved, $0.0000 unknown" in done.output
    assert max(map(len, done.output.splitlines())) <= 80 and "…" not in done.output, "in a usual terminal"
    (folder / "kar.toml").rename(folder / "other.toml")
    assert kar_aug("cost", "--cache", ".kar/answers.sqlite").output == done.output, "of any cache, without a project"
    assert "no-such.sqlite: there is no such file" in kar_aug("cost", "--cache", "no-such.sqlite").output
    shutil.rmtree(".kar")
    assert "nothing was asked" in kar_aug("-c", "other.toml", "cost").output


def test_counting_reads_no_text_and_no_response(folder: Path, chat_server: ChatServer) -> None:
    answered(folder, chat_server)
    said: list[str] = []

    def note(connection: object, cursor: object, statement: str, *_: object) -> None:
        said.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        assert kar_aug("cache", "stats").exit_code == kar_aug("cost").exit_code == 0
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
    assert any("FROM answers" in statement for statement in said) and any("FROM ledger" in each for each in said)
    assert not [statement for statement in said if re.search(r"\b(raw|text|messages)\b", statement)]


def test_answers_leave_and_come_back(folder: Path, chat_server: ChatServer) -> None:
    answered(folder, chat_server)
    assert "40 rows" in kar_aug("cache", "export", "answers.parquet", "--no-messages").output
    assert pd.read_parquet("answers.parquet")["messages"].isna().all()
    shutil.move(".kar/answers.sqlite", "old.sqlite")
    assert "40 answers are new" in kar_aug("cache", "import", "answers.parquet").output
    assert "0 answers are new" in kar_aug("cache", "import", "old.sqlite").output
    answered(folder, chat_server)
    assert chat_server.answered == 40, "what was imported is not asked again"


def test_verify_flags_and_excludes(folder: Path, chat_server: ChatServer) -> None:
    def answer(server: ChatServer, request: dict, number: int) -> tuple[int, dict[str, str], bytes]:
        title = next(line for line in request["messages"][-1]["content"].splitlines() if line.startswith("Title"))
        text = "As an AI, I cannot watch movies." if "Movie 7 " in title else f"{title[7:]} was released in 1999."
        return 200, {}, completion(text)

    chat_server.behaviour = answer
    answered(folder, chat_server)
    done = kar_aug("cache", "verify", "--output", "flags.csv")
    assert done.exit_code == 0, done.output
    flags = pd.read_csv("flags.csv")
    assert flags.loc[flags["kind"] == "refusal", "entity_id"].tolist() == [7]
    wrong = flags.loc[flags["kind"] == "contradiction", "entity_id"].tolist()
    assert set(wrong) == set(range(40)) - {7, 48, 49, 50}, "movie i is of 1950 + i"
    done = kar_aug("cache", "verify", "--exclude", "refusal")
    assert "1 answers are taken out; kar-aug generate --retry-failed asks for them again" in done.output
    with TextCache(".kar/answers.sqlite") as cache:
        assert cache.counts()["refused"] == 1
    chat_server.behaviour = type(chat_server)().behaviour
    done = kar_aug("generate", "--only", "item", "--base-url", chat_server.base_url, "--retry-failed")
    assert "1 asked, 39 already cached" in done.output


def test_superseded_answers_stay_until_they_are_pruned(folder: Path, chat_server: ChatServer) -> None:
    answered(folder, chat_server)
    items = pd.read_csv("items.csv")
    items.loc[3, "title"] = "Another title (1953)"
    items.to_csv("items.csv", index=False)
    done = kar_aug("generate", "--only", "item", "--base-url", chat_server.base_url)
    assert "0 new, 1 changed, 39 unchanged, 0 gone" in done.output and chat_server.answered == 41
    refused = CliRunner().invoke(main, ["cache", "prune"], input="n\n")
    assert refused.exit_code == 1 and "Delete 1 answers" in refused.output
    assert "1 answers deleted" in kar_aug("cache", "prune", "--yes").output
    assert "0 answers deleted" in kar_aug("cache", "prune").output
    with TextCache(".kar/answers.sqlite") as cache:
        assert len(list(cache.knowledge("item"))) == 40


def test_verify_finds_a_flipped_byte_in_the_vectors(folder: Path) -> None:
    for source in ("user", "item"):
        with VectorStore.writer(folder / f".kar/vectors/{source}", StoreSpec("e", 2)) as writer:
            writer.append([1, 2], ["k", "l"], np.ones((2, 2)))
    assert "item vectors: 2 sound" in kar_aug("cache", "verify").output
    path = next((folder / ".kar/vectors/item").glob("*.vectors.npy"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    done = kar_aug("cache", "verify")
    assert done.exit_code == 2 and f"{path.name} is damaged" in done.output, done.output


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_texts_that_one_has_become_knowledge(folder: Path, chat_server: ChatServer, suffix: str) -> None:
    answered(folder, chat_server)
    plots = pd.DataFrame({"item_id": [3, 4, 5, 6, 99], "plot": ["A heist.", "A heist.", " ", "None", "Elsewhere."]})
    plots.to_parquet("plots.parquet") if suffix == "parquet" else plots.to_csv("plots.csv", index=False)
    done = kar_aug("cache", "import", f"plots.{suffix}", "--text", "plot", "--author", "IMDb")
    assert done.exit_code == 0, done.output
    assert "4 texts are knowledge of items now; 1 rows have none; 1 ids are not in the data" in done.output
    with TextCache(".kar/answers.sqlite") as cache:
        texts = {k.entity_id: (k.text, k.model, k.prompt_version) for k in cache.knowledge("item")}
        assert texts[3] == texts[4] == ("A heist.", "IMDb", "imported") and len(texts) == 41
        assert texts[5][1] == "test-model", "what had no text keeps its answer"
        assert texts[6][0] == "None", "only an empty cell is missing"
        assert cache.counts()["ok"] == 43, "equal texts are one answer, and superseded ones stay"
    done = kar_aug("audit")
    assert done.exit_code == 0
    assert "cannot be proved: 4 texts about items have no as-of time" in done.output, done.output


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_texts_in_a_folder_of_parts_are_told_from_answers(folder: Path, suffix: str) -> None:
    Path("texts").mkdir()
    for item in (3, 4):
        part = pd.DataFrame({"item_id": [item], "text": [f"Part {item}."]})
        part.to_parquet(f"texts/{item}.parquet") if suffix == "parquet" else part.to_csv(
            f"texts/{item}.csv", index=False
        )
    assert "2 texts are knowledge of items now" in kar_aug("cache", "import", "texts").output
    kar_aug("cache", "export", "shards", "--shards", "2")
    assert "0 answers are new" in kar_aug("cache", "import", "shards").output


def test_texts_of_ones_own_are_neither_asked_for_nor_replaced(folder: Path, chat_server: ChatServer) -> None:
    texts = pd.DataFrame({"item_id": range(10), "text": [f"My words on {i}." for i in range(10)]})
    texts.to_csv("texts.csv", index=False)
    assert kar_aug("cache", "import", "texts.csv").exit_code == 0
    ask = ("generate", "--only", "item", "--base-url", chat_server.base_url)
    dry = kar_aug(*ask, "--dry-run")
    assert "30 new, 0 changed, 10 unchanged" in dry.output, dry.output
    done = kar_aug(*ask)
    assert done.exit_code == 0 and len(chat_server.requests) == 30, done.output

    def own() -> int:
        with TextCache(".kar/answers.sqlite") as cache:
            return sum(k.prompt_version == "imported" for k in cache.knowledge("item"))

    assert own() == 10
    assert kar_aug(*ask).exit_code == 0 and len(chat_server.requests) == 30 and own() == 10
    assert kar_aug(*ask, "--replace-imported").exit_code == 0 and len(chat_server.requests) == 40 and own() == 0


def test_texts_are_brought_by_the_name_that_the_data_have_for_ids(folder: Path) -> None:
    log = pd.DataFrame({"user_id": [1, 1, 2], "job": ["a", "b", "a"], "label": [0, 1, 1], "timestamp": [1, 2, 3]})
    tables = {"interactions": log, "items": pd.DataFrame({"job": ["a", "b"], "title": ["Nurse", "Welder"]})}
    answers = Project({"data": {"columns": {"item_id": "job"}}, "workdir": "jobs"}, **tables).cache
    pd.DataFrame({"job": ["a", "c"], "words": ["A nurse cares.", "Unknown."]}).to_csv("own.csv", index=False)
    done = answers.import_texts("own.csv", text="words")
    assert (done.entity, done.texts, done.unknown) == ("item", 2, 1)
    pd.DataFrame({"post": ["a"], "text": ["A nurse cares."]}).to_csv("own.csv", index=False)
    with pytest.raises(StoreError, match="there is no column 'item_id' or 'job' or 'user_id'"):
        answers.import_texts("own.csv")


def test_texts_with_an_as_of_time_are_audited(folder: Path) -> None:
    known = pd.DataFrame({"user_id": [1, 2], "text": "x", "as_of": [pd.Timestamp("1990-01-01"), pd.NaT]})
    known.to_parquet("texts.parquet")
    assert (
        "2 texts are knowledge of users now. Next: kar-aug encode" in kar_aug("cache", "import", "texts.parquet").output
    )
    with TextCache(".kar/answers.sqlite") as cache:
        assert [k.as_of for k in cache.knowledge("user")] == ["1990-01-01T00:00:00", None]
        assert {k.model for k in cache.knowledge("user")} == {"texts"}
    found = kar_aug("audit").output
    assert "1 texts about users have no as-of time" in found and "what to do" not in found
    known.assign(as_of=pd.Timestamp("2090-01-01")).to_parquet("texts.parquet")
    kar_aug("cache", "import", "texts.parquet")
    found = " ".join(kar_aug("audit").output.split())
    assert "the knowledge is of 2090-01-01T00:00:00+00:00" in found
    assert "what to do (imported): these texts were brought in" in found and "generate" not in found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["import", "none.sqlite"], "none.sqlite: there is no such file"),
        (["import", "none.parquet"], "none.parquet: there is no such file"),
        (["import", "items.csv"], "items.csv: there is no column 'text'. It has: item_id, title, genres. Name the"),
        (["import", "users.csv", "--text", "x"], "users.csv: there is no column 'x'"),
        (["import", "none.csv"], "none.csv: there is no such file"),
        (["import", "items.doc", "--author", "me"], "items.doc: only .parquet, .csv, "),
        (
            ["import", "twice.csv"],
            "item_id must be there in each row, and be another in each. Row 1 holds 1, as one before.",
        ),
        (["import", "strings.csv"], "item_id must hold integers, as the data do, not strings"),
        (["export", "items.csv/answers.parquet"], "items.csv"),
    ],
)
def test_bad_input_is_one_line(folder: Path, arguments: list[str], message: str) -> None:
    (folder / "twice.csv").write_text("item_id,text\n1,a\n1,b\n")
    (folder / "strings.csv").write_text("item_id,text\nB1,a\n2,b\n")
    done = kar_aug("cache", *arguments)
    lines = [line for line in done.output.splitlines() if line.strip()]
    assert done.exit_code == 2 and len(lines) == 1 and message in lines[0], done.output


@pytest.mark.parametrize("command", ["cache export", "view --output", "generate --export-jsonl"])
def test_files_are_written_nowhere_by_mistake(folder: Path, chat_server: ChatServer, command: str) -> None:
    answered(folder, chat_server)
    (folder / "own").mkdir()
    before = {path.name for path in folder.iterdir()}
    for path, message in [
        ("", "is a folder, and a file is to be written|No place is named"),
        ("own", "own is a folder, and a file is to be written. Name one in it"),
        ("items.csv/below", "items.csv is a file, and a folder is wanted there. Name another place"),
        ("s3:/bucket/x", "s3:/bucket/x is no path, nor an address that is known here. Name a file"),
        ("~/x", "nobody has put a home folder in for ~ here. Write the path out"),
    ]:
        done = kar_aug(*command.split(), path)
        assert done.exit_code == 2 and re.search(message, done.stderr) and done.stderr.count("\n") == 1, done.output
    assert kar_aug("cache", "export", "items.csv", "--shards", "2").exit_code == 2
    assert {path.name for path in folder.iterdir()} == before
