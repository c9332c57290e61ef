"""Grants: a pushed request becomes a code, a code becomes tokens, and each is good once.

push ──60 s──► opened by one browser ──10 min──► code ──60 s──► tokens, bound to a DPoP key
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.crypto import constant_time_equal
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.infra.jose import s256
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import new_id, show
from tongbao.parties.consents import _store as store
from tongbao.parties.consents.consents import (
    authorise_consent,
    lodge_consent,
    reject_consent,
    revoke_consent,
)
from tongbao.parties.consents.model import (
    ACCESS_LIFE,
    CODE_LIFE,
    OPENED_LIFE,
    REQUEST_LIFE,
    URN,
    Authorisation,
    Consent,
    ConsentEnded,
    Holder,
    PartnerToken,
    ResponseMode,
    Wish,
    hashed,
    new_secret,
)
from tongbao.parties.partners.model import Kind, Partner
from tongbao.parties.people.model import Person


class Pushed(Struct, frozen=True):
    """The parts of a pushed request that its later steps are compared with."""

    redirect_uri: str
    code_challenge: str
    client_state: str | None
    jkt: str | None  # the DPoP key that the code is to be bound to, where one is named
    response_mode: ResponseMode = "query"


class Redeeming(Struct, frozen=True):
    """What comes with a code."""

    code: str
    redirect_uri: str
    code_verifier: str
    holder: Holder


class Issued(Struct, frozen=True):
    """New tokens, in the clear this once, and the consent that they are on."""

    access: str
    refresh: str | None
    consent: Consent


Problem = Literal["invalid_grant", "invalid_dpop_proof"]


async def push(tx: Tx, partner: Partner, pushed: Pushed, wish: Wish | UUID) -> str:
    """Keep a request for a minute and return its ``request_uri``; it may name a lodged consent."""
    consent_id = wish if isinstance(wish, UUID) else await lodge_consent(tx, partner, wish)
    secret, now = new_secret(), real_now()
    await store.PUSH.run(
        tx,
        new_id(),
        partner.id,
        consent_id,
        hashed(secret),
        pushed.redirect_uri,
        pushed.code_challenge,
        pushed.client_state,
        pushed.jkt,
        now,
        now + REQUEST_LIFE,
        pushed.response_mode,
    )
    return URN + secret


async def open_request(
    db: Db, partner_id: UUID, request_uri: str, browser: str
) -> Authorisation | None:
    """Tie a pushed request to the one browser that opens it; a second cannot."""
    if not request_uri.startswith(URN):
        return None
    secret, now = request_uri.removeprefix(URN), real_now()
    return await store.OPEN.first(
        db, hashed(secret), partner_id, hashed(browser), now, now + OPENED_LIFE
    )


async def request_of_browser(on: Db | Tx, browser: str) -> Authorisation | None:
    """Return the request that this browser has open."""
    return await store.OF_BROWSER.first(on, hashed(browser), real_now())


async def note_login(tx: Tx, request: Authorisation, person: Person) -> bool:
    """Write down who sits before the browser; it tells whether nobody did before."""
    return bool(await store.LOGGED_IN.run(tx, request.id, person.id))


async def note_choice(
    tx: Tx, request: Authorisation, accounts: list[UUID], message_code: UUID
) -> None:
    """Keep which accounts were chosen, and the code that was sent about exactly that.

    Raises:
        ConsentEnded
    """
    if not await store.CHOSE.run(tx, request.id, accounts, message_code):
        raise ConsentEnded


async def grant(tx: Tx, request: Authorisation, person: Person, *, methods: list[str]) -> str:
    """Write the consent down and return the code for the partner.

    Raises:
        ConsentEnded
    """
    await authorise_consent(tx, request.consent_id, person, request.chosen, methods=methods)
    code, now = new_secret(), real_now()
    if not await store.GIVE_CODE.run(tx, request.id, hashed(code), now + CODE_LIFE, now):
        raise ConsentEnded
    failpoint("consents.before_grant_commit")
    return code


async def decline(tx: Tx, request: Authorisation, person: Person | None) -> None:
    """Write down that the person does not consent, and close the request.

    Raises:
        ConsentEnded
    """
    if not await store.END.run(tx, request.id, real_now()):
        raise ConsentEnded
    await reject_consent(tx, request.consent_id, person)


async def redeem(db: Db, partner: Partner, asked: Redeeming) -> Issued | Problem:
    """Return tokens for a code, once; a code that comes a second time takes back what it gave.

    The second coming is decided on the locked row, so of two at once one gets tokens, and the
    other ends them. Another partner's try changes nothing: it has not proved that it has a right.
    """
    async with db.begin(partner.client_id) as tx:
        request = await store.LOCK_CODE.first(tx, hashed(asked.code))
        if request is None or request.partner_id != partner.id:
            return "invalid_grant"
        if request.code_used_at is not None:
            await revoke_consent(tx, request.consent_id, by="code_reuse")
            subject = show("cns", request.consent_id)
            await audit.record(tx, "consent.code_reused", subject, {"partner": partner.client_id})
            return "invalid_grant"
        if problem := _unfit(request, asked, real_now()):
            return problem
        await store.USE_CODE.run(tx, request.id, real_now())
        consent = await store.LOCK_CONSENT.one(tx, request.consent_id)
        if not consent.is_good(tx.now):
            return "invalid_grant"
        issued = await _issue(tx, request.id, consent, asked.holder, with_refresh=True)
        failpoint("consents.before_tokens_commit")
        return issued


async def refresh(db: Db, partner: Partner, token: str, holder: Holder) -> Issued | Problem:
    """Return a new access token; the refresh token stays as it is (FAPI 2.0 §5.3.2.1 no. 9).

    A new certificate of the same partner may use it: the partner has proved itself beside it, and
    certificates are renewed oftener than consents (RFC 8705 §7.1). A new DPoP key may not.
    """
    async with db.begin(partner.client_id) as tx:
        found = await store.GET_TOKEN.first(tx, hashed(token))
        if found is None or (found.partner_id, found.kind) != (partner.id, "refresh"):
            return "invalid_grant"
        if found.jkt != holder.jkt:
            return "invalid_dpop_proof"
        consent = await store.LOCK_CONSENT.one(tx, found.consent_id)
        # Read again behind the lock: a revocation that we waited for has ended it.
        again = await store.GET_TOKEN.one(tx, found.token_hash)
        if not again.is_good(real_now()) or not consent.is_good(tx.now):
            return "invalid_grant"
        return await _issue(tx, found.authorisation_id, consent, holder, with_refresh=False)


async def revoke_token(db: Db, partner: Partner, token: str) -> None:
    """End a token of the partner's (RFC 7009); a refresh token takes its consent with it.

    An unknown token, or another's, is passed over: the answer tells nothing of it.
    """
    async with db.begin(partner.client_id) as tx:
        found = await store.GET_TOKEN.first(tx, hashed(token))
        if found is None or found.partner_id != partner.id:
            return
        if found.kind == "refresh":
            await revoke_consent(tx, found.consent_id, by="partner")
        else:
            await store.REVOKE_TOKEN.run(tx, found.token_hash, real_now())


class Introspected(Struct, frozen=True):
    """An access token that is good, and what it is good for."""

    token: PartnerToken
    consent: Consent


async def introspect(db: Db, token: str) -> Introspected | None:
    """Return what an access token opens at this moment, for ourselves; None where nothing."""
    found = await store.GET_TOKEN.first(db, hashed(token))
    if found is None or found.kind != "access" or not found.is_good(real_now()):
        return None
    return Introspected(found, await store.GET_CONSENT.one(db, found.consent_id))


async def introspect_own(db: Db, partner: Partner, token: str) -> Introspected | None:
    """Return what a token of the partner's own is good for now; None of another's, or of none."""
    found = await store.GET_TOKEN.first(db, hashed(token))
    if found is None or found.partner_id != partner.id or not found.is_good(real_now()):
        return None
    consent = await store.GET_CONSENT.one(db, found.consent_id)
    return Introspected(found, consent) if consent.is_good(db.clock.now()) else None


_KEPT: Final = OPENED_LIFE


async def prune_grants(db: Db) -> None:
    """Forget tokens and requests that are over; consents stay."""
    await store.PRUNE_ACCESS.run(db, real_now() - _KEPT)
    await store.PRUNE_TOKENS.run(db, real_now() - _KEPT)
    await store.PRUNE_AUTHORISATIONS.run(db, real_now() - _KEPT)


def _unfit(request: Authorisation, asked: Redeeming, now: datetime) -> Problem | None:
    """Return what is wrong with a code that was not used yet; it stays unused by that."""
    if request.code_expires_at is None or now >= request.code_expires_at:
        return "invalid_grant"
    if request.redirect_uri != asked.redirect_uri:
        return "invalid_grant"
    challenge = s256(asked.code_verifier).encode()
    if not constant_time_equal(challenge, request.code_challenge.encode()):
        return "invalid_grant"
    if request.jkt is not None and request.jkt != asked.holder.jkt:
        return "invalid_dpop_proof"
    return None


async def _issue(
    tx: Tx, authorisation_id: UUID, consent: Consent, holder: Holder, *, with_refresh: bool
) -> Issued:
    access, now = new_secret(), real_now()
    row = (authorisation_id, consent.partner_id, consent.id, holder.jkt, now)
    end = now + ACCESS_LIFE
    await store.INSERT_TOKEN.run(tx, hashed(access), "access", *row, end, holder.x5t)
    token: str | None = None
    if with_refresh and consent.kind is not Kind.PAYMENT_INITIATION:
        token = new_secret()
        # Business time ends the consent; the token's own end is only for tidying up.
        left = consent.expires_at - tx.now
        end = now + left
        await store.INSERT_TOKEN.run(tx, hashed(token), "refresh", *row, end, holder.x5t)
    return Issued(access, token, consent)
