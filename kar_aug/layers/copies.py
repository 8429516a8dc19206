"""Knowledge for copies of a layer: what is made of the config of a layer of this process knows what that one knows.

A config says what knowledge there is, but does not hold it; a file brings it with the weights. `clone_model`,
`from_config` and `model_from_json` bring no weights: their copies ask here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from kar_aug.errors import StoreError
from kar_aug.layers._ops import ops


class Holder(Protocol):
    """Who holds knowledge: a layer, or a source of one."""

    def held(self) -> Sequence[npt.NDArray[Any]]:
        """What a copy cannot get from elsewhere."""
        ...


H = TypeVar("H", bound=Holder)
_HOLDERS: WeakValueDictionary[str, Any] = WeakValueDictionary()


def offered(holder: Holder) -> str:
    """16 hex digits over what is held, under which copies find the holder, as long as it lives."""
    content = _digest(holder)
    _HOLDERS[content] = holder
    return content


def found(kind: type[H], content: str) -> H | None:
    """Who holds just that."""
    holder = _HOLDERS.get(content)
    return holder if isinstance(holder, kind) and _digest(holder) == content else None  # it may have been changed


def _digest(holder: Holder) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for array in holder.held():
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def check_known(layer: Any, table: Any) -> None:
    """Raise StoreError if a layer was made of a config and never given the table that it looks up: NaN, until then."""
    if getattr(layer, "is_known", False):
        return
    values = ops.value_now(table)
    if values is None:
        return
    if np.isnan(values[-1, 0]):
        raise nothing_known(f"Layer {layer.name!r}")
    layer.is_known = True


def nothing_known(whose: str) -> StoreError:
    """The error of a copy that found nobody, and was given no weights."""
    return StoreError(
        f"{whose} has no knowledge: its layer was made of a config, which holds none, when the model that has it was "
        "gone, or in another process. Give it weights: copy.set_weights(model.get_weights()), or load_weights(path)."
    )
