"""Verify a webhook of the platform on its raw bytes (Standard Webhooks 1.0)."""

from __future__ import annotations

import hmac
import json
import time
from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tongbao_sdk.errors import TongbaoError

TOLERANCE_S = 300


class WebhookInvalid(TongbaoError):
    """The webhook is not from the platform, or is too old to be believed."""


class WebhookEvent(TypedDict):
    """What a webhook says: ``data["object"]`` is the resource as it was then."""

    id: str
    type: str
    created_at: str
    mode: str
    data: dict[str, Any]


def verify_webhook(
    headers: Mapping[str, str],
    body: bytes,
    *,
    secrets: Sequence[str] = (),
    public_keys: Sequence[str] = (),
    now: float | None = None,
) -> WebhookEvent:
    """Return the event of a webhook, verified with any of the ``whsec_`` or ``whpk_`` keys.

    Raises:
        WebhookInvalid: a header is missing, the time is off by more than five minutes, or no
            signature verifies.
    """
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
    if not any(_verifies(text, signed, secrets, public_keys) for text in signatures):
        raise WebhookInvalid("no signature of the webhook verifies")
    return cast("WebhookEvent", json.loads(body))


def _verifies(
    signature: str, signed: bytes, secrets: Sequence[str], public_keys: Sequence[str]
) -> bool:
    version, _, text = signature.partition(",")
    try:
        given = b64decode(text, validate=True)
    except ValueError:
        return False
    if version == "v1":
        keys = [b64decode(secret.removeprefix("whsec_")) for secret in secrets]
        return any(hmac.compare_digest(hmac.digest(key, signed, "sha256"), given) for key in keys)
    if version == "v1a":
        return any(_ed25519(key, given, signed) for key in public_keys)
    return False


def _ed25519(public_key: str, signature: bytes, signed: bytes) -> bool:
    raw = b64decode(public_key.removeprefix("whpk_"))
    try:
        Ed25519PublicKey.from_public_bytes(raw).verify(signature, signed)
    except InvalidSignature:
        return False
    return True
