"""What is known of users at the end of each block of their histories: see `kar_aug.prompts.histories.blocks`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby

from kar_aug._helpers.times import latest
from kar_aug.cache import Knowledge
from kar_aug.prompts.histories.blocks import owner


def versions(texts: Iterable[Knowledge]) -> Iterator[Knowledge]:
    """A text for each block that there is one of: what was said of it after what was said of all before.

    Its as-of time is the latest of all these, so that it may be used by what comes after all of them. Of blocks that
    end at one moment the last has the only version.

    Args:
        texts: of blocks; those of a user together, in any order.
    """
    return (version for version, _ in with_blocks(texts))


def with_blocks(texts: Iterable[Knowledge]) -> Iterator[tuple[Knowledge, tuple[int | str, ...]]]:
    """The same, each with the blocks whose texts are in it."""
    for user_id, of_user in groupby(texts, key=lambda text: owner(text.entity_id)[0]):
        said: list[Knowledge] = []
        found: dict[str | None, tuple[Knowledge, tuple[int | str, ...]]] = {}
        for text in sorted(of_user, key=lambda text: owner(text.entity_id)[1]):
            said.append(text)
            as_of = latest(each.as_of for each in said)
            together = "\n\n".join(each.text for each in said)
            version = replace(text, entity_id=user_id, text=together, as_of=as_of)
            found[as_of] = version, tuple(each.entity_id for each in said)
        yield from found.values()
