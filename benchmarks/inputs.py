"""What each input brings to plain backbones: one model an input, trained and tested like the arms of `compare`.

    python benchmarks/inputs.py -c benchmarks/ml-1m.toml [--variants full,kar] [--backbones DeepFM,DIN] [--seeds 3]

Every variant is the kar.toml with other [data], and reads 50 events if it says no other number; nothing is augmented.
Stopped and started again, it goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from kar_aug._helpers.tensorflow import choose_keras
from kar_aug.cli.progress import table
from kar_aug.config import Config

NOTHING: dict[str, Any] = {"user_features": [], "item_features": [], "event_features": [], "user_ids": False}
VARIANTS: dict[str, dict[str, Any]] = {
    "ids alone": {**NOTHING, "history_length": 0, "user_ids": True},
    "clicked items": {**NOTHING, "events": "clicks"},
    "all earlier items": NOTHING,
    "and their ratings": {**NOTHING, "event_features": ["rating"]},
    "and how long ago": {**NOTHING, "event_features": ["rating", "since"]},
    "and features of items": {"user_features": [], "user_ids": False},
    "full": {},
    "full, and user ids": {"user_ids": True},
    "full, liked and disliked apart": {"sequences": {"liked": "rating > 3", "disliked": "rating <= 3"}},
    "full, of an event's values the first": {"event_values": 1},
    "full, the last 20 events": {"history_length": 20},
    "full, the last 100 events": {"history_length": 100},
    "kar": {"inputs": "kar", "history_length": 5},
}
EVENTS = 50  # that a variant reads if it says no other number, whatever the kar.toml has


def say(event: Any) -> None:
    """Progress, a line an epoch."""
    print(f"{event.arm.name}, {event.unit}, epoch {event.epoch}: {event.auc:.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", type=Path, required=True)
    parser.add_argument("--variants", default=",".join(VARIANTS), help="some of: " + "; ".join(VARIANTS))
    parser.add_argument("--backbones", default="DeepFM")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="of [compare], numbers")
    parser.add_argument("--jobs", type=int)
    options = parser.parse_args()
    choose_keras()
    from kar_aug.compare import compare
    from kar_aug.pipeline.workspace import Workspace
    from kar_aug.report.tables import with_sd

    arms = {"backbones": options.backbones.split(","), "knowledge": [], "controls": [], "stores": {}}
    named = dict(setting.split("=") for setting in options.set)
    numbers = {name: float(value) if "." in value else int(value) for name, value in named.items()}
    arms |= {"seeds": options.seeds, "tune": 0, "jobs": options.jobs, **numbers}
    rows: list[tuple[str, ...]] = []
    for name in options.variants.split(","):
        data = {"history_length": EVENTS, **VARIANTS[name.replace(";", ",")]}
        workspace = Workspace(Config.load(options.config, {"compare": arms, "data": data}))
        found = compare(workspace, on_event=say)
        for arm, runs in found.runs.items():
            mean = {name: found.estimate(arm, name).mean for name in ("gauc", "train_seconds")}
            validation = sum(max(run.curve) for run in runs) / len(runs)
            auc, epochs = with_sd(found.estimate(arm)), " ".join(str(run.epochs) for run in runs)
            numbers_of = (f"{validation:.4f}", f"{mean['gauc']:.4f}", f"{mean['train_seconds']:.0f}", epochs)
            rows.append((name, arm.name, auc, *numbers_of))
            print(*rows[-1], sep=" | ", flush=True)
    table("What each input brings", ("inputs", "model", "test AUC", "validation", "GAUC", "seconds", "epochs"), rows)


if __name__ == "__main__":
    main()
