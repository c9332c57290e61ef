"""Every status and code of the reference page is answered to what its example says."""

from __future__ import annotations

from datetime import timedelta
from typing import get_args
from uuid import UUID

import pytest
from msgspec.structs import replace

from tests.ledger.making import (
    ALICE,
    BANK,
    BOB,
    MERCHANT,
    NOTE,
    a_calling_domain,
    again,
    group,
    note,
    pending,
    post,
    single,
    void,
)
from tongbao.infra.db import Db
from tongbao.kernel.errors import Busy
from tongbao.kernel.ids import derived_id, new_id
from tongbao.kernel.money import AMOUNT_MAX
from tongbao.ledger.book import Ledger
from tongbao.ledger.model import AccountState, Group, Status, TransferKind
from tools.ledger_results import EXAMPLES, STATUSES, group_codes

WHY = {"actor": "tests", "because": "tests"}
SHOWN_ELSEWHERE = {
    "ledger.account_kind_not_licensed": "tests/ledger/test_chart.py, in an aggregator's database",
    "ledger.counter_overflow": "tests/ledger/decision/test_core.py: 400 transfers of the largest",
    "ledger.id_archived": "tests/ledger/archive",
    "ledger.overloaded": "tests of the lane, whose queue is full there",
}


@pytest.fixture
def balances():
    """Answers do not depend on when balances follow."""
    return "with_commit"


@pytest.fixture
async def funded(ledger: Ledger) -> Ledger:
    """Alice has 100 yuan."""
    await ledger.submit([group(single(10_000, BANK, ALICE))])
    return ledger


async def answer(ledger, *transfers, **more):
    [result] = await ledger.submit([group(*transfers, **more)])
    return result.status, result.code


def ending(hold, kind, **more):
    return replace(void(hold), kind=kind, **more)


async def submitted_again(ledger, changed, *transfers):
    """Answer a group and then, under its id, another body."""
    first = group(*transfers)
    await ledger.submit([first])
    [result] = await ledger.submit([Group(first.id, 1, changed(transfers))])
    return result.status, result.code


# What each example is, by its code; every one is given a ledger in which Alice has 100 yuan.


async def account_closed(ledger, db):
    await ledger.submit([group(single(1, BANK, BOB), single(1, BOB, BANK))])
    await ledger.set_account_state(1, BOB, AccountState.CLOSED, **WHY)
    return await answer(ledger, single(1000, BANK, BOB))


async def account_frozen(ledger, db):
    await ledger.set_account_state(1, ALICE, AccountState.FROZEN, **WHY)
    assert await answer(ledger, single(1000, BANK, ALICE)) == ("created", None)
    return await answer(ledger, single(1000, ALICE, MERCHANT))


async def account_kind_unknown(ledger, db):
    return await answer(ledger, single(1, BANK, replace(ALICE, kind="gold")))


async def account_owner_wrong(ledger, db):
    return await answer(ledger, single(1, BANK, replace(ALICE, owner=None)))


async def amount_out_of_range(ledger, db):
    assert (await answer(ledger, single(AMOUNT_MAX + 1, BANK, ALICE)))[0] == "refused"
    return await answer(ledger, single(0, BANK, ALICE))


async def book_frozen(ledger, db):
    await ledger.set_book_frozen(1, True, **WHY)
    return await answer(ledger, single(1, BANK, ALICE))


async def book_stopped(ledger, db):
    await ledger.close()
    await db.execute("update ledger_book set stopped_because = 'verify', epoch = epoch + 1", ())
    return await answer(ledger, single(1, BANK, ALICE))


async def currency_mismatch(ledger, db):
    return await answer(ledger, single(1, ALICE, replace(BOB, currency="USD")))


async def currency_unknown(ledger, db):
    return await answer(ledger, single(1, BANK, replace(ALICE, currency="ZZZ")))


async def exceeds_balance(ledger, db):
    assert (await answer(ledger, single(30_000, ALICE, MERCHANT)))[0] == "refused"
    await ledger.submit([group(pending(3000, ALICE, MERCHANT))])
    return await answer(ledger, single(8000, ALICE, MERCHANT))


async def exceeds_ceiling(ledger, db):
    await ledger.submit([group(single(48_000, BANK, BOB))])
    await ledger.set_account_limits(1, BOB, floor=0, ceiling=50_000, **WHY)
    return await answer(ledger, single(5000, BANK, BOB))


async def exists_different(ledger, db):
    return await submitted_again(
        ledger, lambda sent: sent[:1], single(1, BANK, BOB), single(2, BANK, BOB)
    )


async def exists_different_accounts(ledger, db):
    other = replace(MERCHANT, owner=UUID(int=7))
    return await submitted_again(
        ledger, lambda sent: (replace(sent[0], credit=other),), single(3000, ALICE, MERCHANT)
    )


async def exists_different_amount(ledger, db):
    return await submitted_again(
        ledger, lambda sent: (replace(sent[0], amount=3100),), single(3000, ALICE, MERCHANT)
    )


async def exists_different_code(ledger, db):
    return await submitted_again(
        ledger,
        lambda sent: (replace(sent[0], kind=TransferKind.PENDING),),
        single(3000, ALICE, MERCHANT),
    )


async def exists_different_order(ledger, db):
    def another_reference(sent):
        return (replace(sent[0], reference=derived_id(sent[0].reference, "another")),)

    return await submitted_again(ledger, another_reference, single(3000, ALICE, MERCHANT))


async def expiry_past(ledger, db):
    yesterday = db.clock.now() - timedelta(days=1)
    return await answer(ledger, pending(1, ALICE, MERCHANT, expires_at=yesterday))


async def group_too_long(ledger, db):
    return await answer(ledger, *(single(1, BANK, ALICE) for _ in range(1001)))


async def hold_already_posted(ledger, db):
    hold = pending(10, ALICE, MERCHANT)
    await ledger.submit([group(hold, post(hold))])
    return await answer(ledger, post(hold))


async def hold_already_voided(ledger, db):
    hold = pending(10, ALICE, MERCHANT)
    await ledger.submit([group(hold), group(void(hold))])
    return await answer(ledger, post(hold))


async def hold_exceeded(ledger, db):
    hold = pending(1000, ALICE, MERCHANT)
    await ledger.submit([group(hold)])
    return await answer(ledger, post(hold, 1100))


async def hold_expired(ledger, db):
    hold = pending(10, ALICE, MERCHANT, expires_at=db.clock.now() + timedelta(hours=1))
    await ledger.submit([group(hold)])
    db.clock.offset += timedelta(hours=2)
    return await answer(ledger, post(hold))


async def hold_missing(ledger, db):
    return await answer(ledger, post(pending(10, ALICE, MERCHANT)))


async def hold_not_due(ledger, db):
    hold = pending(10, ALICE, MERCHANT, expires_at=db.clock.now() + timedelta(hours=1))
    await ledger.submit([group(hold)])
    return await answer(ledger, ending(hold, TransferKind.EXPIRE))


async def id_out_of_order(ledger, db):
    tomorrow = new_id().int + (24 * 3600 * 1000 << 80)
    reference = UUID(int=tomorrow)
    late = replace(single(1, BANK, ALICE), id=derived_id(reference, "leg"), reference=reference)
    return await answer(ledger, late)


async def in_flight(ledger, db: Db):
    await a_calling_domain(db)
    write = note("kept")
    async with db.begin("somebody else") as tx:
        await NOTE.run(tx, *write.args)
        return await answer(ledger, single(1, BANK, ALICE), companions=[write])


async def same_account(ledger, db):
    return await answer(ledger, single(1, ALICE, ALICE))


async def transfer_exists(ledger, db):
    fact = single(1, BANK, ALICE)
    await ledger.submit([group(fact)])
    return await answer(ledger, fact)


async def transfer_malformed(ledger, db):
    hold = pending(10, ALICE, MERCHANT)
    await ledger.submit([group(hold)])
    return await answer(ledger, replace(void(hold), amount=10))


SHOWN = {code: globals().get(code.partition(".")[2]) for code in EXAMPLES}


def test_every_status_and_code_is_on_the_page():
    assert set(STATUSES) == set(get_args(Status))
    assert set(EXAMPLES) == set(group_codes())
    assert {code for code, shown in SHOWN.items() if shown is None} == set(SHOWN_ELSEWHERE)


@pytest.mark.parametrize("code", sorted(set(EXAMPLES) - set(SHOWN_ELSEWHERE)))
async def test_an_example_is_answered_as_the_page_says(db, funded, code):
    status, answered = await SHOWN[code](funded, db)
    assert answered == code
    refusal = group_codes()[code]
    if code.startswith("ledger.exists_different"):
        assert status == "exists_different"
    else:
        assert status == ("in_flight" if issubclass(refusal, Busy) else "refused")


async def test_each_status_is_given_for_its_example(db, funded):
    paid = group(single(3000, ALICE, MERCHANT))
    changed = Group(paid.id, 1, (again(paid.transfers[0], amount=3100),))
    dear = group(single(30_000, ALICE, MERCHANT))
    statuses = []
    for each in (paid, paid, changed, dear):
        statuses += [result.status for result in await funded.submit([each])]
    await funded.submit([group(single(100_000, BANK, ALICE))])
    statuses += [result.status for result in await funded.submit([dear])]
    await funded.set_book_frozen(1, True, **WHY)
    statuses += [result.status for result in await funded.submit([group(single(1, BANK, ALICE))])]
    assert statuses == list(STATUSES)
