"""Signed messages of UK Open Banking: payments as they come, and what is answered about them.

``x-jws-signature`` is a JWS whose payload, the body as it was sent, is left out (RFC 7515 appendix
F). As from 3.1.4 of the Read/Write specification the payload is encoded as any other and ``b64``
may not be there; it is signed with PS256, and ``iat``, ``iss`` and ``tan`` stand in the header,
under names of their own that ``crit`` lists.

Here ``iss`` is the partner's client id, or our issuer, and ``tan``, where the keys are published,
is our host: partners register theirs with us.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from tongbao.infra.jose import (
    Detached,
    TokenMalformed,
    key_with_id,
    read_detached,
    sign_detached,
    verify_detached,
)
from tongbao.kernel.clock import real_now
from tongbao.parties.partners.message_keys import signing_key
from tongbao.parties.partners.model import Partner
from tongbao.parties.partners.partners import use_token
from tongbao.surfaces.open_bank.desk import Desk
from tongbao.surfaces.open_bank.protocol import SKEW_S, Asked
from tongbao.surfaces.uk_open_banking.shapes import Refused

HEADER: Final = "x-jws-signature"
AGE_S_MAX: Final = 3600
"""How old a signature may be; a repeat after that is signed anew, under the same key."""
_AT: Final = "http://openbanking.org.uk/"
IAT, ISS, TAN = f"{_AT}iat", f"{_AT}iss", f"{_AT}tan"
CLAIMS: Final = (IAT, ISS, TAN)
_MEMBERS: Final = frozenset({"alg", "kid", "typ", "cty", "crit", *CLAIMS})


async def check_signed(desk: Desk, asked: Asked, partner: Partner, key: str) -> None:
    """Raise unless the partner has signed this very body, not long ago, for this idempotency key.

    The same message may come again under its own key, which then answers what it answered; under
    another key it would be another payment, which nobody has signed.

    Raises:
        Refused
    """
    if not desk.signs_messages:
        return
    text = asked.header(HEADER)
    if text is None:
        raise Refused("UK.OBIE.Signature.Missing", "Payments are signed", HEADER)
    try:
        said = read_detached(text)
    except TokenMalformed:
        raise _wrong("Malformed", "It is no detached JWS by PS256") from None
    _check_header(said.header)
    _check_claims(desk, said.header, partner)
    try:
        key_of = key_with_id(partner.jwks, said.header["kid"], "PS256")
        verify_detached(said, asked.body, key_of, CLAIMS)
    except TokenMalformed:
        raise _wrong("Invalid", "It is not of this body by a key of the client") from None
    await _check_first(desk, partner, said, key)


async def signature_of(desk: Desk, body: bytes) -> str:
    """Return our signature of an answer's body."""
    key = await signing_key(desk.db, desk.keyring)
    header: dict[str, Any] = {
        "alg": "PS256",
        "kid": key.kid,
        "typ": "JOSE",
        "cty": "application/json",
        IAT: int(real_now().timestamp()),
        ISS: desk.issuer,
        TAN: anchor_of(desk),
        "crit": [*CLAIMS],
    }
    return sign_detached(header, body, key.der)


def anchor_of(desk: Desk) -> str:
    """Return where the keys of both sides are published: our host."""
    return urlsplit(desk.issuer).hostname or ""


def _check_header(header: Mapping[str, Any]) -> None:
    """Raise unless a header has what the profile lists, and nothing more.

    Raises:
        Refused
    """
    if not set(header) <= _MEMBERS:  # b64 among others: it may not be there since 3.1.4
        raise _wrong("Malformed", "Its header has a member that the profile has not")
    if header.get("alg") != "PS256" or not isinstance(header.get("kid"), str):
        raise _wrong("Malformed", "alg is not PS256, or kid is missing")
    if header.get("typ", "JOSE") != "JOSE":
        raise _wrong("InvalidClaim", "typ is not JOSE")
    if header.get("cty", "application/json") not in {"application/json", "json"}:
        raise _wrong("InvalidClaim", "cty is not application/json")
    for name in CLAIMS:
        if name not in header:
            raise _wrong("MissingClaim", f"{name} is missing")
    listed = header.get("crit")
    if not isinstance(listed, list) or sorted(map(str, listed)) != sorted(CLAIMS):
        raise _wrong("InvalidClaim", "crit does not list iat, iss and tan, each once")


def _check_claims(desk: Desk, header: Mapping[str, Any], partner: Partner) -> None:
    """Raise unless it was signed by this partner, for here and lately.

    Raises:
        Refused
    """
    made, now = header[IAT], real_now().timestamp()
    if not isinstance(made, int) or isinstance(made, bool):
        raise _wrong("InvalidClaim", "iat is no number of seconds")
    if not -SKEW_S <= now - made <= AGE_S_MAX:
        raise _wrong("InvalidClaim", "iat is ahead, or over an hour old")
    if header[ISS] != partner.client_id:
        raise _wrong("InvalidClaim", "iss is not the client")
    if header[TAN] != anchor_of(desk):
        raise _wrong("InvalidClaim", "tan is not this host")


async def _check_first(desk: Desk, partner: Partner, said: Detached, key: str) -> None:
    """Raise where a signature was used under another idempotency key.

    The pair is written first: who dies between the two can still repeat the same message.

    Raises:
        Refused
    """
    end = real_now() + timedelta(seconds=AGE_S_MAX + 2 * SKEW_S)
    signer = f"jws {partner.client_id}"
    is_first_pair = await use_token(desk.db, signer, f"{said.text} {key}", end)
    is_first = await use_token(desk.db, signer, said.text, end)
    if is_first_pair and not is_first:
        raise _wrong("Invalid", "It was used under another idempotency key")


def _wrong(what: str, message: str) -> Refused:
    return Refused(f"UK.OBIE.Signature.{what}", message, HEADER)
