"""Verify a webhook of the platform on its raw bytes (Standard Webhooks 1.0)."""

from __future__ import annotations

import hmac
import json
import time
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tongbao_sdk.errors import WebhookInvalid
from tongbao_sdk.replies import Event

TOLERANCE_S: Final = 300


class Headers(Protocol):
    """The headers of any web framework: names and values."""

    def items(self) -> Iterable[tuple[str, str]]:
        """Return every header; the case of its name does not matter."""


_Check = Callable[[bytes, bytes], bool]
"""Whether a signature is right for what was signed."""


def verify_webhook(
    headers: Headers,
    body: bytes,
    *,
    public_keys: Sequence[str] = (),
    secrets: Sequence[str] = (),
    now: float | None = None,
) -> Event:
    """Return the event of a webhook, verified with any of the ``whpk_`` keys or ``whsec_`` secrets.

    ``body`` is what came over the wire, byte for byte. A webhook may come more than once and out of
    order: remember ``event["id"]``, and compare ``version`` of the resource with the one you know.

    Raises:
        WebhookInvalid: a header is missing, the time is off by more than five minutes, or no
            signature verifies.
        ValueError: no key was given, or one is not a key.
    """
    checks = {"v1a": [_ed25519(key) for key in public_keys], "v1": [_hmac(key) for key in secrets]}
    if not any(checks.values()):
        raise ValueError("give the endpoint's public keys or secrets")
    lower = {name.lower(): value for name, value in headers.items()}
    try:
        message_id = lower["webhook-id"]
        timestamp = lower["webhook-timestamp"]
        signatures = lower["webhook-signature"].split()
        age_s = abs((time.time() if now is None else now) - int(timestamp))
    except (KeyError, ValueError):
        raise WebhookInvalid("a webhook header is missing or malformed") from None
    if age_s > TOLERANCE_S:
        raise WebhookInvalid("the webhook's time is more than five minutes off")
    signed = f"{message_id}.{timestamp}.".encode() + body
    if not any(_verifies(signature, signed, checks) for signature in signatures):
        raise WebhookInvalid("no signature of the webhook verifies")
    try:
        return cast("Event", json.loads(body))
    except ValueError:
        raise WebhookInvalid("the webhook is signed and is not JSON") from None


def _verifies(signature: str, signed: bytes, checks: Mapping[str, Sequence[_Check]]) -> bool:
    version, _, text = signature.partition(",")
    try:
        given = b64decode(text, validate=True)
    except ValueError:
        return False
    return any(check(given, signed) for check in checks.get(version, ()))


def _hmac(secret: str) -> _Check:
    key = _unpacked(secret.removeprefix("whsec_"))

    def check(given: bytes, signed: bytes) -> bool:
        return hmac.compare_digest(hmac.digest(key, signed, "sha256"), given)

    return check


def _ed25519(public_key: str) -> _Check:
    key = Ed25519PublicKey.from_public_bytes(_unpacked(public_key.removeprefix("whpk_")))

    def check(given: bytes, signed: bytes) -> bool:
        try:
            key.verify(given, signed)
        except InvalidSignature:
            return False
        return True

    return check


def _unpacked(text: str) -> bytes:
    """Return the bytes of a key; some tools strip the padding."""
    return b64decode(text + "=" * (-len(text) % 4), validate=True)
