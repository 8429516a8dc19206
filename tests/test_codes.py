"""Semantic ids: vectors to codes and back, bundles on the disk, what a report says of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.exhaustive import examples

from kar_aug import EncodingError, StoreError, VectorStore
from kar_aug.cache import StoreSpec
from kar_aug.codes import Pieces, ResidualKMeans, SemanticIds, codes_folder, report
from kar_aug.codes.digits import new_digits, prefix_numbers

SPEC = StoreSpec("encoder", 4)


def vectors(count: int, seed: int = 0, dimension: int = 4) -> np.ndarray:
    """In heaps, as those of texts are; some twice, as items with the same text are."""
    random = np.random.default_rng(seed)
    heaps = random.normal(size=(5, dimension)) * 3
    drawn = heaps[random.integers(0, 5, count)] + random.normal(size=(count, dimension))
    drawn[count // 2 : count // 2 + count // 4] = drawn[: count // 4]
    return drawn.astype("float16")


def filled(path: Path, ids: list[int] | list[str], matrix: np.ndarray, spec: StoreSpec = SPEC) -> VectorStore:
    with VectorStore.writer(path, spec) as writer:
        writer.append(ids, ["key"] * len(ids), matrix)
    return VectorStore.open(path)


@pytest.fixture
def store(tmp_path: Path) -> VectorStore:
    return filled(tmp_path / "items", list(range(40)), vectors(40))


@pytest.fixture(scope="module")
def kmeans() -> ResidualKMeans:
    return ResidualKMeans.fit(vectors(200), levels=3, size=6)


def test_each_level_leaves_less_of_the_vectors_and_the_seed_decides_the_codes(kmeans: ResidualKMeans) -> None:
    known = vectors(200)
    codes = kmeans.encode(known)
    assert codes.shape == (200, 3) and codes.min() >= 1 and codes.max() <= 6
    prefixes = [np.where(np.arange(3) < length, codes, 0) for length in range(4)]
    left = [float(np.square(known - kmeans.decode(prefix)).sum()) for prefix in prefixes]
    assert left[0] > left[1] > left[2] > left[3] > 0
    np.testing.assert_array_equal(kmeans.decode(prefixes[0]), np.zeros((200, 4)))
    again = ResidualKMeans.fit(known, levels=3, size=6)
    np.testing.assert_array_equal(again.codebooks, kmeans.codebooks)
    assert not np.array_equal(ResidualKMeans.fit(known, levels=3, size=6, seed=1).codebooks, kmeans.codebooks)


@settings(max_examples=examples(30))
@given(seed=st.integers(0, 10**6), count=st.integers(1, 30), levels=st.integers(1, 4), size=st.integers(1, 9))
def test_a_code_is_the_nearest_centre_of_what_the_levels_before_leave(
    seed: int, count: int, levels: int, size: int
) -> None:
    random = np.random.default_rng(seed)
    kmeans = ResidualKMeans(random.normal(size=(levels, size, 3)).astype("float32"))
    given_vectors = random.normal(size=(count, 3)).astype("float32")
    codes = kmeans.encode(given_vectors)
    for level in range(levels):
        left = given_vectors - kmeans.decode(np.where(np.arange(levels) < level, codes, 0))
        distances = np.square(left[:, None] - kmeans.codebooks[level]).sum(axis=2)
        chosen = distances[np.arange(count), codes[:, level] - 1]
        np.testing.assert_allclose(chosen, distances.min(axis=1), rtol=1e-3, atol=1e-4)


def test_what_cannot_be_coded_is_said(kmeans: ResidualKMeans) -> None:
    with pytest.raises(EncodingError, match=r"5 vectors cannot be put under 6 codes a level: lower \[codes\] size"):
        ResidualKMeans.fit(vectors(5), size=6)
    with pytest.raises(EncodingError, match="NaN or infinity"):
        kmeans.encode(np.full((1, 4), np.nan))
    with pytest.raises(ValueError, match=r"vectors of 4 numbers. Received shape: \(2, 3\)"):
        kmeans.encode(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="at least one level, and 1 to 65,535 codes"):
        ResidualKMeans.fit(vectors(9), levels=0)


@settings(max_examples=examples(60))
@given(data=st.data())
def test_codes_and_digit_are_an_items_alone_and_no_digit_ever_changes(data: st.DataObject) -> None:
    levels = data.draw(st.integers(1, 3))
    rows = st.lists(st.tuples(*[st.integers(1, 3)] * levels), max_size=12)
    codes, digits = np.empty((0, levels), np.int32), np.empty(0, np.uint32)
    for batch in data.draw(st.lists(rows, max_size=4)):
        new = np.asarray(batch, np.int32).reshape(-1, levels)
        added = new_digits(new, codes, digits)
        codes, digits = np.concatenate([codes, new]), np.concatenate([digits, added])
        kept = np.arange(len(codes)) != data.draw(st.integers(0, len(codes)))  # perhaps one is forgotten
        codes, digits = codes[kept], digits[kept]
        assert len({(*row, digit) for row, digit in zip(codes.tolist(), digits.tolist(), strict=True)}) == len(codes)
    for length, numbers in enumerate(prefix_numbers(codes), 1):
        by_number = {number: tuple(row[:length]) for number, row in zip(numbers.tolist(), codes.tolist(), strict=True)}
        assert len(set(by_number.values())) == len(by_number) == len(np.unique(codes[:, :length], axis=0))


def test_a_bundle_is_read_as_it_was_made(store: VectorStore) -> None:
    made = SemanticIds.make(store, levels=2, size=4)
    codes = SemanticIds.open(codes_folder(store.path))
    assert codes.path.name == "items.codes" and len(codes) == 40 and codes.ids == list(range(40))
    np.testing.assert_array_equal(codes.codes_of(store.ids), made.codes_of(store.ids))
    np.testing.assert_array_equal(codes.codes_of(store.ids), codes.kmeans.encode(store.gather(store.ids)))
    np.testing.assert_array_equal(codes.codes_of([41, None, "3"]), np.zeros((3, 2)))
    np.testing.assert_array_equal(codes.digits_of([41, None]), [-1, -1])
    assert (made.version, made.fingerprint) == (codes.version, codes.fingerprint) and codes.verify() > 0
    first = codes.codes_of([7])[0]
    assert {7} <= set(codes.with_prefix(first)) <= set(codes.with_prefix(first[:1]))
    assert codes.with_prefix([*first, codes.digits_of([7])[0]]) == [7] and len(codes.with_prefix([])) == 40
    with pytest.raises(ValueError, match="has 2 codes and a digit"):
        codes.with_prefix([1, 1, 1, 1])


@settings(max_examples=examples(12), deadline=None)
@given(seed=st.integers(0, 99), batches=st.lists(st.integers(0, 20), min_size=1, max_size=3), text=st.booleans())
def test_an_update_gives_codes_to_new_items_and_moves_none(
    tmp_path_factory: pytest.TempPathFactory, seed: int, batches: list[int], text: bool
) -> None:
    name: Callable[[int], int | str] = (lambda number: f"item {number}") if text else (lambda number: 3 * number)
    path = tmp_path_factory.mktemp("bundle") / "items"
    ids = [name(number) for number in range(10)]
    store = filled(path, ids, vectors(10, seed))
    codes = SemanticIds.make(store, levels=2, size=3, seed=seed)
    for batch in batches:
        before = codes.codes_of(ids), codes.digits_of(ids)
        new = [name(number) for number in range(len(ids), len(ids) + batch)]
        with VectorStore.writer(path, SPEC) as writer:
            if new:
                writer.append(new, ["key"] * batch, vectors(batch, seed + 1))
            writer.append(ids[:2], ["other"] * 2, -vectors(2, seed))  # of other texts now
            writer.delete(ids[2:3])
        codes = codes.update(VectorStore.open(path))
        np.testing.assert_array_equal(codes.codes_of(ids), before[0])
        np.testing.assert_array_equal(codes.digits_of(ids), before[1])
        ids += new
        assert len(codes) == len(ids) and (codes.codes_of(ids) > 0).all()
        whole = np.column_stack([codes.codes_of(ids), codes.digits_of(ids)])
        assert len(np.unique(whole, axis=0)) == len(ids)
    assert SemanticIds.of(VectorStore.open(path)).ids == sorted(ids)  # type: ignore[type-var]


def test_codes_of_an_earlier_state_or_of_other_vectors_are_refused(store: VectorStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"holds no codes. Make them with: kar-aug codes"):
        SemanticIds.of(store)
    codes = SemanticIds.make(store, levels=2, size=4)
    newer = filled(store.path, [99], vectors(1))
    with pytest.raises(StoreError, match=r"an earlier state of .*items\. Bring them up to date, which moves none"):
        SemanticIds.of(newer)
    other = filled(tmp_path / "others", [1], vectors(1), StoreSpec("another encoder", 4))
    with pytest.raises(StoreError, match=r"are for vectors of version .*, and those of .*others are of version"):
        codes.update(other)
    with pytest.raises(StoreError, match=r"None of the 2 ids of the vocabulary has codes"):
        codes.align([None, "7"])


def test_codes_are_of_one_vector_an_id_and_of_one_pca(tmp_path: Path) -> None:
    def reduced(matrix: np.ndarray) -> VectorStore:
        with VectorStore.writer(tmp_path / "reduced", StoreSpec("encoder", 4, reduction="pca from 5")) as writer:
            writer.project(matrix)
            writer.append(list(range(40)), ["key"] * 40, vectors(40))
        return VectorStore.open(tmp_path / "reduced")

    codes = SemanticIds.make(reduced(np.ones((6, 4))), levels=2, size=4)
    shutil.rmtree(tmp_path / "reduced")
    with pytest.raises(StoreError, match="reduced by another PCA"):
        codes.update(reduced(np.zeros((6, 4))))
    with VectorStore.writer(tmp_path / "users", SPEC) as writer:
        writer.append([1, 1], ["a", "b"], vectors(2), versions=["2001-01-01", "2001-02-01"])
    with pytest.raises(StoreError, match="holds versions of each id, and codes are of one vector an id"):
        SemanticIds.make(VectorStore.open(tmp_path / "users"), levels=2, size=2)


def test_a_bundle_that_is_damaged_or_half_written_is_told_from_a_sound_one(store: VectorStore) -> None:
    codes = SemanticIds.make(store, levels=2, size=4)
    (codes.path / "00007-codes.ids.npy").write_bytes(b"of a writer that was killed")
    assert len(SemanticIds.open(codes.path)) == 40
    newest = codes.update(filled(store.path, [99], vectors(1)))
    assert len(newest) == 41 and not (codes.path / "00007-codes.ids.npy").exists()
    assert len(codes) == 40 and codes.codes_of([3]).all(), "who has it open goes on with what he saw"
    file = next(codes.path.glob("*.codes.npy"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(StoreError, match=r"codes\.npy is damaged"):
        newest.verify()
    manifest = json.loads((codes.path / "codes.json").read_text())
    (codes.path / "codes.json").write_text(json.dumps({**manifest, "size": 5}))
    with pytest.raises(StoreError, match="its checksum is wrong"):
        SemanticIds.open(codes.path)


def test_new_codebooks_are_of_another_version(store: VectorStore) -> None:
    first = SemanticIds.make(store, levels=2, size=4)
    assert first.update(filled(store.path, [99], vectors(1))).version == first.version
    second = SemanticIds.make(store, levels=2, size=4, seed=1)
    assert second.version != first.version and SemanticIds.open(first.path).version == second.version


def test_who_is_forgotten_is_in_no_file_of_the_bundle_and_nobody_moves(store: VectorStore) -> None:
    codes = SemanticIds.make(store, levels=2, size=4)
    rest = [id for id in store.ids if id not in (3, 5)]
    kept = codes.without([3, 5, "3"])
    assert kept.ids == rest and not any(3 in np.load(path) for path in codes.path.glob("*.ids.npy"))
    np.testing.assert_array_equal(kept.codes_of(rest), codes.codes_of(rest))
    np.testing.assert_array_equal(kept.digits_of(rest), codes.digits_of(rest))


def test_a_report_counts_what_is_shared_and_finds_neighbours(tmp_path: Path) -> None:
    corners = np.asarray([[x, y, 0, 0] for x in (-8, 8) for y in (-1, 1)], "float32")
    matrix = np.repeat(corners, 3, axis=0) + 0.01 * np.eye(12, 4, dtype="float32")
    store = filled(tmp_path / "items", list(range(12)), matrix)
    told = report(SemanticIds.make(store, levels=2, size=2), store, nearest=2)
    assert (told.items, told.unique, told.collided, told.largest) == (12, 0.0, 12, 3)
    first, second = told.levels
    assert (first.used, first.entropy, first.evenness, first.prefixes, second.prefixes) == (2, 1.0, 1.0, 2, 4)
    assert first.shared == pytest.approx(5 / 11) and second.shared == pytest.approx(2 / 11)
    assert second.neighbours == 1.0, "all that lie in its corner have all its codes"
    assert 0 <= second.left < 0.01 < first.left < 0.1
    assert "12 items: 0.0% have their codes alone; 12 share them" in str(told) and len(told.frame) == 2


@settings(max_examples=examples(40))
@given(data=st.data())
def test_pieces_are_equal_where_prefixes_are_and_fit_their_embeddings(data: st.DataObject) -> None:
    levels, size = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5))
    rows = st.lists(st.one_of(st.just((0,) * levels), st.tuples(*[st.integers(1, size)] * levels)), min_size=1)
    codes = np.asarray(data.draw(rows), np.int32)
    pieces = Pieces(levels, size, data.draw(st.sampled_from([1, 7, 1 << 20])))
    found = pieces.of(codes)
    assert found.shape == (len(codes), 2 * levels - 1) == (len(codes), len(pieces.names))
    assert (found < pieces.vocabulary_sizes).all() and (found[codes[:, 0] == 0] == 0).all()
    assert (found[codes[:, 0] > 0] > 0).all(), "0 stands for an unknown item alone"
    np.testing.assert_array_equal(found[:, :levels], codes)
    for name, column in zip(pieces.names[levels:], found[:, levels:].T, strict=True):
        of = prefix_numbers(codes)[int(name.removeprefix("prefix_")) - 1]
        assert all(len(set(column[of == number].tolist())) == 1 for number in set(of.tolist()))
        if pieces.buckets == 1 << 20:
            assert len(set(column.tolist())) == len(set(of.tolist()))
