"""The arms of a comparison: every way to build the model that is trained and tested, and which are set side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from kar_aug.config import KNOWLEDGE, CompareConfig
from kar_aug.registry import ADAPTORS, CONTROLS, INJECTIONS

BASE = "base"
_SOURCES = {"user": ("user",), "item": ("item",), "both": ("user", "item")}
_WORDS = {
    "user": "user knowledge",
    "item": "item knowledge",
    "both": "knowledge",
    "metadata": "metadata text",
    "shuffled": "shuffled vectors",
    "random": "random vectors",
}
_USUAL = (ADAPTORS.names()[0], INJECTIONS.names()[0])


@dataclass(frozen=True)
class Arm:
    """One way to build the model.

    Args:
        backbone: DeepFM, DIN or FiBiNET.
        knowledge: "base" for none; "user", "item", "both"; a control; or the name of one of `[compare.stores]`.
        sources: the entities it has vectors of: none, or some of "user" and "item".
        adaptor: what adapts the vectors; "" where there are none.
        injection: where they enter, "fields" or "history"; "" where there are none.
    """

    backbone: str
    knowledge: str = BASE
    sources: tuple[str, ...] = ()
    adaptor: str = ""
    injection: str = ""

    @property
    def name(self) -> str:
        """As tables and plots call it."""
        if self.knowledge in (BASE, "bigger"):
            return self.backbone + (", bigger" if self.knowledge == "bigger" else "")
        special = ", ".join(part for part in (self.adaptor, self.injection) if part not in _USUAL)
        return f"{self.backbone} + {self.words}" + (f" ({special})" if special else "")

    @property
    def words(self) -> str:
        """What is added to the backbone."""
        return {BASE: "the plain backbone", "bigger": "the bigger backbone"}.get(
            self.knowledge, _WORDS.get(self.knowledge, self.knowledge)
        )

    @property
    def kind(self) -> str:
        """ "base", "knowledge", "control" or "store"."""
        for kind, members in ((BASE, (BASE,)), ("knowledge", KNOWLEDGE), ("control", CONTROLS)):
            if self.knowledge in members:
                return kind
        return "store"

    @classmethod
    def of(cls, data: dict[str, Any]) -> Arm:
        """The arm that `asdict` wrote, read from JSON."""
        return cls(**{**data, "sources": tuple(data["sources"])})


def arms(config: CompareConfig) -> list[Arm]:
    """All arms, backbone by backbone: plain, with knowledge, the controls, the other stores."""
    covered = tuple(s for s in ("user", "item") if any(s in _SOURCES[k] for k in config.knowledge))
    ways = list(product(config.injections, config.adaptors))
    found = []
    for backbone in config.backbones:
        found.append(Arm(backbone))
        found += [_augmented(backbone, k, _SOURCES[k], *way) for way in ways for k in config.knowledge]
        for control in config.controls:
            plain = control == "bigger"
            found.append(Arm(backbone, control) if plain else _augmented(backbone, control, covered, *ways[0]))
        found += [_augmented(backbone, name, tuple(config.store_folders(name)), *ways[0]) for name in config.stores]
    return list(dict.fromkeys(found))


def _augmented(backbone: str, knowledge: str, sources: tuple[str, ...], injection: str, adaptor: str) -> Arm:
    """An arm with vectors. Knowledge of users alone has no history to go with."""
    return Arm(backbone, knowledge, sources, adaptor, injection if "item" in sources else INJECTIONS.names()[0])


def fullest(among: Sequence[Arm], backbone: str) -> Arm | None:
    """The arm that the controls imitate: knowledge of most sources, with the first injection and adaptor."""
    with_knowledge = [arm for arm in among if arm.backbone == backbone and arm.kind == "knowledge"]
    return max(with_knowledge, key=lambda arm: len(arm.sources), default=None)


def pairs(among: Sequence[Arm]) -> tuple[list[tuple[Arm, Arm]], list[tuple[Arm, Arm]]]:
    """What is tested against what: every other arm against its plain backbone; and the fullest knowledge against each
    control. Another store is set against the knowledge of the same sources, where there is such an arm."""
    against_base = [(arm, Arm(arm.backbone)) for arm in among if arm.knowledge != BASE]
    against_controls = []
    for arm in among:
        best = fullest(among, arm.backbone)
        if best is None or arm.kind not in ("control", "store"):
            continue
        same = replace(arm, knowledge=next((k for k, s in _SOURCES.items() if s == arm.sources), ""))
        against_controls.append((same if arm.kind == "store" and same in among else best, arm))
    return against_base, against_controls
