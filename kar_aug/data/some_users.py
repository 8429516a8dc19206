"""Some of the users of a log, for a first look through every stage: always the same ones, and more of them if more are
wanted, so that what was asked about few is there when all are asked about.
"""

from __future__ import annotations

import zlib
from dataclasses import replace

from kar_aug.data.room import MEMORY, Room, among, different
from kar_aug.data.tables import Tables


def some_users(tables: Tables, count: int, room: Room = MEMORY) -> Tables:
    """The tables with the events and rows of so many users: those whose ids have the smallest CRC-32, as text. Those of
    items stay.

    Args:
        room: where long columns are put.
    """
    log = tables.interactions
    ids = log["user_id"]
    users = different(ids.iloc[block] for block in room.blocks(len(ids)))
    if len(users) <= count:
        return tables
    chosen = sorted(users, key=lambda id: (zlib.crc32(str(id).encode()), str(id)))[:count]
    is_chosen = among(chosen)
    kept = room.filled(len(log), bool, lambda block: is_chosen(ids.iloc[block]))
    of_users = tables.users[is_chosen(tables.users["user_id"])].reset_index(drop=True)
    return replace(tables, interactions=room.rows(log, kept).reset_index(drop=True), users=of_users)
