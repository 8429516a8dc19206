"""What a model has an input of."""

from __future__ import annotations

from dataclasses import dataclass

# What tells of earlier events is called by their sequence: the one that every model reads is "hist", as in DeepCTR;
# "past" is all of them, and more, for comparing the candidate with each.
HIST, PAST = "hist", "past"
HISTORY = f"{HIST}_item_id"


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
