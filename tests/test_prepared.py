"""Samples in a folder are those that were made, to the bit, and are made once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import every_kind
from support.commands import kar_aug, refused
from support.exhaustive import examples
from support.small_tables import EVENTS, ITEMS, samples
from support.workspaces import COUNTING

from kar_aug import Project
from kar_aug.audit import audit
from kar_aug.cache import Answer, Status
from kar_aug.config import Config
from kar_aug.data import Tables, load_tables, split_interactions
from kar_aug.data.building import build_samples
from kar_aug.data.inputs import Inputs, inputs
from kar_aug.data.prepared import load, save
from kar_aug.data.room import MEMORY, Room
from kar_aug.data.samples import Column, Samples
from kar_aug.errors import DataError
from kar_aug.pipeline.workspace import Workspace

DATASET = """
import pandas as pd
from kar_aug.data import Tables

def films(folder, *, path=None):
    return Tables(pd.read_parquet("interactions.parquet"), pd.read_csv("items.csv"))
"""
SETTINGS = """
[data]
interactions = "interactions.parquet"
items = "items.csv"
item_features = ["genres"]
protocol = "counting:counted"
[compare]
backbones = ["DeepFM"]
knowledge = []
controls = []
seeds = 2
epochs = 1
jobs = 2
embedding_dim = 4
hidden_units = [8]
batch_size = 1024
"""


def assert_equal(found: Samples, expected: Samples) -> None:
    """All that they hold, to the bit."""
    assert found.features == expected.features and found.keys == expected.keys
    assert found.vocabulary == expected.vocabulary and found.encodings == expected.encodings
    assert list(found.encodings) == list(expected.encodings)
    assert set(found.columns) == set(expected.columns) and found.sequences.keys() == expected.sequences.keys()
    for array, other in zip(arrays(found), arrays(expected), strict=True):
        assert array.dtype == other.dtype and array.shape == other.shape and array.tobytes() == other.tobytes()
    assert [e.length for e in found.sequences.values()] == [e.length for e in expected.sequences.values()]
    assert list(map(described, found.columns.values())) == list(map(described, expected.columns.values()))
    assert found.fingerprint == expected.fingerprint == replace(found).fingerprint, "kept, made, and computed again"


def described(column: Column | None) -> Any:
    """What a column is, and what tells it of events."""
    return column and (column.values.tolist(), column.entity, column.derived, described(column.told))


def arrays(built: Samples) -> list[Any]:
    found: list[Any] = [built.rows, built.label, built.weight, built.part, built.group, built.drawn, built.timestamps]
    found += [built.columns[name].values for name in sorted(built.columns)] + list(built.places.values())
    return found + [part for e in built.sequences.values() for part in (e.kept, e.first, e.stop)]


# The folder

CELLS = st.fixed_dictionaries(
    {
        "item_id": st.integers(0, 5),
        "rating": st.sampled_from([1.0, 2.5, 4.0, 5.0]),
        "timestamp": st.integers(0, 50),
        "price": st.none() | st.floats(-1e6, 1e6),
        "device": st.none() | st.sampled_from(["phone", "télé", "タブ|web", ""]),
    }
)


@settings(max_examples=examples(25))
@given(
    users=st.lists(st.lists(CELLS, min_size=2, max_size=8), min_size=3, max_size=6),
    names=st.sampled_from([lambda user: user - 1, "user {}".format, lambda user: 2**62 + user]),
    numeric=st.sampled_from(["standard", "log", "minmax", "buckets"]),
    chosen=st.fixed_dictionaries(
        {
            "history_length": st.integers(0, 4),
            "events": st.sampled_from(["all", "clicks"]),
            "sequences": st.sampled_from([{}, {"liked": "rating > 3", "on the phone/": "device == 'phone'"}]),
            "fewest": st.integers(1, 3),
            "user_ids": st.booleans(),
            "item_ids": st.booleans(),
        }
    ),
)
def test_samples_from_a_folder_are_those_that_were_saved(
    tmp_path_factory: pytest.TempPathFactory,
    users: list[list[dict[str, Any]]],
    names: Callable[[int], Any],
    numeric: str,
    chosen: dict[str, Any],
) -> None:
    rows = [{"user_id": names(number), **event} for number, events in enumerate(users) for event in events]
    items = pd.DataFrame({"item_id": range(5), "genres": ["a|b", None, "c", "b", "a"], "year": range(1990, 1995)})
    interactions = pd.DataFrame(rows).astype({"price": float, "device": object})
    split = split_interactions(interactions, history=2, validation=0.3, test=0.3)
    built = build_samples(
        Tables(interactions, items),
        split,
        item_features=("genres", "year"),
        context=("device", "hour"),
        numeric={"price": numeric},
        event_features=("rating", "price", "genres", "since"),
        **chosen,
    )
    folder = tmp_path_factory.mktemp("prepared") / "samples"
    save(built, folder)
    assert_equal(load(folder), built)
    read, expected = (each.read(np.arange(len(built))) for each in (load(folder), built))
    assert {name: values.tobytes() for name, values in read.items()} == {n: v.tobytes() for n, v in expected.items()}


def test_features_that_share_an_encoding_share_it_when_they_are_read_again(tmp_path: Path) -> None:
    save(samples(EVENTS), tmp_path / "samples")
    encodings = load(tmp_path / "samples").encodings
    assert encodings["hist_genres"] is encodings["genres"] and encodings["year"] is not encodings["genres"]


def test_what_is_read_is_mapped_and_cannot_be_written_to(tmp_path: Path) -> None:
    save(samples(EVENTS), tmp_path / "samples")
    for array in arrays(load(tmp_path / "samples")):
        assert type(array) is np.ndarray and not array.flags.writeable and isinstance(array.base, np.memmap)


def test_what_is_let_go_is_read_again_as_it_was(tmp_path: Path) -> None:
    save(samples(EVENTS), tmp_path / "samples")
    kept = load(tmp_path / "samples")
    before = [array.tobytes() for array in arrays(kept)]
    kept.let_go()
    assert [array.tobytes() for array in arrays(kept)] == before


def test_other_samples_take_the_place_of_those_that_are_there(tmp_path: Path) -> None:
    fewer = samples(EVENTS[EVENTS["user_id"] < 10])
    for built in (samples(EVENTS), fewer):
        save(built, tmp_path / "samples")
    assert_equal(load(tmp_path / "samples"), fewer)
    assert [path.name for path in tmp_path.iterdir()] == ["samples"]


def test_what_cannot_be_saved_whole_is_not_there(tmp_path: Path) -> None:
    built = samples(EVENTS)
    wrong = replace(built, vocabulary={**built.vocabulary, "item": [None, 1, "two"]})
    with pytest.raises(Exception, match="two"):
        save(wrong, tmp_path / "samples")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"holds no samples\. Name another folder"):
        save(samples(EVENTS), tmp_path)
    with pytest.raises(DataError, match=r"holds no samples\. Make them: kar-aug prepare"):
        load(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_damaged_folder_and_one_of_another_version_say_so(tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    save(samples(EVENTS), folder)
    manifest = (folder / "samples.json").read_text()
    (folder / "samples.json").write_text(json.dumps({**json.loads(manifest), "format": 9}))
    with pytest.raises(DataError, match=r"another version of kar-aug \(format 9; this one reads 1\). Delete"):
        load(folder)
    (folder / "samples.json").write_text(manifest)
    kept = load(folder)
    (folder / "vocabulary-item.parquet").unlink()
    with pytest.raises(DataError, match=r"is damaged, or somebody deleted it: .*vocabulary-item.*Delete that folder"):
        _ = kept.vocabulary["item"]
    os.truncate(folder / "timestamps.npy", 200)
    with pytest.raises(DataError, match="is damaged"):
        load(folder)


# Larger than memory


def events_of(rows: int, folder: Path, **columns: Any) -> Path:
    """A log of so many rows, in no order, as a file."""
    random, path = np.random.default_rng(0), folder / f"{rows}.parquet"
    user, item, rating = random.integers(0, 200, rows), random.integers(0, 100, rows), random.integers(1, 6, rows)
    timestamp = random.integers(1_500_000_000, 1_700_000_000, rows)
    usual = {"user_id": user, "item_id": item, "rating": rating, "timestamp": timestamp}
    pd.DataFrame({**usual, **columns}).to_parquet(path)
    return path


def made(paths: list[Path], room: Room, read: Inputs, **split: Any) -> Samples:
    tables = load_tables(*paths, room=room)
    return build_samples(tables, split_interactions(tables.interactions, room=room, **split), read, room)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kar_aug.data.reading.ROWS", 5)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("protocol", ["user", "temporal"])
@pytest.mark.parametrize(("ids", "times"), [(int, "seconds"), (str, "dates")])
def test_a_log_that_is_not_held_in_memory_makes_the_same_samples(
    ids: type, times: str, protocol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = every_kind.tables(ids, times)
    interactions = kinds.interactions.sample(frac=1, random_state=0).assign(impression_id=lambda rows: rows["slot"])
    frames = {"interactions": interactions, "items": kinds.items, "users": kinds.users}
    paths = [tmp_path / f"{name}.parquet" for name in frames]
    for path, frame in zip(paths, frames.values(), strict=True):
        frame.to_parquet(path, index=False)
    chosen: dict[str, Any] = {"protocol": protocol, "history": 5, "validation": 0.2, "test": 0.2}
    mapped = made(paths, Room(tmp_path / "room", memory=7 << 10), every_kind.READ, **chosen)
    assert list((tmp_path / "room").iterdir()) == [], "its files have no names"
    assert_equal(mapped, made(paths, MEMORY, every_kind.READ, **chosen))


WRITTEN = """
[data]
interactions = "events.{written}"
items = "items.{written}"
label = "event == 'buy'"
weight = "weight"
negatives = 2
protocol = "{protocol}"
history = 3
item_features = ["genre"]
context = ["device", "hour", "tags", "odd", "seats"]
numeric = {{ price = "log", dwell = "buckets" }}
event_features = ["event", "dwell", "since", "tags", "odd", "seats"]
sequences = {{ views = "event == 'view'", buys = "event == 'buy'" }}
memory = "{memory}"
"""


@pytest.mark.parametrize(("protocol", "written"), [("user", "csv"), ("temporal", "parquet")])
def test_the_memory_that_may_be_taken_changes_nothing_of_what_is_prepared(
    protocol: str, written: str, tmp_path: Path
) -> None:
    random, rows = np.random.default_rng(0), 6000
    events = pd.DataFrame(
        {
            "user_id": [f"u{i}" for i in random.integers(0, 150, rows)],
            "item_id": [f"{i:03}" for i in random.integers(0, 80, rows)],
            "timestamp": pd.to_datetime(random.integers(15 * 10**8, 17 * 10**8, rows), unit="s").strftime("%FT%TZ"),
            "event": random.choice(["view", "buy"], rows),
            "device": random.choice(["phone", "desk", ""], rows),
            "price": random.exponential(9, rows).round(2),
            "dwell": np.where(random.random(rows) < 0.1, np.nan, random.exponential(9, rows)),
            "weight": random.integers(1, 4, rows),
            "impression_id": random.integers(0, rows // 4, rows),
            "tags": [
                list(random.choice(["a", "b", "ü", "d e"], count)) or None for count in random.integers(0, 5, rows)
            ],
            "odd": [["a|b", "", "c"][:count] for count in random.integers(0, 4, rows)],
            "seats": [list(map(int, random.integers(0, 30, count))) for count in random.integers(0, 4, rows)],
        }
    )
    found = []
    for memory in ("1 GB", "1 MB"):
        folder = tmp_path / memory
        folder.mkdir()
        getattr(events, f"to_{written}")(folder / f"events.{written}", index=False)
        items = pd.DataFrame({"item_id": [f"{i:03}" for i in range(80)], "genre": ["War", "Drama"] * 40})
        getattr(items, f"to_{written}")(folder / f"items.{written}", index=False)
        (folder / "kar.toml").write_text(WRITTEN.format(protocol=protocol, memory=memory, written=written))
        found.append(Project.open(folder / "kar.toml").prepare().folder)
    in_memory, mapped = found
    assert in_memory.name == mapped.name
    assert {file.name: file.read_bytes() for file in in_memory.iterdir()} == {
        file.name: file.read_bytes() for file in mapped.iterdir()
    }


def test_nothing_is_said_of_a_table_of_many_columns(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    log = pd.DataFrame(random.normal(size=(900, 130)), columns=[f"s{number}" for number in range(130)])
    log = log.assign(user_id=np.arange(900) % 30, item_id=random.integers(0, 9, 900), timestamp=np.arange(900))
    log.assign(ok=random.integers(0, 2, 900)).to_csv(tmp_path / "log.csv", index=False)
    (tmp_path / "kar.toml").write_text('[data]\ninteractions = "log.csv"\nlabel = "ok"\ncontext = ["s1"]\n')
    # A new process: those that are forked have TensorFlow, which nothing here needs, and which takes most of the time.
    command = [sys.executable, "-m", "kar_aug", "prepare"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "Warning" not in done.stderr, done.stderr


@pytest.mark.parametrize("tags", [{}, {"tags": ["a", "b", "c"], "seats": [11, 2, 3]}])
def test_a_longer_log_takes_hardly_more_memory(
    tags: dict[str, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Python and NumPy hold at once: mapped files are the system's."""
    monkeypatch.setattr("kar_aug.data.reading.ROWS", 4096)
    few, many, peaks = 40_000, 160_000, []
    for rows in (few, many):
        path = events_of(rows, tmp_path, **{n: [v[:2], v[2:], None, v[1:2]] * (rows // 4) for n, v in tags.items()})
        tracemalloc.start()
        read = Inputs(event_features=("rating", *tags))
        built = made([path], Room(tmp_path / "room", memory=4096 << 10), read)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(built) > rows / 2
    assert (peaks[1] - peaks[0]) / (many - few) < 8, "bytes an event"


def test_a_full_disk_is_an_error_before_anything_is_lost(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"space|large"):
        Room(tmp_path, memory=0).empty(1 << 50, np.int64)


# Of a project


@pytest.fixture
def folder(own_tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose splits are counted, in the current folder."""
    for name in ("interactions.parquet", "items.csv"):
        shutil.copy(own_tables / name, tmp_path)
    (tmp_path / "kar.toml").write_text(SETTINGS)
    (tmp_path / "counting.py").write_text(COUNTING)
    for name in ("counting", "of_others"):  # another test's
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("COUNTED", str(tmp_path / "counted"))
    return tmp_path


def opened(**data: Any) -> Workspace:
    return Workspace(Config.load("kar.toml", {"data": data}))


def splits(folder: Path) -> int:
    counted = folder / "counted"
    return counted.read_text().count("split") if counted.exists() else 0


def prepared() -> list[Path]:
    """By their names, those that are left over too."""
    return sorted(path for path in Path(".kar/prepared").iterdir() if path.name != ".lock")


def test_samples_are_made_once_and_are_those_that_would_be_made(folder: Path) -> None:
    first = opened()
    built = build_samples(first.tables, first.data.split, inputs(first.config.data))
    assert_equal(first.samples, built)
    again = opened()
    assert_equal(again.samples, built)
    assert splits(folder) == 1 and prepared() == [again.data.prepared]
    assert audit(again).leaks == [], "which reads the tables and the split"


@pytest.mark.slow
def test_several_processes_at_once_make_them_once(folder: Path) -> None:
    code = "from kar_aug import Project; print(Project.open('kar.toml').workspace.samples.fingerprint)"
    running = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=folder) for _ in range(3)
    ]
    fingerprints = [process.communicate(timeout=120)[0] for process in running]
    assert fingerprints == [opened().samples.fingerprint + "\n"] * 3
    assert splits(folder) == 1 and len(prepared()) == 1


@pytest.mark.slow
def test_a_training_on_what_was_prepared_comes_to_the_same(folder: Path) -> None:
    from kar_aug._helpers.keras import IS_KERAS_3

    if IS_KERAS_3:
        pytest.skip("DeepCTR works on the legacy API only")
    from kar_aug.compare import Arm
    from kar_aug.compare.training import predict, train

    workspace = opened()
    built = build_samples(workspace.tables, workspace.data.split, inputs(workspace.config.data))
    training, predictions = replace(workspace.config.compare.training, epochs=1), []
    for each in (built, workspace.samples):
        trained = train(Arm("DeepFM"), 0, each, {}, training)
        predictions.append((trained.curve, predict(trained.model, each, each.of("test")).tobytes()))
    assert predictions[0] == predictions[1]


@pytest.mark.parametrize("change", ["rating", "items", "settings", "folder", "protocol"])
def test_whoever_changes_what_samples_are_made_of_has_others(folder: Path, change: str) -> None:
    before = opened().data.prepared
    interactions = pd.read_parquet("interactions.parquet")
    data: dict[str, Any] = {}
    if change == "rating":
        interactions.assign(rating=5 - interactions["rating"]).to_parquet("interactions.parquet")
    elif change == "items":
        Path("items.csv").write_text(Path("items.csv").read_text().replace("Comedy", "Horror"))
    elif change == "settings":
        data = {"history_length": 7}
    elif change == "protocol":
        Path("counting.py").write_text(COUNTING + "\n# changed\n")
    else:
        Path("parts").mkdir()
        interactions.to_parquet("parts/1.parquet")
        data = {"interactions": "parts"}
        before = opened(**data).data.prepared
        interactions.to_parquet("parts/2.parquet")
    assert opened(**data).data.prepared != before
    assert opened(**data).data.prepared == opened(**data).data.prepared


def test_features_that_a_language_model_answered_are_made_of_its_answers(folder: Path) -> None:
    def answered(country: str) -> Path | None:
        said = {"creator": "X", "country": country, "language": "", "themes": []}
        answer = Answer(f"key of {country}", Status.OK, json.dumps(said), "m", ())
        workspace = opened(item_features=["attributes.country"])
        with workspace.open_cache() as cache:
            cache.put(answer)
            cache.link([("item:attributes", id, answer.key, "1", None) for id in range(40)])
        assert workspace.samples.encodings["attributes.country"].as_dict()["values"] == [country.lower()]
        return workspace.data.prepared

    japan, plain = answered("Japan"), opened().data.prepared
    assert answered("Chad") != japan and answered("Japan") == japan
    assert opened().data.prepared == plain, "which reads no answers"


def test_a_large_file_is_told_by_its_place_size_and_time(folder: Path) -> None:
    rows = EVENTS.assign(
        text=[random.bytes(200_000).hex() for random in [np.random.default_rng(0)] for _ in EVENTS.index]
    )
    rows.to_parquet("interactions.parquet")
    assert Path("interactions.parquet").stat().st_size > 1 << 24
    before = opened().data.prepared
    assert opened().data.prepared == before
    os.utime("interactions.parquet", (1, 1))
    assert opened().data.prepared != before


def test_what_is_damaged_is_made_anew(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = opened()
    fingerprint, path = first.samples.fingerprint, first.data.prepared
    assert path is not None
    os.truncate(path / "label.npy", 100)
    assert opened().samples.fingerprint == fingerprint and splits(folder) == 2
    assert "They are made anew" in caplog.text
    (path / "samples.json").unlink()
    left = path.with_name(f".{path.name}.0a1b2c3d")  # by a process that was killed
    shutil.copytree(path, left)
    assert opened().samples.fingerprint == fingerprint and splits(folder) == 3
    assert prepared() == [path]


def test_a_project_of_data_frames_is_prepared_as_well(folder: Path) -> None:
    chosen = {"data": {"item_features": ["genres"]}, "workdir": "work"}
    done = Project(chosen, interactions=EVENTS, items=ITEMS).prepare()
    assert done.folder == Project(chosen, interactions=EVENTS, items=ITEMS).prepare().folder
    assert Project(chosen, interactions=EVENTS[:-1], items=ITEMS).prepare().folder != done.folder
    assert "120 events, 12 users, 8 items" in str(done) and done.folder.parent == Path("work/prepared")


def test_data_that_are_not_those_of_the_settings_are_kept_nowhere(folder: Path) -> None:
    workspace = opened()
    blind = workspace.data.blind()
    assert blind.prepared is None and len(blind.samples) == 0
    assert not (folder / ".kar" / "prepared").exists()


def test_a_data_set_by_others_code_is_read_each_time(folder: Path) -> None:
    Path("of_others.py").write_text(DATASET)
    project = Project({"data": {"dataset": "of_others:films"}})
    assert len(project.workspace.samples) > 0 and not (folder / ".kar" / "prepared").exists()
    with pytest.raises(DataError, match=r"'of_others:films' is made by code .* \[data\] path"):
        project.prepare()
    assert Project({"data": {"dataset": "of_others:films", "path": "interactions.parquet"}}).prepare().folder.exists()


def test_another_seed_needs_the_tables_only_if_it_is_not_prepared(folder: Path) -> None:
    _ = opened().with_seed(7).samples
    assert splits(folder) == 1
    assert opened().with_seed(7).data.fingerprint == opened(seed=7).data.fingerprint and splits(folder) == 1
    assert opened().data.fingerprint != opened(seed=7).data.fingerprint and splits(folder) == 2


def test_old_samples_are_deleted_and_recent_ones_are_not(folder: Path) -> None:
    _ = opened(history_length=1).samples
    first = opened(history_length=1).data.prepared
    assert first is not None
    weeks_ago = time.time() - 1e6
    for number in range(10):
        copy = shutil.copytree(first, first.with_name(f"{number:016}"))
        os.utime(copy / "samples.json", (weeks_ago + number,) * 2)
    _ = opened(history_length=1).samples
    assert len(prepared()) == 11, "nothing was made"
    _ = opened(history_length=2).samples
    assert [path.name for path in prepared() if path.name.startswith("0" * 15)] == [
        f"{number:016}" for number in range(4, 10)
    ]
    for path in prepared():
        os.utime(path / "samples.json")
    _ = opened(history_length=3).samples
    assert len(prepared()) == 9


def test_the_command_tells_what_there_is_and_deletes_the_rest(folder: Path) -> None:
    done = kar_aug(folder, "prepare")
    assert "1,800 events, 60 users, 40 items; samples: " in done.stderr and "earlier" not in done.stderr
    (folder / "kar.toml").write_text(SETTINGS.replace("[data]", "[data]\nhistory_length = 3"))
    assert "1 of earlier settings or files: 0." in kar_aug(folder, "prepare").stderr
    assert len(prepared()) == 2
    assert "MB deleted" in kar_aug(folder, "prepare", "--clean").stderr
    assert prepared() == [opened().data.prepared]
    (folder / "interactions.parquet").unlink()
    assert "there is no such file" in refused(kar_aug(folder, "prepare"))
