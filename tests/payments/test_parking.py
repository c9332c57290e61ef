"""Cars at car parks: the fee is taken once from who agreed, whoever is silent or dies."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.payments.test_interleavings import key_of
from tests.stage import Stage, new_number
from tongbao.infra import failpoints
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.kernel.ids import base32, new_id, parse
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.parties.price_plans.model import PriceLine
from tongbao.payments.collecting import queries as payments
from tongbao.payments.parking import queries
from tongbao.payments.parking.charges import ChargeAsked, charge_visit, resume_charge
from tongbao.payments.parking.model import Car, Visit, VisitState, next_visit
from tongbao.payments.parking.visits import CarParks, VisitAsked, drive_in, drive_out
from tongbao.rails.channels.capabilities.agreements import VisitBlocked, VisitOpen
from tongbao.rails.channels.contract.outcomes import Absent, Declined, NotSent, Unknown
from tongbao.surfaces.demo.stage import (
    SHOP_FEES,
    Shop,
    account_orders,
    open_accounts,
    open_shop,
)
from tongbao_sdk import Refused, Unanswered

CHANNELS = ("wechat_pay", "alipay")
PLATES = iter(f"粤BQX{number:04d}" for number in range(9_999))
"""Fictitious ones, each used once."""
BOUND: dict[str, str] = {}
"""Which agreement at Alipay a plate is bound to."""


@pytest.fixture(scope="module")
async def garage(module_stage: Stage) -> Shop:
    """A shop whose account at WeChat Pay is a sub-merchant's: others have no parking there."""
    stage, keys = module_stage, module_stage.sandbox.credentials["wechat"]
    [order, *_] = account_orders(stage.sandbox.url, stage.sandbox.credentials)
    partner = {"sp_mchid": keys["mchid"], "sp_appid": keys["appid"]}
    over = {"merchant_number": keys["sub_mchid"], "keys": {**order.keys, "partner": partner}}
    order = replace(order, **over)
    opened = await open_accounts(
        stage.db, stage.platform.keyring, stage.platform.secret_types, [order]
    )
    fees = [*SHOP_FEES, *(PriceLine(each, "agreement", 7_000) for each in CHANNELS)]
    licence = stage.platform.settings.licence
    accounts = {**stage.accounts, **opened}
    return await open_shop(
        stage.db, stage.platform.keyring, licence, accounts, name="Harbour", fees=fees
    )


async def plate(stage: Stage, channel: str) -> str:
    """A plate whose owner has agreed to be charged: at Alipay it is bound to an agreement."""
    number = next(PLATES)
    if channel == "alipay":
        offered = await stage.call(
            stage.client.agreements.create,
            merchant_agreement_no=new_number(),
            channel="alipay",
            plan="GENERAL_WITHHOLDING_P/INDUSTRY|CARRENTAL",
            display_name="parking",
            return_url="https://shop.example/",
        )
        await stage.control("alipay/visit", url=offered["next_action"]["url"], action="pay")
        bound = base32(parse("agr", offered["id"]))
        await stage.control("alipay/plate", plate=number, number=bound)
        BOUND[number] = bound
    return number


async def entered(stage: Stage, garage: Shop, channel: str, **more: Any) -> Any:
    terms = {
        "merchant_visit_no": new_number(),
        "channel": channel,
        "plate_colour": "BLUE",
        "place": "Harbour",
        "lot": "PI1",
        **more,
    }
    terms.setdefault("plate", await plate(stage, channel))
    return await stage.call(stage.client_of(garage).parking.enter, **terms)


async def charged(stage: Stage, garage: Shop, visit: Any, amount: int = 500, **more: Any) -> Any:
    terms = {"merchant_order_no": new_number(), **more}
    charge = stage.client_of(garage).parking.charge
    return await stage.call(charge, visit["id"], amount=amount, **terms)


async def read(stage: Stage, garage: Shop, thing: Any) -> Any:
    client = stage.client_of(garage)
    kind = client.parking if thing["object"] == "parking_visit" else client.payments
    return await stage.call(kind.get, thing["id"])


# The pure decision

NEWS = st.one_of(
    st.builds(VisitOpen, st.sampled_from(["1", "2"])),
    st.builds(VisitBlocked, st.sampled_from(["", "PAUSE"])),
    st.builds(Declined, st.just("NO_AUTH")),
    st.builds(Absent, st.just("ORDER_NOT_EXIST")),
    st.builds(NotSent, st.just("refused")),
    st.builds(Unknown, st.just("no answer")),
)


@given(st.lists(NEWS))
def test_a_visit_opens_on_the_channels_word_only(heard: list[Any]) -> None:
    visit = VISIT
    for news in heard:
        before, visit = visit, next_visit(visit, news) or visit
        if visit.state is VisitState.OPEN and visit != before:
            assert isinstance(news, VisitOpen)
        if isinstance(news, NotSent | Unknown) and before.state is not VisitState.CREATED:
            assert visit == before
        assert next_visit(visit, news) is None
    left = replace(visit, state=VisitState.LEFT)
    assert all(next_visit(left, news) is None for news in heard)


NOON = datetime(2026, 11, 21, 4, tzinfo=UTC)
VISIT = Visit(
    book=1,
    id=UUID(int=1),
    merchant_id=UUID(int=2),
    mode=Mode.SANDBOX,
    merchant_visit_no="V-1",
    request_hash=b"",
    channel="wechat_pay",
    account_id=UUID(int=4),
    plate_sealed=b"",
    place="Harbour",
    lot="",
    free_s=0,
    state=VisitState.CREATED,
    visit_ref=None,
    code=None,
    entered_at=NOON,
    left_at=None,
    exit_told_at=None,
    payment_id=None,
    charges=0,
    created_at=NOON,
    version=1,
)


# At both sandboxes


@pytest.mark.parametrize("channel", CHANNELS)
async def test_a_car_comes_pays_and_leaves(stage: Stage, garage: Shop, channel: str) -> None:
    visit = await entered(stage, garage, channel, free_s=900)
    assert visit["status"] == "open"
    await stage.advance(hours=1)

    payment = await charged(stage, garage, visit)
    await stage.advance(seconds=5)

    done = await read(stage, garage, payment)
    assert done["status"] == "succeeded"
    assert done["method"]["parking_visit_id"] == visit["id"]
    assert await stage.postings(done) == [
        ("payment.captured/gross", 500),
        ("payment.captured/fee", 4),
    ]
    left = await stage.call(stage.client_of(garage).parking.leave, visit["id"])
    assert (left["status"], left["payment_id"]) == ("left", payment["id"])
    again = await stage.call(stage.client_of(garage).parking.leave, visit["id"])
    assert again["left_at"] == left["left_at"]
    assert await stage.events(visit) == ["parking_visit.updated", "parking_visit.updated"]
    refund = await stage.refund(done, 200, client=stage.client_of(garage))
    await stage.advance(seconds=10)
    assert (await stage.read(refund, client=stage.client_of(garage)))["status"] == "succeeded"
    assert await stage.given_back(done) == [200]


async def test_alipay_hears_of_the_exit_and_of_the_order(stage: Stage, garage: Shop) -> None:
    visit = await entered(stage, garage, "alipay")
    await charged(stage, garage, visit)
    await stage.call(stage.client_of(garage).parking.leave, visit["id"])

    row = await row_of(stage, visit)
    assert row.exit_told_at is not None
    seen = await queries.exchanges_of_visit(stage.db, row)
    assert [each.purpose for each in seen] == ["enter", "leave"]
    methods = [word for word in seen[1].request.split() if "mycar.parking" in word]
    assert "exitinfo.sync" in str(seen[1])
    assert "order.sync" in str(seen[1]), methods


@pytest.mark.parametrize("channel", CHANNELS)
async def test_nobody_reads_the_plate_again(stage: Stage, garage: Shop, channel: str) -> None:
    """In no row, no evidence and no answer; the sealed text is the only place."""
    number = await plate(stage, channel)
    visit = await entered(stage, garage, channel, plate=number)
    payment = await charged(stage, garage, visit)
    await stage.advance(seconds=5)
    await stage.call(stage.client_of(garage).parking.leave, visit["id"])
    digits = number[2:]

    row = await row_of(stage, visit)
    found = [visit, payment, await read(stage, garage, visit), row]
    found += await queries.exchanges_of_visit(stage.db, row)
    found.append(await payments.timeline(stage.db, parse("pay", payment["id"])))
    kept = await stage.db.fetch(
        "select callback::text, convert_from(body, 'utf8') as body from inbound_callback"
        " where number = $1",
        (row.number,),
    )
    assert [str(each) for each in found if digits in str(each)] == []
    assert not any(digits in each["callback"] for each in kept)


@pytest.mark.parametrize("channel", CHANNELS)
async def test_a_plate_that_nobody_agreed_for_is_blocked(
    stage: Stage, garage: Shop, channel: str
) -> None:
    number = next(PLATES)
    stage.fault("wechat_pay", "agreement", "plate_paused", number=number)
    visit = await entered(stage, garage, channel, plate=number)
    assert visit["status"] == "blocked"

    with pytest.raises(Refused) as refused:
        await charged(stage, garage, visit)

    assert refused.value.code == "parking.not_chargeable"


async def test_wechat_pay_tells_that_a_plate_is_blocked_and_open_again(
    stage: Stage, garage: Shop
) -> None:
    visit = await entered(stage, garage, "wechat_pay")
    number = base32(parse("prk", visit["id"]))

    await stage.control("wechat/plate", number=number, action="block")
    await stage.idle()
    assert (await read(stage, garage, visit))["status"] == "blocked"
    await stage.control("wechat/plate", number=number, action="open")
    await stage.idle()

    assert (await read(stage, garage, visit))["status"] == "open"


@pytest.mark.parametrize("channel", CHANNELS)
async def test_a_visit_is_charged_once(stage: Stage, garage: Shop, channel: str) -> None:
    visit = await entered(stage, garage, channel)

    said = await asyncio.gather(
        *(charged(stage, garage, visit) for _ in range(4)), return_exceptions=True
    )
    await stage.advance(seconds=5)

    made = [each for each in said if not isinstance(each, BaseException)]
    assert [each.code for each in said if isinstance(each, Refused)] == ["parking.charged"] * 3
    assert (await read(stage, garage, made[0]))["status"] == "succeeded"
    with pytest.raises(Refused) as refused:
        await charged(stage, garage, visit)
    assert refused.value.code == "parking.charged"


async def test_the_same_order_is_the_same_fee(stage: Stage, garage: Shop) -> None:
    visit, order = await entered(stage, garage, "wechat_pay"), new_number()
    first = await charged(stage, garage, visit, merchant_order_no=order)

    assert (await charged(stage, garage, visit, merchant_order_no=order))["id"] == first["id"]
    with pytest.raises(Refused) as refused:
        await charged(stage, garage, visit, 501, merchant_order_no=order)
    assert refused.value.code == "payment.order_no_used"


async def test_the_same_number_is_the_same_visit(stage: Stage, garage: Shop) -> None:
    number, car = new_number(), next(PLATES)
    over = {"merchant_visit_no": number, "plate": car}
    first = await entered(stage, garage, "wechat_pay", **over)

    assert (await entered(stage, garage, "wechat_pay", **over))["id"] == first["id"]
    with pytest.raises(Refused) as refused:
        await entered(stage, garage, "wechat_pay", merchant_visit_no=number, plate=next(PLATES))
    assert refused.value.code == "parking.visit_number_used"
    parking = stage.client_of(garage).parking
    assert (await stage.call(parking.find, number))["id"] == first["id"]
    assert first["id"] in [each["id"] for each in await stage.call(lambda: list(parking.list()))]


async def test_what_was_not_paid_may_be_charged_again(stage: Stage, garage: Shop) -> None:
    number = await plate(stage, "alipay")
    visit = await entered(stage, garage, "alipay", plate=number)
    agreement = BOUND[number]
    await stage.control("alipay/agreement", number=agreement, action="decline")
    first = await charged(stage, garage, visit)
    for _ in range(4):
        await stage.advance(hours=1)
    await stage.control("alipay/agreement", number=agreement, action="pay")
    assert (await read(stage, garage, first))["status"] in {"failed", "closed"}

    second = await charged(stage, garage, visit)

    assert second["status"] == "succeeded"
    assert (await read(stage, garage, visit))["payment_id"] == second["id"]


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("fault", ["time_out_paid", "http_500_paid"])
async def test_an_unanswered_fee_is_taken_once(
    stage: Stage, garage: Shop, channel: str, fault: str
) -> None:
    visit = await entered(stage, garage, channel)
    stage.fault(channel, "pay", fault)

    payment = await charged(stage, garage, visit)
    await stage.advance(minutes=1)

    assert (await read(stage, garage, payment))["status"] == "succeeded"


@pytest.mark.parametrize("channel", CHANNELS)
async def test_a_fee_that_never_arrived_ends_unpaid(
    stage: Stage, garage: Shop, channel: str
) -> None:
    visit = await entered(stage, garage, channel)
    stage.fault(channel, "pay", "time_out_unpaid")
    payment = await charged(stage, garage, visit)
    assert payment["status"] == "unknown"

    for _ in range(3):
        await stage.advance(hours=1)

    assert (await read(stage, garage, payment))["status"] == "closed"
    assert (await charged(stage, garage, visit))["status"] in {"succeeded", "pending"}


@pytest.mark.parametrize(
    ("terms", "code"),
    [
        ({"channel": "cards"}, "parking.not_offered"),
        ({"plate": "ab"}, "request.invalid_value"),
        ({"plate_colour": "PINK"}, "request.invalid_value"),
        ({"entered_at": "2999-01-01T00:00:00Z"}, "parking.times_wrong"),
        ({"entered_at": "2020-01-01T00:00:00"}, "request.invalid_value"),
    ],
)
async def test_what_cannot_be_entered_is_refused(
    stage: Stage, garage: Shop, terms: Any, code: str
) -> None:
    with pytest.raises(Refused) as refused:
        await entered(stage, garage, terms.pop("channel", "wechat_pay"), **terms)

    assert refused.value.code == code


async def test_no_car_leaves_before_it_came(stage: Stage, garage: Shop) -> None:
    visit = await entered(stage, garage, "wechat_pay")
    for call in (
        charged(stage, garage, visit, left_at="2020-01-01T00:00:00Z"),
        stage.call(
            stage.client_of(garage).parking.leave, visit["id"], left_at="2999-01-01T00:00:00Z"
        ),
    ):
        with pytest.raises(Refused) as refused:
            await call
        assert refused.value.code == "parking.times_wrong"


async def test_anothers_visit_is_nobodys(stage: Stage, garage: Shop) -> None:
    visit, stranger = await entered(stage, garage, "wechat_pay"), stage.client.parking
    calls: list[Any] = [
        (stranger.get, {}),
        (stranger.leave, {}),
        (stranger.charge, {"merchant_order_no": new_number(), "amount": 1}),
    ]
    for call, terms in calls:
        with pytest.raises(Refused) as refused:
            await stage.call(call, visit["id"], **terms)
        assert refused.value.code == "parking.visit_not_found"


# Whoever dies


def asked_of(stage: Stage, garage: Shop, account_id: UUID, number: str) -> VisitAsked:
    return VisitAsked(
        merchant_id=garage.merchant.id,
        mode=Mode.SANDBOX,
        book=garage.merchant.book(Mode.SANDBOX),
        merchant_visit_no=new_number(),
        channel="alipay",
        account_id=account_id,
        car=Car(number, "BLUE", "gate"),
        place="Harbour",
        lot="PI1",
        free_s=0,
        entered_at=None,
    )


async def row_of(stage: Stage, visit: Any) -> Visit:
    found = await queries.visit_by_number(stage.db, base32(parse("prk", visit["id"])))
    assert found is not None
    return found


@pytest.mark.parametrize(
    "place",
    [
        "parking.before_intention",
        "parking.after_intention",
        "parking.after_channel_call",
        "parking.before_outcome",
    ],
)
async def test_a_death_while_a_car_comes_leaves_one_visit(
    stage: Stage, garage: Shop, place: str
) -> None:
    parks = CarParks(stage.flow, stage.platform.keyring)
    asked = asked_of(stage, garage, stage.accounts["alipay"], await plate(stage, "alipay"))

    failpoints.arm(f"{place}:raise")
    with pytest.raises(SimulatedCrash):
        await drive_in(parks, asked, key_of(stage).write, new_id())
    failpoints.arm(None)
    await stage.advance(seconds=30)
    again = await drive_in(parks, asked, key_of(stage).write, new_id())

    assert again.state is VisitState.OPEN


@pytest.mark.parametrize("place", ["parking.after_exit", "parking.after_exit_call"])
async def test_a_death_while_a_car_leaves_is_made_up_for(
    stage: Stage, garage: Shop, place: str
) -> None:
    parks = CarParks(stage.flow, stage.platform.keyring)
    row = await row_of(stage, await entered(stage, garage, "alipay"))

    failpoints.arm(f"{place}:raise")
    with pytest.raises(SimulatedCrash):
        await drive_out(parks, row, None, key_of(stage).write)
    failpoints.arm(None)
    await stage.advance(seconds=30)

    after = await queries.visit(stage.db, row.book, row.id)
    assert (after.state, after.exit_told_at is not None) == (VisitState.LEFT, True)


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("place", ["payments.after_intention", "payments.after_channel_call"])
async def test_a_fee_that_was_broken_off_is_taken_when_asked_again(
    stage: Stage, garage: Shop, channel: str, place: str
) -> None:
    parks = CarParks(stage.flow, stage.platform.keyring)
    row = await row_of(stage, await entered(stage, garage, channel))
    money = Money(500, "CNY")
    asked = ChargeAsked(new_number(), money, "parking", None, {}, "127.0.0.1")

    failpoints.arm(f"{place}:raise")
    with pytest.raises(SimulatedCrash):
        await charge_visit(parks, row, asked, key_of(stage).write)
    failpoints.arm(None)
    row = await queries.visit(stage.db, row.book, row.id)
    assert row.payment_id is not None
    payment = await payments.payment(stage.db, row.book, row.payment_id)
    await resume_charge(parks, row, payment)
    await stage.advance(seconds=10)

    ended = await payments.payment(stage.db, row.book, row.payment_id)
    assert (str(ended.state), ended.captured) == ("succeeded", 500)


# Before a car comes


async def looked_up(
    stage: Stage, shop: Shop, number: str, channel: str = "wechat_pay", client: Any = None
) -> Any:
    ask = (client or stage.client_of(shop)).parking.look_up
    terms: Any = {"plate": number, "plate_colour": "BLUE", "payer_id": "o-1", "channel": channel}
    return await stage.call(ask, **terms)


async def test_a_plate_is_looked_up_and_nothing_of_it_is_kept(stage: Stage, garage: Shop) -> None:
    free, paused = next(PLATES), next(PLATES)
    stage.fault("wechat_pay", "agreement", "plate_paused", number=paused, times=1)

    assert (await looked_up(stage, garage, free))["status"] == "open"
    blocked = await looked_up(stage, garage, paused)

    assert (blocked["status"], blocked["code"]) == ("blocked", "PAUSE")
    stage.fault("wechat_pay", "agreement", "time_out_done", times=4)
    patient = stage.client_of(garage, tries_max=1)
    with pytest.raises(Unanswered) as unanswered:
        await looked_up(stage, garage, free, client=patient)
    assert "parking.plate_unanswered" in str(unanswered.value)
    stage.sandbox.delete("faults")
    for shop, channel, code in (
        (garage, "alipay", "parking.not_offered"),
        (stage.shop, "wechat_pay", "parking.not_offered"),
    ):
        with pytest.raises(Refused) as refused:
            await looked_up(stage, shop, free, channel)
        assert refused.value.code == code
    for table in ("exchange", "inbound_callback", "request_line"):
        if await stage.db.fetch("select 1 from pg_class where relname = $1", (table,)):
            rows = await stage.db.fetch(f"select t::text from {table} t", ())
            assert not [row for row in rows if free in row[0] or free[1:] in row[0]]
