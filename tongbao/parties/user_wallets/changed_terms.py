"""What a merchant asks its users for, changed: at once while nobody relies on it, else by two.

A programme that works in real money, or did, was admitted with its terms. New ones are the
merchant's proposal and wait for somebody of ours; until then, and where they are turned down, the
terms that were admitted stand. Nobody who has consented is touched either way.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from tongbao.controls.approvals.approvals import in_transaction, propose
from tongbao.controls.approvals.model import Act, Approval, Bound, Change, terms_of
from tongbao.controls.approvals.queries import open_approval
from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.infra.web.caller import Caller
from tongbao.kernel.errors import Fact
from tongbao.kernel.ids import new_id, parse
from tongbao.kernel.licence import Mode
from tongbao.parties.identity.model import Permission
from tongbao.parties.merchants.queries import merchant_with_id
from tongbao.parties.partners.model import is_redirect
from tongbao.parties.user_wallets import _store as store
from tongbao.parties.user_wallets.model import (
    PROGRAMME_PREFIX,
    RETURNS_MAX,
    Programme,
    ProgrammeState,
    ProgrammeTermsInvalid,
    ProgrammeUnchanged,
    Terms,
)

_REASON: Final = "the merchant asks for other terms"


class TermsChange(Struct, frozen=True):
    """What somebody of ours agrees to: the terms that stood, and those that come instead."""

    programme: str
    merchant: str
    before: Terms
    after: Terms


CHANGE: Final = Act(
    "wallet_programme.change_terms",
    "Change what a merchant's wallet programme asks its users for",
    "变更商户钱包计划的授权范围与限额",
    TermsChange,
    maker=Permission.ONBOARDING_ACT,
    checker=Permission.ONBOARDING_ACT,
)


async def set_programme(tx: Tx, caller: Caller, terms: Terms) -> Programme:
    """Say what the merchant asks its users for; of an admitted programme it is proposed.

    The programme is returned as it stands, and the same terms again change and propose nothing.

    Raises:
        ProgrammeTermsInvalid, ApprovalWaiting
    """
    _check(terms, caller.mode)
    key = (caller.merchant_id, caller.mode)
    known = await store.PROGRAMME_OF.first(tx, *key)
    if known is None:
        begins = ProgrammeState.ACTIVE if caller.mode is Mode.SANDBOX else ProgrammeState.PENDING
        made = (new_id(), *key, *_columns(terms), begins, tx.now)
        known = await store.INSERT_PROGRAMME.first(tx, *made)
        if known is not None:
            await _note(tx, known)
            return known
    # An approval locks itself and then the programme: what may have one is not locked before it.
    if known is None or not _was_admitted(known):
        known = await store.LOCK_PROGRAMME.one(tx, *key)
    if known.terms == terms:
        return known
    if _was_admitted(known):
        await _propose(tx, known, terms)
        return known
    changed = await store.SET_TERMS.one(tx, known.id, *_columns(terms), tx.now)
    await _note(tx, changed)
    return changed


def _was_admitted(programme: Programme) -> bool:
    return programme.mode is Mode.LIVE and programme.state is not ProgrammeState.PENDING


async def waiting_terms(on: Db | Tx, programme: Programme) -> Terms | None:
    """Return the terms that a programme's merchant has proposed and nobody has decided about."""
    found = await open_approval(on, CHANGE, programme.shown_id)
    if found is None:
        return None
    change: TermsChange = terms_of(CHANGE, found)
    return change.after


async def change_terms(tx: Tx, change: TermsChange) -> Programme:
    """Put agreed terms in force where those still stand that they were to replace.

    Raises:
        ProgrammeUnchanged
    """
    wanted = parse(PROGRAMME_PREFIX, change.programme)
    known = await store.LOCK_PROGRAMME_WITH_ID.first(tx, wanted)
    if known is None or known.terms != change.before:
        raise ProgrammeUnchanged
    changed = await store.SET_TERMS.one(tx, wanted, *_columns(change.after), tx.now)
    await _note(tx, changed)
    failpoint("user_wallets.before_terms_commit")
    return changed


def bound_acts(db: Db) -> tuple[Bound, ...]:
    """Return the act with what does it."""

    async def apply(tx: Tx, _approval: Approval, change: TermsChange) -> None:
        await change_terms(tx, change)

    return (Bound(CHANGE, in_transaction(db, apply), show=_changes),)


async def _propose(tx: Tx, known: Programme, terms: Terms) -> None:
    """Put new terms before other eyes, instead of others that still wait."""
    if await waiting_terms(tx, known) == terms:
        return
    merchant = await merchant_with_id(tx, known.merchant_id)
    change = TermsChange(known.shown_id, merchant.name, known.terms, terms)
    await propose(
        tx,
        CHANGE,
        known.shown_id,
        change,
        reason=_REASON,
        merchant_id=merchant.id,
        mode=known.mode,
        supersede=True,
    )


async def _changes(_db: Db, _approval: Approval, change: TermsChange) -> list[Change]:
    changed = [
        Change(en, zh, old, new)
        for (en, zh, old), (_, _, new) in zip(change.before.lines, change.after.lines, strict=True)
        if old != new
    ]
    return [Change("merchant", "商户", None, change.merchant), *changed]


def _columns(terms: Terms) -> tuple[object, ...]:
    return (
        terms.name,
        terms.account_class,
        terms.grants,
        terms.each_max,
        terms.day_max,
        terms.return_urls,
    )


async def _note(tx: Tx, programme: Programme) -> None:
    facts: dict[str, Fact] = {
        "class": programme.account_class,
        "grants": " ".join(sorted(programme.grants)),
        "each_max": programme.each_max,
        "day_max": programme.day_max,
    }
    await audit.record(tx, "wallet_programme.set", programme.shown_id, facts)


def _check(terms: Terms, mode: Mode) -> None:
    if not 0 < len(terms.name) <= 64 or not terms.name.isprintable():
        raise ProgrammeTermsInvalid(param="$.name")
    if not terms.grants or len(set(terms.grants)) != len(terms.grants):
        raise ProgrammeTermsInvalid(param="$.grants")
    if terms.day_max < terms.each_max:
        raise ProgrammeTermsInvalid(param="$.day_max")
    urls = terms.return_urls
    is_right = 1 <= len(urls) <= RETURNS_MAX and len(set(urls)) == len(urls)
    if not is_right or not all(is_redirect(each, mode) for each in urls):
        raise ProgrammeTermsInvalid(param="$.return_urls")
