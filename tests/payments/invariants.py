"""What must hold after every step of every flow, and what must hold once nothing is under way.

Read from the tables and from the sandbox, not through the code that is tested.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise
from typing import Any, Protocol

from tongbao.infra.db import Db
from tongbao.kernel.ids import base32, show
from tongbao.ledger.queries import caught_up
from tongbao.ledger.verify import verify
from tongbao.parties.merchants.merchants import SANDBOX_BOOK
from tongbao_sandbox.launch import RunningSandbox

_PAYMENTS = """
    select p.*, a.id as attempt_id, a.state as attempt_state, a.paid_at,
           coalesce(r.going, 0) as going, coalesce(r.fee_going, 0) as fee_going
      from payment p
      -- The one that is paid, or the latest: `assert_one_attempt_lives` looks at the others.
      join lateral (select * from attempt t where t.payment_id = p.id
                     order by t.paid_at is not null desc, t.id desc limit 1) a on true
      left join (select payment_id, sum(amount)::bigint as going, sum(fee_back)::bigint as fee_going
                   from refund where state <> 'failed' group by payment_id) r
        on r.payment_id = p.id"""
_CAPTURES = """
    select t.reference, c.code, count(*) as times, sum(t.amount)::bigint as amount
      from ledger_transfer t
      join ledger_code c on c.number = t.code
     where c.code in ('payment.captured/gross', 'payment.captured_by_wallet/gross',
                      'payment.captured_by_e_account/gross', 'late.captured/gross')
     group by t.reference, c.code"""
_HOLDS = """
    select t.reference, h.state, t.amount from ledger_hold h
      join ledger_transfer t on t.book = h.book and t.id = h.pending_id"""
_GIVEN_BACK = """
    select t.reference, count(*) as times, sum(t.amount)::bigint as amount
      from ledger_transfer t
      join ledger_code c on c.number = t.code
     where c.code in ('refund.succeeded/gross', 'refund.by_wallet/gross',
                      'refund.by_e_account/gross', 'refund.by_e_account_waiting/gross',
                      'late.refunded/gross')
     group by t.reference"""
_COMPLETIONS = """
    select c.*, p.amount as asked, p.captured, p.fee as payment_fee, p.state as payment_state
      from completion c join payment p on p.id = c.payment_id"""
_EVENTS = "select resource_id, type, count(*) as times from event group by resource_id, type"
_ENDS = ("payment.succeeded", "payment.failed", "payment.closed", "payment.voided")
_HELD = {"authorised", "capturing", "voiding"}
_CHANGES = """
    select payment_id, from_state, to_state from payment_state_change
     order by payment_id, version"""

BY_KIND = """
    select kind, owner, sum(case side when 'credit' then credits_posted - debits_posted
                                      else debits_posted - credits_posted end)::bigint as posted
      from ledger_account group by kind, owner"""
_MERCHANTS = """
    with money as (
        select merchant_id, captured - fee + fee_returned as amount from payment
         where state = 'succeeded'
        union all
        select merchant_id, -amount from refund where state = 'succeeded' and kind = 'merchant'
        union all
        -- held and not given back yet: the fee of it has come back already
        select merchant_id, 0 from refund where kind = 'merchant' and ended_at is null
        union all
        select merchant_id, -amount from dispute where state in ('lost', 'accepted')
        union all
        select merchant_id, -fee from dispute where state not in ('retrieval', 'closed')
        union all
        select merchant_id, -amount from payout where state = 'succeeded'
        union all
        select merchant_id, -amount from transfer_item where state = 'succeeded'
        union all
        -- shares, in the book and at channels: the giver's less, and more where a merchant gets one
        select s.merchant_id, -(h.amount - coalesce(b.amount, 0))
          from split_share h
          join split s on s.book = h.book and s.id = h.split_id
          left join (select book, share_id, sum(amount) as amount from split_return
                      where state = 'succeeded' group by book, share_id) b
            on b.book = h.book and b.share_id = h.id
         where h.state = 'succeeded'
        union all
        select r.party_id, h.amount - coalesce(b.amount, 0)
          from split_share h
          join split_receiver r on r.book = h.book and r.id = h.receiver_id
          left join (select book, share_id, sum(amount) as amount from split_return
                      where state = 'succeeded' group by book, share_id) b
            on b.book = h.book and b.share_id = h.id
         where h.state = 'succeeded' and r.kind = 'merchant'
        union all
        select (terms::jsonb -> 'credit' ->> 'owner')::uuid, (terms::jsonb ->> 'amount')::bigint
          from approval where act = 'ledger.adjust' and state = 'applied'
                          and terms::jsonb -> 'credit' ->> 'kind' = 'merchant_payable'
        union all
        select (terms::jsonb -> 'debit' ->> 'owner')::uuid, -(terms::jsonb ->> 'amount')::bigint
          from approval where act = 'ledger.adjust' and state = 'applied'
                          and terms::jsonb -> 'debit' ->> 'kind' = 'merchant_payable')
    select merchant_id, sum(amount)::bigint as amount from money group by merchant_id"""
_OF_MERCHANTS = ("merchant_payable", "settlement_due", "merchant_reserve", "dispute_held")
_LATE_UNKNOWN = """
    select a.id from attempt a join payment p on p.book = a.book and p.id = a.payment_id
     where a.state = 'unknown' and p.expires_at < $1::timestamptz - interval '1 day'
       and not exists (select from payment_case c where c.payment_id = p.id
                          and c.closed_at is null)"""
_SETTLED = """
    select s.id from settlement s
      left join (select settlement_id, sum(amount) as amount, count(*) as lines
                   from settlement_line group by settlement_id) l on l.settlement_id = s.id
     where s.due <> s.opening + coalesce(l.amount, 0) or s.line_count <> coalesce(l.lines, 0)"""
_DISPUTED = """
    select p.id from payment p
      left join (select payment_id, sum(amount) as amount from dispute
                  where held > 0 or state in ('lost', 'accepted') group by payment_id) d
        on d.payment_id = p.id
     where p.disputed <> coalesce(d.amount, 0) or p.refunded + p.disputed > p.captured"""


class Sides(Protocol):
    """A platform's database, and the channels it works with."""

    db: Db
    sandbox: RunningSandbox


async def assert_money_is_conserved(db: Db) -> None:
    """Hold after every single step, whatever is still under way."""
    report = await verify(db)
    assert report.is_sound, report.broken
    payments = await db.fetch(_PAYMENTS, ())
    refunds = await db.fetch("select * from refund", ())
    _payments_agree_with_their_refunds(payments)
    _payments_agree_with_their_captures(payments, await db.fetch(_COMPLETIONS, ()))
    _captures_are_booked_once(payments, await db.fetch(_CAPTURES, ()))
    _refunds_are_booked_once(refunds, await db.fetch(_GIVEN_BACK, ()), await db.fetch(_HOLDS, ()))
    _ends_are_told_once(payments, refunds, await db.fetch(_EVENTS, ()))
    _changes_make_a_chain(payments, await db.fetch(_CHANGES, ()))
    await assert_one_attempt_lives(db)


def _payments_agree_with_their_refunds(payments: list[Any]) -> None:
    for row in payments:
        where = show("pay", row["id"])
        is_manual = row["capture_within_s"] is not None
        assert row["captured"] in {0, row["amount"]} or is_manual, where
        assert 0 <= row["captured"] <= row["amount"], where
        assert (row["captured"] > 0) == (row["paid_at"] is not None), where
        assert row["refunded"] == row["going"] <= row["captured"], where
        assert row["fee_returned"] == row["fee_going"] <= row["fee"], where
        assert (row["state"] == "succeeded") <= (row["attempt_state"] == "succeeded"), where
        is_open = {"created", "pending", "unknown"}
        assert (row["state"] in is_open) == (row["attempt_state"] in is_open), where
        assert (row["state"] in _HELD) == (row["attempt_state"] == "authorised"), where


def _payments_agree_with_their_captures(payments: list[Any], completions: list[Any]) -> None:
    of_payment: dict[Any, list[Any]] = {}
    for row in completions:
        of_payment.setdefault(row["payment_id"], []).append(row)
    for row in payments:
        where = show("pay", row["id"])
        made = [each for each in of_payment.get(row["id"], []) if each["why"] != "late"]
        taken = [each for each in made if (each["kind"], each["state"]) == ("capture", "succeeded")]
        under_way = [each for each in made if each["ended_at"] is None]
        assert len(taken) <= 1, where
        assert len(under_way) <= 1, where
        if row["capture_within_s"] is not None and row["authorised"]:
            assert row["captured"] == sum(each["amount"] for each in taken), where
        kinds = {"capturing": ["capture"], "voiding": ["void"]}.get(row["state"], [])
        assert [each["kind"] for each in under_way] == kinds, where
        asked = sum(each["amount"] for each in under_way if each["kind"] == "capture")
        assert row["capturing"] == asked, where
        if taken:
            assert row["fee"] == taken[0]["fee"] <= taken[0]["amount"], where
        is_let_go = any((each["kind"], each["state"]) == ("void", "succeeded") for each in made)
        assert is_let_go == (row["state"] == "voided"), where


def _captures_are_booked_once(payments: list[Any], captures: list[Any]) -> None:
    booked = {row["reference"]: row for row in captures}
    assert len(booked) == len(captures), "a payment was booked by two rules"
    expected = {row["id"]: row["captured"] for row in payments if row["captured"]}
    assert {key: row["amount"] for key, row in booked.items()} == expected
    assert all(row["times"] == 1 for row in captures)
    for row in payments:
        if row["captured"]:
            is_late = booked[row["id"]]["code"] == "late.captured/gross"
            assert is_late == (row["state"] != "succeeded"), show("pay", row["id"])


def _refunds_are_booked_once(refunds: list[Any], given: list[Any], holds: list[Any]) -> None:
    booked = {row["reference"]: row for row in given}
    done = {row["id"]: row["amount"] for row in refunds if row["state"] == "succeeded"}
    assert {key: row["amount"] for key, row in booked.items()} == done
    assert all(row["times"] == 1 for row in given)
    held = {row["reference"]: row["state"] for row in holds}
    for refund in refunds:
        if refund["id"] not in held:
            continue  # late money and the own wallet hold nothing
        ends = {"succeeded": "posted", "failed": "voided"}
        assert held[refund["id"]] == ends.get(refund["state"], "held"), show("ref", refund["id"])


def _ends_are_told_once(payments: list[Any], refunds: list[Any], events: list[Any]) -> None:
    told: dict[str, Counter[str]] = {}
    for row in events:
        told.setdefault(row["resource_id"], Counter())[row["type"]] = row["times"]
    for row in payments:
        where = show("pay", row["id"])
        heard = told.get(where, Counter())
        is_ended = row["ended_at"] is not None
        ends = {kind: times for kind, times in heard.items() if kind in _ENDS}
        late = row["captured"] > 0 and row["state"] != "succeeded"
        expected = {f"payment.{row['state']}": 1} if is_ended else {}
        if row["late_success"] == "accept_if_open" and "payment.closed" in ends:
            expected |= {"payment.closed": 1}  # it had run out of time and was taken up again
        assert ends == expected, (where, heard)
        assert heard["payment.late_success"] == int(late), (where, heard)
        assert heard["payment.authorised"] == int(row["authorised"] > 0), (where, heard)
        is_captured = row["authorised"] > 0 and row["state"] == "succeeded"
        assert heard["payment.captured"] == int(is_captured), (where, heard)
    for row in refunds:
        heard = told.get(show("ref", row["id"]), Counter())
        expected = {f"refund.{row['state']}": 1} if row["ended_at"] is not None else {}
        assert heard == expected, show("ref", row["id"])


def _changes_make_a_chain(payments: list[Any], changes: list[Any]) -> None:
    steps: dict[Any, list[tuple[str, str]]] = {}
    for row in changes:
        steps.setdefault(row["payment_id"], []).append((row["from_state"], row["to_state"]))
    for row in payments:
        chain = steps[row["id"]]
        froms, tos = [step[0] for step in chain], [step[1] for step in chain]
        assert froms == ["new", *tos[:-1]], show("pay", row["id"])
        assert tos[-1] == row["state"], show("pay", row["id"])


async def assert_one_attempt_lives(db: Db) -> None:
    """Hold after every step: of a payment's attempts only the last one is paid or may be.

    An earlier one can have been paid late: where the payment has ended without any money.
    """
    rows = await db.fetch(
        "select a.payment_id, a.state, p.state as of_payment from attempt a"
        " join payment p on p.book = a.book and p.id = a.payment_id order by a.payment_id, a.id",
        (),
    )
    unpaid = {"declined", "not_sent", "closed"}
    for before, after in pairwise(rows):
        if before["payment_id"] == after["payment_id"] and before["state"] not in unpaid:
            where = show("pay", before["payment_id"])
            assert (before["state"], after["state"] in unpaid) == ("succeeded", True), where
            assert before["of_payment"] in {"failed", "closed"}, where


async def assert_payouts_are_booked(db: Db) -> None:
    """Hold once nothing is under way: what was settled was paid out, once."""
    [due] = await db.fetch(
        "select coalesce(sum(credits_posted - debits_posted), 0)::bigint as amount"
        " from ledger_account where kind = 'settlement_due'",
        (),
    )
    assert due["amount"] == 0
    settled = await db.fetch("select id, payable from settlement where payable > 0", ())
    payouts = await db.fetch("select id, settlement_id, amount, state from payout", ())
    assert {row["id"]: row["payable"] for row in settled} == {
        row["settlement_id"]: row["amount"] for row in payouts
    }
    assert {row["state"] for row in payouts} <= {"succeeded", "returned"}
    booked = await db.fetch(
        "select t.reference, t.amount from ledger_transfer t"
        " join ledger_code c on c.number = t.code where c.code = 'payout.paid/amount'",
        (),
    )
    assert sorted(row["amount"] for row in booked) == sorted(row["amount"] for row in payouts)


async def assert_the_channels_agree(stage: Sides) -> None:
    """Hold once nothing is under way: what we believe is what the channel has done."""
    trades, given_back = await asyncio.to_thread(_at_the_channels, stage)
    refunds = await stage.db.fetch(
        "select attempt_id, sum(amount)::bigint as amount from refund"
        " where state = 'succeeded' group by attempt_id",
        (),
    )
    returned = {row["attempt_id"]: row["amount"] for row in refunds}
    for row in await stage.db.fetch(_PAYMENTS, ()):
        if row["channel"] == "wallet":
            continue
        number, where = base32(row["attempt_id"]), show("pay", row["id"])
        assert row["ended_at"] is not None, f"{where} is still {row['state']}"
        trade = trades.get(number)
        back = given_back[number]
        if row["captured"]:
            assert trade is not None, where
            assert (trade["state"], trade["amount"]) == ("paid", row["amount"]), where
            assert back == returned.get(row["attempt_id"], 0), where
        elif trade is not None and trade["paid_at"] is not None:
            # Paid and not ours: only a reversal explains it, which gave all of it back.
            assert (trade["state"], back) == ("reversed", trade["amount"]), (where, trade)


def _at_the_channels(stage: Sides) -> tuple[dict[str, Any], Counter[str]]:
    trades = {trade["number"]: trade for trade in stage.sandbox.get("trades")}
    given_back: Counter[str] = Counter()
    for refund in stage.sandbox.get("refunds"):
        if refund["state"] == "done":
            given_back[refund["trade_number"]] += refund["amount"]
    return trades, given_back


async def assert_every_invariant(stage: Sides) -> None:
    """Hold after every step, whatever is under way: I1, I2, I4 to I9, I13 and the totals."""
    db = stage.db
    await assert_money_is_conserved(db)  # I1 I2 I4 I5 I6 I7 I8 I9, with the ledger's own proof
    assert not await db.fetch(_DISPUTED, ()), "I4: refunds and disputes share what was captured"
    assert not await db.fetch(_SETTLED, ()), "every settlement is its lines"
    assert not await db.fetch(_LATE_UNKNOWN, (db.clock.now(),)), "I13: nobody looks at an unknown"
    found = await differing_merchants(db)
    assert found == {}, f"I3: what merchants are owed is what they took: {found}"


async def differing_merchants(db: Db) -> dict[Any, int]:
    """Return the merchants whose books are not what their payments and payouts make, by how much.

    A refund under way is no exception: its money is still the merchant's and only held.
    """
    await caught_up(db, SANDBOX_BOOK, None)  # the balances stand where the journal does
    should: Counter[Any] = Counter()
    for row in await db.fetch(_MERCHANTS, ()):
        should[row["merchant_id"]] += row["amount"]
    for row in await db.fetch(BY_KIND, ()):
        if row["kind"] in _OF_MERCHANTS:
            should[row["owner"]] -= row["posted"]
        elif row["kind"] == "merchant_debt":
            should[row["owner"]] += row["posted"]
    return {owner: amount for owner, amount in should.items() if amount}
