"""What UnionPay tells of money set aside, in every state and with every disturbance.

All disturbances of a state at once: each has a payment of its own, and time moves once for all of
them. UnionPay alone of the channels that send notices sets money aside.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.payments.everywhere import open_everywhere
from tests.payments.letters import Letter, Postman, states_of_callbacks
from tests.stage import Stage
from tongbao.kernel.money import Money
from tongbao.payments.authorisations import queries

CHANNEL = "unionpay"
AMOUNT, TAKEN = 1999, 1500
DISTURBED = ("lost", "late", "doubled", "reordered", "forged", "wrong_amount", "other_merchant")
GOOD = {200, 204}


@pytest.fixture(scope="module", autouse=True)
async def every_channel(module_stage: Stage) -> None:
    await open_everywhere(module_stage)


# The states that a payment is in when its notice comes


async def asked(stage: Stage) -> Any:
    """A payment whose money the merchant wants set aside."""
    return await stage.show_qr(CHANNEL, AMOUNT, capture="manual", capture_within_s=7 * 86400)


async def offered(stage: Stage) -> list[Any]:
    """The customers have let the money be set aside, and nobody has told us."""
    payments = [await asked(stage) for _ in DISTURBED]
    for payment in payments:
        await stage.fault_of(payment, "callback", "lost", times=-1)
        await stage.customer(payment)
    return payments


async def unknown(stage: Stage) -> list[Any]:
    stage.fault(CHANNEL, "callback", "lost", times=len(DISTURBED))
    stage.fault(CHANNEL, "pay", "time_out_paid", times=len(DISTURBED))
    return [await asked(stage) for _ in DISTURBED]


async def authorised(stage: Stage) -> list[Any]:
    payments = await offered(stage)
    await stage.advance(minutes=6)
    return payments


async def capturing(stage: Stage) -> list[Any]:
    """They were asked to collect it, did, and did not say so."""
    payments = await authorised(stage)
    stage.fault(CHANNEL, "callback", "lost", times=len(DISTURBED))
    stage.fault(CHANNEL, "pay", "time_out_paid", times=len(DISTURBED))
    for payment in payments:
        await stage.call(stage.client.payments.capture, payment["id"], amount=TAKEN)
    return payments


async def captured(stage: Stage) -> list[Any]:
    payments = await capturing(stage)
    await stage.advance(minutes=1)
    return payments


async def voided(stage: Stage) -> list[Any]:
    payments = await authorised(stage)
    stage.fault(CHANNEL, "callback", "lost", times=len(DISTURBED))
    for payment in payments:
        await stage.call(stage.client.payments.void, payment["id"])
    await stage.advance(minutes=2)
    return payments


STATES: dict[Callable[[Stage], Awaitable[list[Any]]], tuple[str, str]] = {
    offered: ("pending", "authorised"),
    unknown: ("unknown", "authorised"),
    authorised: ("authorised", "authorised"),
    capturing: ("capturing", "succeeded"),
    captured: ("succeeded", "succeeded"),
    voided: ("voided", "voided"),
}
"""What a payment is in each, and at the end, whatever became of the notice."""
EVENTS = {
    "authorised": ["payment.authorised"],
    "succeeded": ["payment.authorised", "payment.captured", "payment.succeeded"],
    "voided": ["payment.authorised", "payment.voided"],
}


class Held:
    """A payment whose money is set aside, and how to tell of it, or of what was collected."""

    def __init__(self, stage: Stage, payment: Any, trade: dict[str, Any], capture: str) -> None:
        self.stage, self.payment = stage, payment
        self.number, self.ref = str(trade["number"]), str(trade["ref"])
        self.capture = capture

    async def letter(self, postman: Postman, *, is_taken: bool, **lies: Any) -> Letter:
        account = await postman.account(CHANNEL)
        facts = {"number": self.number, "money": Money(AMOUNT, "CNY"), "ref": self.ref}
        if is_taken:
            [there] = await asyncio.to_thread(
                self.stage.sandbox.get, "trades", channel=CHANNEL, number=self.capture
            )
            facts = {"number": self.capture, "money": Money(TAKEN, "CNY"), "ref": there["ref"]}
        facts |= lies
        held = postman.institution.held
        return await asyncio.to_thread(
            lambda: held(
                account, facts.pop("number"), facts.pop("money"), is_taken=is_taken, **facts
            )
        )

    async def tell(self, postman: Postman, **lies: Any) -> int:
        """Tell the newest of it: what was collected, or else what was set aside."""
        letter = await self.letter(postman, **{"is_taken": bool(self.capture), **lies})
        return (await postman.deliver(await postman.account(CHANNEL), letter)).status_code


async def disturb(what: str, told: Held, postman: Postman) -> None:
    """Let one thing go wrong with the notice; ``late`` and ``lost`` tell nothing now."""
    amount = TAKEN if told.capture else AMOUNT
    match what:
        case "doubled":
            account = await postman.account(CHANNEL)
            letter = await told.letter(postman, is_taken=bool(told.capture))
            replies = await asyncio.gather(*(postman.deliver(account, letter) for _ in range(10)))
            assert all(reply.is_success for reply in replies)
        case "reordered":
            assert await told.tell(postman) in GOOD
            assert await told.tell(postman, is_taken=False) in GOOD, "older news, told later"
        case "forged":
            assert await told.tell(postman, variant="forged") == 500
        case "wrong_amount":
            assert await told.tell(postman, money=Money(amount + 1, "CNY")) in GOOD
        case "other_merchant":
            assert await told.tell(postman, mchid="1900009999") in GOOD


async def told_of(stage: Stage, payment: Any) -> Held:
    trade = await stage.trade_of(payment)
    assert trade is not None
    made = await queries.completions_of_payment(stage.db, await stage.row_of(payment))
    captures = [each.number for each in made if each.kind == "capture"]
    return Held(stage, payment, trade, captures[0] if captures else "")


@pytest.mark.parametrize("state", STATES, ids=[state.__name__ for state in STATES])
async def test_what_is_set_aside_ends_the_same_whatever_is_told_of_it(
    stage: Stage, postman: Postman, state: Callable[[Stage], Awaitable[list[Any]]]
) -> None:
    before, after = STATES[state]
    payments = dict(zip(DISTURBED, await state(stage), strict=True))
    assert {(await stage.read(payment))["status"] for payment in payments.values()} == {before}
    told = {what: await told_of(stage, payment) for what, payment in payments.items()}

    for what, held in told.items():
        await disturb(what, held, postman)
    await stage.idle()
    await stage.advance(minutes=6)
    assert await told["late"].tell(postman) in GOOD
    await stage.idle()

    for what, held in told.items():
        end = await stage.read(held.payment)
        taken = TAKEN if after == "succeeded" else 0
        assert (end["status"], end["amount_captured"]) == (after, taken), what
        assert await stage.events(held.payment) == EVENTS[after], what
        moved = [code for code, _ in await stage.postings(held.payment)]
        expected = ["payment.captured/gross", "payment.captured/fee"] if taken else []
        assert moved == expected, what
        about = await stage.cases(held.payment)
        assert ("amount_differs" in about) == (what == "wrong_amount"), (what, about)
    numbers = {what: held.capture or held.number for what, held in told.items()}
    assert await states_of_callbacks(stage, numbers["other_merchant"]) == ["mismatched"]
    assert await states_of_callbacks(stage, numbers["forged"]) == []
