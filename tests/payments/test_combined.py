"""Several orders paid in one go: each ends by the evidence of its own number, whoever is silent."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.payments.rows import new_payment as payment_row
from tests.payments.test_interleavings import key_of
from tests.stage import Stage, new_number
from tongbao.infra import failpoints
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.kernel.ids import base32, new_id, parse, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.payments.collecting.model import PaymentState
from tongbao.payments.combining import queries
from tongbao.payments.combining.combined import combine, look
from tongbao.payments.combining.model import CombinedState, NewCombined, PartAsked, end_of
from tongbao.rails.channels.contract.orders import PayMode
from tongbao_sdk import Refused

WECHAT_QR = {"mode": "qr", "channel": "wechat_pay"}


@pytest.fixture(scope="module")
async def other(module_stage: Stage) -> Any:
    """Another merchant, who lets the shop combine its orders."""
    shop = await module_stage.open_shop()
    client = module_stage.client_of(shop)
    whom = show("mch", module_stage.shop.merchant.id)
    await module_stage.call(client.combined_payments.let, whom)
    return shop


def orders(other: Any, *amounts: int) -> list[Any]:
    """One order of the shop's own, and one of the other's for each further amount."""
    own, *theirs = amounts
    whose = show("mch", other.merchant.id)
    return [
        {"merchant_order_no": new_number(), "amount": own, "subject": "tea"},
        *(
            {"merchant_order_no": new_number(), "amount": each, "subject": "cake"}
            | {"merchant_id": whose}
            for each in theirs
        ),
    ]


async def asked(stage: Stage, other: Any, *, method: Any = None, **more: Any) -> Any:
    terms = {"merchant_combined_no": new_number(), "orders": orders(other, 300, 700), **more}
    create = stage.client.combined_payments.create
    return await stage.call(create, method=method or WECHAT_QR, **terms)


async def read(stage: Stage, whole: Any) -> Any:
    return await stage.call(stage.client.combined_payments.get, whole["id"])


async def first_number(stage: Stage, whole: Any) -> str:
    """The number of the first part, by which the customer's act is told to the sandbox."""
    return (await stage.attempt_of({"id": whole["parts"][0]["payment_id"]})).number


async def pay(stage: Stage, whole: Any) -> None:
    number = await first_number(stage, whole)
    await stage.control("customer/scan", channel="wechat", number=number, action="pay")
    await stage.idle()


def statuses(whole: Any) -> tuple[str, set[str]]:
    return whole["status"], {part["status"] for part in whole["parts"]}


# The pure decision


@given(st.lists(st.sampled_from(list(PaymentState)), min_size=2, max_size=5))
def test_the_whole_ends_when_every_part_has(states: list[PaymentState]) -> None:
    end = end_of([payment_row(state=state) for state in states])

    assert (end is None) == any(state.is_open for state in states)
    if end is not None:
        paid = [state is PaymentState.SUCCEEDED for state in states]
        expected = {CombinedState.SUCCEEDED} if all(paid) else set()
        expected |= {CombinedState.CLOSED} if not any(paid) else set()
        assert end in (expected or {CombinedState.MIXED})


# At WeChat Pay's sandbox


async def test_one_act_of_the_customer_pays_two_merchants(stage: Stage, other: Any) -> None:
    whole = await asked(stage, other)
    assert statuses(whole) == ("pending", {"pending"})
    assert (whole["amount"], whole["next_action"]["type"]) == (1000, "show_qr")

    await pay(stage, whole)

    done = await read(stage, whole)
    assert statuses(done) == ("succeeded", {"succeeded"})
    assert "next_action" not in done
    assert await stage.events(done) == ["combined_payment.ended"]
    mine, theirs = ({"id": part["payment_id"], "object": "payment"} for part in done["parts"])
    assert await stage.postings(mine) == [
        ("payment.captured/gross", 300),
        ("payment.captured/fee", 2),
    ]
    assert await stage.postings(theirs) == [
        ("payment.captured/gross", 700),
        ("payment.captured/fee", 6),
    ]
    assert await stage.events(theirs) == ["payment.succeeded"]
    payment = await stage.read(theirs, client=stage.client_of(other))
    assert payment["method"]["combined_payment_id"] == whole["id"]
    with pytest.raises(Refused) as refused:
        await stage.read(theirs)
    assert refused.value.code == "payment.not_found", "the other's payment is the other's"


async def test_a_part_is_given_back_by_its_own_merchant(stage: Stage, other: Any) -> None:
    whole = await asked(stage, other)
    await pay(stage, whole)
    theirs: Any = {"id": whole["parts"][1]["payment_id"], "object": "payment"}

    refund = await stage.refund(theirs, 500, client=stage.client_of(other))
    await stage.advance(seconds=10)

    ended = await stage.read(refund, client=stage.client_of(other))
    assert ended["status"] == "succeeded"
    assert await stage.given_back(theirs) == [500]
    mine = {"id": whole["parts"][0]["payment_id"], "object": "payment"}
    assert await stage.given_back(mine) == []


async def test_the_same_number_is_the_same_combined_payment(stage: Stage, other: Any) -> None:
    number, same = new_number(), orders(other, 300, 700)
    first = await asked(stage, other, merchant_combined_no=number, orders=same)

    again = await asked(stage, other, merchant_combined_no=number, orders=same)
    assert again["id"] == first["id"]
    with pytest.raises(Refused) as refused:
        await asked(stage, other, merchant_combined_no=number)
    assert refused.value.code == "combined.number_used"
    with pytest.raises(Refused) as refused:
        await asked(stage, other, orders=same)
    assert refused.value.code == "payment.order_no_used"
    found = await stage.call(stage.client.combined_payments.find, number)
    assert found["id"] == first["id"]
    assert first["id"] in [
        each["id"] for each in await stage.call(lambda: list(stage.client.combined_payments.list()))
    ]


async def test_a_channel_that_combines_is_found_where_none_is_named(
    stage: Stage, other: Any
) -> None:
    """Nobody else's is tried: a channel without combined orders is refused by name above."""
    number, same = new_number(), orders(other, 300, 700)
    terms = {"merchant_combined_no": number, "orders": same}
    whole = await asked(stage, other, method={"mode": "qr"}, **terms)
    assert (whole["method"]["channel"], whole["status"]) == ("wechat_pay", "pending")
    assert (await asked(stage, other, **terms))["id"] == whole["id"], "named or not, it is the same"


async def test_the_same_orders_asked_for_in_two_ways_at_once_are_taken_once(
    stage: Stage, other: Any
) -> None:
    """Each would have one order's row and wait for the other's, if each went by its own list."""

    create = stage.client_of(stage.shop, tries_max=1).combined_payments.create

    async def one(some: list[Any]) -> str:
        terms = {"merchant_combined_no": new_number(), "method": WECHAT_QR, "orders": some}
        try:
            return str((await stage.call(create, **terms))["status"])
        except Refused as refused:
            return refused.code

    for _ in range(4):
        some = orders(other, 300, *([700] * 9))
        ends = await asyncio.gather(one(some), one(some[::-1]), one(some))
        assert sorted(ends) == ["payment.order_no_used"] * 2 + ["pending"]


async def test_another_merchants_order_needs_its_consent(stage: Stage, other: Any) -> None:
    stranger, client = await stage.open_shop(), stage.client
    with pytest.raises(Refused) as refused:
        await asked(stage, stranger)
    assert refused.value.code == "combined.not_allowed"

    theirs, me = stage.client_of(stranger), show("mch", stage.shop.merchant.id)
    [given] = await stage.call(theirs.combined_payments.let, me)
    assert given["merchant_id"] == me
    assert await stage.call(theirs.combined_payments.let, me) == [given]
    assert (await asked(stage, stranger))["status"] == "pending"
    assert await stage.call(theirs.combined_payments.who_may) == [given]
    assert await stage.call(client.combined_payments.who_may) == []

    assert await stage.call(theirs.combined_payments.let_no_more, me) == []
    with pytest.raises(Refused) as refused:
        await asked(stage, stranger)
    assert refused.value.code == "combined.not_allowed"


@pytest.mark.parametrize(
    ("terms", "code"),
    [
        ({"method": {"mode": "qr", "channel": "alipay"}}, "combined.not_offered"),
        ({"method": {"mode": "web", "return_url": "https://a.example"}}, "combined.not_offered"),
        ({"method": {"mode": "qr"}, "currency": "USD"}, "combined.not_offered"),
        ({"method": {"mode": "qr", "channel": "unionpay"}}, "combined.not_offered"),
        ({"method": {"mode": "h5"}}, "payment.method_field_missing"),
        (
            {"method": {"mode": "agreement", "agreement_id": "agr_x"}},
            "combined.not_offered",
        ),
        ({"currency": "USD"}, "combined.not_offered"),
        ({"orders": [{"merchant_order_no": "1", "amount": 1, "subject": "x"}]}, None),
        ({"orders": [{"merchant_order_no": "1", "amount": 1, "subject": "x"}] * 2}, None),
        ({"merchant_combined_no": "日"}, "request.invalid_value"),
    ],
)
async def test_what_cannot_be_combined_is_refused(
    stage: Stage, other: Any, terms: Any, code: str | None
) -> None:
    with pytest.raises(Refused) as refused:
        await asked(stage, other, **terms)

    assert refused.value.code in {code, "combined.orders_repeat", "request.invalid_value"}


async def test_calling_it_off_closes_all_parts_at_the_channel(stage: Stage, other: Any) -> None:
    whole = await asked(stage, other)

    closed = await stage.call(stage.client.combined_payments.close, whole["id"])

    assert statuses(closed) == ("closed", {"closed"})
    for part in closed["parts"]:
        trade = await stage.trade_of({"id": part["payment_id"]})
        assert trade is not None
        assert trade["state"] == "closed"
    assert await stage.events(closed) == ["combined_payment.ended"]
    again = await stage.call(stage.client.combined_payments.close, whole["id"])
    assert again["version"] == closed["version"]


async def test_who_pays_first_wins_over_a_closing(stage: Stage, other: Any) -> None:
    whole = await asked(stage, other)
    number = await first_number(stage, whole)
    await stage.control("customer/scan", channel="wechat", number=number, action="pay")

    closed = await stage.call(stage.client.combined_payments.close, whole["id"])

    assert statuses(closed) == ("succeeded", {"succeeded"})


async def test_one_merchant_calls_its_part_off_and_all_are(stage: Stage, other: Any) -> None:
    whole = await asked(stage, other)
    theirs = stage.client_of(other)

    await stage.call(theirs.payments.close, whole["parts"][1]["payment_id"])
    await stage.advance(seconds=10)

    assert statuses(await read(stage, whole)) == ("closed", {"closed"})


async def test_its_time_runs_out(stage: Stage, other: Any) -> None:
    whole = await asked(stage, other, expires_in_s=300)

    await stage.advance(minutes=6)
    await stage.advance(minutes=6)

    assert statuses(await read(stage, whole)) == ("closed", {"closed"})


async def test_a_lost_notice_is_made_up_for_by_asking_once_for_all(
    stage: Stage, other: Any
) -> None:
    whole = await asked(stage, other)
    number = base32(parse("cmb", whole["id"]))
    stage.fault("wechat_pay", "callback", "lost:15", number=number)
    await pay(stage, whole)
    assert (await read(stage, whole))["status"] == "pending"

    await stage.advance(seconds=30)

    assert statuses(await read(stage, whole)) == ("succeeded", {"succeeded"})


@pytest.mark.parametrize(
    "fault", ["time_out_unpaid", "time_out_paid", "http_500_unpaid", "reset", "bad_signature_paid"]
)
async def test_an_unanswered_offer_is_made_once(stage: Stage, other: Any, fault: str) -> None:
    """The same number is offered again; what was paid meanwhile is found by asking."""
    stage.fault("wechat_pay", "pay", fault)

    whole = await asked(stage, other)
    assert statuses(whole) == ("created", {"unknown"})
    assert "next_action" not in whole
    await stage.advance(seconds=15)

    after = await read(stage, whole)
    if fault.endswith("_paid"):
        assert statuses(after) == ("succeeded", {"succeeded"})
    else:
        assert statuses(after) == ("pending", {"pending"})
        await pay(stage, after)
        assert (await read(stage, whole))["status"] == "succeeded"


@pytest.mark.parametrize("fault", ["doubled", "late:40", "forged", "reordered", "signtest"])
async def test_whatever_becomes_of_the_notice_each_part_is_booked_once(
    stage: Stage, other: Any, fault: str
) -> None:
    whole = await asked(stage, other)
    number = base32(parse("cmb", whole["id"]))
    stage.fault("wechat_pay", "callback", fault, number=number)
    await pay(stage, whole)
    for _ in range(2):
        await stage.advance(seconds=30)

    done = await read(stage, whole)
    assert statuses(done) == ("succeeded", {"succeeded"})
    assert await stage.events(done) == ["combined_payment.ended"]
    for part, amount in zip(done["parts"], (300, 700), strict=True):
        payment = {"id": part["payment_id"], "object": "payment"}
        booked = [each for leg, each in await stage.postings(payment) if leg.endswith("/gross")]
        assert booked == [amount]
        assert await stage.events(payment) == ["payment.succeeded"]


async def test_a_notice_of_a_wrong_amount_is_not_believed(stage: Stage, other: Any) -> None:
    whole = await asked(stage, other)
    number = base32(parse("cmb", whole["id"]))
    stage.fault("wechat_pay", "callback", "wrong_amount", number=number)

    await pay(stage, whole)

    done = await read(stage, whole)
    assert statuses(done) == ("succeeded", {"succeeded"})
    mine = {"id": done["parts"][0]["payment_id"], "object": "payment"}
    assert (await stage.postings(mine))[0] == ("payment.captured/gross", 300)


async def test_anothers_combined_payment_is_nobodys(stage: Stage, other: Any) -> None:
    whole = await asked(stage, other)

    for call in (
        stage.client_of(other).combined_payments.get,
        stage.client_of(other).combined_payments.close,
    ):
        with pytest.raises(Refused) as refused:
            await stage.call(call, whole["id"])
        assert refused.value.code == "combined.not_found"


# Whoever dies


def new_combined(stage: Stage, other: Any) -> NewCombined:
    merchant = stage.shop.merchant
    return NewCombined(
        merchant_id=merchant.id,
        mode=Mode.SANDBOX,
        book=merchant.book(Mode.SANDBOX),
        merchant_combined_no=new_number(),
        channel="wechat_pay",
        pay_mode=PayMode.QR,
        how=None,
        client_ip="127.0.0.1",
        expires_in=timedelta(minutes=30),
        parts=[
            PartAsked(each, new_number(), Money(amount, "CNY"), "tea", {})
            for each, amount in ((merchant.id, 300), (other.merchant.id, 700))
        ],
    )


@pytest.mark.parametrize(
    "place",
    [
        "combining.before_intention",
        "combining.after_intention",
        "combining.after_channel_call",
        "combining.after_offer",
    ],
)
async def test_a_death_while_it_is_offered_leaves_one_offer(
    stage: Stage, other: Any, place: str
) -> None:
    new = new_combined(stage, other)

    failpoints.arm(f"{place}:raise")
    with pytest.raises(SimulatedCrash):
        await combine(stage.flow, new, key_of(stage).write, new_id())
    failpoints.arm(None)
    for _ in range(2):
        await stage.advance(seconds=10)
    again, parts = await combine(stage.flow, new, key_of(stage).write, new_id())

    assert again.state is CombinedState.PENDING
    assert {payment.state for payment, _ in parts} == {PaymentState.PENDING}
    assert len({attempt.number for _, attempt in parts}) == 2


@pytest.mark.parametrize("place", ["combining.after_query", "combining.before_end"])
async def test_a_death_while_it_ends_ends_it(stage: Stage, other: Any, place: str) -> None:
    whole, _ = await combine(stage.flow, new_combined(stage, other), key_of(stage).write, new_id())
    _, (_, attempt) = await queries.parts_of(stage.db, whole)
    stage.fault("wechat_pay", "callback", "lost:15", number=whole.number)
    await stage.control("customer/scan", channel="wechat", number=attempt.number, action="pay")

    failpoints.arm(f"{place}:raise")
    with pytest.raises(SimulatedCrash):
        await look(stage.flow, whole)
    failpoints.arm(None)
    await stage.advance(seconds=15)

    ended = await queries.combined(stage.db, whole.book, whole.id)
    assert ended.state is CombinedState.SUCCEEDED
    assert await stage.events({"id": show("cmb", whole.id)}) == ["combined_payment.ended"]


async def test_a_death_while_it_is_closed_closes_it(stage: Stage, other: Any) -> None:
    new = new_combined(stage, other)
    whole, _ = await combine(stage.flow, new, key_of(stage).write, new_id())
    stage.db.clock.offset += timedelta(minutes=31)  # the channel's time is another matter

    failpoints.arm("combining.after_close:raise")
    with pytest.raises(SimulatedCrash):
        await look(stage.flow, whole)
    failpoints.arm(None)
    after = await look(stage.flow, whole)

    assert after.state is CombinedState.CLOSED


async def test_looking_at_once_tells_once(stage: Stage, other: Any) -> None:
    whole, parts = await combine(
        stage.flow, new_combined(stage, other), key_of(stage).write, new_id()
    )
    stage.fault("wechat_pay", "callback", "lost:15", number=whole.number)
    await stage.control("customer/scan", channel="wechat", number=parts[0][1].number, action="pay")

    await asyncio.gather(*(look(stage.flow, whole) for _ in range(4)))

    assert await stage.events({"id": show("cmb", whole.id)}) == ["combined_payment.ended"]
    for payment, _ in parts:
        assert await stage.events({"id": show("pay", payment.id)}) == ["payment.succeeded"]
