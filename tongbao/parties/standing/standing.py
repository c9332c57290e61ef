"""Change a merchant's standing with four eyes, and let one that leaves go when its time is over.

active ──► suspended   no new payments; refunds and payouts go on
       ──► held        no refunds it asks for, no payouts; payments go on
       ──► stopped     neither
       ──► leaving     no new payments; refunds go on; payouts wait for the reserve's day
             └──► gone on that day: what is left is paid out, and its keys end
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import date, timedelta
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.controls.approvals.approvals import in_transaction, propose
from tongbao.controls.approvals.model import Act, Approval, Bound, Change
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task, enqueue
from tongbao.kernel.clock import business_date, day_bounds
from tongbao.kernel.errors import Conflict, Rejected
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.pages import PAGE_MAX
from tongbao.parties.identity.keys import revoke_key
from tongbao.parties.identity.model import Permission
from tongbao.parties.identity.queries import keys_of_merchant
from tongbao.parties.merchants.merchants import lock_merchant, set_state
from tongbao.parties.merchants.model import Merchant, MerchantState
from tongbao.parties.merchants.queries import last_standing, merchant_with_id

RESERVE_DAYS_MAX: Final = 540
"""How long a leaving merchant's money may be kept: a card payment can be disputed for 18 months."""
STANDING_POLICY: Final = RetryPolicy(
    attempts_max=20, delays=tuple(timedelta(minutes=m) for m in (1, 5, 30, 60))
)


class StandingUnchanged(Conflict):
    """The merchant stands there already, or has left for good."""

    code = "merchant.standing_unchanged"
    advice = "Look at the merchant; who has left is opened anew, by an application."
    advice_zh = "商户状态未变化或已退出；已退出的商户须重新进件。"


class StandingMoved(Conflict):
    """The merchant's standing changed after this change of it was proposed."""

    code = "merchant.standing_moved"
    advice = "Look at the merchant again and propose what is still wanted."
    advice_zh = "商户状态在提交后已变更，请重新查看并提交。"


class ReserveDayWrong(Rejected):
    """Who leaves needs a day until which money is kept, within 540 days; nobody else has one."""

    code = "merchant.reserve_day_wrong"
    advice = "Give the last day of the reserve when a merchant leaves, and none otherwise."
    advice_zh = "商户退出须填写保证金留存截止日（540 天内）；其他状态不得填写。"


class StandingTerms(Struct, frozen=True):
    """What two people agree to when they change what a merchant may do."""

    merchant: str
    name: str
    before: MerchantState
    after: MerchantState
    reserve_until: date | None = None


SET: Final = Act(
    "merchant.standing",
    "Change a merchant's standing",
    "变更商户状态（暂停、恢复、退出）",
    StandingTerms,
    maker=Permission.ONBOARDING_ACT,
    checker=Permission.ONBOARDING_ACT,
)


class FinishExit(Task, frozen=True, tag="merchants.finish_exit"):
    """Let a merchant that leaves go when its reserve's day has come."""

    merchant_id: UUID
    version: int


async def propose_standing(
    tx: Tx,
    merchant_id: UUID,
    after: MerchantState,
    *,
    reason: str,
    may: Collection[str],
    reserve_until: date | None = None,
) -> Approval:
    """Propose to let a merchant do less, or more again, or leave.

    Raises:
        MerchantNotFound, StandingUnchanged, ReserveDayWrong, MakerNotAllowed, ReasonTooShort,
        ApprovalWaiting
    """
    merchant = await merchant_with_id(tx, merchant_id)
    _check(merchant, after, reserve_until, business_date(tx.now))
    terms = StandingTerms(
        show("mch", merchant.id), merchant.name, merchant.state, after, reserve_until
    )
    return await propose(
        tx, SET, terms.merchant, terms, reason=reason, merchant_id=merchant.id, may=may
    )


async def set_standing(tx: Tx, terms: StandingTerms, because: str) -> Merchant:
    """Change a merchant's standing, where it is still the one that was looked at.

    Raises:
        MerchantNotFound, StandingMoved, StandingUnchanged, ReserveDayWrong
    """
    merchant = await lock_merchant(tx, parse("mch", terms.merchant))
    if merchant.state is not terms.before:
        raise StandingMoved(status=merchant.state.value)
    _check(merchant, terms.after, terms.reserve_until, business_date(tx.now))
    changed, version = await set_state(
        tx, merchant.id, terms.after, because=because, reserve_until=terms.reserve_until
    )
    if terms.reserve_until is not None:
        task = FinishExit(merchant.id, version)
        ends = day_bounds(terms.reserve_until)[1]
        await enqueue(tx, task, run_at=ends, key=f"exit/{merchant.id}/{version}")
    failpoint("standing.before_commit")
    return changed


async def run_finish_exit(db: Db, task: FinishExit, _lease: Lease) -> Again | None:
    """Let a merchant go and end its keys, unless its standing was changed since."""
    async with db.begin("merchants") as tx:
        merchant = await lock_merchant(tx, task.merchant_id)
        last = await last_standing(tx, merchant.id)
        if merchant.state is not MerchantState.LEAVING or last is None:
            return None
        if last.version != task.version or last.reserve_until is None:
            return None
        ends = day_bounds(last.reserve_until)[1]
        if tx.now < ends:
            return Again(ends - tx.now)
        await set_state(tx, merchant.id, MerchantState.GONE, because="the reserve's day is over")
        for mode in Mode:
            await _end_keys(tx, merchant.id, mode)
        failpoint("standing.before_exit_commit")
    return None


def bound_acts(db: Db) -> tuple[Bound, ...]:
    """Return the act with what does it."""

    async def apply(tx: Tx, approval: Approval, terms: StandingTerms) -> None:
        await set_standing(tx, terms, approval.reason)

    return (Bound(SET, in_transaction(db, apply), show=_changes),)


async def _changes(_db: Db, _approval: Approval, terms: StandingTerms) -> list[Change]:
    found = [Change("standing", "状态", terms.before.value, terms.after.value)]
    if terms.reserve_until is not None:
        found.append(Change("reserve until", "留存至", None, terms.reserve_until.isoformat()))
    return [Change("merchant", "商户", None, f"{terms.name} ({terms.merchant})"), *found]


def _check(
    merchant: Merchant, after: MerchantState, reserve_until: date | None, today: date
) -> None:
    if merchant.state is MerchantState.GONE or after in {merchant.state, MerchantState.GONE}:
        raise StandingUnchanged(status=merchant.state.value)
    if (after is MerchantState.LEAVING) != (reserve_until is not None):
        raise ReserveDayWrong
    if reserve_until is not None:
        latest = today + timedelta(days=RESERVE_DAYS_MAX)
        if not today <= reserve_until <= latest:
            raise ReserveDayWrong


async def _end_keys(tx: Tx, merchant_id: UUID, mode: Mode) -> None:
    cursor: str | None = None
    while True:
        page = await keys_of_merchant(tx, merchant_id, mode, cursor=cursor, limit=PAGE_MAX)
        for key in page.items:
            if key.revoked_at is None:
                await revoke_key(tx, merchant_id, mode, key.id)
        cursor = page.next_cursor
        if cursor is None:
            return
