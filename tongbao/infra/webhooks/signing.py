"""Signatures of Standard Webhooks 1.0: HMAC-SHA256 (`v1`) and Ed25519 (`v1a`). No I/O.

What is signed is ``id.timestamp.body``, byte for byte. While two keys overlap in a rotation, each
signs, and the receiver accepts whichever it knows.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from tongbao.infra.crypto import (
    ed25519_new_key,
    ed25519_public_key,
    ed25519_sign,
    hmac_sha256,
)

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - the start of every secret, not one
PUBLIC_PREFIX: Final = "whpk_"
_HMAC_BYTES: Final = 32
_SEED_BYTES: Final = 32


class SigningKey(Struct, frozen=True):
    """The secrets of one key of an endpoint: the shared one and the Ed25519 seed."""

    shared: bytes
    seed: bytes

    def __repr__(self) -> str:
        return "SigningKey(********)"

    @property
    def secret_text(self) -> str:
        """What the merchant keeps to verify `v1`; shown once."""
        return SECRET_PREFIX + b64encode(self.shared).decode()

    @property
    def public_text(self) -> str:
        """What anybody may use to verify `v1a`."""
        return PUBLIC_PREFIX + b64encode(ed25519_public_key(self.seed)).decode()

    def packed(self) -> bytes:
        """Return the bytes to seal."""
        return self.seed + self.shared


def new_signing_key() -> SigningKey:
    """Return a fresh key."""
    return SigningKey(os.urandom(_HMAC_BYTES), ed25519_new_key())


def unpacked(packed: bytes) -> SigningKey:
    """Return the key that was packed."""
    return SigningKey(packed[_SEED_BYTES:], packed[:_SEED_BYTES])


def signature_v1(shared: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the HMAC-SHA256 signature."""
    mac = hmac_sha256(shared, _signed(message_id, timestamp, body))
    return f"v1,{b64encode(mac).decode()}"


def signature_v1a(seed: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the Ed25519 signature."""
    signature = ed25519_sign(seed, _signed(message_id, timestamp, body))
    return f"v1a,{b64encode(signature).decode()}"


def signed_headers(
    keys: Sequence[SigningKey], message_id: str, timestamp: int, body: bytes
) -> dict[str, str]:
    """Return the three headers that let a receiver verify the body and refuse old copies."""
    signatures = [
        sign
        for key in keys
        for sign in (
            signature_v1a(key.seed, message_id, timestamp, body),
            signature_v1(key.shared, message_id, timestamp, body),
        )
    ]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signatures),
    }


def _signed(message_id: str, timestamp: int, body: bytes) -> bytes:
    return f"{message_id}.{timestamp}.".encode() + body
