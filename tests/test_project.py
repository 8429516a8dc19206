"""Every stage from Python: what it returns, what it says meanwhile, and that it prints nothing."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.commands import script
from support.exhaustive import table
from support.training import step_by_step

from kar_aug import ConfigError, DataError, GenerationError, LeakageError, Project, VectorStore, Watch
from kar_aug.cache import Answer, Link, TextCache, answer_key
from kar_aug.config import Config
from kar_aug.pipeline.workspace import Workspace
from kar_aug.prompts import Scenario, scenario_text
from kar_aug.testing import ChatServer, completion
from kar_aug.testing.batches import BatchServer, answered

ROOT = Path(__file__).parents[1]
# An encoder of the user's own, beside kar.toml: how often a text has each letter.
LETTERS = """
import numpy as np
class Letters:
    name, dimension = "letters", 26
    def encode(self, texts):
        return np.asarray([[text.lower().count(chr(97 + i)) for i in range(26)] for text in texts], "float32")
def load(options):
    return Letters()
"""


@pytest.fixture
def folder(own_tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own data, and an encoder that needs no model; the current folder."""
    project = Path(shutil.copytree(own_tables, tmp_path / "project"))
    (project / "letters.py").write_text(LETTERS)
    with (project / "kar.toml").open("a") as file:
        file.write('[encode]\nencoder = "letters:load"\n')
    monkeypatch.chdir(project)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    return project


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as server:
        yield server


def opened(server: ChatServer | BatchServer | None = None, **changes: Any) -> Project:
    generate = {"base_url": server.base_url} if server else {}
    return Project.open("kar.toml", **{"generate": generate, **changes})


# The whole way


@pytest.mark.parametrize("jobs", table([1, 2], 1))
def test_the_readmes_lines_and_the_example_do_the_whole_job(folder: Path, server: ChatServer, jobs: int) -> None:
    """As scripts without `if __name__ == "__main__"`, though trainings run in processes of their own."""
    settings = (folder / "kar.toml").read_text()
    address = f'[generate]\nbase_url = "{server.base_url}"\n'
    few = "[data]\nevent_features = []\n"  # the fewer inputs, the sooner a model is built
    settings = settings.replace("[data]\n", few).replace("jobs = 1", f"jobs = {jobs}")
    (folder / "kar.toml").write_text(settings.replace("[generate]\n", address))
    items = pd.read_csv("items.csv")
    items.loc[7, "title"] = "Fargo (1996)"
    items.to_csv("items.csv", index=False)
    with step_by_step():
        example = script(folder, ROOT / "examples" / "2_the_whole_job.py", "kar.toml")
    assert example.returncode == 0, example.stderr
    assert "100 asked, 0 already cached" in example.stdout and "items: 40 vectors of 26 by letters" in example.stdout
    assert "no leak found by" in example.stdout
    assert "beats DeepFM: nothing can be told over what does not beat" in example.stdout  # of 90 rows, two epochs
    assert (folder / "report.html").exists() and (folder / "results.csv").exists()

    (lines,) = re.findall(
        r"```python\n(from kar_aug import Project\n.*?)```", (ROOT / "docs/get-started.md").read_text(), re.DOTALL
    )
    (folder / "ten_lines.py").write_text(lines)
    readme = script(folder, folder / "ten_lines.py")
    assert readme.returncode == 0, readme.stderr
    assert "0 asked, 100 already cached" in readme.stdout and server.answered == 100, "nothing is asked twice"
    verdict = re.findall("DeepFM [+] knowledge beats .*", example.stdout)
    assert verdict == re.findall("DeepFM [+] knowledge beats .*", readme.stdout), "nor trained"
    assert "Nearest to Fargo (1996):" in readme.stdout and (folder / "serving/1/saved_model.pb").exists()


@pytest.mark.usefixtures("step_by_step")
def test_results_are_objects_with_data_frames_and_nothing_is_printed(
    folder: Path, server: ChatServer, capfd: pytest.CaptureFixture[str]
) -> None:
    project = opened(server)
    asked = project.generate()
    assert asked.progress.asked == 100 and asked.frame.set_index("what")["count"]["asked"] == 100
    encoded = project.encode()
    assert encoded.frame["vectors"].tolist() == [60, 40] and encoded.unknown == []
    assert str(encoded) == "users: 60 vectors of 26 by letters\nitems: 40 vectors of 26 by letters"
    audit = project.audit()
    assert set(audit.frame["result"]) == {"ok", "nothing"} and str(audit).endswith(audit.verdict)
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    compared = opened(server, compare={"jobs": 1}, data={"event_features": []}).compare()
    assert compared.table()["arm"].tolist() == ["DeepFM", "DeepFM + knowledge"]
    (verdict,) = compared.verdicts
    assert str(compared.verdicts) == verdict.text and compared.verdicts.frame["seeds"].tolist() == [1]
    assert compared.headlines[0] in str(compared)
    vectors = project.inspect.vectors()
    assert vectors.frame["coverage_of_ids"].tolist() == [1, 1] and "items: encoder letters" in str(vectors)
    near = project.inspect.nearest("Movie 3 (1953)", 3)
    assert len(near.frame) == 3 and near.frame["cosine"].is_monotonic_decreasing
    assert "Movie 3 (1953)" in str(project.inspect.item(3)) and project.inspect.user("5").answer is not None
    printed = capfd.readouterr()
    assert printed.out == "" and "vectors" not in printed.err


def test_compare_refuses_where_there_are_leaks(folder: Path, server: ChatServer) -> None:
    project = opened()
    with project.workspace.paths.open_cache() as cache:
        for prompt in project.prompts("user"):
            key = answer_key("m", prompt.messages, {})
            late = Link("user", prompt.entity_id, key, prompt.version, "2030-01-01T00:00:00")
            cache.put(Answer(key, "ok", f"About {prompt.entity_id}", "m", prompt.messages), [late])
    assert "LEAK: samples come after the knowledge of their user" in str(project.audit())
    with pytest.raises(LeakageError):
        project.compare()


# Tables


def tables(folder: Path) -> dict[str, pd.DataFrame]:
    return {
        "interactions": pd.read_parquet(folder / "interactions.parquet"),
        "items": pd.read_csv(folder / "items.csv"),
        "users": pd.read_csv(folder / "users.csv"),
    }


def test_data_frames_are_the_tables_also_for_other_processes(folder: Path) -> None:
    settings = {
        "data": {"user_features": ["gender"], "item_features": ["genres"]},
        "encode": {"encoder": "letters:load"},  # a file of the current folder
        "workdir": "work",
    }
    project = Project(settings, **tables(folder))
    from_files = opened().workspace.data
    assert project.workspace.data.fingerprint == from_files.fingerprint
    assert Workspace(project.config).data.fingerprint == from_files.fingerprint, "as a training process opens it"
    assert [p.messages for p in project.prompts("user")] == [p.messages for p in opened().prompts("user")]
    kept = sorted((folder / "work" / "tables").iterdir())
    again = Project(settings, **tables(folder))
    assert again.config == project.config and sorted((folder / "work" / "tables").iterdir()) == kept

    changed = tables(folder)
    changed["interactions"].loc[0, "rating"] = 1 if changed["interactions"].loc[0, "rating"] == 5 else 5
    other = Project(settings, **changed)
    assert len(list((folder / "work" / "tables").iterdir())) == len(kept) + 1
    assert other.workspace.data.fingerprint != from_files.fingerprint
    assert Workspace(project.config).data.fingerprint == from_files.fingerprint, "what runs still reads its own"


def test_paths_and_columns_of_other_names_do_as_well(folder: Path) -> None:
    events = pd.read_parquet("interactions.parquet").rename(columns={"user_id": "uid", "timestamp": "ts"})
    settings = {"data": {"columns": {"user_id": "uid", "timestamp": "ts"}}, "workdir": folder / "work"}
    project = Project(settings, interactions=events, items=folder / "items.csv")
    assert len(list(project.prompts("user"))) == 60 and "Movie 3 (1953)" in project.prompts("item").of(3).text


@pytest.mark.parametrize(
    ("settings", "tables", "error", "words"),
    [
        (
            {},
            {},
            ConfigError,
            "the settings: .data. names no data yet. Let your files be looked at: kar-aug init --data FILES",
        ),
        ({"data": {"dataset": "movielens-100k"}}, {"interactions": pd.DataFrame()}, ConfigError, "and not both"),
        ({"dataa": {}}, {}, ConfigError, "no setting 'dataa' at the top level. Did you mean 'data'"),
        ({"data": {"interactions": 3}}, {}, ConfigError, "interactions must be of type str"),
        ({}, {"interactions": pd.DataFrame({"a": [1, "x"]})}, DataError, "interactions: the DataFrame cannot be kept"),
        ({}, {"interactions": pd.DataFrame({"user_id": [1]})}, DataError, "column 'item_id' is missing"),
    ],
)
def test_wrong_settings_and_tables_say_what_is_wrong(
    folder: Path, settings: dict[str, Any], tables: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        _ = Project(settings, **tables).workspace.data.tables


def test_changes_go_over_the_file(folder: Path) -> None:
    project = opened(prompts={"max_items": 3}, workdir="elsewhere", compare={"seeds": None})
    assert len(list(project.prompts("item"))) == 3 and project.config.compare.seeds == 1
    assert project.config.work.resolve() == (folder / "elsewhere").resolve() and not (folder / ".kar").exists()
    with pytest.raises(ConfigError, match="Did you mean 'prompts'"):
        opened(prompt={"max_items": 3})
    with pytest.raises(TypeError, match="names its tables itself"):
        Project(Config.load("kar.toml"), items="items.csv")


def test_another_seed_splits_the_same_tables_anew(folder: Path) -> None:
    first = opened().workspace
    other = first.with_seed(7)
    assert other.data.tables is first.data.tables and other.data.fingerprint != first.data.fingerprint
    assert other.config.data.seed == 7 and first.with_seed(0).data.fingerprint == first.data.fingerprint


# What is asked


def test_prompts_are_gone_through_looked_up_and_counted(folder: Path, server: ChatServer) -> None:
    items = opened().prompts("item")
    assert items.knowledge == "item" and len(items.frame) == 40 == len(items.statistics().tokens)
    assert items.frame["tokens"].tolist() == [items.tokens(prompt) for prompt in items]
    assert items.of("3") == items.of(3) and "Movie 3 (1953)" in items.of(3).text
    with pytest.raises(ConfigError, match="no item 77 in the items table"):
        items.of(77)
    with pytest.raises(ValueError, match=r"An entity is 'user' or 'item'\. Received: 'items'"):
        opened().prompts("items")
    assert "Give ten tags" in opened().prompts("item", recipe="tags").of(3).text
    with pytest.raises(ConfigError, match="The recipe 'tags' asks about items only"):
        opened().prompts("user", recipe="tags")
    Path("before.toml").write_text(scenario_text("movies").replace("Describe this movie by", "Describe it by"))
    changed = str(items.difference(3, "before.toml"))
    assert "- Describe it by" in changed and "+ Describe this movie by" in changed
    opened(server).generate("item")
    assert str(items.difference(3, "asked")) == "", "the model sees the same"


def test_a_job_can_be_seen_before_and_after(folder: Path, server: ChatServer) -> None:
    Path("prices.toml").write_text('[models]\n"test-model" = { prompt = 1000.0, completion = 2000.0 }\n')
    project = opened(generate={"base_url": server.base_url, "prices": "prices.toml"})
    before = project.dry_run("item")
    cost = (before.estimate.prompt_tokens * 1000 + 40 * 16 * 2000) / 1e6
    assert before.estimate.questions == 40 and before.frame["at_most"][0] == pytest.approx(cost)
    assert f"40 to ask of 40, {before.estimate.prompt_tokens:,} prompt tokens, at most ${cost:,.4f}" == str(before)
    assert server.requests == []

    def some_fail(server: ChatServer, request: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        if "Movie 7 " in request["messages"][-1]["content"]:
            return 400, {}, b'{"error": {"message": "too long"}}'
        return 200, {}, completion("A film.")

    server.behaviour = some_fail
    assert project.generate("item").progress.failed == 1
    status = project.status("item")
    assert status.answers["ok"] == 39 and status.to_ask == 0
    assert status.frame[["entity_id", "permanent"]].values.tolist() == [[7, True]]
    server.behaviour = ChatServer().behaviour
    assert project.generate("item", retry_failed=True).progress.asked == 1
    assert project.generate("item", shard=(1, 3)).progress.total < 40
    with pytest.raises(ValueError, match=r"`shard` must be \(2, 8\) for the second of eight"):
        project.generate(shard=(4, 3))


def test_where_nothing_is_answered_it_is_an_error_that_was_explained(folder: Path) -> None:
    notes: list[str] = []
    with ChatServer(lambda server, request, number: (400, {}, b'{"error": {"message": "no"}}')) as server:
        project = opened(server, watch=Watch(on_note=notes.append), prompts={"max_items": 3})
        with pytest.raises(GenerationError, match="No prompt could be answered: the server answered 400: no"):
            project.generate("item")
    assert "0 asked, 0 already cached, 3 failed of 3" in notes[-1]


def test_batches_and_files_lead_to_the_same_answers(folder: Path) -> None:
    notes: list[str] = []
    with BatchServer(polls=1) as server:
        project = opened(server, watch=Watch(on_note=notes.append))
        started = project.generate("item", batch=True, wait=False)
        assert len(started.running) == 1 and "1 batches run; collect them with the same command" in str(started)
        assert "running, 40 requests" in str(project.status("item"))
        done = project.generate("item", batch=True, poll_seconds=0.1)
        assert done.progress.asked == 40 and not done.running and "batch batch-0: 40 requests" in notes
    with pytest.raises(ConfigError, match="The local model has no Batch API"):
        opened(generate={"base_url": "local"}).generate(batch=True)
    project = opened()
    written = project.export_requests("out.jsonl", "user")
    assert written.files == [Path("out.jsonl")] and written.progress.requests == 60
    lines = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    Path("in.jsonl").write_text("".join(json.dumps(answered(line)) + "\n" for line in lines))
    assert project.import_responses("in.jsonl", only="user").progress.asked == 60
    assert project.export_requests("out.jsonl").files == []


def test_progress_and_notes_are_heard_while_a_stage_works(folder: Path, server: ChatServer) -> None:
    steps: list[Any] = []
    notes: list[str] = []
    project = opened(server, watch=Watch(steps.append, notes.append))
    project.generate()
    assert {step.title for step in steps} == {"knowledge"} and steps[-1].done == steps[-1].total == 100
    assert re.match(r"knowledge: 100 of 100, \d+\.\d/s, 1,000 tokens", str(steps[-1]))
    project.encode()
    assert {step.title for step in steps} == {"knowledge", "vectors of users", "vectors of items"}
    assert "the server cut the prompt" in notes[0], "it says that all prompts have seven tokens"
    assert notes[1:] == ["users: 60 vectors of 26 by letters", "items: 40 vectors of 26 by letters"]


def test_it_generates_where_an_event_loop_runs_already(folder: Path, server: ChatServer) -> None:
    async def cell() -> int:
        """What Jupyter does with a cell."""
        return opened(server).generate("item").progress.asked

    assert asyncio.run(cell()) == 40


def test_an_interrupt_there_keeps_what_is_answered(folder: Path) -> None:
    code = """
import asyncio, sys
from kar_aug import Project
async def cell():
    Project.open("kar.toml", generate={"base_url": sys.argv[1], "concurrency": 4}).generate()
loop = asyncio.new_event_loop()
try:
    loop.run_until_complete(cell())
except KeyboardInterrupt as stop:
    print("interrupted:", stop)
"""
    with ChatServer(latency=0.3) as server:
        job = subprocess.Popen([sys.executable, "-c", code, server.base_url], stdout=subprocess.PIPE, text=True)
        while server.answered < 4:
            time.sleep(0.02)
        job.send_signal(signal.SIGINT)
        output, _ = job.communicate(timeout=60)
        assert re.match(rf"interrupted: {server.answered} asked, 0 already cached, 0 failed", output), output
    with TextCache(".kar/answers.sqlite") as cache:
        assert cache.counts()["ok"] == server.answered < 100


def test_the_cache_is_counted_checked_moved_and_pruned(folder: Path, server: ChatServer) -> None:
    project = opened(server)
    project.generate("item")
    answers = project.cache
    assert answers.stats().linked == {"user": 0, "item": 40} and answers.stats().frame["answers"].tolist() == [40]
    assert answers.verify().answers == 40 and set(answers.verify().frame.columns) >= {"kind", "entity_id", "detail"}
    assert answers.export("all.parquet") == 40 and answers.import_answers("all.parquet").new == 0
    pd.DataFrame({"item_id": [3], "plot": ["A heist."]}).to_csv("plots.csv", index=False)
    assert answers.import_texts("plots.csv", text="plot").texts == 1
    assert answers.superseded() == 1 == answers.prune() and answers.superseded() == 0


def test_factors_are_proposed_and_decided(folder: Path) -> None:
    def says(server: ChatServer, request: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        return 200, {}, completion(json.dumps({"factors": ["pacing", "genre"]}))

    with ChatServer(says) as server:
        proposed = opened(server, prompts={"scenario": "books"}).factors(samples=2)
    assert proposed.frame["factor"].tolist() == ["pacing", "genre"] and str(proposed) == "pacing: 2 of 2\ngenre: 2 of 2"
    path = proposed.decide(["pacing"], by="Ann")
    assert Scenario.load(path).factors == ("pacing",) and "Ann" in path.read_text()


def test_groups_and_metadata_are_encoded_too(folder: Path, server: ChatServer) -> None:
    project = opened(server, prompts={"item_clusters": 3}, compare={"controls": ["metadata"]})
    project.generate("item")
    encoded = project.encode()
    assert [store.title for store in encoded.stores] == ["items", "item:kar:collective-3", "items", "items' metadata"]
    assert encoded.unknown == ["user"] and "40 vectors mixed with those of 3 groups" in str(encoded)
    assert len(VectorStore.open(project.workspace.paths.store("item"))) == 40


NOTEBOOK = """
from kar_aug import Project, Watch
project = Project.open("kar.toml", generate={"base_url": "%s"})
project.generate("item")
###
project.encode()
###
project.check()
###
Project.open("kar.toml", watch=Watch()).encode()
###
from kar_aug.pipeline.comparing import Verdicts
class Verdict:
    text = "it beats the plain model"
Verdicts([Verdict(), Verdict()])
"""


@pytest.mark.slow
def test_a_notebook_shows_how_far_a_stage_is_and_results_as_they_are_printed(folder: Path, server: ChatServer) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    cells = (NOTEBOOK % server.base_url).split("###\n")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nbclient's own, of event loops
        nbclient.NotebookClient(notebook, kernel_name="python3").execute()
    asked, encoded, checked, silent, verdicts = (
        [output["data"]["text/plain"] for output in cell.outputs if "data" in output] for cell in notebook.cells
    )
    assert asked[0].startswith("[========================] knowledge: 40 of 40") and "40 asked" in asked[-1]
    assert "[========================] vectors of items: 40 of 40" in encoded
    assert encoded[-1] == "items: 40 vectors of 26 by letters\nusers: no knowledge, nothing to encode"
    assert checked[-1].startswith("log  ")
    assert len(silent) == 1, "the result alone"
    assert verdicts == ["it beats the plain model\nit beats the plain model"]
    assert "\\x1b" not in repr(notebook.cells), "codes that move a terminal's cursor"
