"""Explain every fen: what the books hold, derived again from what happened, by four witnesses.

The witnesses are the rows of payments, refunds and disputes; the settlements and payouts; the
sandbox's own record of its trades; the channels' bills.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from tests.payments.invariants import BY_KIND, differing_merchants
from tests.stage import Stage
from tongbao.infra.db import Db
from tongbao.kernel.ids import UnknownId, from_base32
from tongbao.ledger.queries import caught_up
from tongbao.parties.merchants.merchants import SANDBOX_BOOK

_FEES = """
    select (select coalesce(sum(fee - fee_returned), 0) from payment where state = 'succeeded')
         + (select coalesce(sum(fee), 0) from dispute where state not in ('retrieval', 'closed'))
           as amount"""
_BY_HAND = """
    select terms::jsonb -> 'debit' ->> 'kind' as kind,
           sum((terms::jsonb ->> 'amount')::bigint)::bigint as fen
      from approval where act = 'ledger.adjust' and state = 'applied' group by 1"""
_SHARED_THERE = """
    select coalesce(sum(s.amount - coalesce(back.fen, 0)), 0)::bigint as fen
      from split_share s
      join split_receiver r on r.book = s.book and r.id = s.receiver_id and r.kind = 'channel'
      left join (select share_id, sum(amount) as fen from split_return
                  where state = 'succeeded' group by share_id) as back on back.share_id = s.id
     where s.state = 'succeeded'"""
_TRANSFERRED = """
    select destination, sum(amount)::bigint as fen from transfer_item
     where state = 'succeeded' group by destination"""


async def unexplained(stage: Stage) -> dict[str, int]:
    """Return every fen that one witness has and another does not, once nothing is under way."""
    db = stage.db
    await caught_up(db, SANDBOX_BOOK, None)  # the balances stand where the journal does
    posted: Counter[str] = Counter()
    for row in await db.fetch(BY_KIND, ()):
        posted[row["kind"]] += row["posted"]
    trades, refunds = await asyncio.gather(
        asyncio.to_thread(stage.sandbox.get, "trades"),
        asyncio.to_thread(stage.sandbox.get, "refunds"),
    )
    ours = {
        str(row["number"])
        for row in await db.fetch("select replace(id::text, '-', '') as number from attempt", ())
    }
    there = [each for each in trades if _hex(each["number"]) in ours]
    numbers = {each["number"] for each in there}
    collected = sum(each["amount"] for each in there if each["paid_at"])
    given_back = sum(
        each["amount"]
        for each in refunds
        if each["state"] == "done" and each["trade_number"] in numbers
    )
    [away] = await db.fetch(
        "select coalesce(sum(amount), 0)::bigint as gone from dispute"
        " where at_scheme > 0 or state in ('lost', 'accepted')",
        (),
    )
    [fees] = await db.fetch(_FEES, ())
    [billed] = await db.fetch(
        "select coalesce(sum(fee_amount), 0)::bigint as fees,"
        " coalesce(sum(payment_amount), 0)::bigint as paid,"
        " coalesce(sum(refund_amount), 0)::bigint as back from bill_file"
        # What a rule compares is kept the same way, and is no channel's bill of trades.
        " where superseded_at is null and not starts_with(channel, 'rule:')",
        (),
    )
    [paid_out] = await db.fetch(
        "select coalesce(sum(amount), 0)::bigint as amount from payout where state = 'succeeded'",
        (),
    )
    [open_breaks] = await db.fetch(
        "select count(*) as n, coalesce(sum(abs(difference)), 0)::bigint as fen from recon_break"
        " where state = 'open'",
        (),
    )
    [shared] = await db.fetch(_SHARED_THERE, ())
    by_hand = Counter({row["kind"]: row["fen"] for row in await db.fetch(_BY_HAND, ())})
    sent = Counter({row["destination"]: row["fen"] for row in await db.fetch(_TRANSFERRED, ())})
    differences = {
        "channels": collected
        - given_back
        - away["gone"]
        - shared["fen"]
        - sent["wechat_pay"]
        - sent["alipay"]
        - posted["channel_cost"]
        - posted["channel_receivable"],
        "bills": (collected - given_back) - (billed["paid"] - billed["back"]),
        "channel fees": billed["fees"] - posted["channel_cost"],
        "fees": int(fees["amount"]) - by_hand["fee_income"] - posted["fee_income"],
        "bank": paid_out["amount"] + sent["bank"] - by_hand["bank"] + posted["bank"],
        "wallets": sent["wallet"] - posted["wallet"],
        "at schemes": posted["dispute_at_scheme"]
        - await _sum(db, "select sum(at_scheme) from dispute"),
        "suspense": posted["suspense"],
        "breaks": open_breaks["fen"] + open_breaks["n"],
        "merchants": sum(abs(each) for each in (await differing_merchants(db)).values()),
    }
    return {name: amount for name, amount in differences.items() if amount}


async def _sum(db: Db, sql: str) -> int:
    [row] = await db.fetch(sql, ())
    return int(row[0] or 0)


def _hex(number: str) -> str:
    """Return our id behind a channel's number, or nothing where it is no number of ours."""
    try:
        return from_base32(number).hex
    except UnknownId:
        return ""
