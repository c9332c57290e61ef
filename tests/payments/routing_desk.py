"""Rules put in force, payments that leave the channel to us, and what a router is asked."""

from __future__ import annotations

import socket
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from tests.stage import Stage, new_number
from tongbao.infra.db import Statement, Write
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.parties.merchants.merchants import SANDBOX_BOOK
from tongbao.parties.merchants.model import LateSuccess
from tongbao.parties.price_plans.model import Quote
from tongbao.payments.collecting.model import NewPayment
from tongbao.payments.routing.model import Asked, Decision
from tongbao.payments.routing.router import LiveRouter, decisions_of_payment
from tongbao.payments.routing.rule_sets import activate, draw_up
from tongbao.rails.channels.accounts import set_gateway
from tongbao.rails.channels.contract.orders import ChannelAccount, PayMode

STILL = "[terms]\nexplore_ppm = 0\n"
WECHAT_FIRST = '[[rule]]\nname = "wechat first"\nto = ["wechat_pay", "alipay"]\nby = "order"\n'
CHANNELS = ("wechat_pay", "alipay")


async def in_force(stage: Stage, text: str) -> UUID:
    """Draw rules up as one person and put them in force as another."""
    source = f'name = "test"\nmode = "sandbox"\n{STILL}{text}'
    async with stage.db.begin("maker") as tx:
        draft = await draw_up(tx, source, CHANNELS)
    async with stage.db.begin("checker") as tx:
        await activate(tx, draft.id)
    anew(stage)
    return draft.id


def router_of(stage: Stage) -> LiveRouter:
    router = stage.flow.router
    assert isinstance(router, LiveRouter)
    return router


def anew(stage: Stage) -> None:
    """Let the process know at once what it would know a second later."""
    router = router_of(stage)
    router.watch.forget()
    router._rules.forget_all()


async def left_to_us(stage: Stage, amount: int = 1000, **more: Any) -> Any:
    """Ask for a QR without saying of which channel."""
    terms = {"merchant_order_no": new_number(), "subject": "tea", **more}
    create = stage.client.payments.create
    return await stage.call(create, amount=amount, method={"mode": "qr"}, **terms)


async def decisions(stage: Stage, payment: Any) -> list[Any]:
    row = await stage.row_of(payment)
    return await decisions_of_payment(stage.db, row.book, row.id)


async def unplugged(stage: Stage, channel: str) -> None:
    """Let nobody listen where the channel is called."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    async with stage.db.begin("tests") as tx:
        await set_gateway(tx, stage.accounts[channel], f"http://127.0.0.1:{port}")
    stage.platform.accounts.forget()


async def quota(stage: Stage, channel: str) -> tuple[int, int] | None:
    rows = await stage.db.fetch(
        "select amount, payments from routing_quota where account_id = $1",
        (stage.accounts[channel],),
    )
    return (rows[0]["amount"], rows[0]["payments"]) if rows else None


async def open_account(account_id: UUID) -> ChannelAccount:
    gateway = "https://a.test"
    return ChannelAccount(
        account_id, "any", Mode.SANDBOX, gateway, "1", "1", gateway, 0, msgspec.Struct()
    )


def by_hand(payment_id: UUID, now: datetime) -> Write:
    del now
    return Write(TAKEN, (payment_id,))


TAKEN = Statement("select $1::uuid")
"""Stands where a request takes its idempotency key."""


def asked_of(stage: Stage, pay_mode: PayMode = PayMode.QR, **more: Any) -> Asked:
    return Asked(
        **{
            "payment_id": new_id(),
            "book": SANDBOX_BOOK,
            "merchant_id": stage.shop.merchant.id,
            "mode": Mode.SANDBOX,
            "pay_mode": pay_mode,
            "money": Money(1000, "CNY"),
            "at": stage.db.clock.now(),
            **more,
        }
    )


def terms(stage: Stage, asked: Asked, decision: Decision | None) -> NewPayment:
    assert decision is not None
    return NewPayment(
        merchant_id=stage.shop.merchant.id,
        mode=asked.mode,
        book=asked.book,
        merchant_order_no=new_number(),
        money=asked.money,
        subject="tea",
        channel=decision.chosen.channel,
        pay_mode=asked.pay_mode,
        account_id=decision.chosen.account_id,
        price=Quote(1, 1, False, date(2026, 11, 21)),
        late_success=LateSuccess.REFUND,
        expires_in=timedelta(minutes=30),
        metadata={},
        client_ip="127.0.0.1",
        decision=decision,
    )
