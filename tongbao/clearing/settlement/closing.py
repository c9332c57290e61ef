"""Close what was drawn: posting, payout, reserve and event of each in one commit, or nothing.

Many go to the ledger at once and each is decided alone. What may have changed since the drawing is
met here: another who closed it first (its row), a refund that holds some of the money (the
account's floor), a hold that somebody placed (`hold_back`). No settlement ever pays more than was
drawn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import date, datetime, time
from typing import Final
from uuid import UUID

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace
from prometheus_client import Counter as Metric

from tongbao.clearing.context import Clearing
from tongbao.clearing.payouts.payouts import NewPayout, payout_writes
from tongbao.clearing.settlement import _store as store
from tongbao.clearing.settlement.drawing import ACTOR, DEBT, drop, reshared
from tongbao.clearing.settlement.model import (
    OWN_RULE,
    PAYABLE,
    AccountHeldBack,
    Settlement,
    SettlementClosed,
    SettlementContended,
    SettlementState,
    view_settlement,
)
from tongbao.clearing.settlement_terms.model import held_back
from tongbao.clearing.settlement_terms.queries import (
    Agreed,
    agreed_with,
    holds_on,
    same_holds_write,
)
from tongbao.clearing.settlement_terms.terms import place_hold
from tongbao.infra.db import Tx, Write
from tongbao.infra.failpoints import failpoint
from tongbao.infra.outbox import object_event_write
from tongbao.kernel.clock import BUSINESS_ZONE, business_date
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.ledger.many import OwnedAccount, accounts_of_owners
from tongbao.ledger.model import (
    MOVED_BEFORE,
    AccountFrozen,
    AccountKey,
    ExceedsBalance,
    Group,
    Result,
)
from tongbao.ledger.rules import posting
from tongbao.parties.merchants.model import Merchant
from tongbao.parties.merchants.queries import merchants_with_ids

SETTLEMENTS: Final = Metric("tongbao_settlements_total", "Settlements that were closed")
PAY_AT: Final = time(12)
"""When, on the business clock, what was settled is paid out; what is settled later, at once."""
DEADLINE_S: Final = 60.0
PIECE: Final = 1_000

_CONTENDED: Final = SettlementContended.code
_TRIES_MAX: Final = 8


_HELD: Final = "settlement.held_meanwhile"

_Seen = dict[tuple[UUID, Mode], int]
"""How many holds were on a merchant when its settlement was looked at."""


class Closed(Struct):
    """What closing came to: those closed now, and who was left out of it and why."""

    now: list[Settlement] = field(default_factory=list)
    left_out: dict[UUID, str] = field(default_factory=dict)  # by settlement


async def close_drawn(context: Clearing, drafts: Sequence[Settlement]) -> Closed:
    """Close what was drawn. Who may not be paid now is left out, and the draft dropped.

    Raises:
        SettlementContended: others kept changing accounts; what is not closed stays drawn.
    """
    closed = Closed()
    drawn = [draft for draft in drafts if draft.state is SettlementState.DRAWN]
    left, seen = await _looked_at_again(context, drawn)
    for _ in range(_TRIES_MAX):
        if not left:
            return closed
        now = context.db.clock.now()
        failpoint("settlement.before_close")
        results = await _submit(context, left, seen, now)
        failpoint("settlement.after_close")
        again: list[Settlement] = []
        frozen: list[Settlement] = []
        for draft, result in zip(left, results, strict=True):
            if result.happened:
                closed.now.append(replace(draft, state=SettlementState.CLOSED, closed_at=now))
                SETTLEMENTS.inc()
            elif result.code == AccountFrozen.code:
                frozen.append(draft)
            elif result.code in {ExceedsBalance.code, _HELD} or result.status == "in_flight":
                again.append(draft)
            elif result.code not in {_CONTENDED, *MOVED_BEFORE}:
                raise RuntimeError(f"the ledger refused a settlement: {result.code}")
            # Otherwise somebody else has closed, dropped or shared it anew.
        await _drop(context, frozen, closed)
        left, seen = await _looked_at_again(context, again, always=True)
    raise SettlementContended


async def _submit(
    context: Clearing, drafts: Sequence[Settlement], seen: _Seen, now: datetime
) -> list[Result]:
    """Hand the drafts to the ledger piece by piece: it commits one while the next is made."""
    pieces = []
    for start in range(0, len(drafts), PIECE):
        groups = [_group(each, seen, now) for each in drafts[start : start + PIECE]]
        asked = context.flow.ledger.submit(groups, deadline_s=DEADLINE_S)
        pieces.append(asyncio.ensure_future(asked))
        await asyncio.sleep(0)  # so that it begins
    return [result for piece in await asyncio.gather(*pieces) for result in piece]


async def _drop(context: Clearing, frozen: Sequence[Settlement], closed: Closed) -> None:
    if frozen:
        async with context.db.begin(ACTOR) as tx:
            await drop(tx, frozen)
        closed.left_out |= {each.id: AccountHeldBack.code for each in frozen}


async def _looked_at_again(
    context: Clearing, drafts: Sequence[Settlement], *, always: bool = False
) -> tuple[list[Settlement], _Seen]:
    """Return the drafts as they may be closed now: with less to pay, where less may be paid.

    How many holds there were is counted first, so that one placed later is met in the commit.
    """
    found: list[Settlement] = []
    seen: _Seen = {}
    worlds: dict[tuple[int, Mode], list[Settlement]] = {}
    for draft in drafts:
        worlds.setdefault((draft.book, draft.mode), []).append(draft)
    for (book, mode), its in worlds.items():
        whose = {each.merchant_id for each in its}
        held = await holds_on(context.db, mode, list(whose))
        seen |= {(merchant_id, mode): count for merchant_id, count in held.items()}
        if not always:
            whose = set(held)
        doubtful = [each for each in its if each.merchant_id in whose]
        found += [each for each in its if each.merchant_id not in whose]
        if doubtful:
            merchants = await merchants_with_ids(context.db, [d.merchant_id for d in doubtful])
            agreed = await agreed_with(context.db, mode, list(merchants.values()))
            found += await _shared_anew(context, book, doubtful, agreed)
    return found, seen


async def hold_back(
    tx: Tx,
    merchant: Merchant,
    mode: Mode,
    *,
    amount: int | None,
    reason: str,
    until_day: date | None = None,
) -> UUID:
    """Keep everything back from a merchant, or so many minor units of each currency.

    Once the caller has committed, nothing is released that has not seen the hold: a release that
    is under way is waited for, and none begins before.

    Raises:
        SettlementHoldInvalid
    """
    placed = await place_hold(
        tx, merchant.id, mode, amount=amount, reason=reason, until_day=until_day
    )
    await store.LOCK_DRAWN.all(tx, merchant.book(mode), merchant.id, mode)
    return placed


async def _shared_anew(
    context: Clearing, book: int, drafts: Sequence[Settlement], agreed: Agreed
) -> list[Settlement]:
    db = context.db
    accounts: dict[tuple[str, UUID, str], OwnedAccount] = {
        (each.kind, each.owner, each.currency): each
        for each in await accounts_of_owners(
            db, book, [draft.merchant_id for draft in drafts], [PAYABLE, DEBT]
        )
    }
    today = business_date(db.clock.now())
    found = []
    for draft in drafts:
        whose = (draft.merchant_id, draft.currency)
        debt = accounts.get((DEBT, *whose))
        after = reshared(
            draft,
            agreed.figures(draft.merchant_id, draft.day),
            available=accounts[PAYABLE, *whose].available,
            held=held_back(agreed.holds.get(draft.merchant_id, ()), today),
            owed=0 if debt is None else debt.posted,
        )
        if after != draft:
            args = (after.reserved, after.quick_fee, after.payable, after.carried)
            changed = await store.RESHARE.run(
                db, draft.book, draft.id, draft.payable, *args, after.reserve_until, after.payout_id
            )
            if not changed:
                continue  # somebody else has closed or dropped it
        found.append(after)
    return found


def _group(settlement: Settlement, seen: _Seen, now: datetime) -> Group:
    """Return what closes it: the posting and every row that goes with it."""
    after = replace(settlement, state=SettlementState.CLOSED, closed_at=now)
    event = SettlementClosed(
        merchant_id=after.merchant_id,
        mode=after.mode,
        resource_id=show("set", after.id),
        object=view_settlement(after),
    )
    currency, owner = after.currency, after.merchant_id
    kinds = (PAYABLE, "settlement_due", "merchant_reserve")
    return Group(
        id=new_id(),  # the settlement's keys keep it to once; a refusal must not be remembered
        book=after.book,
        transfers=posting.transfers(
            OWN_RULE,
            reference=after.id,
            accounts={kind: AccountKey(kind, currency, owner) for kind in kinds},
            amounts={
                "net": Money(after.payable, currency),
                "reserve": Money(after.reserved, currency),
                "quick_fee": Money(after.quick_fee, currency),
            },
        ),
        companions=(
            # First what is only appended: that is written while the commit before is under way.
            *_payout_writes(after, now),
            object_event_write(event, msgspec.json.encode(event.object), now=now),
            Write(store.CLOSE, (after.book, after.id, after.payable, now), refusal=_CONTENDED),
            # After the row is locked, which whoever places a hold locks too.
            same_holds_write(owner, after.mode, seen.get((owner, after.mode), 0), refusal=_HELD),
            *_part_writes(after),
        ),
    )


def _part_writes(settlement: Settlement) -> tuple[Write, ...]:
    if not settlement.reserved:
        return ()
    args = (
        settlement.book,
        settlement.id,
        settlement.merchant_id,
        settlement.mode,
        settlement.currency,
        settlement.reserved,
        settlement.reserve_until,
    )
    return (Write(store.INSERT_PART, args),)


def _payout_writes(settlement: Settlement, now: datetime) -> tuple[Write, ...]:
    if settlement.payout_id is None:
        return ()
    asked = NewPayout(
        book=settlement.book,
        settlement_id=settlement.id,
        merchant_id=settlement.merchant_id,
        mode=settlement.mode,
        money=Money(settlement.payable, settlement.currency),
        pays_by=settlement.pays_by,
    )
    noon = datetime.combine(business_date(now), PAY_AT, BUSINESS_ZONE)
    pay_at = now if settlement.kind == "quick" else max(now, noon)
    return payout_writes(settlement.payout_id, asked, now=now, pay_at=pay_at, refusal=_CONTENDED)
