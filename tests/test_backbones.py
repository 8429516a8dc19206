"""The backbones against DeepCTR's own models. DeepCTR works on the legacy API only."""

from __future__ import annotations

from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.exhaustive import left_out, table
from support.training import predicted, ready

from kar_aug import KnowledgeAugmentation, augment, export, load_model, prestore
from kar_aug._helpers.keras import IS_KERAS_3, keras, tf

if IS_KERAS_3:
    pytest.skip("DeepCTR works on the legacy API only", allow_module_level=True)

import deepctr.models
from deepctr.feature_column import DenseFeat, SparseFeat, VarLenSparseFeat

from kar_aug.backbones import DIN, MODELS, DeepFM, FiBiNET, deepctr_columns
from kar_aug.backbones import deepctr as any_model
from kar_aug.backbones._pooling import PooledEmbedding
from kar_aug.backbones.injections.attention import Attention
from kar_aug.backbones.injections.events import Events
from kar_aug.backbones.injections.fields import Fields
from kar_aug.backbones.injections.similarity import Similarity
from kar_aug.backbones.injections.together import Together
from kar_aug.backbones.protocol import Injected, Settings, nothing
from kar_aug.compare.saved import save
from kar_aug.data.features import Feature
from kar_aug.errors import ConfigError
from kar_aug.registry import BACKBONES as REGISTERED

BACKBONES = {"DeepFM": DeepFM, "DIN": DIN, "FiBiNET": FiBiNET}
USERS, ITEMS, WIDTH = 10, 15, 4
COLUMNS = [
    SparseFeat("user_id", USERS, WIDTH),
    SparseFeat("item_id", ITEMS, WIDTH),
    DenseFeat("age", 1),
    VarLenSparseFeat(SparseFeat("hist_item_id", ITEMS, WIDTH, embedding_name="item_id"), maxlen=4, combiner="mean"),
]


def arguments(backbone: str, columns: list[Any] = COLUMNS) -> list[Any]:
    return [columns, ["item_id"]] if backbone == "DIN" else [columns, columns]


def knowledge(width: int = WIDTH) -> KnowledgeAugmentation:
    random = np.random.default_rng(0)
    vectors = {"user_id": random.normal(size=(USERS, 6)), "item_id": random.normal(size=(ITEMS, 6))}
    return KnowledgeAugmentation({n: v.astype("float32") for n, v in vectors.items()}, expert_units=(8, width))


def batch(rows: int = 64) -> dict[str, Any]:
    random = np.random.default_rng(1)
    return {
        "user_id": random.integers(0, USERS, rows).astype("int32"),
        "item_id": random.integers(0, ITEMS, rows).astype("int32"),
        "age": random.normal(size=rows).astype("float32"),
        "hist_item_id": random.integers(0, ITEMS, (rows, 4)).astype("int32"),
    }


def predict(model: Any) -> np.ndarray:
    return predicted(model, {name: batch()[name] for name in model.input_names})


@pytest.mark.parametrize("backbone", BACKBONES)
def test_without_augmentation_it_is_deepctrs_own_model(backbone: str) -> None:
    ours = BACKBONES[backbone](*arguments(backbone), dnn_hidden_units=(8,))
    theirs = getattr(deepctr.models, backbone)(*arguments(backbone), dnn_hidden_units=(8,))
    assert ours.count_params() == theirs.count_params()
    ours.set_weights([np.random.default_rng(2).normal(size=w.shape) for w in ours.get_weights()])
    apart = [list(w) if w.ndim == 3 else [w] for w in ours.get_weights()]  # FiBiNET's matrices for pairs of fields
    theirs.set_weights(list(chain.from_iterable(apart)))
    np.testing.assert_allclose(predict(ours), predict(theirs), rtol=1e-5, atol=1e-7)  # means are summed in other order


@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        ("DeepFM", {}),
        left_out("DeepFM", {"inject": ["linear", "fields"]}),
        ("DIN", {}),
        left_out("DIN", {"injection": "events"}),
        left_out("DeepFM", {"inject": ["linear", "fields"], "injection": "events"}),
        ("FiBiNET", {}),
        left_out("FiBiNET", {"injection": Events(["item_id"])}),
    ],
)
def test_with_augmentation_it_trains_jointly_and_survives_saving_and_prestoring(
    backbone: str, options: dict[str, Any], tmp_path: Path
) -> None:
    model = BACKBONES[backbone](*arguments(backbone), augmentation=knowledge(), **options)
    ready(model, eagerly=bool(options))  # each backbone once in a graph
    before = {w.name: np.asarray(w) for w in model.trainable_weights}
    label = np.random.default_rng(3).integers(0, 2, 64)
    losses = model.fit(batch(), label, batch_size=64, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    moved = {w.name for w in model.trainable_weights if not np.array_equal(before[w.name], np.asarray(w))}
    for part in (
        "shared_kernel_0",
        "dedicated_user_id_kernel_0",
        "dedicated_item_id_kernel_1",
        "gate_item_id_kernel",
    ):
        assert any(part in name for name in moved), f"{part} did not learn"
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(predict(load_model(tmp_path / "model.keras")), predict(model))
    np.testing.assert_allclose(predict(prestore(model)), predict(model), atol=1e-5)


def inputs_of(model: Any, kind: str) -> list[tuple[Any, ...]]:
    """Shapes that the layers of a kind read, in order."""
    shapes = []
    for layer in model.layers:
        if type(layer).__name__ == kind:
            shape = layer.input_shape
            shapes += [tuple(s) for s in shape] if isinstance(shape, list) else [tuple(shape)]
    return shapes


def test_deepfm_takes_knowledge_where_it_is_told_to() -> None:
    plain = DeepFM(COLUMNS, COLUMNS)
    width, fields = inputs_of(plain, "DNN")[0][1], inputs_of(plain, "FM")[0][1]
    default = DeepFM(COLUMNS, COLUMNS, augmentation=knowledge())
    assert inputs_of(default, "DNN")[0][1] == width + 2 * WIDTH
    assert inputs_of(default, "FM")[0][1] == fields
    assert default.get_layer("knowledge_linear").input_shape == (None, 2 * WIDTH)
    second_order = DeepFM(COLUMNS, COLUMNS, augmentation=knowledge(), inject=["fields"])
    assert inputs_of(second_order, "FM")[0][1] == fields + 2
    assert inputs_of(second_order, "DNN")[0][1] == width + 2 * WIDTH, "fields reach the deep part too, once"


def test_fibinet_takes_knowledge_as_two_fields_of_senet_and_bilinear() -> None:
    plain, with_ = FiBiNET(COLUMNS, COLUMNS), FiBiNET(COLUMNS, COLUMNS, augmentation=knowledge())
    for kind in ("SENETLayer", "PairwiseInteraction"):  # the latter DeepCTR's BilinearInteraction, for less
        layers = [[layer for layer in m.layers if type(layer).__name__ == kind] for m in (plain, with_)]
        assert [len(b.input_shape) - len(a.input_shape) for a, b in zip(*layers, strict=True)] == [2] * len(layers[0])


def test_fields_interact_as_in_deepctr() -> None:
    from deepctr.layers.interaction import BilinearInteraction

    from kar_aug.backbones._bilinear import PairwiseInteraction

    random = np.random.default_rng(0)
    fields = [random.normal(size=(7, 1, WIDTH)).astype(np.float32) for _ in range(5)]
    ours, theirs = PairwiseInteraction(seed=2), BilinearInteraction(seed=2)
    assert ours(fields).shape == theirs(fields).shape == (7, 10, WIDTH)
    assert np.std(ours.get_weights()[0]) == pytest.approx(np.std(theirs.get_weights()), rel=0.2), "before any training"
    weights = random.normal(size=(10, WIDTH, WIDTH))
    ours.set_weights([weights])
    theirs.set_weights(list(weights))
    np.testing.assert_allclose(ours(fields), theirs(fields), rtol=0, atol=1e-5)


def test_din_takes_knowledge_into_the_mlp_and_on_request_into_the_attention() -> None:
    plain = DIN(COLUMNS, ["item_id"])
    default = DIN(COLUMNS, ["item_id"], augmentation=knowledge())
    attending = DIN(COLUMNS, ["item_id"], augmentation=knowledge(), injection="events")
    kind = "InterestAttention"  # DeepCTR's AttentionSequencePoolingLayer, for less
    assert inputs_of(default, "DNN")[0][1] == inputs_of(plain, "DNN")[0][1] + 2 * WIDTH
    assert inputs_of(default, kind) == inputs_of(plain, kind) == [(None, 1, WIDTH), (None, 4, WIDTH)]
    assert inputs_of(attending, kind) == [(None, 1, 2 * WIDTH), (None, 4, 2 * WIDTH)]


def test_events_that_the_attention_does_not_read_enter_as_their_mean() -> None:
    columns = [*COLUMNS, VarLenSparseFeat(SparseFeat("hist_user_id", USERS, WIDTH), maxlen=4, combiner="mean")]
    plain, with_ = (DIN(columns, ["item_id"], augmentation=knowledge(), injection=i) for i in ("fields", "events"))
    # The mean of the users before, and the items that the attention read, whose vectors are as wide again.
    assert inputs_of(with_, "DNN")[0][1] == inputs_of(plain, "DNN")[0][1] + 2 * WIDTH


def test_former_words_are_still_read_and_a_line_says_which_are_used_now(caplog: pytest.LogCaptureFixture) -> None:
    today = DeepFM(COLUMNS, COLUMNS, augmentation=knowledge(), inject=["linear", "fields"], injection="events")
    assert not caplog.messages
    former = DeepFM(COLUMNS, COLUMNS, augmentation=knowledge(), inject=["linear", "fm"], history=["item_id"])
    assert [type(layer).__name__ for layer in former.layers] == [type(layer).__name__ for layer in today.layers]
    assert caplog.messages == [
        "history=['item_id'] is called injection=Events(['item_id']) now.",
        "inject: 'fm' is called 'fields' now.",
    ]


def test_padding_of_events_does_not_reach_the_attention() -> None:
    model = DIN(COLUMNS, ["item_id"], augmentation=knowledge(), injection="events")
    inputs = {name: values[:1] for name, values in batch().items()}
    inputs["hist_item_id"] = np.zeros((1, 4), "int32")
    before = model.predict(inputs, verbose=0)
    layer = next(layer for layer in model.layers if isinstance(layer, KnowledgeAugmentation))
    inputs["item_id"] = np.asarray([1], "int32")
    reference = model.predict(inputs, verbose=0)
    vectors = next(weight for weight in layer.weights if "item_id_vectors" in weight.name)
    vectors.assign(np.concatenate([np.full((1, 6), 9.0), np.asarray(vectors)[1:]]))
    np.testing.assert_array_equal(model.predict(inputs, verbose=0), reference)
    assert before.shape == (1, 1)


def test_fields_of_another_width_are_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"vectors are 7 wide but .* embedding_dim is 4. .*expert_units=\(..., 4\)"):
        FiBiNET(COLUMNS, COLUMNS, augmentation=knowledge(7))
    DIN(COLUMNS, ["item_id"], augmentation=knowledge(7))  # concatenated: any width will do


def test_knowledge_of_an_input_that_is_not_there_is_named() -> None:
    columns = [SparseFeat("user_id", USERS, WIDTH), SparseFeat("movie", ITEMS, WIDTH)]
    with pytest.raises(ValueError, match="knowledge of 'item_id', but the model has no such input"):
        DeepFM(columns, columns, augmentation=knowledge())


@pytest.mark.parametrize("inject", [[], ["deep"]])
def test_deepfm_refuses_unknown_places(inject: list[str]) -> None:
    with pytest.raises(ValueError, match="`inject` must be some of"):
        DeepFM(COLUMNS, COLUMNS, augmentation=knowledge(), inject=inject)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_files_tell_the_layers_of_one_name_of_keras_and_of_deepctr_apart(suffix: str, tmp_path: Path) -> None:
    from deepctr.layers.normalization import LayerNormalization as Theirs

    given, random = keras.Input((4,)), np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    hidden = Theirs()(keras.layers.LayerNormalization(epsilon=0.5)(given))
    model = keras.Model(given, keras.layers.Dense(2, "softmax")(hidden))
    model.save(tmp_path / f"model{suffix}")
    again = load_model(tmp_path / f"model{suffix}")
    assert [type(layer) for layer in again.layers] == [type(layer) for layer in model.layers]
    assert again.layers[-1].activation is keras.activations.softmax
    np.testing.assert_array_equal(predicted(again, random), predicted(model, random))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_augment_leaves_a_trained_deepctr_model_as_it_predicts(backbone: str, tmp_path: Path) -> None:
    model = getattr(deepctr.models, backbone)(*arguments(backbone))
    before = predict(model)
    augmented = augment(model, knowledge(7))
    np.testing.assert_allclose(predict(augmented), before, atol=1e-6)
    ready(augmented, 0.05, eagerly=True).train_on_batch(batch(), np.random.default_rng(3).integers(0, 2, 64))
    assert np.abs(predict(augmented) - before).max() > 1e-4
    augmented.save(tmp_path / "model.keras")
    again = load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(predict(again), predict(augmented))
    assert len(again.trainable_weights) == len(augmented.trainable_weights), "what was shared is still one"


def test_augment_gives_all_experts_of_a_multi_task_model_its_knowledge(tmp_path: Path) -> None:
    model, augmentation = deepctr.models.MMOE([*COLUMNS[:3]], task_names=("ctr", "cvr")), knowledge()
    inputs = {name: tf.constant(batch()[name][:, np.newaxis]) for name in model.input_names}
    augmented = augment(model, augmentation)
    for before, after in zip(model(inputs), augmented(inputs), strict=True):
        np.testing.assert_allclose(after, before, atol=1e-6)
    readers = [node.layer.name for node in augmented.get_layer("knowledge_added").outbound_nodes]
    assert len(readers) == 3 + 2, f"three experts, and the gates of two tasks: {readers}"
    assert augmented.output_names == ["ctr", "cvr"]
    served = tf.saved_model.load(str(export(augmented, tmp_path / "mmoe"))).signatures["serving_default"](**inputs)
    for name, expected in zip(("ctr", "cvr"), augmented(inputs), strict=True):
        np.testing.assert_allclose(served[name], expected, atol=1e-6)


IDS = [SparseFeat("user_id", USERS, WIDTH), SparseFeat("item_id", ITEMS, WIDTH)]
PLAIN = [*IDS, DenseFeat("age", 1)]
HISTORY = [*PLAIN, VarLenSparseFeat(SparseFeat("hist_item_id", ITEMS, WIDTH, embedding_name="item_id"), maxlen=4,
                                    length_name="seq_length")]  # fmt: skip
SESSIONS = [*PLAIN, *(VarLenSparseFeat(SparseFeat(f"sess_{i}_item_id", ITEMS, WIDTH, embedding_name="item_id"), 4)
                      for i in range(2))]  # fmt: skip
GROUPS = [SparseFeat("user_id", USERS, WIDTH, group_name="user"), SparseFeat("item_id", ITEMS, WIDTH, group_name="x")]
# What they ask for; two that are backbones as well, because of options that they take.
ASKED: dict[str, tuple[list[Any], dict[str, Any]]] = {
    **dict.fromkeys(("ESMM", "MMOE", "PLE", "SharedBottom"), ([PLAIN], {})),
    "DSIN": ([SESSIONS, ["item_id"]], {"sess_max_count": 2, "att_embedding_size": 2, "att_head_num": 2}),
    "FLEN": ([GROUPS, GROUPS], {}),
    "ONN": ([PLAIN, PLAIN], {}),
    "BST": ([HISTORY, ["item_id"]], {"att_head_num": 2}),
    "FGCNN": ([IDS, IDS], {"conv_kernel_width": (2,), "conv_filters": (3,), "new_maps": (2,), "pooling_width": (1,)}),
}


@pytest.mark.parametrize("name", table(ASKED, "MMOE", "BST"))  # all others are backbones: see below
def test_a_model_of_deepctr_that_wants_columns_of_its_own_learns_with_knowledge(name: str) -> None:
    args, options = ASKED[name]
    augmentation = knowledge()
    model = any_model(name, *args, augmentation=augmentation, **options)
    inputs = {
        **batch(),
        "seq_length": np.full(64, 4, "int32"),
        "sess_length": np.full(64, 2, "int32"),
        "sess_0_item_id": batch()["hist_item_id"],
        "sess_1_item_id": batch()["hist_item_id"],
    }
    inputs = {tensor.name.split(":")[0]: inputs[tensor.name.split(":")[0]] for tensor in model.inputs}
    learn(model, augmentation, inputs)
    expected, served = (np.asarray(m(inputs, training=False)) for m in (model, prestore(model)))
    np.testing.assert_allclose(served, expected, atol=1e-5)


def learn(model: Any, augmentation: KnowledgeAugmentation, inputs: Any) -> None:
    """Train one step, in which all sources' experts learn."""
    rows = len(next(iter(inputs.values() if isinstance(inputs, dict) else inputs)))
    label = [np.random.default_rng(3).integers(0, 2, rows)] * len(model.outputs)
    before = augmentation.get_weights()
    ready(model, eagerly=True).fit(inputs, label, batch_size=rows, verbose=0)
    kernels = [w.name.split("/")[-1] for w in augmentation.weights]
    moved = {k for k, a, b in zip(kernels, before, augmentation.get_weights(), strict=True) if not np.array_equal(a, b)}
    assert {"dedicated_user_id_kernel_0:0", "dedicated_item_id_kernel_0:0"} <= moved


def test_every_model_that_deepctr_has_is_listed_and_tested() -> None:
    assert set(MODELS) == set(deepctr.models.__all__)
    assert {name.removeprefix("deepctr:") for name in BUILT} | set(ASKED) == set(MODELS) - {"DIEN"}


def test_any_model_without_augmentation_is_deepctrs_own() -> None:
    ours, theirs = any_model("AutoInt", PLAIN, PLAIN), deepctr.models.AutoInt(PLAIN, PLAIN)
    kinds = [type(layer).__name__.replace("PooledEmbedding", "Embedding") for layer in ours.layers]
    assert kinds == [type(layer).__name__ for layer in theirs.layers]


def test_knowledge_as_fields_goes_through_the_interaction() -> None:
    plain, fields = any_model("AutoInt", PLAIN, PLAIN), any_model(
        "AutoInt", PLAIN, PLAIN, augmentation=knowledge(), inject=["fields"]
    )  # fmt: skip
    assert inputs_of(plain, "InteractingLayer")[0][1] + 2 == inputs_of(fields, "InteractingLayer")[0][1]


def test_a_place_or_a_model_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"AFM has no place for knowledge as \('dense',\)"):
        any_model("AFM", IDS, IDS, augmentation=knowledge(), inject=["dense"])
    with pytest.raises(ValueError, match=r"DeepCTR has no model 'DeepFMM'\. It has: AFM, AutoInt"):
        any_model("DeepFMM", IDS, IDS)


FEATURES = (
    Feature("user_id", USERS),
    Feature("item_id", ITEMS),
    Feature("gender", 3),
    Feature("genres", 5, length=3),
    Feature("price"),
    Feature("hist_item_id", ITEMS, length=4, embedding="item_id", sequence="hist"),
    Feature("hist_rating", 7, length=4, sequence="hist"),
    Feature("liked_item_id", ITEMS, length=4, embedding="item_id", sequence="liked"),
)
SEVERAL = Feature("hist_genres", 5, 4, "genres", "hist", values=3)
# The fewer, the sooner a model is built that has a part for each pair of them.
EACH_KIND = (*(f for f in FEATURES if f.name not in ("gender", "hist_rating", "liked_item_id")), SEVERAL)
SETTINGS = Settings(embedding_dim=8, hidden_units=(16,), dropout=0.1, l2_embedding=1e-5, seed=3)
# DeepCTR's DIEN itself fails on TensorFlow 2.21, DSIN wants sessions, FLEN groups of features, ONN a table for each
# feature, and the others predict several things.
NOT_OF_SUCH_FEATURES = {"DIEN", "DSIN", "FLEN", "ONN", "ESMM", "MMOE", "PLE", "SharedBottom"}
RESTORED = ("DIN", "deepctr:BST", "deepctr:IFM", "deepctr:FGCNN")  # the last two hold what Keras cannot read, or write
BUILT = ["DeepFM", "DIN", "FiBiNET", *(f"deepctr:{name}" for name in sorted(set(MODELS) - NOT_OF_SUCH_FEATURES))]


def rows() -> dict[str, Any]:
    random = np.random.default_rng(1)
    return {
        f.name: random.normal(size=(16, 1)).astype("float32")
        if f.is_number
        else random.integers(0, f.vocabulary_size, (16, *(f.shape or (1,)))).astype("int32")
        for f in (*FEATURES, SEVERAL)
    }


@pytest.mark.parametrize("name", table(BUILT, "DeepFM", "DIN", "FiBiNET", "deepctr:IFM"))
def test_a_backbone_builds_from_features_learns_with_knowledge_and_is_served(name: str, tmp_path: Path) -> None:
    build, augmentation = REGISTERED.load(name), knowledge(8)
    plain = build(EACH_KIND, SETTINGS, None, nothing)
    model = build(EACH_KIND, SETTINGS, augmentation, Events())
    read = {f.name for f in EACH_KIND} - ({"price"} if name in ("deepctr:EDCN", "deepctr:FGCNN") else set())
    assert {t.name for t in model.inputs} == {t.name for t in plain.inputs} == read
    assert augmentation in model.layers and model.count_params() > plain.count_params()
    inputs = [rows()[t.name] for t in model.inputs]
    expected = np.asarray(model(inputs, training=False))
    assert expected.shape == (16, 1) and np.ptp(expected) > 0
    learn(model, augmentation, inputs)
    expected, restored = np.asarray(model(inputs, training=False)), model
    if name in RESTORED:
        restored = build(EACH_KIND, SETTINGS, knowledge(8), Events())
        restored.load_weights(save(model, tmp_path, "run"))
    np.testing.assert_allclose(np.asarray(prestore(restored)(inputs, training=False)), expected, atol=1e-5)


KEYS = (Feature("user", USERS, is_key=True), Feature("item", ITEMS, is_key=True))


@pytest.mark.parametrize("name", table(["DeepFM", "DIN", "FiBiNET", "deepctr:AutoInt"], "DIN", "deepctr:AutoInt"))
def test_knowledge_is_looked_up_by_keys_of_its_own(name: str) -> None:
    """What is known of an item counts, whatever row of the embedding stands for it."""
    vectors = {entity: np.eye(size)[:, :6] for entity, size in (("user", USERS), ("item", ITEMS))}
    augmentation = KnowledgeAugmentation(vectors, expert_units=(16, 8))
    key = Feature("hist_item", ITEMS, 4, sequence="hist", is_key=True)
    model = REGISTERED.load(name)((*EACH_KIND, *KEYS, key), SETTINGS, augmentation, Events())
    assert {"user", "item", "hist_item"} <= {tensor.name for tensor in model.inputs}
    given = {**rows(), **{k.name: np.full((16, k.length or 1), 1, "int32") for k in (*KEYS, key)}}
    before = predicted(model, given)
    for changed in ("item", "hist_item"):
        other = predicted(model, {**given, changed: np.full_like(given[changed], 3)})
        assert np.abs(other - before).max() > 0, f"{name} does not read {changed}"


def test_din_reads_what_is_told_of_events_alone() -> None:
    model = REGISTERED.load("DIN")(FEATURES, SETTINGS, None, nothing)
    model.set_weights([0.2 * np.random.default_rng(0).random(weight.shape) for weight in model.get_weights()])
    given = rows()
    given["hist_item_id"] = np.tile(np.asarray([[2, 3, 0, 0]], "int32"), (16, 1))
    given["hist_rating"] = np.tile(np.asarray([[5, 0, 0, 0]], "int32"), (16, 1))
    before = predicted(model, given)
    for place, rating, counts in ((0, 2, True), (1, 6, True), (2, 6, False)):
        rated = given["hist_rating"].copy()
        rated[:, place] = rating
        assert (np.abs(predicted(model, {**given, "hist_rating": rated}) - before).max() > 0) == counts


def test_of_several_values_of_an_event_there_is_the_mean_and_of_these_the_mean_over_events() -> None:
    ids = np.asarray([[[2, 3, 0], [0, 0, 0], [4, 0, 0]], [[0, 0, 0]] * 3], "int32")
    table = PooledEmbedding(5, 2, mask_zero=True)
    events = np.asarray(table(ids))
    vectors = np.asarray(table.embeddings)
    zeros = np.zeros(2)
    expected = [[(vectors[2] + vectors[3]) / 2, zeros, vectors[4]], [zeros] * 3]
    np.testing.assert_allclose(events, expected, atol=1e-6)
    assert table.compute_mask(ids).numpy().tolist() == [[True, False, True], [False] * 3]
    mean = np.asarray(table(ids, mean=True))
    np.testing.assert_allclose(mean[:, 0], [(events[0, 0] + events[0, 2]) / 2, zeros], atol=1e-6)


def test_din_compares_what_candidate_and_events_have_several_values_of() -> None:
    """Which event of two counts how much depends on the candidate's genres: not only what all of them add up to."""
    model = REGISTERED.load("DIN")((*FEATURES, SEVERAL), SETTINGS, None, nothing)
    model.set_weights([0.2 * np.random.default_rng(0).random(w.shape) for w in model.get_weights()])
    attention = next(layer for layer in model.layers if "InterestAttention" in type(layer).__name__)
    query = next(tensor for tensor in attention.input if tensor.shape[1] == 1)
    scores = keras.Model(model.inputs, [query])
    given = rows()
    before = predicted(scores, given)
    assert np.abs(predicted(scores, {**given, "genres": given["genres"][::-1]}) - before).max() > 0
    events = {**given, "hist_genres": np.zeros_like(given["hist_genres"])}
    assert np.abs(predicted(model, events) - predicted(model, given)).max() > 0
    assert query.shape[-1] == 2 * SETTINGS.embedding_dim, "the item, and its genres"


def test_the_mean_of_a_sequence_is_deepctrs_and_so_is_its_gradient() -> None:
    columns = deepctr_columns(FEATURES, SETTINGS)
    ours, theirs = DeepFM(columns, columns, seed=1), deepctr.models.DeepFM(columns, columns, seed=1)
    theirs.set_weights([np.random.default_rng(0).normal(size=w.shape) for w in ours.get_weights()])
    ours.set_weights(theirs.get_weights())
    given = rows()
    given["hist_item_id"][3:5] = 0  # nothing before
    given["hist_rating"][:, 1] = 0  # one without a rating
    for model in (ours, theirs):
        ready(model, 0.1).train_on_batch(given, np.arange(16) % 2)
    for mine, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, other, atol=2e-3)


class Values:
    """An injection that brings a value for the deep part alone, of no width in particular."""

    def __call__(self, augmentation: Any, inputs: Any) -> Injected:
        fields = Fields()(augmentation, inputs).fields
        return Injected(dense=[keras.layers.Dense(3)(keras.layers.Concatenate()(fields))])


@pytest.mark.parametrize(
    "name", table(["DeepFM", "DIN", "FiBiNET", "deepctr:AutoInt", "deepctr:AFM"], "FiBiNET", "deepctr:AFM")
)
def test_values_that_an_injection_brings_find_a_place_in_every_backbone(name: str) -> None:
    augmentation = knowledge(7)
    model = REGISTERED.load(name)(EACH_KIND, SETTINGS, augmentation, Values())
    assert augmentation in model.layers


PAST = (
    Feature("past_item_id", ITEMS, length=6, is_key=True),
    Feature("past_value", length=6, is_key=True),
)


@pytest.mark.parametrize("name", table(["DeepFM", "DIN", "FiBiNET", "deepctr:AFM"], "DeepFM", "DIN"))
def test_the_past_finds_a_place_in_every_backbone_without_experts(name: str, tmp_path: Path) -> None:
    named = {"source": "item_id", "events": "past_item_id"}
    past = Together(partial(Similarity, **named), partial(Attention, **named))
    augmentation, settings = knowledge(8), Settings(embedding_dim=8, hidden_units=(8,))
    model = REGISTERED.load(name)((*EACH_KIND, *PAST), settings, augmentation, past)
    assert augmentation not in model.layers
    random = np.random.default_rng(0)
    rows = {n: random.integers(0, 3, (16, *t.shape[1:])) for n, t in zip(model.input_names, model.inputs, strict=True)}
    expected = predicted(model, rows)
    model.save(tmp_path / "model.keras")
    np.testing.assert_allclose(predicted(load_model(tmp_path / "model.keras"), rows), expected, rtol=1e-6)
    rows["past_value"] = rows["past_value"] + 5 * (random.random((16, 6)) < 0.5)
    assert not np.allclose(predicted(model, rows), expected), "what events were worth is read"


def test_settings_reach_a_model_of_deepctr_and_seeds_draw_other_weights() -> None:
    build = REGISTERED.load("deepctr:PNN")
    settings = [Settings(embedding_dim=8, hidden_units=(24, 12), seed=seed) for seed in (0, 1, 0)]
    one, other, same = (build(FEATURES, chosen, None, nothing) for chosen in settings)
    assert [w.shape[1] for w in one.trainable_weights if "dnn" in w.name and "kernel" in w.name] == [24, 12]
    tables = [next(w for w in m.get_weights() if w.shape == (USERS, 8)) for m in (one, other, same)]
    assert np.array_equal(tables[0], tables[2]) and not np.array_equal(tables[0], tables[1])


def test_a_model_that_predicts_several_things_is_no_backbone() -> None:
    with pytest.raises(ConfigError, match="MMOE predicts 2 things"):
        REGISTERED.load("deepctr:MMOE")(FEATURES, SETTINGS, None, nothing)
