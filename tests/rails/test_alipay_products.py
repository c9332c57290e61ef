"""What Alipay does beside collecting, against the sandbox: shares, payouts, agreements, parking."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from datetime import date, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from msgspec import structs

from tests.rails.alipay_desk import KINDS, PRICE, Desk, account_of
from tests.rails.wire_server import WireServer
from tongbao.infra.http import HttpClient
from tongbao.kernel.clock import business_date, real_now
from tongbao.kernel.ids import base32, new_id
from tongbao.kernel.money import Money
from tongbao.rails.channels.alipay.client import Alipay
from tongbao.rails.channels.alipay.crypto import notice_text, public_key, verify
from tongbao.rails.channels.alipay.products.parking import (
    ParkedCar,
    PlateChargeable,
    PlateNotChargeable,
)
from tongbao.rails.channels.alipay.secrets import AlipaySecrets
from tongbao.rails.channels.capabilities.agreements import (
    Agreeing,
    AgreementEnded,
    AgreementOffered,
    AgreementOrder,
    AgreementSigned,
    AgreementTerms,
    SignsIn,
)
from tongbao.rails.channels.capabilities.shares import (
    Receiver,
    RefundingShares,
    Share,
    SplitDone,
    SplitOrder,
    SplitReturn,
    Splitting,
    SplitUnderWay,
)
from tongbao.rails.channels.capabilities.transfers import TransferOrder, Transferring
from tongbao.rails.channels.contract.callbacks import Callback, CallbackKind
from tongbao.rails.channels.contract.orders import PayMode, PayOrder, RefundOrder
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Closed,
    Declined,
    NotSent,
    OpenApp,
    Pending,
    Redirect,
    Succeeded,
    Unknown,
)
from tongbao_sandbox.launch import RunningSandbox

SHOP = Receiver("userId", "2088722000000101", None, "SUPPLIER")
LOGIN = Receiver("loginName", "somebody@shop.example", "张三", "PARTNER")
LOST = [
    ("time_out_done", True),
    ("http_500_done", True),
    ("bad_signature_done", True),
    ("system_error_done", True),
    ("time_out_not_done", False),
    ("http_500_not_done", False),
    ("http_429", False),
    ("reset", False),
]
PLAN = "GENERAL_WITHHOLDING_P/INDUSTRY|CARRENTAL"


@pytest.fixture(params=KINDS)
async def desk(
    request: pytest.FixtureRequest,
    sandbox: RunningSandbox,
    http: HttpClient,
    far_end: WireServer,
) -> AsyncIterator[Desk]:
    """Every product works in every way an account can be set up."""
    made = Desk(sandbox, http, far_end)
    made.account = account_of(sandbox, far_end.url, request.param)
    await made.control("settings", **{"alipay.app_gateway": made.account.notify_url})
    yield made
    await made.control("settings", **{"alipay.app_gateway": ""})
    await asyncio.to_thread(sandbox.settle)


@pytest.fixture
async def plain(
    sandbox: RunningSandbox, http: HttpClient, far_end: WireServer
) -> AsyncIterator[Desk]:
    made = Desk(sandbox, http, far_end)
    yield made
    await asyncio.to_thread(sandbox.settle)


async def advance(desk: Desk, seconds: float) -> None:
    await asyncio.to_thread(desk.sandbox.advance, seconds)


async def news_of(desk: Desk, number: str) -> list[Callback]:
    """What was told about this number; the sandbox also tells of what other tests left behind."""
    told = [one for one in await desk.callbacks() if isinstance(one, Callback)]
    return [one for one in told if one.number == number]


# --- shares


async def paid_trade(desk: Desk) -> tuple[PayOrder, str]:
    order = desk.order(PayMode.IN_APP)
    ref = await desk.offer(order)
    await desk.scan(order)
    return order, ref


def split_of(ref: str, shares: Sequence[tuple[Receiver, int]], **changes: Any) -> SplitOrder:
    return SplitOrder(
        **{
            "number": base32(new_id()),
            "channel_ref": ref,
            "shares": [Share(one, Money(fen, "CNY"), "供货") for one, fen in shares],
            **changes,
        }
    )


async def test_shares_are_given_told_and_taken_back_with_a_refund(desk: Desk) -> None:
    channel, account = desk.channel, desk.account
    assert isinstance(channel, Splitting)
    assert isinstance(channel, RefundingShares)
    order, ref = await paid_trade(desk)
    for receiver in (SHOP, LOGIN):
        assert isinstance((await channel.add_receiver(account, receiver)).outcome, Succeeded)
    split = split_of(ref, [(SHOP, 300), (LOGIN, 200)])
    assert isinstance((await channel.query_split(account, split)).outcome, Absent)
    asked = await channel.split(account, split)
    assert isinstance(asked.outcome, SplitUnderWay), asked
    assert isinstance((await channel.split(account, split)).outcome, SplitUnderWay)  # a repeat
    waiting = (await channel.query_split(account, split)).outcome
    assert isinstance(waiting, SplitUnderWay)
    assert {result.state for result in waiting.results} == {"pending"}
    await advance(desk, 3)
    done = (await channel.query_split(account, split)).outcome
    assert isinstance(done, SplitDone), done
    assert {(one.account, one.money.amount, one.state) for one in done.results} == {
        (SHOP.account, 300, "succeeded"),
        (LOGIN.account, 200, "succeeded"),
    }
    [told] = await news_of(desk, split.number)
    assert told.kind is CallbackKind.SPLIT
    assert isinstance(told.outcome, Unknown)  # ask

    refund = RefundOrder(base32(new_id()), order.number, Money(1000, "CNY"), PRICE)
    back = SplitReturn(refund.number, split.number, ref, SHOP, Money(150, "CNY"))
    assert isinstance((await channel.query_split_return(account, back)).outcome, Absent)
    given = await channel.refund_with_shares(account, refund, [back])
    assert isinstance(given.outcome, Succeeded), given
    returned = (await channel.query_split_return(account, back)).outcome
    assert isinstance(returned, Succeeded)
    assert returned.money == back.money
    other = structs.replace(back, money=Money(151, "CNY"))
    assert isinstance((await channel.query_split_return(account, other)).outcome, Unknown)


@pytest.mark.parametrize(("fault", "is_done"), LOST)
async def test_a_split_whose_answer_is_lost_is_unknown_and_sent_again(
    plain: Desk, fault: str, is_done: bool
) -> None:
    _, ref = await paid_trade(plain)
    await plain.channel.add_receiver(plain.account, SHOP)
    split = split_of(ref, [(SHOP, 100)])
    plain.sandbox.fault("alipay", "split", fault, number=split.number)
    assert isinstance((await plain.channel.split(plain.account, split)).outcome, Unknown)
    found = (await plain.channel.query_split(plain.account, split)).outcome
    assert isinstance(found, SplitUnderWay if is_done else Absent)
    assert isinstance((await plain.channel.split(plain.account, split)).outcome, SplitUnderWay)
    await advance(plain, 3)
    assert isinstance((await plain.channel.query_split(plain.account, split)).outcome, SplitDone)


async def test_a_share_that_fails_says_why_and_the_others_stand(plain: Desk) -> None:
    _, ref = await paid_trade(plain)
    for receiver in (SHOP, LOGIN):
        await plain.channel.add_receiver(plain.account, receiver)
    split = split_of(ref, [(SHOP, 300), (LOGIN, 200)])
    plain.sandbox.fault("alipay", "split", "share_fails", number=split.number)
    await plain.channel.split(plain.account, split)
    await advance(plain, 3)
    done = (await plain.channel.query_split(plain.account, split)).outcome
    assert isinstance(done, SplitDone)
    by_account = {one.account: one for one in done.results}
    assert by_account[SHOP.account].state == "failed"
    assert by_account[SHOP.account].reason == "TXN_RESULT_ACCOUNT_BALANCE_NOT_ENOUGH"
    assert by_account[LOGIN.account].state == "succeeded"


async def test_what_alipay_will_not_share_is_declined(plain: Desk) -> None:
    _, ref = await paid_trade(plain)
    stranger = Receiver("userId", "2088722000000999")
    for shares, code in (
        ([(stranger, 100)], "ACQ.ROYALTY_RECEIVER_INVALID"),
        ([(SHOP, 2000)], "ACQ.ALLOC_AMOUNT_VALIDATE_ERROR"),
    ):
        await plain.channel.add_receiver(plain.account, SHOP)
        answer = await plain.channel.split(plain.account, split_of(ref, shares))
        assert isinstance(answer.outcome, Declined)
        assert answer.outcome.code == code
    missing = split_of("2026010122001000000", [(SHOP, 100)])
    assert isinstance((await plain.channel.split(plain.account, missing)).outcome, Declined)
    nobody = Receiver("userId", "2088722000000000")
    gone = await plain.channel.add_receiver(plain.account, nobody)
    assert isinstance(gone.outcome, Declined)


async def test_a_used_number_with_other_shares_is_never_called_declined(plain: Desk) -> None:
    _, ref = await paid_trade(plain)
    await plain.channel.add_receiver(plain.account, SHOP)
    split = split_of(ref, [(SHOP, 100)])
    await plain.channel.split(plain.account, split)
    other = split_of(ref, [(SHOP, 101)], number=split.number)
    assert isinstance((await plain.channel.split(plain.account, other)).outcome, Unknown)
    assert isinstance((await plain.channel.query_split(plain.account, other)).outcome, Unknown)


async def test_a_receiver_forgotten_gets_nothing_and_the_rest_is_freed(plain: Desk) -> None:
    _, ref = await paid_trade(plain)
    receiver = Receiver("userId", "2088722000000555")
    await plain.channel.add_receiver(plain.account, receiver)
    await plain.channel.remove_receiver(plain.account, receiver)
    answer = await plain.channel.split(plain.account, split_of(ref, [(receiver, 100)]))
    assert isinstance(answer.outcome, Declined)
    await plain.channel.add_receiver(plain.account, receiver)
    freed = split_of(ref, [])
    assert isinstance((await plain.channel.unfreeze(plain.account, freed)).outcome, SplitUnderWay)
    late = await plain.channel.split(plain.account, split_of(ref, [(receiver, 100)]))
    assert isinstance(late.outcome, Declined)


async def test_a_share_alone_does_not_come_back_and_no_split_is_empty(plain: Desk) -> None:
    back = SplitReturn("r", "s", "2026", SHOP, Money(1, "CNY"))
    before = len(plain.sandbox.get("requests", last=1000))
    assert isinstance((await plain.channel.return_split(plain.account, back)).outcome, NotSent)
    empty = split_of("2026", [])
    assert isinstance((await plain.channel.split(plain.account, empty)).outcome, NotSent)
    assert len(plain.sandbox.get("requests", last=1000)) == before


async def test_no_name_and_no_login_stays_in_the_evidence(plain: Desk) -> None:
    bound = await plain.channel.add_receiver(plain.account, LOGIN)
    paid = await plain.channel.transfer(plain.account, payout(payee_kind="ALIPAY_LOGON_ID"))
    for answer in (bound, paid):
        assert isinstance(answer.outcome, Succeeded)
        shown = repr(answer.exchange)
        assert "张三" not in shown
        assert "somebody@" not in shown


# --- payouts


def payout(**changes: Any) -> TransferOrder:
    fields: dict[str, Any] = {
        "number": base32(new_id()),
        "payee": "2088722000000201",
        "payee_kind": "ALIPAY_USER_ID",
        "payee_name": "张三",
        "money": Money(8800, "CNY"),
        "title": "佣金",
        "notes": (("remark", "七月"), ("payer_show_name_use_alias", "true")),
    }
    if changes.get("payee_kind") == "ALIPAY_LOGON_ID":
        fields["payee"] = "somebody@shop.example"
    return TransferOrder(**{**fields, **changes})


async def test_a_payout_is_made_once_and_told(desk: Desk) -> None:
    assert isinstance(desk.channel, Transferring)
    order = payout()
    assert isinstance((await desk.channel.query_transfer(desk.account, order)).outcome, Absent)
    first = await desk.channel.transfer(desk.account, order)
    again = await desk.channel.transfer(desk.account, order)
    assert isinstance(first.outcome, Succeeded), first
    assert first.outcome == again.outcome
    found = await desk.channel.query_transfer(desk.account, order)
    assert isinstance(found.outcome, Succeeded)
    assert (found.outcome.channel_ref, found.outcome.money) == (
        first.outcome.channel_ref,
        order.money,
    )
    [told] = await news_of(desk, order.number)
    assert told.kind is CallbackKind.TRANSFER


@pytest.mark.parametrize(("fault", "is_done"), LOST)
async def test_a_payout_whose_answer_is_lost_is_unknown_and_found(
    plain: Desk, fault: str, is_done: bool
) -> None:
    order = payout()
    plain.sandbox.fault("alipay", "transfer", fault, number=order.number)
    assert isinstance((await plain.channel.transfer(plain.account, order)).outcome, Unknown)
    found = (await plain.channel.query_transfer(plain.account, order)).outcome
    assert isinstance(found, Succeeded if is_done else Absent)


@pytest.mark.parametrize(
    ("changes", "fault", "code"),
    [
        ({}, "not_enough", "PAYER_BALANCE_NOT_ENOUGH"),
        ({"payee": "2088722000000000"}, "", "PAYEE_NOT_EXIST"),
        ({"payee_kind": "ALIPAY_LOGON_ID", "payee_name": None}, "", "PAYEE_USER_INFO_ERROR"),
        ({"money": Money(9, "CNY")}, "", "EXCEED_LIMIT_SM_MIN_AMOUNT"),
    ],
)
async def test_a_payout_is_declined_only_when_alipay_then_knows_nothing_of_it(
    plain: Desk, changes: dict[str, Any], fault: str, code: str
) -> None:
    order = payout(**changes)
    if fault:
        plain.sandbox.fault("alipay", "transfer", fault, number=order.number)
    answer = await plain.channel.transfer(plain.account, order)
    assert isinstance(answer.outcome, Declined), answer
    assert answer.outcome.code == code
    assert "common.query" in answer.exchange.reply  # it was asked


async def test_a_payout_is_waited_for_and_may_fail_or_come_back(plain: Desk) -> None:
    ends = {"success": Succeeded, "fail": Declined, "refund": Declined}
    for state, kind in ends.items():
        order = payout()
        plain.sandbox.fault("alipay", "transfer", "dealing", number=order.number)
        assert isinstance((await plain.channel.transfer(plain.account, order)).outcome, Pending)
        found = await plain.channel.query_transfer(plain.account, order)
        assert isinstance(found.outcome, Pending)
        await plain.control("alipay/transfer", number=order.number, state=state)
        found = await plain.channel.query_transfer(plain.account, order)
        assert isinstance(found.outcome, kind), (state, found)


async def test_a_used_number_for_another_payout_is_never_called_declined(plain: Desk) -> None:
    order = payout()
    await plain.channel.transfer(plain.account, order)
    other = structs.replace(order, money=Money(8801, "CNY"))
    assert isinstance((await plain.channel.transfer(plain.account, other)).outcome, Unknown)
    assert isinstance((await plain.channel.query_transfer(plain.account, other)).outcome, Unknown)


# --- what is paid stays frozen until it is shared


@pytest.mark.parametrize("mode", sorted(Alipay.modes - {PayMode.AGREEMENT}))
async def test_an_order_to_be_shared_stays_frozen(plain: Desk, mode: PayMode) -> None:
    kept = plain.account.secrets
    assert isinstance(kept, AlipaySecrets)
    account = structs.replace(plain.account, secrets=structs.replace(kept, profit_sharing=True))
    made = plain.sandbox.post("customer/payment-code", channel="alipay")
    code = {"auth_code": made["auth_code"]} if mode is PayMode.PAYMENT_CODE else {}
    order = plain.order(mode, **code)
    answer = await plain.channel.pay(account, order)
    if mode in {PayMode.WEB, PayMode.H5, PayMode.APP}:
        assert isinstance(answer.outcome, Pending)
        assert isinstance(answer.outcome.action, Redirect | OpenApp)
        offered = answer.outcome.action
        text = offered.url if isinstance(offered, Redirect) else offered.parameters["orderString"]
        await plain.visit(text)
    [trade] = plain.sandbox.get("trades", channel="alipay", number=order.number)
    assert trade["extra"]["frozen"] is True


async def test_the_split_that_finishes_frees_the_rest(plain: Desk) -> None:
    kept = plain.account.secrets
    assert isinstance(kept, AlipaySecrets)
    plain.account = structs.replace(
        plain.account, secrets=structs.replace(kept, profit_sharing=True)
    )
    order = plain.order(PayMode.QR)
    await plain.channel.pay(plain.account, order)
    await plain.scan(order)
    paid = (await plain.channel.query(plain.account, order)).outcome
    assert isinstance(paid, Succeeded)
    split = SplitOrder(base32(new_id()), paid.channel_ref, [])
    assert isinstance((await plain.channel.unfreeze(plain.account, split)).outcome, SplitUnderWay)
    [trade] = plain.sandbox.get("trades", channel="alipay", number=order.number)
    assert trade["extra"]["frozen"] is False


# --- agreements


def agreement(**changes: Any) -> AgreementOrder:
    fields: dict[str, Any] = {
        "number": base32(new_id()),
        "plan": PLAN,
        "display_name": "顾客甲",
        "return_url": "https://shop.example/signed",
    }
    return AgreementOrder(**{**fields, **changes})


async def sign(desk: Desk, order: AgreementOrder) -> AgreementSigned:
    offered = (await desk.channel.offer_agreement(desk.account, order)).outcome
    assert isinstance(offered, AgreementOffered)
    assert isinstance(offered.action, Redirect)
    await desk.visit(offered.action.url)
    signed = (await desk.channel.query_agreement(desk.account, order)).outcome
    assert isinstance(signed, AgreementSigned), signed
    return signed


async def test_an_agreement_is_offered_signed_charged_and_ended(desk: Desk) -> None:
    channel, account, order = desk.channel, desk.account, agreement()
    assert isinstance(channel, Agreeing)
    offer = await channel.offer_agreement(account, order)
    assert offer.exchange.status is None
    assert order.display_name not in repr(offer.exchange)
    assert isinstance((await channel.query_agreement(account, order)).outcome, Absent)
    assert isinstance(offer.outcome, AgreementOffered)
    assert isinstance(offer.outcome.action, Redirect)
    await desk.visit(offer.outcome.action.url, "abandon")
    looked = await channel.query_agreement(account, order)
    assert looked.outcome == AgreementOffered()
    signed = await sign(desk, order)
    assert signed.agreement_ref.startswith("GENERAL_WITHHOLDING/")
    assert signed.ends_at is not None
    assert signed.ends_at > signed.at

    paying = desk.order(PayMode.AGREEMENT, agreement_ref=signed.agreement_ref)
    taken = await channel.pay(account, paying)
    assert isinstance(taken.outcome, Succeeded), taken
    assert (taken.outcome.money, taken.outcome.payer) == (PRICE, signed.payer)
    again = await channel.pay(account, paying)
    assert isinstance(again.outcome, Succeeded)
    assert again.outcome.channel_ref == taken.outcome.channel_ref

    ended = await channel.end_agreement(account, order, signed.agreement_ref, "不再需要")
    assert isinstance(ended.outcome, AgreementEnded)
    stopped = await channel.query_agreement(account, order)
    assert isinstance(stopped.outcome, AgreementEnded)
    twice = await channel.end_agreement(account, order, signed.agreement_ref, "")
    assert isinstance(twice.outcome, Absent)
    late = await channel.pay(
        account, desk.order(PayMode.AGREEMENT, agreement_ref=signed.agreement_ref)
    )
    assert isinstance(late.outcome, Declined)
    assert late.outcome.code == "ACQ.AGREEMENT_INVALID"
    told = await news_of(desk, order.number)
    assert {one.kind for one in told} == {CallbackKind.AGREEMENT}
    assert len({one.notification_id for one in told}) == 2  # signed, and ended
    assert all(one.app_id == account.app_id for one in told)
    assert all(isinstance(one.outcome, Unknown) for one in told)


IN_THE_APP = "alipays://platformapi/startapp?appId=60000157&appClearTop=false&startMultApp=YES"


@pytest.mark.parametrize("signs_in", ["app", "mini_program"])
async def test_an_agreement_is_signed_out_of_an_app(desk: Desk, signs_in: SignsIn) -> None:
    order = agreement(signs_in=signs_in)
    offered = (await desk.channel.offer_agreement(desk.account, order)).outcome
    assert isinstance(offered, AgreementOffered)
    assert isinstance(offered.action, OpenApp)
    [(name, opened)] = offered.action.parameters.items()
    before, _, escaped = opened.rpartition("&sign_params=")
    expected = {"app": ("url", IN_THE_APP), "mini_program": ("signStr", "")}
    assert (name, before) == expected[signs_in]
    assert re.fullmatch(r"[\w.~%-]+", escaped, re.ASCII), "one value, so escaped once more"
    fields = dict(parse_qsl(unquote(escaped), strict_parsing=True))
    assert fields["method"] == "alipay.user.agreement.page.sign"
    assert json.loads(fields["biz_content"])["access_params"] == {"channel": "ALIPAYAPP"}

    with pytest.raises(ValueError, match=r"isv\.invalid-signature"):
        await desk.visit(opened.replace("CARRENTAL", "CHARGING"))
    await desk.visit(opened)

    signed = (await desk.channel.query_agreement(desk.account, order)).outcome
    assert isinstance(signed, AgreementSigned), signed


# --- agreements to be charged from time to time (周期扣款)

PERIODIC = "CYCLE_PAY_AUTH_P/INDUSTRY|DIGITAL_MEDIA"


def periodic(desk: Desk, **changes: Any) -> AgreementOrder:
    today = business_date(datetime.fromisoformat(desk.sandbox.get("clock")["now"]))
    fields: dict[str, Any] = {
        "begins": today.replace(day=min(today.day, 28)),  # later days begin next month
        "period": "month",
        "limit_each": PRICE,
        "limit_per_period": Money(5000, "CNY"),
    }
    return agreement(plan=PERIODIC, terms=AgreementTerms(**{**fields, **changes}))


async def rules_of(desk: Desk, order: AgreementOrder) -> dict[str, Any]:
    offered = (await desk.channel.offer_agreement(desk.account, order)).outcome
    assert isinstance(offered, AgreementOffered), offered
    assert isinstance(offered.action, Redirect)
    fields = dict(parse_qsl(urlsplit(offered.action.url).query))
    content = json.loads(fields["biz_content"])
    assert content["product_code"] == "GENERAL_WITHHOLDING"
    rules: dict[str, Any] = content["period_rule_params"]
    return rules


@pytest.mark.parametrize(
    ("changes", "rules"),
    [
        ({}, {"period_type": "MONTH", "period": 1, "execute_time": "2030-01-28"}),
        ({"period": "week"}, {"period_type": "DAY", "period": 7}),
        ({"period": "year"}, {"period_type": "MONTH", "period": 12}),
        ({"begins": date(2030, 1, 29)}, {"execute_time": "2030-02-01"}),
        ({"begins": date(2030, 12, 31)}, {"execute_time": "2031-01-01"}),
        (
            {"begins": date(2030, 1, 31), "period": "week"},
            {"period_type": "DAY", "period": 7, "execute_time": "2030-01-31"},
        ),
        ({"limit_each": None}, {"single_amount": "50.00"}),
        ({"limit_per_period": Money(7, "CNY")}, {"single_amount": "0.07"}),
        ({"limit_total": Money(60000, "CNY")}, {"total_amount": "600.00"}),
        ({"payments_max": 12}, {"total_payments": 12}),
    ],
)
async def test_a_periodic_agreement_is_offered_with_its_rules(
    plain: Desk, changes: dict[str, Any], rules: dict[str, Any]
) -> None:
    told = await rules_of(plain, periodic(plain, **{"begins": date(2030, 1, 28), **changes}))
    expected = {
        "period_type": "MONTH",
        "period": 1,
        "execute_time": "2030-01-28",
        "single_amount": "19.99",
    }
    assert told == {**expected, **rules}


@pytest.mark.parametrize(
    "changes",
    [None, {"period": None}, {"period": "day"}, {"limit_each": None, "limit_per_period": None}],
)
async def test_a_periodic_agreement_without_rules_is_not_offered(
    plain: Desk, changes: dict[str, Any] | None
) -> None:
    order = agreement(plan=PERIODIC) if changes is None else periodic(plain, **changes)
    answer = await plain.channel.offer_agreement(plain.account, order)
    assert isinstance(answer.outcome, NotSent)


async def test_other_agreements_are_offered_without_rules(plain: Desk) -> None:
    order = structs.replace(periodic(plain), plan=PLAN)
    offered = (await plain.channel.offer_agreement(plain.account, order)).outcome
    assert isinstance(offered, AgreementOffered)
    assert isinstance(offered.action, Redirect)
    assert "period_rule_params" not in offered.action.url


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"limit_each": Money(1998, "CNY")}, "SINGLE_FEE_EXCEED"),
        ({"limit_total": Money(3997, "CNY")}, "TOTAL_FEE_EXCEED"),
        ({"payments_max": 1}, "TOTAL_TIMES_EXCEED"),
        ({"begins": date(2099, 1, 1)}, "DATE_NOT_MATCH"),
    ],
)
async def test_what_a_periodic_agreement_does_not_allow_is_declined(
    plain: Desk, changes: dict[str, Any], code: str
) -> None:
    signed = await sign(plain, periodic(plain, **changes))
    assert signed.agreement_ref.startswith("CYCLE_PAY_AUTH/")
    outcomes = []
    for _ in range(2):
        paying = plain.order(PayMode.AGREEMENT, agreement_ref=signed.agreement_ref)
        outcomes.append((await plain.channel.pay(plain.account, paying)).outcome)
    assert isinstance(outcomes[1], Declined)
    assert outcomes[1].code == f"ACQ.CYCLE_PAY_{code}"
    assert isinstance(outcomes[0], Succeeded) is code.startswith("TOTAL")


async def test_whoever_signed_comes_back_with_a_signed_address(plain: Desk) -> None:
    offered = (await plain.channel.offer_agreement(plain.account, agreement())).outcome
    assert isinstance(offered, AgreementOffered)
    assert isinstance(offered.action, Redirect)
    told = await plain.visit(offered.action.url)
    fields = dict(parse_qsl(urlsplit(told["returned"]).query))
    key = public_key(plain.sandbox.credentials["alipay"]["alipay_public_key_pem"])
    assert fields["status"] == "NORMAL"
    assert verify(key, notice_text(fields), fields["sign"])


async def test_a_customer_may_have_too_little_money_or_end_it_alone(plain: Desk) -> None:
    order = agreement()
    signed = await sign(plain, order)
    await plain.control("alipay/agreement", number=order.number, action="decline")
    paying = plain.order(PayMode.AGREEMENT, agreement_ref=signed.agreement_ref)
    poor = await plain.channel.pay(plain.account, paying)
    assert isinstance(poor.outcome, Declined)
    assert poor.outcome.code == "ACQ.BUYER_BALANCE_NOT_ENOUGH"
    await plain.control("alipay/agreement", number=order.number, action="end")
    found = await plain.channel.query_agreement(plain.account, order)
    assert isinstance(found.outcome, AgreementEnded)


@pytest.mark.parametrize("fault", ["time_out_paid", "http_500_paid", "bad_signature_paid"])
async def test_a_charge_under_an_agreement_whose_answer_is_lost_is_found_or_undone(
    plain: Desk, fault: str
) -> None:
    signed = await sign(plain, agreement())
    paying = plain.order(PayMode.AGREEMENT, agreement_ref=signed.agreement_ref)
    plain.sandbox.fault("alipay", "pay", fault, number=paying.number)
    assert isinstance((await plain.channel.pay(plain.account, paying)).outcome, Unknown)
    found = await plain.channel.query(plain.account, paying)
    assert isinstance(found.outcome, Succeeded)
    undone = await plain.channel.close(plain.account, paying)
    assert isinstance(undone.outcome, Closed)
    assert undone.outcome.code == "refund"


@pytest.mark.parametrize(("fault", "is_done"), LOST)
async def test_an_ending_whose_answer_is_lost_is_unknown(
    plain: Desk, fault: str, is_done: bool
) -> None:
    order = agreement()
    signed = await sign(plain, order)
    plain.sandbox.fault("alipay", "agreement", fault, number=order.number)
    ending = await plain.channel.end_agreement(
        plain.account, order, signed.agreement_ref, "不再需要"
    )
    assert isinstance(ending.outcome, Unknown)
    found = (await plain.channel.query_agreement(plain.account, order)).outcome
    assert isinstance(found, AgreementEnded if is_done else AgreementSigned)


async def test_an_agreement_for_another_product_is_a_contradiction(plain: Desk) -> None:
    order = agreement()
    await sign(plain, order)
    other = structs.replace(order, plan="CYCLE_PAY_AUTH_P/INDUSTRY|CARRENTAL")
    found = await plain.channel.query_agreement(plain.account, other)
    assert isinstance(found.outcome, Unknown)


# --- car parks


def car(**changes: Any) -> ParkedCar:
    fields: dict[str, Any] = {
        "number": base32(new_id()),
        "plate": f"浙A{base32(new_id())[-5:].upper()}",
        "plate_colour": "BLUE",
        "lot": "PI1501317472942184881",
        "own_lot": "west-gate",
        "entered_at": real_now(),
    }
    return ParkedCar(**{**fields, **changes})


async def bound_car(desk: Desk) -> ParkedCar:
    order, one = agreement(), car()
    await sign(desk, order)
    await desk.control("alipay/plate", plate=one.plate, number=order.number)
    return one


async def test_a_car_drives_in_pays_and_drives_out(desk: Desk) -> None:
    channel, account = desk.channel, desk.account
    one = await bound_car(desk)
    assert (await channel.enter_car_park(account, one)).outcome == PlateChargeable()
    order = desk.order(PayMode.AGREEMENT)
    paid = await channel.pay_parking(account, order, one)
    assert isinstance(paid.outcome, Succeeded), paid
    assert paid.outcome.money == PRICE
    left = await channel.leave_car_park(account, one, one.entered_at + timedelta(hours=1))
    assert left.outcome is None
    found = await channel.query(account, order)
    assert isinstance(found.outcome, Succeeded)
    assert found.outcome.channel_ref == paid.outcome.channel_ref
    [told] = await news_of(desk, order.number)
    assert told.kind is CallbackKind.PAYMENT


async def test_a_plate_nobody_bound_is_not_charged(plain: Desk) -> None:
    stranger = car()
    entered = await plain.channel.enter_car_park(plain.account, stranger)
    assert isinstance(entered.outcome, PlateNotChargeable)
    order = plain.order(PayMode.AGREEMENT)
    fee = await plain.channel.pay_parking(plain.account, order, stranger)
    assert isinstance(fee.outcome, Declined)
    assert fee.outcome.code == "ACQ.AGREEMENT_NOT_EXIST"


@pytest.mark.parametrize("fault", ["time_out_paid", "http_500_paid", "bad_signature_paid"])
async def test_a_fee_whose_answer_is_lost_is_unknown_and_found(plain: Desk, fault: str) -> None:
    one = await bound_car(plain)
    order = plain.order(PayMode.AGREEMENT)
    plain.sandbox.fault("alipay", "pay", fault, number=order.number)
    assert isinstance((await plain.channel.pay_parking(plain.account, order, one)).outcome, Unknown)
    assert isinstance((await plain.channel.query(plain.account, order)).outcome, Succeeded)
    again = await plain.channel.pay_parking(plain.account, order, one)
    assert isinstance(again.outcome, Unknown)  # refused for what the first call did


@pytest.mark.parametrize("fault", ["time_out_not_done", "http_500_done", "bad_signature_done"])
async def test_a_car_whose_coming_may_be_unheard_is_unknown(plain: Desk, fault: str) -> None:
    one = await bound_car(plain)
    plain.sandbox.fault("alipay", "parking", fault, number=one.plate)
    entered = await plain.channel.enter_car_park(plain.account, one)
    assert isinstance(entered.outcome, Unknown)
