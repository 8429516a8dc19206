"""kar-aug inspect --data: what models read of the data, told in the words and units of the tables."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from support.logs import news, shop

from kar_aug.cli import main
from kar_aug.cli.progress import results
from kar_aug.inspect import DataView
from kar_aug.pipeline.project import Project

TEMPORAL = {"protocol": "temporal", "history_share": 0.2, "validation": 0.2, "test": 0.2}


def log(rows: int = 1000) -> pd.DataFrame:
    """One event of each of ten users in turn; of 20 items the last two come in the end alone."""
    number = np.arange(rows)
    return pd.DataFrame(
        {
            "user_id": number % 10,
            "item_id": np.where(number < 0.8 * rows, number % 18, 18 + number % 2),
            "timestamp": 1_600_000_000 + number * 3600,
            "label": (number // 10) % 2,
            "device": np.where(number % 4 == 0, "phone", "desk"),
            "dwell": np.where(number % 5 == 0, np.nan, number % 7),
        }
    )


def view(folder: Path, interactions: pd.DataFrame, items: pd.DataFrame | None = None, **data: Any) -> DataView:
    settings = {"data": {**TEMPORAL, **data}, "workdir": str(folder)}
    return Project(settings, interactions=interactions, items=items).inspect.data()


def rows(found: DataView) -> dict[str, dict[str, Any]]:
    return {str(row["feature"]): row for row in found.features.to_dict("records")}  # type: ignore[misc]


def test_every_input_of_a_model_has_a_row(tmp_path: Path) -> None:
    found = view(tmp_path, log(), context=["hour", "device"], event_features=["dwell", "since"])
    read = rows(found)
    assert [*read] == [feature.name for feature in found.data.samples.features]
    assert {name: row["source"] for name, row in read.items()} == {
        "user_id": "interactions.user_id",
        "item_id": "interactions.item_id",
        "hour": "interactions.timestamp",
        "device": "interactions.device",
        "hist_item_id": "hist: interactions.item_id",
        "hist_dwell": "hist: interactions.dwell",
        "hist_since": "hist: interactions.timestamp",
    }
    assert read["device"]["examples"] == "desk, phone" and read["device"]["size"] == 4
    assert read["hist_since"]["kind"] == "how long ago" and read["hour"]["size"] == 26


def test_numbers_are_told_in_the_units_of_the_table_and_of_the_training_rows(tmp_path: Path) -> None:
    items = pd.DataFrame({"item_id": range(20), "price": [float(10 * item) for item in range(18)] + [9999.0, np.nan]})
    found = view(tmp_path, log(), items, item_features=["price"], numeric={"price": "log"})
    price = rows(found)["price"]
    split = found.data.split
    trained = split.loc[split["part"] == "train", "item_id"].map(items.set_index("item_id")["price"])
    assert price["kind"] == "number, log" and price["source"] == "items.price" and price["size"] == 0
    expected = [trained.mean(), trained.std(ddof=0), 0.0, 170.0]
    np.testing.assert_allclose([price[name] for name in ("mean", "sd", "min", "max")], expected)


def test_what_is_unknown_in_the_test_part_and_what_is_missing(tmp_path: Path) -> None:
    items = pd.DataFrame({"item_id": range(20), "genres": ["a|b", "a", "", "b"] * 4 + ["a", "a", "new", "new|newer"]})
    items["genres"] = items["genres"].replace("", None)
    interactions = log()
    found = view(tmp_path, interactions, items, item_features=["genres"], event_features=["dwell"])
    read = rows(found)
    assert read["item_id"]["unknown"] == read["genres"]["unknown"] == 1, "the test part has the two new items alone"
    assert read["genres"]["kind"] == "list of up to 2"
    samples = found.data.split[found.data.split["part"] != "history"]
    assert read["genres"]["missing"] == pytest.approx(samples["item_id"].isin([2, 6, 10, 14]).mean())
    assert read["hist_dwell"]["missing"] == pytest.approx(0.2, abs=0.05)
    assert 0 < read["hist_item_id"]["unknown"] < 1, "of the events that are read, some are of the new items"
    assert "item_id: 100% of the test part is unknown to a model." in found.warnings


def test_a_number_that_may_miss_has_a_flag(tmp_path: Path) -> None:
    items = pd.DataFrame({"item_id": range(20), "price": [None if item % 2 else item for item in range(20)]})
    read = rows(view(tmp_path, log(), items, item_features=["price"], numeric={"price": "standard"}))
    assert read["price_missing"]["kind"] == "flag" and read["price"]["missing"] == pytest.approx(0.5, abs=0.02)


def test_columns_are_called_as_in_the_files(tmp_path: Path) -> None:
    renamed = log().rename(columns={"item_id": "sku", "timestamp": "ts"})
    read = rows(view(tmp_path, renamed, columns={"item_id": "sku", "timestamp": "ts"}, context=["hour"]))
    assert read["item_id"]["source"] == "interactions.sku" and read["hour"]["source"] == "interactions.ts"


def test_parts_and_lengths_of_histories(tmp_path: Path) -> None:
    found = view(
        tmp_path, log(), history_length=5, sequences={"phones": "device == 'phone'"}, event_features=["device"]
    )
    examples = {name: row["examples"] for name, row in rows(found).items() if name.endswith("_device")}
    assert examples == {"hist_device": "desk, phone", "phones_device": "phone"}, "of the events that are read"
    parts = found.parts.set_index("part")
    assert parts["rows"].to_dict() == {"history": 200, "train": 400, "validation": 200, "test": 200}
    assert parts.loc["test", ["users", "items", "clicks"]].tolist() == [10, 2, 0.5]
    assert parts.loc["test", "first"] == "2020-10-16" and parts.loc["test", "drawn"] == 0
    histories = found.histories.set_index(["sequence", "part"])
    assert histories.loc[("hist", "test"), ["0%", "100%", "read"]].tolist() == [80, 99, 5]
    assert histories.loc[("phones", "test"), "0%"] == 0, "odd users have no phone"


def test_a_column_that_comes_of_some_clicks_is_named(tmp_path: Path) -> None:
    events = log(2000)
    events["applied"] = np.where((events["label"] == 1) & (events.index % 7 == 0), "yes", "no")
    warned = [text for text in view(tmp_path, events, context=["device", "applied"]).warnings if "is a click" in text]
    assert len(warned) == 1 and warned[0].startswith("applied: each of the rows with yes is a click")


def test_that_nothing_tells_earlier_clicks_from_other_events_is_said(tmp_path: Path) -> None:
    """Whoever reads all events and no label counts what was passed over as what was liked."""
    said = "50% of the earlier events that models read were no clicks, and nothing tells them from clicks"
    told = ["label", "since"]
    warned = {
        "another column": view(tmp_path, log(), event_features=["dwell"]),
        "by default": view(tmp_path, log()),
        "KAR's": view(tmp_path, log(), inputs="kar"),
        "labels": view(tmp_path, log(), event_features=told),
        "clicks alone": view(tmp_path, log(), events="clicks"),
        "ratings": view(tmp_path, log().assign(rating=lambda frame: 1 + 4 * frame["label"])),
        "what came of it": view(tmp_path, log().assign(end=lambda frame: frame["label"]), event_features=["end"]),
        "drawn": view(tmp_path, log().assign(label=1), negatives=1),
    }
    named = [name for name, found in warned.items() if any(said in text for text in found.warnings)]
    assert named == ["another column"]
    read = rows(warned["labels"])["hist_label"]
    assert read["source"] == "hist: interactions.label" and read["size"] == 4 and read["examples"] in ("1, 0", "0, 1")


def test_what_says_which_item_was_clicked_is_named_where_others_are_drawn(tmp_path: Path) -> None:
    """An item that is drawn is given the price that the click was paid with."""
    random, events = np.random.default_rng(0), log(2000).assign(label=1)
    events["item_id"] = random.integers(0, 200, len(events))
    events["paid"] = (3.0 + events["item_id"]) * random.choice([1, 0.95, 0.9], len(events))
    read: dict[str, Any] = {"context": ["device"], "numeric": {"paid": "log"}}
    said = "paid says much of which item was clicked"
    assert any(said in text for text in view(tmp_path, events, negatives=1, **read).warnings)
    of_both = events.assign(label=random.integers(0, 2, len(events)))
    for other in (view(tmp_path, of_both, **read), view(tmp_path, events, negatives=1, context=["device"])):
        assert not any("says much of which item" in text for text in other.warnings)


def test_negatives_that_are_drawn_are_counted(tmp_path: Path) -> None:
    parts = view(tmp_path, log().assign(label=1), negatives=2).parts.set_index("part")
    assert parts.loc["train", "drawn"] == pytest.approx(2 / 3 * parts.loc["train", "rows"], rel=0.05)


def test_what_may_be_worth_little_is_said(tmp_path: Path) -> None:
    found = view(tmp_path, log().assign(site="main"), context=["site", "device"])
    assert "site has one value in training: it tells nothing." in found.warnings
    assert not any(warning.startswith("device") for warning in found.warnings)
    small = [warning for warning in found.warnings if "small" in warning]
    assert small[0].startswith("The validation part is small: 200 rows, 100 of them clicks.") and len(small) == 2
    assert str(found).count("is small") == 2


def test_large_parts_of_both_classes_are_not_called_small(tmp_path: Path) -> None:
    assert not any("small" in warning for warning in view(tmp_path, log(6000)).warnings)


def test_the_command_prints_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop(tmp_path))
    monkeypatch.setattr(results, "width", 160)  # in a narrow terminal names go on in the next line
    assert CliRunner().invoke(main, ["init", "--data", "."]).exit_code == 0
    done = CliRunner().invoke(main, ["inspect", "--data"])
    assert done.exit_code == 0
    for words in (
        "purchases_price",
        "interactions.event_time",
        "category_code",
        "validation",
        "carts",
        "! The test part",
    ):
        assert words in done.stdout, words
    assert CliRunner().invoke(main, ["inspect", "--data", "--item", "3"]).exit_code == 2


@pytest.mark.slow
def test_it_needs_no_tensorflow(tmp_path: Path) -> None:
    news(tmp_path)
    code = """
import sys
from kar_aug.cli import main
from kar_aug.cli.progress import results
main(["init", "--data", "."], standalone_mode=False)
main(["inspect", "--data"], standalone_mode=False)
assert "tensorflow" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "sentiment_score" in done.stdout, done.stderr
