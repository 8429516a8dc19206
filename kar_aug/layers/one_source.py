"""What the layers that know one source have in common: their ids, and what `update` added to these."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from kar_aug.layers.ids import Kind
from kar_aug.layers.lookup import values_of


class OneSource:
    """By the names that layers of several sources have: dictionaries of the one."""

    source_name: str
    kind: Any  # a `Kind`: a property of each layer
    _saved: dict[str, Any]
    _keys: Any

    @property
    def kinds(self) -> dict[str, Kind]:
        """{source: `kind`}."""
        return {self.source_name: self.kind}

    @property
    def added_texts(self) -> dict[str, list[str]]:
        """{source: its ids that `update` added, where these are texts}."""
        return {self.source_name: list(self._saved.get("texts", ()))}

    def keys(self) -> dict[str, npt.NDArray[np.int64]]:
        """{source: the keys of its raw ids}, as `PrestoredAugmentation` has them; nothing where ids are places."""
        return {} if self._keys is None else {self.source_name: values_of(self._keys)}
