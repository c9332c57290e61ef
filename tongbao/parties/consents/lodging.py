"""What a partner does before anybody has consented: it is let in, and lodges what it will ask for.

A consent that is lodged waits for its day at most; a pushed request then names it.
"""

from __future__ import annotations

import contextlib
import hashlib
from typing import Final
from uuid import UUID

from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.clock import real_now
from tongbao.kernel.errors import Conflict
from tongbao.parties.consents import _store as store
from tongbao.parties.consents.consents import lodge_consent, reject_consent, revoke_consent
from tongbao.parties.consents.model import (
    ACCESS_LIFE,
    Consent,
    ConsentNotFound,
    Holder,
    PartnerAccess,
    Scope,
    State,
    Wish,
    hashed,
    new_secret,
)
from tongbao.parties.partners.model import Kind, Partner

KINDS: Final[dict[str, Kind]] = {
    "accounts": Kind.ACCOUNT_INFORMATION,
    "payments": Kind.PAYMENT_INITIATION,
}
"""What a partner must be allowed to ask for, by the scope of its own token."""


class LodgedDifferently(Conflict):
    """Another consent was lodged under this key."""

    code = "consent.lodged_differently"
    advice = "Send what was sent before under this key, or take a new key."
    advice_zh = "该幂等键已用于不同的请求，请使用相同内容或更换幂等键。"


class _KeyTaken(Exception):
    """Another request has lodged under this key meanwhile."""


async def let_in(db: Db, partner: Partner, scope: Scope, holder: Holder) -> str:
    """Return a token of the partner's own for ten minutes, bound to its key or certificate."""
    token, now = new_secret(), real_now()
    row = (hashed(token), partner.id, scope, holder.jkt, now, now + ACCESS_LIFE, holder.x5t)
    await store.LET_IN.run(db, *row)
    return token


async def access_of(db: Db, token: str) -> PartnerAccess | None:
    """Return what a partner's own token opens at this moment."""
    found = await store.GET_ACCESS.first(db, hashed(token))
    return found if found is not None and real_now() < found.expires_at else None


async def lodge_once(db: Db, partner: Partner, wish: Wish, *, key: str, body: bytes) -> Consent:
    """Lodge a consent, or return the one that was lodged under this key before.

    Raises:
        LodgedDifferently
    """
    names = (partner.id, hashlib.sha256(key.encode()).digest())
    said = hashlib.sha256(body).digest()
    if await store.GET_LODGED.first(db, *names) is None:
        with contextlib.suppress(_KeyTaken):
            async with db.begin(partner.client_id) as tx:
                consent_id = await lodge_consent(tx, partner, wish)
                # Of two at once the second waits here for the first, and then lodges nothing.
                if not await store.KEEP_LODGED.run(tx, *names, said, consent_id):
                    raise _KeyTaken
                failpoint("consents.before_lodged_commit")
    before = await store.GET_LODGED.one(db, *names)
    if before.body_hash != said:
        raise LodgedDifferently
    return await store.GET_CONSENT.one(db, before.consent_id)


async def lodged(on: Db | Tx, partner: Partner, consent_id: UUID, kind: Kind) -> Consent:
    """Return a consent of this kind that the partner has asked for; another's is not there.

    Raises:
        ConsentNotFound
    """
    found = await store.GET_CONSENT.first(on, consent_id)
    if found is None or found.partner_id != partner.id or found.kind is not kind:
        raise ConsentNotFound
    return found


async def withdraw(tx: Tx, consent: Consent) -> None:
    """Let go of a consent, whether anybody has authorised it or not; again changes nothing."""
    found = await store.LOCK_CONSENT.one(tx, consent.id)
    if found.state is State.AWAITING:
        await reject_consent(tx, consent.id, None)
    else:
        await revoke_consent(tx, consent.id, by="partner")
