"""The book of runs: what an older kar-aug wrote, and what is no book at all."""

from __future__ import annotations

import pickle
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kar_aug.compare.arms import Arm
from kar_aug.compare.book import BOOK, FORMAT, Book, Run, Trial
from kar_aug.errors import StoreError

FIRST = Path(__file__).parent / "data" / "runs-format-1.sql"
BOTH = ("user", "item")
RUN = Run(
    identity="r1",
    arm=Arm("DIN", "both", BOTH, "mlp", "events"),
    seed=1,
    settings={"dropout": 0.2},
    data="d",
    knowledge={"both user": "k"},
    code="0.1.0, results 1",
    environment={"python": "3.11"},
    auc=0.7,
    logloss=0.5,
    gauc=float("nan"),
    ece=0.01,
    curve=(0.6, 0.7),
    parameters=123,
    train_seconds=1.5,
    microseconds=2.5,
    gate={"user_id": [0.25, 0.75]},
    created="2026-01-01T00:00:00+00:00",
    keras="3",
)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A book as kar-aug wrote it when arms had a `history`: two runs, their predictions, and a trial."""
    path = tmp_path / "runs" / BOOK
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.executescript(FIRST.read_text())
    connection.close()
    return path


def test_what_was_kept_is_read_as_it_was(tmp_path: Path) -> None:
    book = Book(tmp_path / BOOK)
    book.add_run(RUN, np.asarray([0.25, 0.5], "float32"))
    trial = Trial("t1", RUN.arm, 0, {"dropout": 0.1}, 0.6, (0.5, 0.6), 1.0, RUN.created)
    book.add_trial(trial)
    found = pickle.loads(pickle.dumps(book)).run("r1")
    assert found is not None and np.isnan(found.gauc)
    assert replace(found, gauc=0.0) == replace(RUN, gauc=0.0)
    assert book.trial("t1") == trial and book.run("t1") is None
    np.testing.assert_array_equal(book.prediction("r1"), [0.25, 0.5])


def test_the_newest_run_of_an_arm_is_found_by_data_and_knowledge(tmp_path: Path) -> None:
    book = Book(tmp_path / BOOK)
    for number in range(3):
        book.add_run(replace(RUN, identity=f"r{number}", settings={"dropout": number}), np.zeros(1, "float32"))
    newest = book.latest(RUN.arm, 1, "d", {"both user": "k"})
    assert newest is not None and newest.identity == "r2"
    assert book.latest(RUN.arm, 2, "d", {"both user": "k"}) is None
    assert book.latest(RUN.arm, 1, "d", {"both user": "other"}) is None


def test_a_book_of_the_first_format_is_read_and_grows(old: Path) -> None:
    for _ in range(2):
        book = Book(old)
        plain, known = book.run("5a4afc85c7a72032"), book.run("45900e0ae51b6d78")
        assert plain is not None and known is not None
        assert plain.arm == Arm("DeepFM") and plain.keras == known.keras == "2"
        assert known.arm.injection == "events" and known.arm.name == "DIN + knowledge (events)"
        assert known.auc == pytest.approx(0.42452830) and len(book.prediction(known.identity)) == 90
        assert book.latest(known.arm, 0, known.data, known.knowledge) == known
        trial = book.trial("a-trial")
        assert trial is not None and trial.arm.injection == "events"
    book.add_run(RUN, np.zeros(1, "float32"))
    assert book.run("r1") is not None


def test_an_old_book_ends_with_the_tables_of_a_new_one(old: Path, tmp_path: Path) -> None:
    def shape(path: Path) -> dict[str, set[str]]:
        Book(path)
        with sqlite3.connect(path) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (FORMAT.version,)
            assert connection.execute("PRAGMA application_id").fetchone() == (FORMAT.application,)
            names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {name: {row[1] for row in connection.execute(f"PRAGMA table_info({name})")} for name in names}

    assert shape(old) == shape(tmp_path / "new.sqlite")


def test_a_newer_book_and_another_programs_database_are_left_alone(old: Path, tmp_path: Path) -> None:
    Book(old)
    with sqlite3.connect(old) as connection:
        connection.execute(f"PRAGMA user_version = {FORMAT.version + 1}")
    with pytest.raises(StoreError, match=rf"written by a newer kar-aug \(format {FORMAT.version + 1}, .*pip install"):
        Book(old)
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE notes (text TEXT)")
    with pytest.raises(StoreError, match="is a database of another program, not a book of runs"):
        Book(other)


def test_a_damaged_book_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / BOOK).write_bytes(b"no database at all, but long enough to look at" * 30)
    with pytest.raises(StoreError, match="delete it"):
        Book(tmp_path / BOOK)
