"""Refunds that are stuck are sent on, and the card they go to is kept nowhere."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from tests.payments.test_interleavings import key_of
from tests.stage import Stage
from tongbao.infra import failpoints
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.kernel.ids import parse
from tongbao.payments.refunds import queries
from tongbao.payments.refunds.sending_on import send_on
from tongbao.rails.channels.contract.orders import RefundTarget
from tongbao.surfaces.demo.stage import Shop, account_orders, open_accounts, open_shop
from tongbao_sdk import Refused

NUMBER, HOLDER = "6222021234567890123", "欧阳某某"
CARD = {
    "target": "customer_card",
    "bank": "ICBC_DEBIT",
    "account_number": NUMBER,
    "holder": HOLDER,
}


async def stuck(stage: Stage) -> Any:
    """A refund that WeChat Pay could not give to the customer."""
    paid = await stage.paid("wechat_pay", 1000)
    stage.fault("wechat_pay", "refund", "abnormal")
    refund = await stage.refund(paid, 400)
    await stage.advance(seconds=10)
    assert (await stage.read(refund))["status"] in {"pending", "unknown"}
    return refund


async def sent(stage: Stage, refund: Any, **more: Any) -> Any:
    return await stage.call(stage.client.refunds.send_on, refund["id"], **{**CARD, **more})


async def row_of(stage: Stage, refund: Any) -> Any:
    row = await queries.refund_of_merchant(
        stage.db, parse("ref", refund["id"]), stage.shop.merchant.id, refund["mode"]
    )
    [kept] = await stage.db.fetch(
        "select sealed, state, code, tries from refund_redirection where refund_id = $1",
        (row.id,),
    )
    return kept


async def everything_kept(stage: Stage) -> str:
    """Every row of the tables that a refund's way goes through, as text."""
    found = []
    for table in ("refund", "refund_redirection", "exchange", "event", "task", "inbound_callback"):
        found += await stage.db.fetch(f"select t::text as row from {table} t", ())
    return " ".join(each["row"] for each in found)


async def test_a_stuck_refund_goes_to_a_card(stage: Stage, caplog: Any, capsys: Any) -> None:
    refund = await stuck(stage)

    told = await sent(stage, refund)
    assert (told["status"], told["target"]) == ("accepted", "customer_card")
    assert (await row_of(stage, refund))["sealed"] is None
    await stage.advance(seconds=30)

    assert (await stage.read(refund))["status"] == "succeeded"
    assert await stage.call(stage.client.refunds.sent_on, refund["id"]) == told
    written = await everything_kept(stage) + caplog.text + "".join(capsys.readouterr()) + str(told)
    assert NUMBER not in written
    assert HOLDER not in written
    assert (await sent(stage, refund)) == told, "the same once more is what it was"


async def test_no_refund_goes_to_an_account_that_is_not_the_merchants(stage: Stage) -> None:
    """At the platform's own merchant number it would come to us; a card may be tried after that."""
    refund = await stuck(stage)

    send = stage.client.refunds.send_on
    told = await stage.call(send, refund["id"], target="merchant_account")
    await stage.advance(seconds=30)

    assert (told["status"], told["code"]) == ("refused", "not_the_merchants_account")
    assert (await stage.read(refund))["status"] in {"pending", "unknown"}
    assert (await sent(stage, refund))["status"] == "accepted"
    await stage.advance(seconds=30)
    assert (await stage.read(refund))["status"] == "succeeded"


async def below_a_provider(stage: Stage) -> Shop:
    """A shop whose account at WeChat Pay is its own, below a service provider."""
    keys = stage.sandbox.credentials["wechat"]
    [order, *_] = account_orders(stage.sandbox.url, stage.sandbox.credentials)
    partner = {"sp_mchid": keys["mchid"], "sp_appid": keys["appid"]}
    over = {"merchant_number": keys["sub_mchid"], "keys": {**order.keys, "partner": partner}}
    platform = stage.platform
    opened = await open_accounts(
        stage.db, platform.keyring, platform.secret_types, [replace(order, **over)]
    )
    accounts, licence = {**stage.accounts, **opened}, platform.settings.licence
    return await open_shop(stage.db, platform.keyring, licence, accounts, name="Harbour")


async def test_a_refund_whose_card_is_gone_goes_to_the_merchant_who_owes_it(stage: Stage) -> None:
    """The customer's card was closed: the money comes to the merchant's card, and is booked once.

    In the book it is the refund that was asked for: the merchant has it, and the customer is owed.
    """
    shop = await below_a_provider(stage)
    client = stage.client_of(shop)
    paid = await stage.paid("wechat_pay", 1000, client=client)
    stage.fault("wechat_pay", "refund", "abnormal")
    refund = await stage.refund(paid, 400, client=client)
    await stage.advance(seconds=10)
    assert (await stage.read(refund, client=client))["status"] in {"pending", "unknown"}
    assert await stage.given_back(paid) == []
    stage.fault("wechat_pay", "callback", "doubled", number=refund["id"].removeprefix("ref_"))

    told = await stage.call(client.refunds.send_on, refund["id"], target="merchant_account")
    again = await stage.call(client.refunds.send_on, refund["id"], target="merchant_account")
    await stage.advance(seconds=30)

    assert (told["status"], told["target"]) == ("accepted", "merchant_account")
    assert again == told
    done = await stage.read(refund, client=client)
    assert (done["status"], done["amount"]) == ("succeeded", 400)
    assert await stage.given_back(paid) == [400]
    assert (await stage.events(refund)).count("refund.succeeded") == 1
    assert [leg for leg, _ in await stage.postings(refund) if leg.endswith("/gross")] == [
        "refund.held/gross",
        "refund.succeeded/gross",
    ]
    seen = await stage.call(stage.sandbox.get, "requests", last=500)
    asked = [each for each in seen if "apply-abnormal-refund" in each["target"]]
    assert "MERCHANT_BANK_CARD" in str(asked[-1])
    with pytest.raises(Refused) as refused:
        await stage.call(client.refunds.send_on, refund["id"], **CARD)
    assert refused.value.code == "refund.not_stuck"


async def test_a_silent_channel_is_told_again_and_the_card_lies_sealed(stage: Stage) -> None:
    refund = await stuck(stage)
    number = str(refund["id"]).removeprefix("ref_")
    stage.fault("wechat_pay", "refund_query", "http_500", number=number, times=2)

    told = await sent(stage, refund)
    assert told["status"] == "requested"
    kept = await row_of(stage, refund)
    assert kept["sealed"] is not None
    assert NUMBER.encode() not in kept["sealed"]
    with pytest.raises(Refused) as refused:
        await sent(stage, refund, account_number="6222020000000000000")
    assert refused.value.code == "refund.not_stuck"
    for _ in range(5):  # the next try may be some minutes away, by chance
        await stage.advance(minutes=2)
        after = await row_of(stage, refund)
        if after["state"] != "requested":
            break

    assert (after["state"], after["sealed"]) == ("accepted", None)
    await stage.advance(minutes=5)
    assert (await stage.read(refund))["status"] == "succeeded"


async def test_a_refund_that_is_not_stuck_is_told_as_it_stands(stage: Stage) -> None:
    paid = await stage.paid("wechat_pay", 1000)
    stage.fault("wechat_pay", "refund", "processing")
    refund = await stage.refund(paid, 400)

    told = await sent(stage, refund)

    assert told["status"] == "accepted", "it is on its way: there is nothing to send on"
    assert (await row_of(stage, refund))["sealed"] is None


@pytest.mark.parametrize(
    ("terms", "code"),
    [
        ({"holder": ""}, "request.invalid_value"),
        ({"target": "merchant_account"}, "request.invalid_value"),
        ({"account_number": "12 34"}, "request.invalid_value"),
        ({"target": "elsewhere"}, "request.invalid_value"),
    ],
)
async def test_half_a_card_is_refused(stage: Stage, terms: Any, code: str) -> None:
    refund = await stuck(stage)

    with pytest.raises(Refused) as refused:
        await sent(stage, refund, **terms)

    assert refused.value.code == code
    assert NUMBER not in str(refused.value)


async def test_what_cannot_be_sent_on_says_so(stage: Stage) -> None:
    at_alipay = await stage.refund(await stage.paid("alipay", 1000), 400)
    done = await stage.refund(await stage.paid("wechat_pay", 1000), 400)
    await stage.advance(seconds=10)
    stranger = stage.client_of(await stage.open_shop())
    tried = [
        (stage.client, at_alipay, "refund.sending_on_not_offered"),
        (stage.client, done, "refund.not_stuck"),
        (stranger, done, "refund.not_found"),
    ]
    for client, refund, code in tried:
        with pytest.raises(Refused) as refused:
            await stage.call(client.refunds.send_on, refund["id"], **CARD)
        assert refused.value.code == code
    with pytest.raises(Refused) as refused:
        await stage.call(stage.client.refunds.sent_on, done["id"])
    assert refused.value.code == "refund.redirection_not_found"


@pytest.mark.parametrize(
    "place",
    [
        "refunds.before_redirection",
        "refunds.after_redirection",
        "refunds.after_redirection_call",
        "refunds.before_redirection_end",
    ],
)
async def test_a_death_while_it_is_sent_on_sends_it_once(stage: Stage, place: str) -> None:
    refund = await stuck(stage)
    row = await queries.refund_of_merchant(
        stage.db, parse("ref", refund["id"]), stage.shop.merchant.id, refund["mode"]
    )
    to, keyring = (
        RefundTarget("customer_card", "ICBC_DEBIT", NUMBER, HOLDER),
        stage.platform.keyring,
    )

    failpoints.arm(f"{place}:raise")
    with pytest.raises(SimulatedCrash):
        await send_on(stage.flow, keyring, row, to, key_of(stage).write)
    failpoints.arm(None)
    await stage.advance(seconds=10)
    again = await queries.refund(stage.db, row.book, row.id)
    await send_on(stage.flow, keyring, again, to, key_of(stage).write)
    await stage.advance(minutes=2)

    after = await row_of(stage, refund)
    assert (after["state"], after["sealed"]) == ("accepted", None)
    assert (await stage.read(refund))["status"] == "succeeded"
