"""Passkeys (W3C Web Authentication): for this site alone, with a finger, a face or a PIN.

    active ──counts backwards──► suspect      active, suspect ──► ended

The library is an extra (docs/adr/0025). What it does not look at is looked at here first: that no
other site's page asked (`crossOrigin`, `topOrigin`). Attestations are not asked for; one that comes
is checked and tells nothing more than that it is whole.
"""

from __future__ import annotations

import base64
import importlib
import secrets
from importlib.util import find_spec
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.kernel.clock import real_now
from tongbao.kernel.errors import Fact
from tongbao.kernel.ids import new_id, show
from tongbao.parties.authentication import _store as store
from tongbao.parties.authentication.model import (
    CHALLENGE_LIFE,
    Act,
    AuthenticatorNotFound,
    Challenge,
    Passkey,
    PasskeyRefused,
    PasskeyUnavailable,
    ProofRefused,
)

PREFIX: Final = "psk"
ALGORITHMS: Final = (-7, -8, -257)
"""COSE numbers: ES256, EdDSA (Ed25519), RS256; what the authenticators that people have can do."""
_TIMEOUT_MS: Final = 300_000
_PASSKEYS_MAX: Final = 20
_RESPONSE_MAX: Final = 64 * 1024


class Site(Struct, frozen=True):
    """Whose passkeys these are, and the origins that may ask for them."""

    id: str
    name: str
    origins: tuple[str, ...]


class Shown(Struct, frozen=True):
    """A credential as it proved to be."""

    credential_id: bytes
    public_key: bytes
    sign_count: int
    may_be_backed_up: bool
    is_backed_up: bool
    aaguid: str


class Answered(Struct, frozen=True):
    """What a good answer to a challenge says besides."""

    sign_count: int
    may_be_backed_up: bool
    is_backed_up: bool


def site_of(public_url: str, name: str = "Tongbao") -> Site:
    """Return the site that is reached under an origin."""
    return Site(urlsplit(public_url).hostname or "localhost", name, (public_url.rstrip("/"),))


async def new_challenge(
    tx: Tx, purpose: str, owner_id: UUID | None, act: Act | None = None
) -> Challenge:
    """Ask something that is answered once, within minutes."""
    return await store.INSERT_CHALLENGE.one(
        tx,
        new_id(),
        owner_id,
        purpose,
        secrets.token_bytes(32),
        act.digest if act else None,
        real_now() + CHALLENGE_LIFE,
    )


async def use_challenge(
    db: Db, challenge_id: UUID, purpose: str, owner_id: UUID | None, act: Act | None = None
) -> Challenge:
    """Return a challenge that was asked of this owner about this act; it is used up by that.

    Raises:
        ProofRefused
    """
    found = await store.USE_CHALLENGE.first(db, challenge_id, purpose, real_now())
    if found is None or found.owner_id != owner_id:
        raise ProofRefused
    if found.act_digest != (act.digest if act else None):
        raise ProofRefused
    return found


def creation_options(
    site: Site, challenge: Challenge, *, owner_id: UUID, account: str, known: list[Passkey]
) -> dict[str, Any]:
    """Return the options for ``navigator.credentials.create``, in JSON form."""
    return {
        "rp": {"id": site.id, "name": site.name},
        "user": {"id": _text(owner_id.bytes), "name": account, "displayName": account},
        "challenge": _text(challenge.signed),
        "pubKeyCredParams": [{"type": "public-key", "alg": each} for each in ALGORITHMS],
        "timeout": _TIMEOUT_MS,
        "excludeCredentials": _descriptors(known),
        "authenticatorSelection": {"residentKey": "required", "userVerification": "required"},
        "attestation": "none",
    }


def request_options(site: Site, challenge: Challenge, known: list[Passkey]) -> dict[str, Any]:
    """Return the options for ``navigator.credentials.get``; ``known`` empty asks for any."""
    return {
        "rpId": site.id,
        "challenge": _text(challenge.signed),
        "timeout": _TIMEOUT_MS,
        "allowCredentials": _descriptors(known),
        "userVerification": "required",
    }


async def add_passkey(
    tx: Tx, site: Site, challenge: Challenge, owner_id: UUID, name: str, *, response: Any
) -> Passkey:
    """Keep a new passkey that answers the challenge.

    Raises:
        PasskeyUnavailable, PasskeyRefused
    """
    shown = check_creation(site, challenge.signed, response)
    if len(await passkeys_of(tx, owner_id)) >= _PASSKEYS_MAX:
        raise PasskeyRefused(reason="too many")
    made = await store.INSERT_PASSKEY.first(
        tx,
        new_id(),
        owner_id,
        shown.credential_id,
        shown.public_key,
        shown.sign_count,
        shown.may_be_backed_up,
        shown.is_backed_up,
        name,
        shown.aaguid,
        tx.now,
    )
    if made is None:
        raise PasskeyRefused(reason="known already")
    facts: dict[str, Fact] = {
        "passkey": show(PREFIX, made.id),
        "backed_up": made.is_backed_up,
    }
    await audit.record(tx, "passkey.added", tx.actor, facts)
    return made


async def passkey_proves(
    db: Db, site: Site, challenge: Challenge, response: Any, *, actor: str
) -> Passkey:
    """Return the passkey that answers the challenge, whosever it is; its count moves on.

    Raises:
        PasskeyUnavailable, PasskeyRefused
    """
    credential_id = _credential_id(response)
    known = await store.FIND_PASSKEY.first(db, credential_id)
    if known is None or known.state != "active":
        raise PasskeyRefused
    answered = check_answer(site, challenge.signed, known.public_key, response)
    if answered.may_be_backed_up != known.may_be_backed_up:
        raise PasskeyRefused(reason="another kind of key")
    now = real_now()
    counted = await store.COUNT_PASSKEY.run(
        db, known.id, answered.sign_count, answered.is_backed_up, now
    )
    if not counted:
        async with db.begin(actor) as tx:
            await store.SUSPECT_PASSKEY.run(tx, known.id)
            facts = {"said": answered.sign_count, "known": known.sign_count}
            await audit.record(tx, "passkey.suspected", show(PREFIX, known.id), facts)
        raise PasskeyRefused(reason="counted backwards")
    if answered.is_backed_up != known.is_backed_up:
        async with db.begin(actor) as tx:
            facts = {"backed_up": answered.is_backed_up}
            await audit.record(tx, "passkey.backup_changed", show(PREFIX, known.id), facts)
    return known


async def passkeys_of(on: Db | Tx, owner_id: UUID) -> list[Passkey]:
    """Return somebody's passkeys, the suspect ones too, the oldest first."""
    return await store.PASSKEYS.all(on, owner_id)


async def end_passkey(tx: Tx, owner_id: UUID, passkey_id: UUID) -> None:
    """Take a passkey no more.

    Raises:
        AuthenticatorNotFound
    """
    if not await store.END_PASSKEY.run(tx, passkey_id, owner_id):
        raise AuthenticatorNotFound
    await audit.record(tx, "passkey.ended", tx.actor, {"passkey": show(PREFIX, passkey_id)})


async def forget_passkeys(tx: Tx, owner_id: UUID) -> None:
    """Forget every passkey somebody had."""
    await store.FORGET_PASSKEYS.run(tx, owner_id)


def check_creation(site: Site, challenge: bytes, response: Any) -> Shown:
    """Return the credential of a registration that is good for the site and the challenge.

    Raises:
        PasskeyUnavailable, PasskeyRefused
    """
    library = _library()
    _check_client(response)
    try:
        made = library.verify_registration_response(
            credential=response,
            expected_challenge=challenge,
            expected_rp_id=site.id,
            expected_origin=list(site.origins),
            require_user_verification=True,
            supported_pub_key_algs=list(ALGORITHMS),
        )
    except Exception as failure:  # noqa: BLE001 - hostile bytes: its parsers raise whatever they like
        raise PasskeyRefused(reason=type(failure).__name__) from None
    return Shown(
        made.credential_id,
        made.credential_public_key,
        made.sign_count,
        made.credential_device_type.value == "multi_device",
        made.credential_backed_up,
        made.aaguid,
    )


def check_answer(site: Site, challenge: bytes, public_key: bytes, response: Any) -> Answered:
    """Return what an assertion says that is good for the site, the challenge and the key.

    The count is left to the caller, who knows what to make of one that does not grow.

    Raises:
        PasskeyUnavailable, PasskeyRefused
    """
    library = _library()
    _check_client(response)
    try:
        said = library.verify_authentication_response(
            credential=response,
            expected_challenge=challenge,
            expected_rp_id=site.id,
            expected_origin=list(site.origins),
            credential_public_key=public_key,
            credential_current_sign_count=0,
            require_user_verification=True,
        )
    except Exception as failure:  # noqa: BLE001 - as above
        raise PasskeyRefused(reason=type(failure).__name__) from None
    return Answered(
        said.new_sign_count,
        said.credential_device_type.value == "multi_device",
        said.credential_backed_up,
    )


def _library() -> Any:
    if find_spec("webauthn") is None:
        raise PasskeyUnavailable
    return importlib.import_module("webauthn")


def _check_client(response: Any) -> None:
    """Refuse what was asked for by a page inside another site's, or by one around ours."""
    try:
        raw = _bytes(response["response"]["clientDataJSON"])
        said = msgspec.json.decode(raw, type=dict[str, Any])
        crossed = said.get("crossOrigin", False) is not False or "topOrigin" in said
    except (KeyError, TypeError, ValueError, msgspec.MsgspecError):
        raise PasskeyRefused(reason="malformed") from None
    if crossed:
        raise PasskeyRefused(reason="asked from another site")


def _credential_id(response: Any) -> bytes:
    try:
        if len(msgspec.json.encode(response)) > _RESPONSE_MAX:
            raise PasskeyRefused(reason="too long")
        return _bytes(response["rawId"])
    except (KeyError, TypeError, ValueError):
        raise PasskeyRefused(reason="malformed") from None


def _descriptors(known: list[Passkey]) -> list[dict[str, str]]:
    return [{"type": "public-key", "id": _text(each.credential_id)} for each in known]


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
