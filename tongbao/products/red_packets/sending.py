"""Fill a red packet from a wallet: the money, the split and who looks at its end in one commit."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from tongbao.infra.db import Write
from tongbao.infra.failpoints import failpoint
from tongbao.infra.tasks import task_write
from tongbao.infra.web.idempotency import Idempotency, InFlight
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import new_id
from tongbao.ledger.model import ExceedsBalance, Group, GroupInFlight, Result
from tongbao.ledger.rules import posting
from tongbao.parties.accounts.model import SpendingRefused, Wallet
from tongbao.parties.accounts.wallets import account_of, spend_write
from tongbao.products.red_packets import _store as store
from tongbao.products.red_packets.hall import Hall, pot_of
from tongbao.products.red_packets.model import (
    RedPacket,
    RedPacketAsked,
    RedPacketBalanceTooLow,
    RedPacketCurrencyUnknown,
    RedPacketSendingRefused,
    RedPacketState,
    check_asked,
    split,
)
from tongbao.products.red_packets.returning import ReturnRedPacket, return_key

_SEED_BYTES: Final = 32


async def send_red_packet(
    hall: Hall, wallet: Wallet, asked: RedPacketAsked, use: Idempotency
) -> RedPacket:
    """Take the money from the wallet and put it where it waits to be taken, in one commit.

    Raises:
        RedPacketCurrencyUnknown, RedPacketTooSmall, RedPacketNotEven, RedPacketLimitExceeded,
        WalletFrozen, WalletCurrencyDiffers, DailyLimitExceeded, SpendingRefused,
        RedPacketBalanceTooLow, RedPacketSendingRefused, InFlight, GroupInFlight
    """
    now, money = hall.db.clock.now(), asked.money
    limit = await store.LIMIT_ON.first(hall.db, money.currency, business_date(now))
    if limit is None:
        raise RedPacketCurrencyUnknown(currency=money.currency)
    check_asked(asked, limit)
    wallet.check_may_spend(money, now)
    packet = _row(wallet, asked, new_id(), now)
    seed = secrets.token_bytes(_SEED_BYTES)
    drawing = (asked.kind, money.amount, asked.parts, limit.each_max)
    amounts = await asyncio.to_thread(split, *drawing, seed=seed)  # of many parts it takes a while
    group = Group(
        id=packet.id,
        book=packet.book,
        transfers=posting.transfers(
            "red_packet.funded",
            reference=packet.id,
            accounts={"sender": account_of(wallet), "subsidy": pot_of(packet)},
            amounts={"amount": money},
        ),
        companions=(
            use.write(packet.id, now),
            spend_write(wallet.book, wallet.id, money, now),
            *_writes(packet, amounts),
        ),
    )
    failpoint("red_packets.before_send")
    [result] = await hall.ledger.submit([group])
    failpoint("red_packets.after_send")
    if not result.happened:
        raise _why_not_sent(result)
    return packet


def _writes(packet: RedPacket, amounts: Sequence[int]) -> tuple[Write, ...]:
    row = (
        packet.book,
        packet.id,
        packet.merchant_id,
        packet.mode,
        packet.sender_id,
        packet.kind,
        packet.amount,
        packet.currency,
        packet.parts,
        packet.greeting,
        packet.created_at,
        packet.expires_at,
    )
    ending = ReturnRedPacket(packet.book, packet.id)
    return (
        Write(store.INSERT_PACKET, row),
        Write(store.INSERT_SPLIT, (packet.book, packet.id, list(amounts))),
        task_write(ending, run_at=packet.expires_at, key=return_key(packet.id)),
    )


def _row(wallet: Wallet, asked: RedPacketAsked, packet_id: UUID, now: datetime) -> RedPacket:
    return RedPacket(
        book=wallet.book,
        id=packet_id,
        merchant_id=wallet.merchant_id,
        mode=wallet.mode,
        sender_id=wallet.id,
        kind=asked.kind,
        amount=asked.money.amount,
        currency=asked.money.currency,
        parts=asked.parts,
        greeting=asked.greeting,
        state=RedPacketState.OPEN,
        grabbed=0,
        taken=0,
        returned=0,
        created_at=now,
        expires_at=now + asked.lifetime,
        ended_at=None,
    )


def _why_not_sent(result: Result) -> Exception:
    if result.code == InFlight.code:
        return InFlight()
    if result.status == "in_flight":
        return GroupInFlight()
    if result.code == SpendingRefused.code:
        return SpendingRefused()
    if result.code == ExceedsBalance.code:
        return RedPacketBalanceTooLow()
    return RedPacketSendingRefused(code=result.code)
