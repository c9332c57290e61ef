"""Programmes: what a merchant may ask its users for; two people of ours admit or stop it.

In the sandbox a programme works at once. In real money it waits for two people, and so does what
ends it: while it is suspended no page opens, no proposal is made, and nothing is read.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Literal
from uuid import UUID

from msgspec import Struct
from msgspec.structs import asdict

from tongbao.controls.approvals.approvals import in_transaction, propose
from tongbao.controls.approvals.model import Act, Approval, Bound, Change
from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.ids import parse
from tongbao.kernel.licence import Mode
from tongbao.parties.identity.model import Permission
from tongbao.parties.merchants.queries import merchant_with_id
from tongbao.parties.user_wallets import _store as store
from tongbao.parties.user_wallets.model import (
    PROGRAMME_PREFIX,
    Programme,
    ProgrammeNotActive,
    ProgrammeNotFound,
    ProgrammeState,
    ProgrammeUnchanged,
    ReturnUnknown,
    Terms,
    WalletProgrammeTermsView,
    WalletProgrammeView,
)

_MOVES: Final = frozenset(
    {
        (ProgrammeState.PENDING, ProgrammeState.ACTIVE),
        (ProgrammeState.PENDING, ProgrammeState.SUSPENDED),
        (ProgrammeState.ACTIVE, ProgrammeState.SUSPENDED),
        (ProgrammeState.SUSPENDED, ProgrammeState.ACTIVE),
    }
)


class ProgrammeMove(Struct, frozen=True):
    """What two people agree to when they admit, suspend or resume a programme."""

    programme: str
    merchant: str
    before: ProgrammeState
    after: Literal["active", "suspended"]
    asks: Terms | None = None  # what it is admitted to ask for, where it is admitted or resumed


MOVE: Final = Act(
    "wallet_programme.move",
    "Admit, suspend or resume a merchant's wallet programme",
    "准入、暂停或恢复商户的钱包计划",
    ProgrammeMove,
    maker=Permission.ONBOARDING_ACT,
    checker=Permission.ONBOARDING_ACT,
)


async def active_programme(on: Db | Tx, merchant_id: UUID, mode: Mode) -> Programme:
    """Return a merchant's programme, which may be used.

    Raises:
        ProgrammeNotActive
    """
    found = await store.PROGRAMME_OF.first(on, merchant_id, mode)
    if found is None or found.state is not ProgrammeState.ACTIVE:
        raise ProgrammeNotActive(status=found.state.value if found else "none")
    return found


async def programme_of(on: Db | Tx, merchant_id: UUID, mode: Mode) -> Programme | None:
    """Return a merchant's programme, if it has one."""
    return await store.PROGRAMME_OF.first(on, merchant_id, mode)


async def programme_with_id(on: Db | Tx, programme_id: UUID) -> Programme:
    """Return a programme.

    Raises:
        ProgrammeNotFound
    """
    found = await store.GET_PROGRAMME.first(on, programme_id)
    if found is None:
        raise ProgrammeNotFound
    return found


async def programmes(on: Db | Tx, mode: Mode, state: str | None) -> list[Programme]:
    """Return the programmes of a mode, the last changed first, 200 at most."""
    return await store.PROGRAMMES.all(on, mode, state)


def check_return(programme: Programme, return_url: str) -> None:
    """Raise unless people may be sent back there.

    Raises:
        ReturnUnknown
    """
    if return_url not in programme.return_urls:
        raise ReturnUnknown(param="$.return_url")


async def propose_move(
    tx: Tx, programme: Programme, after: ProgrammeState, *, reason: str, may: Collection[str]
) -> Approval:
    """Propose to admit, suspend or resume a programme.

    Raises:
        ProgrammeUnchanged, MakerNotAllowed, ReasonTooShort, ApprovalWaiting
    """
    if (programme.state, after) not in _MOVES:
        raise ProgrammeUnchanged(status=programme.state.value)
    merchant = await merchant_with_id(tx, programme.merchant_id)
    to: Literal["active", "suspended"] = "active" if after is ProgrammeState.ACTIVE else "suspended"
    asks = programme.terms if to == "active" else None
    terms = ProgrammeMove(programme.shown_id, merchant.name, programme.state, to, asks)
    return await propose(
        tx, MOVE, terms.programme, terms, reason=reason, merchant_id=merchant.id, may=may
    )


async def move_programme(tx: Tx, terms: ProgrammeMove) -> Programme:
    """Admit, suspend or resume a programme that still stands where it was looked at.

    One that is admitted asks for what it asked for then: its merchant may have changed it since.

    Raises:
        ProgrammeUnchanged
    """
    wanted = parse(PROGRAMME_PREFIX, terms.programme)
    known = await store.LOCK_PROGRAMME_WITH_ID.first(tx, wanted)
    if known is None or (terms.asks is not None and known.terms != terms.asks):
        raise ProgrammeUnchanged
    moved = await store.MOVE_PROGRAMME.first(tx, wanted, terms.before, terms.after, tx.now)
    if moved is None:
        raise ProgrammeUnchanged
    facts = {"before": terms.before.value, "after": terms.after}
    await audit.record(tx, "wallet_programme.moved", moved.shown_id, facts)
    failpoint("user_wallets.before_move_commit")
    return moved


def view_programme(row: Programme, waiting: Terms | None) -> WalletProgrammeView:
    """Return a programme as its merchant sees it."""
    return WalletProgrammeView(
        id=row.shown_id,
        object="wallet_programme",
        mode=row.mode,
        name=row.name,
        account_class=row.account_class,
        grants=row.grants,
        each_max=row.each_max,
        day_max=row.day_max,
        currency="CNY",
        return_urls=row.return_urls,
        status=row.state,
        waiting=WalletProgrammeTermsView(**asdict(waiting)) if waiting else None,
        created_at=row.created_at,
    )


def bound_acts(db: Db) -> tuple[Bound, ...]:
    """Return the act with what does it."""

    async def apply(tx: Tx, _approval: Approval, terms: ProgrammeMove) -> None:
        await move_programme(tx, terms)

    return (Bound(MOVE, in_transaction(db, apply), show=_changes),)


async def _changes(db: Db, _approval: Approval, terms: ProgrammeMove) -> list[Change]:
    now = await programme_with_id(db, parse(PROGRAMME_PREFIX, terms.programme))
    asks = terms.asks or now.terms
    return [
        Change("merchant", "商户", None, terms.merchant),
        *(Change(en, zh, None, value) for en, zh, value in asks.lines),
        Change("programme", "钱包计划", terms.before.value, terms.after),
    ]
