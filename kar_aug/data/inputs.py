"""What a CTR model is to read, as settings; and the two that are known by a name.

| preset | item                            | user     | earlier events                             | user ids         |
|--------|---------------------------------|----------|--------------------------------------------|------------------|
| full   | id, all features, numbers       | the same | item, rating, features, since; the last 50 | not under "user" |
| kar    | id, first category, first value | nothing  | item, that value, rating; the last 5       | never            |

A log without ratings has none to tell. "kar" is what KAR's authors feed their models (Xi et al. 2023, section 4.1 and
their code), so that numbers can be set beside theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kar_aug.config import DataConfig

RATING, SINCE = "rating", "since"
_KAR_EVENTS = 5


@dataclass(frozen=True)
class Inputs:
    """What a model reads.

    Args:
        user_features, item_features: columns of the tables, as categories; several values in a cell are a list.
        context: columns of the interactions that are known when the impression is made; "hour" and "weekday" are
            made from the timestamp where there are no such columns.
        numeric: column of any table -> "standard", "log", "minmax", or "buckets" (quantiles, embedded).
        events: "all", or "clicks" alone, in the sequence of earlier events.
        event_features: what is told of each earlier event beside its item: columns of interactions or items,
            "label", whether it was a click, and "since", how long ago it was. None: the rating, or the label in a
            log that has none, the features of items, and since (this only if `tells_since`).
        event_values: of several values that an earlier event has in a cell, so many of the first are told.
        sequences: further sequences: name -> expression over the interactions' columns, "event == 'view'".
        history_length: how many of the latest events are read.
        past_length: how many a candidate is compared with by knowledge, where an injection does that.
        user_ids, item_ids: whether the user's id is a feature; and the item's, of the candidate and of events.
        fewest: an id with fewer training events is as unknown as a new one.
        first_values: whether of several values in a cell the first alone is read.
        weight: a column of the interactions: how much a row counts.
        lists: whether samples stand in lists (see `kar_aug.data.lists`); `initial_score` is read then, if there is one.
    """

    user_features: tuple[str, ...] = ()
    item_features: tuple[str, ...] = ()
    context: tuple[str, ...] = ()
    numeric: Mapping[str, str] = field(default_factory=dict)
    events: str = "all"
    event_features: tuple[str, ...] | None = None
    event_values: int = 8
    tells_since: bool = True
    sequences: Mapping[str, str] = field(default_factory=dict)
    history_length: int = 50
    past_length: int = 200
    user_ids: bool = False
    item_ids: bool = True
    fewest: int = 1
    first_values: bool = False
    weight: str | None = None
    lists: bool = False


def inputs(data: DataConfig) -> Inputs:
    """What [data] says that models read."""
    if data.inputs == "kar":
        first = tuple(name for name in data.item_features if name not in data.numeric)[:1]
        return Inputs(
            item_features=first,
            tells_since=False,
            history_length=_KAR_EVENTS if data.history_length is None else data.history_length,
            past_length=data.past_length,
            first_values=True,
            weight=data.weight,
            lists=data.lists is not None,
        )
    return Inputs(
        user_features=data.user_features,
        item_features=data.item_features,
        context=data.context,
        numeric=data.numeric,
        events=data.events,
        event_features=data.event_features,
        event_values=data.event_values,
        sequences=data.sequences,
        history_length=Inputs.history_length if data.history_length is None else data.history_length,
        past_length=data.past_length,
        user_ids=data.protocol != "user" if data.user_ids is None else data.user_ids,
        item_ids=data.item_ids,
        fewest=data.fewest,
        weight=data.weight,
        lists=data.lists is not None,
    )
