"""The arms of a comparison: every way to build the model that is trained and tested, and which are set side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from kar_aug.compare.additions import Addition, Control, Knowledge, OtherStore, addition
from kar_aug.config import BASE, CompareConfig
from kar_aug.registry import ADAPTORS, BLIND, INJECTIONS, reads_codes

OF_ITEMS = ("similarity", "state", "attention", "retrieval")  # injections that compare items, and read nothing of users
_USUAL = (ADAPTORS.names()[0], INJECTIONS.names()[0])


@dataclass(frozen=True)
class Arm:
    """One way to build the model.

    Args:
        backbone: a name of `kar_aug.registry.BACKBONES`.
        knowledge: "base" for none; "user", "item", "both"; a control; or the name of one of `[compare.stores]`.
        entities: those it has vectors of: none, or some of "user" and "item".
        adaptor: what adapts the vectors; "" where there are none.
        injection: where they enter, a name of `kar_aug.registry.INJECTIONS`; "" where there are none.
        beside: a control whose vectors of the same items enter beside them; "" for none.
    """

    backbone: str
    knowledge: str = BASE
    entities: tuple[str, ...] = ()
    adaptor: str = ""
    injection: str = ""
    beside: str = ""

    @property
    def addition(self) -> Addition:
        """What it adds to its plain backbone."""
        return addition(self.knowledge)

    @property
    def base(self) -> Arm:
        """Its plain backbone."""
        return Arm(self.backbone)

    @property
    def is_base(self) -> bool:
        """Whether it is a plain backbone itself."""
        return self == self.base

    @property
    def kind(self) -> str:
        """ "base", "knowledge", "control" or "store"."""
        return self.addition.kind

    @property
    def has_knowledge(self) -> bool:
        """Whether a language model's texts are in it, as they were asked for."""
        return isinstance(self.addition, Knowledge)

    @property
    def imitates(self) -> bool:
        """Whether it is made after the arm with the fullest knowledge."""
        return isinstance(self.addition, Control) and self.addition.imitates

    @property
    def name(self) -> str:
        """As tables and plots call it."""
        name = self.addition.name(self.backbone) + (f" and {addition(self.beside).words}" if self.beside else "")
        return name + self.special

    @property
    def special(self) -> str:
        """How its vectors enter, in brackets, where that is not as usual: " (similarity)"."""
        unusual = ", ".join(part for part in (self.adaptor, self.injection) if part and part not in _USUAL)
        return f" ({unusual})" if unusual else ""

    @property
    def companion(self) -> Arm:
        """What stands beside its vectors, as an arm that has nothing else."""
        return replace(self, knowledge=self.beside, entities=("item",), beside="")

    @property
    def reads_codes(self) -> bool:
        """Whether its vectors enter as semantic ids, too."""
        return reads_codes(self.injection)

    @property
    def words(self) -> str:
        """What is added to the backbone."""
        return self.addition.words + (f" and {addition(self.beside).words}" if self.beside else "")

    @property
    def way(self) -> tuple[str, str, str]:
        """How its vectors enter, whatever they are of: what must be the same where two are set side by side."""
        return self.injection, self.adaptor, self.beside

    @classmethod
    def of(cls, data: dict[str, Any]) -> Arm:
        """The arm that `asdict` wrote, read from JSON."""
        return cls(**{**data, "entities": tuple(data["entities"])})


def arms(config: CompareConfig) -> list[Arm]:
    """All arms, backbone by backbone: plain, with knowledge, the controls, the other stores; then those with vectors
    again, beside those of behaviour, if that is a control. Controls and stores enter by each injection, by the first
    adaptor.
    """
    knowledge = {name: addition(name).entities for name in config.knowledge}
    covered = tuple(e for e in ("user", "item") if any(e in entities for entities in knowledge.values()))
    controls = {name: _covered(name, covered) for name in config.controls}
    controls = {name: entities for name, entities in controls.items() if entities or not addition(name).has_vectors}
    stores = {name: tuple(config.store_folders(name)) for name in config.stores}
    beside = [name for name in config.controls if _stands_beside(name)]
    ways, first = list(product(config.injections, config.adaptors)), config.adaptors[0]
    found = []
    for backbone in config.backbones:
        found.append(Arm(backbone))
        found += [_arm(backbone, name, entities, *way) for way in ways for name, entities in knowledge.items()]
        for injection in config.injections:
            others = {**controls, **stores}
            found += [_arm(backbone, name, entities, injection, first) for name, entities in others.items()]
    with_items = [arm for arm in found if "item" in arm.entities and arm.knowledge not in beside]
    found += [replace(arm, beside=name) for name in beside for arm in with_items]
    return sorted(dict.fromkeys(found), key=lambda arm: config.backbones.index(arm.backbone))


def _covered(name: str, knowledge: tuple[str, ...]) -> tuple[str, ...]:
    """The entities that a control has vectors of: those that there is knowledge of, where it has any."""
    known = addition(name)
    return tuple(entity for entity in knowledge if entity in known.entities) if known.has_vectors else ()


def _stands_beside(name: str) -> bool:
    control = addition(name)
    return isinstance(control, Control) and control.stands_beside


def _arm(backbone: str, name: str, entities: tuple[str, ...], injection: str, adaptor: str) -> Arm:
    """An arm with vectors, or without. Knowledge of users alone has no events to go with; and of both, what compares
    items reads that of items: the arm is called so.
    """
    if not entities:
        return Arm(backbone, name)
    if "item" not in entities:
        return Arm(backbone, name, entities, adaptor, INJECTIONS.names()[0])
    if len(entities) > 1 and set(injection.split("+")) <= set(OF_ITEMS):
        return _arm(backbone, "item" if name == "both" else name, ("item",), injection, adaptor)
    return Arm(backbone, name, entities, adaptor, injection)


def decisive(among: Sequence[Arm], backbone: str) -> list[Arm]:
    """The arms with the fullest knowledge of a backbone, one for each way that it enters by the first adaptor."""
    best = fullest(among, backbone)
    if best is None:
        return []
    alike: dict[tuple[str, str, str], list[Arm]] = {}
    for arm in among:
        if arm.has_knowledge and (arm.backbone, arm.adaptor) == (backbone, best.adaptor):
            alike.setdefault(arm.way, []).append(arm)
    return [max(same_way, key=lambda arm: len(arm.entities)) for same_way in alike.values()]


def fullest(among: Sequence[Arm], backbone: str, entity: str | None = None) -> Arm | None:
    """The arm that the controls imitate: knowledge of most entities, with the first injection and adaptor; where an
    entity is named, of those arms that know of it, if there are any.
    """
    with_knowledge = [arm for arm in among if arm.backbone == backbone and arm.has_knowledge]
    with_knowledge = [arm for arm in with_knowledge if entity in arm.entities] or with_knowledge
    return max(with_knowledge, key=lambda arm: len(arm.entities), default=None)


def imitated(arm: Arm, among: Sequence[Arm]) -> Arm | None:
    """The arm that one is made after, if it is made after any."""
    return fullest(among, arm.backbone) if arm.imitates else None


def pairs(among: Sequence[Arm]) -> tuple[list[tuple[Arm, Arm]], list[tuple[Arm, Arm]]]:
    """What is tested against what: every other arm against its plain backbone; and the fullest knowledge against each
    control that enters the same way. Another store is set against the knowledge of the same entities, where there is
    such an arm; and what stands beside knowledge, against both together. A re-ranker that is blind to who asks is set
    with its knowledge against the same one with the user's profile and past: the fair base.
    """
    return [(arm, arm.base) for arm in among if not arm.is_base], list(_against_controls(among))


def _against_controls(among: Sequence[Arm]) -> Iterator[tuple[Arm, Arm]]:
    for arm in among:
        same_way = [other for other in among if not arm.injection or other.way == arm.way]
        best = fullest(same_way, arm.backbone) or fullest(among, arm.backbone)
        if best is not None and isinstance(arm.addition, Control):
            yield best, arm
            together = replace(best, beside=arm.knowledge)
            if together in among:
                yield together, arm
        elif best is not None and isinstance(arm.addition, OtherStore):
            alike = (other for other in among if other.has_knowledge and _alike(other, arm))
            yield next(alike, best), arm
    for backbone in dict.fromkeys(arm.backbone for arm in among):
        blind, fair = fullest(among, f"{BLIND}{backbone}"), Arm(backbone)
        if blind is not None and fair in among:
            yield blind, fair


def _alike(one: Arm, other: Arm) -> bool:
    """Whether two arms differ in the vectors alone."""
    return replace(one, knowledge=other.knowledge) == other
