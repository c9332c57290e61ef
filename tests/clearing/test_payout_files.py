"""Payouts by file: sent by two people, answered by the bank, and owed again exactly once."""

from __future__ import annotations

import asyncio
import csv
import io
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from tests.clearing.conftest import Day
from tests.clearing.settling import settle_day
from tests.clearing.test_settlement_batches import MAY
from tongbao.clearing.payouts import files as desk
from tongbao.clearing.payouts.chasing import ChaseFile, answer_due, run_chase_file
from tongbao.clearing.payouts.model import (
    AnswerMalformed,
    NothingToFile,
    Payout,
    PayoutFile,
    PayoutFileHeld,
    PayoutFileMoved,
)
from tongbao.clearing.payouts.queries import payout_with_id
from tongbao.clearing.settlement_terms.model import PaysBy, TermFigures
from tongbao.clearing.settlement_terms.terms import NewTerms, set_terms
from tongbao.controls.approvals.approvals import ApplyApproval, approve, run_apply
from tongbao.controls.approvals.model import Approvals, acts_of
from tongbao.infra import failpoints
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.infra.tasks import Lease
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Mode
from tongbao.kernel.papers.sheets import csv_line
from tongbao.ledger.verify import verify
from tongbao.parties.merchants.merchants import set_state
from tongbao.parties.merchants.model import MerchantState

VECTORS = Path(__file__).parents[1] / "vectors" / "iso20022"
RETURN = (
    "payouts.before_outcome",
    "payouts.after_outcome",
    "payouts.after_line",
    "ledger.before_commit",
    "ledger.after_commit",
)


async def by_file(day: Day, amount: int = 10_000) -> Payout:
    """A payout that waits for a file."""
    merchant = day.stage.shop.merchant.id
    async with day.db.begin("tests") as tx:
        terms = TermFigures(pays_by=PaysBy.BANK_FILE)
        await set_terms(tx, NewTerms(merchant, Mode.SANDBOX, day.date, terms))
    await day.paid("alipay", amount)
    await day.until(11, 30, days=1)
    [settled] = await settle_day(day.clearing, day.date, merchant_id=merchant, mode=Mode.SANDBOX)
    assert settled.payout_id is not None
    return await payout_with_id(day.db, settled.payout_id)


async def made(day: Day, **how: Any) -> PayoutFile:
    return await desk.make_file(day.clearing, Mode.SANDBOX, "CNY", actor="operator:anna", **how)


async def sent(day: Day, **how: Any) -> tuple[PayoutFile, bytes]:
    """A file that two people sent, with its bytes."""
    file = await made(day, **how)
    acts = acts_of(*desk.bound_acts(day.db))
    async with day.db.begin("operator:anna") as tx:
        approval = await desk.propose_send(tx, file.id, reason="today's payouts")
    async with day.db.begin("operator:bert") as tx:
        await approve(tx, acts, approval.id, digest=approval.digest.hex(), may=MAY)
    await run_apply(Approvals(day.db, acts), ApplyApproval(approval.id), Lease(new_id(), 1))
    file = await desk.file_with_id(day.db, file.id)
    return file, await desk.file_content(day.clearing, file)


def result(payout: Payout, status: str, **other: str) -> bytes:
    row = {
        "number": payout.number, "status": status, "currency": payout.currency,
        "amount": payout.money.decimal_text(), "reference": "B1", "at": "2026-11-23T10:00:00+08:00",
        "reason": "", **other,
    }  # fmt: skip
    header = desk.RESULT_HEADER
    return (csv_line(header) + csv_line([row[name] for name in header])).encode()


def booked_back(payout: Payout, account: str) -> bytes:
    """A camt.053 in which the bank books the payout on the credit side again."""
    return f"""<?xml version="1.0"?>
    <Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"><BkToCstmrStmt><Stmt>
    <Acct><Id><Othr><Id>{account}</Id></Othr></Id></Acct>
    <Ntry><Amt Ccy="CNY">{payout.money.decimal_text()}</Amt><CdtDbtInd>CRDT</CdtDbtInd>
    <Sts><Cd>BOOK</Cd></Sts><BookgDt><Dt>2026-11-25</Dt></BookgDt><AcctSvcrRef>R77</AcctSvcrRef>
    <NtryDtls><TxDtls><Refs><EndToEndId>{payout.number}</EndToEndId></Refs></TxDtls></NtryDtls>
    </Ntry></Stmt></BkToCstmrStmt></Document>""".encode()


async def take(day: Day, payout: Payout, content: bytes) -> desk.Answered:
    account = (await payout_with_id(day.db, payout.id)).account_id
    assert account is not None
    return await desk.take_answer(day.clearing, account, content, actor="operator:anna")


async def now(day: Day, payout: Payout) -> Payout:
    return await payout_with_id(day.db, payout.id)


async def our_account(day: Day, payout: Payout) -> str:
    account = await day.clearing.flow.account((await now(day, payout)).account_id)
    return str(account.secrets.debtor_account)


async def test_a_file_leaves_with_two_people_and_its_answers_end_its_payouts(day: Day) -> None:
    payout = await by_file(day)
    file = await made(day)
    with pytest.raises(PayoutFileMoved):
        await desk.file_content(day.clearing, file)
    async with day.db.begin("operator:anna") as tx:
        await desk.give_up_file(tx, file.id)
    file, content = await sent(day)

    assert (file.count, file.amount, file.state) == (1, payout.amount, "sent")
    schema = etree.XMLSchema(etree.parse(VECTORS / "pain.001.001.09.xsd"))
    schema.assertValid(etree.fromstring(content))
    assert content == await desk.file_content(day.clearing, file)
    assert (await now(day, payout)).state == "pending"
    with pytest.raises(NothingToFile):
        await made(day)
    assert await take(day, payout, result(payout, "paid")) == desk.Answered(1, 1)
    assert await take(day, payout, result(payout, "paid")) == desk.Answered(1, 1, was_known=True)
    await day.stage.idle()
    assert (await now(day, payout)).state == "succeeded"
    assert (await desk.file_with_id(day.db, file.id)).state == "answered"
    assert await day.booked("bank") == -payout.amount

    # Days later it comes back: owed again, once, and settled anew.
    back = booked_back(payout, await our_account(day, payout))
    assert (await take(day, payout, back)).applied == 1
    assert (await take(day, payout, back + b"\n")).applied == 0
    await day.stage.idle()
    assert (await now(day, payout)).state == "returned"
    assert await day.booked("bank") == 0
    assert await day.booked("merchant_payable", payout.merchant_id) == payout.amount
    rows = await day.db.fetch("select state from settlement", ())
    assert [row["state"] for row in rows] == ["returned"]
    await day.until(11, 30, days=2)
    [anew] = await settle_day(
        day.clearing, day.date + timedelta(days=1), merchant_id=payout.merchant_id,
        mode=Mode.SANDBOX,
    )  # fmt: skip
    assert (anew.other, anew.payable) == (payout.amount, payout.amount)
    await day.sound()


async def look(day: Day, file: PayoutFile) -> PayoutFile:
    """What the worker does when a file's time is over, in this task."""
    await run_chase_file(day.clearing, ChaseFile(file.id), Lease(new_id(), 1))
    return await desk.file_with_id(day.db, file.id)


async def test_a_file_that_is_not_answered_is_called_overdue_and_never_paid_again(
    day: Day,
) -> None:
    payout = await by_file(day)
    file, _ = await sent(day)
    assert file.sent_at is not None
    due = await answer_due(day.db, business_date(file.sent_at))
    await day.stage.advance(seconds=(due - day.now).total_seconds() - 60)
    assert (await desk.file_with_id(day.db, file.id)).state == "sent"

    failpoints.arm("payouts.before_overdue:raise")
    with pytest.raises(SimulatedCrash):
        await look(day, file)
    failpoints.arm(None)
    await day.stage.advance(minutes=2)
    assert (await look(day, file)).state == "overdue"
    assert (await look(day, file)).state == "overdue"
    told = await day.db.fetch(
        "select count(*) as n from audit_entry where action = 'payouts.file_overdue'", ()
    )
    assert told[0]["n"] == 1
    assert (await now(day, payout)).state == "pending"
    with pytest.raises(NothingToFile):
        await made(day)
    assert await day.booked("merchant_payable", payout.merchant_id) == 0

    assert (await take(day, payout, result(payout, "pending"))).applied == 0
    assert (await desk.file_with_id(day.db, file.id)).state == "overdue"
    assert (await take(day, payout, result(payout, "paid"))).applied == 1
    assert (await look(day, file)).state == "answered"
    assert (await now(day, payout)).sends == 1
    await day.sound()


@pytest.mark.parametrize("place", RETURN)
async def test_a_return_whose_reader_died_is_owed_again_once(day: Day, place: str) -> None:
    payout = await by_file(day)
    await sent(day, layout="csv")
    await take(day, payout, result(payout, "paid"))
    back = booked_back(payout, await our_account(day, payout))

    failpoints.arm(f"{place}:raise")
    with pytest.raises(SimulatedCrash):
        await take(day, payout, back)
    failpoints.arm(None)
    await take(day, payout, back)

    assert (await now(day, payout)).state == "returned"
    assert await day.booked("merchant_payable", payout.merchant_id) == payout.amount
    told = await day.db.fetch("select count(*) from event where type = 'payout.returned'", ())
    assert told[0][0] == 1
    report = await verify(day.db)
    assert report.is_sound, report.broken


async def test_a_return_beside_the_next_settlement_is_paid_once(day: Day) -> None:
    payout = await by_file(day)
    await sent(day)
    await take(day, payout, result(payout, "paid"))
    back = booked_back(payout, await our_account(day, payout))
    await day.until(11, 30, days=2)

    async def settle(days: int) -> None:
        which = day.date + timedelta(days=days)
        await settle_day(day.clearing, which, merchant_id=payout.merchant_id, mode=Mode.SANDBOX)

    await asyncio.gather(take(day, payout, back), take(day, payout, back), settle(1))
    await day.until(11, 30, days=4)
    await settle(3)

    rows = await day.db.fetch("select sum(payable) as paid from settlement where number > 1", ())
    assert rows[0]["paid"] == payout.amount
    assert await day.booked("merchant_payable", payout.merchant_id) == 0
    await day.sound()


async def test_what_the_bank_refuses_is_owed_again_and_what_is_odd_is_refused_whole(
    day: Day,
) -> None:
    payout = await by_file(day)
    _, content = await sent(day, layout="csv")
    [head, row] = list(csv.reader(io.StringIO(content.decode())))
    assert dict(zip(head, row, strict=True))["amount"] == payout.money.decimal_text()
    good = result(payout, "paid").decode()
    hostile = (
        b"",
        b"number,status\r\n",
        good.replace("paid", "maybe").encode(),
        good.replace("+08:00", "").encode(),
        good.replace("99.", "99.0").replace(payout.number, "nobody").encode(),
        good.encode() + b"broken line\r\n",
        b'<!DOCTYPE x [<!ENTITY a "b">]><Document>&a;</Document>',
        b"<Document xmlns='urn:iso:std:iso:20022:tech:xsd:camt.053.001.08'>",
        b"\xff\xfe\x00",
    )
    for bad in hostile:
        with pytest.raises(AnswerMalformed):
            await take(day, payout, bad)
    assert (await now(day, payout)).state == "pending"
    wrong = result(payout, "paid", amount="1.00")
    assert (await take(day, payout, wrong)).applied == 0
    assert (await now(day, payout)).contradiction
    assert (await take(day, payout, result(payout, "refused", reason="AC04"))).applied == 1
    after = await now(day, payout)
    assert (after.state, after.code) == ("failed", "AC04")
    assert await day.booked("merchant_payable", payout.merchant_id) == payout.amount
    await day.sound()


async def stands(day: Day, state: MerchantState) -> None:
    async with day.db.begin("tests") as tx:
        await set_state(tx, day.stage.shop.merchant.id, state, because="tests")


async def test_no_file_takes_out_the_money_of_a_merchant_that_is_held(day: Day) -> None:
    payout = await by_file(day)
    await stands(day, MerchantState.HELD)
    with pytest.raises(NothingToFile):
        await made(day)
    await stands(day, MerchantState.ACTIVE)
    file = await made(day)
    acts = acts_of(*desk.bound_acts(day.db))
    async with day.db.begin("operator:anna") as tx:
        approval = await desk.propose_send(tx, file.id, reason="today's payouts")

    # Held after the file was proposed: it stays, and so does the payout.
    await stands(day, MerchantState.STOPPED)
    async with day.db.begin("operator:bert") as tx:
        await approve(tx, acts, approval.id, digest=approval.digest.hex(), may=MAY)
    await run_apply(Approvals(day.db, acts), ApplyApproval(approval.id), Lease(new_id(), 1))
    assert (await desk.file_with_id(day.db, file.id)).state == "made"
    assert (await now(day, payout)).state == "requested"
    async with day.db.begin("operator:anna") as tx:
        await desk.give_up_file(tx, file.id)

    await stands(day, MerchantState.GONE)  # what is left is paid out at the end
    _, content = await sent(day)
    assert payout.number.encode() in content


async def test_a_file_with_a_held_merchants_payout_is_not_proposed(day: Day) -> None:
    await by_file(day)
    file = await made(day)
    await stands(day, MerchantState.HELD)
    async with day.db.begin("operator:anna") as tx:
        with pytest.raises(PayoutFileHeld):
            await desk.propose_send(tx, file.id, reason="today's payouts")
