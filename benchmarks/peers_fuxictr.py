"""One training of FuxiCTR's on what benchmarks/peers.py wrote, in its own environment; the result as a line of JSON.

    python benchmarks/peers_fuxictr.py FOLDER DeepFM|DIN WAY SEED

DIN is the model that FuxiCTR's wheel brings. Its DeepFM is not in the wheel, and is put together here of FuxiCTR's own
layers, as its paper says: a factorisation machine and a network over the same embeddings. `pretrained_emb` concatenates
the frozen vector of an item, of the candidate and of earlier events, with its trained embedding. Batches are cut from
arrays in memory, which is faster than FuxiCTR's own loader, that takes rows one at a time.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import FactorizationMachine, FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import BaseModel
from fuxictr.pytorch.torch_utils import seed_everything
from model_zoo.LongCTR.DIN.DIN import DIN

EVENT_ALONE = 0  # what is told of events and not of the candidate has this code there: missing


class DeepFM(BaseModel):
    """A factorisation machine and a network over the same embeddings."""

    def __init__(self, feature_map: FeatureMap, embedding_dim: int, learning_rate: float, **settings: Any) -> None:
        super().__init__(feature_map, **settings)
        self.embedding_layer = FeatureEmbedding(feature_map, embedding_dim)
        self.fm = FactorizationMachine(feature_map)
        self.mlp = MLP_Block(
            input_dim=feature_map.sum_emb_out_dim(),
            output_dim=1,
            hidden_units=settings["dnn_hidden_units"],
            hidden_activations="ReLU",
            output_activation=None,
            dropout_rates=settings["net_dropout"],
        )
        self.compile(settings["optimizer"], settings["loss"], learning_rate)
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs: dict[str, Any]) -> dict[str, Any]:
        read = self.get_inputs(inputs)
        embedded = self.embedding_layer(read)
        logit = self.fm(read, embedded) + self.mlp(embedded.flatten(start_dim=1))
        return {"y_pred": self.output_activation(logit)}


class Batches:
    """Batches of a part, cut from arrays in memory; anew in each epoch where they are shuffled.

    Args:
        of_event: feature of the candidate -> the same of the earlier events; "" for one that events alone have. Empty
            for a model that pools them. Else a batch is what DIN reads: the rest, events with the candidate behind
            them, and which events there are.
    """

    def __init__(self, path: Path, size: int, of_event: dict[str, str], *, shuffled: bool) -> None:
        with np.load(path) as file:
            self._arrays = {name: torch.from_numpy(file[name]) for name in file.files}
        self._size, self._of_event, self._shuffled = size, of_event, shuffled

    def __len__(self) -> int:
        return -(-len(self._arrays["label"]) // self._size)

    def __iter__(self) -> Iterator[Any]:
        count = len(self._arrays["label"])
        order = torch.randperm(count) if self._shuffled else torch.arange(count)
        for rows in order.split(self._size):
            batch = {name: values[rows] for name, values in self._arrays.items()}
            yield self._with_events(batch) if self._of_event else batch

    def _with_events(self, batch: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], Any]:
        there = batch["hist_item_id"] > 0
        joined = {}
        for event, candidate in self._of_event.items():
            events = batch.pop(event)
            told = batch.pop(candidate) if candidate else torch.full((len(events),), EVENT_ALONE, dtype=events.dtype)
            joined[candidate or event] = torch.cat([events, told[:, None]], dim=1).flatten()
        return batch, joined, there.float()


def feature_map(task: dict[str, Any], of_event: dict[str, str], folder: Path, pretrained: bool) -> FeatureMap:
    """What FuxiCTR is told of the features."""
    found = FeatureMap("peers", str(folder))
    found.labels, found.features = ["label"], OrderedDict()
    joined = {candidate or event for event, candidate in of_event.items()}
    candidates = {candidate: event for event, candidate in of_event.items()}
    for each in task["features"]:
        name, is_list = each["name"], each["length"] is not None
        if of_event.get(name):
            continue  # it stands behind its candidate's name
        spec: dict[str, Any] = {
            "source": "item" if name in joined else "",
            "vocab_size": each["size"],
            "padding_idx": 0,
        }
        spec["type"] = "sequence" if is_list and name not in joined else "categorical"
        if spec["type"] == "sequence":
            spec |= {"feature_encoder": "layers.MaskedAveragePooling()", "max_len": each["length"]}
        if each["shares"] and name not in candidates:
            spec["share_embedding"] = each["shares"]
        if pretrained and name == "item_id":
            spec |= {"pretrained_emb": "vectors.npz", "pretrain_dim": task["settings"]["vectors"], "freeze_emb": True}
            spec |= {"pretrain_usage": "concat", "oov_idx": each["size"] - 1}
        found.features[name] = spec
    found.num_fields = found.get_num_fields()
    found.default_emb_dim = task["settings"]["embedding_dim"]
    found.set_column_index()
    return found


def main() -> None:
    folder, name, way, seed = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
    torch.set_num_threads(1)
    seed_everything(seed)
    task = json.loads((folder / "task.json").read_text())
    settings = task["settings"]
    features = {each["name"]: each for each in task["features"]}
    of_event = {}
    if name == "DIN":  # of lists of values, as genres are, its attention cannot be told
        for event, each in features.items():
            if each["told"]:
                candidate = event.removeprefix("hist_")
                of_event[event] = candidate if features.get(candidate, {"length": 0})["length"] is None else ""
    (folder / "feature_vocab.json").write_text(
        json.dumps({each["name"]: {str(code): code for code in range(each["size"])} for each in task["features"]})
    )
    described = feature_map(task, of_event, folder, way.endswith("pretrained_emb"))
    batches = {
        part: Batches(folder / f"{part}.npz", settings["batch_size"], of_event, shuffled=part == "train")
        for part in ("train", "validation", "test")
    }
    with tempfile.TemporaryDirectory() as models:
        (Path(models) / "peers").mkdir()
        started = time.process_time()
        model = {"DeepFM": DeepFM, "DIN": DIN}[name](
            described,
            model_id=name,
            embedding_dim=settings["embedding_dim"],
            learning_rate=settings["learning_rate"],
            dnn_hidden_units=settings["hidden_units"],
            net_dropout=settings["dropout"],
            embedding_regularizer=None if way.endswith("no penalty") else 2 * settings["l2_embedding"],  # it halves it
            reduce_lr_on_plateau=not way.endswith("constant rate"),
            early_stop_patience=settings["patience"],
            optimizer="adam",
            loss="binary_cross_entropy",
            metrics=["AUC"],
            model_root=models,
            verbose=0,
        )
        curve: list[float] = []
        evaluate = model.evaluate

        def noted(*arguments: Any, **options: Any) -> Any:
            found = evaluate(*arguments, **options)
            curve.append(float(found["AUC"]))
            return found

        model.evaluate = noted
        model.fit(batches["train"], epochs=settings["epochs"], validation_data=batches["validation"])
        seconds = time.process_time() - started
        auc = float(evaluate(batches["test"])["AUC"])
    count = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    print(json.dumps({"curve": curve, "auc": auc, "seconds": seconds, "parameters": count}))


if __name__ == "__main__":
    main()
