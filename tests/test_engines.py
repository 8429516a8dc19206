"""Ray and Spark ask and encode what one process would; what they kill, repeat or stop loses nothing and is paid once.

Skipped where they, or Java, are not installed.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_arrow import static_model

from kar_aug import Project
from kar_aug.cache import VectorStore
from kar_aug.errors import ConfigError, LimitReached
from kar_aug.generate.limits import slots_for
from kar_aug.testing import ChatServer, completion

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # what engines warn of is theirs
USERS = 240
Saying = Callable[[ChatServer, dict[str, Any], int], tuple[int, dict[str, str], bytes]]


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    pytest.importorskip("ray")
    from kar_aug.engines import on_ray

    on_ray.ray.init(num_cpus=2, object_store_memory=80 << 20, include_dashboard=False, log_to_driver=False)
    yield on_ray.ray
    on_ray.ray.shutdown()


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    pytest.importorskip("pyspark")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    from pyspark.sql import SparkSession

    builder: Any = SparkSession.builder
    settings = {"spark.speculation": "true", "spark.speculation.interval": "100ms", "spark.speculation.quantile": "0.1",
                "spark.speculation.multiplier": "1.1", "spark.speculation.minTaskRuntime": "100ms",
                "spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false",
                "spark.driver.memory": "512m"}  # fmt: skip
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.master("local[2,4]").getOrCreate()
    yield session
    session.stop()


@pytest.fixture
def project(tmp_path: Path, chat_server: ChatServer) -> Project:
    (tmp_path / "key").write_text("k")  # workers have the environment that their engine was started with
    chat_server.latency = 0.02
    random = np.random.default_rng(0)
    events = pd.DataFrame(
        {"user_id": np.repeat(np.arange(USERS), 10), "item_id": random.integers(0, 40, USERS * 10)}
    ).assign(rating=random.choice([1, 5], USERS * 10), timestamp=800_000_000 + np.arange(USERS * 10))
    events.to_parquet(tmp_path / "interactions.parquet")
    pd.DataFrame({"item_id": np.arange(40), "title": [f"Movie {i}" for i in range(40)]}).to_csv(
        tmp_path / "items.csv", index=False
    )
    (tmp_path / "kar.toml").write_text(
        '[data]\ninteractions = "interactions.parquet"\nitems = "items.csv"\n'
        f'[generate]\nmodel = "test-model"\nbase_url = "{chat_server.base_url}"\nmax_tokens = 3\nconcurrency = 8\n'
        f'api_key_file = "{tmp_path / "key"}"\n'
    )
    return Project.open(tmp_path / "kar.toml")


def paid(server: ChatServer) -> Counter[str]:
    """Whole requests, by how often they were sent."""
    return Counter(request["messages"][-1]["content"] for request in server.requests)


def killing(cache: Path, at: int) -> Saying:
    """Kills a worker that asks, when so many requests came."""

    def behaviour(server: ChatServer, request: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        if number == at:
            with sqlite3.connect(cache) as connection:
                (pid,) = connection.execute("SELECT pid FROM workers WHERE pid != ?", (os.getpid(),)).fetchone()
            os.kill(pid, signal.SIGKILL)
        return 200, {}, completion("A film.")

    return behaviour


def require_all_answered_and_paid_once(project: Project, server: ChatServer) -> None:
    counts = paid(server)
    assert len(counts) == USERS + 40 and len(server.requests) - len(counts) <= 2 * slots_for(4), "of two workers"
    assert project.cache.stats().counts["ok"] == USERS + 40


def test_ray_asks_all_though_a_worker_is_killed_and_asks_nothing_again(
    ray: Any, project: Project, chat_server: ChatServer
) -> None:
    chat_server.behaviour = killing(project.workspace.paths.config.work / "answers.sqlite", at=60)
    done = project.generate(engine="ray", workers=2)
    assert done.complete and done.progress.total == USERS + 40
    require_all_answered_and_paid_once(project, chat_server)
    sent = len(chat_server.requests)
    again = project.generate(engine="ray", workers=2)
    assert again.progress.cached == again.progress.unchanged == USERS + 40 and len(chat_server.requests) == sent
    assert project.generate().progress.unchanged == USERS + 40, "they are the prompts of one machine"
    assert not list((project.config.work / "engines").iterdir())


def test_ctrl_c_stops_ray_in_good_order(ray: Any, project: Project, chat_server: ChatServer) -> None:
    def interrupting(server: ChatServer, request: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        if number == 30:
            os.kill(os.getpid(), signal.SIGINT)
        return 200, {}, completion("A film.")

    chat_server.behaviour = interrupting
    with pytest.raises(KeyboardInterrupt, match="asked"):
        project.generate("user", engine="ray", workers=2)
    stored = project.cache.stats().counts["ok"]
    assert stored == len(chat_server.requests) < USERS, "what was in flight was finished and stored"


def test_one_budget_is_all_workers(ray: Any, project: Project, chat_server: ChatServer, tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_text(
        'date = "2026-01-01"\n[models."test-model"]\nprompt = 0.0\ncompletion = 1000000.0\n'
    )
    limited = Project.open(tmp_path / "kar.toml", generate={"prices": "prices.toml", "max_cost": 150.0})
    with pytest.raises(LimitReached, match="150"):  # 3 dollars an answer
        limited.generate(engine="ray", workers=2)
    assert len(chat_server.requests) == 50 == limited.cache.stats().counts["ok"]


def test_vectors_by_ray_are_those_of_one_process(ray: Any, project: Project, tmp_path: Path) -> None:
    project.generate()
    encoder = f"model2vec:{static_model(tmp_path / 'static')}"
    stores = {}
    for way in (None, "ray"):
        own = Project.open(tmp_path / "kar.toml", encode={"encoder": encoder})
        own.encode(engine=way, workers=2 if way else None)
        stores[way] = VectorStore.open(own.workspace.store_path("user"))
        if way is None:
            shutil.rmtree(own.config.work / "vectors")
    one, other = stores[None], stores["ray"]
    assert one.spec == other.spec and one.ids == other.ids and one.keys == other.keys
    assert one.gather(one.ids).tobytes() == other.gather(one.ids).tobytes()
    with pytest.raises(ConfigError, match="endpoint"):
        Project.open(tmp_path / "kar.toml", encode={"encoder": "openai:any"}).encode(engine="ray")


def test_spark_pays_once_with_speculation_and_a_killed_worker(
    spark: Any, project: Project, chat_server: ChatServer
) -> None:
    chat_server.behaviour = killing(project.workspace.paths.config.work / "answers.sqlite", at=60)
    done = project.generate(engine="spark", workers=2)
    assert done.complete and done.progress.total == USERS + 40
    require_all_answered_and_paid_once(project, chat_server)
    sent = len(chat_server.requests)
    assert project.generate(engine="spark", workers=2).progress.cached == USERS + 40
    assert len(chat_server.requests) == sent


def test_a_users_own_spark_session_stays_as_it_is(spark: Any) -> None:
    from kar_aug.engines import on_spark

    spark.conf.set("spark.sql.session.timeZone", "Asia/Tokyo")
    spark.sparkContext.setLogLevel("INFO")
    with on_spark.session() as own:
        assert own is spark
    assert spark.conf.get("spark.sql.session.timeZone") == "Asia/Tokyo"
    levels = spark.sparkContext._jvm.org.apache.logging.log4j.LogManager
    assert str(levels.getRootLogger().getLevel()) == "INFO" and spark.range(3).count() == 3
    spark.sparkContext.setLogLevel("ERROR")


def test_what_is_of_one_process_is_refused(project: Project) -> None:
    pytest.importorskip("ray")
    for wrong, named in (({"shard": (1, 2)}, "--shard"), ({"batch": True}, "Batch API")):
        with pytest.raises(ConfigError, match=named):
            project.generate(engine="ray", workers=1, **wrong)


@pytest.mark.usefixtures("project")
def test_a_cluster_that_is_not_there_is_named(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    command = [sys.executable, "-m", "kar_aug", "-c", "kar.toml", "generate", "--engine", "ray", "--address", "nowhere"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.search(r"--address nowhere: no Ray cluster answers there .* ray start --head$", done.stderr.strip())
