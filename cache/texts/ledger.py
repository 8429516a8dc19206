"""What requests cost: reserved before they are sent, settled after, as banks hold and capture. Rows are only added.

A process or a batch (the row's `owner`) reserves the most that a request can cost in the transaction that finds the
question to be its own to ask. The row is on disk before the request leaves, and the sum of all rows (`accounts`) is
compared with the limit in that same transaction: so many jobs as there may be, killed at whatever moment, what servers
charge is never more than what is written here. It costs no commit of its own: a slot of a job reserves its next
question in the commit that stores its last answer. That commit, too, settles what the answer cost.

A request that was lost may have been charged. It counts at its most, and another try needs a reservation of its own.
The same holds where a server says nothing readable of what it charged, and for whatever a killed process, or a batch
that is in no book any more, has left open. Nothing that happens to answers (deleted, asked again, replaced) changes a
row; only the answer itself, however late, settles its own.

    reserved   it is on its way                      counts at its most
    settled    it was answered                       counts at its cost
    unknown    it was sent, and nobody knows         counts at its most
    released   never sent, or refused without charge counts nothing

An answer may cost more than it could by all that was asked (thinking that `max_tokens` does not bound): the model's
next reservations are larger by that, its `surplus`, and what is on its way with less counts as if it had it, too.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from kar_aug._helpers.batched import batched
from kar_aug.cache.texts import tables
from kar_aug.cache.texts.database import Database
from kar_aug.cache.texts.workers import dead

RESERVED, SETTLED, UNKNOWN, RELEASED = "reserved", "settled", "unknown", "released"
_BILLION = 1e9
_KEYS = 256  # of one statement
_IS_OPEN = sa.text(tables.IS_OPEN)  # as the index says it, or it would not be used

# Made once: making them takes longer than running them, and they run with every commit of a job.
_OWN = (_IS_OPEN, tables.ledger.c.owner == sa.bindparam("by"))
_OF_KEYS = (*_OWN, tables.ledger.c.key.in_(sa.bindparam("keys", expanding=True)))
_FIND = sa.select(*(tables.ledger.c[name] for name in ("id", "key", "model", "reserved", "surplus"))).where(*_OF_KEYS)
_ENTER = sa.insert(tables.ledger)
_SETTLE = sa.update(tables.ledger).where(tables.ledger.c.id == sa.bindparam("row"))
_LOSE = sa.update(tables.ledger).values(state=UNKNOWN, cost=tables.ledger.c.reserved)
_ACCOUNT = sa.select(tables.accounts).where(tables.accounts.c.model == sa.bindparam("of")).with_for_update()
_BEHIND: sa.Select[Any] = sa.select(
    sa.func.coalesce(sa.func.sum(sa.bindparam("more") - tables.ledger.c.surplus), 0)
).where(
    _IS_OPEN,
    tables.ledger.c.model == sa.bindparam("of"),
    tables.ledger.c.reserved.is_not(None),
    tables.ledger.c.surplus < sa.bindparam("more"),
    tables.ledger.c.owner.in_(sa.select(tables.workers.c.owner)),
)
_MORE = sa.bindparam("more_surplus", type_=sa.BigInteger)
_ADD = (
    sa.update(tables.accounts)
    .where(tables.accounts.c.model == sa.bindparam("of"))
    .values(
        committed=tables.accounts.c.committed + sa.bindparam("more", type_=sa.BigInteger),
        surplus=sa.case((tables.accounts.c.surplus < _MORE, _MORE), else_=tables.accounts.c.surplus),
    )
)


@dataclass(frozen=True)
class Order:
    """A request that is to be sent.

    Args:
        key: of its question.
        knowledge: whose knowledge the answer will be: "item:tags".
        most: US dollars that it can cost at most; None if the model's price is not known.
        before: what became of the reservation that its owner has for this question already: `UNKNOWN`, `RELEASED`; ""
            if there is none.
    """

    key: str
    model: str
    most: float | None
    knowledge: str | None = None
    tier: str = ""
    before: str = ""


@dataclass(frozen=True)
class Charge:
    """What a request came to.

    Args:
        cost: US dollars, None if the model's price is not known.
        known: whether the server said what it charges; if not, the request counts at its most.
    """

    key: str
    model: str
    cost: float | None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    known: bool = True
    knowledge: str | None = None
    tier: str = ""
    created: str = ""


@dataclass(frozen=True)
class Shortage:
    """Why an order was not taken: `spent` and `reserved` leave less than `most`; all in US dollars.

    Args:
        waiting: whether some of what is reserved may turn out cheaper soon: processes wait for its answer.
    """

    spent: float
    reserved: float
    most: float
    waiting: bool


@dataclass(frozen=True)
class Reservation:
    """What became of orders, by their keys: reserved, or `taken` (others ask the question); the rest, if there is one,
    was short of money. `surplus` is what was reserved beyond what was asked, in billionths of a US dollar.
    """

    keys: frozenset[str] = frozenset()
    taken: frozenset[str] = frozenset()
    shortage: Shortage | None = None
    surplus: int = 0


class Spending(NamedTuple):
    """What one model cost for one kind of knowledge on one day (UTC, by when requests were reserved). Dollars are None
    where the model's price is not known.
    """

    day: str
    model: str
    knowledge: str | None
    requests: int
    prompt_tokens: int
    completion_tokens: int
    settled: float | None
    reserved: float | None
    unknown: float | None


class Ledger:
    """The ledger of one cache. What writes does so within the caller's transaction, as its last part: the sums are
    locked by whoever comes first, and nobody may wait for anything else while he holds them.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._open_account = database.insert(tables.accounts).on_conflict_do_nothing(index_elements=["model"])

    # Writing

    def reserve(
        self, connection: sa.Connection, owner: str, orders: Sequence[Order], max_cost: float | None = None
    ) -> Reservation:
        """Reserve what orders can cost, those that a limit leaves room for. What the same owner has reserved for these
        questions before ends.

        Args:
            max_cost: US dollars that all that was and will be asked of a model may cost.
        """
        if not orders:
            return Reservation()
        self.end(connection, owner, orders)
        priced = {order.model for order in orders if order.most is not None}
        accounts = {model: self._account(connection, model) for model in sorted(priced)}
        limit = math.inf if max_cost is None else math.floor(round(max_cost * _BILLION, 3))
        behind = {of: 0 if max_cost is None else self._behind(connection, each) for of, each in accounts.items()}
        rows: list[dict[str, Any]] = []
        added, short = dict.fromkeys(accounts, 0), None
        now = datetime.now(UTC).isoformat(timespec="seconds")
        for order in orders:
            most, surplus = billionths(order.most), 0
            if most is not None:
                surplus = accounts[order.model].surplus
                most += surplus
                committed = accounts[order.model].committed + added[order.model]
                if committed + behind[order.model] + most > limit:
                    short = short or (order.model, committed, behind[order.model], most)
                    continue
                added[order.model] += most
            row: dict[str, Any] = {"key": order.key, "owner": owner, "model": order.model, "created": now}
            row |= {"knowledge": order.knowledge, "tier": order.tier, "state": RESERVED, "reserved": most}
            rows.append(row | {"surplus": surplus, "prompt_tokens": 0, "completion_tokens": 0})
        if rows:
            connection.execute(_ENTER, rows)
            self._add(connection, added)
        shortage = self._shortage(connection, *short) if short else None
        surplus = max((account.surplus for account in accounts.values()), default=0)
        return Reservation(frozenset(row["key"] for row in rows), frozenset(), shortage, surplus)

    def end(self, connection: sa.Connection, owner: str, orders: Sequence[Order]) -> None:
        """The reservations before these have ended."""
        self.lose(connection, owner, [order.key for order in orders if order.before == UNKNOWN])
        self.release(connection, owner, [order.key for order in orders if order.before == RELEASED])

    def settle(self, connection: sa.Connection, owner: str, charges: Sequence[Charge]) -> None:
        """Write down what requests came to. One without a reservation (it was sent by other means) is entered too."""
        there = self._open(connection, owner, [charge.key for charge in charges])
        ended, entered = [], []
        added: dict[str, int] = defaultdict(int)
        surplus: dict[str, int] = defaultdict(int)
        for charge in charges:
            reserved = there.get(charge.key)
            if reserved is not None:
                ended.append(_ended(charge, reserved))
                more = (ended[-1]["cost"] or 0) - (reserved.reserved or 0)
                added[reserved.model] += more
                if reserved.reserved is not None:
                    surplus[reserved.model] = max(surplus[reserved.model], more + reserved.surplus)
            elif charge.cost is not None or charge.prompt_tokens:
                entered.append(_entered(charge, owner))
                added[charge.model] += entered[-1]["cost"] or 0
        if ended:
            connection.execute(_SETTLE, ended)
        if entered:
            connection.execute(_ENTER, entered)
        self._add(connection, added, surplus)

    def enter_once(self, connection: sa.Connection, charge: Charge) -> None:
        """Write down what a request came to that nobody reserved, if no line has its key yet."""
        if connection.execute(sa.select(tables.ledger.c.key).where(tables.ledger.c.key == charge.key)).first() is None:
            self.settle(connection, charge.key, [charge])

    def lose(self, connection: sa.Connection, owner: str, keys: Collection[str] | None = None) -> None:
        """Requests were sent, and nobody knows what came of them: those of these questions, or all of an owner."""
        if keys is None:
            connection.execute(_LOSE.where(*_OWN), {"by": owner})
        else:
            for some in batched(sorted(keys), _KEYS):
                connection.execute(_LOSE.where(*_OF_KEYS), {"by": owner, "keys": some})

    def release(self, connection: sa.Connection, owner: str, keys: Collection[str]) -> None:
        """Requests were not sent, or the server refused them without charge."""
        rows = list(self._open(connection, owner, keys).values())
        if rows:
            ended = [{"row": row.id, "state": RELEASED, "cost": 0} for row in rows]
            connection.execute(_SETTLE, ended)
            added: dict[str, int] = defaultdict(int)
            for row in rows:
                added[row.model] -= row.reserved or 0
            self._add(connection, added)

    # Reading

    def spent(self, model: str | None = None) -> float:
        """US dollars that requests cost, and that those on their way, or lost, can have cost; of one model if it is
        named.
        """
        statement = sa.select(sa.func.sum(tables.accounts.c.committed))
        if model is not None:
            statement = statement.where(tables.accounts.c.model == model)
        with self._database.reading() as connection:
            return int(connection.execute(statement).scalar() or 0) / _BILLION

    def history(self) -> list[Spending]:
        """What was spent by day, model and kind of knowledge, oldest first."""
        rows = tables.ledger.c
        with self._database.reading() as connection:
            lives = self._lives(connection)
            open_, unknown = sa.and_(_IS_OPEN, lives), sa.or_(rows.state == UNKNOWN, sa.and_(_IS_OPEN, sa.not_(lives)))
            kinds = (sa.func.substr(rows.created, 1, 10), rows.model, rows.knowledge)
            counted = (sa.func.count(), sa.func.sum(rows.prompt_tokens), sa.func.sum(rows.completion_tokens))
            money = [
                sa.func.sum(sa.case((condition, amount), (rows.reserved.is_not(None), 0)))
                for condition, amount in (
                    (rows.state == SETTLED, rows.cost), (open_, rows.reserved), (unknown, rows.reserved)
                )
            ]  # fmt: skip
            statement = sa.select(*kinds, *counted, *money).where(rows.state != RELEASED)
            found = connection.execute(statement.group_by(*kinds).order_by(*kinds)).all()
        return [Spending(*row[:3], *map(int, row[3:6]), *map(_dollars, row[6:])) for row in found]

    # Behind these

    def _open(self, connection: sa.Connection, owner: str, keys: Collection[str]) -> dict[str, Any]:
        """The reservations of an owner for these questions."""
        found: dict[str, Any] = {}
        for some in batched(sorted(keys), _KEYS):
            found.update({row.key: row for row in connection.execute(_FIND, {"by": owner, "keys": some})})
        return found

    def _account(self, connection: sa.Connection, model: str) -> Any:
        """The sum of a model, locked until the transaction ends."""
        found = connection.execute(_ACCOUNT, {"of": model}).one_or_none()
        if found is None:
            connection.execute(self._open_account, {"model": model, "committed": 0, "surplus": 0})
            found = connection.execute(_ACCOUNT, {"of": model}).one()
        return found

    def _add(self, connection: sa.Connection, added: dict[str, int], surplus: dict[str, int] | None = None) -> None:
        for model, more in sorted(added.items()):
            if more:
                most = (surplus or {}).get(model, 0)
                if not connection.execute(_ADD, {"of": model, "more": more, "more_surplus": most}).rowcount:
                    self._account(connection, model)
                    connection.execute(_ADD, {"of": model, "more": more, "more_surplus": most})

    def _behind(self, connection: sa.Connection, account: Any) -> int:
        """By how much requests on their way may cost more than is reserved for them: by what an answer has shown since
        they were sent. Batches are left out, which all that comes later would wait for a day.
        """
        if not account.surplus:
            return 0
        return int(connection.execute(_BEHIND, {"of": account.model, "more": account.surplus}).scalar_one())

    def _shortage(self, connection: sa.Connection, model: str, committed: int, behind: int, most: int) -> Shortage:
        rows = tables.ledger.c
        of_model = sa.select(sa.func.coalesce(sa.func.sum(rows.reserved), 0)).where(_IS_OPEN, rows.model == model)
        reserved = int(connection.execute(of_model).scalar_one())
        asking = rows.owner.in_(sa.select(tables.workers.c.owner)) & rows.owner.not_in(dead(self._database, connection))
        waiting = int(connection.execute(of_model.where(asking)).scalar_one())
        open_ = reserved + behind
        return Shortage((committed - reserved) / _BILLION, open_ / _BILLION, most / _BILLION, waiting > 0)

    def _lives(self, connection: sa.Connection) -> sa.ColumnElement[bool]:
        """Whether a row's owner is still at work: a process, or a batch."""
        owner = tables.ledger.c.owner
        processes = sa.select(tables.workers.c.owner).where(
            tables.workers.c.owner.not_in(dead(self._database, connection))
        )
        return owner.in_(processes) | owner.in_(
            sa.select(tables.batches.c.marker).where(tables.batches.c.state != tables.LOST)
        )


def billionths(dollars: float | None) -> int | None:
    """US dollars as the ledger counts them: rounded up, but not for what floats add to a number."""
    return None if dollars is None else math.ceil(round(dollars * _BILLION, 3))


def _ended(charge: Charge, reserved: Any) -> dict[str, Any]:
    """What an open row becomes."""
    known = charge.known and (charge.cost is not None or reserved.reserved is None)
    return {
        "row": reserved.id,
        "state": SETTLED if known else UNKNOWN,
        "cost": billionths(charge.cost) if known else reserved.reserved,
        "tier": charge.tier,
        "prompt_tokens": charge.prompt_tokens,
        "completion_tokens": charge.completion_tokens,
    }


def _entered(charge: Charge, owner: str) -> dict[str, Any]:
    """The row of a request that was never reserved."""
    cost = billionths(charge.cost)
    return {
        "key": charge.key,
        "owner": owner,
        "model": charge.model,
        "knowledge": charge.knowledge,
        "tier": charge.tier,
        "state": SETTLED if charge.known else UNKNOWN,
        "reserved": cost,
        "surplus": 0,
        "cost": cost,
        "prompt_tokens": charge.prompt_tokens,
        "completion_tokens": charge.completion_tokens,
        "created": charge.created,
    }


def _dollars(amount: Any) -> float | None:
    return None if amount is None else int(amount) / _BILLION
