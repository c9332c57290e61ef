"""Take partners on and change them with four eyes, suspend one at once, and know their proofs."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from tongbao.controls.approvals.approvals import in_transaction, propose
from tongbao.controls.approvals.model import Approval, Bound, Change
from tongbao.infra import audit
from tongbao.infra.client_certificates import x5t_of
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db, Tx
from tongbao.infra.jose import thumbprint
from tongbao.infra.outbox import publish
from tongbao.infra.webhooks.endpoints import Owner
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import UnknownId, derived_id, parse, show
from tongbao.kernel.pages import Page, decode_moment, page_by_moment, page_size
from tongbao.parties.partners import _store as store
from tongbao.parties.partners.certificates import check_proving, registered_certificates
from tongbao.parties.partners.model import (
    CHANGE,
    PREFIX,
    TAKE_ON,
    Changing,
    Partner,
    PartnerChanged,
    PartnerMoved,
    PartnerNotFound,
    PartnerState,
    Proving,
    TakingOn,
    check_terms,
)
from tongbao.parties.partners.notices import check_webhook, set_webhook, webhook_of

_ROWS_MAX: Final = 200
_NONE: Final = "—"


async def propose_partner(
    tx: Tx, terms: TakingOn, *, reason: str, may: Collection[str] | None = None
) -> Approval:
    """Propose to take a partner on; its id comes with the approval.

    Raises:
        PartnerTermsInvalid, KeySetUnusable, MakerNotAllowed, ReasonTooShort
    """
    check_terms(terms.name, terms.mode, terms.redirect_uris, terms.kinds)
    check_proving(terms.proving, terms.jwks)
    check_webhook(terms.webhook_url, terms.mode)
    subject = hashlib.sha256(f"{terms.mode.value} {terms.name}".encode()).hexdigest()[:32]
    return await propose(
        tx, TAKE_ON, f"partner {subject}", terms, reason=reason, mode=terms.mode, may=may
    )


async def propose_change(
    tx: Tx, partner_id: UUID, wanted: Changing, *, reason: str, may: Collection[str] | None = None
) -> Approval:
    """Propose that a partner gets other keys, addresses or kinds, comes back, or goes for good.

    Raises:
        PartnerNotFound, PartnerChanged, PartnerTermsInvalid, KeySetUnusable, MakerNotAllowed,
        ReasonTooShort, ApprovalWaiting
    """
    partner = await store.LOCK.first(tx, partner_id)
    if partner is None:
        raise PartnerNotFound
    if partner.state is PartnerState.GONE or partner.changed_at != wanted.changed_at:
        raise PartnerChanged
    check_terms(wanted.name, partner.mode, wanted.redirect_uris, wanted.kinds)
    check_proving(wanted.proving, wanted.jwks)
    check_webhook(wanted.webhook_url, partner.mode)
    return await propose(
        tx, CHANGE, partner.client_id, wanted, reason=reason, mode=partner.mode, may=may
    )


async def suspend_partner(tx: Tx, partner_id: UUID, *, reason: str) -> Partner:
    """Let a partner do nothing any more, at once and by one person; repeating it changes nothing.

    Raises:
        PartnerNotFound
    """
    changed = await store.SUSPEND.first(tx, partner_id, tx.now)
    if changed is not None:
        facts = {"reason": reason[:200]}
        await audit.record(tx, "partner.suspended", changed.client_id, facts)
        await _moved(tx, changed)
        return changed
    return await partner_with_id(tx, partner_id)


async def partner_with_id(on: Db | Tx, partner_id: UUID) -> Partner:
    """Return a partner, whatever its state.

    Raises:
        PartnerNotFound
    """
    found = await store.GET.first(on, partner_id)
    if found is None:
        raise PartnerNotFound
    return found


async def active_partner(on: Db | Tx, client_id: str) -> Partner | None:
    """Return the partner that calls itself this, if there is one and it may ask for anything."""
    try:
        found = await store.GET.first(on, parse(PREFIX, client_id))
    except UnknownId:
        return None
    return found if found is not None and found.state is PartnerState.ACTIVE else None


async def partners(on: Db | Tx) -> list[Partner]:
    """Return every partner, the newest first."""
    return await store.LIST.all(on, _ROWS_MAX)


async def find_partners(
    on: Db | Tx,
    *,
    state: str | None = None,
    mode: str | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[Partner]:
    """Return partners that are like this, the newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    _, before = decode_moment(cursor)
    found = await store.FIND.all(on, state, mode, before, size + 1)
    return page_by_moment(found, size, lambda row: (row.taken_on_at, row.id))


async def use_token(on: Db | Tx, signer: str, jti: str, expires_at: datetime) -> bool:
    """Tell whether a signed token is seen for the first time, and remember it until it is over."""
    names = (hashlib.sha256(each.encode()).digest() for each in (signer, jti))
    return bool(await store.USE_TOKEN.run(on, *names, expires_at))


async def prune_tokens(db: Db) -> None:
    """Forget signed tokens that are over."""
    await store.PRUNE_TOKENS.run(db, real_now())


async def _moved(tx: Tx, partner: Partner) -> None:
    moved = PartnerMoved(merchant_id=partner.id, mode=partner.mode, resource_id=partner.client_id)
    await publish(tx, moved)


def bound_acts(db: Db, keyring: Keyring) -> tuple[Bound, ...]:
    """Return the acts on partners with what does them."""

    async def take_on(tx: Tx, approval: Approval, terms: TakingOn) -> None:
        partner_id = derived_id(approval.id, "partner")
        row = (terms.mode, terms.name.strip(), terms.redirect_uris, terms.jwks, terms.kinds)
        await store.INSERT.run(tx, partner_id, *row, tx.now, *_columns(terms.proving))
        facts = {"approval": approval.shown_id}
        await audit.record(tx, "partner.taken_on", show(PREFIX, partner_id), facts)
        await set_webhook(tx, keyring, Owner(partner_id, terms.mode), terms.webhook_url)

    async def change(tx: Tx, approval: Approval, terms: Changing) -> None:
        partner_id = parse(PREFIX, approval.subject)
        before = await partner_with_id(tx, partner_id)
        row = (terms.name.strip(), terms.redirect_uris, terms.jwks, terms.kinds, terms.state)
        proving = _columns(terms.proving)
        if not await store.CHANGE.run(tx, partner_id, *row, tx.now, terms.changed_at, *proving):
            raise PartnerChanged
        facts = {"approval": approval.shown_id, "state": terms.state.value}
        await audit.record(tx, "partner.changed", approval.subject, facts)
        url = None if terms.state is PartnerState.GONE else terms.webhook_url
        await set_webhook(tx, keyring, Owner(partner_id, before.mode), url)
        if terms.state is not before.state:
            await _moved(tx, before)

    return (
        Bound(TAKE_ON, in_transaction(db, take_on), _show_new),
        Bound(CHANGE, in_transaction(db, change), _show_change),
    )


async def _show_new(_db: Db, _approval: Approval, terms: TakingOn) -> list[Change]:
    return [
        Change("name", "名称", None, terms.name),
        Change("mode", "环境", None, terms.mode.value),
        Change("may ask for", "可申请", None, ", ".join(terms.kinds)),
        Change("people return to", "回跳地址", None, ", ".join(terms.redirect_uris)),
        Change("keys", "密钥", None, _kids(terms.jwks)),
        Change("proves itself by", "身份证明方式", None, _how(terms.proving)),
        Change("is told at", "通知地址", None, terms.webhook_url or _NONE),
    ]


async def _show_change(db: Db, approval: Approval, terms: Changing) -> list[Change]:
    now = await partner_with_id(db, parse(PREFIX, approval.subject))
    told = await webhook_of(db, now)
    pairs = [
        ("name", "名称", now.name, terms.name),
        ("may ask for", "可申请", ", ".join(now.kinds), ", ".join(terms.kinds)),
        (
            *("people return to", "回跳地址"),
            *(", ".join(now.redirect_uris), ", ".join(terms.redirect_uris)),
        ),
        ("keys", "密钥", _kids(now.jwks), _kids(terms.jwks)),
        ("proves itself by", "身份证明方式", _how(now.proving), _how(terms.proving)),
        ("is told at", "通知地址", told.url if told else _NONE, terms.webhook_url or _NONE),
        ("state", "状态", now.state.value, terms.state.value),
    ]
    return [Change(en, zh, before, after) for en, zh, before, after in pairs if before != after]


def _kids(keys: Sequence[dict[str, object]]) -> str:
    """Return keys by name and content: another key under an old name must be seen."""
    prints = [f"{key.get('kid')} ({thumbprint(key)[:16]})" for key in keys]
    prints += [f"x5t#S256 {x5t_of(each)[:16]}" for each in registered_certificates(keys)]
    return ", ".join(prints) or _NONE


def _columns(proving: Proving) -> tuple[object, ...]:
    return (
        *(proving.method, proving.name_kind, proving.name),
        *(proving.binds_certificate, proving.signs_requests),
    )


def _how(proving: Proving) -> str:
    """Return how a partner proves itself and its requests, and what tokens are bound to."""
    named = f" {proving.name_kind}={proving.name}" if proving.name_kind else ""
    bound = "certificate" if proving.binds_certificate else "DPoP"
    signed = "; requests: signed" if proving.signs_requests else ""
    return f"{proving.method.value}{named}; tokens: {bound}{signed}"
