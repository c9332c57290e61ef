"""Change how long raw evidence is kept: a new dated row, agreed to by two people."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from typing import Final

from msgspec import Struct

from tongbao.controls.approvals.approvals import in_transaction, propose
from tongbao.controls.approvals.model import Act, Approval, Bound, Change
from tongbao.controls.retention import _store as store
from tongbao.controls.retention.model import (
    DAYS_MIN,
    RetentionTerm,
    RetentionTermThere,
    RetentionTermWrong,
    term_at,
)
from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.clock import business_date
from tongbao.kernel.errors import Fact

_DAYS_MAX: Final = 36_600
_BECAUSE_MAX: Final = 300


class TermAsked(Struct, frozen=True):
    """What two people agree to."""

    kind: str
    valid_from: date
    days: int
    because: str


SET: Final = Act(
    "retention.set_term",
    "Change how long evidence is kept",
    "变更证据保存期限",
    TermAsked,
    maker="deployment_act",
    checker="deployment_act",
)


async def propose_term(
    tx: Tx, asked: TermAsked, *, reason: str, may: Collection[str] | None = None
) -> Approval:
    """Propose a term from a day on.

    Raises:
        RetentionTermWrong, RetentionTermThere, MakerNotAllowed, ReasonTooShort, ApprovalWaiting
    """
    await _check(tx, asked)
    return await propose(tx, SET, f"{asked.kind} {asked.valid_from}", asked, reason=reason, may=may)


async def every_term(on: Db | Tx) -> list[RetentionTerm]:
    """Return all terms, past and future ones too."""
    return await store.TERMS.all(on)


def bound_acts(db: Db) -> tuple[Bound, ...]:
    """Return the act with what does it."""
    return (Bound(SET, in_transaction(db, _add), show=_show),)


async def _add(tx: Tx, _approval: Approval, asked: TermAsked) -> None:
    await _check(tx, asked)
    if not await store.INSERT_TERM.run(tx, asked.kind, asked.valid_from, asked.days, asked.because):
        raise RetentionTermThere
    facts: dict[str, Fact] = {"valid_from": asked.valid_from.isoformat(), "days": asked.days}
    await audit.record(tx, "retention.term_set", asked.kind, facts)
    failpoint("retention.before_term_commit")


async def _check(tx: Tx, asked: TermAsked) -> None:
    terms = await store.TERMS.all(tx)
    if asked.kind not in {each.kind for each in terms}:
        raise RetentionTermWrong(param="kind")
    if asked.valid_from < business_date(tx.now):
        raise RetentionTermWrong(param="valid_from")
    if not DAYS_MIN <= asked.days <= _DAYS_MAX:
        raise RetentionTermWrong(param="days")
    if not 0 < len(asked.because.strip()) <= _BECAUSE_MAX:
        raise RetentionTermWrong(param="because")
    if any((each.kind, each.valid_from) == (asked.kind, asked.valid_from) for each in terms):
        raise RetentionTermThere


async def _show(db: Db, _approval: Approval, asked: TermAsked) -> list[Change]:
    before = term_at(await store.TERMS.all(db), asked.kind, asked.valid_from)
    return [
        Change(
            f"days kept: {asked.kind}",
            f"保存天数：{asked.kind}",
            None if before is None else str(before.days),
            str(asked.days),
        ),
        Change("from the day", "生效日", None, asked.valid_from.isoformat()),
        Change("because", "依据", None, asked.because),
    ]
