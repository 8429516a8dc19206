"""Vectors come back as they were stored, of one kind only, whatever happens to the writer."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from support.exhaustive import examples

from kar_aug.cache import KnowledgeTable, StoreSpec, VectorStore
from kar_aug.cache.vectors import index
from kar_aug.cache.vectors.parts import Parts, all_finite
from kar_aug.errors import StoreError

Vectors = npt.NDArray[Any]
SPEC = StoreSpec("minilm@abc", 2, ("v1",), ("gpt-4o-mini",))


def append(path: Path, ids: Sequence[Any], vectors: Any, spec: StoreSpec = SPEC, key: str = "key") -> VectorStore:
    with VectorStore.writer(path, spec) as writer:
        writer.append(ids, [f"{key} {i}" for i in range(len(ids))], np.asarray(vectors))
    return VectorStore.open(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store of two parts: 10, 20, 30, and then 20 again with 40."""
    append(tmp_path / "store", [10, 20, 30], [[1, 1], [2, 2], [3, 3]], key="old")
    append(tmp_path / "store", [20, 40], [[5, 5], [4, 4]], key="new")
    return tmp_path / "store"


# NumPy drops NULs at the end of a string: a test of its own, below.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6).filter(lambda text: not text.endswith("\0"))


@st.composite
def contents(draw: st.DrawFn) -> tuple[list[Any], Vectors]:
    kind: st.SearchStrategy[Any] = draw(st.sampled_from([TEXT, st.integers(0, 20), st.integers(-(2**63), 2**63 - 1)]))
    ids = draw(st.lists(kind, min_size=1, max_size=8, unique=True))
    dtype, shape = draw(st.sampled_from(["float16", "float32"])), (len(ids), draw(st.integers(1, 4)))
    return ids, draw(arrays(dtype, shape, elements={"allow_nan": False, "allow_infinity": False}))


@pytest.mark.slow
@settings(max_examples=examples(50), deadline=None)
@given(contents())
def test_what_was_stored_comes_back(content: tuple[list[Any], Vectors]) -> None:
    ids, vectors = content
    with tempfile.TemporaryDirectory() as folder:
        spec = StoreSpec("encoder", vectors.shape[1], dtype=str(vectors.dtype))
        store = append(Path(folder), ids, vectors, spec)
        assert (store.ids, len(store), store.spec) == (ids, len(ids), spec)
        assert [type(id) for id in store.ids] == [type(id) for id in ids]
        assert store.keys == {id: f"key {i}" for i, id in enumerate(ids)}
        assert store.vectors.dtype == vectors.dtype and isinstance(store.vectors, np.memmap)
        np.testing.assert_array_equal(store.gather(ids[::-1]), vectors[::-1])
        np.testing.assert_array_equal(store.rows(ids), np.arange(len(ids)))
        assert store.coverage(ids) == 1 and store.coverage([*ids, "no such id"]) == len(ids) / (len(ids) + 1)


def test_an_id_that_ends_in_nul_is_refused_or_kept_whole(tmp_path: Path) -> None:
    try:
        store = append(tmp_path, ["a", "a\0"], [[1, 1], [2, 2]])
    except StoreError:
        return
    assert store.ids == ["a", "a\0"] and store.gather(["a"]).tolist() == [[1, 1]]


def test_a_later_row_supersedes_an_earlier_one(path: Path) -> None:
    store = VectorStore.open(path)
    assert (store.ids, len(store)) == ([10, 30, 20, 40], 4)
    assert store.gather([40, 20, 10]).tolist() == [[4, 4], [5, 5], [1, 1]]
    assert store.keys == {10: "old 0", 20: "new 0", 30: "old 2", 40: "new 1"}
    assert store.vectors.shape == (5, 2) and store.rows([20, 99, None]).tolist() == [3, -1, -1]


def test_parts_are_read_like_one_array(path: Path) -> None:
    store = VectorStore.open(path)
    parts, joined = store.align([10, 20]).vectors, store.vectors
    assert isinstance(parts, Parts) and (parts.shape, parts.dtype, len(parts)) == (joined.shape, joined.dtype, 5)
    for rows in ([4, -1, 0], [[1, 4], [2, 2]], 3, slice(1, 5), slice(None, None, -2), joined[:, 0] > 1, slice(2, 2)):
        np.testing.assert_array_equal(parts[rows], joined[rows])
    np.testing.assert_array_equal(-parts + 1, 1 - joined)
    np.testing.assert_array_equal(np.concatenate([parts, joined]), np.concatenate([joined, joined]))
    with pytest.raises(IndexError, match="There are 5 rows"):
        parts[[5]]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_no_infinity_is_taken_for_a_number(dtype: str) -> None:
    largest = np.finfo(dtype).max
    assert all_finite(np.array([largest, -largest, 0, -0.0], dtype)) and all_finite(np.empty((0, 2), dtype))
    for other in (np.nan, -np.nan, np.inf, -np.inf):
        assert not all_finite(np.array([[1, 2], [3, other]], dtype))


def test_an_open_store_stays_as_it_was(path: Path) -> None:
    before = VectorStore.open(path)
    append(path, [10, 50], [[9, 9], [9, 9]])
    assert before.gather([10]).tolist() == [[1, 1]] and 50 not in before.ids
    assert VectorStore.open(path).gather([10]).tolist() == [[9, 9]]


def test_a_vocabulary_is_aligned_with_its_vectors(path: Path) -> None:
    store = VectorStore.open(path)
    table = store.align([None, 40, 99, 20])
    assert table.rows.dtype == np.int32 and table.rows.tolist() == [-1, 4, -1, 3] and table.coverage == 0.5
    assert table.vectors[table.rows[[1, 3]]].tolist() == [[4, 4], [5, 5]]
    assert (table.store, table.fingerprint) == (str(path.resolve()), store.fingerprint)
    # What could only be a mistake is refused: ids of another kind, and those of another store.
    for wrong, named in ((["20"], "'20'"), ([20.0, 40.0], "20.0"), ([None, 20, "?"], r"vocabulary\[2\] is '\?'")):
        for vocabulary in (wrong, np.asarray(wrong, object)):
            with pytest.raises(StoreError, match=f"are integers, but.*{named}"):
                store.align(vocabulary)
    with pytest.raises(StoreError, match=r"None of the 2 ids of the vocabulary \(98, 99 ...\) has a vector"):
        store.align([None, 98, float("nan"), 99])
    assert store.align([]).coverage == 0 and store.coverage([]) == 0 and store.coverage([20, 20, 99, "20"]) == 0.5
    with pytest.raises(StoreError, match="has no vector of 99"):
        store.gather([20, 99])


def test_a_vocabulary_is_in_an_order(path: Path) -> None:
    store = VectorStore.open(path)
    column = pd.Series([40, None, 20], index=[7, 8, 9], dtype="Int64")  # pandas.NA is no id, and the index no place
    assert store.align(column).rows.tolist() == [4, -1, 3] and store.coverage(column) == pytest.approx(2 / 3)
    assert store.gather(column.dropna()).tolist() == [[4, 4], [5, 5]]
    with pytest.raises(StoreError, match="has no vector of 99"):
        store.gather(pd.Series([20, 99], index=[7, 8]))
    asked: Any
    for asked in ({20, 40}, (id for id in (20, 40)), {20: 0, 40: 1}, np.asarray([[20, 40]]), "20"):
        for look_up in (store.align, store.gather, store.matrix, store.coverage):
            with pytest.raises(StoreError, match="Ids must be"):
                look_up(asked)


def test_an_array_is_a_table_too() -> None:
    table = KnowledgeTable.from_array([[1.0, 2.0], [np.nan, 0.0]], known=[True, False])
    assert table.rows.tolist() == [0, -1] and table.coverage == 0.5 and table.store is None
    with pytest.raises(StoreError, match="integer id 1 holds NaN or infinity"):
        KnowledgeTable.from_array([[1.0, 2.0], [np.nan, 0.0]])
    with pytest.raises(ValueError, match="must have shape"):
        KnowledgeTable.from_array([1.0, 2.0])
    with pytest.raises(ValueError, match="must have shape"):
        KnowledgeTable.from_array([[1.0, 2.0]], known=[True, False])


def test_equal_stores_have_equal_fingerprints_and_others_do_not(path: Path, tmp_path: Path) -> None:
    shutil.copytree(path, tmp_path / "copy")
    fingerprint = VectorStore.open(path).fingerprint
    assert VectorStore.open(tmp_path / "copy").fingerprint == fingerprint
    good = ([1, 2], [[1, 1], [2, 2]], SPEC, "key")
    others = [
        good,
        ([1, 3], *good[1:]),
        (["1", "2"], *good[1:]),
        (good[0], [[1, 1], [2, 3]], *good[2:]),
        (*good[:2], StoreSpec("minilm@abd", 2, ("v1",), ("gpt-4o-mini",)), "key"),
        (*good[:2], StoreSpec("minilm@abc", 2, ("v1",), ("gpt-4o-mini",), "float32"), "key"),
        (*good[:3], "another"),
    ]
    fingerprints = {append(tmp_path / str(i), *content).fingerprint for i, content in enumerate(others)}
    assert len(fingerprints | {fingerprint}) == len(others) + 1
    assert append(tmp_path / "again", *good).fingerprint in fingerprints
    assert append(path, [50], [[1, 1]]).fingerprint != fingerprint


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (StoreSpec("mpnet@abc", 2, ("v1",), ("gpt-4o-mini",)), "encoder 'minilm@abc', not 'mpnet@abc'"),
        (StoreSpec("minilm@abc", 3, ("v1",), ("gpt-4o-mini",)), "dimension 2, not 3"),
        (StoreSpec("minilm@abc", 2, ("v2",), ("gpt-4o-mini",)), r"prompt_versions \('v1',\), not \('v2',\)"),
        (StoreSpec("minilm@abc", 2, ("v1",), ("llama",)), r"language_models \('gpt-4o-mini',\), not \('llama',\)"),
        (StoreSpec("minilm@abc", 2, ("v1",), ("gpt-4o-mini",), "float32"), "dtype 'float16', not 'float32'"),
    ],
)
def test_vectors_of_another_kind_are_refused_and_both_are_named(path: Path, other: StoreSpec, message: str) -> None:
    with pytest.raises(StoreError, match=f"store was made with {message}. Encode into another folder"):
        append(path, [1], np.ones((1, other.dimension)), other)
    assert VectorStore.open(path).ids == [10, 30, 20, 40]


@pytest.mark.parametrize(
    ("ids", "vectors", "message"),
    [
        ([1, 2], [[1, np.nan], [1, 1]], "the vector of 1 holds NaN or infinity"),
        ([1, 2], [[1, 1], [1, -np.inf]], "the vector of 2 holds NaN or infinity"),
        ([1], [[1, 70_000]], r"the vector of 1 holds NaN or infinity \(as float16\)"),
        ([1, 1], [[1, 1], [2, 2]], "an id came twice in one part"),
        ([1, "2"], [[1, 1], [2, 2]], "Ids must be all integers or all strings"),
        ([1.5, 2.5], [[1, 1], [2, 2]], "Ids must be all integers or all strings"),
        ([None, "b"], [[1, 1], [2, 2]], "Ids must be all integers or all strings"),
        ([(1,), (2,)], [[1, 1], [2, 2]], "Ids must be all integers or all strings"),
        ([1, 2], [[1, 1]], r"2 ids and 2 keys came with vectors of shape \(1, 2\); \(2, 2\) is needed"),
        ([1], [[1, 1, 1]], r"vectors of shape \(1, 3\); \(1, 2\) is needed"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_rows_that_cannot_be_used_are_not_published(path: Path, ids: list[Any], vectors: Any, message: str) -> None:
    before = VectorStore.open(path).fingerprint
    with VectorStore.writer(path, SPEC) as writer:
        with pytest.raises(StoreError, match=message):
            writer.append(ids, ["key"] * len(ids), np.asarray(vectors))
        assert VectorStore.open(path).fingerprint == before
        writer.append([7], ["key"], np.ones((1, 2)))
    assert VectorStore.open(path).ids == [10, 30, 20, 40, 7]


def rewrite(name: str, array: Vectors) -> Callable[[Path], None]:
    return lambda path: np.save(path / f"00000-part.{name}.npy", array, allow_pickle=True)


def change(name: str, content: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda path: (path / name).write_bytes(content((path / name).read_bytes()))


def manifest(**values: Any) -> Callable[[Path], object]:
    return change("manifest.json", lambda old: json.dumps({**json.loads(old), **values}).encode())


DAMAGES: dict[str, Callable[[Path], object]] = {
    **{f"cut {name}": change(f"00002-part.{name}.npy", lambda b: b[:-3]) for name in ("vectors", "ids", "keys")},
    **{f"no {name}": change(f"00002-part.{name}.npy", lambda b: b"") for name in ("vectors", "ids", "keys")},
    "missing part": lambda path: (path / "00000-part.vectors.npy").unlink(),
    "cut header": change("00000-part.vectors.npy", lambda b: b[:20]),
    "garbage part": change("00000-part.vectors.npy", lambda b: b"garbage" * 40),
    "wrong rows": rewrite("vectors", np.ones((2, 2), "float16")),
    "wrong width": rewrite("vectors", np.ones((3, 3), "float16")),
    "wrong dtype": rewrite("vectors", np.ones((3, 2), "float32")),
    "wrong byte order": rewrite("vectors", np.ones((3, 2), ">f2")),
    "fewer ids": rewrite("ids", np.asarray([1, 2])),
    "decimal ids": rewrite("ids", np.asarray([1.5, 2.5, 3.5])),
    "numbers for keys": rewrite("keys", np.asarray([1, 2, 3])),
    "pickled ids": rewrite("ids", np.asarray([10, 20, 30], object)),
    "pickled vectors": rewrite("vectors", np.ones((3, 2), object)),
    "missing manifest": lambda path: (path / "manifest.json").unlink(),
    "garbage manifest": change("manifest.json", lambda b: b"\xff\x00garbage"),
    "half a manifest": change("manifest.json", lambda b: b[: len(b) // 2]),
    "manifest of a list": change("manifest.json", lambda b: b"[]"),
    "newer format": manifest(format=3),
    "newer spec": manifest(spec={"encoder": "e", "dimension": 2, "prompt_versions": [], "language_models": [], "x": 1}),
    "parts without names": manifest(parts=[{"rows": 3}]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_store_is_an_error_that_says_what_to_do(path: Path, damage: str) -> None:
    DAMAGES[damage](path)
    with pytest.raises(StoreError, match=r"store.*(encode|Upgrade)"):  # noqa: PT012
        store = VectorStore.open(path)
        assert store.ids and store.keys and store.gather([10]).any()


_WRITER = """
import sys
import numpy as np
from kar_aug.cache import StoreSpec, VectorStore
with VectorStore.writer(sys.argv[1], StoreSpec("encoder", 64)) as writer:
    for i in range(writer.manifest.rows // 50, 100_000):
        writer.append(list(range(i, i + 50)), [str(i)] * 50, np.full((50, 64), i % 1000))
        print(i, flush=True)
"""


def start_writer(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_killed_writer_leaves_the_last_published_state(tmp_path: Path) -> None:
    for kill in range(5):
        job = start_writer(tmp_path)
        assert job.stdout is not None
        published = [int(job.stdout.readline()) for _ in range(3 + 7 * kill)]
        os.kill(job.pid, signal.SIGKILL)
        job.wait()
        published += map(int, job.stdout.read().split())
        store = VectorStore.open(tmp_path)
        last = store.manifest.rows // 50 - 1
        assert last - published[-1] in (0, 1), "one more may be published and not yet acknowledged"
        assert len(store.manifest.parts) < 32, "small parts become few"
        assert store.ids == list(range(last + 50))
        np.testing.assert_array_equal(store.gather(store.ids)[:, 0], np.minimum(store.ids, last) % 1000)
        assert store.keys[published[-1]] == str(published[-1])
        assert store.verify() > 0
    with VectorStore.writer(tmp_path, StoreSpec("encoder", 64)) as writer:
        writer.prune()
    store = VectorStore.open(tmp_path)
    assert store.ids == list(range(last + 50)) and store.verify() > 0


def test_a_store_has_one_writer_and_a_dead_one_does_not_count(tmp_path: Path) -> None:
    job = start_writer(tmp_path)
    assert job.stdout is not None and job.stdout.readline() == "0\n"
    spec = StoreSpec("encoder", 64)
    with pytest.raises(StoreError, match="is being written by another process"), VectorStore.writer(tmp_path, spec):
        pass
    assert len(VectorStore.open(tmp_path)) >= 50, "readers are not kept out"
    job.kill()
    job.wait()
    with VectorStore.writer(tmp_path, spec) as writer:
        writer.append([-1], ["key"], np.ones((1, 64)))
    assert -1 in VectorStore.open(tmp_path).ids


def test_a_lock_does_not_follow_a_link(path: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("content")
    (path / ".lock").unlink()
    (path / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(StoreError, match=r"store/\.lock is a symbolic link.*Remove it"):
        append(path, [50], [[1, 1]])
    assert (tmp_path / "precious").read_text() == "content" and VectorStore.open(path).ids == [10, 30, 20, 40]


def test_integers_and_strings_are_not_mixed_across_parts(path: Path) -> None:
    with VectorStore.writer(path, SPEC) as writer, pytest.raises(StoreError, match="integers in one part and strings"):
        writer.append(["a"], ["key"], np.ones((1, 2)))


Operation = tuple[str, list[Any]]


@st.composite
def histories(draw: st.DrawFn) -> list[Operation]:
    kind: st.SearchStrategy[Any] = draw(st.sampled_from([TEXT, st.integers(-3, 12)]))
    few = st.lists(kind, min_size=1, max_size=4, unique=True)
    operation = st.tuples(st.sampled_from(["append", "append", "append", "delete", "compact", "reopen", "prune"]), few)
    return draw(st.lists(operation, min_size=1, max_size=30))


@pytest.mark.slow
@settings(max_examples=examples(60), deadline=None)
@given(histories())
def test_a_store_behaves_like_a_dictionary_whatever_is_done_to_it(history: list[Operation]) -> None:
    expected: dict[Any, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder, turn, done = Path(name), 0, False
        while not done:
            with VectorStore.writer(folder, SPEC) as writer:
                done = True
                while turn < len(history):
                    what, ids = history[turn]
                    turn += 1
                    if what == "append":
                        writer.append(ids, [str(turn)] * len(ids), np.full((len(ids), 2), turn))
                        expected.update(dict.fromkeys(ids, turn))
                    elif what == "delete":
                        assert writer.delete(ids) == sum(id in expected for id in ids)
                        expected = {id: value for id, value in expected.items() if id not in ids}
                    elif what == "compact":
                        writer.compact()
                    elif what == "prune":
                        writer.prune()
                    elif what == "reopen":
                        done = False
                        break
                if (folder / "manifest.json").exists():
                    check(VectorStore.open(folder), expected)  # before it is indexed, and below after
            if (folder / "manifest.json").exists():
                check(VectorStore.open(folder), expected)


def check(store: VectorStore, expected: dict[Any, float]) -> None:
    assert set(store.ids) == set(expected) and len(store) == len(expected)
    ids = list(expected)
    assert store.gather(ids)[:, 0].tolist() == [expected[id] for id in ids]
    assert store.keys == {id: str(value) for id, value in expected.items()}
    matrix, known = store.matrix([None, *ids, "no such id", 99])
    assert known.tolist() == [False, *[True] * len(ids), False, False] and not matrix[~known].any()
    assert store.verify() >= 0


def test_what_is_open_stays_while_the_files_are_pruned(path: Path) -> None:
    before = VectorStore.open(path)
    with VectorStore.writer(path, SPEC) as writer:
        writer.delete([10])
        writer.compact()
        assert writer.prune() > 0 and writer.prune() == 0
    assert before.gather([10, 20]).tolist() == [[1, 1], [5, 5]]
    after = VectorStore.open(path)
    assert after.ids == [30, 20, 40] and after.vectors.tolist() == [[3, 3], [5, 5], [4, 4]]
    assert after.fingerprint != before.fingerprint
    assert len(list(path.glob("*.npy"))) == 5, "three files of the part and two of the index"


def test_string_ids_of_any_length_are_looked_up(tmp_path: Path) -> None:
    store = append(tmp_path, ["a", "\u00e9\u00e9"], [[1, 1], [2, 2]])
    assert store.rows(["a", "aa" * 50, "\u00e9\u00e9", "a\0", "", None, 1]).tolist() == [0, -1, 1, -1, -1, -1, -1]
    assert store.rows(np.asarray(["a", "b"])).tolist() == [0, -1] and store.id_kind == "U"


def test_integers_of_any_size_and_type_are_looked_up(path: Path) -> None:
    store = VectorStore.open(path)
    assert store.rows(np.asarray([40, 41])).tolist() == [4, -1] and store.id_kind == "i"
    assert store.rows([2**70, np.int32(40), True, "40"]).tolist() == [-1, 4, -1, -1]


@pytest.mark.parametrize("ids", [[3, 1, 2], ["c", "a", "b"]])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_store_goes_through_parquet_unchanged(tmp_path: Path, ids: list[Any], dtype: str) -> None:
    spec = StoreSpec("e@1", 2, ("v1",), ("m",), dtype, reduction="pca from 384")
    with VectorStore.writer(tmp_path / "one", spec) as writer:
        writer.append(ids, ["k", "l", "m"], np.asarray([[1, 2], [3, 4], [5, 6]]), as_of="2001-01-01")
    VectorStore.open(tmp_path / "one").to_parquet(tmp_path / "vectors.parquet")
    store = VectorStore.from_parquet(tmp_path / "vectors.parquet", tmp_path / "two")
    assert (store.ids, store.spec, store.manifest.as_of) == (ids, spec, "2001-01-01")
    assert store.gather(ids).tolist() == [[1, 2], [3, 4], [5, 6]] and store.keys[ids[0]] == "k"
    assert sum(batch.num_rows for batch in store.batches(2)) == 3
    with pytest.raises(StoreError, match="Encode into another folder"):
        VectorStore.from_parquet(tmp_path / "vectors.parquet", tmp_path / "two", StoreSpec("f@1", 2))


def test_a_parquet_file_of_somebody_else_needs_a_spec(tmp_path: Path) -> None:
    import pandas as pd

    pd.DataFrame({"id": [1, 2], "vector": [[1.0, 2.0], [3.0, 4.0]]}).to_parquet(tmp_path / "theirs.parquet")
    with pytest.raises(StoreError, match="Give `spec`"):
        VectorStore.from_parquet(tmp_path / "theirs.parquet", tmp_path / "store")
    store = VectorStore.from_parquet(tmp_path / "theirs.parquet", tmp_path / "store", StoreSpec("theirs", 2))
    assert store.gather([2]).tolist() == [[3, 4]]
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(StoreError, match=r"broken\.parquet is not a Parquet file"):
        VectorStore.from_parquet(tmp_path / "broken.parquet", tmp_path / "store")


def test_a_flipped_byte_anywhere_is_found_and_its_file_named(path: Path) -> None:
    with VectorStore.writer(path, SPEC) as writer:
        writer.prune()
    VectorStore.open(path).verify()
    for file in sorted(path.glob("*.npy")):
        content = file.read_bytes()
        for place in (len(content) // 3, len(content) - 1):
            file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            with pytest.raises(StoreError, match=rf"{file.name}.*encode again"):
                VectorStore.open(path).verify()
        file.write_bytes(content)
    manifest = path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"dimension": 2', '"dimension": 3'))
    with pytest.raises(StoreError, match=r"manifest\.json is damaged .its checksum is wrong.*encode again"):
        VectorStore.open(path)


def test_a_flipped_byte_in_a_small_index_is_found_when_the_store_is_opened(path: Path) -> None:
    with VectorStore.writer(path, SPEC) as writer:
        writer.prune()
    for file in path.glob("*-index.*.npy"):
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(StoreError, match=rf"{file.name} is damaged: its checksum is not the manifest's"):
            VectorStore.open(path)
        file.write_bytes(content)
    assert len(VectorStore.open(path)) == 4


def test_many_small_appends_become_few_parts_and_rows_keep_their_numbers(tmp_path: Path) -> None:
    with VectorStore.writer(tmp_path, SPEC) as writer:
        for i in range(300):
            writer.append([i], ["k"], np.full((1, 2), i))
    store = VectorStore.open(tmp_path)
    assert len(store.manifest.parts) <= 32 and store.rows(range(300)).tolist() == list(range(300))  # type: ignore[arg-type]
    assert store.gather(np.arange(300))[:, 0].tolist() == list(range(300))


def test_a_full_disk_leaves_the_last_published_state(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import kar_aug.cache.vectors.files as files

    real = files.write_atomic
    fails = [True]

    def full(*arguments: Any) -> None:
        if fails.pop(0) if fails else False:
            raise OSError("No space left on device")
        real(*arguments)

    monkeypatch.setattr(files, "write_atomic", full)
    with pytest.raises(StoreError, match=r"cannot be written .No space left"), VectorStore.writer(path, SPEC) as writer:
        writer.append([77], ["k"], np.ones((1, 2)))
    assert VectorStore.open(path).ids == [10, 30, 20, 40]
    append(path, [78], [[7, 8]])
    store = VectorStore.open(path)
    assert store.ids == [10, 30, 20, 40, 78] and store.gather([78]).tolist() == [[7, 8]] and store.verify()


@given(
    st.lists(st.integers(-50, 50) | st.integers(-(2**63), 2**63 - 1), unique=True, max_size=60)
    | st.lists(st.text("abc", max_size=4), unique=True, max_size=60),
    st.data(),
)
def test_among_many_ids_each_is_found_by_way_of_signposts(ids: list[Any], data: st.DataObject) -> None:
    asked = [*data.draw(st.lists(st.sampled_from(ids) if ids else st.nothing())), -7, 51, "b", "zz", None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "_CACHED", 0)
        patch.setattr(index, "_NEAR", 8)
        found = index.IdIndex.build(index.stored_ids(ids), np.arange(len(ids))).find(asked)
    assert found.tolist() == [ids.index(id) if id in ids else -1 for id in asked]
