"""The chase: what is asked, offered again, closed, and what nobody may conclude.

The channel here is scripted, answer by answer, so that answers can come in any order; the platform
and its book are real.
"""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace

from tests.stage import Stage, new_number, staged
from tongbao.infra.db import Write
from tongbao.infra.tasks import Again
from tongbao.infra.web.idempotency import Idempotency
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.licence import Licence, Mode
from tongbao.kernel.money import Money
from tongbao.ledger.model import AccountKey, AccountState
from tongbao.parties.merchants.model import LateSuccess
from tongbao.parties.price_plans.model import Quote
from tongbao.payments.collecting import queries
from tongbao.payments.collecting.chase import chase_attempt
from tongbao.payments.collecting.model import Attempt, Payment
from tongbao.payments.collecting.outcomes import ChaseAttempt, Evidence, Flow, record_news
from tongbao.payments.collecting.payments import (
    NewPayment,
    close_payment,
    create_payment,
    resume_payment,
)
from tongbao.rails.channels.accounts import set_gateway
from tongbao.rails.channels.contract.orders import PayMode
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Answer,
    Closed,
    Declined,
    Exchange,
    NotSent,
    Pending,
    ShowQr,
    Succeeded,
    Unknown,
)
from tongbao_sdk import Refused

SILENCE = Unknown("no answer")
CODE = Pending(ShowQr("weixin://wxpay/bizpayurl?pr=scripted"))
AMOUNT = Money(1999, "CNY")


class Scripted:
    """A channel that says what the test wrote down, and remembers what it was asked."""

    name = "wechat_pay"
    modes = frozenset(PayMode)
    currencies = frozenset({"CNY"})

    def __init__(self, **answers: list[Any]) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.numbers: set[str] = set()

    async def pay(self, _account: Any, order: Any) -> Answer[Any]:
        return self._say("pay", order.number)

    async def query(self, _account: Any, order: Any) -> Answer[Any]:
        return self._say("query", order.number)

    async def close(self, _account: Any, order: Any) -> Answer[Any]:
        return self._say("close", order.number)

    def _say(self, call: str, number: str) -> Answer[Any]:
        self.asked.append(call)
        self.numbers.add(number)
        said = self.answers[call].pop(0)
        if isinstance(said, Exception):
            raise said
        return Answer(said, Exchange("POST", f"https://scripted/{call}", "", 200, "", 1))


class Case:
    """One payment at a scripted channel."""

    def __init__(self, stage: Stage, channel: Scripted) -> None:
        self.stage = stage
        self.channel = channel
        self.flow: Flow = replace(stage.flow, channels={"wechat_pay": channel})
        self.payment_id = new_id()

    async def ask(self, mode: PayMode = PayMode.QR, **terms: Any) -> tuple[Payment, Attempt]:
        now = self.stage.db.clock.now()
        asked = NewPayment(
            **{
                "merchant_id": self.stage.shop.merchant.id,
                "mode": Mode.SANDBOX,
                "book": self.stage.shop.merchant.book(Mode.SANDBOX),
                "merchant_order_no": new_number(),
                "money": AMOUNT,
                "subject": "tea",
                "channel": "wechat_pay",
                "pay_mode": mode,
                "account_id": self.stage.accounts["wechat_pay"],
                "price": Quote(1, 16, False, now.date()),
                "late_success": LateSuccess.REFUND,
                "expires_in": timedelta(minutes=30),
                "metadata": {},
                "client_ip": "127.0.0.1",
                "auth_code": "134567890123456789" if mode is PayMode.PAYMENT_CODE else None,
                **terms,
            }
        )
        use = Idempotency(
            asked.merchant_id,
            asked.mode,
            "POST /by-hand",
            os.urandom(32),
            os.urandom(32),
            now + timedelta(minutes=1),
        )

        def take(payment_id: UUID, at: Any) -> Write:
            return use.write(payment_id, at)

        return await create_payment(self.flow, asked, take, self.payment_id)

    async def chase(self, after_s: float = 0, *, late: bool = False) -> Again | None:
        """Take the next look, so much later."""
        self.stage.db.clock.offset += timedelta(seconds=after_s)
        payment, attempt = await self.rows()
        task = ChaseAttempt(payment.book, attempt.id, late)
        return await chase_attempt(self.flow, task, None)  # type: ignore[arg-type]

    async def rows(self) -> tuple[Payment, Attempt]:
        book = self.stage.shop.merchant.book(Mode.SANDBOX)
        payment = await queries.payment(self.stage.db, book, self.payment_id)
        return payment, await queries.last_attempt(self.stage.db, payment)

    async def state(self) -> str:
        return str((await self.rows())[0].state)

    @property
    def view(self) -> dict[str, str]:
        return {"id": show("pay", self.payment_id)}

    def paid(self, ref: str | None = None) -> Succeeded:
        return Succeeded(ref or new_number(), AMOUNT, self.stage.db.clock.now())


@pytest.fixture(autouse=True)
async def _nothing_else_runs(stage: Stage) -> None:
    """The module's worker must not chase a scripted payment at the sandbox."""
    await stage.db.execute("delete from task", ())


# A QR whose making went unanswered


async def test_a_qr_nobody_has_seen_is_offered_again_under_its_number(stage: Stage) -> None:
    case = Case(stage, Scripted(pay=[SILENCE, SILENCE, CODE]))
    assert (await case.ask())[0].state == "unknown"

    assert await case.chase(6) is not None
    assert await case.chase(10) is not None

    payment, attempt = await case.rows()
    assert (payment.state, attempt.action) == ("pending", CODE.action)
    assert len(case.channel.numbers) == 1


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (Absent("ORDER_NOT_EXIST"), "failed"),
        (Closed("CLOSED"), "failed"),
        (SILENCE, "unknown"),
        (Pending(reason="NOTPAY"), "pending"),
        ("paid", "succeeded"),
    ],
)
async def test_a_refused_repeat_says_nothing_about_the_first_call(
    stage: Stage, found: Any, state: str
) -> None:
    case = Case(stage, Scripted(pay=[SILENCE, Declined("RULE_LIMIT")], query=[]))
    case.channel.answers["query"] = [case.paid() if found == "paid" else found]
    await case.ask()

    await case.chase(6)

    assert case.channel.asked == ["pay", "pay", "query"]
    assert await case.state() == state


async def test_a_repeat_that_never_left_says_nothing_about_the_first_call(stage: Stage) -> None:
    case = Case(stage, Scripted(pay=[SILENCE, NotSent("connection refused")]))
    await case.ask()

    assert await case.chase(6) is not None

    assert await case.state() == "unknown"


async def test_a_broken_request_is_taken_up_where_it_broke(stage: Stage) -> None:
    """The merchant asks again with the same key, and has a code to show at once."""
    case = Case(stage, Scripted(pay=[RuntimeError("the process died"), CODE]))
    with pytest.raises(RuntimeError):
        await case.ask()
    assert await case.state() == "created"

    payment, attempt = await resume_payment(case.flow, (await case.rows())[0])

    assert (payment.state, attempt.action) == ("pending", CODE.action)
    assert len(case.channel.numbers) == 1


# A payment code


async def test_a_payment_code_is_never_sent_twice(stage: Stage) -> None:
    channel = Scripted(pay=[SILENCE], query=[SILENCE] * 9, close=[SILENCE] * 9)
    case = Case(stage, channel)
    await case.ask(PayMode.PAYMENT_CODE)

    for _ in range(8):
        assert await case.chase(10) is not None

    assert channel.asked.count("pay") == 1
    assert await case.state() == "unknown"


async def test_a_code_unknown_to_the_channel_may_still_be_on_its_way(stage: Stage) -> None:
    gone = Absent("ORDER_NOT_EXIST")
    case = Case(stage, Scripted(pay=[SILENCE], query=[gone] * 4, close=[gone] * 3))
    await case.ask(PayMode.PAYMENT_CODE)

    await case.chase(3)
    assert await case.state() == "unknown"
    await case.chase(30)  # reversed: there is nothing to reverse, yet
    assert await case.state() == "unknown"
    await case.chase(30)
    assert await case.state() == "closed"
    assert "close" in case.channel.asked


async def test_a_code_that_was_paid_while_it_was_to_be_reversed_is_paid(stage: Stage) -> None:
    case = Case(stage, Scripted(pay=[SILENCE], query=[]))
    case.channel.answers["query"] = [Absent("ORDER_NOT_EXIST"), case.paid()]
    await case.ask(PayMode.PAYMENT_CODE)

    await case.chase(3)
    await case.chase(30)

    assert await case.state() == "succeeded"
    assert "close" not in case.channel.asked


async def test_an_answer_older_than_the_reversal_is_looked_into(stage: Stage) -> None:
    """The call that charged the code answers "paid" after we have reversed it: the money has gone
    back already, so the answer is a reason to ask and nothing to book."""
    reversed_ = Closed("REVOKED")
    case = Case(
        stage, Scripted(pay=[SILENCE], query=[SILENCE, reversed_], close=[reversed_, reversed_])
    )
    _, attempt = await case.ask(PayMode.PAYMENT_CODE)
    await case.chase(31)
    assert await case.state() == "closed"

    await record_news(case.flow, attempt, case.paid(), Evidence("channel answer", "pay"))
    assert await case.chase(late=True) is None

    payment, _ = await case.rows()
    assert (payment.state, payment.captured) == ("closed", 0)
    assert await stage.events(case.view) == ["payment.closed"]


@pytest.mark.parametrize("first", [SILENCE, Pending(reason="NOTPAY"), Absent("ORDER_NOT_EXIST")])
async def test_a_late_success_is_asked_about_until_the_channel_is_clear(
    stage: Stage, first: Any
) -> None:
    case = Case(stage, Scripted(pay=[CODE], query=[first], close=[Closed("CLOSED"), SILENCE]))
    _, attempt = await case.ask()
    await close_payment(case.flow, (await case.rows())[0])
    success = case.paid()
    case.channel.answers["query"].append(success)

    await record_news(case.flow, attempt, success, Evidence("callback"))
    assert isinstance(await case.chase(late=True), Again)
    assert (await case.rows())[0].captured == 0
    assert await case.chase(60, late=True) is None

    assert (await case.rows())[0].captured == AMOUNT.amount
    assert await stage.events(case.view) == ["payment.closed", "payment.late_success"]


async def test_a_late_success_that_is_never_confirmed_is_shown_to_people(stage: Stage) -> None:
    case = Case(
        stage, Scripted(pay=[CODE], query=[SILENCE] * 9, close=[Closed("")] + [SILENCE] * 9)
    )
    _, attempt = await case.ask()
    await close_payment(case.flow, (await case.rows())[0])
    await record_news(case.flow, attempt, case.paid(), Evidence("callback"))

    assert isinstance(await case.chase(late=True), Again)
    assert await case.chase(4 * 86_400, late=True) is None

    assert await stage.cases(case.view) == ["undecided"]
    await stage.live_together()


# Closing


async def test_a_close_asked_for_while_nothing_is_known_is_carried_out_when_it_can(
    stage: Stage,
) -> None:
    case = Case(stage, Scripted(pay=[SILENCE], close=[SILENCE, SILENCE, Closed("CLOSED")]))
    payment, _ = await case.ask()

    payment, _ = await close_payment(case.flow, payment)
    assert payment.state == "unknown"
    assert await case.chase(5) is not None
    assert await case.chase(5) is None

    payment, _ = await case.rows()
    assert (payment.state, payment.close_reason) == ("closed", "merchant")


async def test_a_payment_whose_end_nobody_tells_is_shown_to_people(stage: Stage) -> None:
    case = Case(stage, Scripted(pay=[CODE], close=[SILENCE] * 9))
    await case.ask()

    await case.chase(1801)
    assert await stage.cases(case.view) == []
    await case.chase(3600)
    await case.chase(3600)

    assert await stage.cases(case.view) == ["undecided"], "once, however long it takes"
    assert await case.state() == "pending"
    await stage.live_together()


async def test_the_customer_who_paid_in_the_last_second_has_paid(stage: Stage) -> None:
    case = Case(stage, Scripted(pay=[CODE], close=[]))
    await case.ask()
    case.channel.answers["close"] = [case.paid()]

    assert await case.chase(1801) is None

    assert await case.state() == "succeeded"
    await stage.live_together()


# The book


async def test_one_trade_of_the_channel_pays_one_order(stage: Stage) -> None:
    first, second = (Case(stage, Scripted(pay=[CODE])) for _ in range(2))
    trade = first.paid("4200000000202611210000000001")
    _, paid = await first.ask()
    _, unpaid = await second.ask()

    await record_news(first.flow, paid, trade, Evidence("callback"))
    await record_news(second.flow, unpaid, trade, Evidence("callback"))

    assert (await first.state(), await second.state()) == ("succeeded", "pending")
    assert await stage.cases(second.view) == ["contradiction"]


async def test_money_for_a_frozen_merchant_is_booked_when_it_thaws(own_stage: Stage) -> None:
    """The ledger remembers its refusals for ever, which must not keep the money out for ever."""
    stage = own_stage
    paid = await stage.paid("wechat_pay")
    account = AccountKey("merchant_payable", "CNY", stage.shop.merchant.id)
    book = stage.shop.merchant.book(Mode.SANDBOX)
    ledger = stage.platform.ledger

    async def set_state(state: AccountState) -> None:
        await ledger.set_account_state(book, account, state, actor="people", because="a test")

    await set_state(AccountState.FROZEN)
    payment = await stage.show_qr("wechat_pay")
    await stage.customer(payment)
    for _ in range(3):
        await asyncio.to_thread(stage.sandbox.settle)
        stage.db.clock.offset += timedelta(seconds=10)
        await stage.platform.worker.run_until_idle()
    assert (await stage.read(payment))["status"] == "pending"
    with pytest.raises(Refused) as refused:
        await stage.refund(paid, 100)
    assert refused.value.code == "ledger.account_frozen"

    await set_state(AccountState.OPEN)
    await stage.advance(minutes=5)
    assert (await stage.read(payment))["status"] == "succeeded"


async def test_nothing_is_lost_while_the_book_stands_still(own_stage: Stage) -> None:
    stage = own_stage
    book = stage.shop.merchant.book(Mode.SANDBOX)
    code, paid = await stage.wallet_code(), await stage.paid("alipay")
    payment = await stage.show_qr("wechat_pay")
    await stage.platform.ledger.set_book_frozen(book, True, actor="people", because="a test")
    keys = {"wallet": new_number(), "refund": new_number()}
    order, number = new_number(), new_number()
    once = stage.client_of(stage.shop, tries_max=1)

    await stage.customer(payment)
    await stage.idle()
    for asking in (
        stage.scan_code(code, client=once, merchant_order_no=order, idempotency_key=keys["wallet"]),
        stage.refund(
            paid, 100, client=once, merchant_refund_no=number, idempotency_key=keys["refund"]
        ),
    ):
        with pytest.raises(Exception, match=r"payment\.contended"):
            await asking
    assert (await stage.read(payment))["status"] == "pending"

    await stage.platform.ledger.set_book_frozen(book, False, actor="people", because="a test")
    again = await stage.scan_code(code, merchant_order_no=order, idempotency_key=keys["wallet"])
    refund = await stage.refund(
        paid, 100, merchant_refund_no=number, idempotency_key=keys["refund"]
    )
    await stage.advance(minutes=2)
    assert again["status"] == "succeeded"
    assert (await stage.read(payment))["status"] == "succeeded"
    assert (await stage.read(refund))["status"] == "succeeded"


# The network, and a firm that may not hold money


async def test_a_channel_that_cannot_be_reached_took_nothing(own_stage: Stage) -> None:
    stage = own_stage
    paid = await stage.paid("wechat_pay")

    async def point_at(gateway: str) -> None:
        async with stage.db.begin("operator") as tx:
            await set_gateway(tx, stage.accounts["wechat_pay"], gateway)
        stage.platform.accounts.forget()

    await point_at("http://127.0.0.1:9/wechat")
    payment = await stage.show_qr("wechat_pay")
    assert (payment["status"], payment["failure"]["code"]) == ("failed", "channel.not_reached")
    refund = await stage.refund(paid, 100)
    assert refund["status"] == "requested", "nothing was sent, and that is no reason to give up"

    await point_at(f"{stage.sandbox.url}/wechat")
    await stage.advance(seconds=60)
    await stage.advance(seconds=60)
    assert (await stage.read(refund))["status"] == "succeeded"


async def test_an_aggregator_moves_payments_and_keeps_no_money(
    make_db: Any, tmp_path: Any, sandbox: Any
) -> None:
    db = await make_db(licence=Licence.AGGREGATOR)
    async with staged(db, tmp_path, sandbox, licence=Licence.AGGREGATOR) as stage:
        for channel in ("wechat_pay", "alipay"):
            paid = await stage.paid(channel, 1000)
            refund = await stage.refund(paid, 400)
            late = await stage.show_qr(channel)
            await stage.customer(late, "abandon")
            await stage.fault_of(late, "close", "late_success:60")
            await stage.close(late)
            stage.fault(channel, "refund", "not_enough")
            failing = await stage.refund(paid, 600)
            for _ in range(4):
                await stage.advance(seconds=45)

            assert (await stage.read(paid))["amount_refunded"] == 400
            assert (await stage.read(refund))["status"] == "succeeded"
            assert (await stage.read(failing))["status"] == "failed"
            told = await stage.read(late)
            assert told["amount_captured"] == told["amount_refunded"] == late["amount"]
            assert await stage.given_back(late) == [late["amount"]]
        rows = await db.fetch("select count(*) from ledger_transfer", ())
        assert rows[0][0] == 0
