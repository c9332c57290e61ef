"""The keys of an account at WeChat Pay."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field


class WechatPaySecrets(Struct, frozen=True, forbid_unknown_fields=True):
    """What only we and WeChat Pay know, and the keys WeChat Pay signs with.

    ``platform_keys`` maps a serial (or ``PUB_KEY_ID_…``) to a PEM: a platform certificate or a
    public key. With ``public_key_id`` the account is in public-key mode; without it, platform
    certificates are fetched when an unknown serial appears.
    """

    api_v3_key: str
    merchant_serial: str  # of the merchant API certificate
    merchant_private_key_pem: str
    platform_keys: Mapping[str, str] = field(default_factory=dict)
    public_key_id: str = ""

    def __post_init__(self) -> None:
        if len(self.api_v3_key.encode()) != 32:
            raise ValueError("the APIv3 key has 32 bytes")
        if self.public_key_id and self.public_key_id not in self.platform_keys:
            raise ValueError("platform_keys holds no key of this public_key_id")

    def __repr__(self) -> str:
        return "WechatPaySecrets(***)"
