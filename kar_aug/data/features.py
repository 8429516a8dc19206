"""What a model has an input of."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

# What tells of earlier events is called by their sequence: the one that every model reads is "hist", as in DeepCTR;
# "past" is all of them, and more, for comparing the candidate with each.
HIST, PAST = "hist", "past"
HISTORY = f"{HIST}_item_id"
_SCOPE = re.compile(r"[A-Za-z0-9_.\\/>-]+")  # what TensorFlow takes in the name of a scope
_WRITTEN_OUT = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ß": "ss", "ø": "o"})


@dataclass(frozen=True)
class Feature:
    """One input of a model.

    Args:
        name: of the input.
        vocabulary_size: a category is an integer in [0, vocabulary_size): 0 is missing or padding, 1 unknown (see
            `kar_aug.data.encodings`). 0 for a number, which is a float32.
        length: None for one value a row, else the number of values a row is padded to.
        embedding: the feature whose embedding table it shares; itself by default.
        sequence: the sequence of earlier events that it tells of; "" if it is of the sample itself.
        is_key: it has no embedding, and is there for knowledge alone. An integer is a place in the catalogue of users
            or items, by which an augmentation looks up what is known, of those that no model was trained on, too; its
            name is that of a source. A number is what an event was worth.
        values: of a feature of a sequence, how many values each event is padded to: more than one where events have
            several, such as genres.
    """

    name: str
    vocabulary_size: int = 0
    length: int | None = None
    embedding: str = ""
    sequence: str = ""
    is_key: bool = False
    values: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row: (), (length,), or (length, values)."""
        if self.length is None:
            return ()
        return (self.length, self.values) if self.values > 1 else (self.length,)

    @property
    def is_number(self) -> bool:
        """Whether it is a number and no category."""
        return not self.vocabulary_size


def is_name_of_layer(name: str) -> bool:
    """Whether TensorFlow takes a name for a layer, and so for a category."""
    return _SCOPE.fullmatch(name) is not None


def name_for_layer(name: str) -> str:
    """One that is like a name and that TensorFlow takes, "Kueche" for "Küche"; "" where no letter of it is Latin."""
    latin = unicodedata.normalize("NFKD", name.translate(_WRITTEN_OUT)).encode("ascii", "ignore").decode()
    return re.sub(r"\W+", "_", latin).strip("_")


def without_a_layer(features: Iterable[Feature]) -> str:
    """Which features TensorFlow can call no embedding after, and what to do; "" if there are none."""
    named = {f.name.removeprefix(f"{f.sequence}_"): None for f in features if f.vocabulary_size and not f.is_key}
    odd = [name for name in named if not is_name_of_layer(name)]
    if not odd:
        return ""
    ours = name_for_layer(odd[0]) or "feature"
    return (
        f"no layer of TensorFlow can be called after {', '.join(map(repr, odd))}: letters from a to z, digits and _ "
        f'can. Give each a name of its own, and use that: [data] columns = {{ {ours} = "{odd[0]}" }}'
    )
