"""Sums over users' events, kept and added to; and models that read these in place of events."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kar_aug._helpers.keras import first_argument, keras, tensors_behind, tensors_made
from kar_aug.cache.vectors.files import StoreSpec
from kar_aug.cache.vectors.index import EntityId, given_ids, listed, stored_ids
from kar_aug.cache.vectors.store import VectorStore
from kar_aug.errors import StoreError
from kar_aug.layers import EventMask, KnowledgeState
from kar_aug.layers.lookup import values_of
from kar_aug.models.find import check_model, knowledge_layers
from kar_aug.models.graph import input_name, with_changed, without_idle

_BLOCK = 16_384  # events at a time, a state of its own each
_STATE = "_state"
_OWN_CALL = "In a `call` of your own give the KnowledgeState [candidate ids, states]."


class UserStates:
    """The states of users as a `KnowledgeState` reads them, made of a log and added to as events come.

    A state is of all events of a user, where a model was trained on at most `[data] past_length` of them, and of those
    before its row alone. Who adds an event twice has it in there twice.

    Example:
        >>> states = UserStates(KnowledgeState(np.eye(4, dtype="float32")))  # four items
        >>> states.add(["ann", "bob", "ann"], [1, 2, 3], [5.0, 1.0, 2.0])
        >>> states.of(["ann", "nobody"])[:, -1]  # the last number: how many events
        array([2., 0.], dtype=float32)

    Args:
        layer: whose vectors are summed. Its vectors of items may be updated; what is summed already stays as it is.
    """

    def __init__(self, layer: KnowledgeState) -> None:
        if not isinstance(layer, KnowledgeState):
            raise ValueError(f"`layer` must be a KnowledgeState. Received: {type(layer).__name__}")
        self.layer = layer
        self._rows: dict[EntityId, int] = {}
        self._states = np.zeros((0, layer.state_width), np.float32)

    @classmethod
    def open(cls, path: Path | str, layer: KnowledgeState) -> UserStates:
        """Those that were saved, to be added to.

        Raises:
            StoreError: There is no store, or one of something else, or for vectors that were made ready otherwise.
        """
        states, store = cls(layer), VectorStore.open(path)
        if store.spec != states.spec:
            raise StoreError(
                f"{path} was made with {store.spec.difference(states.spec)}: layer {layer.name!r} cannot read it. Make "
                "the states of this layer from the log.",
                path=Path(path), left=store.spec, right=states.spec,
            )  # fmt: skip
        for ids, _, vectors in store.blocks(_BLOCK):
            places = states._places(ids)  # first: it makes room
            states._states[places] = vectors
        return states

    @property
    def spec(self) -> StoreSpec:
        """That of their store: it names the source, and how its vectors are made ready."""
        preparation = self.layer.preparation
        digest = hashlib.sha256(repr((preparation.unit, preparation.directions is None)).encode())
        for matrix in (preparation.mean, preparation.directions):
            digest.update(np.ascontiguousarray(matrix if matrix is not None else ()).tobytes())
        name = f"states of {self.layer.source_name} {digest.hexdigest()[:8]}"
        return StoreSpec(name, self.layer.state_width, dtype="float32", pooling="sum")

    @property
    def users(self) -> list[EntityId]:
        """Who has a state, in the order in which they came."""
        return list(self._rows)

    def add(self, user_ids: Sequence[EntityId] | Any, item_ids: Any, worths: Any) -> None:
        """Add events to the states of their users, in any order; a user who has none gets one.

        Args:
            user_ids: (events,), integers or strings.
            item_ids: (events,), as the layer reads them; 0 and "" are no event. One of which nothing is known counts,
                and what it was worth.
            worths: (events,), what each was worth to the user, as the model was trained on.

        Raises:
            ValueError: Lengths differ, an event's worth is not finite, or ids are of another kind than the layer's.
            StoreError: Users are neither all integers nor all strings.
        """
        users, items, worths = stored_ids(listed(user_ids)), np.asarray(item_ids), np.asarray(worths, np.float32)
        if not users.shape == items.shape == worths.shape:
            raise ValueError(
                "There must be an item, and what it was worth, for each user. Received shapes: "
                f"{users.shape}, {items.shape} and {worths.shape}"
            )
        if not np.isfinite(worths).all():
            bad = int(np.flatnonzero(~np.isfinite(worths))[0])
            raise ValueError(f"What event {bad} was worth is {worths[bad]}. Leave such events out.")
        for start in range(0, len(users), _BLOCK):
            block = slice(start, start + _BLOCK)
            ids, sums = self._sums(users[block], items[block], worths[block])
            places = self._places(ids)
            self._states[places] += sums

    def _sums(self, users: Any, items: Any, worths: Any) -> tuple[list[EntityId], npt.NDArray[np.float32]]:
        """The users of some events, and the sums over the events of each, (users, state_width)."""
        items, worths = items[:, np.newaxis], worths[:, np.newaxis]  # each a history of one
        events = values_of(self.layer.state_of(items, worths, EventMask(dtype="float32")(items)))
        order = np.argsort(users, kind="stable")
        ids, starts = np.unique(users[order], return_index=True)
        sums = np.add.reduceat(events[order], starts, axis=0, dtype=np.float64)
        met = sums[:, -1] > 0
        return given_ids(ids[met]), sums[met].astype(np.float32)

    def _places(self, ids: Sequence[EntityId]) -> npt.NDArray[np.int64]:
        """The row of each user's state; of zeros, if it is a new one."""
        places = [self._rows.setdefault(id, len(self._rows)) for id in ids]
        if len(self._rows) > len(self._states):
            room = max(len(self._rows), 2 * len(self._states)) - len(self._states)
            self._states = np.concatenate([self._states, np.zeros((room, self.layer.state_width), np.float32)])
        return np.asarray(places, np.int64)

    def of(self, user_ids: Sequence[EntityId] | Any) -> npt.NDArray[np.float32]:
        """The states of users, (users, state_width): what the model reads. Zeros, no history, of one who has none."""
        ids = given_ids(stored_ids(listed(user_ids)))
        places = np.asarray([self._rows.get(id, -1) for id in ids], np.int64)
        found = np.zeros((len(ids), self.layer.state_width), np.float32)
        found[places >= 0] = self._states[places[places >= 0]]
        return found

    def forget(self, user_ids: Sequence[EntityId] | Any) -> None:
        """Take the states of users away; those who have none are passed over."""
        gone = set(given_ids(stored_ids(listed(user_ids))))
        kept = {id: row for id, row in self._rows.items() if id not in gone}
        self._states = self._states[np.fromiter(kept.values(), np.int64, len(kept))]
        self._rows = {id: place for place, id in enumerate(kept)}

    def save(self, path: Path | str, *, as_of: str | None = None) -> VectorStore:
        """Bring a store up to date with them: states that are the same there are not written again, and users who have
        none here have none there.

        Args:
            path: its folder.
            as_of: the time of the latest event, which a feature store makes them valid from.

        Raises:
            StoreError: There is a store of something else.
        """
        with VectorStore.writer(path, self.spec) as writer:
            there = VectorStore.open(path).keys if writer.manifest.generation else {}
            users = self.users
            for start in range(0, len(users), _BLOCK):
                ids = users[start : start + _BLOCK]
                states = self._states[start : start + len(ids)]
                keys = [hashlib.sha256(state.tobytes()).hexdigest() for state in states]
                new = [place for place, (id, key) in enumerate(zip(ids, keys, strict=True)) if there.get(id) != key]
                writer.append([ids[n] for n in new], [keys[n] for n in new], states[new], as_of=as_of)
            writer.delete([id for id in there if id not in self._rows])
        return VectorStore.open(path)


def states_as_inputs(model: Any) -> Any:
    """The model with the states of users as inputs in place of the events that they are of: for serving. Of the state
    of a row's events it predicts what it did of these, to rounding.

    Each `KnowledgeState` has the input {source}_state, (batch, state_width), as `UserStates.of` gives it. Inputs that
    nothing else read are gone. The model shares all layers with the former, and is saved and exported as that is.

    Raises:
        ValueError: No `KnowledgeState` in the model's own graph reads events.
    """
    check_model(model, "states_as_inputs", instead=_OWN_CALL)
    used = tensors_behind(model.outputs)
    states: dict[tuple[int, ...], Any] = {}
    changes: dict[int, Callable[[Any], Any]] = {}
    for layer in (each for each in model.layers if isinstance(each, KnowledgeState)):
        for node in layer._inbound_nodes:
            (told,), (candidate, *read) = tensors_made(node), first_argument(node)
            if id(told) in used and len(read) > 1:
                of = (id(layer), *map(id, read))
                if of not in states:
                    name = _free_name(f"{layer.source_name}{_STATE}", [*model.inputs, *states.values()])
                    states[of] = keras.Input((layer.state_width,), name=name, dtype="float32")
                changes[id(told)] = lambda _, layer=layer, given=[candidate, states[of]]: layer(given)  # type: ignore[misc]
    if not changes:
        nested = knowledge_layers(model, (KnowledgeState,))
        where = f"but {nested[0].name!r}, elsewhere or of states already" if nested else "and nothing to keep"
        raise ValueError(f"Model {model.name!r} has no KnowledgeState of events in its own graph, {where}.")
    changed = with_changed(model, changes, list(states.values()), f"{model.name}_of_states")
    return without_idle(changed, used)


def _free_name(name: str, inputs: Sequence[Any]) -> str:
    """A name that none of these inputs has."""
    taken = {input_name(tensor) for tensor in inputs}
    further = (f"{name}_{number}" for number in itertools.count(2))
    return next(each for each in itertools.chain([name], further) if each not in taken)
