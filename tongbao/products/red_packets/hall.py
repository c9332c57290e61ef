"""What every act on a red packet needs, where its money lies, its end, and limits for all.

Limits begin on a day and two people agree to them. A row that is there never changes: what was sent
under it stays explained.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from msgspec import Struct

from tongbao.controls.approvals.approvals import in_transaction, propose
from tongbao.controls.approvals.model import Act, Approval, Bound, Change
from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.infra.outbox import Event
from tongbao.kernel.clock import business_date
from tongbao.kernel.errors import Conflict, Fact, Invalid
from tongbao.kernel.ids import show
from tongbao.kernel.money import Money, exponent_of
from tongbao.ledger.book import Ledger
from tongbao.ledger.model import AccountKey
from tongbao.parties.identity.model import Permission
from tongbao.products.red_packets import _store as store
from tongbao.products.red_packets.model import (
    RedPacket,
    RedPacketLimit,
    RedPacketView,
    view_red_packet,
)

MOVED_ON: Final = "red_packet.moved_on"
"""The red packet's row was not as it was when its parts were counted out."""


class Hall(Struct, frozen=True):
    """The database and the ledger of one process."""

    db: Db
    ledger: Ledger


class RedPacketEnded(Event, frozen=True, kw_only=True, tag="red_packet.ended"):
    """Every part was taken, or the time was over and the rest went back to the sender."""

    object: RedPacketView


def pot_of(packet: RedPacket) -> AccountKey:
    """Return the ledger account that holds what nobody took so far."""
    return AccountKey("subsidy", packet.currency, packet.id)


def ended_event(packet: RedPacket) -> RedPacketEnded:
    """Return the event that tells of a red packet's end."""
    return RedPacketEnded(
        merchant_id=packet.merchant_id,
        mode=packet.mode,
        resource_id=show("rpk", packet.id),
        object=view_red_packet(packet),
    )


PARTS_MOST: Final = 100_000
_SOURCE_MAX: Final = 300


class LimitThere(Conflict):
    """Limits that begin on this day are agreed, and do not change any more."""

    code = "red_packet_limit.there"
    advice = "Let the new limits begin on another day."
    advice_zh = "该日起的限额已确定，请改为其他生效日。"


class LimitInThePast(Invalid):
    """Limits begin today or later."""

    code = "red_packet_limit.in_the_past"
    advice = "Give a day that is not over."
    advice_zh = "请填写今日或之后的生效日。"


class LimitMalformed(Invalid):
    """The figures do not fit together, or nobody says where they come from."""

    code = "red_packet_limit.malformed"
    advice = "Let a total be at least one part, parts 1 to 100000, and name a source."
    advice_zh = "总额不得小于单个金额，个数为 1 至 100000，并请注明依据。"


SET: Final = Act(
    "red_packet_limit.set",
    "Limit red packets from a day on",
    "设置红包限额",
    RedPacketLimit,
    maker=Permission.MERCHANTS_ACT,
    checker=Permission.SETTLEMENT_ACT,
)


async def propose_limit(
    tx: Tx, limit: RedPacketLimit, *, reason: str, may: Collection[str] | None = None
) -> Approval:
    """Propose limits, in minor units.

    Raises:
        UnknownCurrency, LimitMalformed, LimitInThePast, LimitThere, MakerNotAllowed,
        ReasonTooShort, ApprovalWaiting
    """
    exponent_of(limit.currency)
    if not (
        0 < limit.each_max <= limit.total_max
        and 0 < limit.parts_max <= PARTS_MOST
        and 0 < len(limit.source) <= _SOURCE_MAX
    ):
        raise LimitMalformed
    if limit.valid_from < business_date(tx.now):
        raise LimitInThePast(param="valid_from")
    if await store.LIMIT_BEGINS.one(tx, limit.currency, limit.valid_from):
        raise LimitThere
    subject = f"{limit.currency} {limit.valid_from.isoformat()}"
    return await propose(tx, SET, subject, limit, reason=reason, may=may)


def bound_acts(db: Db) -> tuple[Bound, ...]:
    """Return the act with what does it."""
    return (Bound(SET, in_transaction(db, _add), _show),)


async def _add(tx: Tx, approval: Approval, limit: RedPacketLimit) -> None:
    if limit.valid_from < business_date(tx.now):
        raise LimitInThePast  # it waited for so long that its day is over
    figures = (limit.each_max, limit.total_max, limit.parts_max)
    if (
        await store.ADD_LIMIT.first(tx, limit.currency, limit.valid_from, *figures, limit.source)
        is None
    ):
        raise LimitThere
    facts: dict[str, Fact] = {"each": limit.each_max, "total": limit.total_max}
    facts |= {"parts": limit.parts_max, "source": limit.source}
    await audit.record(tx, "red_packet_limit.set", approval.subject, facts)


async def _show(db: Db, _approval: Approval, limit: RedPacketLimit) -> list[Change]:
    before = await store.LIMIT_ON.first(db, limit.currency, limit.valid_from)

    def money(amount: int) -> str:
        return Money(amount, limit.currency).decimal_text()

    return [
        Change("currency", "币种", None, limit.currency),
        Change("from", "生效日", None, limit.valid_from.isoformat()),
        Change(
            "one part", "单个", money(before.each_max) if before else None, money(limit.each_max)
        ),
        Change(
            "a red packet",
            "总额",
            money(before.total_max) if before else None,
            money(limit.total_max),
        ),
        Change("parts", "个数", str(before.parts_max) if before else None, str(limit.parts_max)),
        Change("source", "依据", before.source if before else None, limit.source),
    ]
