"""Everything that kar.toml chooses by name, one registry a kind, open from outside.

A name is one of three: one of ours, in the lists below; an entry point of any installed package, in the group that the
registry names (`kar_aug.backbones` ...); or `"module:attribute"`, say of a file beside kar.toml. What ends with a colon
below is a family, whose members are named after it: "deepctr:AutoInt", "openvino:folder".

Nothing is imported before `load`. Adding one of a kind is its file, and a line here.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kar_aug.errors import ConfigError


class Registry:
    """The things of one kind by name.

    Args:
        kind: how errors call one: "backbone".
        group: of the entry points that add to it.
        places: name -> "module:attribute", the default first.
        joined: names may be joined by "+" then: the "module:attribute" of what makes one of what they stand for.
    """

    def __init__(self, kind: str, group: str, places: Mapping[str, str], joined: str = "") -> None:
        self.kind, self.group, self._ours, self._joined = kind, group, dict(places), joined

    def names(self) -> tuple[str, ...]:
        """All names, ours first; a family as "deepctr:". Imports nothing."""
        return tuple(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and all(self._place(part) is not None for part in self._parts(name))

    def lists(self, name: str) -> bool:
        """Whether it is a name of the lists, and not merely of something that can be imported."""
        return name in self._places or bool(self._family(name))

    def load(self, name: str) -> Any:
        """What a name stands for; of a family, its loader with the member's name given.

        Raises:
            ConfigError: There is no such name, or its module cannot be imported.
        """
        parts = self._parts(name)
        if len(parts) > 1:
            return partial(EntryPoint(name, self._joined, self.group).load(), *map(self.load, parts))
        place = self._place(name)
        if place is None:
            raise self.unknown(name)
        try:
            found = EntryPoint(name, place, self.group).load()
        except (ImportError, AttributeError) as error:
            if name in self._places or self._family(name):
                raise
            raise ConfigError(f"{self.kind} {name!r} cannot be loaded: {error}") from None
        family = self._family(name)
        return partial(found, name.removeprefix(family)) if family else found

    def fingerprint(self, name: str) -> str:
        """8 hex digits over the files of what a name of others' stands for; "" for ours. Imports none of them."""
        files = [self._file(part) for part in self._parts(name)]
        contents = [file.read_bytes() for file in files if file is not None]
        return hashlib.sha256(b"".join(contents)).hexdigest()[:8] if contents else ""

    def unknown(self, name: object) -> ConfigError:
        """The error for a name that is not there."""
        known = (f"{listed}NAME" if listed.endswith(":") else listed for listed in self)
        return ConfigError(f"there is no {self.kind} {name!r}. Known: {', '.join(known)}")

    @cached_property
    def _places(self) -> dict[str, str]:
        others = {point.name: point.value for point in entry_points(group=self.group)}
        return self._ours | {name: place for name, place in others.items() if name not in self._ours}

    def _family(self, name: str) -> str:
        head, colon, member = name.partition(":")
        return head + colon if member and head + colon in self._places else ""

    def _parts(self, name: str) -> list[str]:
        return name.split("+") if self._joined else [name]

    def _file(self, name: str) -> Path | None:
        """Where what others added lies."""
        place = self._place(name)
        if place is None or place in self._ours.values():
            return None
        spec = find_spec(place.partition(":")[0].strip())
        return Path(spec.origin) if spec is not None and spec.has_location and spec.origin else None

    def _place(self, name: str) -> str | None:
        """Where a name leads: "module:attribute"; None if nowhere."""
        if known := self._places.get(name if not name.endswith(":") else "") or self._places.get(self._family(name)):
            return known
        module, colon, attribute = name.partition(":")
        return name if colon and attribute and _importable(module) else None


def _importable(module: str) -> bool:
    importlib.invalidate_caches()
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


BACKBONES = Registry(
    "backbone",
    "kar_aug.backbones",
    {
        "DeepFM": "kar_aug.backbones.deepfm:build",
        "DIN": "kar_aug.backbones.din:build",
        "FiBiNET": "kar_aug.backbones.fibinet:build",
        "deepctr:": "kar_aug.backbones.generic:build",
    },
)
BLIND = "kar:"  # before the name of a re-ranker: without any input of the user
CODES = "codes"  # the injection that reads semantic ids, and the feature of items that is their semantic ids
RERANKERS = Registry(
    "re-ranker",
    "kar_aug.rerankers",
    {
        "DLCM": "kar_aug.backbones.reranking.dlcm:DLCM",
        "PRM": "kar_aug.backbones.reranking.prm:PRM",
        "SetRank": "kar_aug.backbones.reranking.setrank:SetRank",
        "MIR": "kar_aug.backbones.reranking.mir:MIR",
        BLIND: "kar_aug.backbones.reranking.without_user:build",
    },
)


def backbones_with(name: str) -> Registry:
    """Which registry has the name of a backbone: that of lists, or that of clicks, and of all that is in a module."""
    return RERANKERS if RERANKERS.lists(name) else BACKBONES


CONTROLS = Registry(
    "control",
    "kar_aug.controls",
    {
        "metadata": "kar_aug.compare.controls.metadata:Metadata",
        "shuffled": "kar_aug.compare.controls.shuffled:Shuffled",
        "random": "kar_aug.compare.controls.random:Random",
        "bigger": "kar_aug.compare.controls.bigger:Bigger",
        "collaborative": "kar_aug.compare.controls.collaborative:Collaborative",
    },
)
INJECTIONS = Registry(
    "injection",
    "kar_aug.injections",
    {
        "fields": "kar_aug.backbones.injections.fields:Fields",
        "events": "kar_aug.backbones.injections.events:Events",
        "similarity": "kar_aug.backbones.injections.similarity:Similarity",
        "attention": "kar_aug.backbones.injections.attention:Attention",
        "state": "kar_aug.backbones.injections.state:State",
        "retrieval": "kar_aug.backbones.injections.retrieval:Retrieval",
        "user-similarity": "kar_aug.backbones.injections.user_similarity:UserSimilarity",
        "codes": "kar_aug.backbones.injections.codes:Codes",
    },
    joined="kar_aug.backbones.injections.together:Together",
)
ADAPTORS = Registry(
    "adaptor",
    "kar_aug.adaptors",
    {
        "hybrid-expert": "kar_aug.layers.hybrid_expert_adaptor:hybrid_expert",
        "mixture-of-experts": "kar_aug.layers.hybrid_expert_adaptor:mixture_of_experts",
        "mlp": "kar_aug.layers.hybrid_expert_adaptor:mlp",
        "none": "kar_aug.layers.hybrid_expert_adaptor:linear",
    },
)
ENCODERS = Registry(
    "encoder",
    "kar_aug.encoders",
    {
        "sentence-transformers:": "kar_aug.encode.encoders.sentence_transformer:load",
        "openvino:": "kar_aug.encode.encoders.openvino:load",
        "transformers:": "kar_aug.encode.encoders.hugging_face:load",
        "model2vec:": "kar_aug.encode.encoders.static:load",
        "openai:": "kar_aug.encode.encoders.endpoint:load",
    },
)
DATASETS = Registry(
    "data set",
    "kar_aug.datasets",
    {
        "movielens-100k": "kar_aug.datasets.movielens:movielens_100k",
        "movielens-1m": "kar_aug.datasets.movielens:movielens_1m",
        "movielens-latest-small": "kar_aug.datasets.movielens:movielens_latest_small",
        "amazon-books": "kar_aug.datasets.amazon:amazon_books",
        "mind": "kar_aug.datasets.mind:mind",
    },
)
PROTOCOLS = Registry(
    "protocol",
    "kar_aug.protocols",
    {"user": "kar_aug.data.split:by_user", "temporal": "kar_aug.data.split:by_time"},
)
SELECTIONS = Registry(
    "selection",
    "kar_aug.selections",
    {
        "recent": "kar_aug.prompts.histories.select:by_time",
        "informative": "kar_aug.prompts.histories.select:by_information",
        "diverse": "kar_aug.prompts.histories.select:by_distance",
        "summarised": "kar_aug.prompts.histories.select:by_time",
        "blocks": "kar_aug.prompts.histories.select:by_time",
    },
)
PLACES = Registry(
    "kind of place",
    "kar_aug.places",
    {
        "parquet": "kar_aug.online.places.parquet:Parquet",
        "redis": "kar_aug.online.places.redis:Redis",
        "lance": "kar_aug.online.places.lance:Lance",
        "faiss": "kar_aug.online.places.faiss:Faiss",
    },
)
# What runs a stage on many machines: a function of (job, watch, address, workers), or of (workspace, watch, ...).
ASKING_ENGINES = Registry(
    "engine that asks",
    "kar_aug.asking_engines",
    {"ray": "kar_aug.engines.on_ray:generate", "spark": "kar_aug.engines.on_spark:generate"},
)
ENCODING_ENGINES = Registry("engine that encodes", "kar_aug.encoding_engines", {"ray": "kar_aug.engines.on_ray:encode"})


def reads_codes(injection: str) -> bool:
    """Whether an injection, alone or joined by "+", reads semantic ids."""
    return CODES in injection.split("+")
