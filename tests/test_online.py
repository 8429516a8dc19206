"""Vectors at the places that serve them: Parquet, Lance, faiss, and a real Redis server."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as arrow
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from support.workspaces import LEARNING, opened

from kar_aug import Project
from kar_aug.cache import KnowledgeTable, VectorStore
from kar_aug.cache.vectors.files import StoreSpec
from kar_aug.cli import main
from kar_aug.compare.arms import arms, fullest
from kar_aug.compare.book import BOOK, Book
from kar_aug.compare.experiment import Experiment
from kar_aug.errors import ConfigError, StoreError
from kar_aug.online import Rows, check, publish
from kar_aug.online.publishing import open_place

SPEC = StoreSpec("test encoder", 4)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if shutil.which("redis-server") is None:
        pytest.skip("there is no redis-server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("redis")
    server = subprocess.Popen(
        ["redis-server", "--port", str(port), "--save", "", "--dir", str(folder)], stdout=subprocess.DEVNULL
    )
    try:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port), 0.1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.kill()
        server.wait()


@pytest.fixture(params=["parquet", "lance", "faiss", "redis"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "redis":
        return f"{request.getfixturevalue('redis_url')}?prefix={tmp_path.name}"
    return str(tmp_path / ("folder" if request.param == "parquet" else f"items.{request.param}"))


def vector(id: int | str, text: str) -> list[float]:
    return list(np.random.default_rng(abs(hash((id, text))) % 2**32).normal(size=4))


def store(path: Path, texts: dict[int | str, str], spec: StoreSpec = SPEC, as_of: str | None = None) -> Rows:
    """A store of these texts' vectors: what it holds of other ids is taken away."""
    with VectorStore.writer(path, spec) as writer:
        there = VectorStore.open(path).keys if (path / "manifest.json").exists() else {}
        changed = [id for id, text in texts.items() if there.get(id) != text]
        vectors = np.array([vector(id, texts[id]) for id in changed]).reshape(-1, 4)
        writer.append(changed, [texts[id] for id in changed], vectors, as_of=as_of)
        writer.delete([id for id in there if id not in texts])
    return Rows(VectorStore.open(path), "item")


@pytest.mark.parametrize("ids", [range(5), ["tt1", "it's", "ü", "a:b", "7"]], ids=["integers", "strings"])
def test_a_place_is_brought_up_to_date_by_what_changed_and_checked(
    where: str, ids: list[int | str], tmp_path: Path
) -> None:
    whole = where.endswith(".faiss")
    a, b, c, d, e = ids
    rows = store(tmp_path / "s", {a: "one", b: "two", c: "three", d: "four"})
    done = publish(rows, where)
    assert (done.written, done.taken, done.unchanged) == (4, 0, 0)
    found = check(rows, where)
    assert found.sound and found.current == 4

    rows = store(tmp_path / "s", {a: "one", b: "new", c: "three", e: "five"})
    found = check(rows, where)
    assert not found.sound
    assert (found.current, found.outdated, found.missing, found.gone) == (2, 1, 1, 1)
    assert "1 of an older text; 1 missing; 1 of entities that are gone" in str(found)
    done = publish(rows, where)
    assert (done.written, done.taken, done.unchanged) == ((4, 0, 0) if whole else (2, 1, 2))
    assert check(rows, where).sound and check(rows, where).current == 4
    again = publish(rows, where)
    assert again.written == (4 if whole else 0) and again.taken == 0 and check(rows, where).sound
    if "://" not in where:
        assert not publish(rows, Path(where)).taken and check(rows, Path(where)).sound


def test_a_place_forgets_ids_and_what_they_had_before(where: str, tmp_path: Path) -> None:
    publish(store(tmp_path / "s", {"tt1": "one", "it's": "two", "ü": "three"}), where)
    rows = store(tmp_path / "s", {"it's": "changed", "ü": "three"})
    publish(rows, where)
    place: Any = open_place(where, "item_id")
    expected = place.forget(["tt1", "it's", 5], dry_run=True)
    assert expected == place.forget(["tt1", "it's", 5]) > 0 and place.forget(["tt1", "it's"]) == 0
    found = check(rows, where)
    assert (found.current, found.missing) == (1, 1)
    shutil.rmtree(tmp_path / "s")
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"it's" in path.read_bytes()]


def test_vectors_of_another_version_take_the_place_of_all(where: str, tmp_path: Path) -> None:
    publish(store(tmp_path / "s", {1: "one", 2: "two"}), where)
    other = store(tmp_path / "t", {2: "two", 3: "three"}, StoreSpec("another encoder", 4))
    assert (check(other, where).other_version, check(other, where).gone, check(other, where).missing) == (1, 1, 1)
    assert "Export once more, unless these are the vectors of another --what" in str(check(other, where))
    assert publish(other, where).written == 2
    assert check(other, where).sound


def test_a_reader_that_began_with_a_version_goes_on_with_it(redis_url: str, tmp_path: Path) -> None:
    import redis

    from kar_aug.online.places.redis import GRACE_SECONDS

    where, client = f"{redis_url}?prefix=r", redis.Redis.from_url(redis_url)
    client.hset("r:item:1", "vector", b"as it was written before there were versions")
    rows = store(tmp_path / "s", {1: "one", 2: "two"})
    publish(rows, where)
    former = client.get("r:item").decode()
    assert former == rows.version and 0 < client.ttl("r:item:1") <= GRACE_SECONDS

    other = store(tmp_path / "t", {2: "two", 3: "three"}, StoreSpec("another encoder", 4))
    place = open_place(where, "item_id")
    seen = []

    def batches() -> Iterator[pa.RecordBatch]:
        yield next(blocks)
        seen.append((client.get("r:item").decode(), check(rows, where).sound))  # while it is written

    blocks = (other.batch(*block) for block in other.blocks())
    client.hset(f"r:item:{other.version}:9", "vector", b"left by whoever was killed")
    place.write(batches(), other, whole=True)
    assert seen == [(former, True)]
    assert client.get("r:item").decode() == other.version and check(other, where).current == 2
    assert not client.exists(f"r:item:{other.version}:9")
    kept = np.frombuffer(client.hget(f"r:item:{former}:1", "vector"), "<f4")
    np.testing.assert_allclose(kept, vector(1, "one"), atol=1e-2)
    assert 0 < client.ttl(f"r:item:{former}:1") <= GRACE_SECONDS
    assert publish(rows, where).written == 2 and check(rows, where).sound, "back to the former"
    assert client.ttl(f"r:item:{former}:1") == -1


def test_an_index_and_its_ids_change_in_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faiss = pytest.importorskip("faiss")
    where = tmp_path / "items.faiss"
    where.write_text("an index as it was written before")
    publish(store(tmp_path / "s", {1: "one", 2: "two"}), str(where))
    began = where.resolve()
    with monkeypatch.context() as patch:
        patch.setattr(faiss, "write_index", lambda *given: (_ for _ in ()).throw(OSError("the disk is full")))
        with pytest.raises(OSError, match="the disk is full"):
            publish(store(tmp_path / "s", {1: "one", 3: "three"}), str(where))
    assert where.resolve() == began and check(store(tmp_path / "s", {1: "one", 2: "two"}), str(where)).sound
    publish(store(tmp_path / "s", {1: "one", 2: "two", 3: "three"}), str(where))
    assert faiss.read_index(str(began / "vectors.index")).ntotal == len(pq.read_table(began / "ids.parquet")) == 2
    assert faiss.read_index(str(where / "vectors.index")).ntotal == len(pq.read_table(where / "ids.parquet")) == 3
    publish(store(tmp_path / "s", {1: "one"}), str(where))
    assert not began.exists() and len(list(tmp_path.glob(".items.faiss.0*"))) == 2


def test_a_vector_that_is_there_twice_is_not_counted_twice(tmp_path: Path) -> None:
    lance = pytest.importorskip("lance")
    rows, where = store(tmp_path / "s", {1: "one", 2: "two"}), str(tmp_path / "items.lance")
    publish(rows, where)
    lance.write_dataset(lance.dataset(where).to_table().slice(0, 1), where, mode="append")
    found = check(rows, where)
    assert (found.current, found.repeated, found.sound) == (2, 1, False)
    assert "1 of entities that it holds already" in str(found)


def test_other_numbers_under_the_same_key_are_found_and_mended(where: str, tmp_path: Path) -> None:
    publish(store(tmp_path / "s", {1: "one", 2: "two"}), where)
    with VectorStore.writer(tmp_path / "s", SPEC) as writer:
        writer.append([2], ["two"], np.ones((1, 4)))
    rows = Rows(VectorStore.open(tmp_path / "s"), "item")
    found = check(rows, where)
    assert (found.current, found.different) == (1, 1)
    assert str(found).endswith("1 with other numbers. Export once more, with --all (whole=True).")
    publish(rows, where, whole=True)
    assert check(rows, where).sound and "Export" not in str(check(rows, where))
    assert str(check(store(tmp_path / "s", {1: "newer"}), where)).endswith(
        "1 of entities that are gone. Export once more."
    )


def test_what_somebody_made_of_vectors_is_counted_and_mended(redis_url: str, tmp_path: Path) -> None:
    import redis

    rows, folder = store(tmp_path / "s", {1: "one", 2: "two", 3: "three", 4: "four"}), tmp_path / "p"
    where, client = f"{redis_url}?prefix=made", redis.Redis.from_url(redis_url)
    publish(rows, where)
    name = f"made:item:{rows.version}"
    for id, field, value in [(2, "vector", b"abc"), (3, "vector", b"1234"), (4, "id", b"what")]:
        client.hset(f"{name}:{id}", field, value)
    found = check(rows, where)
    assert (found.current, found.different, found.missing) == (1, 2, 1)

    publish(rows, str(folder))
    table = pq.read_table(folder / "00000.parquet")
    vectors = pa.array([None, *table["vector"].to_pylist()[1:]], table.schema.field("vector").type)
    pq.write_table(table.set_column(5, table.schema.field("vector"), vectors), folder / "00000.parquet")
    found = check(rows, str(folder))
    assert (found.current, found.different, found.missing) == (3, 1, 0)
    for place in (where, str(folder)):
        publish(rows, place, whole=True)
        assert check(rows, place).sound


def test_rows_of_parquet_are_a_history_by_the_times_that_texts_knew(tmp_path: Path) -> None:
    publish(store(tmp_path / "s", {1: "one", 2: "two"}, as_of="2000-01-01"), str(tmp_path / "p"))
    publish(store(tmp_path / "s", {1: "newer", 2: "two"}, as_of="2000-02-01T10:00+02:00"), str(tmp_path / "p"))
    table = arrow.dataset(tmp_path / "p").to_table().to_pandas().sort_values(["item_id", "event_timestamp"])
    assert table["event_timestamp"].dt.strftime("%Y-%m-%d %H:%M:%S.%f").tolist() == [
        "2000-01-02 00:00:00.000000", "2000-02-01 08:00:00.000001", "2000-01-02 00:00:00.000000",
    ]  # fmt: skip
    assert table["key"].tolist() == ["one", "newer", "two"] and table["version"].nunique() == 1
    np.testing.assert_allclose(table["vector"].iloc[1], vector(1, "newer"), atol=1e-2)
    timeless = publish(store(tmp_path / "t", {1: "one"}), str(tmp_path / "one.parquet"))
    assert timeless.written == 1
    assert arrow.dataset(tmp_path / "one.parquet").to_table()["event_timestamp"].to_pylist()[0].year == 1970
    with pytest.raises(StoreError, match="which is no time"):
        publish(store(tmp_path / "u", {1: "one"}, as_of="lately"), str(tmp_path / "q"))


FEAST = """
import sys
from datetime import UTC, datetime, timedelta
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Array, Float32, String

folder = sys.argv[1]
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64)
view = FeatureView(
    name="k", entities=[item], ttl=timedelta(0), schema=[Field(name="vector", dtype=Array(Float32))],
    source=FileSource(path=folder + "/p", timestamp_field="event_timestamp", created_timestamp_column="created"),
)
store = FeatureStore(config=RepoConfig(
    project="kar", provider="local", registry=folder + "/registry.db", entity_key_serialization_version=3,
    online_store={"type": "sqlite", "path": folder + "/online.db"}, offline_store={"type": "file"},
))
store.apply([item, view])
times = pd.to_datetime(["2000-01-15", "2000-03-01"] * 2, utc=True)
rows = pd.DataFrame({"item_id": [1, 1, 2, 2], "event_timestamp": times})
joined = store.get_historical_features(rows, ["k:vector"]).to_df().sort_values(["item_id", "event_timestamp"])
print([None if v is None else round(float(v[0]), 1) for v in joined["vector"]])
store.materialize(datetime(1990, 1, 1, tzinfo=UTC), datetime(2001, 1, 1, tzinfo=UTC))
found = store.get_online_features(["k:vector"], [{"item_id": 2}, {"item_id": 1}]).to_dict()["vector"]
print([v if v is None else round(v[0], 1) for v in found])
"""


@pytest.mark.skipif("FEAST_PYTHON" not in os.environ, reason="FEAST_PYTHON names no interpreter that has feast")
def test_feast_joins_each_sample_with_what_was_known_then(tmp_path: Path) -> None:
    where = str(tmp_path / "p")
    for as_of, vectors in (("2000-01-01", {1: 1.0, 2: 2.0}), ("2000-02-01", {2: 3.0})):
        with VectorStore.writer(tmp_path / "s", SPEC) as writer:
            keys = [f"{id} as of {as_of}" for id in vectors]
            writer.append(list(vectors), keys, np.array([[v] * 4 for v in vectors.values()]), as_of=as_of)
            writer.delete([] if 1 in vectors else [1])
        publish(Rows(VectorStore.open(tmp_path / "s"), "item"), where)
    command = [os.environ["FEAST_PYTHON"], "-W", "ignore", "-c", FEAST, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("[")]
    assert lines == ["[1.0, None, 2.0, 3.0]", "[3.0, None]"], "item 1 is taken away"


def test_what_others_have_written_into_redis_is_told_or_written_anew(redis_url: str, tmp_path: Path) -> None:
    import redis

    where, client = f"{redis_url}?prefix=theirs", redis.Redis.from_url(redis_url)
    rows = store(tmp_path / "s", {1: "one", 2: "two"})
    publish(rows, where)
    name = f"theirs:item:{rows.version}"
    client.hset(f"{name}:1", mapping={"version": b"\xff", "key": b"\xfe"})
    assert (found := check(rows, where)).current == 1 and not found.sound
    publish(rows, where)
    assert check(rows, where).sound
    client.set("theirs:item", b"\xff\xfe")
    assert check(rows, where).missing == 2
    publish(rows, where)
    assert check(rows, where).sound

    client.delete(f"{name}:2")
    client.set(f"{name}:2", "a note of somebody's")
    for call in (check, publish):
        with pytest.raises(StoreError, match=rf"{name}:2 holds what kar-aug never writes there\. Take it away \(DEL\)"):
            call(rows, where)
    client.delete("theirs:item")
    client.hset("theirs:item", "theirs", 1)
    with pytest.raises(StoreError, match=r" theirs:item holds what kar-aug never writes there"):
        publish(rows, where)
    assert client.get(f"{name}:2") == b"a note of somebody's"


def test_what_is_no_place_is_told(tmp_path: Path) -> None:
    rows = store(tmp_path / "s", {1: "one"})
    (tmp_path / "x.parquet").write_text("no table")
    with pytest.raises(StoreError, match=r"x\.parquet is no Parquet file of vectors"):
        check(rows, str(tmp_path / "x.parquet"))
    with pytest.raises(StoreError, match=r"holds no vectors\. Write some"):
        check(rows, str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"s3://bucket/items is no place"):
        publish(rows, "s3://bucket/items")
    publish(rows, str(tmp_path / "p"))
    with pytest.raises(StoreError, match="holds vectors of ids that are integers"):
        publish(store(tmp_path / "t", {"a": "one"}), str(tmp_path / "p"))
    with pytest.raises(StoreError, match=r"redis://user:\*\*\*@127\.0\.0\.1:9"):
        publish(rows, "redis://user:secret@127.0.0.1:9/0")
    with pytest.raises(ConfigError, match="there is no kind of place 'abacus'"):
        open_place("x", "item_id", "abacus")


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("", "No place is named"),
        ("  ", "No place is named"),
        ("rediss:/x", "rediss:/x is no path"),
        ("s3:/bucket/x", "is no path"),
        ("parquet://x", "is no path"),
        ("redis://", "is no place for vectors. Name a folder, a .parquet, .lance or .faiss, or redis://"),
        ("~/x", "nobody has put a home folder in"),
        ("x.csv", "vectors are not written as .csv"),
        ("new.JSON", "vectors are not written as .json"),
        ("afile", "is a file, and a folder is wanted there"),
        ("afile/below", "is a file, and .*below is to be a folder in it"),
        ("afile/below.parquet", "is a file, and a folder is wanted there"),
        ("afile/below.lance", "is a file, and a folder is wanted there"),
        ("afile/below.faiss", "is a file, and a folder is wanted there"),
        ("folder", "is not empty: thesis.txt would be lost"),
        (".", "is not empty: afile, folder, folder.faiss, ... would be lost"),
        ("folder.parquet", "is a folder, and a file is wanted there"),
        ("folder.lance", "is no Lance dataset of vectors"),
        ("folder.faiss", "is a folder, and a link to one is written there"),
    ],
)
def test_vectors_go_nowhere_by_mistake(where: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = store(tmp_path / "s", {1: "one"})
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("afile").write_text("a file")
    for folder in ("folder", "folder.parquet", "folder.lance", "folder.faiss"):
        Path(folder).mkdir()
        (Path(folder) / "thesis.txt").write_text("precious")
    before = sorted(str(path) for path in Path().rglob("*"))
    with pytest.raises((ConfigError, StoreError), match=said):
        publish(rows, where)
    assert sorted(str(path) for path in Path().rglob("*")) == before


def test_a_place_may_be_the_folder_where_one_is_and_any_other_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = store(tmp_path / "s", {1: "one"})
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path(".gitkeep").touch()
    for where in (".", "../here", "ITEMS.Parquet", "a:b", "v1.2"):
        assert publish(rows, where).written + publish(rows, where).unchanged > 0 and check(rows, where).sound
    assert Path("00000.parquet").is_file() and Path("ITEMS.Parquet").is_file()


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="rights are told otherwise")
@pytest.mark.parametrize("name", ["folder", "x.parquet", "x.lance", "x.faiss"])
def test_a_folder_that_may_not_be_written_to_is_told(name: str) -> None:
    whoever = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:  # not pytest's, of which others see nothing
        closed = Path(folder) / "closed"
        Path(folder).chmod(0o755)
        rows = store(Path(folder) / "s", {1: "one"})
        closed.mkdir(mode=0o555)
        try:
            if whoever == 0:  # who may do anything
                os.seteuid(65_534)
            with pytest.raises(
                StoreError, match=r"closed may not be written to by this user, and .* Name another place"
            ):
                publish(rows, str(closed / name))
        finally:
            os.seteuid(whoever)
        assert not list(closed.iterdir())


@pytest.mark.skipif(
    os.environ["TF_USE_LEGACY_KERAS"] != "1", reason="a comparison chooses the Keras of its processes itself"
)
def test_augmented_vectors_are_those_of_the_trained_model_and_new_items_reach_one_that_serves(
    own_tables: Path, trained: Path, tmp_path: Path
) -> None:
    from kar_aug import KnowledgeAugmentation  # with TensorFlow, which no other test here needs
    from kar_aug._helpers.keras import tf
    from kar_aug.compare.saved import restored
    from kar_aug.models import augmented_store, refresh, split

    shutil.copytree(trained, tmp_path / "work")
    project = Project(opened(own_tables, tmp_path / "work", **LEARNING, controls=["metadata"], seeds=2).config)
    place = tmp_path / "augmented"
    assert project.export_vectors(place, what="augmented").written == 40
    assert project.check_vectors(place, what="augmented").sound
    assert project.check_vectors(place).other_version == 40, "they are no knowledge vectors"

    experiment = Experiment(project.workspace)
    arm = fullest(arms(experiment.config), "DeepFM")
    assert arm is not None
    run = Book(experiment.folder / BOOK).latest(
        arm, 0, experiment.data_fingerprint(0), experiment.knowledge_fingerprint(arm)
    )
    assert run is not None
    model = restored(experiment, run)
    layer = next(layer for layer in model.layers if isinstance(layer, KnowledgeAugmentation))
    serving = split(model, tmp_path / "tables", versions=True)
    store = VectorStore.open(project.workspace.paths.store("item"))
    rows = arrow.dataset(place).to_table().to_pandas().set_index("item_id")["vector"]
    expected = layer.adapt("item", store.gather(list(rows.index)))
    np.testing.assert_allclose(np.stack(rows.to_list()), expected, rtol=1e-5, atol=1e-6)

    with VectorStore.writer(store.path, store.spec) as writer:  # an item that came after the training, and one changed
        writer.append([999, 3], ["new", "changed"], np.eye(4)[:2])
    augmented = augmented_store(layer, "item", VectorStore.open(store.path), tmp_path / "a")
    np.testing.assert_allclose(augmented.gather([999, 3]), layer.adapt("item", np.eye(4)[:2]), rtol=1e-5, atol=1e-6)
    done = project.export_vectors(place, what="augmented")  # no training, though the knowledge is another now
    assert (done.written, done.unchanged) == (2, 39)
    rows = arrow.dataset(place).to_table().to_pandas().drop_duplicates("item_id", keep="last").set_index("item_id")
    np.testing.assert_allclose(np.stack(rows["vector"][[999, 3]]), augmented.gather([999, 3]), rtol=1e-5, atol=1e-6)

    # What serves was made before there was an item 999, and says what a model with all of today's knowledge would.
    sent = {str(name.name).split(":")[0]: np.ones((2, *name.shape[1:]), "float32") for name in model.inputs}
    sent["item"], tables = np.asarray([[1], [2]]), experiment.tables(arm, 0)
    matrix, known = tables["item"].matrix()
    matrix[1:3], known[1:3] = np.eye(4)[:2], True
    now = refresh(model, {**tables, "item": KnowledgeTable.from_array(matrix, known)})
    vectors = {name: serving.tables[name].gather([experiment.samples(0).vocabulary[name][1]] * 2) for name in tables}
    vectors["item"] = np.stack(rows["vector"][[999, 3]])
    sent |= {f"{name}_vectors": values[:, None] for name, values in vectors.items()}
    versions = {name: serving.tables[name].spec.version for name in tables} | {"item": rows["version"][999]}
    sent |= {f"{name}_version": np.full((2, 1), version, object) for name, version in versions.items()}

    def said(asked: Any) -> Any:
        return asked([tf.cast(sent[each.name.split(":")[0]], each.dtype) for each in asked.inputs])

    np.testing.assert_allclose(said(serving.ranker), said(now), atol=1e-6)
    sent["item_version"][:] = "1a2b3c4d"
    assert not np.allclose(said(serving.ranker), said(now), atol=1e-4), "of another version it reads nothing"

    shutil.rmtree(store.path)
    with VectorStore.writer(store.path, replace(store.spec, encoder="another")) as writer:
        writer.append(store.ids, ["k"] * len(store), store.gather(store.ids))
    with pytest.raises(StoreError, match=r"trained with vectors of version \w{8}, and .* experts cannot read"):
        project.export_vectors(place, what="augmented")


def test_the_commands_say_what_they_did_and_exit_by_what_they_found(
    own_tables: Path, truth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shutil.copytree(truth, tmp_path / "work")
    config = tmp_path / "kar.toml"
    text = (own_tables / "kar.toml").read_text().replace("[data]", 'workdir = "work"\n[data]', 1)
    for table in ("interactions.parquet", "items.csv", "users.csv"):
        text = text.replace(f'"{table}"', f'"{own_tables / table}"')
    config.write_text(text)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["-c", str(config), "vectors", *arguments])

    place = str(tmp_path / "p")
    assert run("check", place).exit_code == 2
    done = run("export", place, "--entity", "user")
    assert done.exit_code == 0 and "60 vectors of version" in done.stderr + done.stdout
    assert run("check", place, "--entity", "user").exit_code == 0
    no_items = run("check", place)
    assert no_items.exit_code == 2 and "holds no vectors of item_id" in no_items.stderr
    (tmp_path / "shelves.py").write_text(
        "from kar_aug.online.places.parquet import Parquet\n\nclass Shelf(Parquet):\n    pass\n"
    )
    for kind, code, said in [
        ("shelves:Shelf", 0, "60 vectors of version"),
        ("shelves:None_", 2, "'shelves:None_' cannot be loaded"),
        ("shelf", 2, "there is no kind of place 'shelf'. Known: parquet"),
    ]:
        done = run("export", str(tmp_path / "shelf"), "--entity", "user", "--format", kind)
        assert done.exit_code == code and said in done.stderr + done.stdout
    shutil.rmtree(tmp_path / "work/vectors")
    missing = run("export", place)
    assert missing.exit_code == 2 and "Make it with: kar-aug encode" in missing.stderr
