"""A token pays by card, from the vault to the issuer, and the number is nowhere else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from tests.payments.test_cards import BALANCE, comes_to, fresh_card, on_card
from tests.stage import Stage, new_number
from tongbao.infra.crypto import sealing_key_of
from tongbao.infra.kms.model import Owner
from tongbao.infra.kms.sealing_keys import destroy
from tongbao.kernel.card_numbers import check_digit
from tongbao.kernel.ids import parse
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.parties.merchants.merchants import connect_channel
from tongbao.parties.price_plans.model import PriceLine
from tongbao.parties.price_plans.plans import set_price_plan
from tongbao.parties.vault.cards import card_of
from tongbao.parties.vault.use_keys import cryptogram
from tongbao.payments.methods.tokens import detokenising
from tongbao.rails.channels.accounts import NewAccount
from tongbao.rails.channels.cards.client import Cards
from tongbao.rails.channels.cards.line import LineLimits
from tongbao.surfaces.demo.stage import open_accounts
from tongbao.wiring import SECRETS
from tongbao_sdk import Refused
from tongbao_sdk.replies import Payment

AMOUNT = 1999


@pytest.fixture(scope="module", autouse=True)
async def card_host(module_stage: Stage) -> AsyncIterator[None]:
    """An account at the sandbox's card host, and a channel that does not wait long for it."""
    stage = module_stage
    given = stage.sandbox.credentials["cards"]
    order = NewAccount(
        channel="cards",
        mode=Mode.SANDBOX,
        gateway=stage.sandbox.hosts["cards"],
        merchant_number=given["merchant_number"],
        app_id=given["terminal"],
        fee_ppm=4_000,
        keys={name: given[name] for name in ("master_key", "institution", "switch")},
    )
    keyring, merchant = stage.platform.keyring, stage.shop.merchant
    account = (await open_accounts(stage.db, keyring, SECRETS, [order]))["cards"]
    async with stage.db.begin("operator") as tx:
        await set_price_plan(tx, merchant.id, Mode.SANDBOX, [PriceLine("cards", "card", 6_000)])
        await connect_channel(tx, merchant.id, Mode.SANDBOX, "cards", account)
    channels: Any = stage.flow.channels
    tokens = detokenising(stage.db, stage.platform.keys.sealing_keys)
    kept, channels["cards"] = channels["cards"], Cards(LineLimits(answer_s=1.5), tokens)
    yield
    await channels["cards"].shut()
    channels["cards"] = kept


def good_card() -> str:
    """A card of the sandbox's issuer with a right check digit."""
    digits = fresh_card()[:-1]
    return digits + check_digit(digits)


async def token_for(stage: Stage, number: str, **terms: Any) -> Any:
    card = await stage.call(stage.client.vault_cards.save, number, "4912")
    until = (stage.db.clock.now() + timedelta(days=30)).isoformat()
    asked = await stage.call(
        stage.client.vault_cards.ask_for_token, card["id"], expires_at=until, **terms
    )
    return await stage.call(stage.client.card_tokens.activate, asked["id"], assurance_method="13")


async def pay(
    stage: Stage, token: Any, amount: int = AMOUNT, *, proof: Any = None, **more: Any
) -> Payment:
    method = {
        "mode": "card",
        "channel": "cards",
        "card_token": {"number": token["number"], **(proof or {})},
    }
    terms = {"merchant_order_no": new_number(), "subject": "tea", **more}
    return await stage.call(stage.client.payments.create, amount=amount, method=method, **terms)


async def test_a_token_pays_by_card_and_is_given_back_to(stage: Stage) -> None:
    number = good_card()
    token = await token_for(stage, number)
    payment = await pay(stage, token)
    assert (payment["status"], payment["amount_captured"]) == ("succeeded", AMOUNT)
    assert await on_card(stage, number) == (BALANCE - AMOUNT, 0)
    used = await stage.call(stage.client.card_tokens.get, token["id"])
    assert (used["uses"], used["amount_used"]) == (1, AMOUNT)

    refund = await stage.refund(payment, 500)
    await stage.idle()
    assert (await stage.read(refund))["status"] == "succeeded"
    assert await on_card(stage, number) == (BALANCE - AMOUNT + 500, 0)

    tables = await stage.db.fetch(
        "select table_schema || '.' || table_name as name from information_schema.tables"
        " where table_type = 'BASE TABLE'"
        " and table_schema not in ('pg_catalog', 'information_schema')",
        (),
    )
    for table in tables:
        [found] = await stage.db.fetch(
            f"select count(*) as found from {table['name']} t where t::text like $1",
            (f"%{number}%",),
        )
        assert found["found"] == 0, table["name"]


async def test_money_is_set_aside_by_a_token_and_captured_later(stage: Stage) -> None:
    number = good_card()
    payment = await pay(stage, await token_for(stage, number), capture="manual")
    assert payment["status"] == "authorised"
    assert await on_card(stage, number) == (BALANCE, AMOUNT)
    await stage.call(stage.client.payments.capture, payment["id"], amount=1500)
    await stage.idle()
    assert await on_card(stage, number) == (BALANCE - 1500, 0)


async def test_outside_its_domain_a_token_is_declined_and_nothing_is_sent(stage: Stage) -> None:
    number = good_card()
    token = await token_for(stage, number, controls={"amount_each_max": 1000})
    payment = await pay(stage, token, 1001)
    assert (payment["status"], payment["failure"]["code"]) == ("failed", "token_amount")
    await stage.call(stage.client.card_tokens.suspend, token["id"])
    payment = await pay(stage, token, 500)
    assert payment["failure"]["code"] == "token_not_active"
    stranger = await stage.open_shop()
    other = stage.client_of(stranger)
    card = await stage.call(other.vault_cards.save, number, "4912")
    assert card["payment_account_reference"] == token["payment_account_reference"]
    with pytest.raises(Refused) as refused:
        await stage.call(other.card_tokens.resume, token["id"])
    assert refused.value.code == "card_token.not_found"
    assert await on_card(stage, number) == (BALANCE, 0)


async def test_a_device_pays_with_a_cryptogram_that_is_worth_nothing_twice(stage: Stage) -> None:
    number = good_card()
    token = await token_for(stage, number, kind="device")
    key = await stage.call(stage.client.card_tokens.give_key, token["id"], uses_max=2)
    secret = bytes.fromhex(key["secret"])

    def proof(counter: int, amount: int = AMOUNT) -> dict[str, Any]:
        made = cryptogram(secret, token["number"], counter, Money(amount, "CNY"))
        return {"key_number": key["number"], "counter": counter, "cryptogram": made}

    assert (await pay(stage, token))["failure"]["code"] == "token_needs_cryptogram"
    assert (await pay(stage, token, proof=proof(1)))["status"] == "succeeded"
    assert (await pay(stage, token, proof=proof(1)))["failure"]["code"] == "token_replayed"
    wrong = await pay(stage, token, proof=proof(2, amount=1))
    assert wrong["failure"]["code"] == "token_cryptogram"
    assert await on_card(stage, number) == (BALANCE - AMOUNT, 0)


async def test_a_silent_host_is_undone_though_nothing_of_the_card_is_kept(stage: Stage) -> None:
    number = good_card()
    token = await token_for(stage, number)
    stage.sandbox.fault("cards", "pay", "time_out_paid")
    payment = await pay(stage, token)
    assert payment["status"] not in {"succeeded", "failed", "closed"}
    await stage.advance(seconds=120)
    assert await comes_to(stage, number, (BALANCE, 0))
    assert (await stage.read(payment))["status"] in {"failed", "closed"}


async def test_a_destroyed_key_ends_the_token_and_not_the_platform(stage: Stage) -> None:
    token = await token_for(stage, good_card())
    owner = Owner(stage.shop.merchant.id, Mode.SANDBOX)
    card = await card_of(stage.db, owner, parse("crd", token["card_id"]))
    async with stage.db.begin("two people") as tx:
        await destroy(tx, sealing_key_of(card.sealed), because="the merchant left")
    assert (await pay(stage, token))["failure"]["code"] == "token_card_gone"
    fresh = await token_for(stage, good_card())
    assert (await pay(stage, fresh))["status"] == "succeeded"


async def test_a_payment_takes_a_card_or_a_token_and_not_both(stage: Stage) -> None:
    token = {"number": "9900010000000004"}
    for method, code in (
        ({"mode": "card"}, "payment.method_field_missing"),
        ({"mode": "qr", "card_token": token}, "payment.method_field_foreign"),
    ):
        terms = {"merchant_order_no": new_number(), "subject": "tea", "amount": 1}
        with pytest.raises(Refused) as refused:
            await stage.call(stage.client.payments.create, method=method, **terms)
        assert refused.value.code == code
    unknown = await pay(stage, token)
    assert unknown["failure"]["code"] == "token_unknown"


async def test_card_data_in_another_field_is_refused_and_none_of_it_is_logged(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    number = good_card()
    with pytest.raises(Refused) as refused:
        await stage.show_qr("wechat_pay", subject=f"card {number}")
    assert (refused.value.code, refused.value.param) == ("card_number.unexpected", "$.subject")
    with pytest.raises(Refused) as code:
        await stage.show_qr("wechat_pay", metadata={"cvv2": "123"})
    assert code.value.code == "card_number.security_code"
    assert number not in str(refused.value) + caplog.text
