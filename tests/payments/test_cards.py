"""Cards from the API to the issuer and back: what was not answered is undone, and stays undone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import msgspec
import pytest

from tests.stage import Stage, new_number
from tongbao.infra import failpoints
from tongbao.infra.db import Db
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Mode
from tongbao.parties.card_bins.bins import load_bins
from tongbao.parties.merchants.merchants import connect_channel
from tongbao.parties.price_plans.model import CardKind, PriceLine
from tongbao.parties.price_plans.plans import set_price_plan
from tongbao.payments.fees.verifying import verify_fees
from tongbao.rails.channels.accounts import NewAccount
from tongbao.rails.channels.cards.client import Cards
from tongbao.rails.channels.cards.line import LineLimits
from tongbao.rails.channels.cards.messages import trace_of
from tongbao.surfaces.demo.stage import open_accounts
from tongbao.wiring import SECRETS
from tongbao_sdk import Refused, Tongbao
from tongbao_sdk.models import Card
from tongbao_sdk.replies import Payment

BALANCE = 1_000_000
AMOUNT = 1999
USED: list[str] = []
"""Every card number a test used: none of them may be found anywhere."""
PRICES = (
    PriceLine("cards", "card", 6_000),
    PriceLine("cards", "card", 10_000, card=CardKind.CREDIT),
)
"""The tables know no card of the sandbox's, which pays the line for any, until one is loaded."""


@pytest.fixture(scope="module", autouse=True)
async def card_host(module_stage: Stage) -> AsyncIterator[None]:
    """An account at the sandbox's card host, its price, and a channel that does not wait long."""
    await open_card_account(module_stage)
    channels: Any = module_stage.flow.channels
    kept, channels["cards"] = channels["cards"], Cards(LineLimits(answer_s=1.5))
    yield
    await channels["cards"].shut()
    channels["cards"] = kept


async def open_card_account(stage: Stage) -> None:
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
        await set_price_plan(tx, merchant.id, Mode.SANDBOX, list(PRICES))
        await connect_channel(tx, merchant.id, Mode.SANDBOX, "cards", account)


def fresh_card() -> str:
    number = f"625188{new_id().int % 10**7:07d}177"
    USED.append(number)
    return number


def reading(stage: Stage, number: str, terminal: str = "10000001") -> Card:
    return {
        "number": number,
        "expiry": "4912",
        "entry": "051",
        "terminal": terminal,
        "merchant": stage.sandbox.credentials["cards"]["merchant_number"],
        "track2": f"{number}=49121201234500000000",
    }


async def swipe(
    stage: Stage,
    number: str,
    amount: int = AMOUNT,
    *,
    client: Tongbao | None = None,
    terminal: str = "10000001",
    **more: Any,
) -> Payment:
    method = {
        "mode": "card",
        "channel": "cards",
        "card": reading(stage, number, terminal),
    }
    terms = {"merchant_order_no": new_number(), "subject": "tea", **more}
    create = (client or stage.client).payments.create
    return await stage.call(create, amount=amount, method=method, **terms)


async def on_card(stage: Stage, number: str) -> tuple[int, int]:
    shown = await stage.control("cards/card", number=number)
    return shown["balance"], shown["held"]


async def comes_to(stage: Stage, number: str, money: tuple[int, int]) -> bool:
    """Whether the host comes to this; who gave up on it was perhaps quicker than it was."""
    for _ in range(200):
        if await on_card(stage, number) == money:
            return True
        await asyncio.sleep(0.05)
    return False


async def script(stage: Stage, fault: str) -> None:
    """The next purchase meets this."""
    stage.sandbox.fault("cards", "pay", fault)


async def test_a_card_pays_and_is_given_back_to(stage: Stage) -> None:
    number = fresh_card()
    payment = await swipe(stage, number)
    assert (payment["status"], payment["amount_captured"]) == ("succeeded", AMOUNT)
    assert await on_card(stage, number) == (BALANCE - AMOUNT, 0)

    refund = await stage.refund(payment, 500)
    await stage.idle()
    assert (await stage.read(refund))["status"] == "succeeded"
    assert await on_card(stage, number) == (BALANCE - AMOUNT + 500, 0)


async def test_the_first_digits_of_a_card_say_which_price_it_has(stage: Stage) -> None:
    plain = await swipe(stage, fresh_card(), 10_000)
    number = fresh_card()
    table = f"bin,bank,type,length\n{number[:10]},SANDBOX,CC,16\n".encode()
    async with stage.db.begin("operator") as tx:
        await load_bins(tx, table, "the sandbox")

    credit = await swipe(stage, number, 10_000)

    assert (plain["fee"], credit["fee"]) == (60, 100)
    today = business_date(stage.db.clock.now())
    report = await verify_fees(stage.db, today, today, merchant_id=stage.shop.merchant.id)
    assert (report.checked > 1, report.differences) == (True, 0)


async def test_a_card_tells_what_it_has_and_nothing_of_it_is_kept(stage: Stage) -> None:
    number = fresh_card()
    ask = partial(stage.call, stage.client.payments.card_balances)

    told = await ask(reading(stage, number))
    with pytest.raises(Refused) as declined:
        await ask(reading(stage, "6251880000990051"))
    stage.sandbox.fault("cards", "query", "bad_signature")
    again = await ask(reading(stage, number))

    assert {(each["kind"], each["amount"], each["currency"]) for each in told["balances"]} == {
        ("ledger", BALANCE, "CNY"),
        ("available", BALANCE, "CNY"),
    }
    assert declined.value.code == "card_balance.declined"
    assert declined.value.facts["reason"] == "51"
    assert again == told, "an answer that cannot be trusted is none, and the client asks again"


async def test_a_refused_card_is_a_failed_payment_with_its_code(stage: Stage) -> None:
    payment = await swipe(stage, "6251880000990051")
    assert payment["status"] == "failed"
    assert await stage.cases(payment) == []


@pytest.mark.parametrize(
    "fault",
    [
        "time_out_paid",
        "time_out_unpaid",
        "bad_signature_paid",
        "wrong_amount_paid",
        "reset_mid_frame_paid",
        "reset",
        "slow:3",
    ],
)
async def test_what_was_not_answered_is_reversed_by_the_chase(fault: str, stage: Stage) -> None:
    number = fresh_card()
    await script(stage, fault)
    payment = await swipe(stage, number)
    assert payment["status"] not in {"succeeded", "failed", "closed"}, "silence is no failure"

    await stage.advance(seconds=120)
    ended = await stage.read(payment)
    assert ended["status"] in {"closed", "failed"}
    assert await on_card(stage, number) == (BALANCE, 0)
    assert await stage.postings(payment) == []


async def test_a_reversal_is_repeated_until_it_is_answered(stage: Stage) -> None:
    number = fresh_card()
    await script(stage, "time_out_paid")
    payment = await swipe(stage, number)
    reference = trace_of((await stage.attempt_of(payment)).number).reference
    stage.sandbox.fault("cards", "close", "time_out_not_done", number=reference, times=2)
    stage.sandbox.fault("cards", "close", "time_out_done", number=reference)

    await stage.advance(seconds=35)
    assert (await stage.read(payment))["status"] not in {"closed", "failed"}
    assert await comes_to(stage, number, (BALANCE - AMOUNT, 0))
    for _ in range(3):  # one more without effect, one whose answer is lost, one that is answered
        await stage.advance(hours=1)
    assert (await stage.read(payment))["status"] in {"closed", "failed"}
    assert await on_card(stage, number) == (BALANCE, 0), "given back once"


async def test_money_set_aside_on_a_card_is_captured_and_given_back(stage: Stage) -> None:
    number = fresh_card()
    payment = await swipe(stage, number, capture="manual", capture_within_s=7200)
    assert payment["status"] == "authorised"
    assert await on_card(stage, number) == (BALANCE, AMOUNT)

    captured = await stage.call(stage.client.payments.capture, payment["id"], amount=1500)
    assert (captured["status"], captured["amount_captured"]) == ("succeeded", 1500)
    assert await on_card(stage, number) == (BALANCE - 1500, 0)

    refunds = [await stage.refund(captured, amount) for amount in (600, 900)]
    await stage.idle()
    assert [(await stage.read(each))["status"] for each in refunds] == ["succeeded"] * 2
    assert await on_card(stage, number) == (BALANCE, 0)


async def test_money_set_aside_on_a_card_is_let_go(stage: Stage) -> None:
    number = fresh_card()
    payment = await swipe(stage, number, capture="manual", capture_within_s=7200)
    await stage.call(stage.client.payments.void, payment["id"])
    await stage.idle()
    assert await on_card(stage, number) == (BALANCE, 0)


async def test_all_that_follows_comes_from_the_terminal_that_read_the_card(stage: Stage) -> None:
    """Which need not be the account's own: from another, a host knows nothing of it."""
    aside = {"capture": "manual", "capture_within_s": 7200, "terminal": "20000002"}
    paid, captured, let_go, silent = cards = [fresh_card() for _ in range(4)]

    payment = await swipe(stage, paid, terminal="20000002")
    part = await swipe(stage, captured, **aside)
    part = await stage.call(stage.client.payments.capture, part["id"], amount=1500)
    held = await swipe(stage, let_go, **aside)
    await stage.call(stage.client.payments.void, held["id"])
    for each in (payment, part):
        await stage.refund(each, 500)
    await script(stage, "time_out_paid")
    unanswered = await swipe(stage, silent, terminal="20000002")
    await stage.advance(seconds=120)

    assert [await on_card(stage, each) for each in cards] == [
        (BALANCE - AMOUNT + 500, 0),
        (BALANCE - 1500 + 500, 0),
        (BALANCE, 0),
        (BALANCE, 0),
    ]
    assert (await stage.read(unanswered))["status"] == "closed"


async def test_an_authorisation_that_was_not_answered_holds_nothing_in_the_end(
    stage: Stage,
) -> None:
    number = fresh_card()
    await script(stage, "time_out_paid")
    payment = await swipe(stage, number, capture="manual", capture_within_s=7200)
    assert await comes_to(stage, number, (BALANCE, AMOUNT))
    await stage.advance(seconds=120)
    assert (await stage.read(payment))["status"] in {"closed", "failed"}
    assert await on_card(stage, number) == (BALANCE, 0)


@pytest.mark.parametrize("capture", ["automatic", "manual"])
@pytest.mark.parametrize("place", ["after_intention", "after_channel_call", "before_outcome"])
async def test_a_death_before_the_answer_is_written_down_leaves_no_money_taken(
    stage: Stage, place: str, capture: str
) -> None:
    """The card died with the process: nobody can send it again, and the reversal needs none."""
    number, order = fresh_card(), new_number()
    terms = {"capture": capture, "capture_within_s": 7200} if capture == "manual" else {}
    hurried = stage.client_of(stage.shop, tries_max=1)
    failpoints.arm(f"payments.{place}:raise")
    with pytest.raises(Exception):  # noqa: B017 - as whoever asks a process that dies
        await swipe(stage, number, client=hurried, merchant_order_no=order, **terms)
    failpoints.arm(None)
    taken = (BALANCE - AMOUNT, 0) if capture == "automatic" else (BALANCE, AMOUNT)
    assert await on_card(stage, number) == ((BALANCE, 0) if place == "after_intention" else taken)

    for _ in range(3):
        await stage.advance(seconds=40)

    again = await swipe(stage, number, merchant_order_no=order, **terms)
    assert (again["status"], await on_card(stage, number)) == ("closed", (BALANCE, 0))
    assert await stage.postings(again) == []
    assert await stage.cases(again) == []


async def test_no_table_and_no_log_holds_a_card_number(
    stage: Stage, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("DEBUG")
    for fault in ("time_out_paid", "bad_signature_paid"):
        await script(stage, fault)
        await swipe(stage, fresh_card())
    kept = await swipe(stage, fresh_card())
    await stage.advance(seconds=120)

    said = "".join((caplog.text, *capfd.readouterr()))
    rows = await everything_in(stage.db)
    assert kept["status"] == "succeeded"
    assert "625188******" in rows, "the evidence is there, and masked"
    for number in USED:
        hidden = (number, f"{number}=4912", number.encode().hex())
        assert not any(text in rows or text in said for text in hidden)


async def everything_in(db: Db) -> str:
    """Every row of every table, as text; bytes as hex."""
    tables = await db.pool.fetch(
        "select quote_ident(table_schema) || '.' || quote_ident(table_name) as name"
        " from information_schema.tables where table_type = 'BASE TABLE'"
        " and table_schema not in ('pg_catalog', 'information_schema')"
    )
    rows = []
    for table in tables:
        found = await db.pool.fetch(f"select t::text as text from {table['name']} t")
        rows += [row["text"] for row in found]
    return msgspec.json.encode(rows).decode()
