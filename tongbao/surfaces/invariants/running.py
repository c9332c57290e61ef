"""Run the invariants of the house, each by its own question, and keep the last word on each.

They are the fourteen of the catalogue: what must hold of money, state and secrets at any moment,
whatever else goes on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

import structlog
from msgspec import Struct
from prometheus_client import Gauge

from tongbao.controls.audit_log.checkpoints import verify_log
from tongbao.infra import card_watch
from tongbao.infra.audit_tree import place_entries
from tongbao.infra.db import Db, Tx
from tongbao.kernel.clock import monotonic
from tongbao.kernel.errors import Invalid
from tongbao.kernel.licence import Licence, Mode
from tongbao.ledger.audit.findings import Check
from tongbao.ledger.verify import verify
from tongbao.parties.e_accounts.opening import book_of
from tongbao.surfaces.invariants import _store as store
from tongbao.surfaces.invariants._store import Found, Light

LOOKS_BACK: Final = timedelta(days=35)
"""How old payments are compared with journal and events that age; the ledger proves the rest."""
UNKNOWN_FOR: Final = timedelta(days=1)
UNTOLD_FOR: Final = timedelta(hours=1)
UNANSWERED_FOR: Final = timedelta(days=12)  # longer than any run of holidays, and a day
MATCHES_MAX: Final = 10_000
LAST_ID: Final = UUID(int=(1 << 128) - 1)

_BREACHES: Final = Gauge("tongbao_invariant_breaches", "Things that break an invariant", ["name"])
_log: Final = structlog.get_logger()


class Invariant(Struct, frozen=True):
    """One invariant: its number, what it says, and how heavy it is to look."""

    name: str
    en: str
    zh: str
    is_quick: bool = True
    is_licensed: bool = False


INVARIANTS: Final = (
    Invariant("I1", "Debits equal credits in every currency", "借贷相等", is_quick=False),
    Invariant("I2", "Every balance is the sum of its entries", "余额等于分录之和", is_quick=False),
    Invariant("I3", "Customers' money is covered", "客户备付金足额", is_licensed=True),
    Invariant("I4", "No more is given back than was taken", "退款不超过收款"),
    Invariant("I5", "A payment's states hang together and end once", "支付状态连贯且只终结一次"),
    Invariant(
        "I6", "What was captured is booked once", "每笔收款恰好入账一次", is_licensed=True
    ),
    Invariant("I7", "Every end is told once", "每个终态恰好通知一次"),
    Invariant("I8", "Nothing is posted into a closed day", "不向已关账日记账", is_quick=False),
    Invariant("I9", "No account is below its floor", "余额不低于下限", is_quick=False),
    Invariant("I10", "The audit log is whole", "审计日志完整未改"),
    Invariant("I11", "Offline keys pay within their time and limit", "离线密钥不超期不超限",
              is_licensed=True),
    Invariant("I12", "An aggregator keeps nobody's money", "聚合模式不存放资金"),
    Invariant("I13", "What is unknown for long has a case", "长期未知必有差错单"),
    Invariant("I14", "No table has card numbers, tracks or CVNs", "数据表无卡号、磁道、CVN",
              is_quick=False),
    Invariant("I15", "People's accounts say what the ledger says", "电子账户余额与总账一致",
              is_licensed=True),
)  # fmt: skip
NAMES: Final = tuple(each.name for each in INVARIANTS)
_CHECKS_OF: Final = {
    "I1": {"balanced", "parties"},
    "I2": {"counters", "running_balances"},
    "I8": {"dates"},
    "I9": {"limits"},
}
Look = Callable[[], Awaitable[Found]]


class InvariantUnknown(Invalid):
    """There is no invariant of this name."""

    code = "invariant.unknown"
    advice = "Name one of I1 to I15."
    advice_zh = "请使用 I1 至 I15 的编号。"


def chosen(only: Collection[str], licence: Licence, *, quick: bool = False) -> list[Invariant]:
    """Return the invariants to run: those named, or all that a firm of this licence has.

    Raises:
        InvariantUnknown
    """
    for name in only:
        if name not in NAMES:
            raise InvariantUnknown(name=name[:20])
    return [
        each
        for each in INVARIANTS
        if (each.name in only or not only)
        and (each.is_quick or not quick)
        and (licence.may_hold_funds or not each.is_licensed)
    ]


async def run_invariants(db: Db, licence: Licence, which: Sequence[Invariant]) -> list[Light]:
    """Run invariants, keep the last word on each, and return them in order."""
    proved: list[Check] = []
    if any(each.name in _CHECKS_OF for each in which):
        proved = list((await verify(db)).checks)
    found = []
    for each in which:
        began = monotonic()
        result = (
            _proved(each, proved) if each.name in _CHECKS_OF else await look(db, each.name, licence)
        )
        await put_light(db, each.name, result, began)
        found.append(each.name)
    return [light for light in await lights(db) if light.name in found]


async def put_light(db: Db, name: str, found: Found, began: float) -> None:
    """Keep the last word on an invariant; ``began`` is when the look at it did."""
    took_ms = int((monotonic() - began) * 1000)
    args = (name, found.breaches, found.first[:500], took_ms, db.clock.now())
    await store.PUT.run(db, *args)
    _BREACHES.labels(name).set(found.breaches)
    if found.breaches:
        _log.error("invariant_broken", name=name, breaches=found.breaches)


async def lights(on: Db | Tx) -> list[Light]:
    """Return the last word on each invariant that was ever run, in order."""
    rows = {light.name: light for light in await store.LIGHTS.all(on)}
    return [rows[name] for name in NAMES if name in rows]


def _proved(each: Invariant, checks: Sequence[Check]) -> Found:
    broken = [c for c in checks if c.name in _CHECKS_OF[each.name] and c.breaches]
    first = f"{broken[0].name}: {broken[0].first}" if broken else ""
    return Found(sum(check.breaches for check in broken), first)


async def look(db: Db, name: str, licence: Licence) -> Found:
    """Look at everything that an invariant is about, however much that is."""
    now = db.clock.now()
    looks: dict[str, Look] = {
        "I3": lambda: store.GAPS.one(db),
        "I4": lambda: store.REFUNDS.one(db),
        "I5": lambda: store.STATES.one(db),
        "I6": lambda: store.CAPTURES.one(db, now - LOOKS_BACK),
        "I7": lambda: store.EVENTS.one(db, now - LOOKS_BACK, now - UNTOLD_FOR),
        "I10": lambda: _audit(db),
        "I11": lambda: store.OFFLINE.one(db),
        "I12": lambda: store.FUNDS.one(db),
        "I13": lambda: _unknown(db, licence),
        "I14": lambda: scan(db),
        "I15": lambda: _e_accounts(db),
    }
    return await looks[name]()


async def _audit(db: Db) -> Found:
    await place_entries(db)
    report = await verify_log(db)
    return Found(report.breaches, report.first)


async def _unknown(db: Db, licence: Licence) -> Found:
    now = db.clock.now()
    found = await store.UNKNOWN.one(db, now - UNKNOWN_FOR)
    if not licence.may_hold_funds:
        return found
    more = await store.UNKNOWN_PAID_OUT.one(db, now - UNKNOWN_FOR, now - UNANSWERED_FOR)
    return Found(found.breaches + more.breaches, found.first or more.first)


async def _e_accounts(db: Db) -> Found:
    ends = (UUID(int=0), LAST_ID)
    found = [await store.E_ACCOUNTS_IN.one(db, book_of(mode), *ends) for mode in Mode]
    return add_up(found)


def add_up(found: Sequence[Found]) -> Found:
    """Return what several looks have found as one."""
    firsts = [each.first for each in found if each.first]
    return Found(sum(each.breaches for each in found), firsts[0] if firsts else "")


async def scan(db: Db) -> Found:
    """Look through every column of text for what must not be kept; the first names the place."""
    breaches, first = 0, ""
    async for spot in card_watch.scan(db):
        breaches += 1
        first = first or f"{spot.kind} in {spot.where}"
        if breaches == MATCHES_MAX:
            break
    return Found(breaches, first)
