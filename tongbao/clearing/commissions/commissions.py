"""Work a merchant's fees out for its agents, and post what they earned, run after run.

The figures come from the journal, outside any transaction. The commit says which run it follows:
its unique key lets one follower through, so a fee is counted once whoever dies or repeats.
"""

from __future__ import annotations

from datetime import time, timedelta
from typing import Final
from uuid import UUID

from msgspec import Struct
from msgspec.structs import astuple

from tongbao.clearing.commissions import _store as store
from tongbao.clearing.commissions.model import (
    Commission,
    CommissionLine,
    Part,
    earned_by,
    parts_of,
    settled,
)
from tongbao.clearing.context import Clearing
from tongbao.clearing.daily import next_moment
from tongbao.infra.db import Db, Tx, Write, write_all
from tongbao.infra.failpoints import failpoint
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task, enqueue
from tongbao.infra.web.caller import Caller
from tongbao.kernel.errors import Busy, NotFound
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.kernel.pages import Page, decode_moment, page_by_moment, page_size
from tongbao.ledger.model import AccountKey, Group, Transfer
from tongbao.ledger.queries import balances_of_owner, movements
from tongbao.ledger.rules import posting
from tongbao.parties.agents.agents import Chains, agent_with_id, chains_of
from tongbao.parties.merchants.queries import merchant_with_id

RUN_AT: Final = time(11)
"""When, on the business clock: before settlement, so that an agent's day has what it earned."""
COMMISSION_POLICY: Final = RetryPolicy(
    attempts_max=1_000_000,  # nobody else begins the next day
    delays=tuple(timedelta(minutes=m) for m in (1, 5, 10)),
    time_limit=timedelta(hours=1),
)
_PAYABLE: Final = "merchant_payable"
LINES_PAGE: Final = 100


class CommissionContended(Busy):
    """Another run of the merchant's fees was quicker, or the book was."""

    code = "commission.contended"
    advice = "Nothing is missing; the next run goes on where that one ended."
    advice_zh = "该商户的分润正由另一任务处理，稍后自动继续。"


class CommissionNotFound(NotFound):
    """The caller has no such commission."""

    code = "commission.not_found"
    advice = "List the commissions to find its id."
    advice_zh = "请通过分润列表查找正确的标识。"


class PayCommissions(Task, frozen=True, tag="commissions.pay_daily"):
    """Work out what agents earned of everybody's fees since the last run."""


class _Run(Struct, frozen=True):
    """Whose fees, where, and which run this one follows."""

    id: UUID
    book: int
    payer_id: UUID
    mode: Mode
    currency: str
    after_seq: int
    through_seq: int


async def seed(tx: Tx) -> None:
    """Start the daily run, unless it is there: done at every start of the program."""
    await enqueue(tx, PayCommissions(), run_at=next_moment(tx.now, RUN_AT), key="daily")


async def run_pay_commissions(context: Clearing, _task: PayCommissions, _lease: Lease) -> Again:
    """Run through every merchant that somebody brought, and come again tomorrow.

    Raises:
        CommissionContended
    """
    for mode in Mode:
        chains = await chains_of(context.db, mode)
        for payer_id in chains.merchants:
            await pay_commissions(context, chains, payer_id, mode)
    now = context.db.clock.now()
    return Again(next_moment(now, RUN_AT) - now)


async def pay_commissions(
    context: Clearing, chains: Chains, payer_id: UUID, mode: Mode
) -> list[Commission]:
    """Post what agents earned of a merchant's fees that no run has had, in each currency.

    Raises:
        CommissionContended
    """
    merchant = await merchant_with_id(context.db, payer_id)
    book, made = merchant.book(mode), list[Commission]()
    for balance in await balances_of_owner(context.db, book, payer_id):
        if balance.account.kind != _PAYABLE:
            continue
        currency = balance.account.currency
        last = await store.LAST_SEQ.one(context.db, book, payer_id, mode, currency)
        lines = [line async for line in movements(context.db, book, balance.account, after=last)]
        if not lines:
            continue
        through = max(line.seq for line in lines)
        run = _Run(new_id(), book, payer_id, mode, currency, last, through)
        made += await _post(context, run, parts_of(chains, payer_id, lines))
    return made


async def _post(context: Clearing, run: _Run, parts: list[Part]) -> list[Commission]:
    now, db = context.db.clock.now(), context.db
    rows = await store.CARRIED.all(db, run.book, run.payer_id, run.mode, run.currency)
    carried = {row.agent_id: row.carried_out for row in rows}
    made: list[Commission] = []
    transfers: list[Transfer] = []
    where = (run.book, run.id, run.payer_id, run.mode, run.currency)
    writes = [
        Write(
            store.INSERT_RUN,
            (*where, run.after_seq, run.through_seq, now),
            refusal=CommissionContended.code,
        )
    ]
    for agent_id, earned in sorted(earned_by(parts).items()):
        posted, left = settled(earned, carried.get(agent_id, 0))
        agent = await agent_with_id(db, agent_id)
        one = Commission(
            book=run.book,
            id=new_id(),
            run_id=run.id,
            agent_id=agent_id,
            merchant_id=agent.merchant_id,
            payer_id=run.payer_id,
            mode=run.mode,
            currency=run.currency,
            earned=earned,
            carried_in=carried.get(agent_id, 0),
            posted=posted,
            carried_out=left,
            created_at=now,
        )
        made.append(one)
        writes.append(Write(store.INSERT_COMMISSION, astuple(one)))
        writes += [_line_write(one, part) for part in parts if part.agent_id == agent_id]
        transfers += _transfers(one)
    failpoint("commissions.before_commit")
    await _commit(context, run, transfers, writes)
    failpoint("commissions.after_commit")
    return made


async def _commit(
    context: Clearing, run: _Run, transfers: list[Transfer], writes: list[Write]
) -> None:
    """Commit a run, with the money it moves if it moves any.

    Raises:
        CommissionContended
    """
    if not transfers:
        async with context.db.begin("commissions") as tx:
            refused = await write_all(tx, writes)
        if refused is not None:
            raise CommissionContended
        return
    group = Group(run.id, run.book, tuple(transfers), tuple(writes))
    [result] = await context.flow.ledger.submit([group])
    if not result.happened:
        raise CommissionContended(code=result.code)


def _transfers(one: Commission) -> tuple[Transfer, ...]:
    payable = AccountKey(_PAYABLE, one.currency, one.merchant_id)
    return posting.transfers(
        "agent.commission",
        reference=one.id,
        accounts={_PAYABLE: payable},
        amounts={"share": Money(one.posted, one.currency)},
    )


def _line_write(one: Commission, part: Part) -> Write:
    line = CommissionLine(
        one.book,
        one.id,
        part.seq,
        part.reference,
        part.fee,
        part.share_ppm,
        part.passed_ppm,
        part.amount,
        part.at,
    )
    return Write(store.INSERT_LINE, astuple(line))


async def commissions_of_caller(
    on: Db | Tx, caller: Caller, *, cursor: str | None, limit: int | None
) -> Page[Commission]:
    """Return what the caller earned as an agent, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    _, before = decode_moment(cursor)
    found = await store.COMMISSIONS.all(
        on, caller.book, caller.merchant_id, caller.mode, before, size + 1
    )
    return page_by_moment(found, size, lambda row: (row.created_at, row.id))


async def lines_of_caller(
    on: Db | Tx, caller: Caller, commission_id: UUID, *, after_seq: int
) -> tuple[Commission, list[CommissionLine]]:
    """Return one of the caller's commissions and the next of its lines, fee by fee.

    Raises:
        CommissionNotFound
    """
    found = await store.FIND_COMMISSION.first(
        on, caller.book, commission_id, caller.merchant_id, caller.mode
    )
    if found is None:
        raise CommissionNotFound
    return found, await store.LINES.all(on, found.book, found.id, after_seq, LINES_PAGE)
