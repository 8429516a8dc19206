"""A training that was stopped goes on where it stood, and comes to what it would have come to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kar_aug._helpers.keras import IS_KERAS_3, keras
from kar_aug.compare import checkpoint
from kar_aug.compare.checkpoint import Checkpoint, Standing

X = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
Y = (X.sum(1, keepdims=True) > 0).astype(np.float32)


@pytest.fixture(autouse=True)
def kept_at_every_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "_SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "_SHARE", np.inf)


def a_model() -> Any:
    """Compiled, with random numbers, moving averages and an optimizer that remembers."""
    checkpoint.random_numbers_that_can_be_kept()
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,))
    hidden = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(keras.layers.Dense(8)(inputs)))
    model = keras.Model(inputs, keras.layers.Dense(1, "sigmoid")(hidden))
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    return model


def fitted(model: Any, times: int) -> Any:
    for _ in range(times):
        model.fit(X, Y, batch_size=16, shuffle=False, verbose=0)
    return model


@pytest.mark.both_keras
def test_a_model_goes_on_as_if_it_had_not_been_stopped(tmp_path: Path) -> None:
    whole = fitted(a_model(), 3).get_weights()
    stopped = fitted(a_model(), 1)
    path = tmp_path / "run.checkpoint.npz"
    Checkpoint(path, stopped).keep(Standing(stopped.get_weights(), 1, 0, [0.6], 12.0, 0.5))

    model = a_model()
    found = Checkpoint(path, model).standing()
    assert (found.epoch, found.piece, found.curve, found.seconds, found.fastest) == (1, 0, [0.6], 12.0, 0.5)
    assert all(np.array_equal(*pair) for pair in zip(found.best, stopped.get_weights(), strict=True))
    assert all(np.array_equal(*pair) for pair in zip(fitted(model, 2).get_weights(), whole, strict=True))


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no archive"])
def test_what_cannot_be_read_costs_no_more_than_the_time(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "run.checkpoint.npz"
    path.write_bytes(damage)
    assert Checkpoint(path, a_model()).standing().epoch == 0


@pytest.mark.skipif(IS_KERAS_3, reason="DeepCTR works on the legacy API only")
def test_a_training_stopped_within_an_epoch_comes_to_the_same(
    own_tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kar_aug.compare import Arm, training
    from kar_aug.config import Config, TrainingConfig
    from kar_aug.pipeline.workspace import Workspace

    samples = Workspace(Config.load(own_tables / "kar.toml", {"workdir": str(tmp_path)})).samples
    settings = TrainingConfig(embedding_dim=4, hidden_units=(8,), batch_size=32, epochs=3)
    monkeypatch.setattr(training, "_PIECE", 1)

    def run(path: Path | None) -> training.Trained:
        return training.train(Arm("DeepFM"), 0, samples, {}, settings, checkpoint=path)

    whole = run(None)
    path = tmp_path / "run.checkpoint.npz"
    keep = Checkpoint.keep

    def stop_within_the_second_epoch(self: Checkpoint, standing: Standing) -> None:
        if (standing.epoch, standing.piece) == (1, 2):
            raise KeyboardInterrupt
        keep(self, standing)

    monkeypatch.setattr(Checkpoint, "keep", stop_within_the_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        run(path)
    monkeypatch.setattr(Checkpoint, "keep", keep)
    with np.load(path) as kept:
        assert (kept["epoch"], kept["piece"]) == (1, 1)
    again = run(path)
    assert again.curve == whole.curve
    assert all(np.array_equal(*p) for p in zip(again.model.get_weights(), whole.model.get_weights(), strict=True))
