"""Two who agree: from an amount on that is a dated row, one checker is not enough.

The amounts themselves are changed by two people, for each act and currency and from a day on. An
approval that takes two stays proposed when the first of them has agreed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.controls.approvals import _store as store
from tongbao.controls.approvals.model import (
    Act,
    Acts,
    ActUnknown,
    AlreadyAgreed,
    Approval,
    ApprovalAgreement,
    Bound,
    Change,
    Effect,
    SecondCheck,
    SecondCheckWrong,
    TermsTampered,
    terms_of,
)
from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.kernel.clock import business_date

AGREED: Final = "approval.agreed"


class NewSecondCheck(Struct, frozen=True):
    """From which amount on, in minor units, an act takes two checkers; None: never."""

    act: str
    currency: str
    valid_from: date
    amount_from: int | None


SET: Final = Act(
    name="approvals.set_second_check",
    en="Say from which amount on an act takes two checkers",
    zh="设定双复核起点金额",
    terms=NewSecondCheck,
    maker="deployment_act",
    checker="deployment_act",
)


async def takes_two(on: Db | Tx, act: Act, approval: Approval, today: date) -> bool:
    """Tell whether so much money is at stake that two have to agree beside the maker."""
    if act.amounts is None:
        return False
    rows = await store.SECOND_CHECKS.all(on, act.name, today)
    from_of: dict[str, int | None] = {}
    for row in rows:  # the newest that has begun comes first
        from_of.setdefault(row.currency, row.amount_from)
    return any(
        (least := from_of.get(money.currency)) is not None and money.amount >= least
        for money in act.amounts(terms_of(act, approval))
    )


async def waits_for_another(tx: Tx, act: Act, approval: Approval, note: str | None) -> bool:
    """Note that the actor agrees, and tell whether somebody else still has to.

    The caller keeps the approval's row locked.

    Raises:
        AlreadyAgreed, TermsTampered
    """
    if not await takes_two(tx, act, approval, business_date(tx.now)):
        return False
    first = await store.AGREEMENT.first(tx, approval.id)
    if first is None:
        await store.AGREE.run(tx, approval.id, tx.actor, tx.now, note)
        facts = {"act": act.name, "digest": approval.digest.hex(), "checker": tx.actor}
        await audit.record(tx, AGREED, approval.shown_id, facts)
        return True
    if first.checker == tx.actor:
        raise AlreadyAgreed(approval=approval.shown_id)
    await _check_told(tx, approval, first)
    return False


async def _check_told(tx: Tx, approval: Approval, first: ApprovalAgreement) -> None:
    """Raise unless the audit log, which nobody can change, knows the first agreement."""
    digest = approval.digest.hex()
    entries = await audit.entries_of_subject(tx, approval.shown_id)
    if not any(
        (each.action, each.actor, each.facts.get("digest")) == (AGREED, first.checker, digest)
        for each in entries
    ):
        raise TermsTampered(approval=approval.shown_id)


async def agreement_of(on: Db | Tx, approval_id: UUID) -> ApprovalAgreement | None:
    """Return who has agreed first, where somebody has."""
    return await store.AGREEMENT.first(on, approval_id)


async def second_checks(on: Db | Tx, act: str, day: date) -> list[SecondCheck]:
    """Return what counts for an act up to a day, the newest of each currency first."""
    return await store.SECOND_CHECKS.all(on, act, day)


def check_second_check(acts: Acts, wanted: NewSecondCheck, now: datetime) -> None:
    """Raise unless this may be put before other eyes.

    Raises:
        ActUnknown, SecondCheckWrong
    """
    bound = acts.get(wanted.act)
    if bound is None:
        raise ActUnknown(act=wanted.act[:64])
    is_past = wanted.valid_from < business_date(now)
    is_odd = wanted.amount_from is not None and wanted.amount_from <= 0
    is_no_currency = len(wanted.currency) != 3 or not wanted.currency.isupper()
    if bound.act.amounts is None or is_past or is_odd or is_no_currency:
        raise SecondCheckWrong(act=wanted.act)


def bound_acts(db: Db) -> tuple[Bound, ...]:
    """Return the act of this module with what does it."""

    async def apply(effect: Effect) -> None:
        wanted: NewSecondCheck = effect.terms
        async with db.begin(effect.actor) as tx:
            await effect.close(tx)
            await store.ADD_SECOND_CHECK.run(
                tx, wanted.act, wanted.currency, wanted.valid_from, wanted.amount_from, tx.now,
                effect.approval.id,
            )  # fmt: skip

    return (Bound(SET, apply, show=_show),)


async def _show(db: Db, _approval: Approval, wanted: NewSecondCheck) -> Sequence[Change]:
    rows = await second_checks(db, wanted.act, wanted.valid_from)
    now_is = next((each.amount_from for each in rows if each.currency == wanted.currency), None)
    day = wanted.valid_from.isoformat()
    return [
        Change(
            en=f"two checkers for {wanted.act} from an amount in {wanted.currency} (minor units)",
            zh=f"{wanted.act} 双复核起点（{wanted.currency}，最小单位）",
            before="–" if now_is is None else str(now_is),
            after="–" if wanted.amount_from is None else str(wanted.amount_from),
        ),
        Change(en="from the day", zh="生效日", before=None, after=day),
    ]


def subject_of(wanted: NewSecondCheck) -> str:
    """Return what a proposal is about: one amount changes in one way at a time."""
    return f"{wanted.act}/{wanted.currency}"
