"""Bad requests about payments and refunds: each has a code of its own, and nothing changes.

What is wrong with a request as such (its JSON, its signature, its address) is tried beside the
surfaces; here are the refusals that know what a payment is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.payments.letters import Postman
from tests.stage import Stage, new_number
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.money import AMOUNT_MAX, Money
from tongbao.ledger.model import AccountKey, Group
from tongbao.ledger.queries import balance_of
from tongbao.ledger.rules import posting
from tongbao.parties.merchants.merchants import set_suspended
from tongbao.rails.channels.accounts import AccountState, set_state
from tongbao_sdk import Refused
from tongbao_sdk.replies import Payment

TABLES = ("payment", "attempt", "refund", "exchange", "event", "task", "ledger_transfer")
Asking = Callable[[Stage], Awaitable[Any]]


async def counts(stage: Stage) -> dict[str, int]:
    """How much there is of everything a payment leaves behind."""
    return {
        table: (await stage.db.fetch(f"select count(*) from {table}", ()))[0][0] for table in TABLES
    }


async def letters(stage: Stage) -> int:
    """How many callbacks have come in."""
    return (await stage.db.fetch("select count(*) from inbound_callback", ()))[0][0]


async def refused(stage: Stage, asking: Awaitable[Any]) -> Refused:
    """Return how the request is refused, and see that it changed nothing."""
    received = await letters(stage)
    await stage.idle()
    before = await counts(stage)
    with pytest.raises(Refused) as refusal:
        await asking
    await stage.idle()
    after = await counts(stage)
    # A callback about an earlier test's payment may come at any time, and changes what it must.
    if await letters(stage) == received:
        assert after == before
    assert refusal.value.advice
    assert refusal.value.request_id
    return refusal.value


def ask(**changes: Any) -> Asking:
    """A request to collect that is right but for the changes."""

    async def asking(stage: Stage) -> Payment:
        request = {
            "merchant_order_no": new_number(),
            "amount": 1999,
            "subject": "tea",
            "method": {"mode": "qr", "channel": "wechat_pay"},
            **changes,
        }
        return await stage.call(stage.client.payments.create, **request)

    return asking


def by_code(digits: str, **more: Any) -> Asking:
    return ask(method={"mode": "payment_code", "auth_code": digits, **more})


@pytest.mark.parametrize(
    ("asking", "code"),
    [
        (ask(amount=0), "money.amount_out_of_range"),
        (ask(amount=-1), "money.amount_out_of_range"),
        (ask(amount=AMOUNT_MAX + 1), "money.amount_out_of_range"),
        (ask(amount=1 << 80), "money.amount_out_of_range"),
        (ask(currency="XXX"), "money.unknown_currency"),
        (ask(currency="USD"), "price.not_agreed"),
        (ask(method={"mode": "qr", "channel": "unionpay"}), "price.not_agreed"),
        (
            ask(method={"mode": "in_app", "channel": "wallet", "payer_id": "p"}),
            "payment.wallet_needs_code",
        ),
        (ask(method={"mode": "h5"}), "payment.method_field_missing"),
        (ask(method={"mode": "payment_code"}), "payment.method_field_missing"),
        (
            ask(method={"mode": "qr", "channel": "alipay", "auth_code": "28" + "0" * 16}),
            "payment.method_field_foreign",
        ),
        (by_code("99" + "0" * 16), "payment_code.unknown"),
        (by_code("62" + "0" * 17), "price.not_agreed"),
        (by_code("28" + "0" * 16, channel="wechat_pay"), "request.invalid_value"),
        (by_code("88" + "0" * 16), "wallet.code_used_or_expired"),
        (by_code("28" + "0" * 16 + "\n"), "request.invalid_value"),
        (by_code("２８" + "0" * 16), "request.invalid_value"),
        (ask(merchant_order_no="A-1\n"), "request.invalid_value"),
        (ask(merchant_order_no="A/1"), "request.invalid_value"),
        (ask(expires_in_s=59), "request.invalid_value"),
        (ask(expires_in_s=7201), "request.invalid_value"),
        (ask(metadata={str(number): "x" for number in range(51)}), "request.invalid_value"),
        (ask(metadata={"k": 1}), "request.wrong_type"),
    ],
)
async def test_what_cannot_be_collected_is_refused_by_name(
    stage: Stage, asking: Asking, code: str
) -> None:
    assert (await refused(stage, asking(stage))).code == code


async def test_what_cannot_be_given_back_is_refused_by_name(stage: Stage) -> None:
    paid = await stage.paid("wechat_pay", 1000)
    unpaid = await stage.show_qr("alipay")
    used = new_number()
    await stage.refund(paid, 100, merchant_refund_no=used)
    await stage.advance(seconds=30)

    for asking, code in (
        (stage.refund(paid, 0), "money.amount_out_of_range"),
        (stage.refund(paid, 901), "refund.exceeds_captured"),
        (stage.refund(paid, 1 << 70), "money.amount_out_of_range"),
        (stage.refund(paid, 100, currency="USD"), "refund.currency_differs"),
        (stage.refund(paid, 200, merchant_refund_no=used), "refund.number_used"),
        (stage.refund(paid, 100, merchant_refund_no="late:x"), "request.invalid_value"),
        (stage.refund(unpaid, 100), "refund.payment_not_captured"),
        (stage.refund({"id": show("pay", new_id())}, 100), "payment.not_found"),  # type: ignore[typeddict-item]
        (stage.refund({"id": "ref_x"}, 100), "id.unknown"),  # type: ignore[typeddict-item]
    ):
        assert (await refused(stage, asking)).code == code


async def test_a_refund_of_money_that_was_settled_already_is_refused(stage: Stage) -> None:
    shop = await stage.open_shop()
    client = stage.client_of(shop)
    paid = await stage.paid("wechat_pay", 10_000, client=client)
    payable = AccountKey("merchant_payable", "CNY", shop.merchant.id)
    book = (await stage.row_of(paid)).book
    balance = await balance_of(stage.db, book, payable)
    settled = posting.transfers(
        "settlement.closed",
        reference=new_id(),
        accounts={
            "merchant_payable": payable,
            "settlement_due": AccountKey("settlement_due", "CNY", shop.merchant.id),
        },
        amounts={
            "net": Money(balance.available, "CNY"),
            "reserve": Money(0, "CNY"),
            "quick_fee": Money(0, "CNY"),
        },
    )
    [result] = await stage.platform.ledger.submit([Group(new_id(), book, settled)])
    assert result.happened

    refusal = await refused(stage, stage.refund(paid, 5_000, client=client))

    assert refusal.code == "refund.balance_too_low"


async def test_another_merchants_payments_do_not_exist(stage: Stage) -> None:
    paid = await stage.paid("wechat_pay")
    refund = await stage.refund(paid, 100)
    await stage.advance(seconds=30)
    stranger = stage.client_of(await stage.open_shop())

    for asking in (
        stage.call(stranger.payments.get, paid["id"]),
        stage.call(stranger.payments.close, paid["id"]),
        stage.refund(paid, 100, client=stranger),
    ):
        assert (await refused(stage, asking)).code == "payment.not_found"
    reading = stage.call(stranger.refunds.get, refund["id"])
    assert (await refused(stage, reading)).code == "refund.not_found"
    assert await stage.call(lambda: list(stranger.payments.list())) == []


async def test_what_has_ended_cannot_be_closed_and_the_answer_stays(stage: Stage) -> None:
    paid = await stage.paid("wechat_pay")
    declined = await stage.scan_code(await stage.code("alipay", "decline"))

    for payment in (paid, declined):
        key = new_number()
        for _ in range(2):
            refusal = await refused(stage, stage.close(payment, idempotency_key=key))
            assert (refusal.status, refusal.code) == (409, "payment.not_closable")


async def test_a_key_stays_with_its_first_request(stage: Stage) -> None:
    key, paid = new_number(), await stage.paid("wechat_pay")
    await stage.refund(paid, 100, idempotency_key=key)
    await stage.advance(seconds=30)

    again = stage.refund(paid, 200, idempotency_key=key)

    assert (await refused(stage, again)).code == "idempotency.reused"


async def test_a_suspended_merchant_collects_nothing_and_may_still_give_back(stage: Stage) -> None:
    shop = await stage.open_shop()
    client = stage.client_of(shop)
    payment = await stage.show_qr("wechat_pay", client=client)
    await stage.customer(payment)
    await stage.idle()
    async with stage.db.begin("operator") as tx:
        await set_suspended(tx, shop.merchant.id, suspended=True, because="a test")

    refusal = await refused(stage, stage.show_qr("wechat_pay", client=client))

    assert refusal.code == "merchant.suspended"
    assert (await stage.refund(payment, 100, client=client))["status"] != "failed"


async def test_a_closed_channel_account_takes_no_new_payments_and_ends_the_old(
    stage: Stage,
) -> None:
    payment = await stage.show_qr("alipay")

    async def set_to(state: AccountState) -> None:
        async with stage.db.begin("operator") as tx:
            await set_state(tx, stage.accounts["alipay"], state)
        stage.platform.accounts.forget()

    await set_to(AccountState.CLOSED)
    try:
        refusal = await refused(stage, stage.show_qr("alipay"))
        assert refusal.code == "merchant.channel_not_opened"
        await stage.customer(payment)
        await stage.idle()
        assert (await stage.read(payment))["status"] == "succeeded"
    finally:
        await set_to(AccountState.OPEN)


@pytest.mark.parametrize("channel", ["wechat_pay", "alipay"])
async def test_a_forged_callback_is_kept_and_changes_nothing(
    stage: Stage, postman: Postman, channel: str
) -> None:
    payment = await stage.show_qr(channel)
    number = (await stage.attempt_of(payment)).number
    await stage.idle()
    before = await counts(stage)

    reply = await postman.tell(channel, number, Money(payment["amount"], "CNY"), variant="forged")

    assert reply.status_code == 500, "so that a true one would come again"
    await stage.idle()
    assert await counts(stage) == before
    [kept] = await stage.db.fetch(
        "select state, callback from inbound_callback order by id desc limit 1", ()
    )
    assert (kept["state"], kept["callback"]) == ("forged", None)
