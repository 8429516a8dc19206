"""Raw columns become, inside an exported model, exactly what the samples of its training are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.every_kind import READ, tables
from support.requests import request

from kar_aug._helpers.keras import tf
from kar_aug.data import Tables, split_interactions
from kar_aug.data.building import build_samples
from kar_aug.data.encodings import Buckets, Categories, Scale
from kar_aug.data.inputs import Inputs
from kar_aug.data.samples import Samples, since_code
from kar_aug.layers._ops.portable import portable
from kar_aug.models import wide_floats
from kar_aug.models.encoded import HowLongAgo, encoded, of_time
from kar_aug.models.preprocessing import Preprocessing
from kar_aug.models.wide_floats import seconds_between


def built(given: Tables, chosen: Inputs = READ) -> tuple[Samples, pd.DataFrame]:
    split = split_interactions(given.interactions, protocol="temporal", validation=0.2, test=0.3)
    return build_samples(given, split, chosen), split


def names(samples: Samples) -> list[str]:
    return [feature.name for feature in (*samples.features, *samples.keys)]


def tensors(sent: dict[str, np.ndarray]) -> dict[str, Any]:
    return {name: tf.constant(values) for name, values in sent.items()}


def read(preprocessing: Preprocessing, sent: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: values.numpy() for name, values in preprocessing(tensors(sent)).items()}


def sent_for(preprocessing: Preprocessing, split: pd.DataFrame, rows: Any) -> dict[str, np.ndarray]:
    return request(split, list(rows), [raw.as_dict() for raw in preprocessing.inputs], dict(READ.sequences))


@pytest.mark.slow
@pytest.mark.parametrize(("ids", "times"), [(str, "dates"), (int, "seconds")])
def test_raw_columns_become_what_the_model_was_trained_on(ids: type, times: str) -> None:
    samples, split = built(tables(ids, times))
    preprocessing = Preprocessing(samples, names(samples), READ)
    test = samples.of("test")
    found = read(preprocessing, sent_for(preprocessing, split, samples.rows[test]))
    expected = samples.read(test)
    assert set(found) == set(expected) and len(expected) > 35
    for name, values in expected.items():
        assert found[name].dtype == values.dtype, name
        np.testing.assert_array_equal(found[name], values if values.ndim > 1 else values[:, None], err_msg=name)
    assert expected["hist_genres"].shape == (len(test), 4, 2) and expected["hist_tags"].shape == (len(test), 4, 3)


def test_clicks_alone_and_first_values_alone_are_read_as_they_were() -> None:
    chosen = Inputs(
        item_features=("genres",),
        event_features=("rating", "genres"),
        events="clicks",
        history_length=5,
        first_values=True,
    )
    samples, split = built(tables(int), chosen)
    preprocessing = Preprocessing(samples, names(samples), chosen)
    asked = [raw.as_dict() for raw in preprocessing.inputs]
    assert any(raw["meaning"].startswith("items of the user's earlier clicks, oldest first") for raw in asked)
    test = samples.of("test")
    found = read(preprocessing, request(split, samples.rows[test].tolist(), asked, {"hist": "label > 0"}))
    assert found["hist_item_id"].any()
    for name, values in samples.read(test).items():
        np.testing.assert_array_equal(found[name], values.reshape(len(test), -1), err_msg=name)


def test_a_request_holds_what_the_model_reads_and_no_more() -> None:
    samples, _ = built(tables(str))
    few = Preprocessing(samples, ["item_id", "genres", "hist_item"])
    assert [raw.name for raw in few.inputs] == ["item_id", "hist_item_id"]
    timed = Preprocessing(samples, ["country", "hour", "hist_since"])
    assert [raw.name for raw in timed.inputs] == ["user_id", "timestamp", "hist_item_id", "hist_timestamp"]


def test_what_is_said_of_an_input_is_what_a_caller_must_know() -> None:
    samples, _ = built(tables(int))
    said = {raw.name: raw.as_dict() for raw in Preprocessing(samples, names(samples), READ).inputs}
    assert said["item_id"] | {"meaning": ""} == {
        "name": "item_id", "dtype": "int64", "shape": ["rows"], "meaning": "", "missing": -1
    }  # fmt: skip
    assert said["slot"]["missing"] == -(2**63), "-1 is a value that the column has"
    assert said["price"]["missing"] == "NaN" and said["price"]["dtype"] == "float64"
    assert said["tags"]["shape"] == ["rows", "values"]
    assert said["hist_tags"]["shape"] == ["rows", "events", "values"]
    assert said["device"]["missing"] == ""
    assert said["views_item_id"]["meaning"].startswith("items of the user's earlier events where event == 'view'")
    assert not {"genres", "country", "year", "hour", "hist_genres", "hist_country", "hist_since"} & set(said)


def test_one_row_of_the_user_holds_for_all_candidates() -> None:
    samples, split = built(tables(str))
    preprocessing = Preprocessing(samples, names(samples), READ)
    once = sent_for(preprocessing, split, samples.rows[samples.of("test")[-1:]])
    candidates = np.asarray(["i1", "i2", "i14", "new"], object)
    each = {name: np.repeat(values, len(candidates), axis=0) for name, values in once.items()}
    expected = read(preprocessing, {**each, "item_id": candidates})
    for name, values in read(preprocessing, {**once, "item_id": candidates}).items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)
        assert len(values) == 4


def test_padding_may_stand_anywhere_and_older_events_are_cut_off() -> None:
    samples, _ = built(tables(str))
    preprocessing = Preprocessing(samples, ["hist_item", "hist_rating"], READ)
    ids = np.asarray([["", "i3", "", "i5", "i1", "i2", "i9", ""], [""] * 8, ["i4"] + [""] * 7], object)
    found = read(preprocessing, {"hist_item_id": ids, "hist_rating": np.full(ids.shape, np.nan)})
    vocabulary = samples.vocabulary["item"]
    assert [[vocabulary[place] for place in row] for row in found["hist_item"]] == [
        ["i5", "i1", "i2", "i9"], [None] * 4, ["i4", None, None, None]
    ]  # fmt: skip
    nobody = {"hist_item_id": np.empty((2, 0), object), "hist_rating": np.empty((2, 0))}
    assert not read(preprocessing, nobody)["hist_item"].any(), "a user without events"


def test_who_and_what_is_new_is_read_as_unknown() -> None:
    samples, split = built(tables(str))
    preprocessing = Preprocessing(samples, names(samples), READ)
    sent = sent_for(preprocessing, split, samples.rows[samples.of("test")[-1:]])
    new = {"user_id": ["nobody"], "item_id": ["nothing"], "hist_item_id": [["i1", "nothing"]], "device": ["watch"]}
    events = {name: values[:, :2] for name, values in sent.items() if name.startswith("hist_")}
    found = read(preprocessing, {**sent, **events, **{name: np.asarray(ids, object) for name, ids in new.items()}})
    assert found["user_id"] == found["item_id"] == found["device"] == 1
    assert found["user"] == found["item"] == found["country"] == 0 and not found["genres"].any()
    assert found["hist_item_id"][0, 1:].tolist() == [1, 0, 0] and not found["hist_item"][0, 1:].any()
    scale = samples.encodings["age"]
    assert found["age"] == np.float32(scale.as_dict()["missing"]) and found["age_missing"] == 1


def test_events_told_of_in_another_shape_are_refused() -> None:
    samples, _ = built(tables(str))
    preprocessing = Preprocessing(samples, ["hist_rating"], READ)
    sent = {"hist_item_id": np.asarray([["i1", "i2"]], object), "hist_rating": np.asarray([[1.0]])}
    with pytest.raises(tf.errors.InvalidArgumentError, match="must be of the shape of hist_item_id"):
        read(preprocessing, sent)


def test_how_long_ago_is_rounded_as_in_the_samples() -> None:
    powers = 60.0 * (2.0 ** np.arange(26) - 1)
    ago = np.unique(np.concatenate([powers + step for step in (-60, -1, -1e-3, 0, 1e-3, 1)] + [np.arange(500.0)]))
    np.testing.assert_array_equal(HowLongAgo()(tf.constant(ago)).numpy(), since_code(ago))


def test_numbers_are_read_by_their_bits_where_a_runtime_computes_in_none_of_64() -> None:
    draw = np.random.default_rng(0)
    edges = np.sort(draw.normal(size=20))
    close = [np.nextafter(edges, -np.inf), edges, np.nextafter(edges, np.inf)]
    rare = [0.0, -0.0, np.nan, -np.nan, np.inf, -np.inf, 1e-310, -1e-310, 1e30, 0.7, 1.5, -7e9, 1.7e9 + 0.25]
    values = np.concatenate([*close, rare, draw.normal(size=200) * 10.0 ** draw.integers(-9, 12, 200)])
    exact = [Buckets(tuple(edges.tolist())), Categories((0.7, 1.5))]
    scales = [(1.6e9, 3e6, False), (1e-7, 1e-9, False), (1e18, 1e16, False), (1e25, 1e24, False), (3.0, 2.0, True)]
    rounded = [Scale(log, shift, width, 0.25, False) for shift, width, log in scales]
    times = np.append(draw.uniform(0, 2e9, 200), [np.nan, 0.0, 86_399.5, 604_800.0])

    def read_all() -> list[list[Any]]:
        given, moments = (wide_floats.taken_in(tf.constant(each)) for each in (values, times))
        parts = [wide_floats.as_dtype(of_time(part, moments), tf.float32) for part in ("hour", "weekday")]
        same = [*(encoded(encoding)(given) for encoding in exact), *parts]
        return [same, [*(encoded(scale)(given) for scale in rounded), seconds_between(moments[:-1], moments[1:])]]

    expected = read_all()
    with portable(doubles=False):
        found = read_all()
    for how, tolerance in enumerate((0, 1e-6)):
        for now, then in zip(found[how], expected[how], strict=True):
            np.testing.assert_allclose(now.numpy(), then.numpy(), rtol=tolerance, atol=tolerance)
