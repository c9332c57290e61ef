"""Money that is set aside first: captured once, voided, let go in time, whatever is silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from tests.payments.issuer import Issuer
from tests.payments.test_interleavings import holding, key_of
from tests.stage import Stage, new_number
from tongbao.infra import failpoints
from tongbao.infra.db import Db
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.kernel.money import Money
from tongbao.payments.authorisations import queries
from tongbao.payments.authorisations.completions import (
    PaymentNotAuthorised,
    capture_payment,
    let_go,
    void_payment,
)
from tongbao.payments.authorisations.outcomes import ask_channel, record_completion_news
from tongbao.payments.callbacks.inbox import receive
from tongbao.payments.collecting.outcomes import Evidence, LetGo, record_news
from tongbao.rails.channels.contract.outcomes import Authorised, Closed, Succeeded
from tongbao_sdk import Refused
from tongbao_sdk.replies import Payment

AMOUNT = 1999
CODE = "13" + "4567890123456789"


@pytest.fixture
async def issuer(stage: Stage) -> AsyncIterator[Issuer]:
    """An issuer in the place of a channel that cannot set money aside."""
    channels: Any = stage.flow.channels
    kept = channels["wechat_pay"]
    channels["wechat_pay"] = issuer = Issuer(stage.db.clock)
    yield issuer
    issuer.faults = {}
    await stage.advance(hours=3)  # nothing of this test is under way in the next one
    channels["wechat_pay"] = kept


async def set_aside(stage: Stage, **more: Any) -> Payment:
    """Ask for money to be set aside, for two hours."""
    terms = {
        "merchant_order_no": new_number(),
        "subject": "a room",
        "capture": "manual",
        "capture_within_s": 7200,
        **more,
    }
    method = {"mode": "payment_code", "auth_code": CODE}
    return await stage.call(stage.client.payments.create, amount=AMOUNT, method=method, **terms)


async def capture(stage: Stage, payment: Payment, amount: int | None = None, **more: Any) -> Any:
    asking = stage.client.payments.capture
    return await stage.call(asking, payment["id"], amount=amount, **more)


async def void(stage: Stage, payment: Payment, **more: Any) -> Any:
    return await stage.call(stage.client.payments.void, payment["id"], **more)


async def completions(stage: Stage, payment: Payment) -> list[tuple[str, str, int]]:
    made = await queries.completions_of_payment(stage.db, await stage.row_of(payment))
    return [(each.kind, str(each.state), each.amount) for each in made]


def held(issuer: Issuer) -> Any:
    [found] = issuer.held.values()
    return found


async def test_what_is_set_aside_is_in_nobodys_books(stage: Stage, issuer: Issuer) -> None:
    payment = await set_aside(stage)

    assert (payment["status"], payment["capture"]) == ("authorised", "manual")
    assert (payment["amount_authorised"], payment["amount_captured"]) == (AMOUNT, 0)
    assert "succeeded_at" not in payment
    assert await stage.postings(payment) == []
    assert await stage.events(payment) == ["payment.authorised"]
    with pytest.raises(Refused) as refused:
        await stage.refund(payment, 100)
    assert refused.value.code == "refund.payment_not_captured"
    with pytest.raises(Refused) as refused:
        await stage.close(payment)
    assert refused.value.code == "payment.not_closable"


async def test_a_part_is_captured_and_only_that_is_booked(stage: Stage, issuer: Issuer) -> None:
    payment = await capture(stage, await set_aside(stage), 1500)

    assert (payment["status"], payment["amount_captured"]) == ("succeeded", 1500)
    fee = payment["fee"]
    assert fee == 11, "seven in a thousand of what was captured"
    assert await stage.postings(payment) == [
        ("payment.captured/gross", 1500),
        ("payment.captured/fee", fee),
    ]
    told = await stage.events(payment)
    assert sorted(told) == ["payment.authorised", "payment.captured", "payment.succeeded"]
    assert held(issuer).taken.amount == 1500


async def test_no_more_than_was_captured_is_given_back(stage: Stage, issuer: Issuer) -> None:
    payment = await capture(stage, await set_aside(stage), 1500)

    with pytest.raises(Refused) as refused:
        await stage.refund(payment, 1501)
    assert refused.value.code == "refund.exceeds_captured"
    assert (await stage.refund(payment, 1500))["status"] == "succeeded"
    assert [each.money.amount for each in issuer.refunds.values()] == [1500]


class Interrupted:
    """The database, where something happens after so many answers."""

    def __init__(self, db: Db, answers: int, then: Callable[[], Awaitable[object]]) -> None:
        self._db, self._answers, self._then = db, answers, then

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    async def fetch(self, sql: str, args: Sequence[object]) -> list[Any]:
        found = await self._db.fetch(sql, args)
        self._answers -= 1
        if self._answers == 0:
            await self._then()
        return found


@pytest.mark.parametrize("answers", [1, 2, 3])
async def test_it_is_let_go_while_somebody_else_looks_at_it(
    stage: Stage, issuer: Issuer, answers: int
) -> None:
    """Three rows change together, and are read one after the other."""
    payment = await set_aside(stage)
    issuer.faults |= {"void": ["not done"] * 2, "query_authorisation": ["silence"] * 2}
    await void(stage, payment)
    [open_one] = await queries.completions_of_payment(stage.db, await stage.row_of(payment))
    assert open_one.state.is_open, open_one
    news, evidence = Closed("done"), Evidence("query")

    async def hear_first() -> None:
        await record_completion_news(stage.flow, open_one, news, evidence)

    interrupted: Any = Interrupted(stage.db, answers, hear_first)
    flow = replace(stage.flow, db=interrupted)
    told = await record_completion_news(flow, open_one, news, evidence)

    assert told.state == "succeeded"
    assert await stage.events(payment) == ["payment.authorised", "payment.voided"]


@pytest.mark.parametrize(
    ("amount", "code"),
    [
        (AMOUNT + 1, "payment.capture_exceeds_authorised"),
        (0, "money.amount_out_of_range"),
        (-1, "money.amount_out_of_range"),
    ],
)
async def test_what_cannot_be_captured_is_refused_by_name(
    stage: Stage, issuer: Issuer, amount: int, code: str
) -> None:
    payment = await set_aside(stage)

    with pytest.raises(Refused) as refused:
        await capture(stage, payment, amount)

    assert refused.value.code == code
    assert issuer.asked["capture"] == 0
    assert (await stage.read(payment))["status"] == "authorised"


async def test_another_currency_is_refused(stage: Stage, issuer: Issuer) -> None:
    payment = await set_aside(stage)

    with pytest.raises(Refused) as refused:
        await capture(stage, payment, 100, currency="USD")

    assert refused.value.code == "payment.capture_currency_differs"


async def test_a_channel_that_only_collects_sets_nothing_aside(stage: Stage) -> None:
    with pytest.raises(Refused) as refused:
        await set_aside(stage)

    assert refused.value.code == "payment.capture_not_offered"


@pytest.mark.parametrize("fault", ["done", "not done", "pending"])
async def test_a_capture_nobody_answered_is_asked_about_until_it_is_known(
    stage: Stage, issuer: Issuer, fault: str
) -> None:
    payment = await set_aside(stage)
    issuer.faults = {"capture": [fault]}

    capturing = await capture(stage, payment)

    assert (capturing["status"], capturing["amount_capturing"]) == ("capturing", AMOUNT)
    assert await stage.postings(payment) == []
    await stage.advance(minutes=1)
    captured = await stage.read(payment)
    assert (captured["status"], captured["amount_captured"]) == ("succeeded", AMOUNT)
    assert await completions(stage, payment) == [("capture", "succeeded", AMOUNT)]
    assert held(issuer).taken.amount == AMOUNT


async def test_an_unknown_capture_keeps_the_payment_capturing(stage: Stage, issuer: Issuer) -> None:
    payment = await set_aside(stage)
    issuer.faults = {"capture": ["not done"] * 99, "query_capture": ["silence"] * 99}
    await capture(stage, payment)

    await stage.advance(hours=1, minutes=59)  # its time is not over yet

    assert (await stage.read(payment))["status"] == "capturing"
    assert await stage.cases(payment) == ["undecided"]
    for asking in (capture(stage, payment), void(stage, payment)):
        with pytest.raises(Refused) as refused:
            await asking
        assert refused.value.code == "payment.not_authorised"
    await stage.advance(hours=2)
    assert (await stage.read(payment))["status"] == "capturing", "nothing is let go meanwhile"
    issuer.faults = {}
    await stage.advance(hours=2)
    assert (await stage.read(payment))["status"] == "succeeded"


@pytest.mark.parametrize("fault", ["decline", "refused"])
async def test_a_capture_that_provably_failed_leaves_it_set_aside(
    stage: Stage, issuer: Issuer, fault: str
) -> None:
    payment = await set_aside(stage)
    issuer.faults = {"capture": [fault]}

    again = await capture(stage, payment, 1500)

    assert (again["status"], again["amount_captured"]) == ("authorised", 0)
    assert again["failure"]["code"] == ("51" if fault == "decline" else "channel.not_reached")
    captured = await capture(stage, payment, 1000)
    assert (captured["status"], captured["amount_captured"]) == ("succeeded", 1000)
    assert "failure" not in captured
    assert "payment.capture_failed" in await stage.events(payment)
    assert await completions(stage, payment) == [
        ("capture", "failed", 1500),
        ("capture", "succeeded", 1000),
    ]


async def test_a_refused_repeat_says_nothing_about_the_first_call(
    stage: Stage, issuer: Issuer
) -> None:
    """Nobody answered, and the repeat is refused: perhaps because the first call was not."""
    payment = await set_aside(stage)
    issuer.faults = {"capture": ["done", "decline"], "query_capture": ["silence", "silence"]}
    await capture(stage, payment)

    await stage.advance(seconds=11)
    assert (await stage.read(payment))["status"] == "capturing"
    await stage.advance(minutes=1)
    assert (await stage.read(payment))["status"] == "succeeded"


async def test_a_void_lets_go_and_nothing_is_captured_after(stage: Stage, issuer: Issuer) -> None:
    payment = await set_aside(stage)

    voided = await void(stage, payment)

    assert (voided["status"], voided["close_reason"]) == ("voided", "merchant")
    assert held(issuer).is_void
    assert await stage.postings(payment) == []
    assert await stage.events(payment) == ["payment.authorised", "payment.voided"]
    with pytest.raises(Refused) as refused:
        await capture(stage, payment)
    assert refused.value.code == "payment.not_authorised"


@pytest.mark.parametrize("fault", ["done", "not done", "pending"])
async def test_a_void_nobody_answered_is_gone_after(
    stage: Stage, issuer: Issuer, fault: str
) -> None:
    payment = await set_aside(stage)
    issuer.faults = {"void": [fault]}

    assert (await void(stage, payment))["status"] == "voiding"

    await stage.advance(minutes=1)
    assert (await stage.read(payment))["status"] == "voided"
    assert await completions(stage, payment) == [("void", "succeeded", AMOUNT)]


async def test_a_refused_void_leaves_it_set_aside(stage: Stage, issuer: Issuer) -> None:
    payment = await set_aside(stage)
    issuer.faults = {"void": ["decline"]}

    assert (await void(stage, payment))["status"] == "authorised"
    assert (await capture(stage, payment))["status"] == "succeeded"


async def test_what_nobody_captures_in_time_is_let_go_at_the_channel_first(
    stage: Stage, issuer: Issuer
) -> None:
    payment = await set_aside(stage)
    issuer.faults = {"void": ["not done"] * 2, "query_authorisation": ["silence"]}

    await stage.advance(hours=1, minutes=59)
    assert (await stage.read(payment))["status"] == "authorised"
    await stage.advance(minutes=2)
    assert (await stage.read(payment))["status"] == "voiding"
    for _ in range(2):
        await stage.advance(minutes=2)

    ended = await stage.read(payment)
    assert (ended["status"], ended["close_reason"]) == ("voided", "expired")
    assert held(issuer).is_void


async def test_a_channel_that_keeps_it_is_asked_again_and_people_are_told(
    stage: Stage, issuer: Issuer
) -> None:
    payment = await set_aside(stage)
    issuer.faults = {"void": ["decline"]}

    await stage.advance(hours=2, seconds=1)
    with pytest.raises(Refused) as refused:
        await capture(stage, payment)
    assert refused.value.code == "payment.authorisation_expired"
    assert await stage.cases(payment) == ["undecided"]

    await stage.advance(hours=2)
    assert (await stage.read(payment))["status"] == "voided"


async def test_an_unanswered_authorisation_is_found_out(stage: Stage, issuer: Issuer) -> None:
    issuer.faults = {"authorise": ["done"]}
    payment = await set_aside(stage)
    assert payment["status"] == "unknown"

    await stage.advance(seconds=3)

    assert (await stage.read(payment))["status"] == "authorised"
    assert issuer.asked["authorise"] == 1


async def test_who_calls_off_what_is_not_known_gets_it_let_go(stage: Stage, issuer: Issuer) -> None:
    issuer.faults = {"authorise": ["done"], "query_authorisation": ["silence"]}
    payment = await set_aside(stage)
    issuer.faults["close"] = ["silence"]

    assert (await stage.close(payment))["status"] == "unknown"
    await stage.advance(seconds=10)
    await stage.advance(seconds=10)

    ended = await stage.read(payment)
    assert (ended["status"], ended["close_reason"]) == ("voided", "merchant")
    assert held(issuer).is_void


async def test_what_is_set_aside_after_the_end_is_let_go(stage: Stage, issuer: Issuer) -> None:
    issuer.faults = {"authorise": ["not done"]}
    payment = await set_aside(stage)
    attempt = await stage.attempt_of(payment)
    await record_news(stage.flow, attempt, Closed("reversed"), Evidence("by hand"))
    await issuer.authorise(None, issuer.orders[0])  # type: ignore[arg-type]
    aside = held(issuer)
    news = Authorised(aside.ref, aside.money, aside.at, None, "A12345")

    await record_news(stage.flow, attempt, news, Evidence("callback"))
    await stage.idle()

    assert (await stage.read(payment))["status"] == "closed"
    assert await stage.events(payment) == ["payment.closed"]
    assert aside.is_void
    assert await completions(stage, payment) == [("void", "succeeded", AMOUNT)]


async def test_a_callback_tells_of_a_capture_by_its_own_number(
    stage: Stage, issuer: Issuer
) -> None:
    payment = await set_aside(stage)
    issuer.faults = {"capture": ["done"], "query_capture": ["silence"] * 99}
    await capture(stage, payment, 1500)
    account = await stage.flow.account(stage.accounts["wechat_pay"])
    letter = issuer.told_of_capture(held(issuer).taken_as)

    for _ in range(2):
        await receive(stage.flow, account, {}, letter)
        await stage.idle()

    assert (await stage.read(payment))["amount_captured"] == 1500
    assert (await stage.events(payment)).count("payment.captured") == 1


async def test_a_capture_of_another_amount_is_shown_to_people(stage: Stage, issuer: Issuer) -> None:
    payment = await set_aside(stage)
    issuer.faults = {"capture": ["done"] + ["not done"] * 5, "query_capture": ["silence"] * 5}
    await capture(stage, payment, 1500)
    taken = held(issuer).taken
    held(issuer).taken = type(taken)(AMOUNT, "CNY")
    account = await stage.flow.account(stage.accounts["wechat_pay"])

    await receive(stage.flow, account, {}, issuer.told_of_capture(held(issuer).taken_as))
    await stage.idle()

    assert "amount_differs" in await stage.cases(payment)
    assert (await stage.read(payment))["status"] == "capturing"
    held(issuer).taken, issuer.faults = taken, {}
    await stage.advance(minutes=2)
    assert (await stage.read(payment))["status"] == "succeeded"


async def test_a_success_under_the_orders_own_number_is_no_capture(
    stage: Stage, issuer: Issuer
) -> None:
    payment = await set_aside(stage)
    attempt = await stage.attempt_of(payment)
    news = Succeeded(new_number(), attempt.money, stage.db.clock.now())

    await record_news(stage.flow, attempt, news, Evidence("callback"))

    assert (await stage.read(payment))["status"] == "authorised"
    assert await stage.cases(payment) == ["contradiction"]


async def test_of_rivals_one_captures(stage: Stage, issuer: Issuer) -> None:
    payment = await set_aside(stage)
    key = new_number()

    said = await asyncio.gather(
        *(capture(stage, payment, 1000, idempotency_key=key) for _ in range(3)),
        capture(stage, payment, 900),
        void(stage, payment),
        return_exceptions=True,
    )

    refused = [each.code for each in said if isinstance(each, Refused)]
    assert set(refused) <= {"payment.not_authorised"}
    made = await completions(stage, payment)
    assert len([each for each in made if each[1] == "succeeded"]) == 1
    ended = await stage.read(payment)
    assert ended["status"] in {"succeeded", "voided"}
    assert (held(issuer).taken is None) == (ended["status"] == "voided")


async def test_the_same_key_is_the_same_capture(stage: Stage, issuer: Issuer) -> None:
    payment, key = await set_aside(stage), new_number()

    once = await capture(stage, payment, 1000, idempotency_key=key)
    again = await capture(stage, payment, 1000, idempotency_key=key)

    assert once == again
    assert issuer.asked["capture"] == 1


ASKED = ("authorisations.after_channel_call", "authorisations.before_outcome")
DECIDED = (*ASKED, "authorisations.after_outcome")
CAPTURED = ("authorisations.before_capture", "authorisations.after_capture_request", *DECIDED)
VOIDED = ("authorisations.before_void", "authorisations.after_void_request", *DECIDED)


@pytest.mark.parametrize("place", CAPTURED)
async def test_a_death_while_it_is_captured_takes_it_once(
    stage: Stage, issuer: Issuer, place: str
) -> None:
    payment = await set_aside(stage)
    row, part = await stage.row_of(payment), Money(1500, "CNY")

    failpoints.arm(f"{place}:raise")
    with pytest.raises(SimulatedCrash):
        await capture_payment(stage.flow, row, part, 11, take=key_of(stage).write)
    failpoints.arm(None)
    await stage.advance(minutes=5)

    if place == "authorisations.before_capture":
        assert (await stage.read(payment))["status"] == "authorised"
        await capture(stage, payment, 1500)
    captured = await stage.read(payment)
    assert (captured["status"], captured["amount_captured"]) == ("succeeded", 1500)
    assert await completions(stage, payment) == [("capture", "succeeded", 1500)]
    assert held(issuer).taken == part
    assert (await stage.events(payment)).count("payment.captured") == 1


@pytest.mark.parametrize("place", VOIDED)
async def test_a_death_while_it_is_voided_lets_it_go_once(
    stage: Stage, issuer: Issuer, place: str
) -> None:
    payment = await set_aside(stage)

    failpoints.arm(f"{place}:raise")
    with pytest.raises(SimulatedCrash):
        await void_payment(stage.flow, await stage.row_of(payment), "merchant")
    failpoints.arm(None)
    await stage.advance(minutes=5)

    if place == "authorisations.before_void":
        assert (await stage.read(payment))["status"] == "authorised"
        await void(stage, payment)
    assert (await stage.read(payment))["status"] == "voided"
    assert await completions(stage, payment) == [("void", "succeeded", AMOUNT)]
    assert (await stage.events(payment)).count("payment.voided") == 1


async def test_a_death_after_asking_asks_again(stage: Stage, issuer: Issuer) -> None:
    payment = await set_aside(stage)
    issuer.faults = {"capture": ["done"]}
    await capture(stage, payment)
    [made] = await queries.completions_of_payment(stage.db, await stage.row_of(payment))

    failpoints.arm("authorisations.after_query:raise")
    with pytest.raises(SimulatedCrash):
        await ask_channel(stage.flow, made)
    failpoints.arm(None)
    await stage.advance(minutes=5)

    assert (await stage.read(payment))["status"] == "succeeded"
    assert issuer.asked["capture"] == 1


async def test_a_late_authorisation_is_let_go_once_whoever_dies(
    stage: Stage, issuer: Issuer
) -> None:
    """Two workers may be told to let it go; one row does it."""
    issuer.faults = {"authorise": ["not done"]}
    payment = await set_aside(stage)
    attempt = await stage.attempt_of(payment)
    await record_news(stage.flow, attempt, Closed("reversed"), Evidence("by hand"))
    await issuer.authorise(None, issuer.orders[0])  # type: ignore[arg-type]
    aside = held(issuer)
    news = Authorised(aside.ref, aside.money, aside.at, None, "A12345")
    await record_news(stage.flow, attempt, news, Evidence("query", is_fresh=True))

    task = LetGo(attempt.book, attempt.id)
    await asyncio.gather(*(let_go(stage.flow, task, None) for _ in range(3)))  # type: ignore[arg-type]
    await stage.idle()

    assert await completions(stage, payment) == [("void", "succeeded", AMOUNT)]


# One forced interleaving per lock


async def test_a_capture_that_waited_sees_the_one_it_waited_for(
    stage: Stage, issuer: Issuer
) -> None:
    payment = await set_aside(stage)
    row = await stage.row_of(payment)
    lock = "select 1 from payment where book = $1 and id = $2 for update"

    async with holding(stage, lock, row.book, row.id) as rivals:
        for amount in (1000, 900):
            money = Money(amount, "CNY")
            rival = capture_payment(stage.flow, row, money, 7, take=key_of(stage).write)
            await rivals.start(rival)
    said = await rivals.ends()

    assert [type(each) for each in said].count(PaymentNotAuthorised) == 1
    assert len(await completions(stage, payment)) == 1
    assert held(issuer).taken.amount == (await stage.read(payment))["amount_captured"]


async def test_a_void_that_waited_sees_the_capture_it_waited_for(
    stage: Stage, issuer: Issuer
) -> None:
    payment = await set_aside(stage)
    row = await stage.row_of(payment)
    lock = "select 1 from payment where book = $1 and id = $2 for update"

    async with holding(stage, lock, row.book, row.id) as rivals:
        money = Money(AMOUNT, "CNY")
        await rivals.start(capture_payment(stage.flow, row, money, 14, take=key_of(stage).write))
        await rivals.start(void_payment(stage.flow, row, "merchant"))
    said = await rivals.ends()

    assert [type(each) for each in said].count(PaymentNotAuthorised) == 1
    [(kind, state, _)] = await completions(stage, payment)
    assert state == "succeeded"
    assert held(issuer).is_void == (kind == "void")
