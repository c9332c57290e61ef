"""The keys of an application at Alipay."""

from __future__ import annotations

from msgspec import Struct


class AlipaySecrets(Struct, frozen=True, forbid_unknown_fields=True):
    """Our private key and the key Alipay signs with (public-key mode)."""

    app_private_key_pem: str
    alipay_public_key_pem: str  # a public key or a certificate

    def __repr__(self) -> str:
        return "AlipaySecrets(***)"
