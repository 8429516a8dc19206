"""A store of versions gives each row what was known strictly before it, and nothing else."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.exhaustive import examples

from kar_aug.cache import StoreSpec, VectorStore
from kar_aug.cache.vectors.moments import BEFORE_ALL, as_of_moment, moments
from kar_aug.errors import StoreError

SPEC = StoreSpec("minilm@abc", 2, ("v1",), ("gpt-4o-mini",))
SECOND = 1_000_000
Known = dict[tuple[Any, int], int]  # (id, second) -> what stands in the vector
Operation = tuple[str, list[tuple[Any, int]]]


def append(path: Path, pairs: list[tuple[Any, int]], values: list[float]) -> VectorStore:
    with VectorStore.writer(path, SPEC) as writer:
        ids, seconds = [id for id, _ in pairs], np.array([second for _, second in pairs])
        keys = [str(value) for value in values]
        writer.append(ids, keys, np.repeat(np.array(values)[:, None], 2, 1), versions=seconds * SECOND)
    return VectorStore.open(path)


@pytest.mark.parametrize(
    "versions", [np.array([1_769_882_400]), np.array(["2026-01-31"], "datetime64[s]"), np.array([1e15])]
)
def test_seconds_are_not_taken_for_microseconds_which_would_be_before_everything(
    versions: np.ndarray, tmp_path: Path
) -> None:
    with VectorStore.writer(tmp_path / "store", SPEC) as writer, pytest.raises(ValueError, match="microseconds since"):
        writer.append([7], ["k"], np.ones((1, 2)), versions=versions)


def test_a_day_is_known_at_its_end_however_it_is_written() -> None:
    assert as_of_moment("20260131") == as_of_moment("2026-01-31") > as_of_moment("2026-01-31T23:59")


@pytest.fixture
def store(tmp_path: Path) -> VectorStore:
    """Of 7 what was known by 100 and 200, of 8 by 150; appended in another order."""
    append(tmp_path / "store", [(7, 200), (8, 150)], [72, 81])
    return append(tmp_path / "store", [(7, 100)], [71])


@st.composite
def histories(draw: st.DrawFn) -> list[Operation]:
    """Appends in any order of time, the same pair again among them, and what else is done to a store."""
    kind: st.SearchStrategy[Any] = draw(st.sampled_from([st.sampled_from(["a", "ab", "b"]), st.integers(-1, 3)]))
    pairs = st.lists(st.tuples(kind, st.integers(0, 6)), min_size=1, max_size=6, unique=True)
    whats = ["append", "append", "append", "forget", "withdraw", "compact", "prune", "reopen"]
    return draw(st.lists(st.tuples(st.sampled_from(whats), pairs), min_size=1, max_size=12))


@pytest.mark.slow
@settings(max_examples=examples(40), deadline=None)
@given(histories())
def test_each_row_gets_the_last_version_before_it_whatever_was_done_to_the_store(history: list[Operation]) -> None:
    known: Known = {}
    with tempfile.TemporaryDirectory() as name:
        folder, turn = Path(name), 0
        while turn < len(history):
            with VectorStore.writer(folder, SPEC) as writer:
                while turn < len(history):
                    what, pairs = history[turn]
                    turn += 1
                    ids, seconds = [id for id, _ in pairs], np.array([second for _, second in pairs])
                    if what == "append":
                        vectors = np.full((len(ids), 2), turn)
                        writer.append(ids, [str(turn)] * len(ids), vectors, versions=seconds * SECOND)
                        known.update(dict.fromkeys(pairs, turn))
                    elif what == "forget":  # all that is known of the first
                        gone = [pair for pair in known if pair[0] == ids[0]]
                        assert writer.delete(ids[:1]) == len(gone)
                        known = {pair: value for pair, value in known.items() if pair not in gone}
                    elif what == "withdraw":  # just these versions
                        assert writer.delete(ids, seconds * SECOND) == sum(pair in known for pair in pairs)
                        known = {pair: value for pair, value in known.items() if pair not in pairs}
                    elif what == "compact":
                        writer.compact()
                    elif what == "prune":
                        writer.prune()
                    else:
                        break
                if writer.manifest.generation:
                    check(VectorStore.open(folder), known)  # before it is indexed, and below after
            if (folder / "manifest.json").exists():
                check(VectorStore.open(folder), known)


def check(store: VectorStore, known: Known) -> None:
    """Against a reference that goes through all versions of all rows."""
    ids = ["a", "ab", "b", *range(-1, 4), None]
    asked = [(id, second) for id in ids for second in range(8)]
    expected = [
        max(((since, value) for (id, since), value in known.items() if id == wanted and since < time), default=None)
        for wanted, time in asked
    ]
    if not known:
        assert not len(store) and not store.versions
        return
    rows = store.rows_at([id for id, _ in asked], [second for _, second in asked])
    assert (rows >= 0).tolist() == [found is not None for found in expected]
    assert store.vectors_at(rows)[:, 0].tolist() == [0 if found is None else found[1] for found in expected]
    last = {id: max((s, v) for (other, s), v in known.items() if other == id)[1] for id, _ in known}
    assert set(store.ids) == set(last) and len(store) == len(last) and store.versions == len(known)
    assert store.gather(list(last))[:, 0].tolist() == list(last.values())
    assert store.verify() >= 0


def test_a_version_of_just_the_rows_time_is_not_given_to_it(store: VectorStore) -> None:
    ids, times = [7, 7, 7, 7, 8, 9], [100, 101, 200, 1000, 150, 1000]
    assert store.gather(ids, times)[:, 0].tolist() == [0, 71, 71, 72, 0, 0]
    assert store.coverage(ids, times) == 0.5
    assert store.gather([7, 8])[:, 0].tolist() == [72, 81]  # without times the last of all


def test_a_vocabulary_of_ids_and_times_is_aligned_and_what_was_not_known_is_unknown(store: VectorStore) -> None:
    table = store.align([None, 7, 7, 7], [0, 100, 150, 300])
    matrix, known = table.matrix()
    assert matrix[:, 0].tolist() == [0, 0, 71, 72] and known.tolist() == [False, False, True, True]
    assert table.coverage == 0.5


@pytest.mark.parametrize("times", [
    np.array(["1970-01-01T00:03:20.000001", "1970-01-01T00:03:20"], "datetime64[us]"),
    pd.Series(pd.to_datetime(["1970-01-01 01:03:20.000001+01:00", "1970-01-01 01:03:20.000000+01:00"])),
    ["1970-01-01T00:03:20.000001Z", "1970-01-01T00:03:20"],
    [datetime(1970, 1, 1, 0, 3, 20, 1, UTC), datetime(1970, 1, 1, 0, 3, 20)],
    np.array([200.000001, 200.0]),
])  # fmt: skip
def test_times_may_be_written_in_many_ways(store: VectorStore, times: Any) -> None:
    assert store.gather([7, 7], times)[:, 0].tolist() == [72, 71]


def test_times_that_might_look_ahead_are_refused(store: VectorStore) -> None:
    with pytest.raises(ValueError, match="in float32 are a minute off"):
        store.rows_at([7], np.array([150], "float32"))
    with pytest.raises(ValueError, match=r"must be ISO 8601, '2026-01-31T18:00:00'. Received: 'yesterday'"):
        store.rows_at([7], ["yesterday"])
    with pytest.raises(ValueError, match="milliseconds or less by their size"):
        store.rows_at([7], [1_700_000_000_000])
    assert store.rows_at([7, 7], np.array([np.nan, 300.0])).tolist()[0] == -1


@given(st.integers(0, 2_000_000_000), st.integers(0, 999_999_999))
def test_rounding_never_lets_a_row_look_ahead(seconds: int, nanoseconds: int) -> None:
    event = pd.Timestamp(seconds * 10**9 + nanoseconds)
    as_of = as_of_moment(event.isoformat())
    same = [np.array([event.to_datetime64()]), [event.isoformat()], np.array([event.value / 1e9])]
    assert all(moments(times)[0] <= as_of for times in same)
    assert as_of < moments([(event + pd.Timedelta(2, "us")).isoformat()])[0]
    assert moments([None, float("nan"), pd.NaT]).tolist() == [BEFORE_ALL] * 3


def test_one_vector_an_id_and_versions_are_not_mixed_up(store: VectorStore, tmp_path: Path) -> None:
    with VectorStore.writer(tmp_path / "plain", SPEC) as writer:
        writer.append([7], [""], np.ones((1, 2)))
    with pytest.raises(StoreError, match="holds one vector an id, and not since when"):
        VectorStore.open(tmp_path / "plain").gather([7], [300])
    with VectorStore.writer(store.path, SPEC) as writer, pytest.raises(StoreError, match="holds versions of each id"):
        writer.append([7], [""], np.ones((1, 2)))
    assert '"format": 2' in (tmp_path / "plain" / "manifest.json").read_text()  # what older code reads, it still reads
    assert '"format": 3' in (store.path / "manifest.json").read_text()


def test_versions_are_appended_and_no_published_file_changes(store: VectorStore) -> None:
    before = {path: path.read_bytes() for path in store.path.glob("*-part.*")}
    now = append(store.path, [(7, 300)], [73])
    assert all(path.read_bytes() == content for path, content in before.items())
    assert now.gather([7, 7], [300, 301])[:, 0].tolist() == [72, 73]
    assert store.gather([7], [301])[:, 0].tolist() == [72]  # who has the store open sees what there was


def test_versions_go_through_parquet_unchanged(store: VectorStore, tmp_path: Path) -> None:
    store.to_parquet(tmp_path / "vectors.parquet")
    again = VectorStore.from_parquet(tmp_path / "vectors.parquet", tmp_path / "again")
    ids, times = [7, 7, 8], [150, 250, 151]
    assert (again.gather(ids, times) == store.gather(ids, times)).all() and again.versions == 3


@pytest.mark.slow
def test_rows_are_joined_with_what_was_known_before_them(store: VectorStore) -> None:
    import tensorflow as tf

    inputs = {"user_id": np.array([[1, 2], [1, 2]], "int32"), "at": np.array([150, 201])}
    dataset = tf.data.Dataset.from_tensor_slices((inputs, [0, 1])).batch(2)
    ((joined, _),) = store.join(dataset, "user_id", [None, 7, 8], times="at")
    assert joined["user_id_vectors"].numpy()[..., 0].tolist() == [[71, 0], [72, 81]]
    assert joined["user_id_known"].numpy().tolist() == [[True, False], [True, True]]
