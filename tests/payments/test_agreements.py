"""Agreements: offered, signed, collected under within their limits, ended, whoever is silent."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.payments.test_interleavings import holding, key_of
from tests.stage import Stage, new_number
from tongbao.duties import reach_of
from tongbao.infra import failpoints
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.infra.web.idempotency import InFlight
from tongbao.kernel.ids import base32, new_id, parse
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.parties.merchants.merchants import SANDBOX_BOOK
from tongbao.parties.price_plans.model import PriceLine
from tongbao.parties.price_plans.plans import set_price_plan
from tongbao.payments.agreements import queries
from tongbao.payments.agreements.agreements import ask, end_agreement, offer_agreement
from tongbao.payments.agreements.announcing import announce_deduction, earlier_announcement
from tongbao.payments.agreements.model import (
    OFFER_OVER,
    Agreement,
    AgreementState,
    NewAgreement,
    Period,
    next_agreement,
    over,
)
from tongbao.rails.channels.capabilities.agreements import (
    AgreementEnded,
    AgreementOffered,
    AgreementSigned,
)
from tongbao.rails.channels.contract.outcomes import Absent, Declined, NotSent, Redirect, Unknown
from tongbao.surfaces.demo.stage import SHOP_FEES
from tongbao_sdk import Refused

PLAN = "GENERAL_WITHHOLDING_P/INDUSTRY|CARRENTAL"
NOON = datetime(2026, 11, 21, 4, tzinfo=UTC)


# The pure decision

ASKED = NewAgreement(
    merchant_id=UUID(int=2),
    mode=Mode.SANDBOX,
    book=1,
    merchant_agreement_no="M-1",
    channel="alipay",
    account_id=UUID(int=4),
    plan=PLAN,
    display_name="member",
    payer_id=None,
    return_url=None,
    currency="CNY",
    limit_each=1000,
    period=Period.MONTH,
    limit_per_period=3000,
    expires_in=timedelta(days=1),
)
NEWS = st.one_of(
    st.builds(AgreementSigned, st.sampled_from(["58001", "58002"]), st.just("2088"), st.just(NOON)),
    st.builds(AgreementOffered, st.none() | st.just(Redirect("https://sign.example"))),
    st.builds(AgreementEnded, st.just("UNSIGN")),
    st.builds(Absent, st.just("USER_AGREEMENT_NOT_EXIST")),
    st.builds(Declined, st.just("PLAN_INVALID")),
    st.builds(NotSent, st.just("connection refused")),
    st.builds(Unknown, st.just("no answer")),
)
HEARD = st.lists(st.tuples(NEWS, st.sampled_from(["offer", "query", "end"]), st.booleans()))


@given(HEARD)
def test_an_agreement_lives_by_evidence_only(heard: Any) -> None:
    agreement = ASKED.row(UUID(int=9), NOON)
    for news, asked, is_ending in heard:
        if is_ending and agreement.state is AgreementState.ACTIVE:
            agreement = replace(agreement, state=AgreementState.ENDING)
        before = agreement
        agreement = next_agreement(before, news, asked, NOON) or before

        if agreement.state.is_signed and not before.state.is_signed:
            assert isinstance(news, AgreementSigned)
            assert agreement.agreement_ref == news.agreement_ref
            assert before.state is not AgreementState.ENDED
        if isinstance(news, Unknown):
            assert agreement.ended_at == before.ended_at
            assert agreement.state.is_signed == before.state.is_signed
        if before.state is AgreementState.ENDED:
            assert agreement == before
        if before.state.is_signed and not agreement.state.is_signed:
            assert isinstance(news, AgreementEnded | Absent)
        if before.state.is_signed and agreement.state.is_signed:
            assert agreement.agreement_ref == before.agreement_ref
        is_running = agreement.state.is_offer or agreement.state.is_signed
        assert (agreement.ended_at is None) == is_running
        assert next_agreement(agreement, news, asked, NOON) in {None, agreement}


def test_an_offer_that_ran_out_may_still_be_signed_and_a_refused_one_may_not() -> None:
    offered = ASKED.row(UUID(int=9), NOON)
    ran_out = over(offered, NOON + timedelta(days=1))
    signed = AgreementSigned("58001", None, NOON)
    assert ran_out is not None
    assert (ran_out.state, ran_out.code) == (AgreementState.FAILED, OFFER_OVER)
    assert over(offered, NOON + timedelta(hours=23)) is None

    late = next_agreement(ran_out, signed, "query", NOON)
    refused = next_agreement(offered, Declined("PLAN_INVALID"), "offer", NOON)

    assert late is not None
    assert (late.state, late.ended_at) == (AgreementState.ACTIVE, None)
    assert refused is not None
    assert next_agreement(refused, signed, "query", NOON) is None


@pytest.mark.parametrize(
    ("period", "first_day"),
    [
        (Period.DAY, (2026, 3, 1)),
        (Period.WEEK, (2026, 2, 23)),
        (Period.MONTH, (2026, 3, 1)),
        (Period.YEAR, (2026, 1, 1)),
    ],
)
def test_a_period_begins_in_the_business_time_zone(
    period: Period, first_day: tuple[int, int, int]
) -> None:
    """The last evening of February in UTC is the first of March in Shanghai, a Sunday."""
    begins = period.begins(datetime(2026, 2, 28, 17, tzinfo=UTC))

    assert (begins.year, begins.month, begins.day) == first_day


# At Alipay's sandbox


@pytest.fixture(scope="module", autouse=True)
async def _a_price(module_stage: Stage) -> None:
    lines = [*SHOP_FEES, PriceLine("alipay", "agreement", 8_000)]
    async with module_stage.db.begin("operator") as tx:
        await set_price_plan(tx, module_stage.shop.merchant.id, Mode.SANDBOX, lines)


async def offer(stage: Stage, **terms: Any) -> Any:
    asked = {
        "merchant_agreement_no": new_number(),
        "channel": "alipay",
        "plan": PLAN,
        "display_name": "member",
        "return_url": "https://shop.example/member",
        **terms,
    }
    return await stage.call(stage.client.agreements.create, **asked)


async def visit(stage: Stage, agreement: Any) -> None:
    """Let the customer follow the redirect and sign."""
    await stage.control("alipay/visit", url=agreement["next_action"]["url"], action="pay")
    await stage.idle()


async def signed(stage: Stage, **terms: Any) -> Any:
    agreement = await offer(stage, **terms)
    await visit(stage, agreement)
    return await read(stage, agreement)


async def read(stage: Stage, agreement: Any) -> Any:
    return await stage.call(stage.client.agreements.get, agreement["id"])


async def deduct(stage: Stage, agreement: Any, amount: int = 1000, **more: Any) -> Any:
    terms = {"merchant_order_no": new_number(), "subject": "a month", **more}
    method: Any = {"mode": "agreement", "agreement_id": agreement["id"]}
    return await stage.call(stage.client.payments.create, amount=amount, method=method, **terms)


def number_of(agreement: Any) -> str:
    return base32(parse("agr", agreement["id"]))


async def test_a_customer_signs_and_money_is_taken(stage: Stage) -> None:
    offered = await offer(stage, limit_each=1000)
    assert (offered["status"], offered["next_action"]["type"]) == ("pending", "redirect")

    await visit(stage, offered)
    agreement = await read(stage, offered)
    assert agreement["status"] == "active"
    assert "next_action" not in agreement
    assert await stage.events(agreement) == ["agreement.signed"]

    payment = await deduct(stage, agreement)
    assert payment["status"] == "succeeded"
    assert payment["method"] == {
        "channel": "alipay",
        "mode": "agreement",
        "agreement_id": agreement["id"],
    }
    assert (await read(stage, agreement))["amount_used"] == 1000
    assert await stage.postings(payment) == [
        ("payment.captured/gross", 1000),
        ("payment.captured/fee", 8),
    ]


async def test_the_same_number_is_the_same_agreement(stage: Stage) -> None:
    number = new_number()
    first = await offer(stage, merchant_agreement_no=number)

    assert (await offer(stage, merchant_agreement_no=number))["id"] == first["id"]
    with pytest.raises(Refused) as refused:
        await offer(stage, merchant_agreement_no=number, display_name="another")
    assert refused.value.code == "agreement.number_used"
    found = await stage.call(stage.client.agreements.find, number)
    assert found["id"] == first["id"]


@pytest.mark.parametrize(
    ("terms", "code"),
    [
        ({"channel": "unionpay"}, "agreement.not_offered"),
        ({"period": "month"}, "request.invalid_value"),
        ({"limit_per_period": 100}, "request.invalid_value"),
        ({"limit_each": 0}, "money.amount_out_of_range"),
        ({"return_url": "javascript:alert(1)"}, "request.invalid_value"),
        ({"plan": ""}, "request.invalid_value"),
    ],
)
async def test_what_cannot_be_offered_is_refused_by_name(
    stage: Stage, terms: Any, code: str
) -> None:
    with pytest.raises(Refused) as refused:
        await offer(stage, **terms)

    assert refused.value.code == code


async def test_limits_hold(stage: Stage) -> None:
    agreement = await signed(stage, limit_each=1000, period="day", limit_per_period=1500)

    with pytest.raises(Refused) as refused:
        await deduct(stage, agreement, 1001)
    assert refused.value.code == "agreement.limit_each"
    await deduct(stage, agreement, 1000)
    with pytest.raises(Refused) as refused:
        await deduct(stage, agreement, 501)
    assert refused.value.code == "agreement.limit_per_period"
    await deduct(stage, agreement, 500)
    assert (await read(stage, agreement))["amount_used"] == 1500

    await stage.advance(days=1)

    assert (await read(stage, agreement))["amount_used"] == 0
    assert (await deduct(stage, agreement, 1000))["status"] == "succeeded"


async def test_totals_hold_over_all_periods(stage: Stage) -> None:
    """What is agreed in all does not begin anew with a day; what was not taken comes back."""
    agreement = await signed(stage, limit_total=2500, payments_max=3)
    await deduct(stage, agreement, 1000)
    await stage.advance(days=1)
    with pytest.raises(Refused) as refused:
        await deduct(stage, agreement, 1501)
    assert refused.value.code == "agreement.limit_total"
    stage.fault("alipay", "pay", "time_out_unpaid")
    stage.fault("alipay", "query", "http_500", times=99)
    await deduct(stage, agreement, 1500)
    assert (await read(stage, agreement))["payments_used"] == 2
    await stage.advance(days=1)  # in another period than it was counted in
    stage.sandbox.delete("faults")
    await stage.advance(hours=2)
    after = await read(stage, agreement)
    assert (after["amount_used_total"], after["payments_used"]) == (1000, 1)

    for _ in range(2):
        await deduct(stage, agreement, 500)
    with pytest.raises(Refused) as refused:
        await deduct(stage, agreement, 1)
    assert refused.value.code == "agreement.payments_max"


async def test_rivals_take_no_more_than_all_that_was_agreed(stage: Stage) -> None:
    agreement = await signed(stage, limit_total=3000, payments_max=2)

    said = await asyncio.gather(
        *(deduct(stage, agreement, 1000) for _ in range(5)), return_exceptions=True
    )

    refused = [each.code for each in said if isinstance(each, Refused)]
    assert refused == ["agreement.payments_max"] * 3
    assert (await read(stage, agreement))["amount_used_total"] == 2000


async def test_rivals_take_no_more_than_was_agreed(stage: Stage) -> None:
    agreement = await signed(stage, period="day", limit_per_period=3000)

    said = await asyncio.gather(
        *(deduct(stage, agreement, 1000) for _ in range(7)), return_exceptions=True
    )

    refused = [each.code for each in said if isinstance(each, Refused)]
    assert refused == ["agreement.limit_per_period"] * 4
    assert (await read(stage, agreement))["amount_used"] == 3000


async def test_what_was_not_taken_counts_no_more(stage: Stage) -> None:
    agreement = await signed(stage, period="day", limit_per_period=1000)
    await stage.control("alipay/agreement", number=number_of(agreement), action="decline")

    payment = await deduct(stage, agreement, 1000)

    await stage.advance(minutes=40)
    ended = await stage.read(payment)
    assert ended["status"] in {"failed", "closed"}
    assert (await read(stage, agreement))["amount_used"] == 0
    await stage.control("alipay/agreement", number=number_of(agreement), action="pay")
    assert (await deduct(stage, agreement, 1000))["status"] == "succeeded"


async def test_an_unanswered_deduction_is_taken_once(stage: Stage) -> None:
    agreement = await signed(stage, period="day", limit_per_period=1000)
    stage.fault("alipay", "pay", "time_out_paid")

    payment = await deduct(stage, agreement, 1000)
    assert payment["status"] == "unknown"
    await stage.advance(minutes=1)

    assert (await stage.read(payment))["status"] == "succeeded"
    assert (await read(stage, agreement))["amount_used"] == 1000
    trade = await stage.trade_of(payment)
    assert trade is not None
    assert trade["amount"] == 1000


async def test_a_merchant_ends_it_and_nothing_is_taken_after(stage: Stage) -> None:
    agreement = await signed(stage)

    ended = await stage.call(stage.client.agreements.end, agreement["id"])

    assert ended["status"] == "ended"
    with pytest.raises(Refused) as refused:
        await deduct(stage, agreement)
    assert refused.value.code == "agreement.not_active"
    with pytest.raises(Refused) as refused:
        await stage.call(stage.client.agreements.end, agreement["id"])
    assert refused.value.code == "agreement.not_active"
    assert await stage.events(agreement) == ["agreement.signed", "agreement.ended"]


async def test_a_customer_ends_it_at_the_channel(stage: Stage) -> None:
    agreement = await signed(stage)

    await stage.control("alipay/agreement", number=number_of(agreement), action="end")
    await stage.idle()

    assert (await read(stage, agreement))["status"] == "ended"
    assert "agreement.ended" in await stage.events(agreement)


@pytest.mark.parametrize("fault", ["http_500_done", "http_500_not_done", "time_out_done", "reset"])
async def test_an_end_nobody_confirmed_is_chased(stage: Stage, fault: str) -> None:
    agreement = await signed(stage)
    stage.fault("alipay", "callback", "lost:9", number=number_of(agreement))
    stage.fault("alipay", "agreement", fault, number=number_of(agreement), times=2)
    stage.fault("alipay", "agreement_query", "http_500", number=number_of(agreement), times=2)

    ending = await stage.call(stage.client.agreements.end, agreement["id"])

    assert ending["status"] == "ending"
    with pytest.raises(Refused) as refused:
        await deduct(stage, agreement)
    assert refused.value.code == "agreement.not_active"
    for _ in range(4):
        await stage.advance(minutes=5)
    assert (await read(stage, agreement))["status"] == "ended"


async def test_nobody_signs_in_time(stage: Stage) -> None:
    agreement = await offer(stage, expires_in_s=600)

    for _ in range(3):
        await stage.advance(minutes=5)

    failed = await read(stage, agreement)
    assert (failed["status"], failed["code"]) == ("failed", OFFER_OVER)
    assert await stage.events(agreement) == ["agreement.failed"]
    with pytest.raises(Refused) as refused:
        await deduct(stage, agreement)
    assert refused.value.code == "agreement.not_active"


async def test_a_lost_callback_is_made_up_for_by_asking(stage: Stage) -> None:
    agreement = await offer(stage)
    stage.fault("alipay", "callback", "lost:9", number=number_of(agreement))
    await stage.control("alipay/visit", url=agreement["next_action"]["url"], action="pay")

    for _ in range(3):
        await stage.advance(minutes=1)

    assert (await read(stage, agreement))["status"] == "active"


async def test_anothers_agreement_is_nobodys(stage: Stage) -> None:
    agreement = await signed(stage)
    other = stage.client_of(await stage.open_shop())

    with pytest.raises(Refused) as refused:
        await stage.call(other.agreements.get, agreement["id"])

    assert refused.value.code == "agreement.not_found"


@pytest.mark.parametrize(
    ("method", "code"),
    [
        ({"mode": "agreement", "agreement_id": "agr_nonsense"}, "id.unknown"),
        (
            {"mode": "agreement", "agreement_id": f"agr_{base32(UUID(int=7))}"},
            "agreement.not_found",
        ),
    ],
)
async def test_what_is_no_agreement_is_refused(stage: Stage, method: Any, code: str) -> None:
    terms = {"merchant_order_no": new_number(), "subject": "a month", "method": method}

    with pytest.raises(Refused) as refused:
        await stage.call(stage.client.payments.create, amount=1, **terms)

    assert refused.value.code == code


# Whoever dies


def asked_of(stage: Stage) -> NewAgreement:
    over = {"merchant_id": stage.shop.merchant.id, "account_id": stage.accounts["alipay"]}
    return replace(ASKED, book=SANDBOX_BOOK, merchant_agreement_no=new_number(), **over)


ENDS = ("agreements.after_channel_call", "agreements.before_outcome", "agreements.after_outcome")


@pytest.mark.parametrize(
    "place", ["agreements.before_intention", "agreements.after_intention", *ENDS]
)
async def test_a_death_while_it_is_offered_leaves_one_offer(stage: Stage, place: str) -> None:
    asked, reach = asked_of(stage), reach_of(stage.flow)

    failpoints.arm(f"{place}:raise")
    with pytest.raises(SimulatedCrash):
        await offer_agreement(reach, asked, key_of(stage).write, new_id())
    failpoints.arm(None)
    for _ in range(2):
        await stage.advance(seconds=30)
    again = await offer_agreement(reach, asked, key_of(stage).write, new_id())

    assert again.state is AgreementState.PENDING
    assert isinstance(again.action, Redirect)


@pytest.mark.parametrize("place", ["agreements.after_end_request", *ENDS])
async def test_a_death_while_it_is_ended_ends_it(stage: Stage, place: str) -> None:
    reach, row = reach_of(stage.flow), await row_of(stage, await signed(stage))

    failpoints.arm(f"{place}:raise")
    with pytest.raises(SimulatedCrash):
        await end_agreement(reach, row, key_of(stage).write)
    failpoints.arm(None)
    for _ in range(3):
        await stage.advance(seconds=30)

    assert (await queries.agreement(stage.db, row.book, row.id)).state is AgreementState.ENDED


async def row_of(stage: Stage, agreement: Any) -> Agreement:
    return await queries.agreement(stage.db, SANDBOX_BOOK, parse("agr", agreement["id"]))


async def test_asking_twice_at_once_tells_once(stage: Stage) -> None:
    agreement = await offer(stage)
    stage.fault("alipay", "callback", "lost:9", number=number_of(agreement))
    await stage.control("alipay/visit", url=agreement["next_action"]["url"], action="pay")
    row, reach = await row_of(stage, agreement), reach_of(stage.flow)

    await asyncio.gather(*(ask(reach, row, "query") for _ in range(3)))

    assert await stage.events(agreement) == ["agreement.signed"]


async def test_the_limit_is_the_databases_too(stage: Stage) -> None:
    agreement = await signed(stage, period="day", limit_per_period=1000)
    row = await row_of(stage, agreement)

    with pytest.raises(Exception, match="agreement_check"):
        await stage.db.execute(
            "update agreement set used = 1001 where book = $1 and id = $2", (row.book, row.id)
        )
    assert row.check_usable(Money(1000, "CNY"), stage.db.clock.now()) is None


async def test_a_deduction_that_waited_sees_the_one_it_waited_for(stage: Stage) -> None:
    """One forced interleaving for the lock of the agreement's row."""
    agreement = await signed(stage, period="day", limit_per_period=1500)
    row = await row_of(stage, agreement)
    lock = "select 1 from agreement where book = $1 and id = $2 for update"

    async with holding(stage, lock, row.book, row.id) as rivals:
        for _ in range(2):
            await rivals.start(deduct(stage, agreement, 1000))
    said = await rivals.ends()

    assert [each.code for each in said if isinstance(each, Refused)] == [
        "agreement.limit_per_period"
    ]
    assert (await read(stage, agreement))["amount_used"] == 1000


# What is told beforehand


async def at_wechat(stage: Stage) -> Any:
    """An agreement that a customer signed in WeChat."""
    terms = {"channel": "wechat_pay", "plan": "12251", "payer_id": "oCustomer"}
    agreement = await offer(stage, **terms)
    number = (await row_of(stage, agreement)).number
    await stage.control("wechat/agreement", number=number)
    await stage.idle()
    assert (await read(stage, agreement))["status"] == "active"
    return agreement


async def test_a_customer_signs_out_of_the_merchants_app(stage: Stage) -> None:
    """The API hands on what opens the signature, and what is signed so can be taken under."""
    for signs_in, opened in (("app", "url"), ("mini_program", "signStr")):
        agreement = await offer(stage, signs_in=signs_in)
        assert agreement["next_action"]["type"] == "open_app"
        assert agreement["next_action"]["parameters"].keys() == {opened}
        url = agreement["next_action"]["parameters"][opened]
        await stage.control("alipay/visit", url=url, action="pay")
        await stage.idle()
        assert (await read(stage, agreement))["status"] == "active"
    terms = {"channel": "wechat_pay", "plan": "12251"}
    for signs_in, handed in (
        ("app", {"pre_entrustweb_id", "userName", "path"}),
        ("mini_program", {"pre_entrustweb_id", "appId", "path"}),
    ):
        agreement = await offer(stage, **terms, signs_in=signs_in)
        assert agreement["next_action"]["type"] == "open_app"
        assert agreement["next_action"]["parameters"].keys() == handed
        number = (await row_of(stage, agreement)).number
        await stage.control("wechat/agreement", number=number)
        await stage.idle()
        assert (await read(stage, agreement))["status"] == "active"


async def test_the_place_to_sign_is_part_of_the_offer_and_not_every_channels(
    stage: Stage,
) -> None:
    number = new_number()
    terms = {"channel": "wechat_pay", "plan": "12251", "merchant_agreement_no": number}
    await offer(stage, **terms, signs_in="app")
    for more, code in (
        ({**terms, "signs_in": "mini_program"}, "agreement.number_used"),
        ({"channel": "wallet", "signs_in": "app"}, "agreement.not_offered"),
    ):
        with pytest.raises(Refused) as refused:
            await offer(stage, **more)
        assert refused.value.code == code


async def announced(stage: Stage, agreement: Any, amount: int = 300, **once: Any) -> Any:
    return await stage.call(stage.client.agreements.announce, agreement["id"], amount, **once)


async def told(stage: Stage, agreement: Any) -> int:
    """How often the customer was told, as the channel has it."""
    seen = await stage.call(stage.sandbox.get, "requests", last=500)
    ref = (await row_of(stage, agreement)).agreement_ref
    return sum(each["target"].endswith(f"/{ref}/notify") for each in seen)


async def test_a_customer_is_told_once_for_each_request(stage: Stage) -> None:
    agreement, key = await at_wechat(stage), new_number()

    first = await announced(stage, agreement, idempotency_key=key)
    again = await announced(stage, agreement, idempotency_key=key)

    assert first == again
    assert (first["status"], first["amount"], first["currency"]) == ("announced", 300, "CNY")
    assert await told(stage, agreement) == 1
    row = await row_of(stage, agreement)
    kept = await queries.exchanges_of_agreement(stage.db, row)
    assert [each.outcome for each in kept if each.purpose == "announce"] == ["announced"]


async def test_what_cannot_be_taken_is_not_announced(stage: Stage) -> None:
    agreement = await at_wechat(stage)
    elsewhere = await signed(stage)
    await stage.call(stage.client.agreements.end, agreement["id"])
    for wanted, amount, code in (
        (agreement, 300, "agreement.not_active"),
        (elsewhere, 300, "agreement.announcing_not_offered"),
        (elsewhere, 0, "money.amount_out_of_range"),
    ):
        with pytest.raises(Refused) as refused:
            await announced(stage, wanted, amount)
        assert refused.value.code == code
    stranger = stage.client_of(await stage.open_shop())
    with pytest.raises(Refused) as refused:
        await stage.call(stranger.agreements.announce, agreement["id"], 300)
    assert refused.value.code == "agreement.not_found"
    assert await told(stage, agreement) == 0


async def test_an_announcement_that_is_refused_or_unanswered_says_so(stage: Stage) -> None:
    agreement = await at_wechat(stage)
    stage.fault("wechat_pay", "agreement", "time_out_done")
    assert (await announced(stage, agreement))["status"] == "unknown"
    number = (await row_of(stage, agreement)).number
    await stage.control("wechat/agreement", number=number, action="end")
    refused = await announced(stage, agreement)
    assert refused["status"] == "refused"
    assert refused["code"]


@pytest.mark.parametrize(
    ("place", "times"),
    [("agreements.before_announcement", 0), ("agreements.after_announcement", 1)],
)
async def test_a_death_while_announcing_tells_nobody_twice(
    stage: Stage, place: str, times: int
) -> None:
    agreement, key = await at_wechat(stage), key_of(stage)
    row, money = await row_of(stage, agreement), Money(300, "CNY")

    failpoints.arm(f"{place}:raise")
    with pytest.raises(SimulatedCrash):
        await announce_deduction(reach_of(stage.flow), row, money, key.write)
    failpoints.arm(None)
    with pytest.raises(InFlight):
        await announce_deduction(reach_of(stage.flow), row, money, key.write)

    assert await told(stage, agreement) == times
    said = await earlier_announcement(reach_of(stage.flow), row, money, new_id())
    assert said.status == "unknown"
