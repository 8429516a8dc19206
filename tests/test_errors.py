"""Errors say to programs what their messages say to people; every one can be caught from `kar_aug`."""

from __future__ import annotations

import inspect
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import kar_aug
from kar_aug import (
    ConfigError,
    DataError,
    EncodingError,
    KarError,
    MissingDependencyError,
    StoreError,
    VectorStore,
    errors,
)
from kar_aug.cache import StoreSpec
from kar_aug.config import Config
from kar_aug.data import Tables
from kar_aug.encode import encode
from kar_aug.testing import HashEncoder


def test_every_error_is_exported_and_documented() -> None:
    found = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, KarError)}
    assert found <= set(kar_aug.__all__)
    assert all(name in (errors.__doc__ or "") for name in found)


def test_a_table_names_itself_its_column_and_the_row() -> None:
    events = pd.DataFrame({"user_id": [1, 2], "item_id": [1, 1], "timestamp": [5, None], "rating": [1, 5]})
    with pytest.raises(DataError) as caught:
        Tables(events)
    assert (caught.value.table, caught.value.column, caught.value.row) == ("interactions", "timestamp", 1)
    events["timestamp"] = 5
    with pytest.raises(DataError) as caught:
        Tables(events, items=pd.DataFrame({"item_id": ["1"]}))
    assert (caught.value.table, caught.value.left, caught.value.right) == ("items", "integer", "string")


def test_a_setting_is_named_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "kar.toml").write_text('[data]\ndataset = "movielens-100k"\ntest = 2.0\n')
    with pytest.raises(ConfigError) as caught:
        Config.load(tmp_path / "kar.toml")
    assert (caught.value.path, caught.value.setting) == (str(tmp_path / "kar.toml"), "[data] test")


def test_a_store_has_both_sides_of_what_does_not_fit(tmp_path: Path) -> None:
    ours, theirs = StoreSpec("ours", 2), StoreSpec("theirs", 2)
    with VectorStore.writer(tmp_path / "store", ours) as writer:
        writer.append([1], ["k"], np.ones((1, 2)))
    with pytest.raises(StoreError) as caught, VectorStore.writer(tmp_path / "store", theirs):
        pass
    assert (caught.value.path, caught.value.left, caught.value.right) == (tmp_path / "store", ours, theirs)
    with pytest.raises(StoreError) as caught:
        VectorStore.open(tmp_path / "store").gather([1, 7])
    assert caught.value.entity_id == 7


def test_an_encoding_names_encoder_and_store(tmp_path: Path) -> None:
    with pytest.raises(EncodingError) as caught:
        encode([], tmp_path / "store", HashEncoder())
    assert caught.value.path == tmp_path / "store"


def test_a_missing_package_is_named_with_the_extra_that_brings_it() -> None:
    error = MissingDependencyError("optuna", "tune")
    assert (error.package, error.extra) == ("optuna", "tune") and "'kar-aug[tune]'" in str(error)


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("m", path="kar.toml", setting="[data] test"),
        DataError("m", table="items", column="item_id", row=3),
        StoreError("m", path=Path("store"), left=1, right=2),
        MissingDependencyError("optuna", "tune"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_passes_from_one_process_to_another(error: KarError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and str(again) == str(error) and vars(again) == vars(error)
